"""The Lua: one short script for each thing that the store does in Redis, run there as one step that nothing interrupts.

Each is PRELUDE and a body. KEYS[1] is the prefix of all keys of one robot, with the hash tag that keeps them together;
ARGV[1] is the token of the call, ARGV[2] the time in milliseconds that tests set (-1: the server's own), the body's
arguments come after that. What a script does that must not be done twice is kept under the token for ONCE_KEPT_S: a
call whose reply got lost is made again, and gets the reply of the first time.

The keys, after the prefix:

    seq              the number of the newest message
    msg:<seq>        a message: its lane, body, trace, counts, fence, answer, kind and conversation key
    lane:<lane>      the numbers of a lane's messages, in order; only its first may be worked on
    pending          every number that is not acked
    ready, urgent    first ones that may be claimed, and those among them that were put so
    held, resting    first ones that are leased or wait, by the time at which that ends
    seen:<key>       when a message's key was first seen; it expires by itself
    dead, letter:<n> the dead letters, newest first
    history:<m>, memories, epochs   turns, the memories by the age of their oldest turn, how often each was forgotten
    calls:<month>, months           the ledger
    entries, version                the registry, and the token of its last change
    chats, chat:<key>               the chats by last message
    spent:<day>, spenders:<day>, days, notices
    news, once:<token>, probe, schema

Times are milliseconds since the epoch: Lua's numbers hold them whole, and so does their text.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from string import Template
from typing import Final

from claw.store.ports import (
    CHATS_KEPT_S,
    DEAD_KEPT_MAX,
    DEAD_KEPT_S,
    HISTORY_KEPT_S,
    HISTORY_KEPT_TURNS,
    NOTICES_KEPT_S,
    REST_KEPT_MAX_S,
    SEEN_KEPT_S,
)

SCHEMA: Final = 1
"""What `schema` must hold at most; raised when a later claw keeps things in another way."""
ONCE_KEPT_S: Final = 30.0
"""Seconds for which a call's reply is kept for its repetition, which comes within CALL_TIMEOUT_S (redis_link.py)."""
CHUNK: Final = 500
"""Things of one kind that one cleaning removes at most, so that no message waits for it for long."""
LEASE_MAX_S: Final = 300.0
"""Seconds for which a lease holds at most: one that ends later is from before the clock was set back."""
SETTLED_MAX: Final = 1_000
"""Leases and rests that one script ends at most."""

_NUMBERS: Final = {
    "SCHEMA": SCHEMA,
    "ONCE": int(ONCE_KEPT_S * 1000),
    "CHUNK": CHUNK,
    "LEASE": int(LEASE_MAX_S * 1000),
    "REST": int(REST_KEPT_MAX_S * 1000),
    "SETTLED": SETTLED_MAX,
    "SEEN": int(SEEN_KEPT_S * 1000),
    "DEAD_MAX": DEAD_KEPT_MAX,
    "DEAD": int(DEAD_KEPT_S * 1000),
    "HISTORY": int(HISTORY_KEPT_S * 1000),
    "TURNS": HISTORY_KEPT_TURNS,
    "CHATS": int(CHATS_KEPT_S * 1000),
    "NOTICES": int(NOTICES_KEPT_S * 1000),
}

