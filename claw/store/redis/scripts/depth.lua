-- {pending, leased, dead, age of the oldest in ms}. Changes nothing: doctor asks, too.
local oldest = call('ZRANGE', P .. 'pending', 0, 0)[1]
local at = oldest and call('HGET', msg(oldest), 'at') or now
local held = call('ZCOUNT', P .. 'held', '(' .. text(now), '+inf')
return {call('ZCARD', P .. 'pending'), held, call('LLEN', P .. 'dead'), now - at}
