-- {number, inbound} of each message that waits right behind a leased one, up to a number of them; nil: not held.
local seq, fence, limit = unpack(ARGV, 3)
if not holds(seq, fence) then return false end
local queue = call('LRANGE', P .. 'lane:' .. call('HGET', msg(seq), 'lane'), 0, limit)
local found = {}
if queue[1] ~= seq then return found end
for i = 2, #queue do
  local about = call('HMGET', msg(queue[i]), 'inbound', 'kind', 'answer')
  if not about[1] or about[2] ~= 'message' or about[3] or call('ZSCORE', P .. 'resting', queue[i]) then break end
  found[#found + 1] = {queue[i], about[1]}
end
return found
