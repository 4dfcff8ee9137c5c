"""A worker over a real store, for the tests of this folder.

Backoff and leases run on the fake clock. Real time passes only while the store's thread commits, which `until` waits
for by its condition; a negative ("nothing more happens") is waited for a moment, which can only miss a fault.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from claw.draft import Draft, Persist
from claw.errors import ModelError, StoreError
from claw.inbox.alerts import UndeliveredAlerts
from claw.inbox.retries import Limits
from claw.inbox.routing import Router
from claw.inbox.trips import Trip
from claw.inbox.turns import TurnHooks
from claw.inbox.worker import Worker
from claw.language import Language
from claw.messages import Answer, Exchange, Inbound, Outcome, Route, Sender
from claw.policy import GroupSession
from claw.store.sqlite.store import SqliteStore
from claw.store.values import Follower, Lease, Row
from claw.turn.commands.parser import is_urgent
from claw.turn.languages import PersonalLanguages
from claw.turn.notices import Notices
from tests.clock import FakeClock
from tests.drafts import RecordingDraft
from tests.messages import inbound

LIMITS = Limits(max_attempts=3, turn_timeout=300.0, patience=600.0)
OWNER = "u-boss"
ROUTE = Router(GroupSession.SHARED, is_urgent).route


def somebody(number: int) -> Inbound:
    """Return a message of a person of their own, in a chat of their own."""
    return inbound(str(number), chat=f"c{number}", sender=Sender(f"$:LWCP_v1:${number}", f"u-{number}"))


class WorkerHarness:
    """A worker over a real store and a clock of its own; tests swap `handle` and `deliver`."""

    def __init__(
        self,
        path: Path,
        *,
        slots: int = 32,
        limits: Limits = LIMITS,
        store: type[SqliteStore] = SqliteStore,
        merges: bool = False,
    ) -> None:
        self.clock = FakeClock()
        self.store = store(path, clock=self.clock)
        self.delivered: list[str] = []
        self.receivers: list[str] = []
        """To whom each delivery was tried."""
        self.handled: list[str] = []
        self.failure_text = ""
        self.pace, self.rest_pace = 0.1, 4.0
        """Seconds of the fake clock for each millisecond, while a turn runs, and while none does."""
        self.owners_unknown = False
        self.drafts: list[HarnessDraft] = []
        self.trips: list[Trip] = []
        self.receipts: list[tuple[str, tuple[str, ...]]] = []
        """What programs sent, with DingTalk's names for it."""
        self.given_up: list[Exception] = []
        self.handle: Callable[[Inbound], Awaitable[Answer]] = self.echo
        self.deliver: Callable[[Answer], Awaitable[None]] = self.out
        self.finish: Callable[[Answer, Persist], Awaitable[tuple[str, ...]]] | None = None
        """In place of `deliver`, for a test that sends parts."""
        self.hooks = TurnHooks(
            handle=self._handle,
            begin_draft=self._begin_draft,
            say=self._say,
            failure_reply=self._failure_reply,
            patience_reply=self._patience_reply,
            interrupted_reply=lambda message, route: Answer(
                (), Outcome.STOPPED, exchange=Exchange(route.conversation_key, message.text, "[interrupted]")
            ),
            select_followers=self._select if merges else None,
            remedy=lambda error: "none",
            on_undelivered=UndeliveredAlerts(
                self.store,
                self.store.once_per,
                self._find_owners,
                Notices(Language.EN, PersonalLanguages(self.store, Language.EN)),
                self.clock,
            ),
            once_per=self.store.once_per,
            on_sent=self._on_sent,
            on_given_up=self._on_given_up,
            on_end=self.trips.append,
        )
        self.worker = Worker(self.store, self.hooks, limits, slots=slots, owner="test", clock=self.clock)
        self.task: asyncio.Task[None] | None = None

    async def echo(self, message: Inbound) -> Answer:
        return Answer.of(
            f"re: {message.text}",
            Outcome.ANSWERED,
            exchange=Exchange(message.chat_key, message.text, f"re: {message.text}"),
        )

    async def out(self, answer: Answer) -> None:
        self.delivered.append(answer.text)

    async def _handle(self, message: Inbound, route: Route, draft: Draft, followers: Sequence[Follower] = ()) -> Answer:
        self.handled.append(" + ".join((message.text, *(each.inbound.text for each in followers))))
        draft.update(message.text)
        return replace(await self.handle(message), merged=tuple(each.seq for each in followers))

    async def _select(self, message: Inbound, followers: Sequence[Follower]) -> Sequence[Follower]:
        return list(takewhile(lambda each: not each.inbound.text.startswith("alone"), followers))

    async def _patience_reply(self, message: Inbound) -> Answer:
        return Answer.of(f"wait: {message.text}", Outcome.ANSWERED)

    async def _on_sent(self, lease: Lease, receipts: tuple[str, ...]) -> None:
        self.receipts.append((lease.inbound.msg_id, receipts))

    async def _on_given_up(self, error: Exception) -> None:
        self.given_up.append(error)

    async def _find_owners(self) -> list[str]:
        if self.owners_unknown:
            raise StoreError("away")
        return [OWNER]

    async def _failure_reply(self, message: Inbound, error: Exception) -> Answer:
        came = error.partial if isinstance(error, ModelError) else ""
        text = self.failure_text or f"sorry: {came or message.text}"
        return Answer.of(text, Outcome.FAILED, error=str(error) or "fault")

    def _begin_draft(self, lease: Lease) -> Draft:
        self.drafts.append(HarnessDraft(self, lease))
        return self.drafts[-1]

    async def _say(self, message: Inbound, answer: Answer) -> None:
        self.receivers.append(message.sender.staff_id)
        await self.deliver(answer)

    async def put(self, *messages: Inbound) -> None:
        for message in messages:
            await self.store.put(Row(message, ROUTE(message)))

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
        """Let the fake clock run until nothing is left to do."""
        async with asyncio.timeout(60):
            while not await self.empty():
                await self.step()

    async def step(self) -> None:
        """Let the fake clock run a bit: fast while messages rest, slowly while a turn runs."""
        await asyncio.sleep(0.001)  # The store's thread needs real time for its commits.
        await self.clock.advance(self.pace if self.worker.running else self.rest_pace)

    async def empty(self) -> bool:
        return (await self.store.depth()).pending + (await self.store.depth()).leased == 0

    async def close(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        await self.store.close()


class HarnessDraft(RecordingDraft):
    """Delivers by the harness's `deliver`."""

    def __init__(self, harness: WorkerHarness, lease: Lease) -> None:
        super().__init__(lease)
        self._harness = harness

    async def finish(self, answer: Answer, persist: Persist) -> tuple[str, ...]:
        if self._harness.finish is not None and len(answer.content) > 1:
            return await self._harness.finish(answer, persist)
        if answer.text:
            self._harness.receivers.append(self.inbound.sender.staff_id)
            await self._harness.deliver(answer)
        return await super().finish(answer, persist)
