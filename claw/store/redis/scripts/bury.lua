-- Without `inbound` the message cannot be read, and is kept as it is.
local reply = earlier_reply()
if reply then return reply end
local seq, fence, cause, attempts, merged, inbound = unpack(ARGV, 3)
if not holds(seq, fence) then return false end

local function keep_letter(seq, inbound)
  local letter = P .. 'letter:' .. seq
  call('RENAME', msg(seq), letter)
  call('HDEL', letter, 'lane', 'urgent', 'trace', 'stop', 'fence', 'claims', 'conversation', 'waiting', 'worked')
  call('HSET', letter, 'error', cause, 'buried', now)
  if attempts and attempts ~= '' then call('HSET', letter, 'attempts', attempts) end
  if inbound then call('HSET', letter, 'inbound', inbound) end
  if call('LPUSH', P .. 'dead', seq) > DEAD_MAX then call('DEL', P .. 'letter:' .. call('RPOP', P .. 'dead')) end
end

finish_merged(seq, merged, function(other)
  -- Without the address by which anybody could answer. Within what people wrote, quotes are escaped: it is no field.
  local stripped = string.gsub(call('HGET', msg(other), 'inbound') or '', '"webhook":"[^"]*"', '"webhook":""', 1)
  keep_letter(other, stripped)
end)
finish(seq)
keep_letter(seq, inbound ~= '' and inbound or nil)
return remember({1, announce()})