PRELUDE: Final = """
local call = redis.call
local P = KEYS[1] .. ':'
local once = P .. 'once:' .. ARGV[1]
local now = tonumber(ARGV[2])
if now < 0 then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local news = 0

local function text(number) return string.format('%.0f', number) end
local function msg(seq) return P .. 'msg:' .. seq end

local function said()
  local reply = call('GET', once)
  return reply and cmsgpack.unpack(reply)
end

local function remember(reply)
  call('SET', once, cmsgpack.pack(reply), 'PX', $ONCE)
  return reply
end

local function changed() call('SET', P .. 'version', ARGV[1]) end

local function holds(seq, fence) return call('HGET', msg(seq), 'fence') == fence end

local function come_up(seq)
  call('ZADD', P .. 'ready', seq, seq)
  news = math.max(news, 1)
  if call('HGET', msg(seq), 'urgent') == '1' then
    call('ZADD', P .. 'urgent', seq, seq)
    news = 2
  end
end

local function leave(seq)
  for _, place in ipairs({'ready', 'urgent', 'held', 'resting'}) do call('ZREM', P .. place, seq) end
end

local function settle()
  for place, longest in pairs({held = $LEASE, resting = $REST}) do
    local latest = now + longest
    for _, seq in ipairs(call('ZRANGEBYSCORE', P .. place, '(' .. text(latest), '+inf', 'LIMIT', 0, $SETTLED)) do
      call('ZADD', P .. place, latest, seq)
    end
    for _, seq in ipairs(call('ZRANGEBYSCORE', P .. place, '-inf', now, 'LIMIT', 0, $SETTLED)) do
      call('ZREM', P .. place, seq)
      come_up(seq)
    end
  end
end

local function finish(seq)
  local lane = P .. 'lane:' .. call('HGET', msg(seq), 'lane')
  leave(seq)
  call('ZREM', P .. 'pending', seq)
  call('LREM', lane, 1, seq)
  local head = call('LINDEX', lane, 0)
  if head then come_up(head) end
end

local function tell()
  if news > 0 then
    -- Not the count alone: a Redis that lost data counts anew, and who was told that count would sleep on.
    local last = call('HINCRBY', P .. 'news', 'count', 1) .. ' ' .. ARGV[1]
    call('HSET', P .. 'news', 'any', last)
    if news > 1 then call('HSET', P .. 'news', 'urgent', last) end
    call('PUBLISH', P .. 'hints', 'news')
  end
  return news
end
"""


@dataclass(frozen=True, slots=True)
class Script:
    """A script by its hash, which is how Redis knows it once it was loaded."""

    text: bytes
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.text, usedforsecurity=False).hexdigest())


def _script(body: str) -> Script:
    return Script(Template(PRELUDE + body).substitute(_NUMBERS).encode())


# --- inbox ------------------------------------------------------------------------------------------------------

PUT: Final = _script("""
local reply = said()
if reply then return reply end
local key, lane, urgent, trace, inbound, kind, conversation, answer, chat, id, chat_kind, title = unpack(ARGV, 3)
local seen = call('GET', P .. 'seen:' .. key)
if seen and tonumber(seen) > now - $SEEN then return {0, 0} end
call('SET', P .. 'seen:' .. key, now, 'PX', $SEEN)
local seq = text(call('INCR', P .. 'seq'))
call('HSET', msg(seq), 'lane', lane, 'urgent', urgent, 'at', now, 'key', key, 'trace', trace, 'inbound', inbound,
  'attempts', 0, 'fence', 0, 'claims', 0, 'kind', kind, 'conversation', conversation)
if answer ~= '' then call('HSET', msg(seq), 'answer', answer) end
call('ZADD', P .. 'pending', seq, seq)
local head, mended = seq, false
if call('RPUSH', P .. 'lane:' .. lane, seq) > 1 then
  -- A Redis that evicts may have thrown away what stands first: it must not block its lane for ever.
  head = call('LINDEX', P .. 'lane:' .. lane, 0)
  while call('EXISTS', msg(head)) == 0 do
    leave(call('LPOP', P .. 'lane:' .. lane))
    call('ZREM', P .. 'pending', head)
    head = call('LINDEX', P .. 'lane:' .. lane, 0)
    mended = true
  end
end
if head == seq or mended then come_up(head) end
if chat then
  local about = P .. 'chat:' .. chat
  if call('HINCRBY', about, 'messages', 1) == 1 then
    call('HSET', about, 'id', id, 'kind', chat_kind, 'title', title, 'first', now)
  elseif title ~= '' then
    call('HSET', about, 'title', title)
  end
  call('HSET', about, 'last', now)
  call('ZADD', P .. 'chats', now, chat)
end
return remember({1, tell()})
""")
"""{1 for a new message, what may be claimed now: 0 nothing, 1 something, 2 something urgent}."""

