"""The emulator's gateway keeps to docs/protocol.md section 1 to 4, seen from a client's side."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import aiohttp
import pytest

from claw.emulator import Emulator

from .client import CREDENTIALS, JSON, SUBSCRIPTIONS, FakeRobot, until
from .conftest import Connect

OPEN = "/v1.0/gateway/connections/open"


async def test_ticket_is_a_version_1_uuid_and_the_connection_id(emu: Emulator, robot: FakeRobot) -> None:
    """A ticket is a version-1 UUID, and later frames carry it as their connectionId."""
    await emu.say("hello")
    ticket = (await robot.frame())["headers"]["connectionId"]
    assert uuid.UUID(ticket).version == 1


async def test_ticket_opens_one_connection_only(emu: Emulator, http: aiohttp.ClientSession) -> None:
    """The second use of a ticket is refused with 401 during the upgrade."""
    ticket = await FakeRobot(emu, http).register()
    url = f"{ticket['endpoint']}?ticket={ticket['ticket']}"
    async with http.ws_connect(url):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(url)
    assert refused.value.status == 401


async def test_expired_ticket_is_refused(
    emu: Emulator, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ticket that was not used within its life opens nothing."""
    monkeypatch.setattr("claw.emulator.tickets.TICKET_LIFETIME_S", 0.0)
    ticket = await FakeRobot(emu, http).register()
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await http.ws_connect(f"{ticket['endpoint']}?ticket={ticket['ticket']}")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"clientSecret": "wrong"}, 401),
        ({"clientId": "dingother"}, 401),
        ({"clientId": ""}, 401),
        ({"subscriptions": []}, 400),
        ({"subscriptions": [{"type": "EVENT", "topic": "x"}]}, 400),
        ({"subscriptions": [{"type": "NONSENSE", "topic": "*"}]}, 400),
        ({"subscriptions": "all"}, 400),
    ],
)
async def test_bad_registration(
    emu: Emulator, http: aiohttp.ClientSession, change: dict[str, Any], status: int
) -> None:
    """Wrong credentials get 401 authFailed, a wrong request 400, both with a lower-case requestid."""
    body = CREDENTIALS | {"subscriptions": SUBSCRIPTIONS} | change
    async with http.post(emu.url + OPEN, json=body, headers=JSON) as answer:
        assert answer.status == status
        error = await answer.json()
    assert set(error) == {"requestid", "code", "message"}
    assert error["code"] == ("authFailed" if status == 401 else "invalidParameter")


async def test_answer_is_xml_unless_json_is_accepted(emu: Emulator, http: aiohttp.ClientSession) -> None:
    """Without `Accept: application/json` the gateway answers XML."""
    async with http.post(emu.url + OPEN, json=CREDENTIALS | {"subscriptions": SUBSCRIPTIONS}) as answer:
        assert answer.content_type == "application/xml"


async def test_no_credentials_configured_accepts_any(http: aiohttp.ClientSession) -> None:
    """An emulator without credentials takes the first client's id as the robot's code."""
    async with Emulator(client_id=None, client_secret=None) as emulator:
        await FakeRobot(emulator, http).register(clientId="dingmine", clientSecret="x")
        assert emulator.robot_code == "dingmine"


async def test_wrong_secret_adopts_nothing(http: aiohttp.ClientSession) -> None:
    """An emulator that knows only the secret refuses another one, and takes no id from whoever sent it."""
    async with Emulator(client_id=None, client_secret="right") as emulator:
        with pytest.raises(aiohttp.ClientResponseError) as refused:
            await FakeRobot(emulator, http).register(clientId="dingother", clientSecret="wrong")
        assert refused.value.status == 401
        await FakeRobot(emulator, http).register(clientId="dingmine", clientSecret="right")
        assert (emulator.client_id, emulator.robot_code) == ("dingmine", "dingmine")


