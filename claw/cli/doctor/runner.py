"""Checks: what `claw doctor` and `claw auth` look at, one finding each, and how they are run.

Order of events in `examine`: every check gets a task; it waits for those that it needs or comes after; it is skipped,
with the reason, where one that it needs does not work or a variable that it reads is at fault; else it runs within
its time. Independent ones run at the same time. A check never raises: whatever happens is its finding. What one
learns for others (a token, a registration) is kept in `Context`.
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

from claw.cli.doctor.texts import TROUBLES, Trouble, cure, said
from claw.clock import Clock
from claw.config import reader, settings
from claw.config.settings import Settings
from claw.errors import SettingsError
from claw.language import Language
from claw.observe.redact import redact, register
from claw.secret import Secret
from claw.stream.gateway import Registration

TIMEOUT_S: Final = 10.0
"""Seconds that a check may wait for the other side."""
GRACE_S: Final = 5.0
"""Seconds beyond that after which a check is given up from outside."""
VALUE_MAX: Final = 600
"""Characters of one value in a sentence."""


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"
    SKIPPED = "skipped"


SEVERITY: Final = {Status.SKIPPED: 0, Status.OK: 0, Status.WARNING: 1, Status.FAULT: 2}
"""Also the exit code of `claw doctor`, by the worst: what cannot be checked is no fault."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found: a sentence of doctor_texts and its values."""

    status: Status
    key: str
    values: Mapping[str, object] = field(default_factory=dict)


def good(key: str, **values: object) -> Finding:
    return Finding(Status.OK, key, values)


def warn(key: str, **values: object) -> Finding:
    return Finding(Status.WARNING, key, values)


def fault(key: str, **values: object) -> Finding:
    return Finding(Status.FAULT, key, values)


def skip(key: str, **values: object) -> Finding:
    return Finding(Status.SKIPPED, key, values)


@dataclass
class Context:
    """What all checks of one run share. The lower half is filled by checks, for those that come after them."""

    settings: Settings
    http: aiohttp.ClientSession
    problems: tuple[str, ...] = ()
    """Sentences about the environment, in English, as `claw run` says them."""
    faulty: frozenset[str] = frozenset()
    """Names of variables that are missing or cannot be used; `settings` holds stand-ins for them."""
    clock: Clock = field(default_factory=Clock)
    timeout: float = TIMEOUT_S
    offline: bool = False
    """Stay off the network, also where only the settings tell that a check would need it."""
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
    store_held: bool = False
    stream_open: bool = False
    """A claw of this machine says that its session is open."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at. `needs` must work first; `after` must only have ended; `variables` must be usable."""

    name: str
    run: Callable[[Context], Awaitable[Finding]]
    troubles: tuple[Trouble, ...] = ()
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    online: bool = True
    billable: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """A finding in somebody's language. `ms`: milliseconds that the check took, waiting for others left out."""

    name: str
    status: Status
    message: str
    remedy: str
    troubles: tuple[Trouble, ...]
    ms: int

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "status": self.status.value,
            "message": self.message,
            "remedy": self.remedy,
            "troubles": [TROUBLES[each].en for each in self.troubles],
            "ms": self.ms,
        }


def worst(results: Sequence[Result]) -> Status:
    """The gravest status; OK where nothing is wrong."""
    found = max((result.status for result in results), key=SEVERITY.__getitem__, default=Status.OK)
    return found if SEVERITY[found] else Status.OK


# --- running ---------------------------------------------------------------------------------------------------


async def examine(
    checks: Sequence[Check],
    context: Context,
    language: Language,
    *,
    offline: bool = False,
    free: bool = False,
) -> list[Result]:
    """Run `checks`, which stand in an order in which none needs a later one; their results in that order.

    `offline` leaves out what needs the network, `free` what DingTalk bills.
    """
    for value in _secrets(context.settings):
        register(value)
    tasks: dict[str, asyncio.Task[Result]] = {}

    async def one(check: Check) -> Result:
        earlier = [tasks[name] for name in (*check.needs, *check.after) if name in tasks]
        if earlier:
            await asyncio.wait(earlier)
        started = time.monotonic()
        blocking = (name for name in check.needs if name in tasks and not _works(tasks[name].result()))
        finding = _left_out(check, offline=offline, free=free) or _unset(check, context)
        if finding is None and (name := next(blocking, "")):
            finding = skip("skip.after", name=name)
        if finding is None:
            finding = await _found(check, context)
        return _result(check, finding, language, round((time.monotonic() - started) * 1000))

    async with asyncio.TaskGroup() as group:
        for check in checks:
            tasks[check.name] = group.create_task(one(check), name=f"claw.doctor.{check.name}")
    return [task.result() for task in tasks.values()]


