-- The version is the token of the last change: no two changes have the same, also where Redis lost some.
if earlier_reply() then return 1 end
call('HSET', P .. 'entries', ARGV[3], ARGV[4])
note_change()
return remember(1)
