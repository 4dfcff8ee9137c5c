-- {1 for a new row, what may be claimed now (see `announce`)}; {0, 0} where its key was seen before.
local reply = earlier_reply()
if reply then return reply end
local key, queue, urgent, trace, inbound, kind, conversation, answer, created, chat, id, chat_kind, title, said_id, said_at, said =
  unpack(ARGV, 3)
created = tonumber(created)
-- By DingTalk's clock, as far as it tells: ours may be a day ahead, and would forget what is repeated in a minute.
if is_seen(key) or created > 0 and created < seen_until() then return {0, 0} end
if created > 0 and created <= now + AHEAD_MS then
  call('ZADD', P .. 'seen', created, key)
  if created > newest_created() then call('SET', P .. 'newest', text(created)) end
else
  call('SET', P .. 'seen:' .. key, now, 'PX', SEEN_MS)
end

local seq = text(call('INCR', P .. 'seq'))
if call('EXISTS', msg(seq)) == 1 then
  -- The counter is gone, or fell back. Another message must not be written over.
  seq = text((call('ZRANGE', P .. 'pending', -1, -1)[1] or seq) + 1)
  while call('EXISTS', msg(seq)) == 1 do seq = text(seq + 1) end
  call('SET', P .. 'seq', seq)
end
-- What comes from the future, by more than clocks differ, is ordered by its arrival.
local order = created <= now + SKEW_MS and created or 0
call('HSET', msg(seq), 'lane', queue, 'urgent', urgent, 'at', now, 'key', key, 'trace', trace, 'inbound', inbound,
  'attempts', 0, 'fence', 0, 'claims', 0, 'kind', kind, 'conversation', conversation, 'order', text(order))
if answer ~= '' then call('HSET', msg(seq), 'answer', answer) end
call('ZADD', P .. 'pending', seq, seq)
local head, mended = drop_gone_heads(queue)
enqueue(seq, queue, order, PASSED_MAX)
-- A head that was there before is ready, delayed or held already.
local first = call('LINDEX', P .. 'lane:' .. queue, 0)
if first ~= head or mended then
  if head then leave(head) end
  make_ready(first)
end
if chat then
  local about = P .. 'chat:' .. chat
  if call('HINCRBY', about, 'messages', 1) == 1 then
    call('HSET', about, 'id', id, 'kind', chat_kind, 'title', title, 'first', now)
  elseif title ~= '' then
    call('HSET', about, 'title', title)
  end
  call('HSET', about, 'last', now)
  call('ZADD', P .. 'chats', now, chat)
  index_message(chat, said_at, said, '', {said_id})
end
return remember({1, announce()})
