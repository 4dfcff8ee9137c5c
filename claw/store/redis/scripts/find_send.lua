-- What is kept of a text that a program asked for, or nil.
return call('GET', P .. 'send:' .. ARGV[3])
