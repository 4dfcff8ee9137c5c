-- {1 where the letter was put back, what may be claimed now (see `announce`)}; {0, 0} where it is not there any more.
local reply = earlier_reply()
if reply then return reply end
local id, key, queue, urgent, trace, inbound, kind, conversation, answer = unpack(ARGV, 3)
if call('DEL', P .. 'letter:' .. id) == 0 then return {0, 0} end
-- The letter went first: of two callers the second finds none, and adds no message.
call('LREM', P .. 'dead', 1, id)
add_message(key, queue, urgent, trace, inbound, kind, conversation, answer, 0)
return remember({1, announce()})
