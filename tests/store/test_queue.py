"""Queues, pure: a machine that plays them against the plainest model, and what the model does not see."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from claw.errors import LeaseLostError
from claw.store.sqlite.queue import ActiveLease, MessageQueues, QueuedMessage

TTL = 10.0


@dataclass
class Message:
    """A message of the model: a row that is walked over each time."""

    seq: int
    queue: str
    urgent: bool
    rests_until: float = 0.0
    held_until: float | None = None
    fence: int = 0
    claims: int = 0
    attempts: int = 0
    created: float = 0.0
    begun: bool = False


class QueuesMachine(RuleBasedStateMachine):
    """Whatever is done in whatever order, the queues say what the model says."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.queues = MessageQueues()
        self.model: list[Message] = []
        self.now = 100.0
        self.count = 0

    def heads(self) -> list[Message]:
        return [m for i, m in enumerate(self.model) if all(o.queue != m.queue for o in self.model[:i])]

    def free(self, message: Message) -> bool:
        held = message.held_until is not None and message.held_until > self.now
        return not held and message.rests_until <= self.now

    def owned(self, lease: tuple[int, int]) -> Message | None:
        return next((m for m in self.model if (m.seq, m.fence) == lease), None)

    def hold(self, lease: tuple[int, int]) -> ActiveLease | None:
        """The hold, where the model agrees that there is one."""
        if self.owned(lease) is None:
            with pytest.raises(LeaseLostError):
                self.queues.find(*lease, self.now)
            return None
        return self.queues.find(*lease, self.now)

    @rule(
        queue=st.sampled_from("abc"),
        urgent=st.booleans(),
        rest=st.sampled_from([0.0, 0.0, 5.0]),
        created=st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0]),
    )
    def add(self, queue: str, urgent: bool, rest: float, created: float) -> None:
        self.count += 1
        until = self.now + rest if rest else 0.0
        # A message that is read from the file with a delay was claimed, and released, before.
        fence = int(rest > 0)
        message = QueuedMessage(self.count, queue, urgent, self.now, fence=fence, delayed_until=until, created=created)
        self.queues.add(message)
        place = len(self.model)
        for index, other in reversed(list(enumerate(self.model))):
            if other.queue == queue:
                if not created or other.created <= created or other.begun:
                    break
                place = index
        self.model.insert(
            place, Message(self.count, queue, urgent, until, fence=fence, created=created, begun=fence > 0)
        )

    @rule(target=leases, urgent=st.booleans())
    def claim(self, urgent: bool) -> tuple[int, int]:
        free = [m for m in self.heads() if self.free(m) and (m.urgent or not urgent)]
        hold = self.queues.claim(self.now, TTL, urgent=urgent)
        if not free:
            assert hold is None
            return (0, 0)
        assert hold is not None
        message = min(free, key=lambda m: m.seq)
        assert hold.message.seq == message.seq
        message.claims += 1
        message.begun = True
        message.fence = hold.message.fence
        message.held_until = self.now + TTL
        assert (hold.message.claims, hold.message.attempts) == (message.claims, message.attempts)
        return (message.seq, message.fence)

    @rule(lease=leases, ttl=st.sampled_from([1.0, TTL, 30.0]))
    def renew(self, lease: tuple[int, int], ttl: float) -> None:
        if hold := self.hold(lease):
            self.queues.renew(hold, self.now + ttl)
            owned = self.owned(lease)
            assert owned is not None
            owned.held_until = self.now + ttl

    @rule(lease=leases, passes=st.sampled_from([0.0, TTL, 40.0]))
    def write(self, lease: tuple[int, int], passes: float) -> None:
        """While a write is under way nobody else gets the message, however long it takes."""
        if hold := self.hold(lease):
            self.queues.begin_write(hold)
            self.now += passes
            self.queues.advance(self.now)
            assert self.queues.find(*lease, self.now) is hold
            self.queues.end_write(hold, self.now)

    @rule(lease=consumes(leases), rest=st.sampled_from([0.0, 3.0]), failed=st.booleans())
    def release(self, lease: tuple[int, int], rest: float, failed: bool) -> None:
        if hold := self.hold(lease):
            owned = self.owned(lease)
            assert owned is not None
            owned.rests_until = self.now + rest if rest else 0.0
            owned.held_until = None
            owned.fence, owned.claims = -1, 0
            owned.attempts += failed
            self.queues.begin_write(hold, ending=True)
            with pytest.raises(LeaseLostError):
                self.queues.begin_write(hold)
            self.queues.release(hold, owned.rests_until, failed=failed)

    @rule(lease=consumes(leases))
    def ack(self, lease: tuple[int, int]) -> None:
        if hold := self.hold(lease):
            self.queues.begin_write(hold, ending=True)
            self.queues.remove(hold)
            self.model = [m for m in self.model if m.seq != lease[0]]

    @rule(seconds=st.sampled_from([0.5, 3.0, TTL, 60.0]))
    def time_goes_on(self, seconds: float) -> None:
        version = self.queues.version()
        before = {m.seq for m in self.heads() if self.free(m)}
        due = self.queues.due
        self.now += seconds
        came_up = {m.seq for m in self.heads() if self.free(m)} - before
        self.queues.advance(self.now)
        if came_up:
            assert due is not None
            assert due <= self.now
            assert self.queues.version() > version

    @invariant()
    def counts_agree(self) -> None:
        self.queues.advance(self.now)
        assert len(self.queues) == len(self.model)
        assert self.queues.leased == sum(m.held_until is not None and m.held_until > self.now for m in self.model)
        oldest = self.queues.oldest
        assert (oldest and oldest.seq) == min((m.seq for m in self.model), default=None)


QueuesMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestQueues = QueuesMachine.TestCase


def test_a_failed_end_leaves_the_lease() -> None:
    """An ack that was not written leaves its holder free to try again, or to lose the lease in time."""
    queues = MessageQueues()
    queues.add(QueuedMessage(1, "a", urgent=False, received_at=0))
    hold = queues.claim(0, TTL)
    assert hold is not None
    queues.begin_write(hold)
    queues.begin_write(hold, ending=True)
    queues.end_write(hold, 1)
    with pytest.raises(LeaseLostError):
        queues.begin_write(hold)
    queues.end_write(hold, 2)
    queues.begin_write(hold)
    queues.end_write(hold, TTL + 1)
    assert queues.leased == 0
    assert queues.claim(TTL + 1, TTL) is not None


def test_a_backlog_costs_no_walk() -> None:
    """Claims and acks stay as fast behind 100 000 messages, in one queue, in many, or resting, as behind a few."""

    def cost(count: int) -> float:
        queues = MessageQueues()
        for seq in range(count):
            kind = seq % 3
            queue = ("one", f"lane{seq}", f"rest{seq}")[kind]
            queues.add(QueuedMessage(seq, queue, urgent=False, received_at=0, delayed_until=1e9 if kind == 2 else 0.0))
        best = float("inf")
        for _ in range(5):
            began = time.process_time()
            for now in range(200):
                hold = queues.claim(now, TTL)
                assert hold is not None
                queues.renew(hold, now + TTL)
                queues.begin_write(hold, ending=True)
                queues.remove(hold)
            best = min(best, time.process_time() - began)
        return best

    # A walk would be a hundred times slower; a noisy machine is not.
    assert cost(100_000) < 20 * cost(2_000)


def test_renewing_for_ever_does_not_grow() -> None:
    """A lease that is renewed without end, and leases that end in time, leave no trail."""
    queues = MessageQueues()
    for seq in range(2_000):
        queues.add(QueuedMessage(seq, "a", urgent=False, received_at=0))
        hold = queues.claim(seq, 1e9)
        assert hold is not None
        queues.renew(hold, seq + 1e9)
        queues.begin_write(hold, ending=True)
        queues.remove(hold)
    assert len(queues._expiries) < 100
    assert not queues._ready
    assert not queues._queues
