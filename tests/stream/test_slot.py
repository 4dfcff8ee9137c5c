"""A slot on a fake clock: every row of the table in the design's section on the connection."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from claw.clock import Clock
from claw.config.settings import Credentials
from claw.errors import GatewayError, GatewayReason, HandshakeError
from claw.secret import Secret
from claw.stream.counters import SessionCounters
from claw.stream.gateway import RateLimiter, Registration
from claw.stream.reason import Reason
from claw.stream.session import SessionEnd
from claw.stream.slot import Slot
from claw.stream.state import SlotState
from tests.clock import FakeClock
from tests.stream.dingtalk import nothing_left

GOOD = Credentials("dingfakeclient", Secret("not-a-real-secret"))
BAD = Credentials("dingfakeclient", Secret("a-wrong-secret"))
REFUSED = GatewayError(GatewayReason.UNAUTHORIZED, "refused", status=401, code="authFailed")


class FakeSession:
    """A session in memory; `end` is what the peer does to it."""

    def __init__(self, clock: Clock, journal: list[str], number: int) -> None:
        self.disconnect_requested = asyncio.Event()
        self.number = number
        self.journal = journal
        self._clock = clock
        self._opened_at = clock.monotonic()
        self._end: asyncio.Future[tuple[Reason, str]] = asyncio.get_running_loop().create_future()
        journal.append(f"open {number}")

    @property
    def lived(self) -> float:
        return self._clock.monotonic() - self._opened_at

    def end(self, kind: Reason = Reason.LOST) -> None:
        if not self._end.done():
            self._end.set_result((kind, ""))

    async def run(self) -> SessionEnd:
        kind, detail = await self._end
        self.journal.append(f"end {self.number}")
        return SessionEnd(kind, detail, self.lived)

    async def close(self) -> None:
        self.journal.append(f"close {self.number}")
        self.end(Reason.CLOSED)

    async def drain(self) -> None:
        self.journal.append(f"drain {self.number}")
        self.end(Reason.CLOSED)

    def abort(self) -> None:
        self.end(Reason.CLOSED)


class SlotHarness:
    """A slot over a gateway and sessions in memory. `gateway` and `upgrade` may hold an error to raise."""

    def __init__(self, rotate: float = 0, rng: random.Random | None = None, phase: float = 0) -> None:
        self.clock = FakeClock()
        self.began = self.clock.monotonic()
        self.pace = RateLimiter(self.clock)
        self.credentials = GOOD
        self.gateway: Exception | None = None
        self.upgrade: Exception | None = None
        self.registered: list[float] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.latency = 0.0
        self.journal: list[str] = []
        self.moves: list[tuple[SlotState, Reason]] = []
        self.sessions: list[FakeSession] = []
        self.on_open: Callable[[FakeSession], None] = lambda _: None
        self.slot = Slot(
            0,
            register=self.register,
            connect=self.open,
            credentials=lambda: self.credentials,
            rotate=rotate,
            clock=self.clock,
            phase=phase,
            on_transition=lambda slot, reason: self.moves.append((slot.state, reason)),
            rng=rng or random.Random(5),
        )
        self.running = asyncio.create_task(self.slot.run())

    @property
    def session(self) -> FakeSession:
        return self.sessions[-1]

    @property
    def now(self) -> float:
        return self.clock.monotonic() - self.began

    def state(self) -> SlotState:
        return self.slot.state

    async def register(self, credentials: Credentials) -> Registration:
        async with self.pace.call():
            self.registered.append(self.now)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            try:
                await self.clock.sleep(self.latency)
            finally:
                self.in_flight -= 1
        if credentials != GOOD:
            raise REFUSED
        if self.gateway is not None:
            raise self.gateway
        return Registration(Secret("wss://h/?ticket=t"), "h", credentials.client_id)

    async def open(self, _: Registration, __: SessionCounters) -> FakeSession:
        if self.upgrade is not None:
            raise self.upgrade
        session = FakeSession(self.clock, self.journal, len(self.sessions) + 1)
        self.sessions.append(session)
        self.on_open(session)
        return session


@pytest.fixture
async def make_slot() -> AsyncIterator[Callable[..., SlotHarness]]:
    made: list[SlotHarness] = []

    def make(**given: Any) -> SlotHarness:
        made.append(SlotHarness(**given))
        return made[-1]

    async with nothing_left():
        yield make
        for harness in made:
            harness.running.cancel()
            await asyncio.wait({harness.running})
            assert harness.slot.state is SlotState.CLOSED


MakeSlot = Callable[..., SlotHarness]


def busiest_second(times: list[float]) -> int:
    """The most events in any second."""
    return max(sum(1 for other in times if at <= other < at + 1.0) for at in times)


# --- the table, on a fake clock ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Reason.LOST, Reason.PEER_CLOSED, Reason.PONGS_MISSED, Reason.CLOCK_JUMP])
async def test_end_after_good_service_is_followed_at_once(make_slot: MakeSlot, kind: Reason) -> None:
    """A session that lived for 5 s is followed by the next one within 100 ms, however it ended."""
    harness = make_slot()
    await harness.clock.advance(5)
    assert harness.slot.state is SlotState.OPEN
    harness.session.end(kind)
    await harness.clock.advance(0.1)
    assert (len(harness.sessions), harness.slot.state) == (2, SlotState.OPEN)
    assert harness.slot.reconnects == {kind.value: 1}


async def test_end_after_short_service_backs_off(make_slot: MakeSlot) -> None:
    """Clean closes right after accepting never storm: the waits grow, up to 5 s."""
    harness = make_slot()
    harness.on_open = lambda session: session.end(Reason.PEER_CLOSED)
    await harness.clock.advance(120)
    assert harness.slot.state is SlotState.BACKOFF
    assert 10 < len(harness.sessions) < 60
    assert busiest_second(harness.registered) <= 2
    assert len([at for at in harness.registered if at > 60]) < 30


async def test_frames_too_large_bring_no_wait(make_slot: MakeSlot) -> None:
    """One after the other, as long as each session served for a moment: nobody else's way is worse for them."""
    harness = make_slot()
    for number in range(2, 20):
        await harness.clock.advance(1.5)
        harness.session.end(Reason.TOO_LARGE)
        await harness.clock.advance(0.1)
        assert (len(harness.sessions), harness.state()) == (number, SlotState.OPEN)


