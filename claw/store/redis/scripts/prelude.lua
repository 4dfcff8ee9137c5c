-- What stands before every script: the call's token and time, and the steps that several scripts share.
--
-- KEYS[1] is the prefix of all keys of one robot; ARGV[1] is the token of the call, ARGV[2] the time in milliseconds
-- that tests set (-1: the server's own). The script's own arguments follow. Names in capitals ending in _MS or _MAX
-- are numbers that scripts/__init__.py puts in front.

local call = redis.call
local P = KEYS[1] .. ':'
local once = P .. 'once:' .. ARGV[1]
local now = tonumber(ARGV[2])
if now < 0 then
  -- Redis' clock and nobody else's: replicas whose clocks differ would end each other's leases.
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
-- What may be claimed since this script began: 0 nothing, 1 something, 2 something urgent.
local ready_now = 0

-- A number as its digits: Lua's own way of writing turns 1.8e12 into an exponent.
local function text(number) return string.format('%.0f', number) end
local function msg(seq) return P .. 'msg:' .. seq end

-- The reply that was given to this very call before, if there was one. A caller whose connection broke cannot know
-- whether its call was done, so it calls again with the same token.
local function earlier_reply()
  local reply = call('GET', once)
  return reply and cmsgpack.unpack(reply)
end

local function remember(reply)
  call('SET', once, cmsgpack.pack(reply), 'PX', ONCE_MS)
  return reply
end

-- The holder of an older fence has lost the message, whatever it believes.
local function holds(seq, fence) return call('HGET', msg(seq), 'fence') == fence end

local function make_ready(seq)
  call('ZADD', P .. 'ready', seq, seq)
  ready_now = math.max(ready_now, 1)
  if call('HGET', msg(seq), 'urgent') == '1' then
    call('ZADD', P .. 'urgent', seq, seq)
    ready_now = 2
  end
end

-- Take a message out of whichever state it is in.
local function leave(seq)
  for _, state in ipairs({'ready', 'urgent', 'held', 'resting'}) do call('ZREM', P .. state, seq) end
end

-- End the leases and the delays whose time has come. At most ADVANCE_MAX at once: what is left comes with the next
-- call, and no script holds the server up for long.
local function advance()
  for state, longest in pairs({held = LEASE_MS, resting = DELAY_MS}) do
    -- An end beyond the longest is from before the server's clock was set back: it would block its queue for ever.
    local latest = now + longest
    for _, seq in ipairs(call('ZRANGEBYSCORE', P .. state, '(' .. text(latest), '+inf', 'LIMIT', 0, ADVANCE_MAX)) do
      call('ZADD', P .. state, latest, seq)
    end
    for _, seq in ipairs(call('ZRANGEBYSCORE', P .. state, '-inf', now, 'LIMIT', 0, ADVANCE_MAX)) do
      call('ZREM', P .. state, seq)
      make_ready(seq)
    end
  end
end

-- Take a message out of its queue; the next one becomes the head.
local function finish(seq)
  local queue = P .. 'lane:' .. call('HGET', msg(seq), 'lane')
  leave(seq)
  call('ZREM', P .. 'pending', seq)
  call('LREM', queue, 1, seq)
  local head = call('LINDEX', queue, 0)
  if head then make_ready(head) end
end

-- Let everybody who waits know what has become ready, and return it.
local function announce()
  if ready_now > 0 then
    -- The token, too, not the count alone: a Redis that lost data counts anew, and a worker that had seen that count
    -- before would sleep on.
    local version = call('HINCRBY', P .. 'news', 'count', 1) .. ' ' .. ARGV[1]
    call('HSET', P .. 'news', 'any', version)
    if ready_now > 1 then call('HSET', P .. 'news', 'urgent', version) end
    call('PUBLISH', P .. 'hints', 'news')
  end
  return ready_now
end
