-- No token: to beat twice does no harm.
local replica, version, healthy = unpack(ARGV, 3)
local fleet = P .. 'fleet'
for each, told in pairs(members(fleet)) do
  if cmsgpack.unpack(told)[1] <= now - REPLICA_MS then call('HDEL', fleet, each) end
end
call('HSET', fleet, replica, cmsgpack.pack({now, version, healthy}))
call('PEXPIRE', fleet, REPLICA_MS)
return 1
