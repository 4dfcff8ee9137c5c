"""Checks: what `claw doctor` and `claw auth` look at, one finding each, and how they are run.

Order of events in `run_checks`: every check gets a task and waits for those that it needs or comes after. It is
skipped, with the reason, where one that it needs does not work or a variable that it reads is at fault; else it runs
within its time. Independent ones run at the same time. A check never raises: whatever happens is its finding. What
one learns for others (a token, a registration) is kept in `Context`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import aiohttp

from claw.cli.doctor.texts import SYMPTOMS, TEXTS, Symptom
from claw.clock import Clock
from claw.config import reader, settings
from claw.config.settings import Settings
from claw.errors import SettingsError
from claw.language import Language, Text, choose
from claw.observe.redact import redact, register
from claw.secret import Secret
from claw.stream.gateway import Registration

TIMEOUT_S: Final = 10.0
"""Seconds that a check may wait for the other side."""
GRACE_S: Final = 5.0
"""Seconds beyond that after which a check is given up from outside."""
VALUE_CHARS: Final = 600
"""Characters of one value in a sentence."""


class CheckStatus(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"
    SKIPPED = "skipped"


RANKS: Final = {CheckStatus.SKIPPED: 0, CheckStatus.OK: 0, CheckStatus.WARNING: 1, CheckStatus.FAULT: 2}
"""Also the exit code of `claw doctor`, by the worst: what cannot be checked is no fault."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found: the key of a sentence in texts.toml, and its values."""

    status: CheckStatus
    key: str
    values: Mapping[str, object] = field(default_factory=dict)


def good(key: str, **values: object) -> Finding:
    return Finding(CheckStatus.OK, key, values)


def warn(key: str, **values: object) -> Finding:
    return Finding(CheckStatus.WARNING, key, values)


def fault(key: str, **values: object) -> Finding:
    return Finding(CheckStatus.FAULT, key, values)


def skip(key: str, **values: object) -> Finding:
    return Finding(CheckStatus.SKIPPED, key, values)


@dataclass
class Context:
    """What all checks of one run share. The lower half is filled by checks, for those that come after them."""

    settings: Settings
    http: aiohttp.ClientSession
    problems: tuple[str, ...] = ()
    """Sentences about the environment, in English, as `claw run` says them."""
    faulty: frozenset[str] = frozenset()
    """Names of variables that are missing or cannot be used; `settings` holds placeholders for them."""
    clock: Clock = field(default_factory=Clock)
    timeout: float = TIMEOUT_S
    offline: bool = False
    """Stay off the network, also where only the settings tell that a check would need it."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """What `settings` was read from, and the foreign variables that libraries read."""
    own_session: bool = False
    """Open a session even where a claw of this machine holds one: the credentials are new."""

    skew: float | None = None
    """Seconds that DingTalk's clock is ahead of ours, as far as is sure."""
    refused: bool = False
    """DingTalk does not accept the credentials."""
    token: str = ""
    registration: Registration | None = None
    billable: int = 0
    quota_used_up: bool = False
    quotas_refused: tuple[str, ...] = ()
    """Quotas (webhook, openapi) that DingTalk refused the running claw within the hour."""
    store_held: bool = False
    stream_open: bool = False
    """A claw of this machine says that its session is open."""


@dataclass(frozen=True, slots=True)
class CheckSpec:
    """An entry of the table of checks.

    `needs` must work first; `after` must only have ended; `variables` must be usable.
    """

    name: str
    run: Callable[[Context], Awaitable[Finding]]
    symptoms: tuple[Symptom, ...] = ()
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    online: bool = True
    billable: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """A finding in somebody's language. `ms`: milliseconds that the check took, waiting for others left out."""

    name: str
    status: CheckStatus
    message: str
    remedy: str
    symptoms: tuple[Symptom, ...]
    ms: int

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "status": self.status.value,
            "message": self.message,
            "remedy": self.remedy,
            "troubles": [SYMPTOMS[each].en for each in self.symptoms],
            "ms": self.ms,
        }


def find_worst(results: Sequence[Result]) -> CheckStatus:
    """Return the gravest status; OK where nothing is wrong."""
    found = max((result.status for result in results), key=RANKS.__getitem__, default=CheckStatus.OK)
    return found if RANKS[found] else CheckStatus.OK


# --- running ---------------------------------------------------------------------------------------------------


async def run_checks(
    checks: Sequence[CheckSpec],
    context: Context,
    language: Language,
    *,
    offline: bool = False,
    free: bool = False,
) -> list[Result]:
    """Run `checks`, which stand in an order in which none needs a later one; return their results in that order.

    `offline` leaves out what needs the network, `free` what DingTalk bills.
    """
    # Before any check runs: from here on no error's text can show one.
    for value in _list_secrets(context.settings):
        register(value)
    tasks: dict[str, asyncio.Task[Result]] = {}

    async def run_in_turn(check: CheckSpec) -> Result:
        # Names outside of this run are left out: `claw auth` runs a part of the table.
        earlier = [tasks[name] for name in (*check.needs, *check.after) if name in tasks]
        if earlier:
            await asyncio.wait(earlier)
        # From here: waiting for others is not this check's time.
        started = time.monotonic()
        blocking = (name for name in check.needs if name in tasks and not _is_working(tasks[name].result()))
        finding = _skip_by_option(check, offline=offline, free=free) or _skip_by_settings(check, context)
        if finding is None and (name := next(blocking, "")):
            finding = skip("skip.after", name=name)
        if finding is None:
            finding = await _run(check, context)
        return _make_result(check, finding, language, round((time.monotonic() - started) * 1000))

    # A check cannot fail, so that the group is never cancelled halfway.
    async with asyncio.TaskGroup() as group:
        for check in checks:
            tasks[check.name] = group.create_task(run_in_turn(check), name=f"claw.doctor.{check.name}")
    return [task.result() for task in tasks.values()]


