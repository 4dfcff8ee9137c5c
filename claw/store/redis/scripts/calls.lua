-- Names and counts of one month.
return call('HGETALL', P .. 'calls:' .. ARGV[3])
