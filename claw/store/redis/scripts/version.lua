-- {a word that changes with what is ready, the same of the urgent, ms until a lease or a delay ends or -1}.
advance()
announce()
local due = -1
for _, state in ipairs({'held', 'resting'}) do
  local at = tonumber(call('ZRANGE', P .. state, 0, 0, 'WITHSCORES')[2])
  if at and (due < 0 or at - now < due) then due = at - now end
end
local version = call('HMGET', P .. 'news', 'any', 'urgent')
return {version[1] or '', version[2] or '', due}
