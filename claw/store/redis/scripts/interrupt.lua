-- 1 where the queue's first message is worked on, or waits for its next try, has no answer yet, and is to be stopped for
-- the first time; 2 where it is somebody else's than the sender's that is named.
local reply = earlier_reply()
if reply then return reply end
local seq = call('LINDEX', P .. 'lane:' .. ARGV[3], 0)
if not seq then return 0 end
local held = tonumber(call('ZSCORE', P .. 'held', seq) or 0) > now
if not held and tonumber(call('ZSCORE', P .. 'resting', seq) or 0) <= now then return 0 end
local about = call('HMGET', msg(seq), 'fence', 'answer', 'stop', 'inbound', 'key')
if about[2] or about[3] or about[5] == ARGV[4] then return 0 end
if ARGV[5] then
  local ok, said = pcall(cjson.decode, about[4] or '')
  local who = ok and type(said) == 'table' and type(said.sender) == 'table' and said.sender or {}
  local key = who.staffId and who.staffId ~= '' and who.staffId or who.id
  if key ~= ARGV[5] then return 2 end
end
-- Kept with the message, since the hint may be missed: the holder finds it when it renews, or its successor in the lease.
call('HSET', msg(seq), 'stop', 1)
if held then
  call('PUBLISH', P .. 'hints', 'stop ' .. seq .. ' ' .. about[1])
else
  -- Whoever claims it now finds that it was stopped, and puts it away.
  leave(seq)
  make_ready(seq)
  announce()
end
return remember(1)
