"""Cards as the emulator keeps them: their record, offline clients, templates, presses (docs/protocol.md 7 and 10a)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from claw.emulator import CARD_TOPIC, Emulator, FakeCardCall, FakePressOutcome

from .calls import CREATE, STREAMING, TEMPLATE, UPDATE, card, stream, update
from .client import FakeRobot, until

TRACK = "trk-0001"


async def make_card(robot: FakeRobot, **changes: Any) -> None:
    status, answer = await robot.api("POST", CREATE, card(**changes))
    assert (status, answer["result"]["deliverResults"][0]["success"]) == (200, True)


async def test_record_of_a_card(emu: Emulator, robot: FakeRobot) -> None:
    """A card's record tells its state, its text and whose it is, and what it cost, at every point of its life."""
    await make_card(robot)
    states = [(await robot.control("GET", "cards"))[1][0]["state"]]
    for text, final in (("one", False), ("one two", True)):
        await robot.api("PUT", STREAMING, stream(text, isFinalize=final))
        states.append((await robot.control("GET", f"cards/{TRACK}"))[1]["state"])
    assert states == ["created", "streaming", "finished"]
    assert emu.cards.cards[TRACK].text_by is FakeCardCall.STREAM
    await robot.api("PUT", UPDATE, update("one two", flowStatus="3"))
    _, record = await robot.control("GET", f"cards/{TRACK}")
    wanted = {"text": "one two", "template": TEMPLATE, "space": "dtv1.card//IM_ROBOT.u-1001", "text_by": "update"}
    assert record.items() >= (wanted | {"updates": 2, "puts": 1, "after_end": 0, "flowStatus": "3"}).items()
    assert record["params"] == {"content": "one two", "flowStatus": "3"}
    assert (await robot.control("GET", "cards/none"))[0] == 404


async def test_offline_client_misses_streaming(emu: Emulator, robot: FakeRobot) -> None:
    """An offline client shows what creating brought, until a whole update comes; its card ends only by that."""
    emu.faults.client_offline = True
    await make_card(robot, cardData={"cardParamMap": {"content": "so far", "flowStatus": "1"}})
    await robot.api("PUT", STREAMING, stream("so far and on", isFinalize=True))
    found, message = emu.cards.cards[TRACK], emu.chats.chat("direct:u-1001").messages[-1]
    assert (found.text, found.offline_text) == ("so far and on", "so far")
    assert (message.text, (message.card_view or {})["state"]) == ("so far", "created")
    assert (await emu.wait_reply("direct:u-1001")).text == "so far and on"
    # Back again: what was missed stays missed.
    emu.faults.client_offline = False
    assert message.text == "so far"
    await robot.api("PUT", UPDATE, update("so far and on", flowStatus="3"))
    assert (message.text, found.offline_text, found.settled.state) == ("so far and on", "so far and on", "finished")


@pytest.mark.parametrize("by", ["switch", "template"])
@pytest.mark.parametrize(
    ("switch", "field", "code"),
    [
        ("card_template_missing", "exists", "param.templateNotExist"),
        ("card_template_unpublished", "published", "param.templateUnpublished"),
    ],
)
async def test_template_is_not_there(
    emu: Emulator, robot: FakeRobot, by: str, switch: str, field: str, code: str
) -> None:
    """A template that is missing or unpublished refuses the card; no card is left behind."""
    if by == "switch":
        emu.faults.update({switch: True})
    else:
        assert (await robot.control("POST", "templates", {"id": TEMPLATE, field: False}))[0] == 200
    status, body = await robot.api("POST", CREATE, card())
    assert (status, body["code"]) == (400, code)
    assert not emu.cards.cards
    other = "11111111-2222-3333-4444-555555555555.schema"
    assert (await robot.api("POST", CREATE, card(cardTemplateId=other)))[0] == (400 if by == "switch" else 200)


async def test_text_over_the_templates_limit(emu: Emulator, robot: FakeRobot) -> None:
    """A text that is too long for its template is refused, streamed as well as put; another template takes it."""
    emu.cards.templates.set(TEMPLATE, chars_max=10)
    await make_card(robot)
    await robot.api("PUT", STREAMING, stream("字" * 10))
    status, body = await robot.api("PUT", STREAMING, stream("字" * 11))
    assert (status, body["code"], body["message"]) == (400, "param.stream.content", "content is too large")
    assert (await robot.api("PUT", UPDATE, update("字" * 11)))[0] == 400
    assert emu.cards.cards[TRACK].text == "字" * 10
    other = card(outTrackId="trk-0002", cardTemplateId="11111111-2222-3333-4444-555555555555.schema")
    await robot.api("POST", CREATE, other)
    assert (await robot.api("PUT", STREAMING, stream("字" * 11, outTrackId="trk-0002")))[0] == 200


async def test_text_over_the_limit_is_blank(emu: Emulator, robot: FakeRobot) -> None:
    """The other kind of template takes a text that is too long, and shows nothing; a shorter one is shown again."""
    emu.faults.update({"card_over_limit": "blank", "card_content_limit": 9})
    await make_card(robot)
    assert (await robot.api("PUT", STREAMING, stream("字" * 4)))[0] == 200
    found = emu.cards.cards[TRACK]
    assert (found.text, found.face.blank, found.params["content"]) == ("", True, "字" * 4)
    await robot.api("PUT", UPDATE, update("字" * 3))
    assert (found.text, found.offline_text) == ("字" * 3, "字" * 3)


