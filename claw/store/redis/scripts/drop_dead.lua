-- 1 where there was such a letter.
local reply = earlier_reply()
if reply then return reply end
call('LREM', P .. 'dead', 1, ARGV[3])
return remember(call('DEL', P .. 'letter:' .. ARGV[3]))
