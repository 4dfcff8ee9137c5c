return call('SET', P .. 'probe', now)
