-- Calls are money, so a repetition must not count them twice.
if earlier_reply() then return 1 end
call('SADD', P .. 'months', ARGV[3])
for i = 4, #ARGV, 2 do call('HINCRBY', P .. 'calls:' .. ARGV[3], ARGV[i], ARGV[i + 1]) end
return remember(1)
