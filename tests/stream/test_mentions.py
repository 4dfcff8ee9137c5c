"""Who is @-ed, and the robot's own name, which is no part of what was said."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from claw.messages import Inbound
from claw.parts import Mark, MarkKind, Media, MediaKind, Person, Words
from claw.secret import Secret
from claw.stream.frames import parse
from claw.stream.inbound import to_inbound
from claw.stream.mentions import NAMES_MAX, RobotNames
from tests.stream import vectors

ROBOT = "$:LWCP_v1:$FakeBot"
BOT = {"dingtalkId": ROBOT}
BOB = {"dingtalkId": "$:LWCP_v1:$FakeBob", "staffId": "u-bob"}
GUEST = {"dingtalkId": "$:LWCP_v1:$FakeGuest"}
GROUP = json.loads(json.loads(vectors.ROBOT)["data"])
NBSP, FOUR_PER_EM, ZERO = "\u00a0", "\u2005", "\u200b"


def say(body: dict[str, Any], *others: dict[str, Any], **common: Any) -> Inbound:
    """A group message that @-s the robot and `others`; names learned from other tests do not count."""
    data = GROUP | {"atUsers": [BOT, *others], "text": None} | body | common
    return to_inbound(parse(vectors.frame(data)), "client")


def text(content: str) -> dict[str, Any]:
    return {"msgtype": "text", "text": {"content": content}}


def rich(*items: Any) -> dict[str, Any]:
    return {"msgtype": "richText", "content": {"richText": [{"text": e} if isinstance(e, str) else e for e in items]}}


@pytest.mark.parametrize(
    ("robot", "mentioned"),
    [(ROBOT, ("u-bob", GUEST["dingtalkId"])), ("", ("u-bob",))],
)
def test_guests_are_named_by_their_id(robot: str, mentioned: tuple[str, ...]) -> None:
    """Who has no staff id is named by DingTalk's own, unless it may be the robot's."""
    assert say(text("x"), BOB, GUEST, chatbotUserId=robot).mentioned == mentioned


@pytest.mark.parametrize(
    "body",
    [
        text("/stop"),
        text(" /stop"),
        text("@小助手 /stop"),
        text(" @小助手 /stop "),
        text(f"@小助手{NBSP}/stop"),
        text(f"@小助手{FOUR_PER_EM}/stop"),
        text(f"@小助手{ZERO} /stop"),
        text("＠小助手 /stop"),
        text("@小助手/stop"),
        text("@小助手\n/stop"),
        text("@小助手，/stop"),
        text("/stop @小助手"),
        text(f"/stop @小助手{FOUR_PER_EM}"),
        text("/stop@小助手"),
        text("@claw /stop"),
        text("@小助手 @小助手 /stop"),
        text("@小助手 /stop @小助手"),
        rich("@小助手", "/stop"),
        rich("@小助手 ", "/stop"),
        rich("@小助手 /stop"),
        rich("@小助手", " ", "/stop"),
        rich("/stop", "@小助手"),
        rich("/stop ", "@小助手 "),
        rich({"type": "at", "atName": "小助手", "atUserId": ROBOT}, "/stop"),
        rich({"type": "at", "atName": "小助手"}, " /stop"),
        rich("/stop", {"type": "at", "atName": "小助手", "atUserId": ROBOT}),
        rich({"type": "at", "atName": "小助手", "atUserId": "another form of its id"}, "/stop"),
        rich("@", "小助手", " /stop"),
        rich("@My Claw", "/stop"),
        rich("@My Claw ", " /stop"),
        rich("/stop", "@claw"),
        rich("\n", "@claw", "/stop"),
        text(f"@My Claw{FOUR_PER_EM}/stop"),
        text(f"/stop @My Claw{FOUR_PER_EM}"),
        text("@小助手@小助手 /stop"),
        text(" @claw /stop"),
        text("/stop@claw"),
        text("@小助手\u3000/stop"),
    ],
)
def test_a_mention_of_the_robot_is_not_said(body: dict[str, Any]) -> None:
    """Whichever client left it there, and at whichever end: `/stop` is what was said."""
    assert say(body).text == "/stop"


@pytest.mark.parametrize("body", [text("@小助手"), text(" @小助手 "), rich("@小助手"), rich("@小助手", " ")])
def test_a_mention_alone_says_nothing(body: dict[str, Any]) -> None:
    """A message that only @-s the robot has no words."""
    message = say(body)
    assert (message.text, message.parts) == ("", ())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        # The client took the mention off and left its blank: the rest is what was said.
        (" @property 是什么意思", "@property 是什么意思"),
        (" 解释一下 @property", "解释一下 @property"),
        (" 发给 a@b.com", "发给 a@b.com"),
        ("@小助手 写信给 bob@example.com", "写信给 bob@example.com"),
        ("@小助手 解释 @property", "解释 @property"),
        ("这里 @小助手 是谁", "这里 @小助手 是谁"),
        ("@小助手 a @小助手 b", "a @小助手 b"),
        (" @types/node 是什么", "@types/node 是什么"),
        (" @app.route('/x') 是什么", "@app.route('/x') 是什么"),
        ("@小助手 @types/node 是什么", "@types/node 是什么"),
        ("@小助手 ssh root@localhost", "ssh root@localhost"),
    ],
)
def test_what_only_looks_like_a_mention_stays(content: str, said: str) -> None:
    """Addresses, decorators and a name in the middle of a sentence are the person's words."""
    assert say(text(content)).text == said


