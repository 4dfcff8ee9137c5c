"""Lanes and their supervisor: every row of the table in the design's section on the connection."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from claw.clock import Clock, format_rfc3339
from claw.config.settings import Credentials, StreamSettings
from claw.errors import GatewayError, GatewayReason, HandshakeError
from claw.messages import Delivery
from claw.secret import Secret
from claw.stream.gateway import Gateway, RateLimiter, Registration
from claw.stream.session import EndKind, SessionCounters, SessionEnd
from claw.stream.slot import Slot, SlotState
from claw.stream.supervisor import Supervisor
from tests.clock import FakeClock
from tests.stream import vectors
from tests.stream.dingtalk import DingTalk, Peer, nothing_left, until

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
        self._end: asyncio.Future[tuple[EndKind, str]] = asyncio.get_running_loop().create_future()
        journal.append(f"open {number}")

    @property
    def lived(self) -> float:
        return self._clock.monotonic() - self._opened_at

    def end(self, kind: EndKind = EndKind.LOST) -> None:
        if not self._end.done():
            self._end.set_result((kind, ""))

    async def run(self) -> SessionEnd:
        kind, detail = await self._end
        self.journal.append(f"end {self.number}")
        return SessionEnd(kind, detail, self.lived)

    async def close(self) -> None:
        self.journal.append(f"close {self.number}")
        self.end(EndKind.CLOSED)

    async def drain(self) -> None:
        self.journal.append(f"drain {self.number}")
        self.end(EndKind.CLOSED)

    def abort(self) -> None:
        self.end(EndKind.CLOSED)


class SlotHarness:
    """A slot over a gateway and sessions in memory. `gateway` and `upgrade` may hold an error to raise."""

    def __init__(self, rotate: float = 0) -> None:
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
        self.sessions: list[FakeSession] = []
        self.on_open: Callable[[FakeSession], None] = lambda _: None
        self.slot = Slot(
            0,
            register=self.register,
            connect=self.open,
            credentials=lambda: self.credentials,
            rotate=rotate,
            clock=self.clock,
            rng=random.Random(5),
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


@pytest.mark.parametrize("kind", [EndKind.LOST, EndKind.PEER_CLOSED, EndKind.PONGS_MISSED, EndKind.CLOCK_JUMP])
async def test_end_after_good_service_is_followed_at_once(make_slot: MakeSlot, kind: EndKind) -> None:
    """A session that lived for 5 s is followed by the next one within 100 ms, however it ended."""
    harness = make_slot()
    await harness.clock.advance(5)
    assert harness.slot.state is SlotState.OPEN
    harness.session.end(kind)
    await harness.clock.advance(0.1)
    assert (len(harness.sessions), harness.slot.state) == (2, SlotState.OPEN)
    assert harness.slot.reconnects == {kind.value: 1}


async def test_end_after_short_service_backs_off(make_slot: MakeSlot) -> None:
    """Clean closes right after accepting never storm: the waits grow, up to 10 s."""
    harness = make_slot()
    harness.on_open = lambda session: session.end(EndKind.PEER_CLOSED)
    await harness.clock.advance(120)
    assert harness.slot.state is SlotState.BACKOFF
    assert 10 < len(harness.sessions) < 60
    assert busiest_second(harness.registered) <= 2
    assert len([at for at in harness.registered if at > 60]) < 30


async def test_failing_attempts(make_slot: MakeSlot) -> None:
    """Refused upgrades for 12 s never cost more than two registrations in any second, nor two at once."""
    harness = make_slot()
    harness.upgrade = HandshakeError("401", status=401)
    harness.latency = 0.01
    await harness.clock.advance(12)
    assert harness.slot.state is SlotState.BACKOFF
    assert busiest_second(harness.registered) <= 2
    assert harness.most_in_flight == 1


async def test_full_jitter_that_draws_nothing(make_slot: MakeSlot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where each wait is drawn as zero, no second sees more than two registrations."""
    monkeypatch.setattr(random, "uniform", lambda *_: 0.0)
    harness = make_slot()
    harness.upgrade = HandshakeError("401", status=401)
    await harness.clock.advance(12)
    assert 20 <= len(harness.registered) <= 24
    assert busiest_second(harness.registered) <= 2