def _is_working(result: Result) -> bool:
    return result.status in {CheckStatus.OK, CheckStatus.WARNING}


def _skip_by_option(check: CheckSpec, *, offline: bool, free: bool) -> Finding | None:
    if offline and check.online:
        return skip("skip.offline")
    if free and check.billable:
        return skip("skip.free")
    return None


def _skip_by_settings(check: CheckSpec, context: Context) -> Finding | None:
    names = [name for name in check.variables if name in context.faulty]
    return skip("skip.settings", names=", ".join(names)) if names else None


async def _run(check: CheckSpec, context: Context) -> Finding:
    # Each check has its own timeout and words for it; this one is for a check that hangs elsewhere.
    seconds = context.timeout + GRACE_S
    try:
        async with asyncio.timeout(seconds):
            return await check.run(context)
    except TimeoutError:
        return fault("check.timeout", seconds=f"{seconds:g}")
    except Exception as error:  # noqa: BLE001 - one broken check must not keep the others from being told
        # By its type only: an unforeseen error's text may hold anything.
        return fault("check.failed", cause=type(error).__name__)


def _make_result(check: CheckSpec, finding: Finding, language: Language, ms: int) -> Result:
    sentence = TEXTS[finding.key]
    message = _fill(sentence.message, language, finding.values)
    remedy = _fill(sentence.remedy, language, finding.values)
    return Result(check.name, finding.status, message, remedy, check.symptoms, ms)


def render(key: str, language: Language, **values: object) -> str:
    """Return a sentence of the texts as one line, fit for a screen: no secret, no control character, no line break."""
    return _fill(TEXTS[key].message, language, values)


def _fill(text: Text, language: Language, values: Mapping[str, object]) -> str:
    # Secrets are taken out of the values: out of the whole they would take our own words, and so show what they are.
    # A sentence of the settings has both languages: this is where a finding meets its reader.
    told = {name: choose(value, language) if isinstance(value, str) else str(value) for name, value in values.items()}
    shown = {name: _shorten(redact(text)) for name, text in told.items()}
    line = "".join(each if each.isprintable() else " " for each in text[language].format_map(shown))
    # An empty value leaves its blank behind, which would stand before the bracket.
    return re.sub(r" (?=[)）])", "", re.sub(r"\s+", " ", line).strip())


def _shorten(text: str) -> str:
    return text if len(text) <= VALUE_CHARS else text[:VALUE_CHARS] + "..."


def _list_secrets(loaded: Settings) -> list[Secret]:
    sections = [getattr(loaded, name) for name in loaded.__dataclass_fields__]
    fields = [vars(section) for section in sections if hasattr(section, "__dataclass_fields__")]
    return [value for each in fields for value in each.values() if isinstance(value, Secret) and value]


# --- the settings, as far as they go -----------------------------------------------------------------------------

_PLACEHOLDERS: Final = {"DINGTALK_CLIENT_ID": "-", "DINGTALK_CLIENT_SECRET": "-", "OPENAI_API_KEY": "-"}
"""For variables without which `load` gives nothing; what reads them is not run."""


def load_tolerant(environ: Mapping[str, str]) -> tuple[Settings, tuple[str, ...], frozenset[str]]:
    """Return settings even out of a faulty environment, every problem, and the variables that are at fault.

    Defaults and placeholders take the place of what cannot be used.
    """
    try:
        return reader.load(environ), (), frozenset()
    except SettingsError as error:
        problems = error.problems
    faulty = _find_variables(problems)
    # Once more without the faulty ones, so that the sound rest is checked as it is.
    used = {name: value for name, value in environ.items() if name not in faulty}
    placeholders = {name: value for name, value in _PLACEHOLDERS.items() if name in faulty}
    try:
        return reader.load(used | placeholders), problems, faulty
    except SettingsError as error:
        # Two variables that only together are wrong: nothing of ours is believed then.
        problems += tuple(problem for problem in error.problems if problem not in problems)
        faulty |= _find_variables(error.problems) | _PLACEHOLDERS.keys()
        return reader.load(_PLACEHOLDERS), problems, faulty


def _find_variables(problems: Collection[str]) -> frozenset[str]:
    """Return the variables that problems begin with, with all other names under which they can be set."""
    found = {name for problem in problems for name in re.findall(r"[A-Z][A-Z0-9_]+", problem.partition(":")[0])}
    names = set(found)
    # A fault of one name is a fault of its aliases: they set the same thing.
    for _, info in settings.variables():
        group = {each for name in (info.name, *info.aliases) for each in (name, f"{name}_FILE")}
        if group & found:
            names |= group
    return frozenset(names)
