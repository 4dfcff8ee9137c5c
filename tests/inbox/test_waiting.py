"""A model's server that takes no work yet: it is waited for, and what the model may cost in all is bounded."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from claw.errors import DingTalkError, ModelError, ModelErrorKind, StoreError
from claw.inbox import turns
from claw.inbox.retries import Limits
from claw.messages import Answer, Inbound
from tests.inbox.harness import LIMITS, WorkerHarness
from tests.messages import inbound

AWAY = ModelError(ModelErrorKind.UNREACHABLE, "refused", retryable=True, waits=True)


class Server:
    """A model's server that is away until a moment of the fake clock, for all or for those who say so."""

    def __init__(self, harness: WorkerHarness, seconds: float, only: str = "") -> None:
        self.harness = harness
        self.until = harness.clock.monotonic() + seconds
        self.only = only
        self.asked_at: list[float] = []
        harness.handle = self.answer
        # Fine steps: the server's return must not fall between two of them.
        harness.rest_pace = 0.5

    async def answer(self, message: Inbound) -> Answer:
        self.asked_at.append(self.harness.clock.monotonic())
        if self.harness.clock.monotonic() < self.until and message.text.startswith(self.only):
            raise AWAY
        return await self.harness.echo(message)


async def test_ten_questions_of_a_restart_are_answered(harness: WorkerHarness) -> None:
    """Ten questions whose server needs 24 s to come back are all answered, and each person is told once to wait."""
    Server(harness, 24)
    texts = [str(n) for n in range(10)]
    await harness.put(*(inbound(text, chat=f"c{text}") for text in texts))
    harness.start()
    await harness.until_empty_over_time()
    assert sorted(text for text in harness.delivered if text.startswith("re: ")) == [f"re: {text}" for text in texts]
    assert sorted(text for text in harness.delivered if text.startswith("wait: ")) == [
        f"wait: {text}" for text in texts
    ]
    assert await harness.store.dead() == []
    for text in texts:
        assert harness.delivered.index(f"wait: {text}") < harness.delivered.index(f"re: {text}")


async def test_a_short_restart_is_not_told(harness: WorkerHarness) -> None:
    """A server that is back within seconds is not worth a message."""
    Server(harness, 3)
    await harness.put(inbound("one"))
    harness.start()
    await harness.until_empty_over_time()
    assert harness.delivered == ["re: one"]


async def test_a_queue_keeps_its_order_and_others_go_on(tmp_path: Path) -> None:
    """Messages behind one that waits keep their places; it holds no slot, so other conversations are answered."""
    harness = WorkerHarness(tmp_path / "claw.db", slots=1)
    await harness.store.open()
    server = Server(harness, 60, only="slow")
    await harness.put(inbound("slow", chat="a"), inbound("second", chat="a"), inbound("third", chat="a"))
    await harness.put(*(inbound(str(n), chat=f"c{n}") for n in range(40)))
    harness.start()
    while "re: 39" not in harness.delivered:
        await harness.step()
    assert harness.clock.monotonic() < server.until
    await harness.until_empty_over_time()
    assert [text for text in harness.delivered if not text[4:].isdigit()] == [
        "wait: slow",
        "re: slow",
        "re: second",
        "re: third",
    ]
    await harness.close()


async def test_tries_are_spread(harness: WorkerHarness) -> None:
    """A server that is away is asked often at first, and then a few times a minute."""
    server = Server(harness, 300)
    await harness.put(inbound("one"))
    harness.start()
    await harness.until_empty_over_time()
    began, *_ = server.asked_at
    assert len([at for at in server.asked_at if at < began + 10]) >= 4
    assert 15 < len(server.asked_at) < 120
    late = [at for at in server.asked_at if at > began + 60]
    assert max(b - a for a, b in pairwise(late)) < 20


async def test_patience_ends(harness: WorkerHarness) -> None:
    """After CLAW_MODEL_PATIENCE the person is told that it failed, and the message is a dead letter."""
    server = Server(harness, 10**6)
    await harness.put(inbound("one"))
    harness.start()
    await harness.until_empty_over_time()
    assert harness.delivered == ["wait: one", "sorry: one"]
    assert server.asked_at[-1] - server.asked_at[0] == pytest.approx(LIMITS.patience, abs=10)
    (letter,) = await harness.store.dead()
    assert letter.error.startswith("unreachable: refused (try 1, waited 60")