async def test_frame_too_large_at_each_begin(make_slot: MakeSlot) -> None:
    """A gateway or proxy that begins each session with such a frame is asked less and less, as for any early end."""
    harness = make_slot()
    harness.on_open = lambda session: session.end(Reason.TOO_LARGE)
    await harness.clock.advance(120)
    assert harness.state() is SlotState.BACKOFF
    assert 10 < len(harness.sessions) < 80
    assert busiest_second(harness.registered) <= 2


async def test_failing_attempts(make_slot: MakeSlot) -> None:
    """Refused upgrades for 12 s never cost more than two registrations in any second, nor two at once."""
    harness = make_slot()
    harness.upgrade = HandshakeError("401", status=401)
    harness.latency = 0.01
    await harness.clock.advance(12)
    assert harness.slot.state is SlotState.BACKOFF
    assert busiest_second(harness.registered) <= 2
    assert harness.most_in_flight == 1


class Zero(random.Random):
    """Draws the smallest number there is."""

    def uniform(self, a: float, b: float) -> float:
        return min(a, b)


async def test_full_jitter_that_draws_nothing(make_slot: MakeSlot) -> None:
    """Even where each wait is drawn as zero, no second sees more than two registrations."""
    harness = make_slot(rng=Zero())
    harness.upgrade = HandshakeError("401", status=401)
    await harness.clock.advance(12)
    assert 20 <= len(harness.registered) <= 24
    assert busiest_second(harness.registered) <= 2


async def test_backoff_is_the_same_for_the_same_seed(make_slot: MakeSlot) -> None:
    """All that a slot draws comes from the generator that it was given."""
    moments = []
    for _ in range(2):
        harness = make_slot(rng=random.Random(3))
        harness.upgrade = HandshakeError("401", status=401)
        await harness.clock.advance(60)
        moments.append(harness.registered)
    assert moments[0] == moments[1]