@pytest.mark.parametrize(
    "fields", [{"id": "nonsense"}, {"chars_max": -1}, {"exists": 1}, {"overflow": "cut"}, {"no_such": 1}]
)
async def test_wrong_template_is_refused(emu: Emulator, robot: FakeRobot, fields: dict[str, Any]) -> None:
    """A template is set by known fields of the right kind only."""
    assert (await robot.control("POST", "templates", {"id": TEMPLATE} | fields))[0] in {400, 404}
    assert emu.cards.templates.find(TEMPLATE).exists


async def test_slow_streaming(emu: Emulator, robot: FakeRobot) -> None:
    """Streaming updates alone can be slow, between two bounds; whether a client waits for them is seen."""
    emu.faults.update({"card_streaming_delay": 3, "card_streaming_delay_max": 10})
    assert all(3 <= emu.cards.take_streaming_delay() <= 10 for _ in range(20))
    emu.faults.update({"card_streaming_delay": 0.2, "card_streaming_delay_max": 0})
    await make_card(robot)
    await asyncio.gather(*(robot.api("PUT", STREAMING, stream(text)) for text in ("a", "b")))
    assert emu.cards.cards[TRACK].in_flight_max == 2


async def test_press_is_answered(emu: Emulator, robot: FakeRobot) -> None:
    """Whoever presses is told to the robot; its answer within 2 s is in the card, and each one's own in theirs."""
    await make_card(robot)
    data = {"content": "stopped", "flowStatus": "3"}
    own = {"cardParamMap": {"mine": "1"}}
    robot.answers = {"response": {"cardData": {"cardParamMap": data}, "userPrivateData": own}}
    body = {"person": "u-1002", "action": "stop", "params": {"run": "42"}}
    status, press = await robot.control("POST", f"cards/{TRACK}/press", body)
    frame = await robot.frame()
    sent = json.loads(frame["data"])
    assert frame["headers"]["topic"] == CARD_TOPIC
    assert (sent["userId"], sent["userIdType"], sent["outTrackId"]) == ("u-1002", 1, TRACK)
    assert json.loads(sent["content"]) == {"cardPrivateData": {"actionIds": ["stop"], "params": {"run": "42"}}}
    assert (status, press["outcome"], press["answer"]) == (200, "used", robot.answers)
    assert 0 < press["seconds"] < 2
    found = emu.cards.cards[TRACK]
    assert (found.text, found.state, found.text_by) == ("stopped", "finished", FakeCardCall.PRESS)
    assert found.private == {"u-1002": {"mine": "1"}}
    assert found.pressed() == {"u-1002": "stop"}


async def test_thumbs_and_outsiders(emu: Emulator, robot: FakeRobot) -> None:
    """An empty answer changes nothing and counts; who has no staff id is told by another id."""
    await make_card(robot)
    robot.answers = {"response": {}}
    assert (await emu.press(TRACK, action="like")).outcome is FakePressOutcome.EMPTY
    press = await emu.press(TRACK, person="x-2001", action="dislike")
    ids = [json.loads((await robot.frame())["data"]) for _ in range(2)]
    assert [(each["userId"][:2], each["userIdType"]) for each in ids] == [("u-", 1), ("$:", 2)]
    assert (press.outcome, emu.cards.cards[TRACK].state) == (FakePressOutcome.EMPTY, "created")


async def test_press_without_an_answer(emu: Emulator, robot: FakeRobot, monkeypatch: pytest.MonkeyPatch) -> None:
    """A late answer is written down with its time and not used; a press may find nobody, or a silent card."""
    monkeypatch.setattr("claw.emulator.presses.CARD_ANSWER_DEADLINE_S", 0.05)
    await make_card(robot)
    robot.acks = False
    press = await emu.press(TRACK)
    assert (press.outcome, press.seconds) == (FakePressOutcome.LATE, None)
    answer = {"response": {"cardData": {"cardParamMap": {"content": "late"}}}}
    await robot.ack(await robot.frame(), json.dumps(answer))
    await until(lambda: press.answer)
    assert press.answer == answer
    assert press.seconds is not None
    assert press.seconds > 0.05
    assert (emu.cards.cards[TRACK].text, emu.cards.cards[TRACK].pressed()) == ("", {})
    await make_card(robot, outTrackId="trk-0002", callbackType="")
    assert (await emu.press("trk-0002")).outcome is FakePressOutcome.NO_STREAM
    await robot.close()
    await until(lambda: not emu.connections)
    assert (await emu.press(TRACK)).outcome is FakePressOutcome.UNDELIVERED


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("none/press", {}, 404),
        (f"{TRACK}/press", {"person": "nobody"}, 404),
        (f"{TRACK}/press", {"persn": "u-1001"}, 400),
        (f"{TRACK}/press", {"params": []}, 400),
    ],
)
async def test_wrong_press_is_refused(robot: FakeRobot, path: str, body: dict[str, Any], status: int) -> None:
    """Pressing an unknown card, as nobody, or in a wrong way is an error that tells no robot."""
    await make_card(robot)
    assert (await robot.control("POST", f"cards/{path}", body))[0] == status
    assert robot.frames.empty()
