"""Fairness: whatever one person does, the others are not held up; and a message that kills its process runs alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest

from claw.inbox.fairness import URGENT_SLOTS
from claw.inbox.leases import LEASE_TTL_S
from claw.inbox.turns import CLAIMS_MAX
from claw.inbox.worker import SUSPECT_CLAIMS
from claw.messages import Answer, Inbound
from tests.inbox.harness import OWNER, WorkerHarness, somebody
from tests.messages import inbound

SLOTS = 8
SHARE = 2


class Gate:
    """Turns that last until they are let go; counts those of each kind that run at the same time."""

    def __init__(self, harness: WorkerHarness, *, held: str = "", urgent_held: bool = False) -> None:
        self.harness = harness
        self.held = held
        self.urgent_held = urgent_held
        self.open = asyncio.Event()
        self.running: list[str] = []
        self.most = self.most_at_all = 0
        harness.handle = self.handle

    async def handle(self, message: Inbound) -> Answer:
        self.running.append(message.text)
        mine = [text for text in self.running if text.startswith(self.held)]
        self.most, self.most_at_all = max(self.most, len(mine)), max(self.most_at_all, len(self.running))
        if message.text.startswith(self.held):
            await self.open.wait()
        self.running.remove(message.text)
        return await self.harness.echo(message)


@pytest.fixture
async def crowd(tmp_path: Path) -> AsyncIterator[WorkerHarness]:
    made = WorkerHarness(tmp_path / "claw.db", slots=SLOTS)
    await made.store.open()
    yield made
    await made.close()


async def test_a_person_holds_a_quarter_of_the_slots(crowd: WorkerHarness) -> None:
    """Somebody who writes in 200 groups at once gets a quarter; others are answered without any time passing."""
    gate = Gate(crowd, held="flood")
    await crowd.put(*(inbound(f"flood {n}", chat=f"g{n}") for n in range(200)))
    await crowd.put(*(somebody(n) for n in range(20)))
    crowd.start()
    await crowd.until(lambda: len(crowd.delivered) == 20)
    assert gate.most == SHARE
    gate.open.set()
    await crowd.until_empty_over_time()
    assert gate.most == SHARE
    assert len(crowd.delivered) == 220


async def test_going_back_costs_nothing(crowd: WorkerHarness) -> None:
    """A message that waits for its person's slot keeps its tries, and its order in its conversation."""
    gate = Gate(crowd, held="flood")
    await crowd.put(*(inbound(f"flood {n}", chat=f"g{n}") for n in range(4)))
    await crowd.put(*(inbound(f"then {n}", chat="g3") for n in range(2)))
    crowd.start()
    await crowd.until(lambda: len(gate.running) == SHARE)
    for _ in range(30):
        await crowd.step()
    gate.open.set()
    await crowd.until_empty_over_time()
    answers = [text for text in crowd.delivered if text in {"re: flood 3", "re: then 0", "re: then 1"}]
    assert answers == ["re: flood 3", "re: then 0", "re: then 1"]
    assert (await crowd.store.depth()).dead == 0


async def test_messages_that_wait_are_not_claimed_in_a_circle(crowd: WorkerHarness) -> None:
    """However many of a person's messages wait, only a few a second are claimed in vain."""
    gate = Gate(crowd, held="flood")
    claims = 0
    claim = crowd.store.claim

    async def count(*args: object, **options: object) -> object:
        nonlocal claims
        claims += 1
        return await claim(*args, **options)  # type: ignore[arg-type]

    crowd.store.claim = count  # type: ignore[method-assign, assignment]
    await crowd.put(*(inbound(f"flood {n}", chat=f"g{n}") for n in range(200)))
    crowd.start()
    await crowd.until(lambda: claims > 200)
    await asyncio.sleep(0.1)
    before = claims
    for _ in range(100):
        await asyncio.sleep(0.001)
        await crowd.clock.advance(0.1)
    # Ten seconds: twenty of each second come back, and each time the worker also finds nothing left.
    assert claims - before <= 10 * 20 * 3
    gate.open.set()


async def test_urgent_ones_have_slots_of_their_own(crowd: WorkerHarness) -> None:
    """A flood of /stop takes a few slots and none of the others'; all of them are answered in the end."""
    gate = Gate(crowd, held="/")
    await crowd.put(*(inbound("/stop", chat=f"g{n}") for n in range(100)))
    await crowd.put(*(somebody(n) for n in range(20)))
    crowd.start()
    await crowd.until(lambda: len(crowd.delivered) == 20)
    assert gate.most == URGENT_SLOTS
    assert gate.most_at_all <= URGENT_SLOTS + SLOTS
    gate.open.set()
    await crowd.until_empty_over_time()
    assert len(crowd.delivered) == 120


