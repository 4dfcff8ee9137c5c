"""Signs of life: when a reaction is put, when it is not, and that none is left behind."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

import pytest

from claw.dingtalk.openapi import OpenApiClient
from claw.dingtalk.pace import DueQueue
from claw.dingtalk.reactions import ReactionClient
from claw.errors import DingTalkError, DingTalkReason, StoreError
from claw.language import Language
from claw.messages import Inbound, Route
from claw.reply import signs as module
from claw.reply import texts
from claw.reply.signs import Sign, Signs, SignState
from claw.store.values import Lease
from tests.clock import FakeClock
from tests.messages import inbound
from tests.reply.tools import lease_of

WORKING, STOPPED = texts.REACTION[Language.EN], texts.STOPPED_REACTION[Language.EN]
UNKNOWN_YET = DingTalkError("reaction", "the message is not known yet", retryable=True)
FORBIDDEN = DingTalkError("reaction", "no permission", reason=DingTalkReason.NO_PERMISSION)


class Reactions(ReactionClient):
    """Remembers what was asked for and when; fails as scripted; while `gate` is clear, calls hang."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(cast("OpenApiClient", None))
        self._clock = clock
        self.calls: list[tuple[float, str, str]] = []
        self.faults: deque[DingTalkError | None] = deque()
        self.gate = asyncio.Event()
        self.gate.set()
        self.under_way = 0

    async def add(self, inbound: Inbound, name: str) -> None:
        await self._call(f"+{name}", inbound)

    async def remove(self, inbound: Inbound, name: str) -> None:
        await self._call(f"-{name}", inbound)

    async def _call(self, what: str, inbound: Inbound) -> None:
        self.calls.append((round(self._clock.monotonic() - 1000, 3), what, inbound.text))
        self.under_way += 1
        try:
            await self.gate.wait()
        finally:
            self.under_way -= 1
        fault = self.faults.popleft() if self.faults else None
        if fault is not None:
            raise fault

    @property
    def said(self) -> list[str]:
        return [what for _, what, _ in self.calls]


