"""One snapshot of everything that an operator asks, for `GET /status` and for the command `/status` in a chat.

Order of events for one snapshot: all sources are asked at the same time, each within SOURCE_TIMEOUT_S. A source that
fails shows its error in its own place and hides nothing else. The pure functions below turn the answers into JSON. No
secret, no message's content and no person's name is in it; addresses are shown as hosts.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from aiohttp import web

from claw import __commit__, __version__
from claw.clock import Clock, format_rfc3339
from claw.config.settings import Settings
from claw.dingtalk.quota import month_of, sum_billable
from claw.http.health import NoAnswerError, ask, is_stuck
from claw.http.responses import json_response
from claw.language import Bilingual, Language, choose
from claw.observe.redact import redact
from claw.secret import hash_id
from claw.store.values import DeadLetter, Depth

SOURCE_TIMEOUT_S: Final = 2.0
"""Seconds that one source may take."""
DEAD_SHOWN_MAX: Final = 10
"""Dead letters that are shown, the newest ones."""
ERROR_CHARS: Final = 300
UNKNOWN: Final = "?"
"""What a chat is shown in the place of a figure whose source gave no answer."""

T = TypeVar("T")
Source = Callable[[], T | Awaitable[T]]


# --- values -> JSON: pure ------------------------------------------------------------------------------------


def process_json(started_at: float, now: float) -> dict[str, Any]:
    """Return which claw this is, and for how long it has run."""
    return {
        "version": __version__,
        "commit": __commit__ or None,
        "started_at": format_rfc3339(started_at),
        "uptime_s": round(max(now - started_at, 0.0), 1),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def depth_json(depth: Depth) -> dict[str, Any]:
    return {
        "pending": depth.pending,
        "leased": depth.leased,
        "dead": depth.dead,
        "oldest_age_s": round(depth.oldest_age, 1),
        "stuck": is_stuck(depth),
    }


def calls_json(month: str, calls: Mapping[str, int]) -> dict[str, Any]:
    """Return the calls of a month; DingTalk counts only some of them (docs/protocol.md section 6.6)."""
    return {"month": month, "billable": sum_billable(calls).total, "by_api": dict(sorted(calls.items()))}


def dead_json(letters: Sequence[DeadLetter]) -> list[dict[str, Any]]:
    """Return dead letters, newest first; the key is hashed as in traces, the error is cut and without secrets."""
    return [
        {
            # The key itself names the robot and DingTalk's message.
            "message": hash_id(letter.key),
            "error": " ".join(redact(letter.error).split())[:ERROR_CHARS],
            "attempts": letter.attempts,
            "received_at": format_rfc3339(letter.received_at),
            "buried_at": format_rfc3339(letter.buried_at),
        }
        for letter in letters[:DEAD_SHOWN_MAX]
    ]


def _host(url: str) -> str:
    parts = urlsplit(url)
    # urlsplit takes the brackets off, without which host and port of IPv6 cannot be told apart.
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return f"{host}:{parts.port}" if parts.port else host


def settings_json(settings: Settings) -> dict[str, Any]:
    """Return what was set, as far as it explains behaviour; secrets only by whether they are there."""
    return {
        "model": {
            "name": settings.model.name,
            "host": _host(settings.model.base_url),
            # Whether there is one explains a 401; what it is must not be seen.
            "key": bool(settings.model.api_key),
            "turn_timeout_s": settings.model.turn_timeout,
        },
        "dingtalk": {
            "openapi": _host(settings.dingtalk.openapi_endpoint),
            "oapi": _host(settings.dingtalk.oapi_endpoint),
            "secret_from_file": settings.dingtalk.secret_file is not None,
        },
        "conversation": {
            "history_turns": settings.conversation.history_turns,
            "system_prompt": bool(settings.conversation.system_prompt),
        },
        "stream": {
            "heartbeat_s": settings.stream.heartbeat,
            "rotate_s": settings.stream.rotate,
            "connections": settings.stream.connections,
        },
        "inbox": {
            "max_concurrency": settings.inbox.max_concurrency,
            "max_attempts": settings.inbox.max_attempts,
            "drain_timeout_s": settings.inbox.drain_timeout,
        },
        # Only the scheme: the rest may name a host and a user.
        "store": urlsplit(settings.store.shown).scheme,
        "language": settings.logs.language.value,
        "log_level": settings.logs.level,
    }


# --- the sources ---------------------------------------------------------------------------------------------


class Status:
    """Takes snapshots. Sources may be plain functions, which must not block, or coroutine functions.

    `stream` gives the supervisor's own words as JSON, `model` those of the model's client (up, last_success,
    last_error), `turns` the number of running turns, `calls` the counts of a month by api. `more` adds parts by name
    (owner, policies).
    """

    def __init__(
        self,
        settings: Settings,
        *,
        started_at: float,
        stream: Source[Mapping[str, Any]],
        depth: Source[Depth],
        turns: Source[int],
        calls: Callable[[str], Mapping[str, int] | Awaitable[Mapping[str, int]]],
        dead: Callable[[int], Sequence[DeadLetter] | Awaitable[Sequence[DeadLetter]]],
        model: Source[Mapping[str, Any]],
        more: Mapping[str, Source[Any]] | None = None,
        clock: Clock | None = None,
        timeout: float = SOURCE_TIMEOUT_S,
    ) -> None:
        self._settings = settings
        self._started_at = started_at
        self._stream = stream
        self._model = model
        self._depth = depth
        self._turns = turns
        self._calls = calls
        self._dead = dead
        self._more = dict(more or {})
        self._clock = clock or Clock()
        self._timeout = timeout

    async def snapshot(self) -> dict[str, Any]:
        """Ask every source, and return their answers as JSON by the names of `GET /status`."""
        now = self._clock.wall()
        month = month_of(now)
        parts = {
            # Each name is part of the API: operators' scripts read them.
            "stream": self._ask(self._stream, dict),
            "model": self._ask(self._model, dict),
            "inbox": self._ask(self._depth, depth_json),
            "turns_in_flight": self._ask(self._turns, int),
            "calls": self._ask(lambda: self._calls(month), lambda counts: calls_json(month, counts)),
            "dead_letters": self._ask(lambda: self._dead(DEAD_SHOWN_MAX), dead_json),
            **{name: self._ask(source, lambda value: value) for name, source in self._more.items()},
        }
        # Together, so that several silent sources cost one timeout and not the sum of theirs.
        answers = dict(zip(parts, await asyncio.gather(*parts.values()), strict=True))
        told = {
            **process_json(self._started_at, now),
            **answers,
            "settings": settings_json(self._settings),
            "warnings": [*self._settings.warnings, *_find_warnings(answers)],
        }
        found: dict[str, Any] = _localize(told, self._settings.logs.language)
        return found

    async def figures(self) -> dict[str, object]:
        """Return a snapshot's few figures that a chat shows, by the names in claw.turn.texts.STATUS."""
        return figures_of(await self.snapshot())

    async def _ask(self, source: Source[T], to_json: Callable[[T], Any]) -> Any:
        try:
            return to_json(await ask(source, self._timeout))
        except NoAnswerError as error:
            return {"error": error.reason}


