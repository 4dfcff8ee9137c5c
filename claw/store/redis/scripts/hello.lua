-- The schema of what is here; a claw that only looks ('1') leaves an empty Redis empty.
local schema = tonumber(call('GET', P .. 'schema') or 0)
if schema == 0 and ARGV[3] ~= '1' then
  call('SET', P .. 'schema', SCHEMA_MAX)
  schema = SCHEMA_MAX
end
return schema
