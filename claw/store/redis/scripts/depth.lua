-- {pending, leased, dead, age of the oldest in ms, 1 where messages wait and nobody works}. Changes nothing: doctor
-- asks, too.
local oldest = call('ZRANGE', P .. 'pending', 0, STUCK_MAX - 1)
local at = oldest[1] and call('HGET', msg(oldest[1]), 'at') or now
local held = call('ZCOUNT', P .. 'held', '(' .. text(now), '+inf')
-- One that is delayed is nobody's fault, nor are those behind it.
local function is_stuck(seq)
  local about = call('HMGET', msg(seq), 'at', 'lane')
  if not about[1] or now - about[1] <= STUCK_MS then return false end
  local head = call('LINDEX', P .. 'lane:' .. about[2], 0) or seq
  return tonumber(call('ZSCORE', P .. 'resting', head) or 0) <= now
end
local stuck = 0
if held == 0 then
  for _, seq in ipairs(oldest) do if is_stuck(seq) then stuck = 1 end end
end
return {call('ZCARD', P .. 'pending'), held, call('LLEN', P .. 'dead'), now - at, stuck}
