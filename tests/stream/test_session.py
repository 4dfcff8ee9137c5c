"""One session on a real socket: what it answers, how it ends, and that nothing a peer sends can hurt it."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import random
import struct
from typing import Any

import aiohttp
import pytest

from claw.budget import ByteBudget
from claw.clock import Clock
from claw.errors import HandshakeError
from claw.messages import Delivery
from claw.proxy import forget
from claw.secret import Secret
from claw.stream import session as module
from claw.stream import upgrade
from claw.stream.gateway import Registration
from claw.stream.reason import Reason
from claw.stream.session import open_session
from tests.clock import FakeClock
from tests.stream import vectors
from tests.stream.conftest import Connect, quiet
from tests.stream.dingtalk import DingTalk, nothing_left, until

# --- answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (vectors.PING, json.loads(vectors.PONG)),
        (vectors.EVENT, json.loads(vectors.EVENT_ACK)),
        (vectors.ROBOT, json.loads(vectors.ROBOT_ACK)),
        (
            vectors.frame(vectors.CARD_DATA, topic=vectors.CARD_TOPIC),
            {"code": 200, "message": "OK", "data": '{"response":{}}'},
        ),
        (vectors.frame("{}", topic="/v1.0/graph/api/invoke"), {"code": 404}),
        (vectors.frame("{}", frame_type="SYSTEM", topic="news"), {"code": 404}),
        (vectors.frame("{}", frame_type="NOVELTY"), {"code": 404}),
        (vectors.frame("no JSON"), {"code": 400}),
        (vectors.frame('{"msgtype":"text"}'), {"code": 400}),
    ],
)
async def test_answers(connect: Connect, text: str, answer: dict[str, Any]) -> None:
    """Each frame that asks for an answer gets the official one, under its own id."""
    harness = await connect()
    await harness.peer.push(text)
    got = await harness.peer.ack()
    assert got | answer == got
    assert got["headers"]["messageId"] == json.loads(text)["headers"]["messageId"]


async def test_frames_without_answer(connect: Connect) -> None:
    """A disconnect, legacy notes, frames without id and nonsense are not answered, and the session goes on."""
    harness = await connect()
    for text in (
        vectors.DISCONNECT,
        vectors.frame("{}", frame_type="SYSTEM", topic="KEEPALIVE"),
        vectors.frame("{}", message_id="", topic="novelty"),
        "nonsense",
        vectors.PING,
    ):
        await harness.peer.push(text)
    assert (await harness.peer.ack())["headers"]["messageId"] == json.loads(vectors.PING)["headers"]["messageId"]
    assert harness.session.disconnect_requested.is_set()


async def test_delivery(connect: Connect) -> None:
    """A delivery tells the message and when it was read; the ack is written only when it is asked for."""
    deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
    harness = await connect(accept=deliveries.put)
    await harness.peer.push(vectors.robot(1))
    delivery = await deliveries.get()
    assert delivery.inbound.key == "dingfakeclient:msg-1"
    assert delivery.read_at == harness.clock.wall() == harness.session.counters.last_frame_at
    await harness.peer.push(vectors.PING)
    assert (await harness.peer.ack())["headers"]["messageId"].startswith("2141a0c7")
    await delivery.acknowledge()
    assert (await harness.peer.ack())["headers"]["messageId"] == "push-1"


async def test_deliveries_start_in_order_and_do_not_hold_up_reading(connect: Connect) -> None:
    """A slow store does not stop the read loop, and messages reach it in the order in which they came."""
    gate = asyncio.Event()

    async def accept(delivery: Delivery) -> None:
        await gate.wait()
        await delivery.acknowledge()

    harness = await connect(accept=accept)
    for number in range(50):
        await harness.peer.push(vectors.robot(number))
    await harness.peer.push(vectors.PING)
    await harness.peer.ack()
    assert harness.delivered == [f"msg-{number}" for number in range(50)]
    gate.set()
    acks = {(await harness.peer.ack())["headers"]["messageId"] for _ in range(50)}
    assert acks == {f"push-{number}" for number in range(50)}


async def test_backpressure(connect: Connect) -> None:
    """Beyond the bound of deliveries under way reading rests; it is no sign of a dead peer, and goes on afterwards."""
    gate = asyncio.Event()

    async def accept(delivery: Delivery) -> None:
        await gate.wait()
        await delivery.acknowledge()

    harness = await connect(accept=accept, deliveries_max=3)
    for number in range(10):
        await harness.peer.push(vectors.robot(number))
    await until(lambda: len(harness.delivered) == 3)
    for _ in range(30):
        await harness.clock.advance(1)
    assert len(harness.delivered) == 3
    assert not harness.running.done()
    gate.set()
    for _ in range(10):
        await harness.peer.ack()


async def test_backpressure_by_bytes(connect: Connect) -> None:
    """Reading rests while 32 MiB are not stored yet, is no sign of a dead peer meanwhile, and all is acked then."""
    gate = asyncio.Event()

    async def accept(delivery: Delivery) -> None:
        await gate.wait()
        await delivery.acknowledge()

    harness = await connect(accept=accept)

    async def push() -> None:
        for number in range(8):
            await harness.peer.push(vectors.robot(number, "x" * (7 << 20)))

    pushing = asyncio.create_task(push())
    await until(lambda: len(harness.delivered) == 4)
    for _ in range(30):
        await harness.clock.advance(1)
    await asyncio.sleep(0.1)
    assert len(harness.delivered) == 4
    assert harness.config.in_flight.used <= 32 << 20
    assert harness.session.counters.frames == 5
    assert not harness.running.done()
    gate.set()
    acks = [(await harness.peer.ack())["headers"]["messageId"] for _ in range(8)]
    assert sorted(acks) == [f"push-{number}" for number in range(8)]
    await pushing
    await until(lambda: harness.config.in_flight.used == 0)


async def test_bytes_are_bounded_over_all_sessions(connect: Connect) -> None:
    """Sessions that come and go under a store that hangs hold no more than one does."""
    gate = asyncio.Event()

    async def accept(delivery: Delivery) -> None:
        await gate.wait()
        await delivery.acknowledge()

    in_flight = ByteBudget(100_000)
    lost = await connect(accept=accept, in_flight=in_flight)
    for number in range(20):
        await lost.peer.push(vectors.robot(number, "x" * 10_000))
    await until(lambda: lost.session.counters.frames == len(lost.delivered) + 1)
    lost.peer.reset()
    # Nobody reads the end of the connection now: our next ping finds it, within a heartbeat.
    while not lost.running.done():
        await lost.clock.advance(1)
        await asyncio.sleep(0.005)
    assert (await lost.end()).kind is Reason.LOST
    assert 5 <= len(lost.delivered) <= 7
    harness = await connect(accept=accept, in_flight=in_flight)
    await harness.peer.push(vectors.robot(50, "x" * 20_000))
    await harness.peer.push(vectors.robot(51, "x" * 200_000))
    await until(lambda: harness.session.counters.frames == 1)
    await asyncio.sleep(0.05)
    assert harness.delivered == []
    assert in_flight.used <= 100_000
    gate.set()
    # The second is larger than the whole, and still gets through, alone.
    assert {(await harness.peer.ack())["headers"]["messageId"] for _ in range(2)} == {"push-50", "push-51"}
    await until(lambda: in_flight.used == 0)


async def test_delivery_that_fails_is_not_acked(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """What could not be stored is not acked, is logged without content, and does not end the session."""

    async def accept(delivery: Delivery) -> None:
        if delivery.inbound.msg_id == "msg-1":
            raise OSError("disk full")
        await delivery.acknowledge()

    harness = await connect(accept=accept)
    await harness.peer.push(vectors.robot(1, "private words"))
    await harness.peer.push(vectors.robot(2))
    assert (await harness.peer.ack())["headers"]["messageId"] == "push-2"
    assert "message could not be accepted" in caplog.text
    assert "private words" not in caplog.text


async def test_server_pings_are_answered(connect: Connect) -> None:
    """A WebSocket ping of the server gets its pong."""
    harness = await connect()
    await harness.peer.socket.ping(b"are you there")
    await until(lambda: harness.peer.pongs == [b"are you there"])


# --- ends --------------------------------------------------------------------------------------------------------


async def test_reset(connect: Connect) -> None:
    """A connection that breaks ends the session at once, as lost."""
    harness = await connect()
    await harness.clock.advance(3)
    harness.peer.reset()
    end = await harness.end()
    assert (end.kind, end.lived) == (Reason.LOST, 3.0)


@pytest.mark.parametrize("code", [1000, 1001, 1011, 4000])
async def test_close_of_the_server(connect: Connect, code: int) -> None:
    """A close frame ends the session with its code, is answered, and leaves the server satisfied."""
    harness = await connect()
    await harness.peer.socket.close(code=code)
    end = await harness.end()
    assert (end.kind, end.detail) == (Reason.PEER_CLOSED, str(code))
    await harness.peer.closed.wait()


async def test_close_by_us(connect: Connect) -> None:
    """Our close sends 1000 and waits for the server's answer."""
    harness = await connect()
    await asyncio.gather(harness.session.close(), harness.session.close())
    assert (await harness.end()).kind is Reason.CLOSED
    await harness.peer.closed.wait()
    assert harness.peer.close_code == 1000


