-- {the random part of this store, how often the history was forgotten}; one that nobody asked for in the time after
-- which it begins anew (0: never) is forgotten first.
local key, idle = ARGV[3], tonumber(ARGV[4])
local number = epoch_of(key)
local used = tonumber(call('ZSCORE', P .. 'epochs:used', key) or 0)
if idle > 0 and used > 0 and used <= now - idle then
  number = number + 1
  call('DEL', P .. 'history:' .. key)
  call('ZREM', P .. 'memories', key)
end
if idle > 0 or used <= now - EPOCH_TOUCH_MS then
  -- A note for the cleaning. On a full Redis it fails, which must not keep anybody from an answer.
  redis.pcall('HSET', P .. 'epochs', key, number)
  redis.pcall('ZADD', P .. 'epochs:used', now, key)
end
return {store_id(), number}
