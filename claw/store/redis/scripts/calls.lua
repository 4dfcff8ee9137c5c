return call('HGETALL', P .. 'calls:' .. ARGV[3])
