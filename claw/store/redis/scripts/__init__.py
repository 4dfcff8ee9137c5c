"""The Lua: one short script for each thing that the store does in Redis, run there as one step that nothing interrupts.

Each is prelude.lua and a body, `<name>.lua`, with the numbers that they use in front. What a script does that must not
be done twice is kept under the call's token for ONCE_S: a call whose reply got lost is made again, and gets the reply
of the first time.

The keys, after the prefix, by the names of the first schema where the code has moved on:

    seq              the number of the newest message
    msg:<seq>        a message: its queue (`lane`), body, trace, counts, fence, answer, kind and conversation key
    lane:<queue>     the numbers of a queue's messages, in order; only its first may be worked on
    pending          every number that is not acked
    ready, urgent    heads of queues that may be claimed, and those among them that were put so
    held, resting    heads that are leased or delayed, by the time at which that ends
    seen, newest     when messages were written, by key, as DingTalk says; the newest of these times
    seen:<key>       when a message came that has no such time; it expires by itself
    fleet            the replicas that live
    dead, letter:<n> the dead letters, newest first
    history:<key>, memories           exchanges, the histories by their oldest exchange
    epochs, epochs:used, epochs:floor how often each history was forgotten, when it was last asked for, see epoch.lua
    calls:<month>, months             calls of DingTalk
    entries, version                  the items, and the token of their last change
    chats, chat:<key>                 the chats by last message
    spent:<day>, spenders:<day>, days, notices
    said:<chat>, said:<chat>:at, said:<chat>:sent   messages for quotes, by id; their times; the robot's among them
    language:<person>
    card:<id>, cards, votes:<id>      cards; those that are open, by the time they were opened; votes by person
    send:<id>, audit                  receipts of what programs sent; who changed what, newest first
    used:<day>, used:<day>:rows       what people used: counts, and the names of people and chats
    news, once:<token>, probe, schema, id, lost

What is kept twice (`pending`, the queues, the states of their heads) is compared with the messages by each cleaning.

Times are milliseconds since the epoch: Lua's numbers hold them whole, and so does their text.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Final

from claw.store.operation import (
    AUDIT_MAX,
    DEAD_LETTERS_MAX,
    DEAD_READ_BYTES,
    DEAD_RETENTION_S,
    SENDS_RETENTION_S,
    USAGE_DAY_MAX,
    USAGE_RETENTION_DAYS,
)
from claw.store.ports import (
    CARDS_RETENTION_S,
    CHATS_RETENTION_S,
    CLOCK_SKEW_S,
    CREATED_AHEAD_MAX_S,
    DELAY_MAX_S,
    EPOCH_RETENTION_S,
    EPOCH_TOUCH_S,
    HISTORY_EXCHANGES_MAX,
    HISTORY_RETENTION_S,
    INDEX_MAX,
    INDEX_RETENTION_S,
    NOTICES_RETENTION_S,
    PASSED_MAX,
    PEOPLE_RETENTION_S,
    PLACES_LOOKED_AT,
    REPLICA_LIFE_S,
    SEEN_RETENTION_S,
    STUCK_AGE_S,
    STUCK_MAX,
    VOTES_MAX,
)

SCHEMA: Final = 4
"""What `schema` must hold at most; raised when a later claw keeps things in another way. 1 was 0.1.0, which cannot read
the messages of today: it would bury them. 2 kept seen ids under keys of their own: it would answer repeats. 3 had no
parts in messages, and would bury them as well."""
ONCE_S: Final = 30.0
"""Seconds for which a call's reply is kept for its repetition, which comes within CALL_TIMEOUT_S (client.py)."""
CHUNK_MAX: Final = 500
"""Things of one kind that one cleaning removes at most, so that no message waits for it for long."""
LEASE_MAX_S: Final = 300.0
"""Seconds for which a lease holds at most: one that ends later is from before the clock was set back."""
TAKEN_S: Final = 30.0
"""Seconds that a holder gets to renew its lease where only the lease's end is gone; as long as a lease."""
MEND_MAX: Final = 100
"""Pending messages that one script compares."""
SCAN_MAX: Final = 1_000
"""Keys of the whole database that one step of the search for messages looks at."""
ADVANCE_MAX: Final = 1_000
"""Leases and delays that one script ends at most."""


