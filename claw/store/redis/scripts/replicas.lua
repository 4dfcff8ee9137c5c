-- {id, ms of its last beat, version, '1' for healthy} of each that lives.
local found = {}
for each, told in pairs(members(P .. 'fleet')) do
  local at, version, healthy = unpack(cmsgpack.unpack(told))
  if at > now - REPLICA_MS then found[#found + 1] = {each, text(at), version, healthy} end
end
return found
