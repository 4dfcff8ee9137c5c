-- No token: to save the same answer twice does no harm.
local seq, fence, answer = unpack(ARGV, 3)
if not holds(seq, fence) then return false end
call('HSET', msg(seq), 'answer', answer, 'attempts', 0)
call('HDEL', msg(seq), 'waiting')
return 1
