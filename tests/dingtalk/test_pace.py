"""The pace of calls: 20 a second of each API, shared by all claws of the app."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from claw.dingtalk.pace import CALLS_MAX, TRANSIT_S, WINDOW_S, CallPace, DueCall, DueQueue
from claw.dingtalk.quota import Api
from tests.clock import FakeClock


async def begin(pace: CallPace, clock: FakeClock, count: int, *, step: bool = False) -> list[float]:
    """When each of so many calls that are wanted at once may begin."""
    at: list[float] = []

    async def call() -> None:
        call = await pace.wait(Api.CARD_STREAM, step=step)
        at.append(clock.monotonic())
        call.end()

    tasks = [asyncio.create_task(call()) for _ in range(count)]
    await clock.advance(count)
    await asyncio.gather(*tasks)
    return at


@pytest.mark.parametrize("share", [1, 3])
async def test_no_second_has_more_calls_than_dingtalk_takes(share: int) -> None:
    """Whatever second is looked at, this claw's share of it is not exceeded."""
    clock = FakeClock()
    at = await begin(CallPace(clock, lambda: share), clock, 100)
    for start in at:
        assert sum(start <= each < start + WINDOW_S for each in at) <= CALLS_MAX // share


async def test_a_call_that_is_slow_to_come_counts_until_it_has_come() -> None:
    """What was begun together may come together with what was begun a second later: nothing of that is left to luck."""
    clock = FakeClock()
    pace = CallPace(clock, lambda: 1)
    slow = [await pace.wait(Api.CARD_CREATE) for _ in range(CALLS_MAX)]
    later = asyncio.create_task(pace.wait(Api.CARD_CREATE))
    await clock.advance(0.3)
    for each in slow:
        each.end()
    await clock.advance(WINDOW_S - 0.1)
    assert not later.done()
    await clock.advance(0.2)
    assert later.done()
    # An answer that takes ten seconds holds up nobody for so long.
    held = [await pace.wait(Api.CARD_STREAM) for _ in range(CALLS_MAX)]
    assert held
    next_one = asyncio.create_task(pace.wait(Api.CARD_STREAM))
    await clock.advance(WINDOW_S + TRANSIT_S + 0.1)
    assert next_one.done()


async def test_a_step_waits_behind_what_people_wait_for() -> None:
    """Of calls that wait at the same time, one step at most goes before the others."""
    clock = FakeClock()
    pace = CallPace(clock, lambda: CALLS_MAX)
    order: list[str] = []

    async def call(name: str, *, step: bool) -> None:
        (await pace.wait(Api.CARD_STREAM, step=step)).end()
        order.append(name)

    steps = [asyncio.create_task(call("step", step=True)) for _ in range(5)]
    await clock.settle()
    ends = [asyncio.create_task(call("end", step=False)) for _ in range(3)]
    await clock.advance(20)
    await asyncio.gather(*steps, *ends)
    assert order == ["step", "step", "end", "end", "end", "step", "step", "step"]


async def test_apis_do_not_wait_for_one_another() -> None:
    """Each API has its own calls a second."""
    clock = FakeClock()
    pace = CallPace(clock, lambda: CALLS_MAX)
    await pace.wait(Api.CARD_STREAM)
    await asyncio.wait_for(pace.wait(Api.CARD_CREATE), 1)


async def test_who_is_cancelled_while_waiting_holds_up_nobody() -> None:
    """A wait that is cancelled gives its turn to the next."""
    clock = FakeClock()
    pace = CallPace(clock, lambda: CALLS_MAX)
    (await pace.wait(Api.GROUP)).end()
    first, second = (asyncio.create_task(pace.wait(Api.GROUP)) for _ in range(2))
    await clock.settle()
    first.cancel()
    await clock.advance(WINDOW_S)
    await asyncio.wait_for(second, 1)


# --- calls that are due at a time ----------------------------------------------------------------------------------


