-- The newest stands first; only so many are kept.
if earlier_reply() then return 1 end
call('LPUSH', P .. 'audit', ARGV[3])
call('LTRIM', P .. 'audit', 0, AUDIT_MAX - 1)
return remember(1)