@pytest.mark.parametrize("common", [{}, {"isInAtList": True}, {"atUsers": [BOB]}])
@pytest.mark.parametrize(
    ("body", "said"),
    [(text("@小助手 /stop"), "@小助手 /stop"), (rich({"type": "at", "atName": "Bob"}, "hi"), "@Bob hi")],
)
def test_in_a_direct_chat_nobody_is_mentioned(body: dict[str, Any], said: str, common: dict[str, Any]) -> None:
    """Without a mention of the robot nothing is taken off."""
    assert to_inbound(parse(vectors.frame(vectors.DIRECT | body | common)), "client").text == said


WANG, AT_WANG = {"dingtalkId": "$:w", "staffId": "u-w"}, {"type": "at", "atName": "王大伟", "atUserId": "$:w"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (text("/allow @王大伟"), "/allow @王大伟"),
        (text("@小助手 /allow @王大伟"), "/allow @王大伟"),
        (text("/allow @王大伟 @小助手"), "/allow @王大伟"),
        (text(" @王大伟 你好"), "@王大伟 你好"),
        (rich("@小助手", "/allow ", "@王大伟"), "/allow @王大伟"),
        (rich("@小助手", "@王大伟", "/allow"), "@王大伟/allow"),
        (rich(AT_WANG, "@小助手", "你好"), "@王大伟 你好"),
        (rich(AT_WANG, {"type": "at", "atName": "小助手", "atUserId": ROBOT}, "你好"), "@王大伟 你好"),
        (
            rich({"type": "at", "atName": "王大伟"}, {"type": "at", "atName": "小助手", "atUserId": ROBOT}, "你好"),
            "@王大伟 你好",
        ),
    ],
)
def test_a_colleague_is_not_taken_for_the_robot(body: dict[str, Any], said: str) -> None:
    """Where others are @-ed too, one mention is the robot's, and theirs stays."""
    assert say(body, WANG).text == said


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (text("@王大伟 @小助手 你好"), "@王大伟 你好"),
        (text("你好 @小助手 @王大伟"), "你好 @王大伟"),
        (text("@小助手你好"), "你好"),
        (rich("@小", "助手", "/stop"), "/stop"),
        (rich("@小助手你好"), "你好"),
        (text("发给 root@claw"), "发给 root@claw"),
        (text("你好 @clawback"), "你好 @clawback"),
    ],
)
def test_a_known_name_is_preferred(body: dict[str, Any], said: str) -> None:
    """A name that items told is found wherever it stands at an end, and in no other word."""
    robot = "$:LWCP_v1:$Known"
    for name in ("小助手", "claw"):
        at = {"type": "at", "atName": name, "atUserId": robot}
        say(rich(at, "hi"), chatbotUserId=robot, atUsers=[{"dingtalkId": robot}])
    assert say(body, chatbotUserId=robot, atUsers=[{"dingtalkId": robot}, WANG]).text == said