class Due:
    """A queue of calls, and when each was begun, in seconds from the start."""

    def __init__(self, share: Callable[[], int] = lambda: 1) -> None:
        self.clock = FakeClock()
        self.queue = DueQueue(self.clock, share)
        self.began: list[tuple[float, str]] = []

    def add(self, due: float, name: str = "") -> DueCall:
        call = DueCall(self.clock.monotonic() + due, lambda: self.began.append((self.now, name)))
        self.queue.add(call)
        return call

    @property
    def now(self) -> float:
        return round(self.clock.monotonic() - 1000, 3)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        before = asyncio.all_tasks()
        task = asyncio.create_task(self.queue.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert asyncio.all_tasks() <= before, "its waits end with it"


async def test_calls_begin_when_they_are_due() -> None:
    """A call alone begins at its time, in the order of those times and not of their coming."""
    due = Due()
    due.add(3.0, "third")
    due.add(1.0, "first")
    async with due.running():
        await due.clock.advance(0.5)
        due.add(1.5, "second")
        await due.clock.advance(10)
    assert due.began == [(1.0, "first"), (2.0, "second"), (3.0, "third")]


async def test_what_is_overdue_begins_at_once() -> None:
    """Whoever waited elsewhere does not wait again."""
    due = Due()
    async with due.running():
        due.add(-60.0)
        await due.clock.settle()
    assert due.began == [(0.0, "")]


@pytest.mark.parametrize("share", [1, 2])
async def test_fifty_calls_that_are_due_at_the_same_moment(share: int) -> None:
    """All are begun by then, and before that so many that the rest fits into what is left of the time."""
    due = Due(lambda: share)
    for _ in range(50):
        due.add(2.0)
    async with due.running():
        await due.clock.advance(2.0)
        assert len(due.began) == 50
    window = CALLS_MAX // share
    for number in range(int(2.0 / WINDOW_S) + 1):
        latest = 2.0 - number * WINDOW_S
        assert sum(at <= latest for at, _ in due.began) >= 50 - number * window


async def test_fifty_calls_begin_as_late_as_their_deadline_allows() -> None:
    """Most of them are not needed by then: what was taken out of the queue costs nothing."""
    due = Due()
    calls = [due.add(2.0) for _ in range(50)]
    async with due.running():
        await due.clock.advance(0.9)
        assert len(due.began) == 50 - 2 * CALLS_MAX
        for call in calls[-30:]:
            due.queue.remove(call)
        await due.clock.advance(0.9)
        assert len(due.began) == 50 - 2 * CALLS_MAX, "the few that are left can wait"
        await due.clock.advance(0.2)
    assert len(due.began) == 20


async def test_the_crowd_goes_through_the_pace() -> None:
    """Begun early enough, the last of fifty is made hardly later than it is due, and none before there is room."""
    due = Due()
    pace = CallPace(due.clock, lambda: 1)
    made: list[float] = []

    async def make() -> None:
        call = await pace.wait(Api.REACTION)
        made.append(due.now)
        await due.clock.sleep(0.03)
        call.end()

    tasks: list[asyncio.Task[None]] = []
    for _ in range(50):
        due.queue.add(DueCall(due.clock.monotonic() + 2.0, lambda: tasks.append(asyncio.create_task(make()))))
    async with due.running():
        await due.clock.advance(5)
        await asyncio.gather(*tasks)
    assert len(made) == 50
    assert max(made) <= 2.5
    assert all(sum(start <= each < start + WINDOW_S for each in made) <= CALLS_MAX for start in made)


async def test_a_replica_that_joins_takes_its_share() -> None:
    """How many share the app is read anew: with less room for each, calls begin earlier."""
    shares = [1]
    due = Due(lambda: shares[0])
    for _ in range(18):
        due.add(10.0)
    async with due.running():
        await due.clock.advance(1.0)
        shares[0] = 18
        due.add(11.0)
        await due.clock.advance(0.5)
        assert len(due.began) == 9
    assert CALLS_MAX // shares[0] == 1


async def test_a_call_that_is_taken_out_is_not_begun() -> None:
    """Out before its time, or after it, or twice: nothing is begun, and nothing fails."""
    due = Due()
    call, other = due.add(1.0, "out"), due.add(2.0, "in")
    async with due.running():
        await due.clock.advance(0.5)
        due.queue.remove(call)
        due.queue.remove(call)
        await due.clock.advance(5)
        due.queue.remove(other)
    assert due.began == [(2.0, "in")]


async def test_a_queue_that_is_ended_begins_nothing_more() -> None:
    """Cancelled while it waits for a call, or for there to be one, it leaves no task."""
    due = Due()
    async with due.running():
        await due.clock.settle()
    due.add(1.0)
    async with due.running():
        await due.clock.advance(0.5)
    await due.clock.advance(5)
    assert due.began == []
