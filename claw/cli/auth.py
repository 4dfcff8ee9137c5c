"""`claw auth`: asks for the app's credentials, checks them against DingTalk, and writes them to `.env`.

Order of events: Client ID and Client Secret come from the flags, else from the person at the terminal, who may scan a
code instead, by which DingTalk makes an app (scan.py), else from the environment. DingTalk is asked with them, by the
checks of `claw doctor` from the network to an open session. What it refuses is said in words, and nothing is written
then. A different value in `.env` is overwritten only when the person says so. The secret is never an argument, which
process lists and shell histories would show; it is typed without echo, and appears in nothing that is printed. At a
terminal the model's server is asked for last (model_menu.py).

Exit codes: 0 good, 1 refused or unreachable, 78 what was given cannot be used, 130 Ctrl-C.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Final

from claw.cli import env_file, model_menu
from claw.cli.doctor.command import CONNECTION, INTERRUPTED, diagnose, render_lines
from claw.cli.doctor.runner import RANKS, TIMEOUT_S, CheckStatus, Result
from claw.cli.prompt import Prompt, UnusableError
from claw.clock import Clock
from claw.config import files, parsers
from claw.config.reader import read_language
from claw.config.settings import EXIT_BAD_SETTINGS
from claw.credentials import ID, NAMES, SECRET, overlay
from claw.http_client import http_session
from claw.language import Language
from claw.observe import logs
from claw.observe.redact import register
from claw.secret import Secret

OAPI: Final = "https://oapi.dingtalk.com"
TRIES_MAX: Final = 3
"""How often a person is asked for the same value."""
STDIN: Final = "-"
STDIN_MAX_BYTES: Final = files.SECRET_FILE_BYTES_MAX
_SCAN_ENDS: Final = {
    "refused": "auth.scan_refused",
    "expired": "auth.scan_expired",
    "unreachable": "auth.scan_unreachable",
    "fault": "auth.scan_fault",
}
"""`ScanEnd`, which is loaded where somebody scans, and the sentence for each."""
_INVISIBLE: Final = "\ufeff\u200b\u200c\u200d\u2060"
"""What comes along with a paste from web pages and chats, and is no part of a value."""


class AuthExit(IntEnum):
    """How the command ends."""

    GOOD = 0
    REFUSED = 1
    UNUSABLE = EXIT_BAD_SETTINGS
    INTERRUPTED = INTERRUPTED


@dataclass(frozen=True)
class AuthArguments:
    """The command line."""

    client_id: str = ""
    secret_file: str = ""
    env_file: Path = Path(".env")
    check_only: bool = False
    as_json: bool = False
    overwrite: bool = False
    scan: bool = False
    """Have DingTalk make an app, also where credentials are there."""
    timeout: float = TIMEOUT_S
    """Seconds for one answer of DingTalk."""


@dataclass
class AuthReport:
    """What the command found and did."""

    results: list[Result] = field(default_factory=list)
    written: Path | None = None
    notes: list[str] = field(default_factory=list)
    code: AuthExit = AuthExit.GOOD

    def to_json(self) -> str:
        body = {
            "ok": self.code is AuthExit.GOOD,
            "written": None if self.written is None else str(self.written),
            "checks": [result.to_json() for result in self.results],
            "notes": self.notes,
        }
        return json.dumps(body, ensure_ascii=False)


def main(environ: Mapping[str, str], arguments: AuthArguments, language: str = "") -> int:
    """Ask, check, write, report; returns the exit code."""
    logs.configure("critical", "text", ())  # What the parts log is said here, in words.
    prompt = Prompt(read_language({"CLAW_LANG": language or environ.get("CLAW_LANG", "")}), quiet=arguments.as_json)
    try:
        report = _authorize(environ, arguments, prompt)
    except UnusableError as error:
        report = AuthReport(notes=[str(error)], code=AuthExit.UNUSABLE)
    # Also while DingTalk is asked: asyncio.run has cancelled the checks by then.
    except KeyboardInterrupt:
        print(file=sys.stderr)  # noqa: T201 - the shell's prompt begins on a line of its own
        return AuthExit.INTERRUPTED
    if arguments.as_json:
        print(report.to_json())  # noqa: T201
    else:
        # A script that captures stdout must not take the reason of a failure for the answer.
        target = sys.stderr if report.code is AuthExit.UNUSABLE else sys.stdout
        for note in report.notes:
            print(note, file=target)
        if report.written is not None and prompt.is_interactive:
            _offer_model(environ, report.written, prompt)
    return report.code


def _authorize(environ: Mapping[str, str], arguments: AuthArguments, prompt: Prompt) -> AuthReport:
    # Before any question: nobody should type a secret that then cannot be kept.
    text = _read_env_file(arguments.env_file, prompt)
    there = env_file.values(text)
    present = _read_present(environ, there)
    client_id, secret = _collect_credentials(present, arguments, prompt, environ)
    # Before the first request: from here on nothing that is logged or shown may hold it.
    register(Secret(secret))
    prompt.say("auth.checking")
    report = AuthReport(asyncio.run(_check_credentials(environ, client_id, secret, prompt.language, arguments.timeout)))
    if not arguments.as_json:
        shown = [result for result in report.results if result.status is not CheckStatus.SKIPPED]
        for line in render_lines(shown, prompt.language):
            print(line)  # noqa: T201
    if not _is_accepted(report.results):
        report.code = AuthExit.REFUSED
        report.notes.append(prompt.render("auth.bad"))
        return report
    report.notes.append(prompt.render("auth.good"))
    new = {ID: client_id, SECRET: secret}
    if arguments.check_only:
        is_kept = all(there.get(name) == value for name, value in new.items())
        report.notes.append(prompt.render("auth.next" if is_kept else "auth.next_check"))
    elif _may_write(new, there, arguments, prompt):
        _write(report, text, new, environ, path=arguments.env_file, prompt=prompt)
    else:
        names = ", ".join(_find_conflicts(new, there))
        report.notes.append(prompt.render("auth.kept", path=arguments.env_file, names=names))
        report.code = AuthExit.UNUSABLE
    return report


async def _check_credentials(
    environ: Mapping[str, str], client_id: str, secret: str, language: Language, timeout: float
) -> list[Result]:
    """Return what DingTalk says to these credentials."""
    overlaid = overlay(environ, client_id, secret)
    results, _ = await diagnose(overlaid, language, checks=CONNECTION, timeout=timeout, own_session=True)
    return results


def _is_accepted(results: Sequence[Result]) -> bool:
    """Tell whether the credentials are right and a session opened; a clock that is off, for example, is no refusal."""
    found = {result.name: result.status for result in results}
    needed = (found.get("credentials"), found.get("stream.session"))
    return all(status is not None and status is not CheckStatus.SKIPPED and RANKS[status] < 2 for status in needed)


# --- what is given -----------------------------------------------------------------------------------------------


def _read_present(environ: Mapping[str, str], there: Mapping[str, str]) -> dict[str, str]:
    """Return the values that hold now: the environment's, else those of `.env`; each under its first name."""
    found: dict[str, str] = {}
    for name, aliases in NAMES.items():
        for source in (environ, there):
            for alias in aliases:
                value = _strip(source.get(alias, "")) or _read_file_of(source.get(f"{alias}_FILE", ""))
                # The first source and the preferred name win, as in claw.config.
                if value:
                    found.setdefault(name, value)
    return found


