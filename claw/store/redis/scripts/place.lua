-- Where the message with a key is: 'waiting', 'leased' or 'gone'.
local queue, key = unpack(ARGV, 3)
local numbers = call('LRANGE', P .. 'lane:' .. queue, 0, PLACES_LOOKED_AT - 1)
for _, seq in ipairs(numbers) do
  if call('HGET', msg(seq), 'key') == key then
    return call('ZSCORE', P .. 'held', seq) and 'leased' or 'waiting'
  end
end
return #numbers < PLACES_LOOKED_AT and 'gone' or 'waiting'
