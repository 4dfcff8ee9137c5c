-- {the random part of this store, how often the history was forgotten}
return {call('GET', P .. 'id') or '', call('HGET', P .. 'epochs', ARGV[3]) or 0}