def _read_file_of(path: str) -> str:
    if not path.strip():
        return ""
    try:
        return _strip(files.read_secret_file(Path(path.strip())))
    except (OSError, ValueError):
        # It is only a proposal: the person is asked instead.
        return ""


def _collect_credentials(
    present: Mapping[str, str], arguments: AuthArguments, prompt: Prompt, environ: Mapping[str, str]
) -> tuple[str, str]:
    """Return Client ID and Client Secret, both usable as far as can be told here. Raises UnusableError."""
    if arguments.scan:
        return _scan(environ, prompt)
    client_id = _validate(arguments.client_id, ID, prompt)
    # A person who types into `-` is asked instead: the terminal would show it.
    has_file = arguments.secret_file and not (arguments.secret_file == STDIN and prompt.is_interactive)
    secret = _validate(_read_secret(arguments.secret_file, prompt), SECRET, prompt) if has_file else ""
    # A person who only checks is not asked for what is there.
    if arguments.check_only or not prompt.is_interactive:
        client_id = client_id or _validate(present.get(ID, ""), ID, prompt)
        secret = secret or _validate(present.get(SECRET, ""), SECRET, prompt)
    if client_id and secret:
        return client_id, secret
    if not prompt.is_interactive:
        raise UnusableError(prompt.render("auth.no_terminal"))
    return _ask_missing((client_id, secret), present, prompt, environ)


