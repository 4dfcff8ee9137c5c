"""The worker: order within a conversation, independence between them, retries, stops and drains."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from claw.config.settings import InboxSettings
from claw.errors import DingTalkError, ModelError, ModelErrorKind, StoreError
from claw.inbox.accept import route_of
from claw.inbox.worker import LEASE_TTL_S, SEND_BACKOFF_S, SEND_PATIENCE_S, Worker
from claw.messages import Answer, Exchange, Inbound, Outcome
from claw.store.ports import Lease, Row
from claw.store.sqlite.store import SqliteStore
from tests.clock import FakeClock
from tests.messages import inbound


class Office:
    """A worker over a real store; `think` and `send` are swapped by tests."""

    def __init__(self, path: Path, settings: InboxSettings | None = None) -> None:
        self.clock = FakeClock()
        self.store = SqliteStore(path, clock=self.clock)
        self.sent: list[str] = []
        self.thought: list[str] = []
        self.think: Callable[[Inbound], Awaitable[Answer]] = self.echo
        self.send: Callable[[Answer], Awaitable[None]] = self.out
        self.worker = Worker(
            self.store,
            settings or InboxSettings(),
            owner="test",
            think=self._think,
            apologise=lambda message, error: Answer.of(f"sorry: {message.text}", Outcome.FAILED, error=str(error)),
            remedy=lambda error: "none",
            send=self._send,
            clock=self.clock,
        )
        self.task: asyncio.Task[None] | None = None

    async def echo(self, message: Inbound) -> Answer:
        return Answer.of(
            f"re: {message.text}",
            Outcome.ANSWERED,
            exchange=Exchange(message.chat_key, message.text, f"re: {message.text}"),
        )

    async def out(self, answer: Answer) -> None:
        self.sent.append(answer.text)

    async def _think(self, message: Inbound) -> Answer:
        self.thought.append(message.text)
        return await self.think(message)

    async def _send(self, message: Inbound, answer: Answer, progress: Callable[[Answer], Awaitable[None]]) -> None:
        if answer.text:
            await self.send(answer)

    async def put(self, *messages: Inbound) -> None:
        for message in messages:
            await self.store.put(Row(message, route_of(message)))

    def start(self) -> None:
        self.task = asyncio.create_task(self.worker.run(), name="worker")

    async def until(self, condition: Callable[[], bool | Awaitable[bool]], seconds: float = 10) -> None:
        """Wait, in real time, until what the worker does has come so far."""
        async with asyncio.timeout(seconds):
            while True:
                holds = condition()
                if (await holds) if not isinstance(holds, bool) else holds:
                    return
                await asyncio.sleep(0.002)

    async def until_empty_over_time(self) -> None:
        """Let the fake clock run, a second at a time, until nothing is left to do."""
        async with asyncio.timeout(60):
            while not await self.empty():
                await asyncio.sleep(0.001)  # The store's thread needs real time for its commits.
                await self.clock.advance(1)

    async def empty(self) -> bool:
        return (await self.store.depth()).pending + (await self.store.depth()).leased == 0

    async def close(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        await self.store.close()


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    place = Office(tmp_path / "claw.db")
    await place.store.open()
    yield place
    await place.close()


async def test_answers_in_order(office: Office) -> None:
    """Messages of one conversation are answered one at a time, in order of arrival, and remembered."""
    at_once = most = 0

    async def slow(message: Inbound) -> Answer:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.001)
        at_once -= 1
        return await office.echo(message)

    office.think = slow
    await office.put(*(inbound(str(n)) for n in range(20)))
    office.start()
    await office.until(office.empty)
    assert office.sent == [f"re: {n}" for n in range(20)]
    assert most == 1
    assert [turn.user for turn in await office.store.exchanges(inbound().chat_key, 50)] == [str(n) for n in range(20)]


async def test_conversations_do_not_wait_for_each_other(office: Office) -> None:
    """A conversation whose model hangs holds up nobody else."""

    async def hang(message: Inbound) -> Answer:
        if message.text == "hang":
            await asyncio.Event().wait()
        return await office.echo(message)

    office.think = hang
    await office.put(inbound("hang", chat="slow"), inbound("behind", chat="slow"))
    await office.put(*(inbound(str(n), chat=f"c{n}") for n in range(10)))
    office.start()
    await office.until(lambda: len(office.sent) == 10)
    assert "behind" not in office.thought


async def test_concurrency_is_bounded(tmp_path: Path) -> None:
    """Never more turns at once than CLAW_MAX_CONCURRENCY, except for /stop, which is let through."""
    office = Office(tmp_path / "claw.db", InboxSettings(max_concurrency=3))
    await office.store.open()
    gate = asyncio.Event()

    async def wait(message: Inbound) -> Answer:
        if message.text != "/stop":
            await gate.wait()
        return await office.echo(message)

    office.think = wait
    await office.put(*(inbound(str(n), chat=f"c{n}") for n in range(6)))
    office.start()
    await office.until(lambda: len(office.thought) == 3)
    await office.put(inbound("/stop", chat="c0"))
    await office.until(lambda: office.sent == ["re: /stop"] and office.worker.running == 3)
    gate.set()
    await office.until(office.empty)
    assert len(office.sent) == 7
    await office.close()


async def test_stop_ends_a_thinking_turn(office: Office) -> None:
    """A stopped turn sends nothing, is not tried again, and the next message of its conversation follows."""
    thinking = asyncio.Event()

    async def think(message: Inbound) -> Answer:
        if message.text == "long":
            thinking.set()
            await asyncio.Event().wait()
        return await office.echo(message)

    office.think = think
    await office.put(inbound("long"), inbound("next"))
    office.start()
    await thinking.wait()
    assert office.worker.stop(inbound().chat_key)
    await office.until(office.empty)
    assert office.sent == ["re: next"]
    assert not office.worker.stop(inbound().chat_key)


async def test_another_process_stops_a_turn(office: Office) -> None:
    """The lease that another process names is stopped, and no other one: its lane may have gone on."""
    thinking = asyncio.Event()

    async def think(message: Inbound) -> Answer:
        thinking.set()
        await asyncio.Event().wait()
        return await office.echo(message)

    office.think = think
    leases: list[Lease] = []
    claim = office.store.claim

    async def remembered(*args: Any, **kwargs: Any) -> Lease | None:
        lease = await claim(*args, **kwargs)
        leases.extend([lease] if lease else [])
        return lease

    office.store.claim = remembered  # type: ignore[method-assign]
    await office.put(inbound("long"))
    office.start()
    await thinking.wait()
    (lease,) = leases
    office.worker._interrupted(lease.seq, lease.fence + 1)
    office.worker._interrupted(lease.seq + 1, lease.fence)
    await asyncio.sleep(0.01)
    assert office.worker.running == 1
    office.worker._interrupted(lease.seq, lease.fence)
    await office.until(office.empty)
    assert office.sent == []
    assert await office.store.dead() == []


@pytest.mark.parametrize("elsewhere", [True, False])
async def test_stop_asks_the_others_where_nothing_runs_here(office: Office, elsewhere: bool) -> None:
    """A turn of our own is stopped here, without the store; else the store tells whether somebody else has one."""
    asked: list[str] = []

    async def interrupt(queue: str) -> bool:
        asked.append(queue)
        return elsewhere

    async def hang(message: Inbound) -> Answer:
        await asyncio.Event().wait()
        return await office.echo(message)

    office.store.interrupt = interrupt  # type: ignore[method-assign]
    office.think = hang
    assert await office.worker.stop_anywhere("lane") is elsewhere
    assert asked == ["lane"]
    await office.put(inbound("long"))
    office.start()
    await office.until(lambda: office.worker.running == 1)
    assert await office.worker.stop_anywhere(inbound().chat_key)
    assert not await office.worker.stop_anywhere(inbound().chat_key), "it ends already"
    await office.until(office.empty)
    assert asked == ["lane"]


async def test_what_was_to_be_stopped_is_not_begun(office: Office) -> None:
    """A message whose holder was asked to stop, and died, is put away without an answer."""
    claim = office.store.claim

    async def stopped(*args: Any, **kwargs: Any) -> Lease | None:
        lease = await claim(*args, **kwargs)
        return lease and replace(lease, stopped=lease.inbound.text == "long")

    office.store.claim = stopped  # type: ignore[method-assign]
    await office.put(inbound("long"), inbound("next"))
    office.start()
    await office.until(office.empty)
    assert (office.thought, office.sent) == (["next"], ["re: next"])


async def test_stop_does_not_cut_what_is_being_sent(office: Office) -> None:
    """An answer that is on its way is sent whole: /stop comes too late for it."""
    sending, gate = asyncio.Event(), asyncio.Event()

    async def send(answer: Answer) -> None:
        sending.set()
        await gate.wait()
        office.sent.append(answer.text)

    office.send = send
    await office.put(inbound("one"))
    office.start()
    await sending.wait()
    assert not office.worker.stop(inbound().chat_key)
    gate.set()
    await office.until(office.empty)
    assert office.sent == ["re: one"]


async def test_retryable_fault_is_retried_then_told(office: Office) -> None:
    """A retryable fault is tried CLAW_MAX_ATTEMPTS times with waits, then the person is told and the message buried."""

    async def busy(message: Inbound) -> Answer:
        raise ModelError(ModelErrorKind.BUSY, "429", retryable=True)

    office.think = busy
    await office.put(inbound("one"))
    office.start()
    await office.until_empty_over_time()
    assert office.thought == ["one"] * 3
    assert office.sent == ["sorry: one"]
    assert [letter.error for letter in await office.store.dead()] == ["busy: 429 (try 3)"]


async def test_permanent_fault_is_told_at_once(office: Office) -> None:
    """A fault that no other try can cure is told after the first."""

    async def refuse(message: Inbound) -> Answer:
        raise ModelError(ModelErrorKind.UNAUTHORIZED, "401")

    office.think = refuse
    await office.put(inbound("one"))
    office.start()
    await office.until(office.empty)
    assert (office.thought, office.sent) == (["one"], ["sorry: one"])


async def test_fault_of_ours_does_not_end_the_worker(office: Office) -> None:
    """An error that nobody foresaw ends one message, not the worker."""

    async def broken(message: Inbound) -> Answer:
        if message.text == "poison":
            raise ZeroDivisionError
        return await office.echo(message)

    office.think = broken
    await office.put(inbound("poison", chat="a"), inbound("good", chat="b"))
    office.start()
    await office.until(lambda: office.sent == ["re: good"])


async def test_retry_after_is_honoured(office: Office) -> None:
    """The wait that the model's server asks for is kept."""

    async def busy(message: Inbound) -> Answer:
        if len(office.thought) == 1:
            raise ModelError(ModelErrorKind.BUSY, "429", retryable=True, retry_after=60)
        return await office.echo(message)

    office.think = busy
    await office.put(inbound("one"))
    office.start()
    await office.until(lambda: office.worker.running == 0 and len(office.thought) == 1)
    await office.clock.advance(59)
    assert len(office.thought) == 1
    await office.clock.advance(2)
    await office.until(office.empty)
    assert office.sent == ["re: one"]


