"""The bodies of what people send, by msgtype, as DingTalk hands them on (docs/protocol.md section 5.2, 5.3, 10a, V7).

Order of events: `make_body` makes up a body for whoever gives none; `mention` changes it into what a client sends to a
group's robot; `make_record` makes a forwarded chat; `quote_content` says what a message looks like when another one
replies to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Final

from claw.emulator.chats import ROBOT_NAME, FakeMessage, Person, UnknownError, describe_items, spell_items

DOCUMENT_URL: Final = "dingtalk://dingtalkclient/page/yunpan?route=previewDentry&type=file&spaceId=900001&fileId=800001"
"""Where a shared document leads."""
SUMMARY_CHARS: Final = 40
"""Of each message that a forwarded chat's summary tells."""


class Client(StrEnum):
    """What a person writes with."""

    USUAL = "usual"
    """Takes mentions out of plain text, and leaves their blanks."""
    HARMONY = "harmony"
    """Sends a group mention as a rich text whose first fragment is the plain text `@robot`."""
    LEAVES_MENTION = "leaves_mention"
    """Leaves `@robot` in the text, before the words."""
    TRAILS_MENTION = "trails_mention"
    """Leaves `@robot` in the text, after the words."""


def find_client(name: str) -> Client:
    """Find a client by its name. Raises UnknownError."""
    try:
        return Client(name)
    except ValueError:
        raise UnknownError(f"no client {name!r}; there are {', '.join(Client)}") from None


def make_body(msgtype: str, text: str, add_sample: Callable[[], str]) -> dict[str, Any]:
    """Make up a body for a message of that type; `add_sample` gives the download code of some file."""
    match msgtype:
        case "text":
            return {"content": text}
        case "markdown":
            return {"text": text}
        case "interactiveCard":
            return {"biz_custom_action_url": DOCUMENT_URL}
        case "picture" | "richText":
            code = add_sample()
            picture = {"downloadCode": code, "pictureDownloadCode": code}
            return picture if msgtype == "picture" else {"richText": [{"text": text}, {"type": "picture"} | picture]}
        case "audio":
            return {"duration": 3200, "downloadCode": add_sample(), "recognition": text}
        case "video":
            return {"duration": "5", "videoType": "mp4", "downloadCode": add_sample()}
        case "file":
            return {
                "spaceId": "900001",
                "fileName": text or "a.png",
                "downloadCode": add_sample(),
                "fileId": "800001",
            }
        case _:
            # What the real one does with a type that robots cannot get: the type's own name as the key.
            return {msgtype: text or "[不支持的消息]"}


def mention(msgtype: str, body: dict[str, Any], others: Sequence[Person], client: Client) -> tuple[str, dict[str, Any]]:
    """Return type and body of a group message that mentions the robot, and others, as this client sends it."""
    name = f"@{ROBOT_NAME}"
    if msgtype == "richText":
        items = list(body.get("richText") or [])
        mentions = [{"type": "at", "atName": each.nick, "atUserId": each.dingtalk_id} for each in others]
        before = [{"text": name}] if client in {Client.HARMONY, Client.LEAVES_MENTION} else []
        after = [{"text": name}] if client is Client.TRAILS_MENTION else []
        return msgtype, {**body, "richText": [*before, *mentions, *items, *after]}
    if msgtype != "text" or "content" not in body:
        return msgtype, body
    text = str(body["content"])
    # Other people's names are taken out of plain text, too: they stand only in `atUsers`. Long ones first, since one
    # name may begin another.
    for nick in sorted((each.nick for each in others), key=len, reverse=True):
        text = text.replace(f"@{nick}", "")
    match client:
        case Client.HARMONY:
            return "richText", {"richText": [{"text": name}, {"text": text}]}
        case Client.LEAVES_MENTION:
            return msgtype, {"content": f"{name} {text}"}
        case Client.TRAILS_MENTION:
            return msgtype, {"content": f"{text} {name}"}
        case Client.USUAL:
            # The mention is taken out, and the blank after it stays.
            return msgtype, {"content": f" {text}"}


def make_record(messages: Sequence[FakeMessage], id_of: Callable[[str], str], *, named: bool) -> dict[str, Any]:
    """Make the body of a forwarded chat. `named`: its entries tell who spoke, else only the lines of its summary do."""
    entries: list[dict[str, Any]] = []
    for each in messages:
        who = {"senderNick": each.nick} if named else {"senderId": id_of(each.sender)}
        content = spell_items(each.content) if each.content and not each.card else each.text
        # A robot's markdown is words to whoever forwards it.
        kind = "text" if isinstance(content, str) else each.msgtype
        entries.append(who | {"msgType": kind, "content": content})
    lines = [(each.nick, _summarise(each)) for each in messages]
    return {
        # Lines or, where nobody else tells the names, a list as text (docs/protocol.md section 10a).
        "summary": "\n".join(f"{nick}: {text}" for nick, text in lines)
        if named
        else json.dumps([f"{nick}:{text}" for nick, text in lines], ensure_ascii=False),
        "title": "聊天记录",
        "chatRecord": json.dumps(entries, ensure_ascii=False),
    }


def _summarise(message: FakeMessage) -> str:
    text = describe_items(message.content, "[图片]") if message.msgtype == "richText" else message.text
    kinds = {"picture": "[图片]", "image": "[图片]", "file": "[文件]", "audio": "[语音]", "video": "[视频]"}
    return " ".join(kinds.get(message.msgtype, text).split())[:SUMMARY_CHARS]