def _ask_missing(
    given: tuple[str, str], present: Mapping[str, str], prompt: Prompt, environ: Mapping[str, str]
) -> tuple[str, str]:
    client_id, secret = given
    may_scan = not (client_id or secret or present.get(ID))
    prompt.say("auth.where")
    if may_scan:
        prompt.say("auth.scan_offer")
    if not client_id:
        old = present.get(ID, "")
        keep = f" [{old}, {prompt.render('auth.keep')}]" if old else ""
        # A Client ID is no secret, and shows which app the person would keep.
        client_id = _ask(prompt.ask, prompt.render("auth.ask_id") + keep, ID, old, prompt, may_skip=may_scan)
        if not client_id:
            return _scan(environ, prompt)
    if not secret:
        # An old secret belongs to an old Client ID.
        old = present.get(SECRET, "") if client_id == present.get(ID) else ""
        keep = f" [{prompt.render('auth.keep')}]" if old else ""
        secret = _ask(prompt.ask_secret, prompt.render("auth.ask_secret") + keep, SECRET, old, prompt)
    return client_id, secret


def _scan(environ: Mapping[str, str], prompt: Prompt) -> tuple[str, str]:
    """Have DingTalk make an app for whoever scans a code. Raises UnusableError."""
    from claw.dingtalk.registration import DeviceFlow, ScanCode, ScanError, draw  # noqa: PLC0415 - only where somebody scans

    told = 0

    def show(code: ScanCode) -> None:
        with contextlib.suppress(UnicodeEncodeError):  # A terminal without such letters has the address.
            print(draw(code.address), file=sys.stderr)  # noqa: T201
        # The address as it is: the sentences cut what is long.
        print(code.address, file=sys.stderr)  # noqa: T201
        prompt.say("auth.scan_show", address=code.address, code=code.user_code)

    def note_wait(left: float) -> None:
        nonlocal told
        minutes = max(1, round(left / 60))
        if minutes != told:
            told = minutes
            prompt.say("auth.scan_wait", minutes=minutes)

    async def run() -> tuple[str, str]:
        endpoint = environ.get("DINGTALK_OAPI_ENDPOINT", "").strip() or OAPI
        async with http_session() as http:
            app = await DeviceFlow(http, endpoint, Clock()).run(show, note_wait)
        return app.client_id, app.secret.reveal()

    try:
        # A loop of its own: the checks that follow have another, and nothing of this one may live on in it.
        client_id, secret = asyncio.run(run())
    except ScanError as error:
        raise UnusableError(prompt.render(_SCAN_ENDS[error.reason.value], detail=error.detail or "-")) from None
    prompt.say("auth.scan_done", client_id=client_id)
    return client_id, secret


def _ask(
    ask: Callable[[str], str], question: str, name: str, present: str, prompt: Prompt, *, may_skip: bool = False
) -> str:
    """Ask until the answer can be used; `may_skip`: Enter alone means none. Raises UnusableError."""
    problem = UnusableError(prompt.render("auth.no_terminal"))
    for _ in range(TRIES_MAX):
        try:
            # Enter alone keeps what is there.
            value = _validate(_strip(ask(question)) or present, name, prompt)
        except UnusableError as error:
            problem = error
            prompt.say("auth.again", problem=error)
            continue
        if value or may_skip:
            return value
    raise problem


def _strip(value: str) -> str:
    """Return a pasted value without the blanks and invisible characters around it."""
    return value.strip(_INVISIBLE + " \t\r\n\v\f\u00a0\u3000").strip()


def _validate(value: str, name: str, prompt: Prompt) -> str:
    """Return `value` as settings would take it; empty where there is none. Raises UnusableError, without the value."""
    value = _strip(value)
    if not value:
        return ""
    try:
        if name == ID:
            return parsers.Identifier().parse(value)
        parsers.Identifier().parse(parsers.SecretText().parse(value).reveal())  # Both are ASCII at DingTalk.
    except ValueError as error:
        raise UnusableError(prompt.render("auth.unusable", name=name, right=error)) from None
    return value