async def test_long_outage(make_slot: MakeSlot) -> None:
    """After an outage of five minutes, or of two hours, we are back within 6 s of its end; we never give up."""
    for seconds in (300, 7_200):
        harness = make_slot()
        await harness.clock.advance(10)
        harness.gateway = GatewayError(GatewayReason.BUSY, "503", status=503)
        harness.session.end()
        await harness.clock.advance(seconds)
        assert harness.state() is SlotState.BACKOFF
        harness.gateway = None
        await harness.clock.advance(6)
        assert harness.state() is SlotState.OPEN


async def test_each_outage_begins_anew(make_slot: MakeSlot) -> None:
    """The waits of one outage do not lengthen those of the next."""
    harness = make_slot()
    harness.gateway = GatewayError(GatewayReason.BUSY, "503", status=503)
    await harness.clock.advance(300)
    harness.gateway = None
    await harness.clock.advance(20)
    assert harness.slot.state is SlotState.OPEN
    harness.gateway = GatewayError(GatewayReason.BUSY, "503", status=503)
    before = len(harness.registered)
    harness.session.end()
    await harness.clock.advance(0.1 + 0.5)
    assert len(harness.registered) >= before + 2


async def test_retry_after_is_honoured(make_slot: MakeSlot) -> None:
    """A gateway that names a time is not asked before."""
    harness = make_slot()
    harness.gateway = GatewayError(GatewayReason.THROTTLED, "429", status=429, retry_after=40)
    await harness.clock.advance(39.9)
    assert len(harness.registered) == 1
    await harness.clock.advance(1)
    assert len(harness.registered) == 2


async def test_rejected(make_slot: MakeSlot, caplog: pytest.LogCaptureFixture) -> None:
    """Refused credentials are tried again every 30 to 60 s, and the log says in both languages what to do."""
    harness = make_slot()
    harness.credentials = BAD
    await harness.clock.advance(0)
    assert harness.slot.state is SlotState.REJECTED
    since = harness.slot.since
    await harness.clock.advance(300)
    gaps = [later - earlier for earlier, later in zip(harness.registered, harness.registered[1:], strict=False)]
    assert all(30 <= gap <= 61 for gap in gaps)
    assert len(gaps) >= 4
    assert (harness.slot.state, harness.slot.since) == (SlotState.REJECTED, since)
    told = [record.__dict__["reason"] for record in caplog.records if "refuses" in record.message]
    assert "DINGTALK_CLIENT_SECRET" in told[0]
    assert "请核对" in told[0]


async def test_changed_secret_is_tried_at_once(make_slot: MakeSlot) -> None:
    """New credentials in the secret's file end the wait within a second or so."""
    harness = make_slot()
    harness.credentials = BAD
    await harness.clock.advance(5)
    harness.credentials = GOOD
    await harness.clock.advance(1.1)
    assert harness.slot.state is SlotState.OPEN


async def test_disconnect_makes_before_it_breaks(make_slot: MakeSlot) -> None:
    """After `disconnect` the new session is open before the old one ends, which is closed 10 s later at most."""
    harness = make_slot()
    await harness.clock.advance(60)
    harness.session.disconnect_requested.set()
    await harness.clock.advance(0)
    assert (harness.journal, harness.slot.state) == (["open 1", "open 2"], SlotState.OPEN)
    await harness.clock.advance(9.9)
    assert harness.journal == ["open 1", "open 2"]
    await harness.clock.advance(0.2)
    assert harness.journal == ["open 1", "open 2", "close 1", "end 1"]
    assert harness.slot.reconnects == {"disconnect": 1}


async def test_old_session_that_the_server_closes(make_slot: MakeSlot) -> None:
    """The end of a session that was replaced is no outage, and needs no goodbye of ours."""
    harness = make_slot()
    await harness.clock.advance(60)
    harness.session.disconnect_requested.set()
    await harness.clock.advance(1)
    harness.sessions[0].end(Reason.PEER_CLOSED)
    await harness.clock.advance(30)
    assert harness.journal == ["open 1", "open 2", "end 1"]
    assert harness.slot.state is SlotState.OPEN


