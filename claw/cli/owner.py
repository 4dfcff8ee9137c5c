"""`claw owner`: who owns the robot and why; and takes the stored owner away, so that pairing begins afresh.

Order of events: the settings are read as far as they go. `show` looks into the store from outside, beside a claw that
may be running, and puts CLAW_OWNER and the store side by side. `reset` does the same, refuses where nobody could become
the owner afterwards, asks, and opens the store as a claw would: a SQLite file is held by the claw that runs, so that
one has to be stopped first; Redis is shared, and each replica sees the change with its next message.

Staff ids are shown in full: whoever may run this can read the store. Exit codes: 0 good, 1 the store could not be read
or changed, 78 what is set or given cannot be used, 130 Ctrl-C.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Final

from claw.cli.doctor.command import INTERRUPTED
from claw.cli.doctor.runner import load_tolerant
from claw.cli.prompt import Prompt, UnusableError
from claw.clock import Clock, format_rfc3339
from claw.config.settings import EXIT_BAD_SETTINGS, Settings
from claw.errors import StoreBusyError, StoreError
from claw.language import Language
from claw.observe import logs
from claw.observe.redact import register
from claw.policy import Pairing
from claw.store.open import file_of, inspect, open_store
from claw.turn.access import CODE_PREFIX, HANDOVER, OWNER, Owner, Rules, parse_owner, resolve_rules

NEEDED: Final = frozenset({"DINGTALK_CLIENT_ID", "CLAW_STORE_URL", "CLAW_OWNER", "CLAW_OWNER_PAIRING"})
"""Variables that decide which store is meant and who owns the robot; a fault of any other is none here."""
RESET: Final = "owner_reset"
"""The entry that says when the owner was last taken away (RFC 3339)."""
_PAIRING: Final = {
    Pairing.FIRST: "owner.pairing_first",
    Pairing.CODE: "owner.pairing_code",
    Pairing.OFF: "owner.pairing_off",
}
"""How somebody can become the owner where there is none, and its sentence."""
_YES: Final = frozenset({"y", "yes", "是"})


class OwnerAction(StrEnum):
    """What the command does."""

    SHOW = "show"
    RESET = "reset"


class OwnerExit(IntEnum):
    """How the command ends."""

    GOOD = 0
    FAILED = 1
    UNUSABLE = EXIT_BAD_SETTINGS
    INTERRUPTED = INTERRUPTED


@dataclass
class OwnerReport:
    """What was found and done; `lines` say it in the person's language."""

    found: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    code: OwnerExit = OwnerExit.GOOD

    def to_json(self) -> str:
        body = {"ok": self.code is OwnerExit.GOOD, **self.found, "notes": self.lines}
        return json.dumps(body, ensure_ascii=False)


def main(
    environ: Mapping[str, str],
    problems: tuple[str, ...] = (),
    *,
    action: OwnerAction,
    as_json: bool = False,
    confirmed: bool = False,
    language: str = "",
) -> int:
    """Look, or reset, and report; returns the exit code. `problems` are those of reading the environment."""
    logs.configure("critical", "text", ())  # What the store logs is said here, in words.
    settings, more, faulty = load_tolerant(environ)
    prompt = Prompt(Language(language) if language else settings.logs.language, quiet=as_json)
    register(settings.store.password)
    report = OwnerReport()
    try:
        _require_sound((*problems, *more) if problems or faulty & NEEDED else (), prompt)
        asyncio.run(_act(settings, action, report, prompt, confirmed=confirmed))
    except UnusableError as error:
        report.lines.append(str(error))
        report.code = OwnerExit.UNUSABLE
    except StoreError as error:
        key = "owner.busy" if isinstance(error, StoreBusyError) else "owner.failing"
        report.lines.append(prompt.render(key, where=settings.store.shown, cause=error))
        report.code = OwnerExit.FAILED
    except KeyboardInterrupt:
        print(file=sys.stderr)  # noqa: T201 - the shell's prompt begins on a line of its own
        return OwnerExit.INTERRUPTED
    if as_json:
        print(report.to_json())  # noqa: T201
    else:
        target = sys.stdout if report.code is OwnerExit.GOOD else sys.stderr
        for line in report.lines:
            print(line, file=target)
    return report.code


def _require_sound(problems: tuple[str, ...], prompt: Prompt) -> None:
    """Raise UnusableError where there are problems: another store than the meant one must not be changed."""
    if problems:
        raise UnusableError(prompt.render("owner.settings", problems="; ".join(problems)))


