"""Commands that people write instead of a question, as words: which one, and with what arguments.

`order_of` reads one out of a message; `is_urgent` tells the inbox which messages must not queue behind the turn that
they are meant for. Anything else that begins with a slash is a question like any other: a path, or a command of the
gateway behind. What a command does is in orders.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from claw.messages import Inbound

ORDER_MAX: Final = 300
"""Characters of the longest text that is looked at for a command."""


class Command(StrEnum):
    """What can be asked of claw itself."""

    NEW = "new"
    STOP = "stop"
    HELP = "help"
    MODEL = "model"
    ID = "id"
    STATUS = "status"
    CHATS = "chats"
    POLICY = "policy"
    ALLOW = "allow"
    DENY = "deny"
    OWNER = "owner"
    RESTART = "restart"


OWNERS: Final = frozenset(
    {
        Command.STATUS,
        Command.CHATS,
        Command.POLICY,
        Command.ALLOW,
        Command.DENY,
        Command.OWNER,
        Command.RESTART,
    }
)
"""Commands that only the owner may give."""
_WITH_WORDS: Final = frozenset({Command.POLICY, Command.ALLOW, Command.DENY, Command.OWNER, Command.RESTART})
"""Commands that take words; any other one followed by words is a question."""

_CHINESE: Final[dict[str, Command]] = {
    "新对话": Command.NEW,
    "停止": Command.STOP,
    "帮助": Command.HELP,
    "模型": Command.MODEL,
    "我的id": Command.ID,
    "状态": Command.STATUS,
    "会话": Command.CHATS,
    "策略": Command.POLICY,
    "允许": Command.ALLOW,
    "禁止": Command.DENY,
    "主人": Command.OWNER,
    "重启": Command.RESTART,
}
_NAMES: Final = {each.value: each for each in Command} | _CHINESE


@dataclass(frozen=True, slots=True)
class Order:
    """A command with its words, mentions left out: those are in `Inbound.mentioned`."""

    command: Command
    words: tuple[str, ...] = ()
    chinese: bool = False
    """Written by its Chinese name."""


def order_of(text: str) -> Order | None:
    """The order that `text` is, in any case and with either slash that a Chinese keyboard gives."""
    stripped = text.strip()
    if not stripped.startswith(("/", "／")) or len(stripped) > ORDER_MAX:
        return None
    name, *words = stripped[1:].split() or [""]
    command = _NAMES.get(name.lower())
    if command is None or (words and command not in _WITH_WORDS):
        return None
    return Order(
        command, tuple(word for word in words if not word.startswith(("@", "＠"))), chinese=name.lower() in _CHINESE
    )


def is_urgent(inbound: Inbound) -> bool:
    """Whether the message is to interrupt the running turn rather than to wait for it."""
    order = order_of(inbound.text)
    return order is not None and order.command is Command.STOP
