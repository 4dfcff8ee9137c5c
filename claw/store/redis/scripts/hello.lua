-- {the schema of what is here, its id, 1 where it stands in the place of a lost store}.
-- A claw that only looks ('1') leaves it as it is, and an empty Redis empty. The schema is raised at once, not with the
-- first row: an older claw must be refused before it meets rows that it cannot read.
local looks, new_id, known_id = unpack(ARGV, 3)
if looks == '1' then return {tonumber(call('GET', P .. 'schema') or 0), store_id(), is_lost()} end
return {identify(new_id, known_id), store_id(), is_lost()}
