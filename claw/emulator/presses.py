"""What people press on cards: the robot is told, and its answer counts if it comes in time.

Order of events: a press pushes a card callback to one live connection; the ack's data is the answer; within 2 s its
values are put into the card, later ones are only written down (docs/protocol.md section 7.6). Cards that were made
without `callbackType: STREAM` tell nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from enum import StrEnum
from typing import Any, Final

from claw.emulator.card import FakeCard
from claw.emulator.cards import FakeCardApi
from claw.emulator.chats import CORP, Chats, Person, UnknownError
from claw.emulator.gateway import FakeGateway
from claw.emulator.pushes import CARD_TOPIC, Push

CARD_ANSWER_DEADLINE_S: Final = 2.0
"""Within which the answer to a card callback is used (docs/protocol.md section 7.6)."""
LATE_S: Final = 30.0
"""How long an answer that is too late is waited for, only to tell how late it was."""


class FakePressOutcome(StrEnum):
    WAITING = "waiting"
    USED = "used"
    """Answered in time, and its values are in the card."""
    EMPTY = "empty"
    """Answered in time, with nothing to put into the card."""
    LATE = "late"
    """Answered after the deadline, or not yet: the person sees that nothing happens."""
    UNDELIVERED = "undelivered"
    """No connection was there to take it."""
    NO_STREAM = "no_stream"
    """The card was made without `callbackType: STREAM`."""

    @property
    def is_answer(self) -> bool:
        return self in {FakePressOutcome.USED, FakePressOutcome.EMPTY}


@dataclasses.dataclass(eq=False)
class FakePress:
    person: str
    action: str
    push: Push | None = None
    outcome: FakePressOutcome = FakePressOutcome.WAITING
    answer: Any = None
    """The data of the ack, also of one that came too late."""
    settled: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    """Its outcome is known."""

    def settle(self, outcome: FakePressOutcome) -> None:
        self.outcome = outcome
        self.settled.set()

    @property
    def seconds(self) -> float | None:
        """How long the answer took; None: there is none yet."""
        return None if self.push is None or self.push.ack_ms is None else round(self.push.ack_ms / 1000, 4)

    def to_dict(self) -> dict[str, Any]:
        return {
            "person": self.person,
            "action": self.action,
            "outcome": self.outcome,
            "seconds": self.seconds,
            "answer": self.answer,
        }


class FakePresses:
    def __init__(self, *, gateway: FakeGateway, chats: Chats, cards: FakeCardApi) -> None:
        self._gateway = gateway
        self._chats = chats
        self._cards = cards
        self._tasks: set[asyncio.Task[None]] = set()

    async def press(
        self, track: str, *, person: str = "u-1001", action: str = "stop", params: dict[str, Any] | None = None
    ) -> FakePress:
        """Press as any person, and wait for the answer or its deadline. Raises UnknownError."""
        press = self.press_later(track, person=person, action=action, params=params)
        await press.settled.wait()
        return press

    def press_later(self, track: str, *, person: str, action: str, params: dict[str, Any] | None) -> FakePress:
        """Press; the answer is used when it comes. Raises UnknownError."""
        card, who = self._cards.find(track), self._chats.person(person)
        if not card.replies:
            raise UnknownError(f"the card {track!r} was not delivered")
        press = FakePress(who.id, action)
        # Before its fate is known: a press that reaches nobody is what a test may look for.
        card.presses.append(press)
        if not card.stream:
            press.settle(FakePressOutcome.NO_STREAM)
            return press
        press.push = self._gateway.push(self._build_data(card, who, action, params or {}), topic=CARD_TOPIC)
        if not press.push.delivered:
            press.settle(FakePressOutcome.UNDELIVERED)
            return press
        task = asyncio.get_running_loop().create_task(
            self._use_answer(card, press, press.push), name="claw.emulator.card-press"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return press

    async def _use_answer(self, card: FakeCard, press: FakePress, push: Push) -> None:
        try:
            await asyncio.wait_for(push.acked.wait(), CARD_ANSWER_DEADLINE_S)
        except TimeoutError:
            # The real one uses it no more from now on.
            press.settle(FakePressOutcome.LATE)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(push.acked.wait(), LATE_S)
                press.answer = push.ack_data
            return
        press.answer = push.ack_data
        # An ack of another shape is an ack all the same; there is just nothing in it for the card.
        response = press.answer.get("response") if isinstance(press.answer, dict) else None
        is_used = isinstance(response, dict) and self._cards.answer(card, press.person, response)
        # After the card has the values: whoever waits for the outcome may look at the card at once.
        press.settle(FakePressOutcome.USED if is_used else FakePressOutcome.EMPTY)
        # Once more, since what is pressed shows also where the answer changed nothing.
        self._cards.publish(card)

    def _build_data(self, card: FakeCard, who: Person, action: str, params: dict[str, Any]) -> dict[str, Any]:
        """Build the callback's data (docs/protocol.md section 7.6, vector V9)."""
        # JSON as a string inside the data, which is a string inside the frame: a client has to parse three times.
        content = {"cardPrivateData": {"actionIds": [action], "params": params}}
        return {
            "type": "actionCallback",
            "outTrackId": card.out_track_id,
            "corpId": CORP,
            # Who has no staff id is told by another id, under another type (docs/protocol.md section 7.6).
            "userId": who.staff_id or who.dingtalk_id,
            "userIdType": 1 if who.staff_id else 2,
            "spaceType": "IM",
            "spaceId": self._chats.chat(card.replies[-1].chat).conversation_id,
            "extension": "{}",
            "content": json.dumps(content, ensure_ascii=False),
        }

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
