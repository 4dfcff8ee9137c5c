-- A card that has ended leaves the list of open ones; both forget it after its time.
local id, at, ended, body = unpack(ARGV, 3)
call('SET', P .. 'card:' .. id, body, 'PX', CARDS_MS)
if ended == '1' then call('ZREM', P .. 'cards', id) else call('ZADD', P .. 'cards', at, id) end
return call('PEXPIRE', P .. 'cards', CARDS_MS)
