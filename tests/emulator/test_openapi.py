"""Tokens, robot sends, cards, files and reactions of the emulator, by docs/protocol.md section 6 and 7."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from claw.emulator import CARD_TOPIC, Emulator

from .calls import CREATE, GROUP_SEND, SEND, STREAMING, card, single, stream
from .client import FakeRobot, until


async def test_token_keeps_its_value(emu: Emulator, robot: FakeRobot, http: aiohttp.ClientSession) -> None:
    """All three token calls give the same value while it is valid."""
    token = await robot.token()
    corp = {"client_id": "dingfakeclient", "client_secret": "not-a-real-secret", "grant_type": "client_credentials"}
    new = await robot.post_json(f"{emu.url}/v1.0/oauth2/dingfakecorp/token", corp)
    async with http.get(f"{emu.url}/gettoken?appkey=dingfakeclient&appsecret=not-a-real-secret") as answer:
        old = await answer.json()
    assert new == {"access_token": token, "expires_in": 7200}
    assert old == {"errcode": 0, "errmsg": "ok", "access_token": token, "expires_in": 7200}
    emu.act("expire_tokens")
    assert await robot.token() != token


async def test_bad_credentials_for_a_token(emu: Emulator, http: aiohttp.ClientSession) -> None:
    """Wrong credentials get 400 invalidClientIdOrSecret."""
    body = {"appKey": "dingfakeclient", "appSecret": "wrong"}
    async with http.post(f"{emu.url}/v1.0/oauth2/accessToken", json=body) as answer:
        assert (answer.status, (await answer.json())["code"]) == (400, "invalidClientIdOrSecret")


async def test_call_without_valid_token(emu: Emulator, robot: FakeRobot) -> None:
    """Every OpenAPI call needs the token header; without a valid one it gets 401 InvalidAuthentication."""
    status, body = await robot.api("POST", SEND, single(), token="stale")
    assert (status, body["code"]) == (401, "InvalidAuthentication")
    assert emu.openapi.outcomes[f"POST {SEND} 401"] == 1


async def test_single_send(emu: Emulator, robot: FakeRobot) -> None:
    """A single send arrives in the direct chat; unknown users are listed, with HTTP 200."""
    status, body = await robot.api("POST", SEND, single(userIds=["u-1001", "nobody"]))
    assert (status, body["invalidStaffIdList"], body["flowControlledStaffIdList"]) == (200, ["nobody"], [])
    reply = await emu.wait_reply("direct:u-1001")
    assert (reply.via, reply.msgtype, reply.text) == ("openapi", "markdown", "**done**")


async def test_flow_controlled_user(emu: Emulator, robot: FakeRobot) -> None:
    """A throttled user is listed although the call succeeds, and gets nothing."""
    emu.faults.flow_controlled = True
    _, body = await robot.api("POST", SEND, single())
    assert body["flowControlledStaffIdList"] == ["u-1001"]
    assert not len(emu.replies)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"robotCode": ""}, "invalidParameter.robotCode.empty"),
        ({"robotCode": "other"}, "robot.oto.notExist"),
        ({"userIds": []}, "invalidParameter.userIds.empty"),
        ({"userIds": ["u"] * 21}, "invalidParameter.userIds.overMax"),
        ({"msgKey": "nonsense"}, "invalidParameter.msgKey.invalid"),
        ({"msgParam": {"title": "an object", "text": "not a string"}}, "invalidParameter.msgParam.invalid"),
        ({"msgParam": '{"text":"no title"}'}, "invalidParameter.msgParam.invalid"),
    ],
)
async def test_bad_single_send(robot: FakeRobot, change: dict[str, Any], code: str) -> None:
    """A wrong parameter gets 400 with the code that names it."""
    status, body = await robot.api("POST", SEND, single(**change))
    assert (status, body["code"]) == (400, code)


async def test_group_send_and_recall(emu: Emulator, robot: FakeRobot) -> None:
    """A group send needs the group's openConversationId, is bounded in bytes and can be recalled."""
    chat = emu.chats.chat("g-team")
    body = {key: value for key, value in single().items() if key != "userIds"}
    body |= {"openConversationId": chat.conversation_id}
    _, sent = await robot.api("POST", GROUP_SEND, body)
    long = json.dumps({"title": "x", "text": "x" * 15_000})
    assert (await robot.api("POST", GROUP_SEND, body | {"msgParam": long}))[1][
        "code"
    ] == "invalidParameter.msgParam.tooLong"
    wrong = await robot.api("POST", GROUP_SEND, body | {"openConversationId": "cidnone"})
    assert wrong[1]["code"] == "invalid.openConversationId"
    recall = {"robotCode": "dingfakeclient", "openConversationId": chat.conversation_id}
    keys = [sent["processQueryKey"], "unknown"]
    _, done = await robot.api("POST", "/v1.0/robot/groupMessages/recall", recall | {"processQueryKeys": keys})
    assert done["successResult"] == keys[:1]
    assert list(done["failedResult"]) == ["unknown"]
    assert chat.messages[-1].recalled