CLAIM: Final = _script("""
local function lease(seq)
  local about = call('HMGET', msg(seq),
    'fence', 'lane', 'inbound', 'trace', 'at', 'attempts', 'claims', 'answer', 'stop', 'urgent', 'kind', 'conversation')
  return {seq, about, call('ZCARD', P .. 'ready'), call('ZCARD', P .. 'urgent')}
end
local reply = said()
if reply and holds(reply[1], reply[2]) then return lease(reply[1]) end
local ttl, urgent = unpack(ARGV, 3)
settle()
local seq = call('ZRANGE', P .. (urgent == '1' and 'urgent' or 'ready'), 0, 0)[1]
if not seq then
  tell()
  return false
end
leave(seq)
if call('EXISTS', msg(seq)) == 0 then
  call('ZREM', P .. 'pending', seq)
  tell()
  return {seq}
end
call('ZADD', P .. 'held', now + ttl, seq)
call('HINCRBY', msg(seq), 'claims', 1)
-- Steps of 1 would come to the same fence again where Redis lost the claim, or gave the number to another message:
-- whoever held that one would end this one. By the token each claim has a step of its own, of at most 2^32.
local step = tonumber(string.sub(redis.sha1hex(ARGV[1]), 1, 8), 16) + 1
remember({seq, text(call('HINCRBY', msg(seq), 'fence', step))})
tell()
return lease(seq)
""")
"""{seq, its fields, how many more may be claimed, how many of them are urgent}; {seq}: the message is gone; or nil."""

NEWS: Final = _script("""
settle()
tell()
local due = -1
for _, place in ipairs({'held', 'resting'}) do
  local at = tonumber(call('ZRANGE', P .. place, 0, 0, 'WITHSCORES')[2])
  if at and (due < 0 or at - now < due) then due = at - now end
end
local told = call('HMGET', P .. 'news', 'any', 'urgent')
return {told[1] or '', told[2] or '', due}
""")
"""{a word that changes with what may be claimed, the same of the urgent, ms until a lease or a rest ends or -1}."""

RENEW: Final = _script("""
local seq, fence, ttl = unpack(ARGV, 3)
if not holds(seq, fence) then return false end
leave(seq)
call('ZADD', P .. 'held', now + ttl, seq)
return call('HEXISTS', msg(seq), 'stop')
""")
"""1 where its holder was asked to stop, else 0; nil: the lease is lost. So for all that take a lease."""

SAVE_ANSWER: Final = _script("""
local seq, fence, answer = unpack(ARGV, 3)
if not holds(seq, fence) then return false end
call('HSET', msg(seq), 'answer', answer, 'attempts', 0)
return 1
""")

ACK: Final = _script("""
local reply = said()
if reply then return reply end
local seq, fence, memory, turn = unpack(ARGV, 3)
if not holds(seq, fence) then return false end
finish(seq)
call('DEL', msg(seq))
if turn then
  local history = P .. 'history:' .. memory
  if call('RPUSH', history, text(now) .. ' ' .. turn) == 1 then call('ZADD', P .. 'memories', now, memory) end
  call('LTRIM', history, -$TURNS, -1)
end
return remember({1, tell()})
""")

RELEASE: Final = _script("""
local reply = said()
if reply then return reply end
local seq, fence, delay, failed = unpack(ARGV, 3)
if not holds(seq, fence) then return false end
leave(seq)
call('HINCRBY', msg(seq), 'fence', 1)
call('HINCRBY', msg(seq), 'attempts', failed)
call('HSET', msg(seq), 'claims', 0)
if tonumber(delay) > 0 then call('ZADD', P .. 'resting', now + delay, seq) else come_up(seq) end
return remember({1, tell()})
""")

