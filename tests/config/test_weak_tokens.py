"""Admin tokens: too short ones are refused, guessable ones warned about, random ones pass in silence."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from claw.config.reader import load
from claw.config.weak_tokens import CHARS_MIN, describe_weakness
from claw.errors import SettingsError
from claw.secret import Secret

LEAST = {"DINGTALK_CLIENT_ID": "ding", "DINGTALK_CLIENT_SECRET": "secret-value", "OPENAI_API_KEY": "sk-value"}


@pytest.mark.parametrize("token", ["a", "admin", "1234567", "x" * (CHARS_MIN - 1)])
@pytest.mark.parametrize("from_file", [False, True])
def test_a_short_token_is_refused(token: str, from_file: bool, tmp_path: Path) -> None:
    """Fewer than CHARS_MIN characters are a fault of the settings, from a file too; the token is not shown."""
    file = tmp_path / "token"
    file.write_text(token, encoding="utf-8")
    given = {"CLAW_ADMIN_TOKEN_FILE": str(file)} if from_file else {"CLAW_ADMIN_TOKEN": token}
    with pytest.raises(SettingsError) as caught:
        load(LEAST | given)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{next(iter(given))}: its value is not usable")
    assert f"at least {CHARS_MIN} characters" in problem


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("changeme", "fewer than 16 characters"),
        ("x7Kq-92mPz", "fewer than 16 characters"),
        ("aaaaaaaaaaaaaaaaaaaa", "different characters"),
        ("0123456789abcdef", "in order"),
        ("abcdefghijklmnopqrstuvwxyz", "in order"),
        ("9876543210987654321", "in order"),
        ("changemechangeme", "well-known words"),
        ("Change-Me-Change-Me!", "well-known words"),
        ("my-secret-admin-token", "well-known words"),
        ("claw-admin-test-token-1", "well-known words"),
        ("qwertyuiopasdfghjkl", "well-known words"),
        ("Password-Password-2024", "well-known words"),
    ],
)
def test_a_weak_token_is_warned_about(token: str, why: str) -> None:
    """What people and examples write is called by its weakness, with the remedy and without the token."""
    (warning,) = load(LEAST | {"CLAW_ADMIN_TOKEN": token}).warnings
    assert warning.startswith("CLAW_ADMIN_TOKEN: ")
    assert why in warning
    assert "openssl rand -hex 32" in warning
    assert token not in warning


def test_random_tokens_pass() -> None:
    """What a generator makes is never warned about, and neither is a token that is not set."""
    for _ in range(300):
        for token in (secrets.token_hex(16), secrets.token_hex(32), secrets.token_urlsafe(12), secrets.token_urlsafe()):
            assert not describe_weakness(Secret(token)), token
    assert load(LEAST).warnings == ()


def test_a_file_that_turns_weak_changes_nothing(tmp_path: Path) -> None:
    """A token's file that holds too short a one later is one that went bad: the token before goes on."""
    file = tmp_path / "token"
    file.write_text("a-long-token-0001-x", encoding="utf-8")
    settings = load(LEAST | {"CLAW_ADMIN_TOKEN_FILE": str(file)})
    file.write_text("a", encoding="utf-8")
    assert settings.http.read_admin_token() == Secret("a-long-token-0001-x")
