"""Every msgtype, in every layout seen, becomes parts in order; what cannot be carried leaves a mark."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from claw.messages import Inbound
from claw.parts import Entry, Mark, MarkKind, Media, MediaKind, Part, Record, Words
from claw.secret import Secret
from claw.stream.content import DEPTH_MAX, PARTS_MAX
from claw.stream.frames import parse
from claw.stream.inbound import to_inbound
from claw.stream.lenient import TEXT_MAX_CHARS
from tests.stream import vectors


def picture(code: str = "pic") -> Media:
    return Media(MediaKind.PICTURE, Secret(code))


def inbound(body: dict[str, Any], **common: Any) -> Inbound:
    return to_inbound(parse(vectors.frame(vectors.DIRECT | body | common)), "dingclient")


def rich(*items: Any) -> dict[str, Any]:
    return {"msgtype": "richText", "content": {"richText": list(items)}}


def record(*entries: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"msgtype": "chatRecord", "content": {"chatRecord": json.dumps(entries), **more}}


UNKNOWN = Mark(MarkKind.UNKNOWN)
EMPTY = Entry("", (Mark(MarkKind.EMPTY_RECORD),))

BODIES: list[tuple[dict[str, Any], str, tuple[Part, ...]]] = [
    # text, markdown
    ({"msgtype": "text", "text": {"content": " hello bot "}}, "hello bot", (Words("hello bot"),)),
    ({"msgtype": "text", "content": {"content": "x"}}, "x", (Words("x"),)),
    ({"msgtype": "text", "text": {"content": ""}}, "", ()),
    ({"msgtype": "markdown", "content": {"text": "# hi"}}, "# hi", (Words("# hi"),)),
    ({"msgtype": "novelty", "content": {"text": "still text"}}, "still text", (Words("still text"),)),
    ({"msgtype": "novelty", "content": {"x": 1}}, "", (Mark(MarkKind.UNKNOWN, "novelty"),)),
    ({"msgtype": "novelty"}, "", (Mark(MarkKind.UNKNOWN, "novelty"),)),
    # richText: in the order in which it was written
    (
        rich(
            {"text": "旧版："},
            {"type": "picture", "downloadCode": "a"},
            {"text": "新版："},
            {"downloadCode": "b"},
            {"text": "差别？"},
        ),
        "旧版：新版：差别？",
        (Words("旧版："), picture("a"), Words("新版："), picture("b"), Words("差别？")),
    ),
    (
        rich({"msgType": "text", "content": "see"}, {"msgType": "picture", "downloadCode": "pic"}),
        "see",
        (Words("see"), picture()),
    ),
    (rich({"type": "picture", "pictureDownloadCode": "pic"}), "", (picture(),)),
    (rich({"type": "picture"}, {"text": "x"}), "x", (Mark(MarkKind.NO_CODE, "picture"), Words("x"))),
    (
        rich({"type": "emoji", "content": "[smile]"}, {"type": "skill", "name": "translate"}),
        "[smile]translate",
        (Words("[smile]translate"),),
    ),
    (
        rich({"text": "a"}, {"type": "novelty"}, None, 7),
        "a7",
        (Words("a"), Mark(MarkKind.UNKNOWN, "novelty"), Words("7")),
    ),
    (rich({"text": "a"}, {"text": ""}), "a", (Words("a"),)),
    ({"msgtype": "richText", "content": '{"richText":[{"text":"as text"}]}'}, "as text", (Words("as text"),)),
    (
        {"msgtype": "richText", "richText": {"richTextList": [{"text": "old"}, {"pictureUrl": "u"}]}},
        "old",
        (Words("old"), Mark(MarkKind.NO_CODE, "picture")),
    ),
    ({"msgtype": "richText", "content": {"richText": {"richTextList": [{"text": "old"}]}}}, "old", (Words("old"),)),
    ({"msgtype": "richText", "content": {"richText": None}}, "", ()),
    (
        rich({"type": "file", "downloadCode": "f", "fileName": "a.csv"}),
        "",
        (Media(MediaKind.FILE, Secret("f"), "a.csv"),),
    ),
    # one file
    ({"msgtype": "picture", "content": {"downloadCode": "pic", "pictureDownloadCode": "x"}}, "", (picture(),)),
    ({"msgtype": "picture", "content": {"pictureDownloadCode": "pic"}}, "", (picture(),)),
    ({"msgtype": "picture", "content": None}, "", (Mark(MarkKind.NO_CODE, "picture"),)),
    (
        {"msgtype": "audio", "content": {"duration": 3200, "downloadCode": "a", "recognition": "明天提醒我开会"}},
        "明天提醒我开会",
        (Media(MediaKind.AUDIO, Secret("a"), seconds=3.2), Words("明天提醒我开会")),
    ),
    (
        {"msgtype": "audio", "content": {"duration": 3200, "downloadCode": "a", "recognition": " "}},
        "",
        (Media(MediaKind.AUDIO, Secret("a"), seconds=3.2), Mark(MarkKind.NO_SPEECH)),
    ),
    (
        {"msgtype": "audio", "content": {"downloadCode": "a"}},
        "",
        (Media(MediaKind.AUDIO, Secret("a")), Mark(MarkKind.NO_SPEECH)),
    ),
    ({"msgtype": "audio", "content": {"recognition": "x"}}, "x", (Words("x"),)),
    (
        {"msgtype": "video", "content": {"duration": "5", "videoType": "mp4", "downloadCode": "v"}},
        "",
        (Media(MediaKind.VIDEO, Secret("v"), seconds=5.0),),
    ),
    (
        {"msgtype": "video", "content": {"duration": 5200, "downloadCode": "v"}},
        "",
        (Media(MediaKind.VIDEO, Secret("v"), seconds=5.2),),
    ),
    (
        {
            "msgtype": "file",
            "content": {"spaceId": "9", "fileName": "report v2.pdf", "downloadCode": "f", "fileId": "8"},
        },
        "",
        (Media(MediaKind.FILE, Secret("f"), "report v2.pdf"),),
    ),
    ({"msgtype": "file", "content": {"fileName": "a.pdf"}}, "", (Mark(MarkKind.NO_CODE, "a.pdf"),)),
    # what robots cannot open
    (
        {"msgtype": "unknownMsgType", "content": {"unknownMsgType": "[不支持的消息]"}},
        "",
        (Mark(MarkKind.UNKNOWN, "[不支持的消息]"),),
    ),
    (
        {
            "msgtype": "interactiveCard",
            "content": {
                "biz_custom_action_url": "dingtalk://x?route=previewDentry&type=file&spaceId=1&fileId=2",
                "title": "三季度",
            },
        },
        "",
        (Mark(MarkKind.DOCUMENT, "三季度"),),
    ),
    ({"msgtype": "interactiveCard", "content": {"biz_custom_action_url": "dingtalk://x"}}, "", (Mark(MarkKind.CARD),)),
    ({"msgtype": "interactiveCard", "content": {}}, "", (Mark(MarkKind.CARD),)),
    (
        {
            "msgtype": "interactiveCard",
            "content": {"cardContent": {"elementType": "box", "children": [{"value": "one"}, {"children": ["two"]}]}},
        },
        "one\ntwo",
        (Words("one\ntwo"),),
    ),
    # forwarded chats
    (
        {
            "msgtype": "chatRecord",
            "content": {
                "summary": "Ann: hi\nBob: ok",
                "chatRecord": '[{"senderNick":"Ann","msgType":"text","content":"hi"}]',
            },
        },
        "",
        (Record("", (Entry("Ann", (Words("hi"),)),)),),
    ),
    (
        record(
            {"senderId": "o1", "msgType": "text", "content": "发版吗"},
            {
                "senderNick": "李八",
                "msgType": "richText",
                "content": {
                    "richText": [
                        {"msgType": "text", "content": "报错如下"},
                        {"msgType": "picture", "downloadCode": "pic"},
                    ]
                },
            },
            {"senderId": "o1", "msgType": "picture", "content": {"downloadCode": "pic"}},
            {"senderId": "o9", "msgType": "file", "content": {"downloadCode": "f", "fileName": "a.log"}},
            {"senderId": "o9", "msgType": "audio", "content": {"recognition": "好"}},
            summary='["孙七:发版吗","李八:报错如下"]',
            title="群聊的聊天记录",
        ),
        "",
        (
            Record(
                "群聊的聊天记录",
                (
                    Entry("孙七", (Words("发版吗"),)),
                    Entry("李八", (Words("报错如下"), picture())),
                    Entry("孙七", (picture(),)),
                    Entry("o9", (Media(MediaKind.FILE, Secret("f"), "a.log"),)),
                    Entry("o9", (Words("好"),)),
                ),
            ),
        ),
    ),
    (
        {"msgtype": "chatRecord", "content": {"summary": "Ann: hi", "title": "t", "chatRecord": "[]"}},
        "",
        (Record("t", (Entry("Ann", (Words("hi"),)), EMPTY)),),
    ),
    ({"msgtype": "chatRecord", "content": {"chatRecord": "[]"}}, "", (Mark(MarkKind.EMPTY_RECORD),)),
    ({"msgtype": "chatRecord", "content": None}, "", (Mark(MarkKind.EMPTY_RECORD),)),
    (
        record({"senderNick": "A", "msgType": "novelty", "content": {}}),
        "",
        (Record("", (Entry("A", (Mark(MarkKind.UNKNOWN, "novelty"),)),)),),
    ),
    (record({"senderNick": "A", "content": "plain"}), "", (Record("", (Entry("A", (Words("plain"),)),)),)),
    (
        {
            "msgtype": "chatRecord",
            "content": {"records": [{"senderName": "A", "msgType": "text", "content": {"text": "x"}}]},
        },
        "",
        (Record("", (Entry("A", (Words("x"),)),)),),
    ),
]


DOCUMENT_URL = "dingtalk://x?route=previewDentry&type=file"


def said(*entries: tuple[str, str]) -> tuple[Part, ...]:
    return (Record("", tuple(Entry(name, (Words(words),)) for name, words in entries)),)


def forwarded(value: Any, **more: Any) -> dict[str, Any]:
    return {"msgtype": "chatRecord", "content": {"chatRecord": value} | more}


def card(content: Any) -> dict[str, Any]:
    return {"msgtype": "interactiveCard", "content": content}


ODD_BODIES: list[tuple[dict[str, Any], str, tuple[Part, ...]]] = [
    # A text in a file's place is no code and no words.
    ({"msgtype": "file", "content": "a.pdf"}, "", (Mark(MarkKind.NO_CODE, "a.pdf"),)),
    ({"msgtype": "picture", "content": "[图片]"}, "", (Mark(MarkKind.NO_CODE, "picture"),)),
    (
        {"msgtype": "unknownMsgType", "content": {"downloadCode": "f", "fileName": "a.doc"}},
        "",
        (Media(MediaKind.FILE, Secret("f"), "a.doc"),),
    ),
    # A shared document, wherever its address stands.
    (card(DOCUMENT_URL), "", (Mark(MarkKind.DOCUMENT),)),
    (card({"url": DOCUMENT_URL, "title": "T"}), "", (Mark(MarkKind.DOCUMENT, "T"),)),
    (card({"cardContent": [{"value": "T"}, {"value": DOCUMENT_URL}]}), "", (Mark(MarkKind.DOCUMENT, "T"),)),
    (card(json.dumps({"biz_custom_action_url": DOCUMENT_URL})), "", (Mark(MarkKind.DOCUMENT),)),
    ({"msgtype": "text", "text": {"content": DOCUMENT_URL}}, "", (Mark(MarkKind.DOCUMENT),)),
    # Words that are JSON.
    ({"msgtype": "text", "text": "[1, 2]"}, "[1, 2]", (Words("[1, 2]"),)),
    (
        record({"senderNick": "A", "content": "[1]"}, {"senderNick": "B", "msgType": "text", "content": '{"a": 1}'}),
        "",
        said(("A", "[1]"), ("B", '{"a": 1}')),
    ),
    # Rich text in other layouts.
    (rich({"type": "novelty", "text": ""}), "", (Mark(MarkKind.UNKNOWN, "novelty"),)),
    (rich({"msgType": "picture", "content": {"downloadCode": "pic"}}), "", (picture(),)),
    ({"msgtype": "richText", "content": {"text": "hi"}}, "hi", (Words("hi"),)),
    # Forwarded chats in other layouts.
    ({"msgtype": "chatRecord", "content": [{"senderNick": "A", "content": "x"}]}, "", said(("A", "x"))),
    ({"msgtype": "chatRecord", "chatRecord": '[{"senderNick":"A","content":"x"}]'}, "", said(("A", "x"))),
    ({"msgtype": "chatRecord", "content": "Ann: hi"}, "", (Record("", (Entry("Ann", (Words("hi"),)), EMPTY)),)),
    (forwarded({"senderNick": "A", "content": "x"}), "", said(("A", "x"))),
    (forwarded(["Ann: hi", "李八：好"]), "", said(("Ann", "hi"), ("李八", "好"))),
    (
        record({"senderNick": "A", "msgType": "picture", "downloadCode": "pic"}),
        "",
        (Record("", (Entry("A", (picture(),)),)),),
    ),
    # One line of the summary for each entry, whatever it says.
    (
        record(
            {"senderId": "o1", "content": "发版吗"},
            {"senderId": "o2", "content": "报错如下"},
            summary='["孙七:发版吗","李八:不发"]',
        ),
        "",
        said(("孙七", "发版吗"), ("李八", "报错如下")),
    ),
    # A line that tells of a picture is not the next words'.
    (
        record(
            {"senderId": "o1", "content": "x"},
            {"senderId": "o2", "msgType": "picture", "content": {"downloadCode": "pic"}},
            summary="Ann: [图片]",
        ),
        "",
        (Record("", (Entry("o1", (Words("x"),)), Entry("Ann", (picture(),)))),),
    ),
]


@pytest.mark.parametrize(("body", "text", "parts"), [*BODIES, *ODD_BODIES])
def test_what_a_body_says(body: dict[str, Any], text: str, parts: tuple[Part, ...]) -> None:
    """Text is the person's own words; parts are all of it, in order."""
    message = inbound(body)
    assert (message.text, message.all_parts, message.msgtype) == (text, parts, body["msgtype"])
    assert Inbound.from_json(message.to_json()) == message


