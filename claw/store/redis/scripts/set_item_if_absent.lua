local reply = earlier_reply()
if reply then return reply end
if call('HSETNX', P .. 'entries', ARGV[3], ARGV[4]) == 1 then call('SET', P .. 'version', ARGV[1]) end
return remember(call('HGET', P .. 'entries', ARGV[3]))
