-- The body of what the robot sent nearest to a time, or nil.
local said, at, within = P .. 'said:' .. ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local found = call('ZRANGEBYSCORE', said .. ':sent', text(at - within), text(at + within), 'WITHSCORES')
local nearest, distance
for i = 1, #found, 2 do
  local off = math.abs(tonumber(found[i + 1]) - at)
  if not distance or off < distance then nearest, distance = found[i], off end
end
return nearest and call('HGET', said, nearest) or false
