-- A receipt in place of what was kept under its id.
local id, body = unpack(ARGV, 3)
return call('SET', P .. 'send:' .. id, body, 'PX', SENDS_MS)