def test_a_chat_within_a_chat() -> None:
    """Forwarded chats may hold others, down to a bound, beyond which a mark says how much there was."""
    inner: dict[str, Any] = {"senderNick": "A", "msgType": "text", "content": "deep"}
    for _ in range(DEPTH_MAX + 2):
        inner = {"senderNick": "A", "msgType": "chatRecord", "content": {"chatRecord": json.dumps([inner])}}
    (part,) = inbound(record(inner)).parts
    depth = 0
    while isinstance(part, Record):
        (entry,) = part.entries
        part, depth = entry.parts[0], depth + 1
    assert (part, depth) == (Mark(MarkKind.LEFT_OUT, "1"), DEPTH_MAX + 1)


def test_more_parts_than_there_is_room_for() -> None:
    """What is beyond the bound is counted in a mark at the end."""
    items = [each for n in range(PARTS_MAX) for each in ({"text": f"{n}"}, {"downloadCode": f"c{n}"})]
    parts = inbound(rich(*items)).parts
    assert len(parts) == PARTS_MAX + 1
    assert parts[-1] == Mark(MarkKind.LEFT_OUT, str(PARTS_MAX))


def test_more_words_than_there_is_room_for() -> None:
    """Words beyond the bound are cut, those of a forwarded chat too."""
    long = "x" * TEXT_MAX_CHARS
    (kept,) = inbound(
        record(*({"senderNick": "A", "msgType": "text", "content": long[:90_000]} for _ in range(9)))
    ).parts
    assert isinstance(kept, Record)
    words = sum(len(p.text) for entry in kept.entries for p in entry.parts if isinstance(p, Words))
    assert words == TEXT_MAX_CHARS
    assert kept.entries[-1].parts == (Mark(MarkKind.LEFT_OUT, "6"),)
    assert inbound({"msgtype": "text", "text": {"content": long + "y"}}).text == long


