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

-- What comes from the future, by more than clocks differ, is ordered by its arrival.
add_message(key, queue, urgent, trace, inbound, kind, conversation, answer, created <= now + SKEW_MS and created or 0)
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
