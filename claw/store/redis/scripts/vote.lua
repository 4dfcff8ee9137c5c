-- The person's vote before this one; '' where there was none. Beyond VOTES_MAX people nothing is kept.
local reply = earlier_reply()
if reply then return reply end
local id, person, vote = unpack(ARGV, 3)
local votes = P .. 'votes:' .. id
local before = call('HGET', votes, person)
if before or call('HLEN', votes) < VOTES_MAX then
  call('HSET', votes, person, vote)
  call('PEXPIRE', votes, CARDS_MS)
end
return remember(before or '')