async def test_long_outage(make_slot: MakeSlot) -> None:
    """After an outage of five minutes, or of two hours, we are back within 10 s of its end; we never give up."""
    for seconds in (300, 7_200):
        harness = make_slot()
        await harness.clock.advance(10)
        harness.gateway = GatewayError(GatewayReason.BUSY, "503", status=503)
        harness.session.end()
        await harness.clock.advance(seconds)
        assert harness.state() is SlotState.BACKOFF
        harness.gateway = None
        await harness.clock.advance(10)
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
    harness.sessions[0].end(EndKind.PEER_CLOSED)
    await harness.clock.advance(30)
    assert harness.journal == ["open 1", "open 2", "end 1"]
    assert harness.slot.state is SlotState.OPEN


async def test_replacement_that_fails(make_slot: MakeSlot, caplog: pytest.LogCaptureFixture) -> None:
    """While no new session can be had the old one goes on; it is let go when one can."""
    harness = make_slot()
    await harness.clock.advance(60)
    harness.gateway = GatewayError(GatewayReason.BUSY, "503", status=503)
    assert harness.slot.replace("restart")
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
    assert not harness.slot.replace("restart")
    await harness.clock.advance(2)
    assert harness.slot.replace("restart")
    assert not harness.slot.replace("restart")
    await harness.clock.advance(0.5)
    assert not harness.slot.replace("restart")
    await harness.clock.advance(1)
    assert harness.slot.replace("restart")


