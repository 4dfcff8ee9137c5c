if earlier_reply() then return 1 end
for i = 3, #ARGV do call('HDEL', P .. 'entries', ARGV[i]) end
note_change()
return remember(1)
