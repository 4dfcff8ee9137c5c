"""`claw --help` and the help of each command, in the operator's language."""

from __future__ import annotations

import re

import pytest

from claw.__main__ import build_parser
from claw.cli.help import TEXTS
from claw.language import Language

COMMANDS = ("", "run", "dev", "health", "auth", "doctor", "owner", "dead")
HAN = re.compile("[一-鿿]")


@pytest.fixture(params=[*Language])
def language(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Language:
    monkeypatch.setenv("CLAW_LANG", request.param.value)
    found: Language = request.param
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_one_language(command: str, language: Language, capsys: pytest.CaptureFixture[str]) -> None:
    """Headings, options and the command's own words are in the operator's language; the way to the other is named."""
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args([command, "--help"] if command else ["--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    told = told.replace(TEXTS["other"][language], "")
    if language is Language.ZH:
        assert told.startswith("用法：")
        assert not re.search(r"usage:|options:|positional|show this|default", told)
        assert HAN.search(told)
    else:
        assert not HAN.search(told)


def test_both_languages_have_the_same_placeholders() -> None:
    """What argparse fills in stands in both."""
    for key, text in TEXTS.items():
        found = [sorted(re.findall(r"%\(\w+\)s", text[language])) for language in Language]
        assert found[0] == found[1], key


def test_chinese_unless_set(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without CLAW_LANG the help is Chinese, as everything else that an operator reads."""
    monkeypatch.delenv("CLAW_LANG", raising=False)
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--help"])
    assert "用法：claw" in capsys.readouterr().out
