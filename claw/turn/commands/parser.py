"""Reading a command out of a message: which one, and with what arguments.

`parse_command` is asked once for each message, and its result is carried along; `is_urgent` is handed to the inbox,
which must know at once what may not queue behind a running turn. Anything else that begins with a slash
is a question like any other: a path, or a command of the gateway behind.
"""

from __future__ import annotations

from typing import Final

from claw.messages import Inbound
from claw.turn.commands.handlers import COMMANDS
from claw.turn.commands.registry import Command

COMMAND_MAX_CHARS: Final = 300
"""The longest text that is looked at for a command: a pasted document that begins with a slash is none."""


def parse_command(text: str) -> Command | None:
    """Return the command that `text` is, in any case and with either slash that a Chinese keyboard gives."""
    stripped = text.strip()
    if not stripped.startswith(("/", "／")) or len(stripped) > COMMAND_MAX_CHARS:
        return None
    name, *arguments = stripped[1:].split() or [""]
    # A known name only: `/etc/hosts` is a question, and the gateway behind may have commands of its own.
    spec = COMMANDS.find(name.lower())
    if spec is None or (arguments and not spec.takes_arguments):
        return None
    # DingTalk leaves "@name" in the text of a mention; whom it means stands in `Inbound.mentioned`.
    plain = tuple(each for each in arguments if not each.startswith(("@", "＠")))
    return Command(spec, plain, name.lower() in spec.aliases, tuple(arguments))


def is_urgent(inbound: Inbound) -> bool:
    """Whether the message must not wait for the running turn: it is to end it, or has nothing to do with it."""
    command = parse_command(inbound.text)
    return command is not None and command.spec.urgent
