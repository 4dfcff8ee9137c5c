if earlier_reply() then return 1 end
local at = tonumber(call('ZSCORE', P .. 'notices', ARGV[3]) or '-inf')
-- Before or after: a clock that was set back must not silence it.
if math.abs(now - at) < tonumber(ARGV[4]) then return 0 end
call('ZADD', P .. 'notices', now, ARGV[3])
return remember(1)