async def _act(
    settings: Settings, action: OwnerAction, report: OwnerReport, prompt: Prompt, *, confirmed: bool
) -> None:
    """Do what was asked for. Raises StoreError, or UnusableError where it must not be done."""
    if action is OwnerAction.SHOW:
        _describe(settings, await _read_entries(settings), report, prompt)
        return
    if settings.access.pairing is Pairing.OFF and not settings.access.owner:
        raise UnusableError(prompt.render("owner.nobody"))
    path = file_of(settings.store)
    if path is not None and not path.exists():
        # Not opened: that would make a store where somebody may only have named the wrong path.
        report.lines.append(prompt.render("owner.no_store", where=settings.store.shown))
        return
    entries: dict[str, str] = {}
    # Settings that are gone without having been deleted cannot be read, and a reset is the way out of just that. A
    # store that is away fails again below.
    with contextlib.suppress(StoreError):
        entries = await _read_entries(settings)
    stored = parse_owner(entries)
    if not confirmed:
        _confirm(stored, prompt)
    removed = await _reset(settings)
    report.found = {"removed": _owner_json(stored), "entries": len(removed)}
    report.lines.append(prompt.render("owner.removed" if OWNER in removed else "owner.none_removed"))
    rules = resolve_rules(settings.access, {name: text for name, text in entries.items() if name not in removed})
    report.lines += [*_say_who_follows(settings, rules, prompt), *_say_what_stays(rules, prompt)]


async def _read_entries(settings: Settings) -> dict[str, str]:
    """Return what was settled at run time. Raises StoreError."""
    path = file_of(settings.store)
    if path is not None and not path.exists():
        return {}
    async with inspect(settings.store, settings.dingtalk.client_id, Clock()) as inspection:
        return await inspection.items()


def _confirm(stored: Owner | None, prompt: Prompt) -> None:
    """Ask the person at the terminal. Raises UnusableError where there is none, or the answer is no clear yes."""
    if not prompt.is_interactive:
        raise UnusableError(prompt.render("owner.needs_yes"))
    question = prompt.render("owner.ask", owner=_name(stored) if stored else "-")
    if prompt.ask(f"{question} [y/N]").strip().lower() not in _YES:
        raise UnusableError(prompt.render("owner.kept"))


async def _reset(settings: Settings) -> frozenset[str]:
    """Remove the owner, a handover that waits, and pairing codes; return their entries. Raises StoreError."""
    clock = Clock()
    store = open_store(settings.store, settings.dingtalk.client_id, clock)
    await store.open()
    try:
        entries: dict[str, str] = {}
        # Read anew under the lock: what was shown may have been changed since.
        with contextlib.suppress(StoreError):
            entries = await store.items()
        names = frozenset(name for name in entries if name in {OWNER, HANDOVER} or name.startswith(CODE_PREFIX))
        # The handover and the codes first: whoever is in the middle of a takeover must not finish it in between.
        await store.delete(*sorted(names - {OWNER} | {HANDOVER}))
        await store.delete(OWNER)
        await store.set(RESET, format_rfc3339(clock.wall()) or "")
    finally:
        await store.close()
    return names


# --- words -------------------------------------------------------------------------------------------------------


def _describe(settings: Settings, entries: Mapping[str, str], report: OwnerReport, prompt: Prompt) -> None:
    """Put both sources side by side, and say who is obeyed."""
    access = settings.access
    stored, rules = parse_owner(entries), resolve_rules(access, entries)
    differs = stored is not None and bool(access.owner) and stored.staff_id not in access.owner
    report.found = {
        "owners": sorted(rules.owners),
        "environment": list(access.owner),
        "stored": _owner_json(stored),
        "differs": differs,
        "pairing": access.pairing.value,
        "handover": HANDOVER in entries,
        "reset_at": entries.get(RESET),
        "denied": len(rules.denied),
        "changed_at_run_time": sorted(rules.overrides),
    }
    say = prompt.render
    lines = [say("owner.environment", owners=", ".join(access.owner)) if access.owner else say("owner.no_environment")]
    if stored is not None:
        lines.append(say("owner.stored", owner=_name(stored)))
    else:
        lines.append(say("owner.unreadable" if OWNER in entries else "owner.not_stored"))
    if HANDOVER in entries:
        lines.append(say("owner.handover"))
    lines += _say_who_follows(settings, rules, prompt)
    if differs:
        lines.append(say("owner.differs"))
    report.lines += [*lines, *_say_what_stays(rules, prompt)]


def _say_who_follows(settings: Settings, rules: Rules, prompt: Prompt) -> list[str]:
    """Say whom the robot obeys, or who can become its owner."""
    if rules.owners:
        return [prompt.render("owner.obeys", owners=", ".join(sorted(rules.owners)))]
    return [prompt.render(_PAIRING[settings.access.pairing])]


def _say_what_stays(rules: Rules, prompt: Prompt) -> list[str]:
    """Say what an owner has changed in chat: whoever is denied may not be paired, and a reset leaves that alone."""
    if not rules.denied and not rules.overrides & {"group", "direct"}:
        return []
    group, direct = rules.group_policy.value, rules.direct_policy.value
    return [prompt.render("owner.rules", denied=len(rules.denied), group=group, direct=direct)]


def _name(owner: Owner) -> str:
    return f"{owner.staff_id} ({owner.nick})" if owner.nick else owner.staff_id


def _owner_json(owner: Owner | None) -> dict[str, str] | None:
    return None if owner is None else {"staff_id": owner.staff_id, "nick": owner.nick}
