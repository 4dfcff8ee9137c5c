"""Commands are read out of messages, and nothing else is taken for one."""

from __future__ import annotations

import pytest

from claw.turn.commands.parser import Command, Order, is_urgent, order_of
from tests.messages import inbound


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("/new", Order(Command.NEW)),
        ("  /NEW \n", Order(Command.NEW)),
        ("／new", Order(Command.NEW)),
        ("/新对话", Order(Command.NEW, chinese=True)),
        ("/stop", Order(Command.STOP)),
        ("/停止", Order(Command.STOP, chinese=True)),
        ("/policy group allowlist", Order(Command.POLICY, ("group", "allowlist"))),
        ("/策略 群 白名单", Order(Command.POLICY, ("群", "白名单"), chinese=True)),
        ("/allow @王大伟\u2005", Order(Command.ALLOW)),
        ("/deny u-1002", Order(Command.DENY, ("u-1002",))),
        ("/owner confirm", Order(Command.OWNER, ("confirm",))),
        ("/restart process", Order(Command.RESTART, ("process",))),
        ("new", None),
        ("/", None),
        ("/ new", Order(Command.NEW)),
        ("/news", None),
        ("/etc/hosts 是什么？", None),
        ("/new and then tell me a story", None),
        ("please /stop", None),
        ("/" + "n" * 100_000, None),
        ("", None),
    ],
)
def test_order_of(text: str, order: Order | None) -> None:
    """A command begins with a slash and a known name, in any case; only some take words."""
    assert order_of(text) == order


@pytest.mark.parametrize(("text", "urgent"), [("/stop", True), ("/停止", True), ("/new", False), ("stop", False)])
def test_only_stop_is_urgent(text: str, urgent: bool) -> None:
    """Only /stop passes by the queue; /new waits its turn, so that it forgets what was said before it."""
    assert is_urgent(inbound(text)) is urgent