async def test_system_ping_soon_after_the_upgrade(emu: Emulator, robot: FakeRobot) -> None:
    """The first SYSTEM ping comes right after the upgrade; its echo is no violation."""
    frame = await robot.system_frame("ping")
    assert set(json.loads(frame["data"])) == {"opaque"}
    assert isinstance(frame["headers"]["time"], str)
    assert not emu.violations


async def test_websocket_ping_is_answered(robot: FakeRobot) -> None:
    """A client's WebSocket ping gets its pong with the same payload."""
    assert robot.ws is not None
    await robot.ws.ping(b"42")
    assert await asyncio.wait_for(robot.system.get(), 10) == {"pong": b"42"}


async def test_each_push_goes_to_one_connection_at_random(emu: Emulator, connect: Connect) -> None:
    """Of several connections each push reaches exactly one, and all get their share."""
    robots = [await connect() for _ in range(3)]
    said = [await emu.say(f"{n}") for n in range(60)]
    await asyncio.wait_for(asyncio.gather(*(each.push.acked.wait() for each in said if each.push)), 10)
    assert sum(robot.frames.qsize() for robot in robots) == 60
    assert all(robot.frames.qsize() for robot in robots)


async def test_only_subscribers_are_pushed_to(emu: Emulator, http: aiohttp.ClientSession) -> None:
    """A connection that did not subscribe to robot messages gets none."""
    ticket = await FakeRobot(emu, http).register(subscriptions=[{"type": "EVENT", "topic": "*"}])
    async with http.ws_connect(f"{ticket['endpoint']}?ticket={ticket['ticket']}"):
        await emu.wait_connections()
        assert not (await emu.say("hello")).delivered
    assert len(emu.undeliverable) == 1


async def test_without_connection_a_message_is_lost(emu: Emulator, connect: Connect) -> None:
    """A message sent while no connection is up is not kept for later."""
    emu.faults.repush_after = 0.05
    said = await emu.say("anybody?")
    late = await connect()
    assert not said.delivered
    assert list(emu.undeliverable) == [said.push]
    await emu.say("now")
    assert (await late.message())["text"]["content"] == "now"


async def test_unacked_message_is_pushed_once_more(emu: Emulator, connect: Connect) -> None:
    """An unacked robot message comes again once: new messageId, identical data."""
    emu.faults.repush_after = 0.1
    robot = await connect(acks=False)
    said = await emu.say("again")
    first, second = await robot.frame(), await robot.frame()
    assert first["headers"]["messageId"] != second["headers"]["messageId"]
    assert first["data"] == second["data"]
    await robot.ack(second)
    assert said.push is not None
    await asyncio.wait_for(said.push.acked.wait(), 10)
    assert said.push.repushed == 1
    assert robot.frames.empty()


@pytest.mark.parametrize("times", [0, 2])
async def test_number_of_repeats(emu: Emulator, connect: Connect, times: int) -> None:
    """An unacked message is repeated as often as the switch says."""
    emu.faults.update({"repush_after": 0.05, "repush_times": times})
    robot = await connect(acks=False)
    said = await emu.say("again")
    frames = [await robot.frame() for _ in range(times + 1)]
    await asyncio.sleep(0.3)
    assert robot.frames.empty()
    assert said.push is not None
    assert said.push.connections_tried == ["c1"] * len(frames)


async def test_acked_message_is_not_repeated(emu: Emulator, robot: FakeRobot) -> None:
    """An ack stops the re-push."""
    emu.faults.repush_after = 0.1
    said = await emu.say("once")
    await robot.frame()
    await asyncio.sleep(0.3)
    assert said.push is not None
    assert (said.push.repushed, robot.frames.qsize()) == (0, 0)


async def test_repush_reaches_another_connection(emu: Emulator, connect: Connect) -> None:
    """A push whose connection died is repeated on one that lives."""
    emu.faults.repush_after = 0.2
    dead = await connect(acks=False)
    said = await emu.say("survive")
    await dead.frame()
    await dead.close()
    heir = await connect()
    assert (await heir.message())["msgId"] == said.msg_id