async def test_failed_replacement_still_backs_off(make_slot: MakeSlot, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wish that began a replacement does not shorten the wait after its first failure."""
    harness = make_slot()
    await harness.clock.advance(60)
    harness.gateway = GatewayError(GatewayReason.THROTTLED, "429", status=429, retry_after=20)
    before = len(harness.registered)
    assert harness.slot.replace("restart")
    await harness.clock.advance(19)
    assert len(harness.registered) == before + 1


@pytest.mark.parametrize("error", [GatewayError(GatewayReason.BUSY, "503", status=503, retry_after=200), REFUSED])
async def test_replace_ends_a_wait(make_slot: MakeSlot, error: GatewayError) -> None:
    """An operator's wish tries again at once where nothing serves."""
    harness = make_slot()
    harness.gateway = error
    await harness.clock.advance(3)
    harness.gateway = None
    assert harness.slot.replace("restart")
    await harness.clock.advance(0)
    assert harness.slot.state is SlotState.OPEN


async def test_drain_of_a_lane(make_slot: MakeSlot) -> None:
    """A drain closes the session and those on their way out, and opens no other."""
    harness = make_slot()
    await harness.clock.advance(60)
    harness.session.disconnect_requested.set()
    await harness.clock.advance(1)
    harness.slot.drain()
    await harness.running
    assert harness.slot.state is SlotState.CLOSED
    assert sorted(harness.journal[2:]) == ["drain 1", "drain 2", "end 1", "end 2"]


@pytest.mark.parametrize("moment", ["waiting", "registering", "is_open"])
async def test_cancellation_of_a_lane(make_slot: MakeSlot, moment: str) -> None:
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


async def test_fault_of_ours_ends_the_lane(make_slot: MakeSlot) -> None:
    """A fault of the program is not retried for ever: the slot ends with it, and the probes see that."""
    harness = make_slot()
    harness.gateway = TypeError("ours")
    with pytest.raises(TypeError):
        await harness.running


# --- the whole, on real sockets ----------------------------------------------------------------------------------


class Harness:
    """A supervisor against a DingTalk on loopback."""

    def __init__(self, dingtalk: DingTalk, http: aiohttp.ClientSession, **given: Any) -> None:
        self.dingtalk = dingtalk
        self.credentials = GOOD
        self.delivered: list[str] = []
        self.accept: Callable[[Delivery], Awaitable[None]] = _acknowledge
        stream = StreamSettings(
            heartbeat=given.pop("heartbeat", 5.0),
            rotate=given.pop("rotate", 0.0),
            connections=given.pop("connections", 1),
        )
        gateway = Gateway(http, dingtalk.url, lambda: self.credentials, timeout=given.pop("timeout", 10.0))
        self.supervisor = Supervisor(stream, gateway, http, self._deliver, **given)
        self.running = asyncio.create_task(self.supervisor.run())

    async def _deliver(self, delivery: Delivery) -> None:
        self.delivered.append(delivery.inbound.msg_id)
        await self.accept(delivery)


async def _acknowledge(delivery: Delivery) -> None:
    await delivery.acknowledge()


@pytest.fixture
async def make_harness() -> AsyncIterator[Callable[..., Harness]]:
    made: list[Harness] = []
    async with nothing_left(), DingTalk() as dingtalk, aiohttp.ClientSession() as http:

        def make(**given: Any) -> Harness:
            made.append(Harness(dingtalk, http, **given))
            return made[-1]

        yield make
        for each in made:
            each.running.cancel()
            await asyncio.wait({each.running})


MakeHarness = Callable[..., Harness]


async def test_no_gap_at_a_disconnect(make_harness: MakeHarness) -> None:
    """The server sees the new socket open before the old one closes, and each ack on the socket of its push."""
    each = make_harness()
    first = await each.dingtalk.peer()
    gate = asyncio.Event()

    async def accept(delivery: Delivery) -> None:
        if delivery.inbound.msg_id == "msg-1":
            await gate.wait()
        await delivery.acknowledge()

    each.accept = accept
    await first.push(vectors.robot(1))
    await until(lambda: each.delivered)
    await first.push(vectors.DISCONNECT)
    second = await each.dingtalk.peer()
    await second.push(vectors.robot(2))
    assert (await second.ack())["headers"]["messageId"] == "push-2"
    gate.set()
    assert (await first.ack())["headers"]["messageId"] == "push-1"
    await first.push(vectors.robot(3))
    assert (await first.ack())["headers"]["messageId"] == "push-3"
    await first.socket.close()
    await first.closed.wait()
    assert each.dingtalk.journal == ["open 1", "open 2", "close 1"]
    assert each.supervisor.connected == 1
    assert second.acks.empty()


async def test_reset_is_followed_at_once(make_harness: MakeHarness) -> None:
    """After a reset of a session that served well, messages flow again; the outage is over."""
    clock = SteppedClock()
    each = make_harness(clock=clock)
    first = await each.dingtalk.peer()
    await until(lambda: each.supervisor.connected)
    clock.ahead += 6
    first.reset()
    second = await each.dingtalk.peer()
    await second.push(vectors.robot(1))
    assert (await second.ack())["code"] == 200
    assert each.supervisor.status()["reconnects"] == {"lost": 1}


class SteppedClock(Clock):
    """The real clock, some seconds ahead, so that a session has lived without anybody waiting for it."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead

    def wall(self) -> float:
        return super().wall() + self.ahead


async def test_hung_gateway(make_harness: MakeHarness) -> None:
    """A gateway that hangs costs one attempt's time, and the loop goes on turning."""
    each = make_harness(timeout=0.1)
    released = asyncio.Event()

    async def hang() -> web.Response:
        await released.wait()
        return web.Response()

    each.dingtalk.answer = hang
    await until(lambda: each.supervisor.check().state == "BACKOFF")
    assert "did not answer in time" in each.supervisor.check().reason
    each.dingtalk.answer = None
    await each.dingtalk.peer()
    released.set()
    await until(lambda: each.supervisor.check().ok)


async def test_unreachable_endpoint(make_harness: MakeHarness) -> None:
    """An endpoint where nobody listens is retried with a new ticket each time."""
    each = make_harness()

    async def elsewhere() -> web.Response:
        return web.json_response({"endpoint": "ws://127.0.0.1:1/connect", "ticket": "t"})

    each.dingtalk.answer = elsewhere
    await until(lambda: len(each.dingtalk.registrations) >= 2)
    each.dingtalk.answer = None
    await each.dingtalk.peer()


async def test_rejection_is_told(make_harness: MakeHarness) -> None:
    """The check tells a rejection in both languages, and recovers with the credentials."""
    each = make_harness()

    async def refuse() -> web.Response:
        if each.credentials is GOOD:
            return web.json_response({"endpoint": each.dingtalk.endpoint, "ticket": "t"})
        return web.Response(status=401, text=vectors.GATEWAY_401, content_type="application/json")

    each.credentials = BAD
    each.dingtalk.answer = refuse
    await until(lambda: each.supervisor.check().state == "REJECTED")
    check = each.supervisor.check()
    assert not check.ok
    assert check.since > 0
    assert "请核对" in check.reason
    assert "check DINGTALK_CLIENT_ID" in check.reason
    each.credentials = GOOD
    await each.dingtalk.peer()
    await until(lambda: each.supervisor.check().ok)
    assert each.supervisor.check().reason == ""


async def test_readiness_overlooks_five_seconds(make_harness: MakeHarness) -> None:
    """A connection lost for less than 5 s does not make us unready; one lost for longer does."""
    clock = SteppedClock()
    each = make_harness(clock=clock)
    assert not each.supervisor.check().ok
    first = await each.dingtalk.peer()
    await until(lambda: each.supervisor.check().ok)
    each.dingtalk.upgrade = 503
    first.reset()
    await until(lambda: not each.supervisor.connected)
    assert each.supervisor.check().ok
    clock.ahead += 5.1
    assert not each.supervisor.check().ok
    each.dingtalk.upgrade = 0
    await each.dingtalk.peer()
    await until(lambda: each.supervisor.check().ok)


async def test_a_farewell_does_not_make_us_unready(make_harness: MakeHarness) -> None:
    """A probe may come between DingTalk's `disconnect` and the slot's answer to it: the grace holds then, too."""
    each = make_harness()
    first = await each.dingtalk.peer()
    await until(lambda: each.supervisor.connected)
    said: list[bool] = []

    class Farewell(asyncio.Event):
        def set(self) -> None:
            super().set()
            said.append(each.supervisor.check().ok)

    (slot,) = each.supervisor.slots
    assert slot._current is not None
    slot._current.session.disconnect_requested.__class__ = Farewell
    await first.push(vectors.DISCONNECT)
    await each.dingtalk.peer()
    assert said == [True]


async def test_slots(make_harness: MakeHarness) -> None:
    """Several slots hold a session each; one that is lost does not make us unready."""
    each = make_harness(connections=3)
    peers = [await each.dingtalk.peer() for _ in range(3)]
    await until(lambda: each.supervisor.connected == 3)
    for number, peer in enumerate(peers):
        await peer.push(vectors.robot(number))
        await peer.ack()
    each.dingtalk.upgrade = 503
    peers[0].reset()
    await until(lambda: each.supervisor.connected == 2)
    assert each.supervisor.check().state == "OPEN"
    status = each.supervisor.status()
    assert [slot["frames"] for slot in status["slots"]] == [1, 1, 1]
    assert status["connected"] == 2
    assert format_rfc3339(each.supervisor.last_frame_at) == status["last_frame_at"] is not None


async def test_restart_of_the_stream(make_harness: MakeHarness) -> None:
    """An operator's restart replaces the sessions without a gap, once at a time."""
    each = make_harness()
    await each.dingtalk.peer()
    await until(lambda: each.supervisor.connected)
    assert each.supervisor.replace("restart")
    assert not each.supervisor.replace("restart")
    await each.dingtalk.peer()
    assert each.dingtalk.journal == ["open 1", "open 2"]
    await until(lambda: each.supervisor.status()["reconnects"] == {"restart": 1})


async def test_drain_acks_what_was_read(make_harness: MakeHarness) -> None:
    """A drain writes the pending acks, closes with 1000 and ends `run`; nothing connects afterwards."""
    each = make_harness()
    peer = await each.dingtalk.peer()
    gate = asyncio.Event()

    async def accept(delivery: Delivery) -> None:
        await gate.wait()
        await delivery.acknowledge()

    each.accept = accept
    await peer.push(vectors.robot(1))
    await until(lambda: each.delivered)
    drain = asyncio.create_task(each.supervisor.drain())
    gate.set()
    await drain
    assert (await peer.ack())["headers"]["messageId"] == "push-1"
    await peer.closed.wait()
    assert peer.close_code == 1000
    await each.running
    assert (each.supervisor.check().ok, each.supervisor.check().state) == (False, "CLOSED")
    assert not each.supervisor.replace("restart")
    assert len(each.dingtalk.peers) == 1


@pytest.mark.parametrize("connected", [True, False])
async def test_cancellation_leaves_nothing(make_harness: MakeHarness, connected: bool) -> None:
    """Cancelling `run` ends every task and socket, also in the middle of an attempt."""
    each = make_harness()
    if connected:
        peer = await each.dingtalk.peer()
        await until(lambda: each.supervisor.connected)
        each.running.cancel()
        await asyncio.wait({each.running})
        await peer.closed.wait()
    else:
        await asyncio.sleep(0)
        each.running.cancel()
        await asyncio.wait({each.running})
    assert each.running.cancelled()
    assert each.supervisor.connected == 0


async def test_stuck_delivery_does_not_outlive_us(make_harness: MakeHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that hangs cannot hold up the stop for longer than its limit."""
    monkeypatch.setattr("claw.stream.supervisor.DELIVERIES_TIMEOUT_S", 0.1)
    each = make_harness()
    peer = await each.dingtalk.peer()

    async def accept(_: Delivery) -> None:
        await asyncio.Event().wait()

    each.accept = accept
    await peer.push(vectors.robot(1))
    await until(lambda: each.delivered)
    each.running.cancel()
    await asyncio.wait({each.running})
    assert each.running.cancelled()


async def test_traffic_survives_faults(make_harness: MakeHarness) -> None:
    """Over resets and disconnects every message that a live socket carried is delivered and acked on that socket."""
    clock = SteppedClock()
    each = make_harness(clock=clock)
    peer = await each.dingtalk.peer()
    expected = []
    for number in range(6):
        await peer.push(vectors.robot(number))
        assert (await peer.ack())["headers"]["messageId"] == f"push-{number}"
        expected.append(f"msg-{number}")
        clock.ahead += 6
        if number % 2:
            peer.reset()
        else:
            await peer.push(vectors.DISCONNECT)
        peer = await each.dingtalk.peer()
    assert each.delivered == expected


async def test_nothing_secret_is_logged(make_harness: MakeHarness, caplog: pytest.LogCaptureFixture) -> None:
    """No log line of ours holds secret, ticket, webhook or what people said, over a session's whole life."""
    caplog.set_level(logging.DEBUG)
    each = make_harness()
    peer: Peer = await each.dingtalk.peer()
    await peer.push(vectors.robot(1, "private words"))
    await peer.push(vectors.DISCONNECT)
    await each.dingtalk.peer()
    await each.supervisor.drain()
    await each.running
    ours = [record for record in caplog.records if record.name.startswith("claw")]
    text = "".join(f"{record.getMessage()} {record.__dict__}" for record in ours)
    assert ours
    for secret in ("not-a-real-secret", "ticket-", "sendBySession", "private words"):
        assert secret not in text
