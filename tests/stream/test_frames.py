"""Frames: the official vectors, every msgtype, and anything that a hostile peer may send."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claw.errors import FrameError
from claw.messages import ChatKind, Inbound
from claw.parts import Media, MediaKind
from claw.secret import Secret
from claw.stream import frames, lenient
from claw.stream.frames import FrameKind, ack, parse
from claw.stream.inbound import to_inbound
from tests.stream import vectors

DATA = json.loads(json.loads(vectors.ROBOT)["data"])


def inbound(body: dict[str, Any], **common: Any) -> Inbound:
    return to_inbound(parse(vectors.frame(vectors.DIRECT | body | common)), "dingclient")


def test_vector_group_text() -> None:
    """A group's text message gives every field that later rooms use, with times in seconds and the text trimmed."""
    message = to_inbound(parse(vectors.ROBOT), "other")
    assert (message.robot_code, message.msg_id) == ("dingfakeclient", "msgFakeOne000==")
    assert (message.conversation.id, message.conversation.kind) == ("cidFakeGroup00==", ChatKind.GROUP)
    assert message.conversation.title == "Test room"
    assert (message.sender.id, message.sender.staff_id, message.sender.nick) == ("$:LWCP_v1:$FakeAnn", "u-1001", "Ann")
    assert (message.msgtype, message.text, message.parts, message.quote) == ("text", "hello bot", (), None)
    assert message.people == ()
    assert (message.created_at, message.webhook_expires) == (1771234570.0, 1771239970.0)
    assert message.webhook == Secret("https://oapi.dingtalk.com/robot/sendBySession?session=00ff")
    assert not message.quota_exhausted


def test_repeat_has_the_same_key() -> None:
    """DingTalk's repeat has a new push id and the same message: one key."""
    repeat = json.loads(vectors.ROBOT)
    repeat["headers"] |= {"messageId": vectors.ROBOT_REPEAT_ID, "time": "1771234630100"}
    frame = parse(json.dumps(repeat))
    assert frame.message_id == vectors.ROBOT_REPEAT_ID
    assert to_inbound(frame, "c").key == to_inbound(parse(vectors.ROBOT), "c").key


@pytest.mark.parametrize(
    ("text", "kind", "answer", "expected"),
    [
        (vectors.PING, FrameKind.PING, None, vectors.PONG),
        (vectors.EVENT, FrameKind.EVENT, frames.EVENT_ACK, vectors.EVENT_ACK),
        (vectors.ROBOT, FrameKind.ROBOT, frames.ROBOT_ACK, vectors.ROBOT_ACK),
    ],
)
def test_vector_acks(text: str, kind: FrameKind, answer: str | None, expected: str) -> None:
    """An ack has the official shape; a ping's data goes back letter by letter."""
    frame = parse(text)
    assert frame.kind is kind
    assert json.loads(ack(frame.message_id, 200, answer or frame.data)) == json.loads(expected)


def test_ack_of_a_card_callback_is_an_empty_response() -> None:
    """A card callback is answered with an empty response object."""
    frame = parse(vectors.frame(vectors.CARD_DATA, topic=vectors.CARD_TOPIC))
    assert frame.kind is FrameKind.CARD
    assert json.loads(json.loads(ack(frame.message_id, 200, frames.card_response({})))["data"]) == {"response": {}}


def test_vector_disconnect() -> None:
    """A disconnect is known with its reason."""
    frame = parse(vectors.DISCONNECT)
    assert (frame.kind, frames.disconnect_reason(frame)) == (FrameKind.DISCONNECT, "persistent connection is timeout")


@pytest.mark.parametrize(
    ("frame_type", "topic", "kind"),
    [
        ("SYSTEM", "KEEPALIVE", FrameKind.LEGACY),
        ("SYSTEM", "REGISTERED", FrameKind.LEGACY),
        ("SYSTEM", "news", FrameKind.UNKNOWN),
        ("CALLBACK", "/v1.0/graph/api/invoke", FrameKind.UNKNOWN),
        ("CALLBACK", "", FrameKind.UNKNOWN),
        ("NOVELTY", vectors.ROBOT_TOPIC, FrameKind.UNKNOWN),
        ("", vectors.ROBOT_TOPIC, FrameKind.UNKNOWN),
    ],
)
def test_kinds(frame_type: str, topic: str, kind: FrameKind) -> None:
    """A frame's kind follows from its type and topic; what is not known is UNKNOWN, not an error."""
    assert parse(vectors.frame("{}", frame_type=frame_type, topic=topic)).kind is kind


def test_tolerated_envelopes() -> None:
    """`header` for `headers`, a time as number or nonsense, an object as data, and unknown fields are all read."""
    frame = json.loads(vectors.robot())
    headers = frame.pop("headers") | {"time": 1771234570100, "novelty": [1]}
    for spelled in ({"header": headers}, {"headers": headers | {"time": "soon"}}, {"headers": headers, "time": 1}):
        assert to_inbound(parse(json.dumps(frame | spelled)), "c").msg_id == "msg-1"
    as_object = frame | {"headers": headers, "data": json.loads(frame["data"])}
    assert to_inbound(parse(json.dumps(as_object)), "c").msg_id == "msg-1"


PICTURE = Media(MediaKind.PICTURE, Secret("pic"))


