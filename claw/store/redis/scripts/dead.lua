-- A letter that Redis has evicted comes as nils. The first one comes whatever its size.
local letters, left = {}, DEAD_BYTES
for _, id in ipairs(call('LRANGE', P .. 'dead', 0, ARGV[3] - 1)) do
  local letter = P .. 'letter:' .. id
  left = left - call('HSTRLEN', letter, 'inbound') - call('HSTRLEN', letter, 'answer')
  if left < 0 and #letters > 0 then break end
  letters[#letters + 1] = {id, call('HMGET', letter, 'key', 'error', 'attempts', 'at', 'buried', 'inbound', 'answer', 'kind')}
end
return letters
