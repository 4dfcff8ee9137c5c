-- 1 where somebody works on the queue's first message, has no answer yet, and is asked to stop for the first time.
local reply = earlier_reply()
if reply then return reply end
local seq = call('LINDEX', P .. 'lane:' .. ARGV[3], 0)
if not seq or tonumber(call('ZSCORE', P .. 'held', seq) or 0) <= now then return 0 end
local about = call('HMGET', msg(seq), 'fence', 'answer', 'stop')
if about[2] or about[3] then return 0 end
-- Kept with the message, since the hint may be missed: the holder finds it when it renews, or its successor in the lease.
call('HSET', msg(seq), 'stop', 1)
call('PUBLISH', P .. 'hints', 'stop ' .. seq .. ' ' .. about[1])
return remember(1)
