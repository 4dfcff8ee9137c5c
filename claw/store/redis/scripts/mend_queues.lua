-- {the last number that was looked at or '', how many were gone, how many put back into their queue, how many heads put
-- right}. Compares what is kept of each pending message besides itself: its place in its queue, and its queue's state.
local gone, queued, heads = 0, 0, 0
local seqs = call('ZRANGEBYSCORE', P .. 'pending', '(' .. ARGV[3], '+inf', 'LIMIT', 0, MEND_MAX)
local queues = {}

local function numbers_of(queue)
  local numbers = {}
  for _, seq in ipairs(call('LRANGE', P .. 'lane:' .. queue, 0, -1)) do numbers[seq] = true end
  return numbers
end

local function is_in(state, seq) return call('ZSCORE', P .. state, seq) and true or false end

local function is_held(seq) return tonumber(call('ZSCORE', P .. 'held', seq) or 0) > now end

for _, seq in ipairs(seqs) do
  local queue, fence, order = unpack(call('HMGET', msg(seq), 'lane', 'fence', 'order'))
  if not queue then
    leave(seq)
    call('ZREM', P .. 'pending', seq)
    gone = gone + 1
  else
    queues[queue] = queues[queue] or numbers_of(queue)
    if not queues[queue][seq] then
      -- One that was claimed was its head, and is so again.
      local key = P .. 'lane:' .. queue
      if fence ~= '0' then call('LPUSH', key, seq) else enqueue(seq, queue, tonumber(order or 0), call('LLEN', key)) end
      queues[queue][seq] = true
      queued = queued + 1
    end
  end
end

-- The head is in exactly one state. Where it is in none, and was claimed, its holder gets the time to renew; where it
-- is in several, whoever holds it comes first.
local function mend_head(seq)
  local ready, held, resting = is_in('ready', seq), is_in('held', seq), is_in('resting', seq)
  local states = (ready and 1 or 0) + (held and 1 or 0) + (resting and 1 or 0)
  local about = call('HMGET', msg(seq), 'claims', 'urgent')
  local is_urgent = about[2] == '1' and ready
  if states == 1 and is_in('urgent', seq) == is_urgent then return end
  heads = heads + 1
  if held or (states == 0 and tonumber(about[1] or 0) > 0) then
    local ends = call('ZSCORE', P .. 'held', seq) or text(now + TAKEN_MS)
    leave(seq)
    call('ZADD', P .. 'held', ends, seq)
  elseif resting then
    local ends = call('ZSCORE', P .. 'resting', seq)
    leave(seq)
    call('ZADD', P .. 'resting', ends, seq)
  else
    leave(seq)
    make_ready(seq)
  end
end

for queue in pairs(queues) do
  local head = drop_gone_heads(queue)
  if head then mend_head(head) end
  queues[queue] = head
end
for _, seq in ipairs(seqs) do
  local queue = call('HGET', msg(seq), 'lane')
  -- One that somebody works on, though it is not the head, is left to end.
  if queue and queues[queue] ~= seq and not is_held(seq)
    and (is_in('ready', seq) or is_in('urgent', seq) or is_in('held', seq) or is_in('resting', seq)) then
    leave(seq)
    heads = heads + 1
  end
end
announce()
return {#seqs == MEND_MAX and seqs[#seqs] or '', gone, queued, heads}
