-- What is kept of a card, or nil.
return call('GET', P .. 'card:' .. ARGV[3])
