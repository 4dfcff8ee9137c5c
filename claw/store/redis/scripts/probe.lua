-- A write that harms nobody: only a write tells a full memory, a replica, or a disk that fails.
return call('SET', P .. 'probe', now)
