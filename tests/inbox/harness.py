"""A worker over a real store, for the tests of this folder.

Backoff and leases run on the fake clock. Real time passes only while the store's thread commits, which `until` waits
for by its condition; a negative ("nothing more happens") is waited for a moment, which can only miss a fault.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from claw.config.settings import InboxSettings
from claw.draft import Draft, Persist
from claw.inbox.routing import Router
from claw.inbox.worker import Worker
from claw.messages import Answer, Exchange, Inbound, Outcome, Route
from claw.policy import GroupSession
from claw.store.ports import Row
from claw.store.sqlite.store import SqliteStore
from claw.turn.commands.parser import is_urgent
from tests.clock import FakeClock
from tests.drafts import RecordingDraft

ROUTE = Router(GroupSession.SHARED, is_urgent).route


class WorkerHarness:
    """A worker over a real store and a clock of its own; tests swap `handle` and `deliver`."""

    def __init__(self, path: Path, settings: InboxSettings | None = None) -> None:
        self.clock = FakeClock()
        self.store = SqliteStore(path, clock=self.clock)
        self.delivered: list[str] = []
        self.handled: list[str] = []
        self.drafts: list[HarnessDraft] = []
        self.handle: Callable[[Inbound], Awaitable[Answer]] = self.echo
        self.deliver: Callable[[Answer], Awaitable[None]] = self.out
        self.worker = Worker(
            self.store,
            settings or InboxSettings(),
            owner="test",
            handle=self._handle,
            begin_draft=self._begin_draft,
            failure_reply=lambda message, error: Answer.of(f"sorry: {message.text}", Outcome.FAILED, error=str(error)),
            remedy=lambda error: "none",
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
        self.delivered.append(answer.text)

    async def _handle(self, message: Inbound, route: Route, draft: Draft) -> Answer:
        self.handled.append(message.text)
        draft.update(message.text)
        return await self.handle(message)

    def _begin_draft(self, message: Inbound) -> Draft:
        self.drafts.append(HarnessDraft(self, message))
        return self.drafts[-1]

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


class HarnessDraft(RecordingDraft):
    """Delivers by the harness's `deliver`."""

    def __init__(self, harness: WorkerHarness, message: Inbound) -> None:
        super().__init__(message)
        self._harness = harness

    async def finish(self, answer: Answer, persist: Persist) -> None:
        if answer.text:
            await self._harness.deliver(answer)
        await super().finish(answer, persist)
