if earlier_reply() then return 1 end
for i = 3, #ARGV do call('HDEL', P .. 'entries', ARGV[i]) end
call('SET', P .. 'version', ARGV[1])
return remember(1)
