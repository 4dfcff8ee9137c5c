-- What stands before every script: the call's token and time, and the steps that several scripts share.
--
-- KEYS[1] is the prefix of all keys of one robot; ARGV[1] is the token of the call, ARGV[2] the time in milliseconds
-- that tests set (-1: the server's own). The script's own arguments follow. Names in capitals ending in _MS or _MAX
-- are numbers that scripts/__init__.py puts in front.

local call = redis.call
local P = KEYS[1] .. ':'
local once = P .. 'once:' .. ARGV[1]
local now = tonumber(ARGV[2])
if now < 0 then
  -- Redis' clock and nobody else's: replicas whose clocks differ would end each other's leases.
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
-- What may be claimed since this script began: 0 nothing, 1 something, 2 something urgent.
local ready_now = 0

-- A number as its digits: Lua's own way of writing turns 1.8e12 into an exponent.
local function text(number) return string.format('%.0f', number) end
local function msg(seq) return P .. 'msg:' .. seq end

-- The reply that was given to this very call before, if there was one. A caller whose connection broke cannot know
-- whether its call was done, so it calls again with the same token.
local function earlier_reply()
  local reply = call('GET', once)
  return reply and cmsgpack.unpack(reply)
end

local function remember(reply)
  call('SET', once, cmsgpack.pack(reply), 'PX', ONCE_MS)
  return reply
end

-- The holder of an older fence has lost the message, whatever it believes.
local function holds(seq, fence) return call('HGET', msg(seq), 'fence') == fence end

local function make_ready(seq)
  call('ZADD', P .. 'ready', seq, seq)
  ready_now = math.max(ready_now, 1)
  if call('HGET', msg(seq), 'urgent') == '1' then
    call('ZADD', P .. 'urgent', seq, seq)
    ready_now = 2
  end
end

-- Take a message out of whichever state it is in.
local function leave(seq)
  for _, state in ipairs({'ready', 'urgent', 'held', 'resting'}) do call('ZREM', P .. state, seq) end
end

-- A hash as a table.
local function members(key)
  local flat, found = call('HGETALL', key), {}
  for i = 1, #flat, 2 do found[flat[i]] = flat[i + 1] end
  return found
end

-- How often a history was forgotten. One that nobody asked for in a long time has no number any more, as a new one has
-- none yet: both begin above all that were dropped.
local function epoch_floor() return tonumber(call('GET', P .. 'epochs:floor') or 0) end
local function epoch_of(key) return tonumber(call('HGET', P .. 'epochs', key) or epoch_floor()) end

local function store_id() return call('GET', P .. 'id') or '' end

-- Note whose store this is, and return its schema. One that is empty gets the new id; where the asker knew another one,
-- that is lost.
local function identify(new_id, known_id)
  local schema = tonumber(call('GET', P .. 'schema') or 0)
  if schema >= SCHEMA_MAX then return schema end
  -- Until schema 2 the version said nothing about items that were deleted to the last.
  if schema > 0 and call('EXISTS', P .. 'version') == 1 and call('EXISTS', P .. 'entries') == 0 then
    call('APPEND', P .. 'version', ' empty')
  end
  call('SET', P .. 'schema', SCHEMA_MAX)
  -- A Redis from before 0.2.0 has none: its conversations go on under their old names.
  if schema == 0 and store_id() == '' then
    call('SET', P .. 'id', new_id)
    if known_id ~= '' and call('EXISTS', P .. 'entries') == 0 then call('SET', P .. 'lost', now) end
  end
  return SCHEMA_MAX
end

-- 1 until something is settled in the new store.
local function is_lost() return call('EXISTS', P .. 'lost') end

-- The version of the items is the token of their last change, and says whether any is left: a hash that is gone though
-- its version says nothing of that was thrown away, and with it the owner.
local ITEMS_GONE = 'ITEMSGONE the settings are gone'
local function note_change()
  call('SET', P .. 'version', ARGV[1] .. (call('EXISTS', P .. 'entries') == 1 and '' or ' empty'))
  call('DEL', P .. 'lost')
end
local function are_items_gone()
  local version = call('GET', P .. 'version')
  return version and not string.find(version, ' empty', 1, true) and call('EXISTS', P .. 'entries') == 0
end

-- The newest moment at which DingTalk says that a message was written, of all that were put; 0: it never said.
local function newest_created() return tonumber(call('GET', P .. 'newest') or 0) end

-- The time up to which ids are forgotten, by DingTalk's clock. It only goes on with what is written.
local function seen_until() return math.min(newest_created(), now) - SEEN_MS end

-- Whether the key was seen. Ids without a time of DingTalk's are keys that expire by themselves, by our clock; before
-- schema 3 all were.
local function is_seen(key)
  local written = call('ZSCORE', P .. 'seen', key)
  if written then return tonumber(written) > seen_until() end
  local at = call('GET', P .. 'seen:' .. key)
  return at and tonumber(at) > now - SEEN_MS
end

-- Drop heads of a queue that are gone, for a Redis that evicts throws away messages and not their numbers. Return the
-- first that is there, and whether any was dropped: it is nobody's head yet then.
local function drop_gone_heads(queue)
  local dropped = false
  local head = call('LINDEX', P .. 'lane:' .. queue, 0)
  while head and call('EXISTS', msg(head)) == 0 do
    leave(call('LPOP', P .. 'lane:' .. queue))
    call('ZREM', P .. 'pending', head)
    head = call('LINDEX', P .. 'lane:' .. queue, 0)
    dropped = true
  end
  return head, dropped
end

-- Put a number into its queue: before those of the last `most` that were written later, by DingTalk's clock, and that
-- nobody has claimed yet. Without a time of either, in order of arrival, which is that of the numbers.
local function enqueue(seq, queue, order, most)
  local later
  for back = 1, most do
    local other = call('LINDEX', P .. 'lane:' .. queue, -back)
    if not other then break end
    local about = call('HMGET', msg(other), 'order', 'fence')
    local others = tonumber(about[1] or 0)
    local is_told = order > 0 and others > 0 and order ~= others
    local is_later = is_told and others > order or not is_told and tonumber(other) > tonumber(seq)
    if about[2] ~= '0' or not is_later then break end
    later = other
  end
  if later then
    call('LINSERT', P .. 'lane:' .. queue, 'BEFORE', later, seq)
  else
    call('RPUSH', P .. 'lane:' .. queue, seq)
  end
end

-- Add a message to its queue. `order`: when it was written, by DingTalk's clock; 0: it keeps its place of arrival.
local function add_message(key, queue, urgent, trace, inbound, kind, conversation, answer, order)
  local seq = text(call('INCR', P .. 'seq'))
  if call('EXISTS', msg(seq)) == 1 then
    -- The counter is gone, or fell back. Another message must not be written over.
    seq = text((call('ZRANGE', P .. 'pending', -1, -1)[1] or seq) + 1)
    while call('EXISTS', msg(seq)) == 1 do seq = text(seq + 1) end
    call('SET', P .. 'seq', seq)
  end
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
end

-- End the leases and the delays whose time has come. At most ADVANCE_MAX at once: what is left comes with the next
-- call, and no script holds the server up for long.
local function advance()
  for state, longest in pairs({held = LEASE_MS, resting = DELAY_MS}) do
    -- An end beyond the longest is from before the server's clock was set back: it would block its queue for ever.
    local latest = now + longest
    for _, seq in ipairs(call('ZRANGEBYSCORE', P .. state, '(' .. text(latest), '+inf', 'LIMIT', 0, ADVANCE_MAX)) do
      call('ZADD', P .. state, latest, seq)
    end
    for _, seq in ipairs(call('ZRANGEBYSCORE', P .. state, '-inf', now, 'LIMIT', 0, ADVANCE_MAX)) do
      call('ZREM', P .. state, seq)
      make_ready(seq)
    end
  end
end

-- Take a message out of its queue; the next one becomes the head.
local function finish(seq)
  local queue = P .. 'lane:' .. call('HGET', msg(seq), 'lane')
  local head = call('LINDEX', queue, 0)
  leave(seq)
  call('ZREM', P .. 'pending', seq)
  call('LREM', queue, 1, seq)
  -- Where the queue was rebuilt meanwhile another one is its head, and in a state of its own.
  if head ~= seq then return end
  head = call('LINDEX', queue, 0)
  if head then make_ready(head) end
end

-- Keep a message for later quotes: under its first id, the others lead there. `by_robot`: '1', or ''.
local function index_message(chat, at, body, by_robot, ids)
  local said = P .. 'said:' .. chat
  call('HSET', said, ids[1], body)
  call('ZADD', said .. ':at', at, ids[1])
  for i = 2, #ids do call('HSET', said, ids[i], '=' .. ids[1]) end
  if by_robot == '1' then
    call('ZADD', said .. ':sent', at, ids[1])
    call('PEXPIRE', said .. ':sent', INDEX_MS)
  end
  call('PEXPIRE', said, INDEX_MS)
  call('PEXPIRE', said .. ':at', INDEX_MS)
  -- The chat as a whole goes when nobody writes there for so long; before that, its oldest do.
  local old = call('ZRANGEBYSCORE', said .. ':at', '-inf', text(now - INDEX_MS), 'LIMIT', 0, INDEX_MAX)
  local surplus = call('ZCARD', said .. ':at') - INDEX_MAX
  if surplus > #old then old = call('ZRANGE', said .. ':at', 0, surplus - 1) end
  for _, id in ipairs(old) do
    local kept = call('HGET', said, id)
    local ok, about = pcall(cjson.decode, kept or '')
    for _, other in ipairs(ok and type(about) == 'table' and about.ids or {}) do call('HDEL', said, other) end
    call('HDEL', said, id)
    call('ZREM', said .. ':at', id)
    call('ZREM', said .. ':sent', id)
  end
end

-- Take messages out of the queue that were answered with its head: what waits behind it, and nothing else.
local function finish_merged(seq, merged, done)
  local queue = call('HGET', msg(seq), 'lane')
  for other in string.gmatch(merged or '', '%d+') do
    local waits = other ~= seq and call('HGET', msg(other), 'lane') == queue
    if waits and not call('ZSCORE', P .. 'held', other) then
      finish(other)
      done(other)
    end
  end
end

-- Let everybody who waits know what has become ready, and return it.
local function announce()
  if ready_now > 0 then
    -- The token, too, not the count alone: a Redis that lost data counts anew, and a worker that had seen that count
    -- before would sleep on.
    local version = call('HINCRBY', P .. 'news', 'count', 1) .. ' ' .. ARGV[1]
    call('HSET', P .. 'news', 'any', version)
    if ready_now > 1 then call('HSET', P .. 'news', 'urgent', version) end
    call('PUBLISH', P .. 'hints', 'news')
  end
  return ready_now
end
