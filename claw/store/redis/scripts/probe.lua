-- A write that harms nobody: only a write tells a full memory, a replica, or a disk that fails. As large as a message,
-- since a memory that is nearly full has room for a number.
return call('SET', P .. 'probe', now .. string.rep(' ', 4096))
