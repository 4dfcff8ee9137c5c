"""Commands are read out of messages, and nothing else is taken for one."""

from __future__ import annotations

import pytest

from claw.language import Language, Text
from claw.turn.commands.handlers import UNKNOWN
from claw.turn.commands.parser import is_urgent, parse_command
from claw.turn.commands.registry import COMMANDS, CommandRegistry
from tests.messages import inbound


@pytest.mark.parametrize(
    ("text", "name", "arguments", "chinese"),
    [
        ("/new", "new", (), False),
        ("  /NEW \n", "new", (), False),
        ("／new", "new", (), False),
        ("/ new", "new", (), False),
        ("/新对话", "new", (), True),
        ("/stop", "stop", (), False),
        ("/停止", "stop", (), True),
        ("/我的ID", "id", (), True),
        ("/policy group allowlist", "policy", ("group", "allowlist"), False),
        ("/策略 群 白名单", "policy", ("群", "白名单"), True),
        ("/allow @王大伟\u2005", "allow", (), False),
        ("/deny u-1002", "deny", ("u-1002",), False),
        ("/owner confirm", "owner", ("confirm",), False),
        ("/restart process", "restart", ("process",), False),
        # By other words, and as keyboards write them.
        *((text, "new", (), False) for text in ("/clear", "/reset", "/new。", "/new!", "/Clear ！", "／reset")),
        *((text, "new", (), True) for text in ("新会话", "新对话。", " 新会话！", "/新会话", "/清空", "清空对话")),
        *((text, "stop", (), True) for text in ("停止", "停止。", "停下", "/停", "/取消", "停止生成！")),
        *((text, "stop", (), False) for text in ("stop", "Stop!", "STOP .", "/stop。", "/cancel")),
        ("/命令", "help", (), True),
        ("/名单", "list", (), True),
    ],
)
def test_commands(text: str, name: str, arguments: tuple[str, ...], chinese: bool) -> None:
    """A command begins with a slash and a known name, in any case and language."""
    command = parse_command(text)
    assert command is not None
    assert (command.spec.name, command.arguments, command.chinese) == (name, arguments, chinese)


@pytest.mark.parametrize(
    "text",
    [
        "new",
        "/",
        "停止这个项目",
        "stop it",
        "帮助",
        "/usr/bin",
        "/news about claw",
        "//compact",
        "／／think high",
        "/etc/hosts 是什么？",
        "/new and then tell me a story",
        "please /stop",
        "/" + "n" * 100_000,
        "",
    ],
)
def test_questions(text: str) -> None:
    """What has no known name, or words behind a name that takes none, is a question."""
    assert parse_command(text) is None


@pytest.mark.parametrize("text", ["/news", "/newv", "/compact", "/总结", "／hlep。"])
def test_slips(text: str) -> None:
    """A word behind a slash that is no command is answered as such, and at once."""
    command = parse_command(text)
    assert command is not None
    assert command.spec is UNKNOWN
    assert is_urgent(inbound(text))


@pytest.mark.parametrize(
    "text",
    [
        "stop",
        "停止。",
        "新会话",
        "/停",
        "/stop",
        "/停止",
        "/new",
        "/help",
        "/帮助",
        "/status",
        "/id",
        "/model",
        "/chats",
    ],
)
def test_what_must_not_wait_behind_a_turn(text: str) -> None:
    """What ends a turn, or has nothing to do with it, passes by the queue."""
    assert is_urgent(inbound(text))


@pytest.mark.parametrize(
    "text", ["stop it", "hello", "/policy group open", "/allow u-1", "/deny u-1", "/owner confirm"]
)
def test_what_waits(text: str) -> None:
    """Questions wait their turn, and so does what changes who may talk: its order is its meaning."""
    assert not is_urgent(inbound(text))


@pytest.mark.parametrize("language", list(Language))
@pytest.mark.parametrize("owner_only", [False, True])
def test_every_command_is_in_help(owner_only: bool, language: Language) -> None:
    """`/help` names every command, the owner's apart, and tells each line once."""
    told = COMMANDS.format_help(language, owner_only=owner_only)
    for spec in COMMANDS:
        assert (f"`/{spec.name}" in told) is (spec.owner_only is owner_only)
    # By the names of the language first: who reads Chinese types Chinese.
    assert all(line.startswith("- `/") for line in told.splitlines())
    assert any("\u4e00" <= line[4] <= "\u9fff" for line in told.splitlines()) is (language is Language.ZH)
    assert len(set(told.splitlines())) == len(told.splitlines())


def test_a_name_is_given_once() -> None:
    """Two commands of one name are a fault of the program, which shows when it is imported."""
    registry = CommandRegistry()
    text = Text("", "")

    async def handler(*_: object) -> str:
        return ""

    registry.command("a", "甲", help_text=text)(handler)
    with pytest.raises(ValueError, match="甲"):
        registry.command("b", "甲", help_text=text)(handler)