async def test_calls_a_second(http: aiohttp.ClientSession) -> None:
    """Above its calls a second an API answers 403 QpsLimit, which is not a missing permission."""
    async with Emulator(rate_limits=True) as emu:
        emu.faults.openapi_qps = 3
        robot = FakeRobot(emu, http)
        token = await robot.token()
        bodies = await asyncio.gather(*(robot.api("POST", SEND, single(), token=token) for _ in range(12)))
        refused = [body for status, body in bodies if status == 403]
        assert refused
        assert {body["code"] for body in refused} == {"Forbidden.AccessDenied.QpsLimitForAppkeyAndApi"}


async def test_month_quota(emu: Emulator, robot: FakeRobot) -> None:
    """Over the monthly quota every call gets 403 ApiCountLimitForOrg."""
    emu.faults.openapi_month_limit = 1
    answers = [await robot.api("POST", SEND, single()) for _ in range(2)]
    assert [status for status, _ in answers] == [200, 403]
    assert answers[1][1]["code"] == "Forbidden.AccessDenied.ApiCountLimitForOrg"


async def test_unknown_api(robot: FakeRobot) -> None:
    """A path that DingTalk does not have gets 404 with an OpenAPI error body."""
    status, body = await robot.api("POST", "/v1.0/no/such/api", {})
    assert (status, body["code"]) == (404, "InvalidAction.NotFound")


async def test_card_streams_to_its_end(emu: Emulator, robot: FakeRobot) -> None:
    """A card grows with every update and counts as said when it is finalized."""
    _, created = await robot.api("POST", CREATE, card())
    assert created["result"]["deliverResults"][0]["success"] is True
    waiting = asyncio.create_task(emu.wait_reply("direct:u-1001"))
    await robot.api("PUT", STREAMING, stream("## Part one"))
    assert emu.chats.chat("direct:u-1001").messages[-1].text == "## Part one"
    assert not waiting.done()
    await robot.api("PUT", STREAMING, stream("## Part one\n\nand two", isFinalize=True))
    reply = await waiting
    assert (reply.via, reply.text) == ("card", "## Part one\n\nand two")
    assert emu.cards.cards["trk-0001"].state == "finished"


async def test_card_is_idempotent(emu: Emulator, robot: FakeRobot) -> None:
    """A known outTrackId is not delivered twice and keeps its data; a known guid changes nothing."""
    await robot.api("POST", CREATE, card())
    await robot.api("PUT", STREAMING, stream("first", guid="g"))
    await robot.api("PUT", STREAMING, stream("second", guid="g"))
    await robot.api("POST", CREATE, card(cardData={"cardParamMap": {"content": "other"}}))
    assert len(emu.replies) == 1
    assert emu.cards.cards["trk-0001"].text == "first"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"isFull": False}, "param.stream.isFull"),
        ({"key": ""}, "param.stream.keyEmpty"),
        ({"guid": ""}, "param.stream.guidEmpty"),
        ({"content": None}, "param.stream.contentEmpty"),
        ({"outTrackId": "unknown"}, "param.stream.outTrackId"),
        ({"content": "字" * 7000}, "param.stream.content"),
    ],
)
async def test_bad_streaming_update(robot: FakeRobot, change: dict[str, Any], code: str) -> None:
    """A wrong streaming update gets 400 with the code that names it."""
    await robot.api("POST", CREATE, card())
    status, body = await robot.api("PUT", STREAMING, stream("x") | change)
    assert (status, body["code"]) == (400, code)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"cardTemplateId": "nonsense"}, "param.templateNotExist"),
        ({"openSpaceId": "dtv1.card//ONE_BOX.x"}, "param.openSpaceIdInvalid"),
        ({"imRobotOpenDeliverModel": {}}, "param.openDeliverModelEmpty"),
        ({"cardData": {"cardParamMap": {"n": 1}}}, "param.cardDataInvalid"),
    ],
)
async def test_bad_card(robot: FakeRobot, change: dict[str, Any], code: str) -> None:
    """A wrong card gets 400 with the code that names it; all its values have to be strings."""
    status, body = await robot.api("POST", CREATE, card(**change))
    assert (status, body["code"]) == (400, code)


async def test_inner_failure(emu: Emulator, robot: FakeRobot) -> None:
    """The outer call may succeed although nothing was delivered: to nobody, or by the switch."""
    _, nobody = await robot.api("POST", CREATE, card("IM_ROBOT.nobody"))
    emu.faults.card_inner_failure = True
    _, switched = await robot.api("POST", CREATE, card(outTrackId="trk-0002"))
    for answer in (nobody, switched):
        assert answer["success"] is True
        assert answer["result"]["deliverResults"][0]["success"] is False
    assert not len(emu.replies)


