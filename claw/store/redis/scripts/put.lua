-- {1 for a new row, what may be claimed now (see `announce`)}; {0, 0} where its key was seen before.
local reply = earlier_reply()
if reply then return reply end
local key, queue, urgent, trace, inbound, kind, conversation, answer, chat, id, chat_kind, title = unpack(ARGV, 3)
local seen = call('GET', P .. 'seen:' .. key)
-- Its expiry alone would do, but for a time that tests move.
if seen and tonumber(seen) > now - SEEN_MS then return {0, 0} end
call('SET', P .. 'seen:' .. key, now, 'PX', SEEN_MS)
local seq = text(call('INCR', P .. 'seq'))
call('HSET', msg(seq), 'lane', queue, 'urgent', urgent, 'at', now, 'key', key, 'trace', trace, 'inbound', inbound,
  'attempts', 0, 'fence', 0, 'claims', 0, 'kind', kind, 'conversation', conversation)
if answer ~= '' then call('HSET', msg(seq), 'answer', answer) end
call('ZADD', P .. 'pending', seq, seq)
local head, mended = seq, false
if call('RPUSH', P .. 'lane:' .. queue, seq) > 1 then
  -- A Redis that evicts may have thrown away what stands first: it must not block its queue for ever.
  head = call('LINDEX', P .. 'lane:' .. queue, 0)
  while call('EXISTS', msg(head)) == 0 do
    leave(call('LPOP', P .. 'lane:' .. queue))
    call('ZREM', P .. 'pending', head)
    head = call('LINDEX', P .. 'lane:' .. queue, 0)
    mended = true
  end
end
-- A head that was there before is ready, delayed or held already.
if head == seq or mended then make_ready(head) end
if chat then
  local about = P .. 'chat:' .. chat
  if call('HINCRBY', about, 'messages', 1) == 1 then
    call('HSET', about, 'id', id, 'kind', chat_kind, 'title', title, 'first', now)
  elseif title ~= '' then
    call('HSET', about, 'title', title)
  end
  call('HSET', about, 'last', now)
  call('ZADD', P .. 'chats', now, chat)
end
return remember({1, announce()})