BURY: Final = _script("""
local reply = said()
if reply then return reply end
local seq, fence, cause, inbound = unpack(ARGV, 3)
if not holds(seq, fence) then return false end
finish(seq)
local letter = P .. 'letter:' .. seq
call('RENAME', msg(seq), letter)
call('HDEL', letter, 'lane', 'urgent', 'trace', 'answer', 'stop', 'fence', 'claims', 'kind', 'conversation')
call('HSET', letter, 'error', cause, 'buried', now)
if inbound then call('HSET', letter, 'inbound', inbound) end
if call('LPUSH', P .. 'dead', seq) > $DEAD_MAX then call('DEL', P .. 'letter:' .. call('RPOP', P .. 'dead')) end
return remember({1, tell()})
""")

INTERRUPT: Final = _script("""
local reply = said()
if reply then return reply end
local seq = call('LINDEX', P .. 'lane:' .. ARGV[3], 0)
if not seq or tonumber(call('ZSCORE', P .. 'held', seq) or 0) <= now then return 0 end
local about = call('HMGET', msg(seq), 'fence', 'answer', 'stop')
if about[2] or about[3] then return 0 end
call('HSET', msg(seq), 'stop', 1)
call('PUBLISH', P .. 'hints', 'stop ' .. seq .. ' ' .. about[1])
return remember(1)
""")
"""1 where somebody works on the lane's first message, has no answer yet, and is asked to stop for the first time."""

DEPTH: Final = _script("""
local oldest = call('ZRANGE', P .. 'pending', 0, 0)[1]
local at = oldest and call('HGET', msg(oldest), 'at') or now
local held = call('ZCOUNT', P .. 'held', '(' .. text(now), '+inf')
return {call('ZCARD', P .. 'pending'), held, call('LLEN', P .. 'dead'), now - at}
""")

DEAD: Final = _script("""
local letters = {}
for _, id in ipairs(call('LRANGE', P .. 'dead', 0, ARGV[3] - 1)) do
  letters[#letters + 1] = call('HMGET', P .. 'letter:' .. id, 'key', 'error', 'attempts', 'at', 'buried')
end
return letters
""")

# --- history ----------------------------------------------------------------------------------------------------

TURNS: Final = _script("return call('LRANGE', P .. 'history:' .. ARGV[3], -ARGV[4], -1)")
EPOCH: Final = _script("return tonumber(call('HGET', P .. 'epochs', ARGV[3]) or 0)")
FORGET: Final = _script("""
local reply = said()
if reply then return reply end
call('DEL', P .. 'history:' .. ARGV[3])
call('ZREM', P .. 'memories', ARGV[3])
return remember(call('HINCRBY', P .. 'epochs', ARGV[3], 1))
""")

# --- ledger -----------------------------------------------------------------------------------------------------

ADD_CALLS: Final = _script("""
if said() then return 1 end
call('SADD', P .. 'months', ARGV[3])
for i = 4, #ARGV, 2 do call('HINCRBY', P .. 'calls:' .. ARGV[3], ARGV[i], ARGV[i + 1]) end
return remember(1)
""")
CALLS: Final = _script("return call('HGETALL', P .. 'calls:' .. ARGV[3])")

# --- registry ---------------------------------------------------------------------------------------------------

