"""Data of released versions, as that very code wrote it: today's stores must find all of it again.

`data/claw-0.1.0.sqlite` is the file that version 0.1.0 left, and `data/redis-0.1.0.jsonl` holds, for each key that it
left in Redis 7.0, the command that makes the key anew (bytes as Latin-1; replies kept for repetition are left out).
Both were filled by one script against the store of that version, with `tests.clock.FakeClock` as the clock:

1. four entries of the registry, among them the owner;
2. messages `done1`, `done2` in chat `cid1`: claimed and acked, each with a turn of the history `robot:cid1`;
3. `dead1`, `dead2` in `cid4`: buried, the second after one failed try;
4. history `robot:cid2` forgotten twice; calls, a quota of two for `staff1`, and one notice;
5. `leased` in the direct chat `cid3`: claimed, and never ended;
6. `answered` in `cid1`: claimed, its answer saved with one part out, released as failed;
7. `waiting` in `cid1`, behind it; and `urgent`, put urgent in the lane `robot:cid1!urgent`.

The files are frozen: a new release adds a new pair, made in the same way by that release.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from claw.messages import Answer, ChatKind, Exchange, Outcome, Route
from claw.secret import Secret
from claw.store.ports import Store
from claw.store.redis.store import RedisStore
from claw.store.sqlite.store import SqliteStore
from claw.store.values import Chat, Lease, Row, RowKind
from tests.clock import FakeClock
from tests.redis_server import RedisServer

DATA = Path(__file__).parent / "data"
AT = 1_800_000_000.0
TTL = 30.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest_asyncio.fixture(params=["sqlite", "redis"])
async def store(
    request: pytest.FixtureRequest, server: RedisServer, tmp_path: Path, clock: FakeClock
) -> AsyncIterator[Store]:
    """Today's store, opened over what the old version left, after the old process' lease has run out."""
    opened: Store
    if request.param == "sqlite":
        path = tmp_path / "claw.db"
        shutil.copyfile(DATA / "claw-0.1.0.sqlite", path)
        opened = SqliteStore(path, clock=clock)
    else:
        server.command("FLUSHALL")
        for line in (DATA / "redis-0.1.0.jsonl").read_text().splitlines():
            server.command(*(word.encode("latin-1") for word in json.loads(line)))
        opened = RedisStore(Secret(server.url()), "dingfakeclient", clock=clock, now=clock.wall)
    await clock.advance(TTL + 1)
    await opened.open()
    yield opened
    await opened.close()


async def claim(store: Store, *, urgent: bool = False) -> Lease:
    lease = await store.claim("today", TTL, urgent=urgent)
    assert lease is not None
    return lease


async def test_the_old_version_is_refused_from_now_on(store: Store, server: RedisServer, tmp_path: Path) -> None:
    """Its rows are read here, but it cannot read ours: after a step back it must not bury what it finds."""
    if isinstance(store, RedisStore):
        (key,) = (key for key in server.held() if key.endswith(":schema"))
        assert int(server.command("GET", key)) > 1
    else:
        with contextlib.closing(sqlite3.connect(tmp_path / "claw.db")) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() > (2,)


async def test_settings_of_the_chat_are_found(store: Store) -> None:
    """The owner, policies and lists are as they were entered."""
    assert await store.items() == {
        "owner": "staff1",
        "policy.group": "allowlist",
        "allow.group.cid1": "Room",
        "block.user.staff9": "",
    }
    assert await store.set_if_absent("owner", "staff2") == "staff1"


async def test_history_is_found(store: Store) -> None:
    """Turns and epochs are as they were left, also with half of a surrogate pair in them."""
    assert await store.exchanges("robot:cid1", 9) == [
        Exchange("robot:cid1", f"question {n}", f"answer {n} 😀 \ud83d") for n in (1, 2)
    ]
    assert await store.epoch("robot:cid2") == "2"
    assert await store.forget("robot:cid2") == "3"


async def test_chats_and_counts_are_found(store: Store) -> None:
    """Chats, calls, quota and notices go on where they were."""
    assert sorted(await store.chats(), key=lambda chat: chat.id) == [
        Chat("cid1", ChatKind.GROUP, "Room", AT, AT, 5),
        Chat("cid3", ChatKind.DIRECT, "Ann", AT, AT, 1),
        Chat("cid4", ChatKind.GROUP, "Room", AT, AT, 2),
    ]
    await store.add_calls("2027-01", {"webhook": 1})
    assert await store.calls("2027-01") == {"webhook": 13, "token": 3}
    assert await store.consume_quota("staff1", "2027-01-15", "robot:done2", 2), "counted before"
    assert not await store.consume_quota("staff1", "2027-01-15", "robot:done3", 2)
    assert not await store.once_per("limit.staff1", 3600)


async def test_dead_letters_are_found(store: Store) -> None:
    """Each with its cause and its tries, newest first."""
    letters = await store.dead()
    assert [(letter.key, letter.error, letter.attempts) for letter in letters] == [
        ("robot:dead2", "cause 2", 1),
        ("robot:dead1", "cause 1", 0),
    ]
    assert {(letter.received_at, letter.buried_at) for letter in letters} == {(AT, AT)}


async def test_messages_are_found_in_order(store: Store) -> None:
    """Each may be claimed in its turn, with its answer, its tries and a fence beyond the old one."""
    depth = await store.depth()
    assert (depth.pending, depth.dead, depth.oldest_age) == (4, 2, TTL + 1)
    leased, answered, urgent = [await claim(store) for _ in range(3)]
    assert await store.claim("today", TTL) is None, "the last one waits behind the answered one"
    assert [lease.inbound.msg_id for lease in (leased, answered, urgent)] == ["leased", "answered", "urgent"]
    assert [lease.route for lease in (leased, answered, urgent)] == [
        Route("robot:cid3", "robot:cid3"),
        Route("robot:cid1", "robot:cid1"),
        Route("robot:cid1", "robot:cid1!urgent", urgent=True),
    ]
    assert {lease.kind for lease in (leased, answered, urgent)} == {RowKind.MESSAGE}
    assert (leased.claims, leased.attempts, leased.answer) == (2, 0, None)
    assert (answered.claims, answered.attempts) == (1, 1)
    assert answered.answer == Answer.of(
        "the answer", Outcome.ANSWERED, sent=1, exchange=Exchange("robot:cid1", "hello", "the answer")
    )
    assert {lease.received_at for lease in (leased, answered, urgent)} == {AT}
    assert answered.inbound.webhook.reveal().endswith("session=made-up")
    assert answered.trace == {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    old_fences = {"SqliteStore": (1, 2), "RedisStore": (3472147792, 3353690928)}[type(store).__name__]
    assert leased.fence > old_fences[0]
    assert answered.fence > old_fences[1]
    await store.ack(answered, answered.answer.exchange)
    assert (await claim(store)).inbound.msg_id == "waiting"
    assert len(await store.exchanges("robot:cid1", 9)) == 3


async def test_an_urgent_message_is_still_urgent(store: Store) -> None:
    """It may be claimed as such, past the others."""
    assert (await claim(store, urgent=True)).inbound.msg_id == "urgent"
    assert await store.claim("today", TTL, urgent=True) is None


@pytest.mark.parametrize("msg_id", ["done1", "dead1", "leased", "answered", "waiting", "urgent"])
async def test_repeats_are_still_known(store: Store, msg_id: str) -> None:
    """Whatever became of it, a message that the old version has seen is not taken a second time."""
    lease = await claim(store)
    assert not await store.put(Row(replace(lease.inbound, msg_id=msg_id), lease.route))
