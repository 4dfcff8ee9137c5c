"""The inbox and the registry, each against a simple model, in any order of events, over SQLite and over Redis.

Crashes, lost leases and failing commits are among them; over Redis connections that break before or after a call.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from redis.exceptions import ConnectionError  # noqa: A004

from claw.errors import LeaseLostError
from claw.messages import Answer, Exchange, Outcome
from claw.secret import Secret
from claw.store.ports import Store
from claw.store.redis import scripts
from claw.store.redis.client import Call, RedisClient
from claw.store.redis.store import RedisStore
from claw.store.sqlite.store import SqliteStore
from claw.store.sqlite.writer import JobKind
from claw.store.values import Lease
from tests.clock import FakeClock
from tests.redis_server import RedisServer
from tests.store.contract import TTL, inbound, row


@dataclass
class Message:
    """What the model knows of a message that was put and is not yet acked."""

    number: int
    queue: str
    held_until: float = 0.0
    rests_until: float = 0.0
    fence: int | None = None
    attempts: int = 0
    claims: int = 0
    answer: Answer | None = None


class StoreMachine(RuleBasedStateMachine):
    """An opened store in a loop, and its clock."""

    leases_outlive_processes: ClassVar[bool]

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.runner = asyncio.Runner()
        self.prepare()
        self.store = self.opened()

    @abstractmethod
    def prepare(self) -> None:
        """Make the place of the store, empty."""

    @abstractmethod
    def new_store(self) -> Store: ...

    def opened(self) -> Store:
        async def start() -> Store:
            store = self.new_store()
            await store.open()
            return store

        return self.runner.run(start())

    def teardown(self) -> None:
        self.runner.run(self.store.close())
        self.runner.close()

    @property
    def now(self) -> float:
        return self.clock.monotonic()


class InboxMachine(StoreMachine):
    """The store says what the model says, whatever happens in between."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[Message] = []
        self.seen: set[int] = set()
        self.said: dict[str, list[str]] = {}
        self.dead: list[str] = []

    def owned(self, lease: Lease | None) -> Message | None:
        if lease is None:
            return None
        return next(
            (m for m in self.messages if (f"msg{m.number}", m.fence) == (lease.inbound.msg_id, lease.fence)), None
        )

    @rule(number=st.integers(0, 15), queue=st.sampled_from("abc"))
    def put(self, number: int, queue: str) -> None:
        fresh = self.runner.run(self.store.put(row(inbound(number), queue)))
        assert fresh == (number not in self.seen)
        if fresh:
            self.seen.add(number)
            self.messages.append(Message(number, queue))

    @rule(numbers=st.lists(st.integers(0, 15), min_size=2, max_size=5))
    def put_together(self, numbers: list[int]) -> None:
        """Puts of one batch, with repeats within it."""

        async def together() -> list[bool]:
            return await asyncio.gather(*(self.store.put(row(inbound(n), "a")) for n in numbers))

        for number, fresh in zip(numbers, self.runner.run(together()), strict=True):
            assert fresh == (number not in self.seen)
            if fresh:
                self.seen.add(number)
                self.messages.append(Message(number, "a"))

    @rule(target=leases)
    def claim(self) -> Lease | None:
        free = None
        lanes: set[str] = set()
        for message in self.messages:
            if message.queue not in lanes and max(message.held_until, message.rests_until) <= self.now:
                free = message
                break
            lanes.add(message.queue)
        lease = self.runner.run(self.store.claim("model", TTL))
        if free is None:
            assert lease is None
            return None
        assert lease is not None
        free.claims += 1
        assert lease.inbound == inbound(free.number)
        assert (lease.route.queue, lease.attempts, lease.claims) == (free.queue, free.attempts, free.claims)
        assert lease.answer == free.answer
        assert free.fence is None or lease.fence > free.fence
        free.fence = lease.fence
        free.held_until = self.now + TTL
        return lease

    @rule(lease=leases, text=st.text(max_size=3))
    def save_answer(self, lease: Lease | None, text: str) -> None:
        if lease is None:
            return
        answer = Answer.of(text, Outcome.ANSWERED)
        message = self.owned(lease)
        if message is None:
            with pytest.raises(LeaseLostError):
                self.runner.run(self.store.save_answer(lease, answer))
        else:
            self.runner.run(self.store.save_answer(lease, answer))
            message.answer, message.attempts = answer, 0

    @rule(lease=leases)
    def ack(self, lease: Lease | None) -> None:
        if lease is None:
            return
        message = self.owned(lease)
        turn = Exchange(lease.route.queue, lease.inbound.msg_id, "answer")
        if message is None:
            with pytest.raises(LeaseLostError):
                self.runner.run(self.store.ack(lease, turn))
        else:
            self.runner.run(self.store.ack(lease, turn))
            self.messages.remove(message)
            self.said.setdefault(lease.route.queue, []).append(lease.inbound.msg_id)

    @rule(lease=leases, delay=st.sampled_from([0.0, 5.0]), failed=st.booleans())
    def release(self, lease: Lease | None, delay: float, failed: bool) -> None:
        if lease is None:
            return
        message = self.owned(lease)
        if message is None:
            with pytest.raises(LeaseLostError):
                self.runner.run(self.store.release(lease, delay, failed=failed))
        else:
            self.runner.run(self.store.release(lease, delay, failed=failed))
            message.held_until, message.rests_until = 0.0, self.now + delay
            message.attempts += failed
            message.claims = 0
            message.fence = lease.fence + 1

    @rule(lease=leases)
    def bury(self, lease: Lease | None) -> None:
        if lease is None:
            return
        message = self.owned(lease)
        if message is None:
            with pytest.raises(LeaseLostError):
                self.runner.run(self.store.bury(lease, "cause"))
        else:
            self.runner.run(self.store.bury(lease, "cause"))
            self.messages.remove(message)
            self.dead.insert(0, lease.inbound.key)

    @rule(queue=st.sampled_from("abc"))
    def forget(self, queue: str) -> None:
        before = self.runner.run(self.store.epoch(queue))
        after = self.runner.run(self.store.forget(queue))
        assert after == self.runner.run(self.store.epoch(queue)) != before
        self.said.pop(queue, None)

    @rule(seconds=st.sampled_from([1.0, 6.0, TTL + 1]))
    def time_goes_on(self, seconds: float) -> None:
        self.runner.run(self.clock.advance(seconds))

    @rule()
    def crash(self) -> None:
        """The next process finds everything that was told; where leases die with the process, no lease."""
        self.runner.run(self.store.close())
        self.store = self.opened()
        if not self.leases_outlive_processes:
            for message in self.messages:
                message.held_until = 0.0

    @invariant()
    def chats_agree(self) -> None:
        """Each message that was kept is counted once, whatever became of it."""
        counts = [chat.messages for chat in self.runner.run(self.store.chats())]
        assert counts == ([len(self.seen)] if self.seen else [])

    @invariant()
    def depth_agrees(self) -> None:
        depth = self.runner.run(self.store.depth())
        held = sum(message.held_until > self.now for message in self.messages)
        assert (depth.pending, depth.leased, depth.dead) == (len(self.messages), held, len(self.dead))

    @invariant()
    def memory_agrees(self) -> None:
        for queue in "abc":
            turns = self.runner.run(self.store.exchanges(queue, 100))
            assert [turn.user for turn in turns] == self.said.get(queue, [])