def _localize(told: Any, language: Language) -> Any:
    """Return JSON with the sentences for the operator in their language."""
    # Last of all: until here a sentence has both, and json would take its English.
    if isinstance(told, dict):
        return {name: _localize(value, language) for name, value in told.items()}
    if isinstance(told, list):
        return [_localize(value, language) for value in told]
    return choose(told, language) if isinstance(told, Bilingual) else told


def _find_warnings(answers: Mapping[str, Any]) -> list[str]:
    """Return what the parts warn of, for whoever watches `warnings` alone: an owner in doubt, a dead queue."""
    found = [
        str(answer["warning"]) for answer in answers.values() if isinstance(answer, Mapping) and answer.get("warning")
    ]
    if answers["inbox"].get("stuck"):
        found.append("inbox: messages wait and nobody works on them")
    return found


def figures_of(snapshot: Mapping[str, Any]) -> dict[str, object]:
    """Pick the figures that a chat shows; UNKNOWN stands where a source gave none."""
    # A source that failed left `{"error": ...}` in its place, so that any figure may be missing.
    inbox = snapshot["inbox"]
    turns = snapshot["turns_in_flight"]
    return {
        "model": f"{snapshot['settings']['model']['name']} ({model_state(snapshot['model'])})",
        "stream": snapshot["stream"].get("state", UNKNOWN),
        "pending": inbox["pending"] - inbox["leased"] if "pending" in inbox else UNKNOWN,
        "turns": turns if isinstance(turns, int) else UNKNOWN,
        "dead": inbox.get("dead", UNKNOWN),
        "calls": budget_words(snapshot.get("budget", {})) or snapshot["calls"].get("billable", UNKNOWN),
        "version": snapshot["version"],
    }


def budget_words(budget: Mapping[str, Any]) -> str:
    """Return the month's calls by quota (`OpenAPI 120/5000, webhook 80/3000`); empty where they are not known."""
    quotas = {"OpenAPI": budget.get("openapi"), "webhook": budget.get("webhook")}
    return ", ".join(
        f"{name} {quota['used']}/{quota['limit'] or '∞'}" for name, quota in quotas.items() if isinstance(quota, dict)
    )


def model_state(health: Mapping[str, Any]) -> str:
    """Return in one word how the model's server did when it was last asked; UNKNOWN where nobody says."""
    if health.get("up") is False:
        return "FAILING"
    # A server is taken for up before anybody has asked it, which is not yet known to be so.
    return "OK" if health.get("last_success") or health.get("last_error") else UNKNOWN


def routes(status: Status) -> list[web.RouteDef]:
    """Make the route of `GET /status`, an administrator's."""

    async def get_status(_: web.Request) -> web.Response:
        return json_response(await status.snapshot())

    return [web.get("/status", get_status)]