async def test_close_with_a_peer_that_is_gone(connect: Connect) -> None:
    """Our close does not wait for a dead peer beyond its limit."""
    harness = await connect(close_timeout=0.1)
    transport = harness.peer.request.transport
    assert isinstance(transport, asyncio.Transport)
    transport.pause_reading()
    await harness.session.close()
    assert (await harness.end()).kind is Reason.CLOSED


async def test_drain(connect: Connect) -> None:
    """A drain writes the acks of all that was read, and closes then."""
    gate = asyncio.Event()

    async def accept(delivery: Delivery) -> None:
        await gate.wait()
        await delivery.acknowledge()

    harness = await connect(accept=accept)
    await harness.peer.push(vectors.robot(1))
    await until(lambda: harness.delivered)
    drain = asyncio.create_task(harness.session.drain())
    await asyncio.sleep(0.05)
    assert not drain.done()
    gate.set()
    await drain
    assert (await harness.peer.ack())["headers"]["messageId"] == "push-1"
    await harness.peer.closed.wait()
    assert harness.peer.close_code == 1000


async def test_close_while_reading_rests(connect: Connect) -> None:
    """A store that hangs cannot keep a session from being closed."""
    gate = asyncio.Event()

    async def accept(_: Delivery) -> None:
        await gate.wait()

    harness = await connect(accept=accept, deliveries_max=1)
    await harness.peer.push(vectors.robot(1))
    await harness.peer.push(vectors.robot(2))
    await until(lambda: harness.session.counters.frames == 2)
    await harness.session.close()
    assert (await harness.end()).kind is Reason.CLOSED
    await harness.peer.closed.wait()
    gate.set()


