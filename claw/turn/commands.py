"""Commands that people write instead of a question: `/new`, `/stop`, `/help`, `/status`.

`command_of` reads one out of a message; `is_urgent` tells the inbox which messages must not queue behind the turn that
they are meant for. Anything else that begins with a slash is a question like any other: a path, or a command of the
gateway behind.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from claw.messages import Inbound


class Command(StrEnum):
    """What can be asked of claw itself."""

    NEW = "new"
    STOP = "stop"
    HELP = "help"
    STATUS = "status"


_NAMES: Final[dict[str, Command]] = {
    "new": Command.NEW,
    "新对话": Command.NEW,
    "stop": Command.STOP,
    "停止": Command.STOP,
    "help": Command.HELP,
    "帮助": Command.HELP,
    "status": Command.STATUS,
    "状态": Command.STATUS,
}


def command_of(text: str) -> Command | None:
    """The command that `text` is, in any case and with either slash that a Chinese keyboard gives."""
    stripped = text.strip()
    if not stripped.startswith(("/", "／")) or len(stripped) > 32:
        return None
    return _NAMES.get(stripped[1:].strip().lower())


def is_urgent(inbound: Inbound) -> bool:
    """Whether the message is to interrupt the running turn rather than to wait for it."""
    return command_of(inbound.text) is Command.STOP
