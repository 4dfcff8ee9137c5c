-- By last message, newest first; a chat that Redis has evicted comes as nils.
local chats = {}
for _, chat in ipairs(call('ZREVRANGE', P .. 'chats', 0, ARGV[3] - 1)) do
  chats[#chats + 1] = call('HMGET', P .. 'chat:' .. chat, 'id', 'kind', 'title', 'first', 'last', 'messages')
end
return chats