class Room:
    """Signs over a clock of their own, and what they ask."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.reactions = Reactions(self.clock)
        self.may_react = True
        self.waits: bool | StoreError = True
        self.asked = 0
        self.answers = asyncio.Event()
        """While it is clear the store does not answer."""
        self.answers.set()
        self.signs = Signs(
            self.reactions,
            DueQueue(self.clock, lambda: 1),
            may_react=self._may_react,
            is_waiting=self._is_waiting,
            language=Language.EN,
            clock=self.clock,
        )

    async def _may_react(self) -> bool:
        return self.may_react

    async def _is_waiting(self, inbound: Inbound, queue: str) -> bool:
        self.asked += 1
        await self.answers.wait()
        if isinstance(self.waits, StoreError):
            raise self.waits
        return self.waits

    def expect(self, text: str = "hello") -> Lease:
        """Accept a message; return the lease that a worker gets."""
        lease = lease_of(inbound(text), self.clock)
        self.signs.expect(lease.inbound, lease.route)
        return lease

    def begin(self, text: str = "hello") -> Sign:
        return self.signs.begin(self.expect(text))

    @property
    def kept(self) -> dict[str, Sign]:
        return self.signs._signs


@asynccontextmanager
async def running() -> AsyncIterator[Room]:
    room = Room()
    task = asyncio.create_task(room.signs.run())
    try:
        yield room
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not room.signs._tasks


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    async with running() as room:
        yield room


@pytest.mark.parametrize("before", SignState)
@pytest.mark.parametrize("after", SignState)
def test_transitions(before: SignState, after: SignState) -> None:
    """A sign goes on, never back; one that is shown only ends, and an end is an end."""
    allowed = {
        SignState.EXPECTED: {SignState.PUTTING, SignState.NEEDLESS, SignState.ENDED},
        SignState.PUTTING: {SignState.SHOWN, SignState.NEEDLESS, SignState.ENDED},
        SignState.SHOWN: {SignState.ENDED},
        SignState.NEEDLESS: {SignState.ENDED},
        SignState.ENDED: set(),
    }[before]
    sign = Sign(inbound(), "q", 0.0, before)
    if after in allowed:
        sign.transition(after)
        assert sign.is_at(after)
    else:
        with pytest.raises(RuntimeError, match="a sign does not go from"):
            sign.transition(after)
        assert sign.is_at(before)


# --- one turn ------------------------------------------------------------------------------------------------------


async def test_a_reaction_after_two_seconds(room: Room) -> None:
    """Nothing is put before its time, and it goes again when the answer is out."""
    sign = room.begin()
    await room.clock.advance(1.99)
    assert room.reactions.calls == []
    await room.clock.advance(0.01)
    assert room.reactions.calls == [(2.0, f"+{WORKING}", "hello")]
    assert sign.is_at(SignState.SHOWN)
    room.signs.note_visible(sign)
    room.signs.end(sign)
    await room.clock.settle()
    assert room.reactions.said == [f"+{WORKING}", f"-{WORKING}"]
    assert room.asked == 0, "of a turn that goes on here nobody has to ask"


async def test_an_answer_in_time_costs_nothing(room: Room) -> None:
    """What is visible within two seconds needs no sign, neither then nor later."""
    sign = room.begin()
    await room.clock.advance(1.0)
    room.signs.note_visible(sign)
    assert sign.is_at(SignState.NEEDLESS)
    room.signs.end(sign)
    await room.clock.advance(60)
    assert room.reactions.calls == []


async def test_a_turn_without_any_word(room: Room) -> None:
    """An end without anything visible takes the sign out of the queue."""
    room.signs.end(room.begin())
    await room.clock.advance(60)
    assert room.reactions.calls == []


async def test_the_language_of_the_reaction_is_the_persons(room: Room) -> None:
    """Who writes Chinese gets a Chinese sign, and the same one is taken back."""
    sign = room.begin("请问现在几点")
    await room.clock.advance(2)
    room.signs.end(sign)
    await room.clock.settle()
    assert room.reactions.said == [f"+{texts.REACTION[Language.ZH]}", f"-{texts.REACTION[Language.ZH]}"]


async def test_a_stopped_turn_says_so_in_the_reactions_place(room: Room) -> None:
    """No answer says that it was stopped; without a reaction nothing is put."""
    sign = room.begin()
    await room.clock.advance(2)
    room.signs.end(sign, stopped=True)
    await room.clock.settle()
    assert room.reactions.said == [f"+{WORKING}", f"-{WORKING}", f"+{STOPPED}"]
    room.signs.end(room.begin(), stopped=True)
    await room.clock.advance(60)
    assert len(room.reactions.calls) == 3


@pytest.mark.parametrize("stopped", [False, True])
async def test_an_end_while_the_reaction_is_being_put(room: Room, stopped: bool) -> None:
    """Who puts it takes it back when it is there, since two calls at once may change places."""
    sign = room.begin()
    room.reactions.gate.clear()
    await room.clock.advance(2)
    room.signs.end(sign, stopped=stopped)
    await room.clock.settle()
    assert room.reactions.said == [f"+{WORKING}"]
    room.reactions.gate.set()
    await room.clock.settle()
    assert room.reactions.said == [f"+{WORKING}", f"-{WORKING}", *([f"+{STOPPED}"] if stopped else [])]


async def test_a_reaction_that_comes_too_late_goes_at_once(room: Room) -> None:
    """What became visible while it was on its way needs no sign beside it, and it is taken back once."""
    sign = room.begin()
    room.reactions.gate.clear()
    await room.clock.advance(2)
    room.signs.note_visible(sign)
    room.reactions.gate.set()
    await room.clock.settle()
    assert room.reactions.said == [f"+{WORKING}", f"-{WORKING}"]
    room.signs.end(sign)
    await room.clock.advance(60)
    assert len(room.reactions.calls) == 2


async def test_an_end_between_two_tries(room: Room) -> None:
    """A reaction that is not there yet is not put any more."""
    sign = room.begin()
    room.reactions.faults.append(UNKNOWN_YET)
    await room.clock.advance(2.1)
    room.signs.end(sign)
    await room.clock.advance(60)
    assert room.reactions.said == [f"+{WORKING}"]


# --- failures ------------------------------------------------------------------------------------------------------


async def test_a_message_that_dingtalk_does_not_know_yet(room: Room) -> None:
    """It is tried at once, after 0.4 s and after another 1.2 s."""
    sign = room.begin()
    room.reactions.faults.extend([UNKNOWN_YET, UNKNOWN_YET])
    await room.clock.advance(10)
    assert [at for at, _, _ in room.reactions.calls] == [2.0, 2.4, 3.6]
    assert sign.is_at(SignState.SHOWN)


async def test_taking_back_is_tried_again(room: Room) -> None:
    """A "working" that stays would be a lie: three tries."""
    sign = room.begin()
    await room.clock.advance(2)
    room.reactions.faults.extend([UNKNOWN_YET, UNKNOWN_YET])
    room.signs.end(sign)
    await room.clock.advance(10)
    assert [(at, what[0]) for at, what, _ in room.reactions.calls] == [(2.0, "+"), (2.0, "-"), (3.5, "-"), (8.5, "-")]


@pytest.mark.parametrize("faults", [[FORBIDDEN], [UNKNOWN_YET] * 3], ids=["for good", "three times"])
async def test_what_fails_is_logged_once_an_hour(
    room: Room, faults: list[DingTalkError], caplog: pytest.LogCaptureFixture
) -> None:
    """A permission that is missing is one line with its remedy, not one for each message; nothing is taken back."""
    caplog.set_level(logging.WARNING)
    for logged in (1, 1, 2):
        room.reactions.faults.extend(faults)
        sign = room.begin()
        await room.clock.advance(10)
        assert sign.is_at(SignState.NEEDLESS)
        room.signs.end(sign)
        assert caplog.messages == ["no reaction on messages"] * logged
        await room.clock.advance(module.FAULT_LOGGED_EVERY_S / 2)
    assert all(what == f"+{WORKING}" for what in room.reactions.said)
    assert len(room.reactions.calls) == 3 * len(faults)
    assert "CLAW_REACTION=off" in caplog.records[0].__dict__["remedy"]


async def test_without_room_in_the_budget_there_is_none(room: Room) -> None:
    """A month that runs out, and CLAW_REACTION=off, cost no call: neither for one of ours nor for another's."""
    room.may_react = False
    sign = room.begin()
    await room.clock.advance(10)
    assert sign.is_at(SignState.NEEDLESS)
    room.signs.end(sign)
    elsewhere = room.signs.begin(replace(lease_of(inbound(), room.clock), claims=3))
    await room.clock.advance(10)
    room.signs.end(elsewhere)
    await room.clock.advance(60)
    assert room.reactions.calls == []