@pytest.mark.parametrize("field", ["errCode", "errorCode"])
@pytest.mark.parametrize("code", ["20001", 20001])
def test_quota(field: str, code: object) -> None:
    """A message without content, since the quota is used up, is known as such."""
    assert inbound({"msgtype": "text"}, **{field: code}).quota_exhausted
    assert not inbound({"msgtype": "text"}, **{field: "0"}).quota_exhausted


def test_fallbacks() -> None:
    """Missing: a robot code is the client id, a message id the push's, a staff id none, a chat the person."""
    bare = {"senderId": "s", "msgtype": "text", "text": {"content": "x"}, "senderStaffId": None}
    message = to_inbound(parse(vectors.frame(bare)), "dingclient")
    assert (message.key, message.sender.staff_id, message.conversation.id) == ("dingclient:m-1", "", "s")
    assert (message.created_at, message.webhook_expires, message.conversation.kind) == (0, 0, ChatKind.DIRECT)
    first, again = (to_inbound(parse(vectors.frame(bare, message_id="")), "c").msg_id for _ in range(2))
    assert first == again != ""


@pytest.mark.parametrize(
    ("given_time", "seconds"),
    [("1771234570000", 1771234570.0), (1771234570000, 1771234570.0), (None, 0), ("soon", 0), (-1, 0), (10**400, 0)],
)
def test_times(given_time: object, seconds: float) -> None:
    """Times come as numbers or texts of milliseconds, and nonsense is no time."""
    message = inbound({"msgtype": "text"}, createAt=given_time, sessionWebhookExpiredTime=given_time)
    assert (message.created_at, message.webhook_expires) == (seconds, seconds)


@pytest.mark.parametrize("url", ["", None, "ftp://h/x", "https://", "https://[", "https://h/a b", "javascript:x", 7])
def test_webhook_that_is_none(url: object) -> None:
    """A session webhook that cannot be posted to is no webhook."""
    assert not inbound({"msgtype": "text"}, sessionWebhook=url).webhook


def test_long_text_is_cut() -> None:
    """A text of megabytes is kept up to the limit."""
    assert len(inbound({"msgtype": "text", "text": {"content": "x" * 3_000_000}}).text) == lenient.TEXT_MAX_CHARS


def test_lone_surrogates_are_replaced() -> None:
    """No text may break a store or socket by a lone surrogate; a pair stays the sign that it is."""
    message = inbound({"msgtype": "text", "text": {"content": "a\ud800b\U0001f600"}}, senderNick="\udc00")
    assert (message.text, message.sender.nick) == ("a\ufffdb\U0001f600", "\ufffd")
    ack("\ud800", 200, "\ud800").encode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "null",
        "[]",
        "7",
        '"text"',
        "{",
        "{}",
        '{"headers":null}',
        '{"headers":[]}',
        '{"type":"SYSTEM"}',
        '{"headers":{},"data":7}',
        '{"headers":{"messageId":NaN}}',
        '{"headers":{},"data":' + "9" * 5000 + "}",
        "[" * 100_000,
        '{"a":' * 100_000,
    ],
)
def test_hostile_envelopes(text: str) -> None:
    """An envelope that is none raises FrameError, which tells its length."""
    with pytest.raises(FrameError) as caught:
        parse(text)
    assert caught.value.size == len(text)


@pytest.mark.parametrize(
    "data", ["", "nonsense", "null", "[]", "{}", '{"msgtype":"text"}', "[" * 100_000, '{"createAt":NaN}', "\ud800"]
)
def test_hostile_messages_name_their_push(data: str) -> None:
    """A robot frame without a usable message raises FrameError with the push's id, so that it can be answered 400."""
    with pytest.raises(FrameError) as caught:
        to_inbound(parse(vectors.frame(data, message_id="bad")), "c")
    assert caught.value.message_id == "bad"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    [*DATA, "content", "richText", "repliedMsg", "downloadCode", "chatRecord", "cardContent", "errCode", "markdown"]
)
MSGTYPES = st.sampled_from(
    ["text", "richText", "picture", "audio", "file", "unknownMsgType", "interactiveCard", "markdown", "chatRecord"]
)
NESTED = st.recursive(
    JSON, lambda inner: st.dictionaries(FIELDS, inner, max_size=4) | st.lists(inner, max_size=3), max_leaves=16
)


@settings(max_examples=80, deadline=None)
@given(st.text() | st.builds(json.dumps, st.dictionaries(st.sampled_from(["type", "headers", "header", "data"]), JSON)))
def test_parse_raises_nothing_else(text: str) -> None:
    """Whatever comes over the wire, `parse` gives a frame or a FrameError."""
    with contextlib.suppress(FrameError):
        parse(text)


@settings(max_examples=150, deadline=None)
@given(MSGTYPES, st.dictionaries(FIELDS, NESTED, max_size=6))
def test_to_inbound_raises_nothing_else(msgtype: str, changes: dict[str, Any]) -> None:
    """Whatever a message holds, it becomes an Inbound that the store can keep, or a FrameError."""
    frame = parse(vectors.frame(DATA | {"msgtype": msgtype} | changes))
    try:
        message = to_inbound(frame, "c")
    except FrameError:
        return
    kept = message.to_json()
    kept.encode()
    assert Inbound.from_json(kept) == message
    json.loads(kept, parse_constant=pytest.fail)
