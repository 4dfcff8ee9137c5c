-- nil where the asker's version and store are those of today, else {version, names and values, id, 1 for a lost store}.
local known_version, known_id = unpack(ARGV, 3)
local version, id = call('GET', P .. 'version') or '0', store_id()
if version == known_version and id == known_id then return false end
if are_items_gone() then return redis.error_reply(ITEMS_GONE) end
local lost = is_lost()
if known_id ~= '' and id ~= known_id and call('EXISTS', P .. 'entries') == 0 then
  lost = 1
  redis.pcall('SET', P .. 'lost', now)  -- For those that ask later; on a full Redis it fails.
end
return {version, call('HGETALL', P .. 'entries'), id, lost}
