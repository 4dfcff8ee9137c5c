-- The receipt that stands: this one, unless there was one.
local id, body = unpack(ARGV, 3)
call('SET', P .. 'send:' .. id, body, 'PX', SENDS_MS, 'NX')
return call('GET', P .. 'send:' .. id)
