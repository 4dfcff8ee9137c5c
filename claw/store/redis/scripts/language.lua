-- The remembered language of a person, or nil.
return call('GET', P .. 'language:' .. ARGV[3])