def _works(result: Result) -> bool:
    return result.status in {Status.OK, Status.WARNING}


def _left_out(check: Check, *, offline: bool, free: bool) -> Finding | None:
    if offline and check.online:
        return skip("skip.offline")
    if free and check.billable:
        return skip("skip.free")
    return None


def _unset(check: Check, context: Context) -> Finding | None:
    names = [name for name in check.variables if name in context.faulty]
    return skip("skip.settings", names=", ".join(names)) if names else None


async def _found(check: Check, context: Context) -> Finding:
    seconds = context.timeout + GRACE_S
    try:
        async with asyncio.timeout(seconds):
            return await check.run(context)
    except TimeoutError:
        return fault("check.timeout", seconds=f"{seconds:g}")
    except Exception as error:  # noqa: BLE001 - one broken check must not keep the others from being told
        return fault("check.failed", cause=type(error).__name__)


def _result(check: Check, finding: Finding, language: Language, ms: int) -> Result:
    message = told(finding.key, language, **finding.values)
    remedy = _sentence(cure, finding.key, language, finding.values)
    return Result(check.name, finding.status, message, remedy, check.troubles, ms)


def told(key: str, language: Language, **values: object) -> str:
    """A sentence of the table as one line, fit for a screen: no secret, no control character, no line break."""
    return _sentence(said, key, language, values)


def _sentence(table: Callable[..., str], key: str, language: Language, values: Mapping[str, object]) -> str:
    # Secrets are taken out of the values: out of the whole they would take our own words, and so show what they are.
    shown = {name: _short(redact(str(value))) for name, value in values.items()}
    text = "".join(each if each.isprintable() else " " for each in table(key, language, **shown))
    return re.sub(r" (?=[)）])", "", re.sub(r"\s+", " ", text).strip())


def _short(text: str) -> str:
    return text if len(text) <= VALUE_MAX else text[:VALUE_MAX] + "..."


def _secrets(loaded: Settings) -> list[Secret]:
    sections = [getattr(loaded, name) for name in loaded.__dataclass_fields__]
    fields = [vars(section) for section in sections if hasattr(section, "__dataclass_fields__")]
    return [value for each in fields for value in each.values() if isinstance(value, Secret) and value]


# --- the settings, as far as they go -----------------------------------------------------------------------------

_STAND_INS: Final = {"DINGTALK_CLIENT_ID": "-", "DINGTALK_CLIENT_SECRET": "-", "OPENAI_API_KEY": "-"}
"""For variables without which `load` gives nothing; what reads them is not run."""


def lenient(environ: Mapping[str, str]) -> tuple[Settings, tuple[str, ...], frozenset[str]]:
    """Settings even out of a faulty environment: defaults and stand-ins take the place of what cannot be used.

    Also every problem, and the names of the variables that are at fault.
    """
    try:
        return reader.load(environ), (), frozenset()
    except SettingsError as error:
        problems = error.problems
    faulty = _named(problems)
    used = {name: value for name, value in environ.items() if name not in faulty}
    stand_ins = {name: value for name, value in _STAND_INS.items() if name in faulty}
    try:
        return reader.load(used | stand_ins), problems, faulty
    except SettingsError as error:
        # Two variables that only together are wrong: nothing of ours is believed then.
        problems += tuple(problem for problem in error.problems if problem not in problems)
        faulty |= _named(error.problems) | _STAND_INS.keys()
        return reader.load(_STAND_INS), problems, faulty


def _named(problems: Collection[str]) -> frozenset[str]:
    """The variables that problems begin with, with all other names under which they can be set."""
    found = {name for problem in problems for name in re.findall(r"[A-Z][A-Z0-9_]+", problem.partition(":")[0])}
    names = set(found)
    for _, info in settings.variables():
        group = {each for name in (info.name, *info.aliases) for each in (name, f"{name}_FILE")}
        if group & found:
            names |= group
    return frozenset(names)
