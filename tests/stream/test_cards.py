"""Card callbacks: every shape that they come in, what a session does with them, and hostile ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claw.errors import FrameError
from claw.messages import CardCallback
from claw.stream.cards import ACTIONS_MAX, PARAMS_MAX, UnknownCards, to_card_callback
from claw.stream.frames import parse
from claw.stream.lenient import TEXT_MAX_CHARS
from tests.clock import FakeClock
from tests.stream import vectors
from tests.stream.conftest import Connect
from tests.stream.dingtalk import until
from tests.stream.test_frames import JSON


async def _respond(_: Mapping[str, Any]) -> None: ...


def callback(data: Any) -> CardCallback:
    return to_card_callback(parse(vectors.frame(data, topic=vectors.CARD_TOPIC, message_id="push")), _respond)


def pressed(private: Any, **common: Any) -> CardCallback:
    return callback(vectors.CARD_DATA | {"content": json.dumps({"cardPrivateData": private})} | common)


# --- reading -----------------------------------------------------------------------------------------------------


def test_official_vector() -> None:
    """The official example gives card, person, chat, action and parameters."""
    got = callback(vectors.CARD_DATA)
    assert (got.card_id, got.staff_id, got.conversation_id) == ("trk-0001", "u-1001", "cidFakeGroup00==")
    assert (got.action_ids, got.params) == (("btn_stop",), {"run": "42"})


@pytest.mark.parametrize(
    ("changes", "actions", "params"),
    [
        ({"content": {"cardPrivateData": {"actionIds": ["a", "b"], "params": {"x": 1}}}}, ("a", "b"), {"x": "1"}),
        ({"content": '{"cardPrivateData":"{\\"actionIds\\":\\"[\\\\\\"a\\\\\\"]\\"}"}'}, ("a",), {}),
        ({"content": "", "value": '{"cardPrivateData":{"actionIds":["a"]}}'}, ("a",), {}),
        ({"content": None}, (), {}),
        ({"content": "no JSON"}, (), {}),
        ({"content": "[]"}, (), {}),
        ({"content": '{"cardPrivateData":7}'}, (), {}),
        ({"content": '{"cardPrivateData":{"actionIds":"a","params":[1]}}'}, (), {}),
        ({"content": '{"cardPrivateData":{"actionIds":[null,{},"",7,"a"]}}'}, ("7", "a"), {}),
        ({"content": '{"cardPrivateData":{"params":{"x":true,"y":null,"z":{"k":[1]}}}}'}, (), None),
        ({"content": '{"cardPrivateData":{"params":"{\\"x\\":\\"1\\"}"}}'}, (), {"x": "1"}),
        ({"content": "[" * 100_000}, (), {}),
        ({"content": '{"cardPrivateData":{"actionIds":["a\\ud800"]}}'}, ("a\ufffd",), {}),
    ],
)
def test_shapes(changes: dict[str, Any], actions: tuple[str, ...], params: dict[str, str] | None) -> None:
    """Objects and JSON text stand for one another, and what cannot be read is left out."""
    got = callback(vectors.CARD_DATA | changes)
    assert got.card_id == "trk-0001"
    assert got.action_ids == actions
    assert got.params == ({"x": "true", "y": "", "z": '{"k":[1]}'} if params is None else params)


@pytest.mark.parametrize(("kind", "staff"), [(1, "u-1001"), ("1", "u-1001"), (None, "u-1001"), (2, ""), ("union", "")])
def test_only_a_staff_id_is_one(kind: object, staff: str) -> None:
    """An id of another type must not be taken for a member of the organisation: rules are about members."""
    assert callback(vectors.CARD_DATA | {"userIdType": kind}).staff_id == staff


@pytest.mark.parametrize(
    ("space", "chat"),
    [
        ("cid0==", "cid0=="),
        ("dtv1.card//IM_GROUP.cid0==", "cid0=="),
        ("dtv1.card//", "dtv1.card//"),
        (7, "7"),
        ({}, ""),
    ],
)
def test_chat(space: object, chat: str) -> None:
    """The chat is named bare, or in the way in which the card was delivered."""
    assert callback(vectors.CARD_DATA | {"spaceId": space}).conversation_id == chat


def test_much_is_cut() -> None:
    """Nobody can fill our memory with a button."""
    got = pressed({"actionIds": ["a"] * 10_000, "params": {f"p{number}": "x" * 300_000 for number in range(300)}})
    assert (len(got.action_ids), len(got.params)) == (ACTIONS_MAX, PARAMS_MAX)
    assert max(map(len, got.params.values())) == TEXT_MAX_CHARS


@pytest.mark.parametrize("data", ["", "nonsense", "null", "[]", "7", '{"a":NaN}', "[" * 100_000])
def test_what_is_no_callback_names_its_push(data: str) -> None:
    """A frame without an object raises FrameError with the push's id, so that it can be answered 400."""
    with pytest.raises(FrameError) as caught:
        callback(data)
    assert caught.value.message_id == "push"


