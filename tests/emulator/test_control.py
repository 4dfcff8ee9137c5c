"""The emulator's own API under `/_/`: strict about what it is told, and closed to other sites."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

import aiohttp
import pytest

from claw.emulator import Emulator, FaultError, Faults

from .client import CREDENTIALS, JSON, SUBSCRIPTIONS, FakeRobot
from .conftest import Connect


async def post(http: aiohttp.ClientSession, emu: Emulator, path: str, body: Any) -> tuple[int, dict[str, Any]]:
    async with http.post(f"{emu.url}/_/{path}", json=body) as answer:
        return answer.status, await answer.json()


async def get(http: aiohttp.ClientSession, emu: Emulator, path: str) -> Any:
    async with http.get(f"{emu.url}/_/{path}") as answer:
        return await answer.json()


async def test_say_over_http(emu: Emulator, http: aiohttp.ClientSession, robot: FakeRobot) -> None:
    """What is said over HTTP reaches the robot and the chat's messages."""
    status, said = await post(http, emu, "say", {"from": "u-1003", "chat": "g-ops", "text": "hi"})
    assert (status, said["delivered"]) == (200, True)
    message = await robot.message()
    assert (message["msgId"], message["senderNick"]) == (said["msgId"], "Ann")
    await robot.reply(message, "hello Ann")
    messages = await get(http, emu, "chats/g-ops/messages")
    assert [(each["nick"], each["text"]) for each in messages] == [("Ann", "hi"), ("claw", "hello Ann")]


@pytest.mark.parametrize(
    ("path", "body", "status", "named"),
    [
        ("say", {"text": 5}, 400, "text"),
        ("say", {"txt": "x"}, 400, "txt"),
        ("say", {"at_robot": "yes"}, 400, "at_robot"),
        ("say", [], 400, "object"),
        ("say", {"from": "nobody"}, 404, "nobody"),
        ("say", {"chat": "nowhere"}, 404, "nowhere"),
        ("faults", {"no_such": 1}, 400, "no_such"),
        ("faults", {"webhook_status": "500"}, 400, "webhook_status"),
        ("faults", {"webhook_status": 999}, 400, "webhook_status"),
        ("faults", {"drop_frames": 2}, 400, "drop_frames"),
        ("faults", {"gateway_hang": 1}, 400, "gateway_hang"),
        ("faults", {"gateway_delay": float("nan")}, 400, "gateway_delay"),
        ("faults", {"fault_budget": {"no_such": 1}}, 400, "no_such"),
        ("faults", {"fault_budget": {"gateway_hang": 0}}, 400, "gateway_hang"),
        ("actions/no_such", {}, 400, "no_such"),
        ("actions/reset", {"connection": "c99"}, 400, "c99"),
        ("actions/reset", {"nonsense": 1}, 400, "nonsense"),
        ("actions/disconnect", {"close_after": -1}, 400, "close_after"),
        ("actions/card_click", {}, 400, "card"),
        ("people", {"nick": "no id"}, 400, "id"),
        ("groups", {"id": "a/b"}, 400, "id"),
    ],
)
async def test_bad_calls_are_refused_by_name(
    emu: Emulator, http: aiohttp.ClientSession, path: str, body: Any, status: int, named: str
) -> None:
    """A wrong call changes nothing and its error names what is wrong."""
    found, answer = await post(http, emu, path, body)
    assert found == status
    assert named in answer["error"]
    assert emu.faults.active() == {}


async def test_faults_over_http(emu: Emulator, http: aiohttp.ClientSession) -> None:
    """Switches are set partially, listed with their texts in both languages, and reset."""
    await post(http, emu, "faults", {"gateway_status": 503, "disconnect_close_after": None})
    described = await get(http, emu, "faults")
    assert described["faults"]["gateway_status"] == 503
    assert all(each["zh"] and each["en"] and each["group"] for each in described["switches"])
    assert emu.faults.active() == {"gateway_status": 503, "disconnect_close_after": None}
    async with http.delete(f"{emu.url}/_/faults"):
        assert emu.faults.active() == {}


