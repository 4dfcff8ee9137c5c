-- 1 where the key is counted to the person's day, now or before. No token: the key itself counts once.
local person, day, key, limit = unpack(ARGV, 3)
local spent, spenders = P .. 'spent:' .. day, P .. 'spenders:' .. day
-- With the length in front no person's name and key can be read as another's.
local item = #person .. ':' .. person .. key
if call('SISMEMBER', spent, item) == 1 then return 1 end
if tonumber(call('HGET', spenders, person) or 0) >= tonumber(limit) then return 0 end
call('SADD', P .. 'days', day)
call('SADD', spent, item)
call('HINCRBY', spenders, person, 1)
return 1
