"""Reading a command out of a message: which one, and with what arguments.

`parse_command` is asked once for each message, and its result is carried along; `is_urgent` is handed to the inbox,
which must know at once what may not queue behind a running turn.

A word behind a slash that is no command is taken for a slip: it is answered with the nearest one, and costs no
question. A path, or anything with more words, is a question like any other; so is what begins with two slashes, which
goes to the model with one, for a gateway behind may have commands of its own.
"""

from __future__ import annotations

import re
from typing import Final

from claw.messages import Inbound
from claw.turn.commands.handlers import UNKNOWN
from claw.turn.commands.registry import COMMANDS, Command

COMMAND_MAX_CHARS: Final = 300
"""The longest text that is looked at for a command: a pasted document that begins with a slash is none."""
_SLASHES: Final = ("/", "／")
_STOPS: Final = "。．.!！?？,，;；~～、"
"""What keyboards put behind a word."""
_WORD: Final = re.compile(r"[A-Za-z\u4e00-\u9fff][A-Za-z0-9_\u4e00-\u9fff-]{0,23}")
_HAN: Final = re.compile("[\u4e00-\u9fff]")


def parse_command(text: str) -> Command | None:
    """Return the command that `text` is, in any case and with either slash that a Chinese keyboard gives."""
    stripped = text.strip().rstrip(_STOPS + " ")
    if len(stripped) > COMMAND_MAX_CHARS:
        return None
    if not stripped.startswith(_SLASHES):
        word = stripped.lower()
        spec = COMMANDS.find_bare(word)
        return Command(spec, (), _is_chinese(word), ()) if spec is not None else None
    if stripped.startswith(tuple(a + b for a in _SLASHES for b in _SLASHES)):
        return None
    name, *arguments = stripped[1:].split() or [""]
    name = name.lower()
    spec = COMMANDS.find(name)
    if spec is None:
        # Alone: with words behind it, it is more likely somebody's question than a slip.
        return None if arguments or not _WORD.fullmatch(name) else Command(UNKNOWN, (name,), _is_chinese(name), (name,))
    if arguments and not spec.takes_arguments:
        return None
    # DingTalk leaves "@name" in the text of a mention; whom it means stands in `Inbound.mentioned`.
    plain = tuple(each for each in arguments if not each.startswith(("@", "＠")))
    return Command(spec, plain, _is_chinese(name), tuple(arguments))


def strip_escape(text: str) -> str:
    """Return what a person wants the model to get: two slashes at the beginning stand for one."""
    return text[1:] if text.startswith("//") else text


def is_urgent(inbound: Inbound) -> bool:
    """Whether the message must not wait for the running turn: it is to end it, or has nothing to do with it."""
    command = parse_command(inbound.text)
    return command is not None and command.spec.urgent


def _is_chinese(word: str) -> bool:
    return bool(_HAN.search(word))