async def test_without_patience_it_is_an_error_like_any_other(tmp_path: Path) -> None:
    """`CLAW_MODEL_PATIENCE=0`: a server that is away is tried CLAW_MAX_ATTEMPTS times."""
    harness = WorkerHarness(tmp_path / "claw.db", limits=Limits(3, 300.0, 0.0))
    await harness.store.open()
    Server(harness, 10**6)
    await harness.put(inbound("one"))
    harness.start()
    await harness.until_empty_over_time()
    assert (harness.handled, harness.delivered) == (["one"] * 3, ["sorry: one"])
    await harness.close()


async def test_waiting_counts_no_attempt(harness: WorkerHarness) -> None:
    """A message that has waited still has all of its tries for other errors."""
    errors = [AWAY, AWAY, *[ModelError(ModelErrorKind.BUSY, "429", retryable=True)] * 2]

    async def handle(message: Inbound) -> Answer:
        if errors:
            raise errors.pop(0)
        return await harness.echo(message)

    harness.handle = handle
    await harness.put(inbound("one"))
    harness.start()
    await harness.until_empty_over_time()
    assert harness.delivered == ["re: one"]


@pytest.mark.parametrize("how", ["raises", "hangs", "store"])
async def test_a_notice_that_fails_changes_nothing(
    harness: WorkerHarness, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Telling that it takes longer is best effort."""
    monkeypatch.setattr(turns, "NOTICE_TIMEOUT_S", 0.01)

    async def deliver(answer: Answer) -> None:
        if answer.text.startswith("wait: "):
            if how == "hangs":
                await asyncio.Event().wait()
            raise DingTalkError("webhook", "no")
        harness.delivered.append(answer.text)

    async def once_per(name: str, seconds: float) -> bool:
        raise StoreError("disk full")

    if how == "store":
        object.__setattr__(harness.hooks, "once_per", once_per)
    harness.deliver = deliver
    Server(harness, 20)
    await harness.put(inbound("one"))
    harness.start()
    await harness.until_empty_over_time()
    assert harness.delivered == ["re: one"]


async def test_stop_is_not_too_late_for_what_waits(harness: WorkerHarness) -> None:
    """A turn that tells its person to wait can still be stopped."""
    telling = asyncio.Event()

    async def deliver(answer: Answer) -> None:
        telling.set()
        await asyncio.Event().wait()

    harness.deliver = deliver
    Server(harness, 10**6)
    await harness.put(inbound("one"))
    harness.start()
    while not telling.is_set():
        await harness.step()
    assert harness.worker.stop(inbound().chat_key)
    await harness.until(harness.empty)
    assert await harness.store.dead() == []


async def test_stop_ends_the_waiting(harness: WorkerHarness) -> None:
    """What waits between two tries is stopped at once, and the next message of its conversation follows."""
    server = Server(harness, 10**6, only="slow")
    await harness.put(inbound("slow"), inbound("next"))
    harness.start()
    while "wait: slow" not in harness.delivered or harness.worker.running:
        await harness.step()
    asked = len(server.asked_at)
    assert await harness.worker.stop_anywhere(inbound().chat_key)
    await harness.until(harness.empty)
    assert harness.delivered == ["wait: slow", "re: next"]
    assert len(server.asked_at) == asked + 1


@pytest.mark.parametrize("drained", [True, False])
async def test_patience_is_one_over_restarts(tmp_path: Path, drained: bool) -> None:
    """A claw that restarts again and again waits no longer in all, and tells its person once."""
    told: list[str] = []
    clock, empty = None, False
    for _ in range(4):
        harness = WorkerHarness(tmp_path / "claw.db")
        if clock is not None:
            harness.clock.jump(clock)
        await harness.store.open()
        Server(harness, 10**6)
        if clock is None:
            await harness.put(inbound("one"))
        harness.start()
        began = harness.clock.monotonic()
        while harness.clock.monotonic() < began + 200 and not await harness.empty():
            await harness.step()
        if drained:
            await harness.worker.drain(0.01)
        clock = harness.clock.wall() - 1_800_000_000.0
        told += harness.delivered
        empty = await harness.empty()
        await harness.close()
    assert empty
    assert told == ["wait: one", "sorry: one"]


# --- what the model may cost ----------------------------------------------------------------------------------------


async def test_turn_timeout_bounds_all_tries(tmp_path: Path) -> None:
    """Tries of a model that works for minutes and fails end when CLAW_TURN_TIMEOUT of work is used up."""
    harness = WorkerHarness(tmp_path / "claw.db", limits=Limits(20, 300.0, 600.0))
    harness.pace = 5.0
    await harness.store.open()

    async def work(message: Inbound) -> Answer:
        await harness.clock.sleep(120)
        raise ModelError(ModelErrorKind.BROKEN_OFF, "reset", retryable=True)

    harness.handle = work
    await harness.put(inbound("one"))
    harness.start()
    await harness.until_empty_over_time()
    assert (harness.handled, harness.delivered) == (["one"] * 3, ["sorry: one"])
    await harness.close()


async def test_servers_own_tries_are_not_repeated(harness: WorkerHarness) -> None:
    """An error that the server tells after minutes of tries of its own is told at once."""
    harness.pace = 5.0

    async def work(message: Inbound) -> Answer:
        await harness.clock.sleep(145)
        raise ModelError(ModelErrorKind.BUSY, "429", status=429, retryable=True)

    harness.handle = work
    await harness.put(inbound("one"))
    harness.start()
    await harness.until_empty_over_time()
    assert (harness.handled, harness.delivered) == (["one"], ["sorry: one"])


async def test_a_handler_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that outlasts the turn's time is cut, and not tried again."""
    monkeypatch.setattr(turns, "TIMEOUT_GRACE_S", 0.0)
    harness = WorkerHarness(tmp_path / "claw.db", limits=Limits(3, 0.05, 600.0))
    await harness.store.open()
    cancelled = asyncio.Event()

    async def hang(message: Inbound) -> Answer:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    harness.handle = hang
    await harness.put(inbound("one"))
    harness.start()
    await harness.until(harness.empty)
    assert cancelled.is_set()
    assert harness.delivered == ["sorry: one"]
    (letter,) = await harness.store.dead()
    assert letter.error.startswith("timeout: ")
    await harness.close()


async def test_a_timeout_of_the_handlers_own_is_a_fault(harness: WorkerHarness) -> None:
    """A TimeoutError from inside the handler is not taken for the turn's."""

    async def handle(message: Inbound) -> Answer:
        raise TimeoutError

    harness.handle = handle
    await harness.put(inbound("one"))
    harness.start()
    await harness.until_empty_over_time()
    assert harness.handled == ["one"] * 3


async def test_what_came_of_the_last_try_is_shown(harness: WorkerHarness) -> None:
    """An answer that breaks off each time is given, as far as it came, instead of an excuse."""

    async def break_off(message: Inbound) -> Answer:
        raise ModelError(
            ModelErrorKind.BROKEN_OFF, "reset", began=True, partial=f"part {len(harness.handled)}", retryable=True
        )

    harness.handle = break_off
    await harness.put(inbound("one"))
    harness.start()
    await harness.until_empty_over_time()
    assert harness.delivered == ["sorry: part 3"]


async def test_a_drain_keeps_what_was_worked(harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that is given back at a drain has the rest of its time in the next process, not all of it."""
    released: list[dict[str, Any]] = []
    release = harness.store.release

    async def remember(*args: Any, **options: Any) -> None:
        released.append(options)
        await release(*args, **options)

    async def hang(message: Inbound) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(harness.store, "release", remember)
    harness.handle = hang
    await harness.put(inbound("one"))
    harness.start()
    await harness.until(lambda: harness.handled == ["one"])
    await harness.clock.advance(7)
    await harness.worker.drain(0.01)
    lease = await harness.store.claim("next", 30)
    assert lease is not None
    assert lease.worked == pytest.approx(7, abs=0.1)
    assert lease.attempts == 0
