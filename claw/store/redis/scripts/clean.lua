-- The most that was dropped of one kind; CHUNK_MAX: there may be more.
local first_day, first_month = unpack(ARGV, 3)
local most = 0
local function count(n) most = math.max(most, n) end

local keys = call('ZRANGEBYSCORE', P .. 'memories', '-inf', now - HISTORY_MS, 'LIMIT', 0, CHUNK_MAX)
for _, history_key in ipairs(keys) do
  local history = P .. 'history:' .. history_key
  local oldest
  repeat
    local exchange = call('LINDEX', history, 0)
    oldest = exchange and tonumber(string.match(exchange, '^%d+'))
    if oldest and oldest <= now - HISTORY_MS then call('LPOP', history) end
  until not oldest or oldest > now - HISTORY_MS
  if oldest then call('ZADD', P .. 'memories', oldest, history_key) else call('ZREM', P .. 'memories', history_key) end
end
count(#keys)

-- Their bodies expire by themselves.
call('ZREMRANGEBYSCORE', P .. 'cards', '-inf', now - CARDS_MS)

local letters = 0
while letters < CHUNK_MAX do
  local id = call('LINDEX', P .. 'dead', -1)
  if not id or tonumber(call('HGET', P .. 'letter:' .. id, 'buried') or 0) > now - DEAD_MS then break end
  call('RPOP', P .. 'dead')
  call('DEL', P .. 'letter:' .. id)
  letters = letters + 1
end
count(letters)

local chats = call('ZRANGEBYSCORE', P .. 'chats', '-inf', now - CHATS_MS, 'LIMIT', 0, CHUNK_MAX)
for _, chat in ipairs(chats) do
  call('ZREM', P .. 'chats', chat)
  call('DEL', P .. 'chat:' .. chat)
end
count(#chats)

local notices = call('ZRANGEBYSCORE', P .. 'notices', '-inf', now - NOTICES_MS, 'LIMIT', 0, CHUNK_MAX)
if #notices > 0 then call('ZREM', P .. 'notices', unpack(notices)) end
count(#notices)

local keys = call('ZRANGEBYSCORE', P .. 'seen', '-inf', text(seen_until()), 'LIMIT', 0, CHUNK_MAX)
if #keys > 0 then call('ZREM', P .. 'seen', unpack(keys)) end
count(#keys)

-- Those that were dropped leave the highest of their numbers behind: whoever has none begins above it.
local keys = call('ZRANGEBYSCORE', P .. 'epochs:used', '-inf', text(now - EPOCH_MS), 'LIMIT', 0, CHUNK_MAX)
for _, key in ipairs(keys) do
  call('SET', P .. 'epochs:floor', math.max(epoch_of(key) + 1, epoch_floor()))
  call('HDEL', P .. 'epochs', key)
  call('ZREM', P .. 'epochs:used', key)
end
count(#keys)

-- A busy day may be large: UNLINK frees it without holding the server up.
for _, day in ipairs(call('SMEMBERS', P .. 'days')) do
  if day < first_day then
    call('UNLINK', P .. 'spent:' .. day, P .. 'spenders:' .. day)
    call('SREM', P .. 'days', day)
  end
end
for _, month in ipairs(call('SMEMBERS', P .. 'months')) do
  if month < first_month then
    call('DEL', P .. 'calls:' .. month)
    call('SREM', P .. 'months', month)
  end
end
return most