async def test_event_is_repeated_twice(emu: Emulator, connect: Connect) -> None:
    """An unacked event is repeated twice under the same eventId, an answer LATER counts as none."""
    emu.faults.update({"event_deadline": 0.05, "event_first_retry": 0.05, "event_second_retry": 0.05})
    robot = await connect(acks=False)
    emu.act("event")
    first = await robot.frame()
    await robot.ack(first, json.dumps({"status": "LATER"}))
    frames = [first, await robot.frame(), await robot.frame()]
    assert len({frame["headers"]["eventId"] for frame in frames}) == 1
    assert len({frame["headers"]["messageId"] for frame in frames}) == 3
    await robot.ack(frames[2], json.dumps({"status": "SUCCESS"}))
    push = emu.pushes[-1]
    await asyncio.wait_for(push.acked.wait(), 10)
    assert push.repushed == 2


async def test_disconnect_stops_pushes_but_takes_acks(emu: Emulator, connect: Connect) -> None:
    """After `disconnect` nothing new is pushed, an ack still counts, and then the TCP ends without a close frame."""
    old = await connect(acks=False)
    said = await emu.say("in flight")
    frame = await old.frame()
    emu.act("disconnect", close_after=0.5)
    await old.system_frame("disconnect")
    new = await connect()
    await emu.say("for the new one")
    await new.frame()
    await old.ack(frame)
    assert said.push is not None
    await asyncio.wait_for(said.push.acked.wait(), 10)
    await asyncio.wait_for(old.ended.wait(), 10)
    assert old.ws is not None
    assert old.ws.close_code == 1006
    assert old.frames.empty()
    assert not emu.violations


async def test_time_to_live_ends_a_connection(emu: Emulator, robot: FakeRobot) -> None:
    """When its time to live is over a connection gets `disconnect`."""
    emu.faults.update({"connection_ttl": 0.1, "disconnect_close_after": 0.1})
    frame = await robot.system_frame("disconnect")
    assert set(frame["headers"]) == {"contentType", "messageId", "time", "topic"}
    await asyncio.wait_for(robot.ended.wait(), 10)


async def test_ack_on_the_wrong_socket_is_a_violation(emu: Emulator, connect: Connect) -> None:
    """An ack has to arrive on the connection that its frame came from."""
    first, second = await connect(acks=False), await connect(acks=False)
    await emu.say("whose?")
    taker = first if await _has_frame(first) else second
    other = second if taker is first else first
    await other.ack(await taker.frame())
    await until(lambda: emu.acks and emu.acks[-1].push is emu.pushes[-1])
    assert emu.acks[-1].wrong_socket
    assert "arrived on" in emu.violations[-1].what


async def test_second_ack_and_unknown_ack_are_violations(emu: Emulator, connect: Connect) -> None:
    """A frame takes one ack; an ack for a messageId that was never sent is noticed."""
    robot = await connect(acks=False)
    await emu.say("hello")
    frame = await robot.frame()
    await robot.ack(frame)
    await robot.ack(frame)
    await robot.ack({"headers": {"messageId": "invented"}})
    await until(lambda: len(emu.violations) == 2)
    assert emu.acks[-2].duplicate
    assert emu.acks[-1].push is None


@pytest.mark.parametrize("raw", ["{not json", "[]", '{"code":200}', '{"code":"200","headers":{"messageId":"x"}}'])
async def test_malformed_ack_is_a_violation(emu: Emulator, robot: FakeRobot, raw: str) -> None:
    """What a client sends must be a JSON object with an integer code and headers."""
    assert robot.ws is not None
    await robot.ws.send_str(raw)
    await until(lambda: emu.violations)


