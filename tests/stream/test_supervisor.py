"""The supervisor and its slots, on real sockets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from claw.clock import Clock, format_rfc3339
from claw.config.settings import Credentials, StreamSettings
from claw.errors import GatewayError, GatewayReason
from claw.messages import CardCallback, Delivery
from claw.secret import Secret
from claw.stream.gateway import Gateway
from claw.stream.supervisor import Supervisor
from tests.stream import vectors
from tests.stream.dingtalk import DingTalk, Peer, nothing_left, until

GOOD = Credentials("dingfakeclient", Secret("not-a-real-secret"))
BAD = Credentials("dingfakeclient", Secret("a-wrong-secret"))
REFUSED = GatewayError(GatewayReason.UNAUTHORIZED, "refused", status=401, code="authFailed")


class Harness:
    """A supervisor against a DingTalk on loopback."""

    def __init__(self, dingtalk: DingTalk, http: aiohttp.ClientSession, **given: Any) -> None:
        self.dingtalk = dingtalk
        self.credentials = GOOD
        self.delivered: list[str] = []
        self.cards: list[CardCallback] = []
        self.accept: Callable[[Delivery], Awaitable[None]] = _acknowledge
        stream = StreamSettings(
            heartbeat=given.pop("heartbeat", 5.0),
            rotate=given.pop("rotate", 0.0),
            connections=given.pop("connections", 1),
        )
        gateway = Gateway(http, dingtalk.url, lambda: self.credentials, timeout=given.pop("timeout", 10.0))
        self.supervisor = Supervisor(stream, gateway, http, self._deliver, self._on_card, **given)
        self.running = asyncio.create_task(self.supervisor.run())

    async def _deliver(self, delivery: Delivery) -> None:
        self.delivered.append(delivery.inbound.msg_id)
        await self.accept(delivery)

    async def _on_card(self, callback: CardCallback) -> None:
        self.cards.append(callback)


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
    assert each.supervisor.replace()
    assert not each.supervisor.replace()
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
    assert not each.supervisor.replace()
    assert len(each.dingtalk.peers) == 1


async def test_pause_hands_over_to_others(make_harness: MakeHarness) -> None:
    """A pause writes pending acks, closes all with 1000 and tells why it is not ready; its end opens all at once."""
    each = make_harness(connections=2)
    peers = [await each.dingtalk.peer() for _ in range(2)]
    await until(lambda: each.supervisor.connected == 2)
    gate = asyncio.Event()

    async def accept(delivery: Delivery) -> None:
        await gate.wait()
        await delivery.acknowledge()

    each.accept = accept
    await peers[0].push(vectors.robot(1))
    await until(lambda: each.delivered)
    assert each.supervisor.pause("the store fails")
    assert not each.supervisor.pause("the store fails still")
    check = each.supervisor.check()
    assert (check.ok, check.state, check.reason) == (False, "PAUSED", "the store fails still")
    await until(lambda: [slot.state.value for slot in each.supervisor.slots] == ["PAUSED", "PAUSED"])
    gate.set()
    assert (await peers[0].ack())["headers"]["messageId"] == "push-1"
    for peer in peers:
        await peer.closed.wait()
        assert peer.close_code == 1000
    assert not each.supervisor.replace()
    status = each.supervisor.status()
    assert (status["state"], status["connected"], status["last_error"]) == ("PAUSED", 0, "the store fails still")
    assert len(each.dingtalk.registrations) == 2
    assert each.supervisor.resume()
    assert not each.supervisor.resume()
    peers = [await each.dingtalk.peer() for _ in range(2)]
    await until(lambda: each.supervisor.connected == 2)
    check = each.supervisor.check()
    assert (check.ok, check.state, check.reason) == (True, "OPEN", "")
    await peers[0].push(vectors.robot(2))
    assert (await peers[0].ack())["headers"]["messageId"] == "push-2"
    assert each.supervisor._lost_at is None


async def test_resume_does_not_wait_for_last_acks(make_harness: MakeHarness) -> None:
    """Where a pause ends before its last acks are written, new connections open beside the old ones."""
    each = make_harness()
    first = await each.dingtalk.peer()
    gate = asyncio.Event()

    async def accept(delivery: Delivery) -> None:
        await gate.wait()
        await delivery.acknowledge()

    each.accept = accept
    await first.push(vectors.robot(1))
    await until(lambda: each.delivered)
    each.supervisor.pause("for a moment")
    await until(lambda: each.supervisor.slots[0].state.value == "PAUSED")
    each.supervisor.resume()
    await each.dingtalk.peer()
    assert each.dingtalk.journal == ["open 1", "open 2"]
    gate.set()
    assert (await first.ack())["headers"]["messageId"] == "push-1"
    await first.closed.wait()
    assert first.close_code == 1000


@pytest.mark.parametrize("way", ["drain", "cancel"])
async def test_stop_during_a_pause(make_harness: MakeHarness, way: str) -> None:
    """A drain or a cancellation in a pause ends `run` and leaves nothing; there is nothing to resume afterwards."""
    each = make_harness(connections=2)
    peers = [await each.dingtalk.peer() for _ in range(2)]
    each.supervisor.pause("the store fails")
    await peers[0].closed.wait()
    if way == "drain":
        async with asyncio.timeout(5):
            await each.supervisor.drain()
    else:
        each.running.cancel()
    await asyncio.wait({each.running})
    assert (each.supervisor.check().ok, each.supervisor.check().state) == (False, "CLOSED")
    each.supervisor.resume()
    await asyncio.sleep(0.05)
    assert len(each.dingtalk.registrations) == 2


async def test_start_in_a_pause(make_harness: MakeHarness) -> None:
    """A pause that was wished before `run` holds: nothing registers until its end."""
    each = make_harness(connections=2)
    each.supervisor.pause("not yet")
    await until(lambda: [slot.state.value for slot in each.supervisor.slots] == ["PAUSED", "PAUSED"])
    await asyncio.sleep(0.05)
    assert each.dingtalk.registrations == []
    each.supervisor.resume()
    await until(lambda: each.supervisor.connected == 2)


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


# --- two slots ---------------------------------------------------------------------------------------------------


async def test_reset_of_one_of_two_is_no_outage(make_harness: MakeHarness) -> None:
    """With two slots a reset leaves one session that DingTalk pushes to, and readiness never turns."""
    each = make_harness(connections=2)
    first, second = await each.dingtalk.peer(), await each.dingtalk.peer()
    await until(lambda: each.supervisor.connected == 2)
    first.reset()
    await until(lambda: each.supervisor.connected == 1)
    assert each.supervisor.check().ok
    await second.push(vectors.robot(1))
    assert (await second.ack())["code"] == 200
    await each.dingtalk.peer()
    await until(lambda: each.supervisor.connected == 2)
    assert each.supervisor._lost_at is None


async def test_frame_too_large_and_its_repeat(make_harness: MakeHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """It and its repeat on the other connection cost one session each: no wait, always one that serves, and told."""
    monkeypatch.setattr("claw.stream.upgrade.FRAME_MAX_BYTES", 1024)
    clock = SteppedClock()
    each = make_harness(connections=2, clock=clock)
    peers = [await each.dingtalk.peer(), await each.dingtalk.peer()]
    await until(lambda: each.supervisor.connected == 2)
    for victim, other in ((0, 1), (1, 0)):
        clock.ahead += 1
        await peers[victim].push("x" * 2048)
        await until(lambda: each.supervisor.connected == 1)
        assert "BACKOFF" not in [slot.state.value for slot in each.supervisor.slots]
        await peers[other].push(vectors.robot(victim))
        assert (await peers[other].ack())["headers"]["messageId"] == f"push-{victim}"
        peers[victim] = await each.dingtalk.peer()
        await until(lambda: each.supervisor.connected == 2)
        check = each.supervisor.check()
        assert (check.ok, check.state) == (True, "OPEN")
        assert "above 8 MiB" in check.reason
        assert "超过 8 MiB" in check.reason
    status = each.supervisor.status()
    assert (status["too_large_frames"], status["reconnects"]) == (2, {"too_large": 2})
    assert status["one_connection_since"] is None
    clock.ahead += 600
    assert each.supervisor.check().reason == ""


async def test_card_callback_is_handed_on(make_harness: MakeHarness) -> None:
    """A press of a button reaches whoever is there for cards, on whatever slot it came."""
    each = make_harness(connections=2)
    for number in range(2):
        peer = await each.dingtalk.peer()
        await peer.push(vectors.frame(vectors.CARD_DATA, topic=vectors.CARD_TOPIC, message_id=f"press-{number}"))
        assert (await peer.ack())["headers"]["messageId"] == f"press-{number}"
    assert [card.card_id for card in each.cards] == ["trk-0001", "trk-0001"]


async def test_one_connection_only(make_harness: MakeHarness, caplog: pytest.LogCaptureFixture) -> None:
    """Where each new session closes the other one, claw goes down to one, says so, and stays ready."""
    each = make_harness(connections=2)
    each.dingtalk.single = True
    await until(lambda: each.supervisor.status()["one_connection_since"])
    await until(lambda: [slot["state"] for slot in each.supervisor.status()["slots"]].count("CLOSED") == 1)
    check = each.supervisor.check()
    assert (check.ok, check.state, each.supervisor.connected) == (True, "OPEN", 1)
    assert "one connection only" in check.reason
    assert "只允许本应用保持一个连接" in check.reason
    assert "one connection only" in caplog.text
    opened = len(each.dingtalk.peers)
    await each.dingtalk.peers[-1].push(vectors.robot(1))
    assert (await each.dingtalk.peers[-1].ack())["code"] == 200
    await asyncio.sleep(0.7)  # the longest first wait: nobody tries a second connection now
    assert len(each.dingtalk.peers) == opened


@pytest.mark.parametrize("single", [True, False])
async def test_two_are_tried_again(make_harness: MakeHarness, single: bool) -> None:
    """With the next rotation or restart claw tries two connections again, and notices if nothing has changed."""
    each = make_harness(connections=2)
    each.dingtalk.single = True
    await until(lambda: [slot["state"] for slot in each.supervisor.status()["slots"]].count("CLOSED") == 1)
    each.dingtalk.single = single
    opened = len(each.dingtalk.peers)
    assert each.supervisor.replace()
    await until(lambda: len(each.dingtalk.peers) >= opened + 2)
    if single:
        await until(lambda: each.supervisor.status()["one_connection_since"])
        await until(lambda: each.supervisor.connected == 1)
    else:
        await until(lambda: each.supervisor.connected == 2)
        assert each.supervisor.status()["one_connection_since"] is None
        assert each.supervisor.check().reason == ""


async def test_drain_of_what_is_left(make_harness: MakeHarness) -> None:
    """A claw that is down to one connection drains as any other."""
    each = make_harness(connections=2)
    each.dingtalk.single = True
    await until(lambda: [slot["state"] for slot in each.supervisor.status()["slots"]].count("CLOSED") == 1)
    await each.supervisor.drain()
    await each.running
    assert each.supervisor.check().state == "CLOSED"


async def test_gateway_in_trouble_is_no_limit(make_harness: MakeHarness) -> None:
    """Sessions that all end right after their begin do not make claw believe in one connection."""
    each = make_harness(connections=2)

    async def greet(peer: Peer) -> None:
        peer.reset()

    each.dingtalk.greet = greet
    await until(lambda: len(each.dingtalk.peers) >= 6)
    assert each.supervisor.status()["one_connection_since"] is None
    each.dingtalk.greet = None
    await until(lambda: each.supervisor.connected == 2)