async def test_answer_is_paid_for_once(office: Office) -> None:
    """An answer that could not be sent is kept and sent again; the model is not asked again."""
    tries = 0

    async def flaky(answer: Answer) -> None:
        nonlocal tries
        tries += 1
        if tries < 6:
            raise DingTalkError("webhook", "500", status=500, retryable=True)
        office.sent.append(answer.text)

    office.send = flaky
    await office.put(inbound("one"))
    office.start()
    await office.until_empty_over_time()
    assert (office.thought, office.sent) == (["one"], ["re: one"])


async def test_undeliverable_answer_is_buried(office: Office) -> None:
    """An answer that DingTalk refuses for good goes to the dead letters with the cause."""

    async def refuse(answer: Answer) -> None:
        raise DingTalkError("webhook", "group dissolved", errcode=400013)

    office.send = refuse
    await office.put(inbound("one"))
    office.start()
    await office.until(office.empty)
    assert [letter.error for letter in await office.store.dead()] == ["not delivered: webhook: group dissolved"]


@pytest.mark.parametrize("maybe", [True, False])
async def test_patience_of_sending(office: Office, maybe: bool) -> None:
    """What may have been delivered is tried CLAW_MAX_ATTEMPTS times; what certainly was not, for an hour."""
    tries = 0

    async def fail(answer: Answer) -> None:
        nonlocal tries
        tries += 1
        raise DingTalkError("webhook", "no answer", retryable=True, maybe_delivered=maybe)

    office.send = fail
    await office.put(inbound("one"))
    office.start()
    await office.until_empty_over_time()
    assert tries == 3 if maybe else tries > SEND_PATIENCE_S / SEND_BACKOFF_S[1]


