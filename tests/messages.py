"""Messages for tests, with invented values."""

from __future__ import annotations

from itertools import count
from typing import Any

from claw.messages import ChatKind, Conversation, Inbound, Sender
from claw.parts import Person, Quote, Words
from claw.secret import Secret

_numbers = count(1)


def inbound(text: str = "hello", *, chat: str = "cidA", **fields: Any) -> Inbound:
    """A text message in `chat`, with a msgId of its own.

    `media` come behind the words, `quoted` are the words of what it replies to, `mentioned` the ids of people.
    """
    media = tuple(fields.pop("media", ()))
    if media:
        fields["parts"] = (*((Words(text),) if text else ()), *media)
    if quoted := fields.pop("quoted", ""):
        fields["quote"] = Quote(parts=(Words(quoted),))
    if "mentioned" in fields:
        fields["people"] = tuple(Person(each, each) for each in fields.pop("mentioned"))
    values: dict[str, Any] = {
        "robot_code": "dingfakeclient",
        "msg_id": f"msg{next(_numbers)}==",
        "conversation": Conversation(chat, ChatKind.DIRECT),
        "sender": Sender("$:LWCP_v1:$FakeAnn", "u-1001", "Ann"),
        "msgtype": "text",
        "text": text,
        "created_at": 1_771_234_570.0,
        "webhook": Secret("https://oapi.dingtalk.com/robot/sendBySession?session=00ff"),
        "webhook_expires": 1_771_239_970.0,
    }
    return Inbound(**(values | fields))