async def test_urgent_ones_of_a_chat_come_once_a_second(crowd: WorkerHarness) -> None:
    """Ten /stop of one chat take nine seconds, each a second after the one before; another chat's waits for none."""
    times: list[float] = []

    async def note(message: Inbound) -> Answer:
        times.append(crowd.clock.monotonic())
        return await crowd.echo(message)

    crowd.handle = note
    crowd.rest_pace = 0.1
    await crowd.put(*(inbound("/stop", chat="flood") for _ in range(10)), inbound("/stop", chat="other"))
    crowd.start()
    await crowd.until(lambda: len(times) == 2)
    assert times[0] == times[1]
    await crowd.until_empty_over_time()
    times = [times[0], *times[2:]]
    gaps = [after - before for before, after in pairwise(times)]
    assert len(times) == 10
    assert all(0.7 <= gap <= 1.6 for gap in gaps)


# --- messages that kill their process ----------------------------------------------------------------------------


async def die(harness: WorkerHarness, times: int) -> None:
    """Claim all that is ready as processes do that die over it, so many times."""
    for _ in range(times):
        while await harness.store.claim("dead", LEASE_TTL_S) is not None:
            pass
        await harness.clock.advance(LEASE_TTL_S + 1)


async def test_a_suspect_runs_alone(crowd: WorkerHarness) -> None:
    """Who died with their process twice run one after the other, with nothing else, urgent ones included."""
    gate = Gate(crowd)
    gate.open.set()
    await crowd.put(*(somebody(n) for n in range(3)))
    await die(crowd, SUSPECT_CLAIMS - 1)
    gate.held = "0"
    gate.open.clear()
    crowd.start()
    await crowd.until(lambda: gate.running == ["0"])
    await crowd.put(inbound("/stop", chat="new"), somebody(7))
    await asyncio.sleep(0.05)
    assert gate.running == ["0"]
    gate.open.set()
    await crowd.until(crowd.empty)
    assert crowd.handled[:3] == ["0", "1", "2"]
    assert sorted(crowd.delivered) == ["re: /stop", "re: 0", "re: 1", "re: 2", "re: 7"]


async def suspect_behind_another(crowd: WorkerHarness) -> Gate:
    """Put a suspect of person 1 into the inbox while the worker is busy with person 5, held by the gate returned."""
    gate = Gate(crowd, held="5")
    await crowd.put(somebody(1))
    await die(crowd, SUSPECT_CLAIMS - 1)
    # Taken by another process that dies a third time, while ours has begun something else.
    assert await crowd.store.claim("dead", LEASE_TTL_S) is not None
    await crowd.put(somebody(5))
    crowd.start()
    await crowd.until(lambda: gate.running == ["5"])
    await crowd.clock.advance(LEASE_TTL_S + 1)
    await asyncio.sleep(0.05)
    return gate


async def test_a_suspect_waits_for_the_running_turns(crowd: WorkerHarness) -> None:
    """It starts when the last of the others has ended, and those that come meanwhile wait for it."""
    gate = await suspect_behind_another(crowd)
    await crowd.put(somebody(6))
    await asyncio.sleep(0.05)
    assert crowd.handled == ["5"]
    gate.open.set()
    await crowd.until(crowd.empty)
    assert crowd.handled == ["5", "1", "6"]


async def test_a_drain_gives_a_waiting_suspect_back(crowd: WorkerHarness) -> None:
    """A suspect that waits for its turn holds up no drain and stays in the inbox."""
    await suspect_behind_another(crowd)
    await asyncio.wait_for(crowd.worker.drain(0.1), 5)
    await asyncio.sleep(0.05)
    assert crowd.handled == ["5"]
    depth = await crowd.store.depth()
    assert (depth.pending, depth.leased) == (2, 0)


async def test_poison_is_given_up_after_four_deaths(crowd: WorkerHarness) -> None:
    """The fifth process does not handle it: the person is told, and the dead letter says why."""
    await crowd.put(somebody(1))
    await die(crowd, CLAIMS_MAX)
    crowd.start()
    await crowd.until(crowd.empty)
    assert crowd.handled == []
    assert crowd.delivered == ["sorry: 1"]
    assert "process died" in (await crowd.store.dead())[0].error


async def test_poison_in_the_delivery_is_given_up(crowd: WorkerHarness) -> None:
    """An answer whose delivery kills the process is buried with it; owner and person are told by other messages."""
    await crowd.put(somebody(1))
    lease = await crowd.store.claim("dead", LEASE_TTL_S)
    assert lease is not None
    await crowd.store.save_answer(lease, await crowd.echo(lease.inbound))
    await crowd.clock.advance(LEASE_TTL_S + 1)
    await die(crowd, CLAIMS_MAX - 1)
    crowd.start()
    await crowd.until(crowd.empty)
    assert "re: 1" not in crowd.delivered
    assert set(crowd.receivers) == {OWNER, "u-1"}
    letter = (await crowd.store.dead())[0]
    assert "process died" in letter.error
    assert letter.answer is not None


async def test_the_innocent_are_not_given_up(crowd: WorkerHarness) -> None:
    """A message that was in flight at three crashes is answered as soon as one process lives."""
    await crowd.put(*(somebody(n) for n in range(5)))
    await die(crowd, CLAIMS_MAX - 1)
    crowd.start()
    await crowd.until(crowd.empty)
    assert sorted(crowd.delivered) == [f"re: {n}" for n in range(5)]