def test_faults_are_checked_as_attributes() -> None:
    """A misspelt fault and a value of the wrong type fail where they are set; a number of seconds may be whole."""
    faults = Faults()
    for name, value in (("gatway_hang", True), ("gateway_hang", 1), ("repush_times", True), ("drop_frames", 2)):
        with pytest.raises(FaultError, match=name):
            setattr(faults, name, value)
    assert faults.active() == {}
    faults.repush_after = 5
    assert faults.active() == {"repush_after": 5.0}


@pytest.mark.parametrize(
    ("faults", "status"),
    [
        ({"gateway_status": 401}, 401),
        ({"gateway_status": 403}, 403),
        ({"gateway_status": 429, "gateway_retry_after": 3}, 429),
        ({"gateway_status": 503}, 503),
        ({"gateway_html": True}, 502),
    ],
)
async def test_gateway_faults(emu: Emulator, http: aiohttp.ClientSession, faults: dict[str, Any], status: int) -> None:
    """The gateway fails in the way that its switch says, once per use of the budget."""
    emu.faults.update(faults | {"fault_budget": {next(iter(faults)): 1}})
    body = CREDENTIALS | {"subscriptions": SUBSCRIPTIONS}
    url = f"{emu.url}/v1.0/gateway/connections/open"
    async with http.post(url, json=body, headers=JSON) as answer:
        assert answer.status == status
        assert answer.headers.get("Retry-After") == ("3" if status == 429 else None)
    async with http.post(url, json=body, headers=JSON) as answer:
        assert answer.status == 200


async def test_upgrade_faults(emu: Emulator, http: aiohttp.ClientSession) -> None:
    """The upgrade can be refused, cut, left hanging or led to nowhere, and connections are limited."""
    robot = FakeRobot(emu, http)

    async def upgrade(timeout: float = 10) -> aiohttp.ClientWebSocketResponse:
        ticket = await robot.register()
        async with asyncio.timeout(timeout):
            return await http.ws_connect(f"{ticket['endpoint']}?ticket={ticket['ticket']}")

    emu.faults.refuse_upgrade = 503
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await upgrade()
    emu.faults.reset()
    emu.faults.connection_limit = 0
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await upgrade()
    emu.faults.reset()
    emu.faults.gateway_wrong_endpoint = True
    with pytest.raises(aiohttp.ClientConnectorError):
        await upgrade()
    emu.faults.reset()
    emu.faults.hang_upgrade = True
    with pytest.raises(TimeoutError):
        await upgrade(0.3)
    emu.faults.reset()
    for ending, code in (("clean", 1000), ("reset", 1006)):
        emu.faults.close_after_accept = ending
        ws = await upgrade()
        await ws.receive()
        assert ws.close_code == code


async def test_push_faults(emu: Emulator, connect: Connect) -> None:
    """Frames can be lost, doubled, reordered and misspelled."""
    robot = await connect()
    emu.faults.duplicate_frames = True
    await emu.say("twice")
    first, second = await robot.frame(), await robot.frame()
    assert first["headers"]["messageId"] == second["headers"]["messageId"]
    assert not emu.violations
    emu.faults.reset()
    emu.faults.reorder_frames = True
    said = [await emu.say("one"), await emu.say("two")]
    assert [(await robot.message())["msgId"] for _ in said] == [said[1].msg_id, said[0].msg_id]
    emu.faults.reset()
    emu.faults.update({"header_spelled_header": True, "numeric_time": True})
    await emu.say("odd")
    assert isinstance((await robot.frame())["header"]["time"], int)
    emu.faults.reset()
    emu.faults.update({"zombie": True, "fault_budget": {"zombie": 1}})
    lost = await emu.say("lost")
    found = await emu.say("found")
    assert (await robot.message())["msgId"] == found.msg_id
    assert lost.push is not None
    assert not lost.push.acked.is_set()


async def test_never_pong(emu: Emulator, robot: FakeRobot) -> None:
    """With this switch pings stay unanswered while messages still flow."""
    emu.faults.never_pong = True
    await robot.system_frame("ping")
    assert robot.ws is not None
    await robot.ws.ping(b"x")
    await emu.say("hello")
    await robot.frame()
    assert robot.system.empty()


async def test_frozen_and_noticed(emu: Emulator, robot: FakeRobot) -> None:
    """A frozen connection that the server notices is dropped; one that is not routed gets no share."""
    emu.act("freeze", routed=False, notice_after=0.3)
    assert not (await emu.say("hello")).delivered
    await asyncio.wait_for(robot.ended.wait(), 10)
    assert not emu.connections