async def test_replacement_that_fails(make_slot: MakeSlot, caplog: pytest.LogCaptureFixture) -> None:
    """While no new session can be had the old one goes on; it is let go when one can."""
    harness = make_slot()
    await harness.clock.advance(60)
    harness.gateway = GatewayError(GatewayReason.BUSY, "503", status=503)
    assert harness.slot.replace()
    await harness.clock.advance(120)
    assert (harness.journal, harness.slot.state) == (["open 1"], SlotState.REPLACING)
    assert harness.slot.is_open
    assert "connection attempt failed" in caplog.text
    harness.gateway = None
    await harness.clock.advance(10)
    assert (harness.journal[:2], harness.slot.state) == (["open 1", "open 2"], SlotState.OPEN)
    assert harness.slot.reconnects == {"restart": 1}


async def test_refusal_while_the_old_session_serves(make_slot: MakeSlot, caplog: pytest.LogCaptureFixture) -> None:
    """Credentials refused at a rotation do not take down the session that still serves."""
    harness = make_slot(rotate=60)
    await harness.clock.advance(10)
    harness.credentials = BAD
    await harness.clock.advance(200)
    assert (harness.slot.state, harness.slot.is_open, harness.journal) == (SlotState.REPLACING, True, ["open 1"])
    assert "dingtalk refuses the connection" in caplog.text
    harness.session.end()
    await harness.clock.advance(0)
    assert (harness.slot.state, harness.slot.is_open) == (SlotState.REJECTED, False)
    harness.credentials = GOOD
    await harness.clock.advance(2)
    assert harness.slot.state is SlotState.OPEN


async def test_old_session_that_dies_during_a_replacement(make_slot: MakeSlot) -> None:
    """Where the old session dies before its successor is there, the outage begins; one attempt at a time as ever."""
    harness = make_slot()
    await harness.clock.advance(60)
    harness.latency = 3.0
    harness.session.disconnect_requested.set()
    await harness.clock.advance(1)
    assert harness.state() is SlotState.REPLACING
    harness.session.end()
    await harness.clock.advance(0)
    assert harness.state() is SlotState.CONNECTING
    await harness.clock.advance(3)
    assert harness.state() is SlotState.OPEN
    assert harness.most_in_flight == 1


async def test_rotation(make_slot: MakeSlot) -> None:
    """A session is replaced each hour or so, without a gap."""
    harness = make_slot(rotate=3600)
    await harness.clock.advance(3600 * 0.9 - 1)
    assert len(harness.sessions) == 1
    await harness.clock.advance(3600 * 0.2 + 2)
    assert len(harness.sessions) == 2
    await harness.clock.advance(3600 * 22)
    assert 18 <= harness.slot.reconnects["rotation"] <= 27
    assert harness.journal.index("open 2") < harness.journal.index("close 1")


async def test_no_rotation(make_slot: MakeSlot) -> None:
    """Rotation may be switched off."""
    harness = make_slot(rotate=0)
    await harness.clock.advance(10 * 86_400)
    assert harness.journal == ["open 1"]


async def test_server_that_sends_every_session_away(make_slot: MakeSlot) -> None:
    """A `disconnect` right after each upgrade is answered by growing waits, not by a storm."""
    harness = make_slot()
    harness.on_open = lambda session: session.disconnect_requested.set()
    await harness.clock.advance(60)
    assert 5 < len(harness.sessions) < 40
    assert busiest_second(harness.registered) <= 2


async def test_replace_twice(make_slot: MakeSlot) -> None:
    """A second wish to replace is refused while the first is under way, and possible again afterwards."""
    harness = make_slot()
    harness.latency = 1.0
    assert not harness.slot.replace()
    await harness.clock.advance(2)
    assert harness.slot.replace()
    assert not harness.slot.replace()
    await harness.clock.advance(0.5)
    assert not harness.slot.replace()
    await harness.clock.advance(1)
    assert harness.slot.replace()


