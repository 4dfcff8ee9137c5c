-- The epoch is never dropped: were it to fall back to 0, an old session would be taken up again.
local reply = earlier_reply()
if reply then return reply end
call('DEL', P .. 'history:' .. ARGV[3])
call('ZREM', P .. 'memories', ARGV[3])
return remember({call('GET', P .. 'id') or '', call('HINCRBY', P .. 'epochs', ARGV[3], 1)})