_NUMBERS: Final = {
    "SCHEMA_MAX": SCHEMA,
    "ONCE_MS": int(ONCE_S * 1000),
    "CHUNK_MAX": CHUNK_MAX,
    "LEASE_MS": int(LEASE_MAX_S * 1000),
    "DELAY_MS": int(DELAY_MAX_S * 1000),
    "TAKEN_MS": int(TAKEN_S * 1000),
    "MEND_MAX": MEND_MAX,
    "SCAN_MAX": SCAN_MAX,
    "EPOCH_MS": int(EPOCH_RETENTION_S * 1000),
    "EPOCH_TOUCH_MS": int(EPOCH_TOUCH_S * 1000),
    "ADVANCE_MAX": ADVANCE_MAX,
    "SEEN_MS": int(SEEN_RETENTION_S * 1000),
    "AHEAD_MS": int(CREATED_AHEAD_MAX_S * 1000),
    "SKEW_MS": int(CLOCK_SKEW_S * 1000),
    "PASSED_MAX": PASSED_MAX,
    "CARDS_MS": int(CARDS_RETENTION_S * 1000),
    "VOTES_MAX": VOTES_MAX,
    "PLACES_LOOKED_AT": PLACES_LOOKED_AT,
    "STUCK_MAX": STUCK_MAX,
    "STUCK_MS": int(STUCK_AGE_S * 1000),
    "REPLICA_MS": int(REPLICA_LIFE_S * 1000),
    "DEAD_MAX": DEAD_LETTERS_MAX,
    "DEAD_BYTES": DEAD_READ_BYTES,
    "DEAD_MS": int(DEAD_RETENTION_S * 1000),
    "HISTORY_MS": int(HISTORY_RETENTION_S * 1000),
    "EXCHANGES_MAX": HISTORY_EXCHANGES_MAX,
    "CHATS_MS": int(CHATS_RETENTION_S * 1000),
    "NOTICES_MS": int(NOTICES_RETENTION_S * 1000),
    "INDEX_MS": int(INDEX_RETENTION_S * 1000),
    "INDEX_MAX": INDEX_MAX,
    "PEOPLE_MS": int(PEOPLE_RETENTION_S * 1000),
    "SENDS_MS": int(SENDS_RETENTION_S * 1000),
    "USAGE_MS": USAGE_RETENTION_DAYS * 24 * 3600 * 1000,
    "USAGE_DAY_MAX": USAGE_DAY_MAX,
    "AUDIT_MAX": AUDIT_MAX,
}


@dataclass(frozen=True, slots=True)
class Script:
    """A script and its hash, by which Redis knows it once it was loaded."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        # Redis counts it in the same way; to no other purpose than to name a script.
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())


def load(name: str, **numbers: int) -> Script:
    """Return the script of `<name>.lua`. `numbers` take the place of those that it uses, in tests."""
    folder = files(__name__)
    body = "\n".join(folder.joinpath(f"{each}.lua").read_text(encoding="utf-8") for each in ("prelude", name))
    # Only those that are used: each local costs every call a little, and Lua allows 200 of them.
    used = {each: value for each, value in (_NUMBERS | numbers).items() if re.search(rf"\b{each}\b", body)}
    return Script("".join(f"local {each} = {value}\n" for each, value in used.items()) + body)


PUT: Final = load("put")
CLAIM: Final = load("claim")
VERSION: Final = load("version")
RENEW: Final = load("renew")
SAVE_ANSWER: Final = load("save_answer")
ACK: Final = load("ack")
RELEASE: Final = load("release")
BURY: Final = load("bury")
KNOWN: Final = load("known")
INTERRUPT: Final = load("interrupt")
DEPTH: Final = load("depth")
DEAD: Final = load("dead")
FIND_DEAD: Final = load("find_dead")
REQUEUE: Final = load("requeue")
DROP_DEAD: Final = load("drop_dead")
BEGIN_SEND: Final = load("begin_send")
END_SEND: Final = load("end_send")
FIND_SEND: Final = load("find_send")
ADD_USAGE: Final = load("add_usage")
USAGE: Final = load("usage")
APPEND_AUDIT: Final = load("append_audit")
AUDIT: Final = load("audit")
EXCHANGES: Final = load("exchanges")
EPOCH: Final = load("epoch")
FORGET: Final = load("forget")
ADD_CALLS: Final = load("add_calls")
CALLS: Final = load("calls")
ITEMS: Final = load("items")
SET_ITEM: Final = load("set_item")
SET_ITEM_IF_ABSENT: Final = load("set_item_if_absent")
DELETE_ITEMS: Final = load("delete_items")
CHATS: Final = load("chats")
CONSUME_QUOTA: Final = load("consume_quota")
ONCE_PER: Final = load("once_per")
FOLLOWERS: Final = load("followers")
FIND_MESSAGE: Final = load("find_message")
FIND_SENT: Final = load("find_sent")
LANGUAGE: Final = load("language")
SET_LANGUAGE: Final = load("set_language")
KEEP_CARD: Final = load("keep_card")
FIND_CARD: Final = load("find_card")
OPEN_CARDS: Final = load("open_cards")
VOTE: Final = load("vote")
PLACE: Final = load("place")
BEAT: Final = load("beat")
REPLICAS: Final = load("replicas")
HELLO: Final = load("hello")
PROBE: Final = load("probe")
CLEAN: Final = load("clean")
MEND_MESSAGES: Final = load("mend_messages")
MEND_QUEUES: Final = load("mend_queues")

PROVING: Final = frozenset({PUT.sha, REQUEUE.sha, SAVE_ANSWER.sha, PROBE.sha})
"""Scripts that add to what Redis holds: only these prove that it takes writes; others go on with a full memory."""

# A greeting loads all of them, so that no call has to send its text.
ALL: Final = tuple(each for each in globals().values() if isinstance(each, Script))
