"""Status: everything an operator asks, nothing that is secret, and no source that hides another."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from claw import __version__
from claw.config.reader import load
from claw.config.settings import Settings
from claw.dingtalk.quota import month_of
from claw.errors import StoreError
from claw.http.status import DEAD_SHOWN_MAX, UNKNOWN, Status, calls_json, dead_json, settings_json
from claw.language import choose
from claw.secret import hash_id
from claw.store.values import DeadLetter, Depth, RowKind
from tests.clock import FakeClock

ENVIRONMENT = {
    "DINGTALK_CLIENT_ID": "dingclient",
    "DINGTALK_CLIENT_SECRET": "ding-secret-value",
    "OPENAI_API_KEY": "sk-key-value",
    "OPENAI_BASE_URL": "http://[::1]:18789/v1/secret-path",
    "CLAW_ADMIN_TOKEN": "admin-token-value",
    "CLAW_SYSTEM_PROMPT": "private instructions",
    "CLAW_HISTRY_TURNS": "3",
}
LETTER = DeadLetter(
    "1",
    RowKind.MESSAGE,
    "robot:msg1",
    "server: 500 at\nhttps://h/?session=abcdef",
    3,
    1_800_000_000.0,
    1_800_000_100.0,
)
UP = {"up": True, "last_success": "2027-01-15T07:59:58.000Z", "last_error": None}
DOWN = {
    "up": False,
    "last_success": None,
    "last_error": {"at": "2027-01-15T07:59:59.000Z", "kind": "unreachable", "reason": "refused", "remedy": "start it"},
}


@pytest.fixture
def settings() -> Settings:
    return load(ENVIRONMENT)


def status_of(settings: Settings, **changed: Any) -> Status:
    async def depth() -> Depth:
        return Depth(pending=2, leased=1, dead=1, oldest_age=12.34)

    async def calls(month: str) -> dict[str, int]:
        return {"webhook": 5, "token": 2} if month == "2027-01" else {}

    async def dead(limit: int) -> list[DeadLetter]:
        return [LETTER][:limit]

    parts: dict[str, Any] = {
        "started_at": 1_799_999_990.0,
        "stream": lambda: {"state": "OPEN", "since": "now", "slots": [], "clock_skew_s": 0.0},
        "model": lambda: UP,
        "depth": depth,
        "turns": lambda: 1,
        "calls": calls,
        "dead": dead,
        "clock": FakeClock(),
        "timeout": 0.05,
    }
    return Status(settings, **(parts | changed))


async def test_the_whole(settings: Settings) -> None:
    """Every part is there under its name, as JSON."""
    told = await status_of(settings, more={"owner": lambda: hash_id("staff")}).snapshot()
    json.dumps(told)
    assert told["version"] == __version__
    assert (told["started_at"], told["uptime_s"]) == ("2027-01-15T07:59:50.000Z", 10.0)
    assert told["stream"] == {"state": "OPEN", "since": "now", "slots": [], "clock_skew_s": 0.0}
    assert told["model"] == UP
    assert told["inbox"] == {"pending": 2, "leased": 1, "dead": 1, "oldest_age_s": 12.3, "stuck": False}
    assert told["turns_in_flight"] == 1
    assert told["calls"] == {"month": "2027-01", "billable": 5, "by_api": {"token": 2, "webhook": 5}}
    assert told["dead_letters"][0]["error"] == "server: 500 at https://h/?session=***"
    assert told["owner"] == hash_id("staff")
    assert told["warnings"] == [choose(warning, settings.logs.language) for warning in settings.warnings]
    assert "CLAW_HISTORY_TURNS" in told["warnings"][0]
    assert {"python", "platform"} <= told.keys()


async def test_warnings_of_parts_are_among_all_warnings(settings: Settings) -> None:
    """What a part warns of, and messages that nobody works on, stand beside the warnings of the settings."""
    stuck = SimpleNamespace(pending=3, leased=0, dead=0, oldest_age=400.0, stuck=True)
    access = {"owner": [], "warning": "no owner yet"}
    told = await status_of(settings, more={"access": lambda: access}, depth=lambda: stuck).snapshot()
    assert told["inbox"]["stuck"] is True
    assert told["warnings"][len(settings.warnings) :] == [
        "no owner yet",
        "inbox: messages wait and nobody works on them",
    ]
    quiet = await status_of(settings, more={"access": lambda: {"owner": [], "warning": ""}}).snapshot()
    assert len(quiet["warnings"]) == len(settings.warnings)


async def test_nothing_secret(settings: Settings) -> None:
    """No secret, no prompt, no path of an address and no message's own key is shown."""
    shown = json.dumps(await status_of(settings).snapshot())
    for private in ("ding-secret", "sk-key", "admin-token", "private instructions", "secret-path", "robot:msg1"):
        assert private not in shown
    summary = settings_json(settings)
    assert summary["model"]["host"] == "[::1]:18789"
    assert summary["model"]["key"] is True
    assert summary["store"] == "sqlite"


