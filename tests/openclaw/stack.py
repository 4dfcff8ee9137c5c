"""The whole way of a question: the emulated DingTalk, a real claw, a real gateway and a provider behind it.

Order of events: a test says what the provider does, a person asks, `outcome` waits until claw has nothing left to do
for anybody and reads what the person was told; `record` makes a row of it for the table at the end.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final

from claw.emulator import Emulator, Person, Said
from tests.openclaw.gateway import TOKEN, Gateway
from tests.openclaw.provider import Provider
from tests.service import ADMIN_TOKEN, Service, environment, running

POLL_S: Final = 0.1
HEADINGS: Final = ("case", "seconds", "provider calls", "claw's failed tries", "the person was told")

_numbers: Final = itertools.count(1)


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What a person was told in answer to one message, in the order of arrival, and after how many seconds the last."""

    texts: tuple[str, ...]
    seconds: float

    @property
    def text(self) -> str:
        return self.texts[-1] if self.texts else ""


@dataclasses.dataclass(frozen=True, slots=True)
class Stack:
    emulator: Emulator
    gateway: Gateway
    provider: Provider
    folder: Path
    record_property: Callable[[str, Any], None]

    def service(self, **variables: str) -> Service:
        """A claw that asks the gateway, not started yet; the store is the same for all of a test."""
        return Service(self._environment(variables), self.folder)

    def claw(self, **variables: str) -> AbstractAsyncContextManager[Service]:
        return running(self._environment(variables), self.folder)

    def _environment(self, variables: dict[str, str]) -> dict[str, str]:
        agent = {
            "OPENAI_BASE_URL": self.gateway.url,
            "OPENAI_API_KEY": TOKEN,
            "OPENAI_MODEL": "openclaw",
            # The gateway keeps the history: what claw sent of it would be there twice.
            "CLAW_HISTORY_TURNS": "0",
            "CLAW_LANG": "en",
        }
        return environment(self.emulator.url, self.folder / "claw.db", **agent | variables)

    def person(self) -> str:
        """Somebody whom the gateway has never heard of: it keeps the sessions of all who asked, and tests share it."""
        number = next(_numbers)
        return self.emulator.chats.add_person(Person(f"u-{number}", f"Person {number}", f"u-{number}")).id

    async def ask(self, question: str, person: str) -> Said:
        said = await self.emulator.say(question, person=person)
        assert said.delivered
        return said

    async def outcome(self, service: Service, said: Said, *, timeout: float) -> Outcome:
        """Wait until claw has finished, and read what was said to that message. Raises TimeoutError."""
        started = time.monotonic() - (time.time() - said.message.created_at / 1000)
        await self.settled(service, [said], timeout=timeout)
        replies = self.emulator.replies.to(said.msg_id)
        return Outcome(tuple(reply.text for reply in replies), (replies[-1].time if replies else 0) - started)

    async def settled(self, service: Service, said: Iterable[Said], *, timeout: float) -> None:
        """Wait until all those messages have a reply and no message waits or runs. Raises TimeoutError.

        A first reply alone says little: it may be a word that the answer takes longer.
        """
        ids = [each.msg_id for each in said]
        async with asyncio.timeout(timeout):
            while not all(self.emulator.replies.to(each) for each in ids) or any(await self._work(service)):
                await asyncio.sleep(POLL_S)

    async def _work(self, service: Service) -> tuple[int, int]:
        """Messages that wait, and turns that run."""
        status, body = await service.get("/status", ADMIN_TOKEN)
        assert status == 200, body
        return body["inbox"]["pending"] + body["inbox"]["leased"], body["turns_in_flight"]

    async def in_flight(self, service: Service, turns: int, *, timeout: float = 60) -> None:
        """Wait until claw runs so many turns. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while (await self._work(service))[1] < turns:
                await asyncio.sleep(POLL_S)

    def record(self, case: str, outcome: Outcome, service: Service, question: str) -> None:
        """Make a row of the table. A try that failed is one that claw has logged, of any question so far."""
        tries = sum(entry.get("message") == "turn failed" for entry in service.logs)
        calls = len(self.provider.asked(question))
        said = " | ".join(" ".join(text.split()) for text in outcome.texts)
        self.record_property("openclaw", (case, f"{outcome.seconds:.1f}", str(calls), str(tries), said))


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """The rows under headings, in columns."""
    if not rows:
        return []
    widths = [max(len(row[column]) for row in [HEADINGS, *rows]) for column in range(len(HEADINGS) - 1)]
    widths.append(len(HEADINGS[-1]))
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [HEADINGS, tuple("-" * width for width in widths), *rows]
    ]