def test_a_name_in_use_is_not_forgotten() -> None:
    """Of more names than are remembered, the one that was not heard of for longest goes."""
    names = RobotNames()
    for number in range(NAMES_MAX):
        names.learn("r", "claw")
        names.learn("r", f"other{number}")
    assert "claw" in names.of("r")
    assert len(names.of("r")) == NAMES_MAX


def test_nobody_in_particular_leaves_a_mark() -> None:
    """A mention without a name keeps its place: by the staff id, or as a mark."""
    at = {"type": "at", "atUserId": BOB["dingtalkId"]}
    assert say(rich("请", at, "看"), BOB).text == "请@u-bob 看"
    parts = say(rich("请", {"type": "at", "atUserId": "?"}, "看")).parts
    assert parts == (Words("请"), Mark(MarkKind.UNKNOWN, "at"), Words("看"))


@pytest.mark.parametrize("content", ["@小助手 a" + " " * 190_000 + "x", "@" * 190_000, " @a" * 60_000, "@a " * 60_000])
def test_hostile_words_cost_no_time(content: str) -> None:
    """How long a message is looked at does not grow with the square of its length: the event loop waits for it."""
    started = time.perf_counter()
    say(text(content))
    assert time.perf_counter() - started < 1


def test_a_colleague_stays_in_the_sentence() -> None:
    """Of two who are @-ed, only the robot's mention goes; the colleague is known by name and staff id."""
    bob = {"type": "at", "atName": "@王大伟", "atUserId": BOB["dingtalkId"]}
    message = say(rich("@小助手", "请帮", bob, "写一句"), BOB)
    assert message.text == "请帮@王大伟 写一句"
    assert message.people == (Person(BOB["dingtalkId"], "u-bob", "王大伟"),)


def test_who_is_meant_by_a_plain_text() -> None:
    """DingTalk strips colleagues' names from plain text: they stand in `people` alone."""
    message = say(
        text(" 请帮  和  各写一句祝福"),
        {"dingtalkId": "$:x", "staffId": "u77"},
        {"dingtalkId": "$:y", "staffId": "u78"},
    )
    assert message.text == "请帮  和  各写一句祝福"
    assert [each.staff_id for each in message.people] == ["u77", "u78"]


def test_a_name_with_blanks_is_learned() -> None:
    """A robot whose name an item told is known by it in plain text, blanks included."""
    robot = "$:LWCP_v1:$Named"
    at = {"type": "at", "atName": "My Claw", "atUserId": robot}
    common = {"chatbotUserId": robot, "atUsers": [{"dingtalkId": robot}]}
    assert say(rich(at, " hi"), **common).text == "hi"
    assert say(text("@My Claw /stop"), **common).text == "/stop"
    assert say(text("/stop @My Claw"), **common).text == "/stop"


def test_pictures_keep_their_place() -> None:
    """A mention before a picture goes, the picture and the words after it stay."""
    item, picture = {"type": "picture", "downloadCode": "p"}, Media(MediaKind.PICTURE, Secret("p"))
    assert say(rich("@小助手", item, "是什么")).parts == (picture, Words("是什么"))
    assert say(rich(item, "@小助手 是什么")).parts == (picture, Words("是什么"))
    assert say(rich("看", item, "@小助手")).parts == (Words("看"), picture)
    assert say(rich(item, "@小助手")).parts == (picture,)