# --- before and between turns --------------------------------------------------------------------------------------


async def test_a_message_that_waits_gets_its_sign_while_it_waits(room: Room) -> None:
    """Behind another turn, or another process: who still waits after two seconds sees that it arrived."""
    lease = room.expect()
    await room.clock.advance(2)
    assert room.asked == 1
    assert room.reactions.said == [f"+{WORKING}"]
    sign = room.signs.begin(lease)
    assert sign.is_at(SignState.SHOWN)
    room.signs.end(sign)
    await room.clock.settle()
    assert room.reactions.said[1:] == [f"-{WORKING}"]


@pytest.mark.parametrize("waits", [False, StoreError("away")], ids=["elsewhere", "store away"])
async def test_a_message_that_waits_no_more(room: Room, waits: bool | StoreError) -> None:
    """Another process answers it, or nobody can say: no reaction from here, and nothing is kept of it."""
    room.waits = waits
    room.expect()
    await room.clock.advance(10)
    assert room.reactions.calls == []
    assert room.kept == {}


async def test_a_turn_that_begins_while_the_store_is_asked(room: Room) -> None:
    """The store called it leased, for it is ours by now: its person waits for a sign all the same."""
    room.waits = False
    room.answers.clear()
    lease = room.expect()
    await room.clock.advance(2)
    sign = room.signs.begin(lease)
    room.answers.set()
    await room.clock.settle()
    assert sign.is_at(SignState.SHOWN)


async def test_a_turn_that_begins_before_its_message_is_told_of(room: Room) -> None:
    """The ack is written in between: the message has one sign, and nothing of it stays."""
    lease = lease_of(inbound(), room.clock)
    sign = room.signs.begin(lease)
    room.signs.expect(lease.inbound, lease.route)
    await room.clock.advance(10)
    assert room.reactions.said == [f"+{WORKING}"]
    assert room.kept == {}
    assert room.asked == 0
    room.signs.end(sign)
    await room.clock.advance(10)
    assert room.reactions.said == [f"+{WORKING}", f"-{WORKING}"]


