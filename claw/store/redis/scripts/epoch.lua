-- How often the history was forgotten.
return tonumber(call('HGET', P .. 'epochs', ARGV[3]) or 0)