async def test_create_deliver_and_update_apart(emu: Emulator, robot: FakeRobot) -> None:
    """Create, deliver and update also work as three calls; by key, other values stay."""
    await robot.api("POST", "/v1.0/card/instances", card())
    group = card(f"IM_GROUP.{emu.chats.chat('g-ops').conversation_id}")
    _, delivered = await robot.api("POST", "/v1.0/card/instances/deliver", group)
    assert delivered["result"][0]["success"] is True
    change = {"outTrackId": "trk-0001", "cardData": {"cardParamMap": {"content": "all done", "flowStatus": "3"}}}
    await robot.api("PUT", "/v1.0/card/instances", change | {"cardUpdateOptions": {"updateCardDataByKey": True}})
    assert (await emu.wait_reply("g-ops")).text == "all done"
    status, _ = await robot.api("PUT", "/v1.0/card/instances", change | {"outTrackId": "unknown"})
    assert status == 400


async def test_click_on_a_card(emu: Emulator, robot: FakeRobot) -> None:
    """A click comes as a card callback, and the answer in its ack changes the card."""
    await robot.api("POST", CREATE, card())
    robot.answers = {"response": {"cardData": {"cardParamMap": {"content": "stopped"}}}}
    emu.act("card_click", action="btn_stop", params={"run": "42"})
    frame = await robot.frame()
    data = json.loads(frame["data"])
    assert frame["headers"]["topic"] == CARD_TOPIC
    assert json.loads(data["content"])["cardPrivateData"] == {"actionIds": ["btn_stop"], "params": {"run": "42"}}
    await until(lambda: emu.cards.cards["trk-0001"].text == "stopped")


async def test_late_answer_to_a_click_is_not_used(
    emu: Emulator, robot: FakeRobot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer after the deadline changes nothing."""
    monkeypatch.setattr("claw.emulator.presses.CARD_ANSWER_DEADLINE_S", 0.05)
    await robot.api("POST", CREATE, card())
    robot.acks = False
    emu.act("card_click")
    frame = await robot.frame()
    await asyncio.sleep(0.3)
    await robot.ack(frame, json.dumps({"response": {"cardData": {"cardParamMap": {"content": "late"}}}}))
    await until(emu.pushes[-1].acked.is_set)
    assert emu.cards.cards["trk-0001"].text == ""


async def test_file_of_a_person(emu: Emulator, robot: FakeRobot, http: aiohttp.ClientSession) -> None:
    """A download code is traded for a URL that needs no authentication."""
    code = emu.files.add(b"hello", "a.txt", "text/plain")
    body = {"robotCode": "dingfakeclient", "downloadCode": code}
    _, answer = await robot.api("POST", "/v1.0/robot/messageFiles/download", body)
    async with http.get(answer["downloadUrl"]) as file:
        assert await file.read() == b"hello"
    status, error = await robot.api("POST", "/v1.0/robot/messageFiles/download", body | {"downloadCode": "dcnone"})
    assert (status, error["code"]) == (400, "invalidParameter.robotCode.downloadCode")


async def test_upload(emu: Emulator, robot: FakeRobot, http: aiohttp.ClientSession) -> None:
    """An upload gets a media id; its kind has to suit its type, and it needs the token."""
    url = f"{emu.url}/media/upload?type=image&access_token="

    async def upload(name: str, token: str) -> dict[str, Any]:
        form = aiohttp.FormData()
        form.add_field("media", b"\x89PNG", filename=name, content_type="image/png")
        async with http.post(url + token, data=form) as answer:
            found: dict[str, Any] = await answer.json()
            return found

    token = await robot.token()
    done = await upload("a.png", token)
    assert (done["errcode"], done["type"], done["media_id"][0]) == (0, "image", "@")
    assert (await upload("a.exe", token))["errcode"] == 40005
    assert (await upload("a.png", "stale"))["errcode"] == 40014


async def test_reaction(emu: Emulator, robot: FakeRobot) -> None:
    """A reaction appears on the message and goes away when it is recalled."""
    said = await emu.say("hello")
    message = await robot.message()
    body = {
        "robotCode": "dingfakeclient",
        "openMsgId": message["msgId"],
        "openConversationId": message["conversationId"],
        "emotionType": 2,
        "emotionName": "🤔思考中",
    }
    assert (await robot.api("POST", "/v1.0/robot/emotion/reply", body))[0] == 200
    assert said.message.reactions == ["🤔思考中"]
    await robot.api("POST", "/v1.0/robot/emotion/recall", body)
    assert said.message.reactions == []
    wrong = await robot.api("POST", "/v1.0/robot/emotion/reply", body | {"openMsgId": "msgnone"})
    assert wrong[0] == 400
