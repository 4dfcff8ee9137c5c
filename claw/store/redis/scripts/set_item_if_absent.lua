local reply = earlier_reply()
if reply then return reply end
-- What is absent since all of it is gone was there: whoever comes first must not take its place.
if are_items_gone() then return redis.error_reply(ITEMS_GONE) end
if call('HSETNX', P .. 'entries', ARGV[3], ARGV[4]) == 1 then note_change() end
return remember(call('HGET', P .. 'entries', ARGV[3]))