async def test_state_masks_secrets(emu: Emulator, http: aiohttp.ClientSession, robot: FakeRobot) -> None:
    """The state shows frames of both directions without session or ticket."""
    await emu.say("hello")
    message = await robot.message()
    frames = (await robot.system_frame("ping"))["headers"]
    text = json.dumps(await get(http, emu, "state"))
    assert "sendBySession?session=" in text
    assert message["sessionWebhook"].rpartition("=")[2] not in text
    assert frames["connectionId"] not in text
    state = json.loads(text)
    assert {each["direction"] for each in state["frames"]} == {"in", "out"}
    assert state["connections"][0]["state"] == "open"
    assert state["pushes"]["last"][0]["acked"] is True


async def test_people_groups_and_files(emu: Emulator, http: aiohttp.ClientSession, robot: FakeRobot) -> None:
    """People, groups and files can be added, and used at once."""
    await post(http, emu, "people", {"id": "u-9", "nick": "小新", "external": True})
    await post(http, emu, "groups", {"id": "g-new", "title": "新群"})
    async with http.post(f"{emu.url}/_/files?name=a.png", data=b"png", headers={"Content-Type": "image/png"}) as answer:
        code = (await answer.json())["downloadCode"]
    content = {"downloadCode": code, "pictureDownloadCode": code}
    await post(http, emu, "say", {"from": "u-9", "chat": "g-new", "msgtype": "picture", "content": content})
    message = await robot.message()
    assert (message["conversationTitle"], message["content"]["downloadCode"]) == ("新群", code)


async def test_events_tell_what_happens(emu: Emulator, http: aiohttp.ClientSession, robot: FakeRobot) -> None:
    """The event stream tells of messages, frames and switches as they happen."""
    async with http.get(f"{emu.url}/_/events") as stream:
        await stream.content.readuntil(b"connected\n\n")
        await emu.say("hello")
        await post(http, emu, "faults", {"zombie": True})
        kinds: set[str] = set()
        async with asyncio.timeout(10):
            while not {"message", "frame", "faults"} <= kinds:
                line = await stream.content.readline()
                if line.startswith(b"data: "):
                    kinds.add(json.loads(line[6:])["type"])


async def test_reset_keeps_connections(emu: Emulator, http: aiohttp.ClientSession, robot: FakeRobot) -> None:
    """Reset empties chats, logs and switches; connections live on."""
    await emu.say("hello")
    await robot.frame()
    emu.faults.numeric_time = True
    await post(http, emu, "reset", {})
    assert not emu.pushes
    assert emu.faults.active() == {}
    assert await get(http, emu, "chats/direct:u-1001/messages") == []
    await emu.say("again")
    assert (await robot.message())["text"]["content"] == "again"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:8765"},
    ],
)
async def test_other_sites_are_kept_out(emu: Emulator, http: aiohttp.ClientSession, headers: dict[str, str]) -> None:
    """A foreign Origin and, against DNS rebinding, a foreign Host get 403 from the page and the control API."""
    for path in ("/_/say", "/_/faults"):
        async with http.post(emu.url + path, json={}, headers=headers) as answer:
            assert answer.status == 403
    async with http.get(f"{emu.url}/_/state", headers=headers) as answer:
        assert answer.status == 403


async def test_page_files_stay_inside(emu: Emulator, http: aiohttp.ClientSession) -> None:
    """Only the page's own files are served, with a policy that allows nothing foreign."""
    async with http.get(emu.url) as answer:
        assert answer.status == 200
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    for name in ("..%2f__init__.py", "nothing.js", "%2e%2e%2ffaults.py"):
        async with http.get(f"{emu.url}/page/{name}") as answer:
            assert answer.status == 404


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_standalone(number: signal.Signals) -> None:
    """`python -m claw.emulator` prints its URL, serves, and ends with 0 when it is asked to."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "claw.emulator", "--port", "0", stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    assert process.stdout is not None
    url = (await asyncio.wait_for(process.stdout.readline(), 30)).decode().strip()
    async with aiohttp.ClientSession() as http, http.get(f"{url}/_/state") as answer:
        assert answer.status == 200
    process.send_signal(number)
    assert await asyncio.wait_for(process.wait(), 10) == 0
