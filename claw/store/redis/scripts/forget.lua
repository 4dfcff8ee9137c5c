-- The new epoch is above all that the history had: were it to fall back, an old session would be taken up again.
local reply = earlier_reply()
if reply then return reply end
local key = ARGV[3]
local number = epoch_of(key) + 1
call('DEL', P .. 'history:' .. key)
call('ZREM', P .. 'memories', key)
call('HSET', P .. 'epochs', key, number)
call('ZADD', P .. 'epochs:used', now, key)
return remember({store_id(), number})