class Trouble:
    """A store that fails at one of its methods, four times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, office: Office, method: str) -> None:
        self.left = 4
        self._real = getattr(office.store, method)
        monkeypatch.setattr(office.store, method, self)

    async def __call__(self, *args: Any, **options: Any) -> None:
        if self.left:
            self.left -= 1
            raise StoreError("disk full")
        await self._real(*args, **options)


async def test_store_trouble_does_not_block_a_conversation(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that fails for a moment delays a turn for about as long, not until its lease runs out."""
    Trouble(monkeypatch, office, "release")

    async def think(_: Inbound) -> Answer:
        office.think = office.echo
        raise StoreError("disk full")

    office.think = think
    await office.put(inbound("one"))
    office.start()
    began = office.clock.monotonic()
    await office.until_empty_over_time()
    assert office.sent == ["re: one"]
    assert office.clock.monotonic() - began < LEASE_TTL_S / 2


@pytest.mark.parametrize("write", ["save_answer", "ack"])
async def test_store_trouble_repeats_nothing(write: str, office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is paid for or said while the store fails is neither asked for nor said again when it works again."""
    trouble = Trouble(monkeypatch, office, write)
    await office.put(inbound("one"), inbound("two"))
    office.start()
    await office.until_empty_over_time()
    assert (trouble.left, office.thought, office.sent) == (0, ["one", "two"], ["re: one", "re: two"])


async def test_store_trouble_repeats_no_apology(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """An apology that is out is not said again where its message could not be buried at once."""
    trouble = Trouble(monkeypatch, office, "bury")

    async def think(_: Inbound) -> Answer:
        raise ModelError(ModelErrorKind.UNAUTHORIZED, "401")

    office.think = think
    await office.put(inbound("one"))
    office.start()
    await office.until_empty_over_time()
    assert (trouble.left, office.sent) == (0, ["sorry: one"])


async def test_drain_finishes_what_runs(office: Office) -> None:
    """A drain claims nothing more, lets running turns end, and leaves the rest in the inbox."""
    gate = asyncio.Event()

    async def wait(message: Inbound) -> Answer:
        await gate.wait()
        return await office.echo(message)

    office.think = wait
    await office.put(inbound("one"), inbound("two"))
    office.start()
    await office.until(lambda: office.thought == ["one"])
    drain = asyncio.create_task(office.worker.drain(60))
    await asyncio.sleep(0.01)
    gate.set()
    await drain
    assert office.task is not None
    await office.task
    assert office.sent == ["re: one"]
    assert (await office.store.depth()).pending == 1


async def test_drain_gives_back_what_does_not_end(office: Office) -> None:
    """A turn that outlasts the drain goes back to the inbox, uncounted, for the next process."""
    await office.put(inbound("one"))

    async def hang(message: Inbound) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    office.think = hang
    office.start()
    await office.until(lambda: office.thought == ["one"])
    await office.worker.drain(0.01)
    lease = await office.store.claim("next", 30)
    assert lease is not None
    assert (lease.inbound.text, lease.attempts) == ("one", 0)


async def test_saved_answer_survives_a_crash(tmp_path: Path) -> None:
    """A process that dies between the model's answer and its delivery costs no second model call."""
    first = Office(tmp_path / "claw.db")
    await first.store.open()
    sending = asyncio.Event()

    async def stuck(answer: Answer) -> None:
        sending.set()
        await asyncio.Event().wait()

    first.send = stuck
    await first.put(inbound("one"))
    first.start()
    await sending.wait()
    await first.close()
    second = Office(tmp_path / "claw.db")
    await second.store.open()
    second.start()
    await second.until(second.empty)
    assert (second.thought, second.sent) == ([], ["re: one"])
    await second.close()


async def test_sleeping_machine_does_not_answer_twice(office: Office) -> None:
    """After the machine slept past every lease, running turns are renewed, not claimed a second time."""
    gate = asyncio.Event()

    async def wait(message: Inbound) -> Answer:
        await gate.wait()
        return await office.echo(message)

    office.think = wait
    await office.put(inbound("one"))
    office.start()
    await office.until(lambda: office.thought == ["one"])
    await office.clock.advance(300)
    await office.put(inbound("other", chat="cidB"))
    gate.set()
    await office.until(office.empty)
    assert sorted(office.sent) == ["re: one", "re: other"]


async def test_cancelled_worker_leaves_no_task(office: Office) -> None:
    """Cancelling the worker cancels its turns; nothing of it is left running."""
    before = {task.get_name() for task in asyncio.all_tasks()}
    office.think = lambda message: asyncio.Event().wait()  # type: ignore[assignment,return-value]
    await office.put(*(inbound(chat=f"c{n}") for n in range(5)))
    office.start()
    await office.until(lambda: office.worker.running == 5)
    assert office.task is not None
    office.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await office.task
    assert {task.get_name() for task in asyncio.all_tasks()} - before <= {"claw.store.timer"}
