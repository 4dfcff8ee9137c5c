-- The token is asked first: the first try has removed the message, and would make the second one a lost lease.
local reply = earlier_reply()
if reply then return reply end
local seq, fence, merged, history_key, exchange, epoch, chat, at, said = unpack(ARGV, 3)
if not holds(seq, fence) then return false end
finish_merged(seq, merged, function(other) call('DEL', msg(other)) end)
finish(seq)
call('DEL', msg(seq))
-- Asked here, in one step with the append: a `/new` that comes between the two would not be seen.
if exchange ~= '' and epoch ~= '' then
  local id = store_id()
  local now_in = (id ~= '' and id .. '.' or '') .. epoch_of(history_key)
  if epoch ~= now_in then exchange = '' end
end
if exchange ~= '' then
  local history = P .. 'history:' .. history_key
  if call('RPUSH', history, text(now) .. ' ' .. exchange) == 1 then call('ZADD', P .. 'memories', now, history_key) end
  call('LTRIM', history, -EXCHANGES_MAX, -1)
end
if chat then index_message(chat, at, said, '1', {unpack(ARGV, 12)}) end
return remember({1, announce()})