async def test_failed_replacement_still_backs_off(make_slot: MakeSlot, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wish that began a replacement does not shorten the wait after its first failure."""
    harness = make_slot()
    await harness.clock.advance(60)
    harness.gateway = GatewayError(GatewayReason.THROTTLED, "429", status=429, retry_after=20)
    before = len(harness.registered)
    assert harness.slot.replace()
    await harness.clock.advance(19)
    assert len(harness.registered) == before + 1


@pytest.mark.parametrize("error", [GatewayError(GatewayReason.BUSY, "503", status=503, retry_after=200), REFUSED])
async def test_replace_ends_a_wait(make_slot: MakeSlot, error: GatewayError) -> None:
    """An operator's wish tries again at once where nothing serves."""
    harness = make_slot()
    harness.gateway = error
    await harness.clock.advance(3)
    harness.gateway = None
    assert harness.slot.replace()
    await harness.clock.advance(0)
    assert harness.slot.state is SlotState.OPEN


async def test_drain_of_a_slot(make_slot: MakeSlot) -> None:
    """A drain closes the session and those on their way out, and opens no other."""
    harness = make_slot()
    await harness.clock.advance(60)
    harness.session.disconnect_requested.set()
    await harness.clock.advance(1)
    harness.slot.drain()
    await harness.running
    assert harness.slot.state is SlotState.CLOSED
    assert sorted(harness.journal[2:]) == ["drain 1", "drain 2", "end 1", "end 2"]


async def test_pause_of_a_slot(make_slot: MakeSlot) -> None:
    """A pause closes what is open as a drain does, opens nothing however long it lasts, and ends at once."""
    harness = make_slot(rotate=3600)
    await harness.clock.advance(60)
    harness.session.disconnect_requested.set()
    await harness.clock.advance(1)
    harness.slot.pause()
    await harness.clock.advance(0)
    assert (harness.state(), harness.slot.is_open) == (SlotState.PAUSED, False)
    assert sorted(harness.journal[2:]) == ["drain 1", "drain 2", "end 1", "end 2"]
    assert not harness.slot.replace()
    await harness.clock.advance(10_000)
    assert len(harness.registered) == 2
    harness.slot.resume()
    await harness.clock.advance(0)
    assert harness.state() is SlotState.OPEN
    assert harness.moves[-3:] == [
        (SlotState.PAUSED, Reason.PAUSE),
        (SlotState.CONNECTING, Reason.RESUME),
        (SlotState.OPEN, Reason.RESUME),
    ]
    assert harness.slot.reconnects == {"disconnect": 1, "resume": 1}


@pytest.mark.parametrize("error", [GatewayError(GatewayReason.BUSY, "503", status=503, retry_after=200), REFUSED])
async def test_pause_of_a_slot_that_waits(make_slot: MakeSlot, error: GatewayError) -> None:
    """A pause ends the attempts of a slot in trouble; after it the next one comes without the rest of the wait."""
    harness = make_slot()
    harness.gateway = error
    await harness.clock.advance(3)
    tried = len(harness.registered)
    harness.slot.pause()
    await harness.clock.advance(1_000)
    assert (harness.state(), len(harness.registered)) == (SlotState.PAUSED, tried)
    harness.gateway = None
    harness.slot.resume()
    await harness.clock.advance(0)
    assert harness.state() is SlotState.OPEN


async def test_pause_that_is_taken_back_at_once(make_slot: MakeSlot) -> None:
    """A pause and its end in the same turn of the loop leave one session that serves, whoever of the two is seen."""
    harness = make_slot()
    await harness.clock.advance(60)
    for _ in range(3):
        harness.slot.pause()
        harness.slot.resume()
        await harness.clock.advance(20)
        assert harness.slot.is_open
    assert sum(not session._end.done() for session in harness.sessions) == 1


async def test_pause_before_the_first_step(make_slot: MakeSlot) -> None:
    """A slot that begins in a pause registers nowhere, and drains like any other."""
    harness = make_slot()
    harness.slot.pause()
    await harness.clock.advance(100)
    assert (harness.state(), harness.registered) == (SlotState.PAUSED, [])
    harness.slot.drain()
    await harness.running
    assert harness.state() is SlotState.CLOSED
    harness.slot.resume()


@pytest.mark.parametrize("moment", ["waiting", "registering", "is_open"])
async def test_cancellation_of_a_slot(make_slot: MakeSlot, moment: str) -> None:
    """Cancelling propagates at once, whatever the slot is at (tenacity would swallow it if asked wrongly)."""
    harness = make_slot()
    if moment == "waiting":
        harness.gateway = GatewayError(GatewayReason.BUSY, "503", status=503, retry_after=100)
    if moment == "registering":
        harness.latency = 100
    await harness.clock.advance(3)
    harness.running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await harness.running
    assert harness.slot.state is SlotState.CLOSED


async def test_fault_of_ours_ends_the_slot(make_slot: MakeSlot) -> None:
    """A fault of the program is not retried for ever: the slot ends with it, and the probes see that."""
    harness = make_slot()
    harness.gateway = TypeError("ours")
    with pytest.raises(TypeError):
        await harness.running


# --- states ------------------------------------------------------------------------------------------------------

ENDS = (SlotState.PAUSED, SlotState.CLOSED)
MOVES = {
    (before, to)
    for before, moves in {
        SlotState.CONNECTING: (SlotState.OPEN, SlotState.BACKOFF, SlotState.REJECTED, *ENDS),
        SlotState.OPEN: (SlotState.REPLACING, SlotState.CONNECTING, SlotState.BACKOFF, *ENDS),
        SlotState.REPLACING: tuple(set(SlotState) - {SlotState.REPLACING}),
        SlotState.BACKOFF: (SlotState.OPEN, SlotState.REJECTED, *ENDS),
        SlotState.REJECTED: (SlotState.OPEN, SlotState.BACKOFF, *ENDS),
        SlotState.PAUSED: (SlotState.CONNECTING, SlotState.CLOSED),
        SlotState.CLOSED: (SlotState.CONNECTING,),
    }.items()
    for to in moves
}


@pytest.mark.parametrize("before", SlotState)
@pytest.mark.parametrize("to", SlotState)
async def test_moves(make_slot: MakeSlot, before: SlotState, to: SlotState) -> None:
    """A slot makes the moves of the table, tells each with its reason, and refuses any other."""
    harness = make_slot()
    slot = harness.slot
    slot.state = before
    if before is to:
        slot.transition(to, Reason.FAILED)
        assert harness.moves == []
    elif (before, to) in MOVES:
        slot.transition(to, Reason.FAILED)
        assert (harness.moves, slot.since) == ([(to, Reason.FAILED)], harness.clock.wall())
    else:
        with pytest.raises(RuntimeError, match="cannot go"):
            slot.transition(to, Reason.FAILED)
    slot.state = SlotState.CONNECTING


async def test_life_as_states(make_slot: MakeSlot, caplog: pytest.LogCaptureFixture) -> None:
    """Each change of a slot's life is one move with one reason, in the log as well."""
    caplog.set_level(logging.INFO)
    harness = make_slot()
    await harness.clock.advance(10)
    harness.session.end(Reason.PONGS_MISSED)
    await harness.clock.advance(10)
    harness.session.disconnect_requested.set()
    await harness.clock.advance(10)
    harness.gateway = REFUSED
    harness.session.end(Reason.PEER_CLOSED)
    await harness.clock.advance(1)
    harness.gateway = GatewayError(GatewayReason.BUSY, "503", status=503)
    await harness.clock.advance(61)
    harness.slot.drain()
    await harness.running
    assert harness.moves == [
        (SlotState.OPEN, Reason.START),
        (SlotState.CONNECTING, Reason.PONGS_MISSED),
        (SlotState.OPEN, Reason.PONGS_MISSED),
        (SlotState.REPLACING, Reason.DISCONNECT),
        (SlotState.OPEN, Reason.DISCONNECT),
        (SlotState.CONNECTING, Reason.PEER_CLOSED),
        (SlotState.REJECTED, Reason.REJECTED),
        (SlotState.BACKOFF, Reason.FAILED),
        (SlotState.CLOSED, Reason.STOP),
    ]
    told = [each.__dict__ for each in caplog.records if each.message == "connection state changed"]
    assert [(each["to_state"], each["reason"]) for each in told] == [(to.value, why) for to, why in harness.moves]


# --- races -------------------------------------------------------------------------------------------------------


async def test_old_session_that_ends_as_its_successor_opens(make_slot: MakeSlot) -> None:
    """Where both happen in the same turn of the loop there was no moment without a session, hence no outage."""
    harness = make_slot()
    await harness.clock.advance(60)
    harness.on_open = lambda _: harness.sessions[0].end(Reason.PEER_CLOSED)
    harness.session.disconnect_requested.set()
    await harness.clock.advance(1)
    assert harness.moves == [
        (SlotState.OPEN, Reason.START),
        (SlotState.REPLACING, Reason.DISCONNECT),
        (SlotState.OPEN, Reason.DISCONNECT),
    ]
    assert harness.slot.reconnects == {"disconnect": 1}


async def test_session_that_ends_as_it_is_to_be_replaced(make_slot: MakeSlot) -> None:
    """A wish to replace a session and its end in the same turn bring one new session, not two."""
    harness = make_slot()
    await harness.clock.advance(60)
    assert harness.slot.replace()
    harness.session.disconnect_requested.set()
    harness.session.end()
    await harness.clock.advance(30)
    assert (harness.journal, harness.slot.state) == (["open 1", "end 1", "open 2"], SlotState.OPEN)


async def test_cancellation_while_a_session_is_replaced(make_slot: MakeSlot) -> None:
    """Sessions that leave end with the slot, as the one that serves does, and none is opened afterwards."""
    harness = make_slot()
    await harness.clock.advance(60)
    harness.session.disconnect_requested.set()
    await harness.clock.advance(1)
    harness.latency = 5
    assert harness.slot.replace()
    await harness.clock.advance(1)
    assert harness.state() is SlotState.REPLACING
    harness.running.cancel()
    await asyncio.wait({harness.running})
    await harness.clock.advance(60)
    assert len(harness.sessions) == 2
    assert all(session._end.done() for session in harness.sessions)


async def test_drain_before_the_first_step(make_slot: MakeSlot) -> None:
    """A drain that comes before the slot has begun is not lost."""
    harness = make_slot()
    harness.slot.drain()
    await harness.running
    assert harness.slot.state is SlotState.CLOSED
    assert all(session._end.done() for session in harness.sessions)


async def test_slot_that_runs_again(make_slot: MakeSlot) -> None:
    """A slot that was drained can be taken up again, with its counts."""
    harness = make_slot()
    await harness.clock.advance(10)
    harness.slot.drain()
    await harness.running
    harness.running = asyncio.create_task(harness.slot.run())
    await harness.clock.advance(10)
    assert harness.slot.is_open
    assert harness.moves[-2:] == [(SlotState.CONNECTING, Reason.START), (SlotState.OPEN, Reason.START)]


async def test_one_instant_disconnect_is_forgiven(make_slot: MakeSlot) -> None:
    """A server that is being taken down asks once to leave at once: the next attempt comes without a wait."""
    harness = make_slot()
    harness.on_open = lambda session: session.disconnect_requested.set() if session.number == 1 else None
    await harness.clock.advance(0.1)
    assert len(harness.sessions) == 2
    assert harness.slot.is_open


async def test_backoff_grows_to_its_ceiling_only(make_slot: MakeSlot) -> None:
    """After hours of outage no wait is longer than 5 s, and the waits still differ."""
    harness = make_slot()
    harness.gateway = GatewayError(GatewayReason.UNREACHABLE, "no route")
    await harness.clock.advance(7_200)
    gaps = [later - earlier for earlier, later in zip(harness.registered, harness.registered[1:], strict=False)]
    assert 4.5 < max(gaps) <= 5.0
    assert len({round(gap, 3) for gap in gaps[-20:]}) > 10


async def test_two_slots_rotate_at_different_times(make_slot: MakeSlot) -> None:
    """Two slots never rotate together, however long they run, and whatever made their sessions begin in step."""
    slots = [make_slot(rotate=3600, phase=phase, rng=random.Random(phase)) for phase in (0, 0.5)]
    moments: list[list[float]] = []
    for harness in slots:
        await harness.clock.advance(1_000)
        harness.session.end()
        await harness.clock.advance(60 * 3600)
        moments.append(harness.registered[2:])
    assert min(map(len, moments)) > 50
    assert min(abs(one - other) for one in moments[0] for other in moments[1]) >= 0.29 * 3600