def _read_secret(path: str, prompt: Prompt) -> str:
    """Return the secret in a file or on standard input. Raises UnusableError, without the path: it may be a secret."""
    try:
        is_stdin = path == STDIN
        value = sys.stdin.buffer.read(STDIN_MAX_BYTES).decode() if is_stdin else files.read_secret_file(Path(path))
    except OSError as error:
        cause = error.strerror or type(error).__name__
    except UnicodeDecodeError:
        cause = "is not text"
    except ValueError as error:
        cause = str(error)
    else:
        if _strip(value):
            return value
        cause = "is empty"
    raise UnusableError(prompt.render("auth.unreadable", path="--client-secret-file", cause=cause))


# --- what is written ---------------------------------------------------------------------------------------------


def _read_env_file(path: Path, prompt: Prompt) -> str:
    try:
        return env_file.read(path)
    except OSError as error:
        cause = error.strerror or type(error).__name__
    except UnicodeDecodeError:
        cause = "is not UTF-8 text"
    raise UnusableError(prompt.render("auth.unreadable", path=path, cause=cause))


def _find_conflicts(new: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """Return the names under which the file says something else."""
    return [
        alias for name in new for alias in NAMES[name] if (old := _strip(there.get(alias, ""))) and old != new[name]
    ]


def _may_write(new: Mapping[str, str], there: Mapping[str, str], arguments: AuthArguments, prompt: Prompt) -> bool:
    """Tell whether the file may get `new`; where it says something else the person decides, by `--yes` or now."""
    names = _find_conflicts(new, there)
    if not names or arguments.overwrite:
        return True
    if not prompt.is_interactive:
        return False
    # Anything but a clear yes leaves the file as it is.
    question = prompt.render("auth.ask_overwrite", path=arguments.env_file, names=", ".join(names))
    return _strip(prompt.ask(f"{question} [y/N]")).lower() in {"y", "yes", "是"}


def _write(
    report: AuthReport, text: str, new: Mapping[str, str], environ: Mapping[str, str], *, path: Path, prompt: Prompt
) -> None:
    """Write the values, unless they are there already. Raises UnusableError where that is not possible."""
    after = env_file.change(text, new, NAMES)
    if after == text:
        report.notes.append(prompt.render("auth.same", path=path))
    else:
        try:
            files.write_private(path, after)
        except OSError as error:
            cause = error.strerror or type(error).__name__
            raise UnusableError(prompt.render("auth.unwritable", path=path, cause=cause)) from None
        report.written = path
        report.notes.append(prompt.render("auth.written", path=path))
    report.notes += _list_caveats(path, new, environ, env_file.values(text), prompt)
    report.notes.append(prompt.render("auth.next"))


def _offer_model(environ: Mapping[str, str], path: Path, prompt: Prompt) -> None:
    """Ask for the model's server where none is set, and add it to the file that was just written."""
    if files.in_container(os.environ):
        return
    try:
        text = _read_env_file(path, prompt)
        if model_menu.is_set({**env_file.values(text), **environ}):
            return
        if chosen := model_menu.choose(prompt):
            files.write_private(path, env_file.change(text, chosen, {name: (name,) for name in chosen}))
            prompt.say("auth.written", path=path)
    # The credentials are there all the same: the model can be set in the file at any time.
    except (OSError, UnusableError) as error:
        prompt.say("auth.unwritable", path=path, cause=error)
    except KeyboardInterrupt:
        prompt.say("model.later")


def _list_caveats(
    path: Path, new: Mapping[str, str], environ: Mapping[str, str], there: Mapping[str, str], prompt: Prompt
) -> list[str]:
    """Say why the file, right as it is, may not be what `claw run` goes by."""
    if files.in_container(os.environ):
        return [prompt.render("auth.container")]
    # The process's variables win over the file.
    shadowing = [
        alias
        for name in new
        for alias in NAMES[name]
        # What the file itself said before came into `environ` by it, and is gone now.
        if _strip(environ.get(alias, "")) not in {"", new[name], _strip(there.get(alias, ""))}
    ]
    return [prompt.render("auth.shadowed", names=", ".join(shadowing), path=path)] if shadowing else []
