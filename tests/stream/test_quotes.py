"""What a reply quotes, in every shape that was seen (docs/protocol.md sections 5.3 and 10a)."""

from __future__ import annotations

from typing import Any

import pytest

from claw.messages import Inbound
from claw.parts import Entry, Mark, MarkKind, Media, MediaKind, Part, Quote, Record, Words
from claw.secret import Secret
from claw.stream.quotes import DEPTH_MAX
from tests.stream.test_content import inbound, picture

PLACES = ["text", "content", "top"]


def reply(place: str, replied: Any, **common: Any) -> Inbound:
    holder = {"isReplyMsg": True, "repliedMsg": replied}
    if place == "text":
        return inbound({"msgtype": "text", "text": {"content": "why?"} | holder}, **common)
    if place == "content":
        return inbound({"msgtype": "richText", "content": {"richText": [{"text": "why?"}]} | holder}, **common)
    return inbound({"msgtype": "text", "text": {"content": "why?"}} | holder, **common)


SHAPES: list[tuple[Any, tuple[Part, ...]]] = [
    ({"msgType": "text", "content": {"text": "old"}}, (Words("old"),)),
    ({"msgType": "text", "content": {"content": "old"}}, (Words("old"),)),
    ({"msgType": "text", "content": '{"text":"old"}'}, (Words("old"),)),
    ({"msgType": "text", "content": "old"}, (Words("old"),)),
    ({"msgtype": "text", "text": {"content": "old"}}, (Words("old"),)),
    ({"msgType": "markdown", "content": {"text": "# old"}}, (Words("# old"),)),
    (
        {
            "msgType": "richText",
            "content": {
                "richText": [{"msgType": "text", "content": "see"}, {"msgType": "picture", "downloadCode": "pic"}]
            },
        },
        (Words("see"), picture()),
    ),
    (
        {"msgType": "richText", "content": {"richText": [{"type": "at", "atName": "Bob"}, {"text": "hi"}]}},
        (Words("@Bob hi"),),
    ),
    ({"msgType": "picture", "content": {"downloadCode": "pic"}}, (picture(),)),
    (
        {"msgType": "file", "content": {"downloadCode": "f", "fileName": "a.pdf"}},
        (Media(MediaKind.FILE, Secret("f"), "a.pdf"),),
    ),
    ({"msgType": "file", "content": {"fileName": "a.pdf"}}, (Mark(MarkKind.NO_CODE, "a.pdf"),)),
    (
        {"msgType": "audio", "content": {"downloadCode": "a", "recognition": "said"}},
        (Media(MediaKind.AUDIO, Secret("a")), Words("said")),
    ),
    ({"msgType": "video", "content": {"downloadCode": "v"}}, (Media(MediaKind.VIDEO, Secret("v")),)),
    ({"msgType": "unknownMsgType", "content": {"unknownMsgType": "[文件] a"}}, (Mark(MarkKind.UNKNOWN, "[文件] a"),)),
    (
        {"msgType": "chatRecord", "content": {"summary": "Ann: hi"}},
        (Record("", (Entry("Ann", (Words("hi"),)), Entry("", (Mark(MarkKind.EMPTY_RECORD),)))),),
    ),
    ({"msgType": "interactiveCard", "content": {"cardContent": {"value": "card"}}}, (Words("card"),)),
    (
        {"msgType": "interactiveCard", "content": {"biz_custom_action_url": "dingtalk://a?route=previewDentry"}},
        (Mark(MarkKind.DOCUMENT),),
    ),
    ({"msgType": "file", "content": "a.pdf"}, (Mark(MarkKind.NO_CODE, "a.pdf"),)),
    ({"msgType": "picture", "downloadCode": "pic"}, (picture(),)),
    ({"msgType": "richText", "richText": [{"text": "old"}]}, (Words("old"),)),
    ({"msgType": "text", "content": "[1, 2]"}, (Words("[1, 2]"),)),
    ({"msgType": "text", "content": '{"a": 1}'}, (Words('{"a": 1}'),)),
    ({"msgType": "text"}, ()),
    ({"msgType": "text", "content": {}}, ()),
]


@pytest.mark.parametrize(("replied", "parts"), SHAPES)
@pytest.mark.parametrize("place", PLACES)
def test_what_is_quoted(place: str, replied: Any, parts: tuple[Part, ...]) -> None:
    """A quote's body is found wherever it stands, with its pictures and files; a file's name is not its words."""
    message = reply(place, replied, originalMsgId="old")
    assert message.text == "why?"
    assert message.quote is not None
    assert (message.quote.message_id, message.quote.parts) == ("old", parts)
    assert Inbound.from_json(message.to_json()) == message


@pytest.mark.parametrize("replied", [None, 7, [], ""])
def test_only_a_reference_came(replied: Any) -> None:
    """Where only ids tell of a quote, they are kept for the store to look up."""
    message = reply("text", replied, originalMsgId="old", originalProcessQueryKey="pqk")
    assert message.quote == Quote("old", "pqk", by_robot=True)


def test_that_something_was_quoted_is_not_lost() -> None:
    """A reply of whose quote nothing came, not even an id, still is one."""
    assert inbound({"msgtype": "text", "text": {"content": "x", "isReplyMsg": True}}).quote == Quote()
    assert inbound({"msgtype": "text", "text": {"content": "x", "isReplyMsg": False}}).quote is None


def test_who_wrote_it_and_when() -> None:
    """A quote of the robot's own message is known by its sender; times are seconds."""
    replied = {"msgId": "m", "msgType": "text", "senderId": "bot", "createdAt": 1771230000000, "content": {"text": "a"}}
    quote = reply("text", replied, chatbotUserId="bot").quote
    assert quote == Quote("m", "", "bot", "", True, 1771230000.0, (Words("a"),))
    other = reply("text", replied | {"senderNick": "Bob"}, chatbotUserId="another").quote
    assert other is not None
    assert (other.by_robot, other.speaker) == (False, "Bob")


@pytest.mark.parametrize("holder", ["content", "top", "text"])
def test_a_quote_may_quote(holder: str) -> None:
    """Quotes within quotes are read down to a bound, beyond which there is a mark."""
    replied: dict[str, Any] = {"msgType": "text", "content": {"text": "0"}}
    for number in range(1, DEPTH_MAX + 3):
        below = {"isReplyMsg": True, "repliedMsg": replied}
        replied = {"msgType": "text", "content": {"text": str(number)}}
        replied = replied | below if holder == "top" else replied | {holder: replied.get(holder, {}) | below}
    quote, depth = reply("text", replied).quote, 0
    while quote is not None and quote.quote is not None:
        quote, depth = quote.quote, depth + 1
    assert depth == DEPTH_MAX
    assert quote is not None
    assert quote.parts == (Mark(MarkKind.LEFT_OUT, "1"),)
