-- The newest, oldest first.
return call('LRANGE', P .. 'history:' .. ARGV[3], -ARGV[4], -1)
