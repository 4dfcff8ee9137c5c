-- Rows of ten: day, person, chat, name, title and five counts. A field of the day's hash is one count of one person in
-- one chat; the row itself is a field of another hash, with the names.
if earlier_reply() then return 1 end
for i = 3, #ARGV, 10 do
  local day, row = ARGV[i], cjson.encode({ARGV[i + 1], ARGV[i + 2]})
  local counts, rows = P .. 'used:' .. day, P .. 'used:' .. day .. ':rows'
  local known = call('HGET', rows, row)
  if not known and call('HLEN', rows) >= USAGE_DAY_MAX then row = '["*","*"]' end
  local names = known and cjson.decode(known) or {'', ''}
  for n = 1, 2 do
    if ARGV[i + 2 + n] ~= '' then names[n] = ARGV[i + 2 + n] end
  end
  call('HSET', rows, row, cjson.encode(names))
  for n = 1, 5 do
    if ARGV[i + 4 + n] ~= '0' then call('HINCRBY', counts, n .. row, ARGV[i + 4 + n]) end
  end
  call('PEXPIRE', counts, USAGE_MS)
  call('PEXPIRE', rows, USAGE_MS)
end
return remember(1)