ENTRIES: Final = _script("""
local version = call('GET', P .. 'version') or '0'
if version == ARGV[3] then return false end
return {version, call('HGETALL', P .. 'entries')}
""")
"""nil where the asker's version is the newest, else {version, names and values}."""
ENTER: Final = _script("""
if said() then return 1 end
call('HSET', P .. 'entries', ARGV[3], ARGV[4])
changed()
return remember(1)
""")
ENTER_FIRST: Final = _script("""
local reply = said()
if reply then return reply end
if call('HSETNX', P .. 'entries', ARGV[3], ARGV[4]) == 1 then changed() end
return remember(call('HGET', P .. 'entries', ARGV[3]))
""")
STRIKE: Final = _script("""
if said() then return 1 end
for i = 3, #ARGV do call('HDEL', P .. 'entries', ARGV[i]) end
changed()
return remember(1)
""")
CHATS: Final = _script("""
local chats = {}
for _, chat in ipairs(call('ZREVRANGE', P .. 'chats', 0, ARGV[3] - 1)) do
  chats[#chats + 1] = call('HMGET', P .. 'chat:' .. chat, 'id', 'kind', 'title', 'first', 'last', 'messages')
end
return chats
""")
SPEND: Final = _script("""
local person, day, key, limit = unpack(ARGV, 3)
local spent, spenders = P .. 'spent:' .. day, P .. 'spenders:' .. day
local item = #person .. ':' .. person .. key
if call('SISMEMBER', spent, item) == 1 then return 1 end
if tonumber(call('HGET', spenders, person) or 0) >= tonumber(limit) then return 0 end
call('SADD', P .. 'days', day)
call('SADD', spent, item)
call('HINCRBY', spenders, person, 1)
return 1
""")
FIRST_IN: Final = _script("""
if said() then return 1 end
local at = tonumber(call('ZSCORE', P .. 'notices', ARGV[3]) or '-inf')
if math.abs(now - at) < tonumber(ARGV[4]) then return 0 end
call('ZADD', P .. 'notices', now, ARGV[3])
return remember(1)
""")

# --- upkeep -----------------------------------------------------------------------------------------------------

HELLO: Final = _script("""
local schema = tonumber(call('GET', P .. 'schema') or 0)
if schema == 0 and ARGV[3] == '0' then
  call('SET', P .. 'schema', $SCHEMA)
  schema = $SCHEMA
end
return schema
""")
PROBE: Final = _script("return call('SET', P .. 'probe', now)")
CLEAN: Final = _script("""
local first_day, first_month = unpack(ARGV, 3)
local most = 0
local function count(n) most = math.max(most, n) end

local memories = call('ZRANGEBYSCORE', P .. 'memories', '-inf', now - $HISTORY, 'LIMIT', 0, $CHUNK)
for _, memory in ipairs(memories) do
  local history = P .. 'history:' .. memory
  local oldest
  repeat
    local turn = call('LINDEX', history, 0)
    oldest = turn and tonumber(string.match(turn, '^%d+'))
    if oldest and oldest <= now - $HISTORY then call('LPOP', history) end
  until not oldest or oldest > now - $HISTORY
  if oldest then call('ZADD', P .. 'memories', oldest, memory) else call('ZREM', P .. 'memories', memory) end
end
count(#memories)

local letters = 0
while letters < $CHUNK do
  local id = call('LINDEX', P .. 'dead', -1)
  if not id or tonumber(call('HGET', P .. 'letter:' .. id, 'buried') or 0) > now - $DEAD then break end
  call('RPOP', P .. 'dead')
  call('DEL', P .. 'letter:' .. id)
  letters = letters + 1
end
count(letters)

local chats = call('ZRANGEBYSCORE', P .. 'chats', '-inf', now - $CHATS, 'LIMIT', 0, $CHUNK)
for _, chat in ipairs(chats) do
  call('ZREM', P .. 'chats', chat)
  call('DEL', P .. 'chat:' .. chat)
end
count(#chats)

local notices = call('ZRANGEBYSCORE', P .. 'notices', '-inf', now - $NOTICES, 'LIMIT', 0, $CHUNK)
if #notices > 0 then call('ZREM', P .. 'notices', unpack(notices)) end
count(#notices)

for _, day in ipairs(call('SMEMBERS', P .. 'days')) do
  if day < first_day then
    call('UNLINK', P .. 'spent:' .. day, P .. 'spenders:' .. day)
    call('SREM', P .. 'days', day)
  end
end
for _, month in ipairs(call('SMEMBERS', P .. 'months')) do
  if month < first_month then
    call('DEL', P .. 'calls:' .. month)
    call('SREM', P .. 'months', month)
  end
end
return most
""")
"""The most that was dropped of one kind; CHUNK: there may be more."""

ALL: Final = tuple(each for each in globals().values() if isinstance(each, Script))
