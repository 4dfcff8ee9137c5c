"""Commands are read out of messages, and nothing else is taken for one."""

from __future__ import annotations

import pytest

from claw.turn.commands import Command, command_of, is_urgent
from tests.messages import inbound


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("/new", Command.NEW),
        ("  /NEW \n", Command.NEW),
        ("／new", Command.NEW),
        ("/新对话", Command.NEW),
        ("/stop", Command.STOP),
        ("/停止", Command.STOP),
        ("/help", Command.HELP),
        ("/status", Command.STATUS),
        ("new", None),
        ("/", None),
        ("/news", None),
        ("/etc/hosts 是什么？", None),
        ("/new and then tell me a story", None),
        ("please /stop", None),
        ("/" + "n" * 100_000, None),
        ("", None),
    ],
)
def test_command_of(text: str, command: Command | None) -> None:
    """A command is a whole message: a slash and a known name, in any case."""
    assert command_of(text) is command


@pytest.mark.parametrize(("text", "urgent"), [("/stop", True), ("/停止", True), ("/new", False), ("stop", False)])
def test_only_stop_is_urgent(text: str, urgent: bool) -> None:
    """Only /stop passes by the queue; /new waits its turn, so that it forgets what was said before it."""
    assert is_urgent(inbound(text)) is urgent
