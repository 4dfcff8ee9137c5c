"""How a picture or file appears in an answer, and what is said in its place where it could not be brought."""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

from claw.language import Language, Text
from claw.messages import FileRole, SentFile
from claw.reply.references import FILE_NAME, Form, Place, Reference

LABEL_MAX_CHARS: Final = 120
_BRACKETS: Final = re.compile(r"[\[\]\n]+")


class Hindrance(Enum):
    """Why a picture or file did not get to the person."""

    NOT_FETCHED = auto()
    NOT_ALLOWED = auto()
    """It lies inside of a network, or is not offered by https."""
    TOO_LARGE = auto()
    TOO_MANY = auto()
    DAMAGED = auto()
    UNSUPPORTED = auto()
    LATE = auto()
    """Time ran out."""
    NO_WAY = auto()
    """DingTalk has no way of sending a file there."""
    NO_PERMISSION = auto()
    """DingTalk lets this app not upload: the operator's to cure."""
    BUDGET = auto()
    """The month's calls are used up, or kept for plain answers."""
    REFUSED = auto()
    """DingTalk did not take it."""
    LOCAL = auto()
    """It lies on the agent's machine."""


_CAUSES: Final = {
    Hindrance.NOT_FETCHED: Text("取不到", "it could not be fetched"),
    Hindrance.NOT_ALLOWED: Text("地址不允许访问", "its address may not be used"),
    Hindrance.TOO_LARGE: Text("超过 20 MB", "it is larger than 20 MB"),
    Hindrance.TOO_MANY: Text("数量太多", "there are too many"),
    Hindrance.DAMAGED: Text("内容不完整或已损坏", "it is damaged or not complete"),
    Hindrance.UNSUPPORTED: Text("格式不支持", "its kind cannot be sent"),
    Hindrance.LATE: Text("传送超时", "it took too long"),
    Hindrance.NO_WAY: Text("这个会话里机器人不能发文件", "files cannot be sent in this chat"),
    Hindrance.NO_PERMISSION: Text(
        "机器人没有上传权限，请联系管理员", "the robot may not upload; please tell the administrator"
    ),
    Hindrance.BUDGET: Text("本月调用额度不足", "this month's calls are used up"),
    Hindrance.REFUSED: Text("钉钉没有接收", "DingTalk did not take it"),
    Hindrance.LOCAL: Text(
        "文件在智能体的服务器上，没能发过来", "it is on the agent's machine and could not be brought here"
    ),
}
_PICTURE: Final = Text("图片", "picture")
_FILE: Final = Text("文件", "file")
_MARK: Final = Text("（{thing}未能发送：{cause}）", " ({thing} not sent: {cause})")

NOT_SENT: Final = Text("（文件“{name}”未能发送：{cause}）", '(The file "{name}" was not sent: {cause}.)')
"""What is sent in the place of a file whose message DingTalk refuses."""
WHOLE_NOT_SENT: Final = Text("（完整回答的文件未能发送。）", "(The file with the whole answer could not be sent.)")
WHOLE_NAME: Final = Text("回答.md", "answer.md")
"""The name of an answer that is sent as a file."""
HISTORY_MARK: Final = "[{thing}: {label}]"


def show_inline(label: str, media_id: str) -> str:
    """Return the markdown by which DingTalk shows an uploaded picture.

    In this place alone: whether clients take a `mediaId` there is disputed (docs/protocol.md section 10a).
    """
    return f"![{_BRACKETS.sub(' ', label)[:LABEL_MAX_CHARS].strip()}]({media_id})"


def show_file(reference: Reference, name: str) -> str:
    """Return what stands in the text where a file is named that is sent behind it."""
    # Whoever cannot open the message with the file, as on another client, still has the address.
    if reference.place is Place.WEB:
        return show_link(reference)
    return f"📎 {name}"


def show_link(reference: Reference) -> str:
    """Return a link to what the text names, for who can open it."""
    label = _BRACKETS.sub(" ", reference.label or reference.name or FILE_NAME)[:LABEL_MAX_CHARS].strip()
    return f"[{label}](<{reference.target}>)" if " " in reference.target else f"[{label}]({reference.target})"


def say_hindrance(reference: Reference, text: str, cause: Hindrance, language: Language) -> str:
    """Return what stands in the place of `text` where what it names could not be brought."""
    if reference.place is Place.WEB and cause is not Hindrance.LOCAL:
        # Who reads it may be able to open what we are not: the link stays. A picture inside a network does not show.
        if reference.form is Form.HANDOVER or (reference.form is Form.PICTURE and cause is Hindrance.NOT_ALLOWED):
            return show_link(reference)
        return text
    thing = _name_thing(reference)
    # Never the path: it is of no use to a person, and tells strangers how the machine is laid out.
    named = reference.name if cause is Hindrance.LOCAL else reference.label or reference.name
    mark = _MARK[language].format(thing=thing[language], cause=_CAUSES[cause][language])
    return (named + mark).strip()


def say_not_sent(file: SentFile, language: Language) -> str:
    """Return the words in the place of a file whose message DingTalk refused for good."""
    # Its name is ours, and tells a person nothing.
    if file.role is FileRole.WHOLE:
        return WHOLE_NOT_SENT[language]
    return NOT_SENT[language].format(name=file.name, cause=_CAUSES[Hindrance.REFUSED][language])


def shorten_embedded(reference: Reference) -> str:
    """Return what history keeps of embedded data: a model has no use for megabytes of it."""
    return HISTORY_MARK.format(thing=_name_thing(reference).en, label=reference.label or reference.name or "-")


def _name_thing(reference: Reference) -> Text:
    is_picture = reference.form is Form.PICTURE or reference.target[:11].lower() == "data:image/"
    return _PICTURE if is_picture else _FILE