async def test_frozen_connection_answers_nothing(emu: Emulator, robot: FakeRobot) -> None:
    """A frozen connection neither pongs nor delivers nor reads; thawed, it goes on where it was."""
    await robot.system_frame("ping")
    emu.act("freeze")
    assert robot.ws is not None
    await robot.ws.ping(b"anybody")
    said = await emu.say("into the void")
    await asyncio.sleep(0.3)
    assert (robot.system.empty(), robot.frames.empty()) == (True, True)
    assert not robot.ended.is_set()
    emu.act("thaw")
    assert (await robot.message())["msgId"] == said.msg_id
    assert await asyncio.wait_for(robot.system.get(), 10) == {"pong": b"anybody"}


async def test_reset_and_close_differ(emu: Emulator, connect: Connect) -> None:
    """`close` ends with a close frame 1000, `reset` with the TCP connection gone."""
    polite = await connect()
    emu.act("close")
    await asyncio.wait_for(polite.ended.wait(), 10)
    assert polite.ws is not None
    assert polite.ws.close_code == 1000
    rude = await connect()
    emu.act("reset")
    await asyncio.wait_for(rude.ended.wait(), 10)
    assert rude.ws is not None
    assert rude.ws.close_code == 1006


async def test_bad_frames_leave_the_connection_open(emu: Emulator, robot: FakeRobot) -> None:
    """Every kind of bad frame is sent, and the connection still delivers afterwards."""
    kinds = emu.act("bad_frames")["kinds"]
    said = await emu.say("still here?")
    while (await robot.frame())["data"] != (said.push and said.push.data):
        pass
    assert "large" in kinds
    assert any(isinstance(each, bytes) for each in robot.odd)


async def test_stop_and_start_on_the_same_port(http: aiohttp.ClientSession) -> None:
    """After stop no task is left and clients see the end; start listens on the same port and knows old sessions."""
    before = asyncio.all_tasks()
    emulator = Emulator()
    await emulator.start()
    robot = await FakeRobot(emulator, http).connect()
    await emulator.wait_connections()
    await emulator.say("hello")
    message = await robot.message()
    url = emulator.url
    await emulator.stop()
    await asyncio.wait_for(robot.ended.wait(), 10)
    await robot.close()
    assert asyncio.all_tasks() == before
    with pytest.raises(aiohttp.ClientConnectorError):
        await http.get(url)
    await emulator.start()
    assert emulator.url == url
    assert (await robot.reply(message, "late"))["errcode"] == 0
    await emulator.stop()


async def _has_frame(robot: FakeRobot) -> bool:
    await asyncio.sleep(0.2)
    return not robot.frames.empty()


async def test_outage_forgets_no_message(http: aiohttp.ClientSession) -> None:
    """What was unacked when the emulator stopped is pushed again when it is back and somebody is connected."""
    emulator = Emulator(seed=1)
    await emulator.start()
    robot = await FakeRobot(emulator, http, acks=False).connect()
    await emulator.wait_connections()
    said = await emulator.say("remember me")
    await robot.frame()
    await emulator.stop()
    await robot.close()
    await emulator.start()
    late = await FakeRobot(emulator, http).connect()
    await emulator.wait_connections()
    assert said.push is not None
    said.push.due = 0.0
    emulator.gateway.resume()
    assert (await late.message())["msgId"] == said.msg_id
    await late.close()
    await emulator.stop()


async def test_stop_ends_frozen_connections(http: aiohttp.ClientSession) -> None:
    """Neither a frozen connection nor a hanging request holds the emulator up when it stops."""
    emulator = Emulator()
    await emulator.start()
    robot = await FakeRobot(emulator, http).connect()
    await emulator.wait_connections()
    emulator.act("freeze")
    await emulator.say("x" * 100_000)
    emulator.faults.gateway_hang = True
    hanging = asyncio.create_task(FakeRobot(emulator, http).register())
    await until(lambda: emulator.gateway.tickets.in_flight)
    async with asyncio.timeout(10):
        await emulator.stop()
    with pytest.raises(aiohttp.ClientError):
        await hanging
    await robot.close()