async def test_commands_that_do_not_wait_get_none(room: Room) -> None:
    """An urgent message, such as /stop, is answered at once: it costs no reaction, also where it was claimed twice."""
    lease = lease_of(inbound("/stop"), room.clock)
    lease = replace(lease, route=Route("c", "urgent", urgent=True), claims=3, received_at=lease.received_at - 60)
    room.signs.expect(lease.inbound, lease.route)
    sign = room.signs.begin(lease)
    await room.clock.advance(10)
    room.signs.end(sign, stopped=True)
    await room.clock.advance(10)
    assert room.reactions.calls == []


async def test_another_try_goes_on_with_the_same_sign(room: Room) -> None:
    """A turn that is given back keeps its reaction; the next try takes it back."""
    lease = room.expect()
    sign = room.signs.begin(lease)
    await room.clock.advance(2)
    room.signs.suspend(sign)
    await room.clock.advance(30)
    again = room.signs.begin(lease)
    assert again is sign
    room.signs.end(again)
    await room.clock.settle()
    assert room.reactions.said == [f"+{WORKING}", f"-{WORKING}"]


async def test_a_turn_given_back_before_its_sign_was_due(room: Room) -> None:
    """Its message waits, and its person sees that at the time at which it was due."""
    lease = room.expect()
    room.signs.suspend(room.signs.begin(lease))
    await room.clock.advance(2)
    assert room.asked == 1
    assert room.reactions.said == [f"+{WORKING}"]


async def test_nothing_is_put_while_something_better_is_on_its_way(room: Room) -> None:
    """A card that is being made is the sign; where it does not come the reaction is put at once."""
    sign = room.begin()
    room.signs.hold(sign)
    await room.clock.advance(10)
    assert room.reactions.calls == []
    room.signs.expect_again(sign)
    room.signs.expect_again(sign)
    await room.clock.settle()
    assert room.reactions.calls == [(10.0, f"+{WORKING}", "hello")]


async def test_a_card_that_was_given_up_with_its_try(room: Room) -> None:
    """A sign that was held for it does not stay so: the message waits without anything visible."""
    sign = room.begin()
    room.signs.hold(sign)
    room.signs.suspend(sign)
    await room.clock.settle()
    assert room.reactions.said == [f"+{WORKING}"]


# --- other processes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("age", [0.0, 1.5, 2.5], ids=lambda age: f"{age} s old")
@pytest.mark.parametrize("claims", [1, 2], ids=["first claim", "second claim"])
async def test_a_reaction_of_which_nobody_here_knows(room: Room, age: float, claims: int) -> None:
    """Where another process may have put one, it is taken back from here, whatever was visible."""
    lease = lease_of(inbound(), room.clock)
    lease = replace(lease, received_at=lease.received_at - age, claims=claims)
    sign = room.signs.begin(lease)
    room.signs.note_visible(sign)
    room.signs.end(sign)
    await room.clock.advance(60)
    may_be = claims > 1 or age > module.SIGN_S
    assert room.reactions.said == ([f"-{WORKING}"] if may_be else [])


async def test_a_message_that_has_waited_elsewhere_gets_its_sign_at_once(room: Room) -> None:
    """The two seconds count from its arrival, wherever that was."""
    for age, due in ((1.5, 0.5), (60.0, 0.0)):
        lease = lease_of(inbound(f"{age}"), room.clock)
        began = room.clock.monotonic() - 1000
        room.signs.begin(replace(lease, received_at=lease.received_at - age))
        await room.clock.advance(due)
        assert room.reactions.calls[-1] == (round(began + due, 3), f"+{WORKING}", f"{age}")


async def test_an_end_before_a_try_has_begun(room: Room) -> None:
    """A put that is due and has not run yet puts nothing, and takes back what another process may have put."""
    lease = replace(lease_of(inbound(), room.clock), claims=2, received_at=room.clock.wall() - 60)
    sign = room.signs.begin(lease)
    while sign.putting is None:
        await asyncio.sleep(0)
    room.signs.end(sign)
    await room.clock.settle()
    assert room.reactions.said == [f"-{WORKING}"]


# --- messages that are answered together ---------------------------------------------------------------------------


async def test_messages_answered_together_end_together(room: Room) -> None:
    """Each that waited has its sign, and all of them go with the one answer."""
    behind = room.expect("second")
    sign = room.begin("first")
    room.signs.join(sign, behind.inbound)
    await room.clock.advance(2)
    assert sorted(text for _, _, text in room.reactions.calls) == ["first", "second"]
    assert room.asked == 0
    room.signs.end(sign)
    await room.clock.settle()
    assert sorted((what[0], text) for _, what, text in room.reactions.calls[2:]) == [("-", "first"), ("-", "second")]
    assert room.kept == {}


