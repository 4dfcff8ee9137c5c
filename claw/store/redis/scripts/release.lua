-- Give the message back; its queue is blocked for the delay.
local reply = earlier_reply()
if reply then return reply end
local seq, fence, delay, failed, waiting, worked = unpack(ARGV, 3)
if not holds(seq, fence) then return false end
leave(seq)
-- The fence grows, so that the lease is lost to its holder from here on.
call('HINCRBY', msg(seq), 'fence', 1)
call('HINCRBY', msg(seq), 'attempts', failed)
call('HSET', msg(seq), 'claims', 0)
if waiting == '1' then call('HSETNX', msg(seq), 'waiting', now) else call('HDEL', msg(seq), 'waiting') end
call('HINCRBY', msg(seq), 'worked', worked)
if tonumber(delay) > 0 then call('ZADD', P .. 'resting', now + delay, seq) else make_ready(seq) end
return remember({1, announce()})