def test_a_forwarded_chat_may_be_long() -> None:
    """A chat of more messages than there is room for is kept, with a mark for the rest; those without words count."""
    (kept,) = inbound(record(*({"senderNick": "A", "content": f"{n}"} for n in range(PARTS_MAX + 50)))).parts
    assert isinstance(kept, Record)
    assert (len(kept.entries), kept.entries[-1].parts) == (PARTS_MAX, (Mark(MarkKind.LEFT_OUT, "51"),))
    (kept,) = inbound(record(*({"senderNick": "A", "content": ""} for _ in range(5000)))).parts
    assert isinstance(kept, Record)
    assert len(kept.entries) == PARTS_MAX


@pytest.mark.parametrize(
    "body",
    [
        forwarded("[]", summary=[" " * 20_000 + "x"] * 100),
        forwarded([{"senderId": f"o{n}", "content": f"w{n}"} for n in range(199)], summary=["n:q"] * 10_000),
        rich(*({"text": "@a "} for _ in range(20_000))),
    ],
)
def test_hostile_bodies_cost_little_time(body: dict[str, Any]) -> None:
    """However many lines, entries or fragments come, the event loop does not wait for them."""
    started = time.perf_counter()
    inbound(body)
    assert time.perf_counter() - started < 1


def test_words_that_are_cut_leave_a_mark() -> None:
    """Where only a part of the words had room, that is told."""
    parts = inbound(rich({"text": "a" * (TEXT_MAX_CHARS - 1)}, {"downloadCode": "pic"}, {"text": "bc"})).parts
    assert parts[1:] == (picture(), Words("b"), Mark(MarkKind.LEFT_OUT, "1"))
