return call('SET', P .. 'language:' .. ARGV[3], ARGV[4], 'PX', PEOPLE_MS)