async def test_one_visible_thing_is_enough_for_all(room: Room) -> None:
    """The card of the first message is the sign of those behind it as well; a hold holds them too."""
    behind = room.expect("second")
    sign = room.begin("first")
    room.signs.join(sign, behind.inbound)
    room.signs.hold(sign)
    room.signs.note_visible(sign)
    room.signs.end(sign)
    await room.clock.advance(60)
    assert room.reactions.calls == []


async def test_a_message_from_elsewhere_that_is_answered_together(room: Room) -> None:
    """Its reaction was put by another process, as far as anybody did: it is taken back from here, and none is put."""
    sign = room.begin("first")
    room.signs.join(sign, inbound("second"))
    await room.clock.advance(1)
    room.signs.note_visible(sign)
    room.signs.end(sign)
    await room.clock.advance(60)
    assert [(what, text) for _, what, text in room.reactions.calls] == [(f"-{WORKING}", "second")]


async def test_messages_that_are_given_back_together_may_part(room: Room) -> None:
    """After a failed try each has its own sign again."""
    behind = room.expect("second")
    first = room.expect("first")
    sign = room.signs.begin(first)
    room.signs.join(sign, behind.inbound)
    await room.clock.advance(2)
    room.signs.suspend(sign)
    room.signs.end(room.signs.begin(first))
    await room.clock.settle()
    assert [text for _, what, text in room.reactions.calls if what[0] == "-"] == ["first"]
    room.signs.end(room.signs.begin(behind))
    await room.clock.settle()
    assert [text for _, what, text in room.reactions.calls if what[0] == "-"] == ["first", "second"]


# --- many, and the end of the process ------------------------------------------------------------------------------


async def test_in_a_crowd_the_last_one_is_in_time(room: Room) -> None:
    """Fifty who wait at the same moment: the first ones' signs come early, the last ones' not late."""
    for number in range(50):
        room.begin(str(number))
    await room.clock.advance(0.5)
    assert 0 < len(room.reactions.calls) < 50
    await room.clock.advance(1.5)
    assert len(room.reactions.calls) == 50


async def test_no_more_are_waited_for_than_memory_has_room_for(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound the oldest get none."""
    monkeypatch.setattr(module, "EXPECTED_MAX", 3)
    monkeypatch.setattr(module, "SIGNS_PER_QUEUE", 5)
    for number in range(5):
        room.expect(str(number))
    await room.clock.advance(2)
    assert [text for _, _, text in room.reactions.calls] == ["2", "3", "4"]


async def test_the_end_of_the_process_waits_for_what_is_taken_back() -> None:
    """`close` lets a call go that is under way, and leaves no task."""
    async with running() as room:
        sign = room.begin()
        await room.clock.advance(2)
        room.reactions.gate.clear()
        room.signs.end(sign)
        await room.clock.settle()
        closing = asyncio.create_task(room.signs.close())
        await room.clock.settle()
        assert not closing.done()
        room.reactions.gate.set()
        await closing
        assert room.reactions.said == [f"+{WORKING}", f"-{WORKING}"]
        assert not room.signs._tasks


async def test_the_end_of_the_process_waits_for_no_call_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time `close` cancels what is left; a call of it does nothing where there is nothing."""
    monkeypatch.setattr(module, "CLOSE_TIMEOUT_S", 0.02)
    async with running() as room:
        await room.signs.close()
        sign = room.begin()
        await room.clock.advance(2)
        room.reactions.gate.clear()
        room.signs.end(sign)
        await room.clock.settle()
        assert room.reactions.under_way == 1
        await room.signs.close()
        assert room.reactions.under_way == 0
        assert not room.signs._tasks


async def test_a_flood_in_one_conversation_gets_few_reactions(room: Room) -> None:
    """Of many messages that wait in one queue the first ones get a reaction; another queue has its own."""
    for number in range(20):
        room.expect(str(number))
    await room.clock.advance(2)
    assert len(room.reactions.calls) == module.SIGNS_PER_QUEUE


async def test_what_waits_is_not_kept_whole(room: Room) -> None:
    """Of a message that waits only what its reaction needs is held."""
    room.expect("x" * 200_000)
    (sign,) = room.signs._signs.values()
    assert len(sign.inbound.to_json()) < 2_000
