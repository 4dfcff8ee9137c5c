"""Whom a frame's `atUsers` name, as commands see it."""

from __future__ import annotations

import json

import pytest

from claw.stream.frames import parse
from claw.stream.inbound import to_inbound
from tests.stream import vectors

BOT = {"dingtalkId": "$:LWCP_v1:$FakeBot"}
BOB = {"dingtalkId": "$:LWCP_v1:$FakeBob", "staffId": "u-bob"}
GUEST = {"dingtalkId": "$:LWCP_v1:$FakeGuest"}


@pytest.mark.parametrize(
    ("robot", "mentioned"),
    [(BOT["dingtalkId"], ("u-bob", GUEST["dingtalkId"])), ("", ("u-bob",))],
)
def test_guests_are_named_by_their_id(robot: str, mentioned: tuple[str, ...]) -> None:
    """Who has no staff id is named by DingTalk's own, unless it may be the robot's."""
    frame = json.loads(vectors.ROBOT)
    data = json.loads(frame["data"]) | {"atUsers": [BOT, BOB, GUEST], "chatbotUserId": robot}
    frame["data"] = json.dumps(data)
    assert to_inbound(parse(json.dumps(frame)), "client").mentioned == mentioned
