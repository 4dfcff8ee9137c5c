-- The newest entries, newest first.
return call('LRANGE', P .. 'audit', 0, ARGV[3] - 1)
