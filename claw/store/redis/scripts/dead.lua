-- A letter that Redis has evicted comes as nils.
local letters = {}
for _, id in ipairs(call('LRANGE', P .. 'dead', 0, ARGV[3] - 1)) do
  letters[#letters + 1] = call('HMGET', P .. 'letter:' .. id, 'key', 'error', 'attempts', 'at', 'buried', 'inbound', 'answer')
end
return letters
