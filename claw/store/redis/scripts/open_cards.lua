-- The bodies of cards that have not ended, the oldest first; what is forgotten leaves the list.
local opened_until, limit = unpack(ARGV, 3)
local found = {}
for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'cards', '-inf', opened_until, 'LIMIT', 0, limit)) do
  local body = call('GET', P .. 'card:' .. id)
  if body then found[#found + 1] = body else call('ZREM', P .. 'cards', id) end
end
return found