async def test_late_ack_goes_nowhere(connect: Connect) -> None:
    """An ack of an ended session is dropped: it does not fail, and does not use another connection."""
    deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
    first = await connect(accept=deliveries.put)
    await first.peer.push(vectors.robot(1))
    late = await deliveries.get()
    first.peer.reset()
    await first.end()
    second = await connect()
    await late.acknowledge()
    await second.peer.push(vectors.PING)
    assert (await second.peer.ack())["headers"]["messageId"].startswith("2141a0c7")


async def test_delivery_outlives_its_session(connect: Connect) -> None:
    """A delivery under way is not cancelled by the end of its session: the message may still become durable."""
    gate, stored = asyncio.Event(), asyncio.Event()

    async def accept(delivery: Delivery) -> None:
        await gate.wait()
        stored.set()
        await delivery.acknowledge()

    harness = await connect(accept=accept)
    await harness.peer.push(vectors.robot(1))
    await until(lambda: harness.delivered)
    harness.peer.reset()
    await harness.end()
    assert len(harness.config.deliveries) == 1
    gate.set()
    async with asyncio.timeout(5):
        await stored.wait()
    await until(lambda: not harness.config.deliveries)


@pytest.mark.parametrize("parts", [1, 3])
async def test_too_large_frame_ends_the_session_only(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, parts: int
) -> None:
    """A frame beyond the limit, in one piece or in fragments, is an end of its own kind, told with what helps."""
    monkeypatch.setattr(upgrade, "FRAME_MAX_BYTES", 1024)
    harness = await connect()
    transport = harness.peer.request.transport
    assert isinstance(transport, asyncio.Transport)
    for part in range(parts):
        head = bytes([(0x80 if part == parts - 1 else 0) | (0 if part else 1), 126])
        transport.write(head + struct.pack("!H", 2048 // parts) + b"x" * (2048 // parts))
    end = await harness.end()
    assert (end.kind, end.detail) == (Reason.TOO_LARGE, "1009")
    assert (harness.session.counters.too_large, harness.session.counters.too_large_at) == (1, harness.clock.wall())
    await harness.peer.closed.wait()
    assert harness.peer.close_code == 1009
    assert [each.levelname for each in caplog.records if each.message == "frame too large"] == ["ERROR"]


async def test_frame_that_is_no_text(connect: Connect) -> None:
    """Bytes that are no UTF-8 end the session as broken protocol."""
    harness = await connect()
    transport = harness.peer.request.transport
    assert isinstance(transport, asyncio.Transport)
    transport.write(b"\x81\x02\xff\xff")
    assert (await harness.end()).kind is Reason.BAD_PROTOCOL


async def test_frame_of_eight_mebibytes(connect: Connect) -> None:
    """A message of 7 MiB is read and delivered."""
    harness = await connect()
    await harness.peer.push(vectors.robot(1, "x" * (7 << 20)))
    assert (await harness.peer.ack())["code"] == 200


async def test_cancellation(connect: Connect) -> None:
    """Cancelling `run` propagates, and cuts the socket."""
    harness = await connect()
    harness.running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await harness.running
    await harness.peer.closed.wait()


# --- liveness ----------------------------------------------------------------------------------------------------


async def test_pings_and_pongs(connect: Connect) -> None:
    """Every heartbeat brings one ping; as long as pongs come, a session without any frame lives."""
    harness = await connect()
    pings = 0

    def asked() -> bool:
        return harness.peer.pings == pings

    for pings in range(1, 13):  # noqa: B007 - read by `asked`
        await harness.clock.advance(5)
        await until(asked)
        await until(lambda: harness.session._unanswered == 0)
    assert not harness.running.done()


async def test_two_missed_pongs(connect: Connect) -> None:
    """Two pings without any sign of life are death, within three heartbeats of the fault with time to spare."""
    harness = await connect()
    harness.dingtalk.pongs = False
    await harness.clock.advance(13.4)
    assert not harness.running.done()
    await harness.clock.advance(0.1)
    end = await harness.end()
    assert end.kind is Reason.PONGS_MISSED
    assert end.lived == pytest.approx(13.5)


@pytest.mark.parametrize("opened_at", [0.0, 1.3, 4.9])
async def test_pings_of_two_phases_never_meet(connect: Connect, opened_at: float) -> None:
    """Sessions of two slots ping by half a heartbeat apart, whenever each of them was opened."""
    clock = FakeClock()
    await clock.advance(0.7)
    first = await connect(clock=clock)
    await clock.advance(opened_at)
    second = await connect(clock=clock, phase=0.5)
    moments: list[list[float]] = [[], []]
    seen = [first.peer.pings, second.peer.pings]
    for _ in range(200):
        await clock.advance(0.1)
        await asyncio.sleep(0.002)
        for number, peer in enumerate((first.peer, second.peer)):
            if peer.pings > seen[number]:
                seen[number] = peer.pings
                moments[number].append(clock.monotonic())
    assert min(map(len, moments)) >= 3
    assert min(abs(one - other) for one in moments[0] for other in moments[1]) > 2


@pytest.mark.parametrize(
    ("now", "phase", "at_least", "expected"),
    [(1000, 0, 0.001, 1005), (1003, 0, 0, 1005), (1003, 0.5, 0, 1007.5), (1003, 0, 2.5, 1010), (-1, 0, 0, 0)],
)
def test_grid(now: float, phase: float, at_least: float, expected: float) -> None:
    """The next turn lies on the slot's own grid, and not sooner than asked for."""
    assert module.next_turn(now, 5.0, phase, at_least) == expected


async def test_any_data_is_life(connect: Connect) -> None:
    """A peer that sends no pongs but sends frames is alive."""
    harness = await connect()
    harness.dingtalk.pongs = False
    for number in range(6):
        await harness.clock.advance(5)
        await harness.peer.push(vectors.robot(number))
        await harness.peer.ack()
    assert not harness.running.done()


async def test_local_work_is_no_life(connect: Connect) -> None:
    """Deliveries and acks of ours do not hide that the peer is dead."""
    gate = asyncio.Event()

    async def accept(delivery: Delivery) -> None:
        await gate.wait()
        await delivery.acknowledge()

    harness = await connect(accept=accept)
    for number in range(20):
        await harness.peer.push(vectors.robot(number))
    await until(lambda: len(harness.delivered) == 20)
    harness.dingtalk.pongs = False
    await harness.clock.advance(13)
    gate.set()
    await harness.peer.ack()
    await harness.clock.advance(1)
    assert (await harness.end()).kind is Reason.PONGS_MISSED


async def test_peer_that_does_not_read(connect: Connect) -> None:
    """A peer that reads nothing cannot hang our ping: the session ends all the same."""
    harness = await connect(clock=Clock(), heartbeat=0.1)
    transport = harness.peer.request.transport
    assert isinstance(transport, asyncio.Transport)
    transport.pause_reading()
    client = harness.session._transport
    assert client is not None
    client.set_write_buffer_limits(high=0)
    client.write(b"\x89\x80aaaa" * 5_000_000)
    assert (await harness.end()).kind is Reason.PONGS_MISSED


@pytest.mark.parametrize("seconds", [31.0, -31.0, 36_000.0])
async def test_clock_jump(connect: Connect, seconds: float) -> None:
    """A machine that slept has lost its connections: the session ends at once, without asking by ping."""
    harness = await connect()
    await harness.clock.advance(2)
    harness.clock.jump(seconds)
    await harness.clock.advance(1)
    assert (await harness.end()).kind is Reason.CLOCK_JUMP


async def test_stopped_process(connect: Connect) -> None:
    """A process that was stopped for more than 30 s sees the monotonic clock run ahead, and ends the session."""
    harness = await connect()
    harness.clock._now += 40
    await harness.clock.advance(1)
    assert (await harness.end()).kind is Reason.CLOCK_JUMP


async def test_small_clock_step_is_no_jump(connect: Connect) -> None:
    """A clock that is set right by a few seconds changes nothing."""
    harness = await connect()
    for step in (5, -5, 25, -25):
        harness.clock.jump(step)
        await harness.clock.advance(2)
    assert not harness.running.done()


# --- hostile peers -----------------------------------------------------------------------------------------------


async def test_thousands_of_hostile_frames(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """After thousands of broken frames a good one is delivered; the log holds a handful of lines, and no content."""
    harness = await connect()
    draw = random.Random(11)
    good = vectors.robot(1, "private words")
    caplog.set_level(logging.INFO, "claw")
    for number in range(3_000):
        match number % 4:
            case 0:
                await harness.peer.push(good[: draw.randrange(len(good))])
            case 1:
                at = draw.randrange(len(good))
                await harness.peer.push(good[:at] + draw.choice('"{}[]\\\0') + good[at + 5 :])
            case 2:
                await harness.peer.socket.send_bytes(draw.randbytes(30))
            case _:
                await harness.peer.push("[" * 3_000)
    await harness.peer.push(vectors.robot(2))
    await until(lambda: "msg-2" in harness.delivered)
    assert harness.session.counters.refused > 2_000
    harnesses = [record for record in caplog.records if record.message == "frame refused"]
    assert len(harnesses) < 20
    assert "private words" not in caplog.text


async def test_flood_leaves_the_loop_to_others(connect: Connect) -> None:
    """However many frames have arrived, everything else gets its turns; a good one behind them is acked."""
    harness = await connect(clock=Clock())
    frames = harness.session.counters
    seen = [0]

    async def watch() -> None:
        while True:
            await asyncio.sleep(0)
            seen.append(frames.frames)

    watching = asyncio.create_task(watch())
    transport = harness.peer.request.transport
    assert isinstance(transport, asyncio.Transport)
    transport.write(b"\x81\x01x" * 100_000)
    await harness.peer.push(vectors.robot(1))
    assert (await harness.peer.ack())["headers"]["messageId"] == "push-1"
    watching.cancel()
    assert frames.refused == 100_000
    assert max(later - before for before, later in itertools.pairwise(seen)) < 10_000


@pytest.mark.parametrize("is_data", [False, True])
async def test_frame_of_many_objects(connect: Connect, is_data: bool) -> None:
    """JSON that would take many times its own length is not taken apart, neither the envelope nor its data."""
    many = "[" + "[]," * 300_000 + "1]"
    harness = await connect()
    await harness.peer.push(vectors.frame(many) if is_data else many)
    await harness.peer.push(vectors.PING)
    assert (await harness.peer.ack())["headers"]["messageId"] == json.loads(vectors.PING)["headers"]["messageId"]
    assert (harness.session.counters.refused, harness.delivered) == (1, [])


async def test_fault_of_ours_in_one_frame(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a fault in our own reading of a frame ends that frame only."""

    def broken(*_: object) -> None:
        raise RuntimeError("ours")

    harness = await connect()
    with monkeypatch.context() as patched:
        patched.setattr(module, "to_inbound", broken)
        await harness.peer.push(vectors.robot(1))
        await harness.peer.push(vectors.PING)
        await harness.peer.ack()
    await harness.peer.push(vectors.robot(2))
    assert (await harness.peer.ack())["headers"]["messageId"] == "push-2"


# --- opening -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 503])
async def test_refused_upgrade(status: int) -> None:
    """A refused upgrade raises HandshakeError with its status."""
    async with DingTalk() as dingtalk, aiohttp.ClientSession() as http:
        dingtalk.upgrade = status
        registration = Registration(Secret(f"{dingtalk.endpoint}?ticket=t"), "127.0.0.1", "c")
        with pytest.raises(HandshakeError) as caught:
            await open_session(http, registration, quiet())
        assert caught.value.status == status
        assert caught.value.retryable


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_of_the_upgrade(status: int) -> None:
    """A redirect is told with the host that it names, and nobody calls there: the ticket was for one address."""
    async with DingTalk() as other, DingTalk() as dingtalk, aiohttp.ClientSession() as http:
        dingtalk.upgrade = status
        dingtalk.location = f"http://localhost:{other.port}/connect?ticket=t"
        registration = Registration(Secret(f"{dingtalk.endpoint}?ticket=t"), "127.0.0.1", "c")
        with pytest.raises(HandshakeError, match="redirect to localhost") as caught:
            await open_session(http, registration, quiet())
        assert (caught.value.status, caught.value.retryable) == (status, True)
        assert "ticket" not in str(caught.value)
        assert other.peers == []
        assert http.connector is not None
        assert not http.connector._acquired


@pytest.mark.parametrize("location", ["", "http://[", "//"])
async def test_redirect_to_nowhere(location: str) -> None:
    """A redirect whose address is none is told as well."""
    async with DingTalk() as dingtalk, aiohttp.ClientSession() as http:
        dingtalk.upgrade, dingtalk.location = 302, location
        registration = Registration(Secret(f"{dingtalk.endpoint}?ticket=t"), "127.0.0.1", "c")
        with pytest.raises(HandshakeError, match="redirect to"):
            await open_session(http, registration, quiet())


async def test_upgrade_that_never_comes() -> None:
    """An endpoint that accepts and stays silent costs the timeout."""
    async with nothing_left():
        asked = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.set()
            while await reader.read(1024):
                pass
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with aiohttp.ClientSession() as http:
            registration = Registration(Secret(f"ws://127.0.0.1:{port}/?ticket=t"), "127.0.0.1", "c")
            with pytest.raises(HandshakeError, match="in time"):
                await open_session(http, registration, quiet(handshake_timeout=0.2))
        assert asked.is_set()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("url", ["ws://127.0.0.1:1/x?ticket=t", "ws://a..b/x?ticket=t", "wss://127.0.0.1:1/?ticket=t"])
async def test_endpoint_out_of_reach(url: str) -> None:
    """Nobody there, or an address that cannot be: HandshakeError, which never shows the ticket."""
    async with aiohttp.ClientSession() as http:
        with pytest.raises(HandshakeError, match="cannot be reached") as caught:
            await open_session(http, Registration(Secret(url), "h", "c"), quiet())
        assert "ticket" not in str(caught.value)


async def test_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTPS_PROXY holds for a wss endpoint, and NO_PROXY exempts from it."""
    asked: list[str] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readline()).decode().strip())
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
    registration = Registration(Secret("wss://dingtalk.invalid:443/connect?ticket=t"), "dingtalk.invalid", "c")
    async with aiohttp.ClientSession() as http:
        with pytest.raises(HandshakeError):
            await open_session(http, registration, quiet())
        assert asked == ["CONNECT dingtalk.invalid:443 HTTP/1.1"]
        monkeypatch.setenv("NO_PROXY", "dingtalk.invalid")
        forget()
        with pytest.raises(HandshakeError):
            await open_session(http, registration, quiet())
    assert len(asked) == 1
    server.close()
    await server.wait_closed()


async def test_session_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames and acks go through a proxy as they do without one."""
    async with DingTalk() as dingtalk:
        requests: list[str] = []

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            requests.append(head.split(b"\r\n")[0].decode())
            onward, back = await asyncio.open_connection("127.0.0.1", int(dingtalk.url.rsplit(":", 1)[1]))
            back.write(head)
            pumps = [asyncio.create_task(_pump(reader, back)), asyncio.create_task(_pump(onward, writer))]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            writer.close()
            back.close()

        server = await asyncio.start_server(forward, "127.0.0.1", 0)
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        for name in ("no_proxy", "NO_PROXY", "http_proxy"):
            monkeypatch.delenv(name, raising=False)
        async with aiohttp.ClientSession() as http:
            registration = Registration(Secret("ws://dingtalk.invalid/connect?ticket=t"), "dingtalk.invalid", "c")
            session = await open_session(http, registration, quiet())
            running = asyncio.create_task(session.run())
            peer = await dingtalk.peer()
            await peer.push(vectors.PING)
            await peer.ack()
            await session.close()
            await running
        assert requests == ["GET http://dingtalk.invalid/connect?ticket=t HTTP/1.1"]
        server.close()
        await server.wait_closed()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
