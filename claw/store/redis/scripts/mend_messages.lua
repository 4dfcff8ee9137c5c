-- {the cursor to go on from, how many messages were missing}. The messages themselves are the truth: each of them is
-- pending. Where the schema is gone, somebody emptied this Redis under us, and it is a new store.
local cursor, new_id, known_id = unpack(ARGV, 3)
identify(new_id, known_id)
local step = call('SCAN', cursor, 'MATCH', msg('*'), 'COUNT', SCAN_MAX)
local missing = 0
for _, key in ipairs(step[2]) do
  local seq = string.match(key, ':msg:(%d+)$')
  if seq and not call('ZSCORE', P .. 'pending', seq) then
    call('ZADD', P .. 'pending', seq, seq)
    missing = missing + 1
  end
end
return {step[1], missing}
