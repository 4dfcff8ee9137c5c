-- The schema of what is here; a claw that only looks ('1') leaves it as it is, and an empty Redis empty.
-- It is raised at once, not with the first row: an older claw must be refused before it meets rows that it cannot read.
local schema = tonumber(call('GET', P .. 'schema') or 0)
if schema < SCHEMA_MAX and ARGV[3] ~= '1' then
  call('SET', P .. 'schema', SCHEMA_MAX)
  -- The random part of its epochs. A Redis from before has none: its conversations go on under their old names.
  if schema == 0 then call('SET', P .. 'id', ARGV[4]) end
  schema = SCHEMA_MAX
end
return schema
