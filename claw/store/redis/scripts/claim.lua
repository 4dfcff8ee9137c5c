-- {number, fields of the message, how many more are ready, how many of them urgent}; {number}: the message is gone;
-- nil: nothing is ready.
local function lease(seq)
  local fields = call('HMGET', msg(seq), 'fence', 'at', 'attempts', 'claims', 'stop', 'waiting', 'worked',
    'lane', 'urgent', 'inbound', 'trace', 'kind', 'conversation', 'answer')
  return {seq, fields, call('ZCARD', P .. 'ready'), call('ZCARD', P .. 'urgent')}
end
-- Only number and fence are remembered, not the body. The lease of the first time may be over by now, and the message
-- somebody else's: then this is a claim like any other.
local reply = earlier_reply()
if reply and holds(reply[1], reply[2]) then return lease(reply[1]) end
local ttl, urgent = unpack(ARGV, 3)
advance()
local seq = call('ZRANGE', P .. (urgent == '1' and 'urgent' or 'ready'), 0, 0)[1]
if not seq then
  announce()
  return false
end
leave(seq)
if call('EXISTS', msg(seq)) == 0 then
  -- Evicted. What `advance` has made ready must be announced all the same.
  call('ZREM', P .. 'pending', seq)
  announce()
  return {seq}
end
call('ZADD', P .. 'held', now + ttl, seq)
call('HINCRBY', msg(seq), 'claims', 1)
-- Steps of 1 would come to the same fence again where Redis lost the claim in a failover, or gave the number to another
-- message: the holder of that claim would end this one. By the token each claim has a step of its own, up to 2^32.
local step = tonumber(string.sub(redis.sha1hex(ARGV[1]), 1, 8), 16) + 1
remember({seq, text(call('HINCRBY', msg(seq), 'fence', step))})
announce()
return lease(seq)
