-- One letter as in dead.lua.
local letter = P .. 'letter:' .. ARGV[3]
return call('HMGET', letter, 'key', 'error', 'attempts', 'at', 'buried', 'inbound', 'answer', 'kind')
