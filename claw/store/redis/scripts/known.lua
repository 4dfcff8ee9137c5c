-- 1 where the message of that number and key is here, or was seen before. A Redis that lost data may have given the
-- number to another message.
local seq, key = unpack(ARGV, 3)
if call('HGET', msg(seq), 'key') == key or is_seen(key) then return 1 end
return 0