NAMES = st.sampled_from(["a", "ab", "half \ud83d", ""])
VALUES = st.sampled_from(["1", "2", "half \ud83d"])
LIMIT = 3
"""Messages of a person on a day, in this model."""
ENTRIES = st.one_of(
    st.tuples(st.just("set"), NAMES, VALUES),
    st.tuples(st.just("set_if_absent"), NAMES, VALUES),
    st.tuples(st.just("delete"), NAMES, NAMES),
)


class RegistryMachine(StoreMachine):
    """Calls that are made together do what they would have done one after the other, in the order of the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.entered: dict[str, str] = {}
        self.spent: dict[tuple[str, str], set[str]] = {}
        self.noticed: dict[str, float] = {}

    @rule(calls=st.lists(ENTRIES, min_size=1, max_size=6))
    def enter_together(self, calls: list[tuple[str, str, str]]) -> None:
        async def together() -> list[str | None]:
            made = [getattr(self.store, method)(*words) for method, *words in calls]
            return list(await asyncio.gather(*made))

        for (method, name, value), told in zip(calls, self.runner.run(together()), strict=True):
            if method == "set":
                self.entered[name] = value
            elif method == "set_if_absent":
                assert told == self.entered.setdefault(name, value)
            else:
                self.entered.pop(name, None)
                self.entered.pop(value, None)

    @rule(
        calls=st.lists(
            st.tuples(st.sampled_from("xy"), st.sampled_from(["2027-01-15", "2027-01-16"]), st.sampled_from("abcdef")),
            min_size=1,
            max_size=8,
        )
    )
    def spend_together(self, calls: list[tuple[str, str, str]]) -> None:
        async def together() -> list[bool]:
            return await asyncio.gather(*(self.store.consume_quota(*call, LIMIT) for call in calls))

        for (person, day, key), counted in zip(calls, self.runner.run(together()), strict=True):
            keys = self.spent.setdefault((person, day), set())
            if len(keys) < LIMIT:
                keys.add(key)
            assert counted == (key in keys)

    @rule(name=NAMES, seconds=st.sampled_from([1.0, 10.0]))
    def notice(self, name: str, seconds: float) -> None:
        fresh = self.now - self.noticed.get(name, 0.0) >= seconds
        assert self.runner.run(self.store.once_per(name, seconds)) == fresh
        if fresh:
            self.noticed[name] = self.now

    @rule(seconds=st.sampled_from([0.5, 1.0, 9.0]))
    def time_goes_on(self, seconds: float) -> None:
        self.runner.run(self.clock.advance(seconds))

    @rule()
    def clean(self) -> None:
        """Nothing here is old enough to go."""
        self.runner.run(self.store.clean())

    @rule()
    def crash(self) -> None:
        self.runner.run(self.store.close())
        self.store = self.opened()

    @invariant()
    def entries_agree(self) -> None:
        assert self.runner.run(self.store.items()) == self.entered
        assert self.runner.run(self.store.items("a")) == {
            name: value for name, value in self.entered.items() if name.startswith("a")
        }


class InFile(StoreMachine):
    """Over SQLite, in a folder of its own."""

    leases_outlive_processes = False

    def prepare(self) -> None:
        self.folder = Path(tempfile.mkdtemp())

    def new_store(self) -> SqliteStore:
        return SqliteStore(self.folder / "claw.db", clock=self.clock)

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.folder)


class InboxInFile(InFile, InboxMachine):
    """The inbox in a file whose disk fails now and then."""

    @rule(number=st.integers(0, 15))
    def a_commit_fails(self, number: int) -> None:
        """A batch that fails changes nothing, for anybody in it, and the next is fine."""

        async def together() -> tuple[object, object]:
            def spoil(connection: object) -> None:
                raise __import__("sqlite3").OperationalError("disk I/O error")

            assert isinstance(self.store, SqliteStore)
            hurt = asyncio.create_task(self.store.put(row(inbound(number), "a")))
            await asyncio.sleep(0)
            return await asyncio.gather(
                self.store._writer.submit(spoil, kind=JobKind.FLUSH), hurt, return_exceptions=True
            )

        spoilt, put = self.runner.run(together())
        assert isinstance(spoilt, Exception)
        if put is True:  # The thread was quick and took it in a batch of its own.
            self.seen.add(number)
            self.messages.append(Message(number, "a"))


class RegistryInFile(InFile, RegistryMachine):
    """The registry in a file."""


READS = {each.sha for each in (scripts.DEPTH, scripts.CHATS, scripts.EXCHANGES, scripts.ITEMS)}
"""What the invariants ask: a connection that breaks then would prove nothing."""


class InRedis(StoreMachine):
    """Over Redis, whose connection breaks before or after a call; whoever called must not notice."""

    leases_outlive_processes = True
    server: ClassVar[RedisServer]

    def prepare(self) -> None:
        self.server.command("FLUSHALL")
        self.breaks: list[str] = []
        real = RedisClient._send

        async def send(redis: RedisClient, calls: Sequence[Call]) -> list[Any]:
            changes = {call.script.sha for call in calls if call.script is not None} - READS
            when = self.breaks.pop() if self.breaks and changes else ""
            if when != "before":
                replies = await real(redis, calls)
                if not when:
                    return replies
            raise ConnectionError("cut")

        self.patch = mock.patch.object(RedisClient, "_send", send)
        self.patch.start()

    def new_store(self) -> RedisStore:
        return RedisStore(Secret(self.server.url()), "robot", clock=self.clock, now=self.clock.wall)

    @rule(when=st.sampled_from(["before", "after"]))
    def the_connection_breaks(self, when: str) -> None:
        """With the next call that changes something: Redis has not done it, or has done it and its reply is lost."""
        self.runner.run(self.store.depth())  # A connection is there to break.
        self.breaks[:] = [when]

    @rule()
    def the_scripts_are_forgotten(self) -> None:
        self.server.command("SCRIPT", "FLUSH")

    def teardown(self) -> None:
        self.breaks.clear()
        super().teardown()
        self.patch.stop()


class InboxInRedis(InRedis, InboxMachine):
    """The inbox in Redis."""


class RegistryInRedis(InRedis, RegistryMachine):
    """The registry in Redis."""


BOUNDED = settings(max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
for machine in (InboxInFile, RegistryInFile, InboxInRedis, RegistryInRedis):
    machine.TestCase.settings = BOUNDED
TestInbox = InboxInFile.TestCase
TestRegistry = RegistryInFile.TestCase


@pytest.fixture(scope="module")
def _machines(server: RedisServer) -> None:
    InRedis.server = server


TestInboxInRedis = pytest.mark.usefixtures("_machines")(InboxInRedis.TestCase)
TestRegistryInRedis = pytest.mark.usefixtures("_machines")(RegistryInRedis.TestCase)
