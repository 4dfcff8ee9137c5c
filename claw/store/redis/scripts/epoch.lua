-- {the random part of this store, how often the history was forgotten}
local key = ARGV[3]
local number = epoch_of(key)
if tonumber(call('ZSCORE', P .. 'epochs:used', key) or 0) <= now - EPOCH_TOUCH_MS then
  -- A note for the cleaning. On a full Redis it fails, which must not keep anybody from an answer.
  redis.pcall('HSET', P .. 'epochs', key, number)
  redis.pcall('ZADD', P .. 'epochs:used', now, key)
end
return {store_id(), number}