FIELDS = st.sampled_from([*vectors.CARD_DATA, "value", "cardPrivateData", "actionIds", "params"])
NESTED = st.recursive(
    JSON, lambda inner: st.dictionaries(FIELDS, inner, max_size=4) | st.builds(json.dumps, inner), max_leaves=12
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(FIELDS, NESTED, max_size=6))
def test_reading_raises_nothing_else(changes: dict[str, Any]) -> None:
    """Whatever a callback holds, it becomes texts that a log and a socket can carry, or a FrameError."""
    with contextlib.suppress(FrameError):
        got = callback(vectors.CARD_DATA | changes)
        for text in (
            got.card_id,
            got.staff_id,
            got.conversation_id,
            *got.action_ids,
            *got.params,
            *got.params.values(),
        ):
            text.encode()


# --- answering ---------------------------------------------------------------------------------------------------

CARD = vectors.frame(vectors.CARD_DATA, topic=vectors.CARD_TOPIC, message_id="press")


async def test_response_of_the_handler(connect: Connect) -> None:
    """What the handler responds goes out under the callback's id, at once."""

    async def on_card(pressed: CardCallback) -> None:
        await pressed.respond({"cardData": {"cardParamMap": {"done": pressed.action_ids[0]}}})

    harness = await connect(on_card=on_card)
    await harness.peer.push(CARD)
    ack = await harness.peer.ack()
    assert (ack["code"], ack["headers"]["messageId"]) == (200, "press")
    assert json.loads(ack["data"]) == {"response": {"cardData": {"cardParamMap": {"done": "btn_stop"}}}}


async def test_handler_that_says_nothing(connect: Connect) -> None:
    """A handler that ends without a response has said that nothing is to change."""
    harness = await connect()
    await harness.peer.push(CARD)
    assert json.loads((await harness.peer.ack())["data"]) == {"response": {}}


class SlowHandler:
    """A handler that responds when `gate` is set; `done` are the cards that it has done with."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.done: list[str] = []

    async def __call__(self, pressed: CardCallback) -> None:
        await self.gate.wait()
        await pressed.respond({"late": True})
        self.done.append(pressed.card_id)


async def test_slow_handler_is_answered_for(connect: Connect) -> None:
    """After 1.5 s an empty response goes out; the handler goes on, and what it says later goes nowhere."""
    handler = SlowHandler()
    harness = await connect(on_card=handler)
    await harness.peer.push(CARD)
    await until(lambda: harness.session.counters.frames)
    await harness.clock.advance(1.4)
    assert harness.peer.acks.empty()
    await harness.clock.advance(0.2)
    assert json.loads((await harness.peer.ack())["data"]) == {"response": {}}
    handler.gate.set()
    await until(lambda: handler.done)
    await harness.peer.push(vectors.PING)
    assert (await harness.peer.ack())["headers"]["messageId"].startswith("2141a0c7")


async def test_handler_that_fails(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """A fault in a handler, or a response that is no JSON, is logged and answered; the session goes on."""

    async def on_card(pressed: CardCallback) -> None:
        await pressed.respond({"never": float("nan")})

    harness = await connect(on_card=on_card)
    for number in range(2):
        await harness.peer.push(vectors.frame(vectors.CARD_DATA, topic=vectors.CARD_TOPIC, message_id=f"p{number}"))
        ack = await harness.peer.ack()
        assert (ack["headers"]["messageId"], ack["data"]) == (f"p{number}", '{"response":{}}')
    assert "card callback failed" in caplog.text


async def test_one_response_each(connect: Connect) -> None:
    """DingTalk takes one answer: a second one of the handler is not sent."""

    async def on_card(pressed: CardCallback) -> None:
        await pressed.respond({"first": 1})
        await pressed.respond({"second": 2})

    harness = await connect(on_card=on_card)
    await harness.peer.push(CARD)
    await harness.peer.push(vectors.PING)
    answers = [await harness.peer.ack(), await harness.peer.ack()]
    assert [json.loads(each["data"]) for each in answers if each["headers"]["messageId"] == "press"] == [
        {"response": {"first": 1}}
    ]


async def test_response_stays_on_its_socket(connect: Connect) -> None:
    """A response whose socket is gone goes nowhere, and hurts nobody."""
    handler = SlowHandler()
    harness = await connect(on_card=handler)
    await harness.peer.push(CARD)
    await until(lambda: harness.session.counters.frames)
    harness.peer.reset()
    await harness.end()
    handler.gate.set()
    await until(lambda: handler.done)
    await until(lambda: not harness.config.deliveries)


async def test_bad_callback_is_answered(connect: Connect) -> None:
    """A callback that cannot be read is answered as a bad request, and reaches no handler."""
    harness = await connect(on_card=pytest.fail)
    await harness.peer.push(vectors.frame("no JSON", topic=vectors.CARD_TOPIC, message_id="bad"))
    assert (await harness.peer.ack())["code"] == 400


async def test_unknown_cards_are_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Pressing the buttons of a forgotten card fills no disk; the next line says how many were left out."""
    caplog.set_level(logging.INFO)
    clock = FakeClock()
    cards = UnknownCards(clock)
    for _ in range(50):
        await cards.log(callback(vectors.CARD_DATA))
    await clock.advance(61)
    await cards.log(callback(vectors.CARD_DATA))
    told = [record.__dict__ for record in caplog.records if record.message == "callback of an unknown card"]
    assert [(each["card"], each["unlogged"]) for each in told] == [("trk-0001", 0), ("trk-0001", 49)]
