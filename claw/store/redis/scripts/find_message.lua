-- The body of the message that has one of the ids, or nil.
local said = P .. 'said:' .. ARGV[3]
for i = 4, #ARGV do
  local body = call('HGET', said, ARGV[i])
  if body and string.sub(body, 1, 1) == '=' then body = call('HGET', said, string.sub(body, 2)) end
  if body then return body end
end
return false
