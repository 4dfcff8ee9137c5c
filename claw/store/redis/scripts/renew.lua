-- 1 where its holder was asked to stop, else 0; nil: the lease is lost. So for all scripts that take a lease.
-- No token: to renew twice does no harm.
local seq, fence, ttl = unpack(ARGV, 3)
if not holds(seq, fence) then return false end
-- It may have run out, and be ready again: nobody has claimed it, or the fence would have grown.
leave(seq)
call('ZADD', P .. 'held', now + ttl, seq)
return call('HEXISTS', msg(seq), 'stop')
