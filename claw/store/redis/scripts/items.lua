-- nil where the asker's version is the newest, else {version, names and values}.
local version = call('GET', P .. 'version') or '0'
if version == ARGV[3] then return false end
return {version, call('HGETALL', P .. 'entries')}