async def hang() -> Any:
    await asyncio.Event().wait()


async def full() -> Any:
    raise StoreError("disk full at access_token=abcdef")


@pytest.mark.parametrize(
    ("source", "error"), [(hang, "no answer within 0.05 s"), (full, "StoreError: disk full at access_token=***")]
)
@pytest.mark.parametrize("part", ["stream", "model", "depth", "turns", "more"])
async def test_one_silent_source_hides_no_other(part: str, source: Any, error: str, settings: Settings) -> None:
    """A source that hangs or fails shows its error in its own place; all others are told."""
    whole = await status_of(settings, more={"more": lambda: 1}).snapshot()
    changed = {"more": {"more": lambda: 1}} | ({"more": {"more": source}} if part == "more" else {part: source})
    told = await status_of(settings, **changed).snapshot()
    name = {"depth": "inbox", "turns": "turns_in_flight"}.get(part, part)
    assert told.pop(name) == {"error": error}
    del whole[name]
    assert told == whole


@pytest.mark.parametrize(
    ("seconds", "month"),
    [
        (1_800_000_000.0, "2027-01"),
        (1_767_196_799.0, "2025-12"),  # 2025-12-31T15:59:59Z is 23:59:59 in China
        (1_767_196_800.0, "2026-01"),
    ],
)
def test_months_are_those_of_china(seconds: float, month: str) -> None:
    """DingTalk's month ends at midnight in China."""
    assert month_of(seconds) == month


def test_free_calls_are_not_counted() -> None:
    """The billable sum leaves out what costs nothing; the list shows all."""
    assert calls_json("2026-11", {}) == {"month": "2026-11", "billable": 0, "by_api": {}}
    assert calls_json("2026-11", {"token": 1, "webhook": 2})["billable"] == 2


async def test_a_chat_shows_the_same_snapshot(settings: Settings) -> None:
    """The figures of the chat's /status are those of GET /status."""
    assert await status_of(settings).figures() == {
        "model": f"{settings.model.name} (OK)",
        "stream": "OPEN",
        "pending": 1,
        "turns": 1,
        "dead": 1,
        "calls": 5,
        "version": __version__,
    }


async def test_a_chat_is_told_what_is_unknown(settings: Settings) -> None:
    """A source that fails leaves a mark in the chat's answer, and the rest is told."""
    figures = await status_of(settings, depth=full, stream=full, turns=full, calls=lambda _: full()).figures()
    assert figures["model"] == f"{settings.model.name} (OK)"
    unknown = {name for name, value in figures.items() if value == UNKNOWN}
    assert unknown == {"pending", "dead", "stream", "turns", "calls"}


@pytest.mark.parametrize(
    ("health", "word"),
    [
        (UP, "OK"),
        (DOWN, "FAILING"),
        (DOWN | {"last_success": UP["last_success"]}, "FAILING"),
        (UP | {"last_error": DOWN["last_error"]}, "OK"),
        ({"up": True, "last_success": None, "last_error": DOWN["last_error"]}, "OK"),
        ({"up": True, "last_success": None, "last_error": None}, UNKNOWN),
        ({}, UNKNOWN),
        ({"error": "no answer within 2 s"}, UNKNOWN),
    ],
)
async def test_a_chat_shows_the_model_in_one_word(health: dict[str, Any], word: str, settings: Settings) -> None:
    """The model's server is OK or FAILING as its last question found it, and unknown before the first one."""
    assert (await status_of(settings, model=lambda: health).figures())["model"] == f"{settings.model.name} ({word})"


def test_dead_letters_are_few_and_short() -> None:
    """At most DEAD_SHOWN_MAX letters are shown, each error as one short line."""
    letter = DeadLetter("1", RowKind.MESSAGE, "k", "x" * 5000, 1, 0.0, 0.0)
    shown = dead_json([letter] * 50)
    assert len(shown) == DEAD_SHOWN_MAX
    assert len(shown[0]["error"]) <= 300
    assert shown[0]["received_at"] is None
