-- The rows of one day: who and where, the names, and five counts.
local counts, found = members(P .. 'used:' .. ARGV[3]), {}
for row, names in pairs(members(P .. 'used:' .. ARGV[3] .. ':rows')) do
  local one = {row, names}
  for n = 1, 5 do one[n + 2] = counts[n .. row] or '0' end
  found[#found + 1] = one
end
return found
