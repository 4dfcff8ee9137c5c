"""`claw auth`: asks for the app's credentials, checks them against DingTalk, and writes them to `.env`.

Order of events: Client ID and Client Secret come from the flags, else from the person at the terminal, else from the
environment; DingTalk is asked with them, by the checks of `claw doctor` from the network to an open session; what it
refuses is told in words, and nothing is written then; a different value in `.env` is overwritten only when the person
says so. The secret is never an argument, which process lists and shell histories would show; it is typed without
echo, and appears in nothing that is printed.

Exit codes: 0 good, 1 refused or unreachable, 78 what was given cannot be used, 130 Ctrl-C.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Final

from claw.cli import env_file
from claw.cli.doctor.command import CONNECTION, INTERRUPTED, diagnose, lines
from claw.cli.doctor.runner import SEVERITY, TIMEOUT_S, Result, Status, told
from claw.config import files, parsers
from claw.config.settings import EXIT_BAD_SETTINGS
from claw.language import Language
from claw.observe import logs
from claw.observe.redact import register
from claw.secret import Secret

ID: Final = "DINGTALK_CLIENT_ID"
SECRET: Final = "DINGTALK_CLIENT_SECRET"  # noqa: S105 - a variable's name
ALIASES: Final = {ID: ("DINGTALK_APP_KEY",), SECRET: ("DINGTALK_APP_SECRET",)}
TRIES: Final = 3
"""How often a person is asked for the same value."""
STDIN: Final = "-"
STDIN_MAX: Final = files.SECRET_FILE_BYTES_MAX
_INVISIBLE: Final = "\ufeff\u200b\u200c\u200d\u2060"
"""What comes along with a paste from web pages and chats, and is no part of a value."""


class Exit(IntEnum):
    """How the command ends."""

    GOOD = 0
    REFUSED = 1
    UNUSABLE = EXIT_BAD_SETTINGS
    INTERRUPTED = INTERRUPTED


class UnusableError(Exception):
    """What was given cannot be used; the sentence says what would be right."""


@dataclass
class Terminal:
    """The person, if there is one. Questions go to stderr: stdout is the command's answer."""

    language: Language
    quiet: bool = False
    """Say nothing to the person but questions: the answer is JSON."""

    @property
    def there(self) -> bool:
        return sys.stdin is not None and sys.stdin.isatty()

    def tell(self, key: str, **values: object) -> None:
        if not self.quiet:
            print(told(key, self.language, **values), file=sys.stderr)  # noqa: T201

    def ask(self, question: str) -> str:
        """One line of the person's; the question stands before it. Raises UnusableError at the input's end."""
        print(f"{question}: ", end="", file=sys.stderr, flush=True)  # noqa: T201
        line = sys.stdin.readline()
        if not line:
            print(file=sys.stderr)  # noqa: T201
            raise UnusableError(told("auth.no_terminal", self.language))
        return line

    def ask_secret(self, question: str) -> str:
        """As `ask`, without showing what is typed. Raises UnusableError where a terminal cannot hide it."""
        try:
            with warnings.catch_warnings():
                # Its way out would be to read with echo.
                warnings.simplefilter("error", getpass.GetPassWarning)
                return getpass.getpass(f"{question}: ", stream=sys.stderr)
        except getpass.GetPassWarning:
            raise UnusableError(told("auth.hidden", self.language)) from None
        except EOFError:
            raise UnusableError(told("auth.no_terminal", self.language)) from None


@dataclass(frozen=True)
class Given:
    """What the command line says."""

    client_id: str = ""
    secret_file: str = ""
    env_file: Path = Path(".env")
    check_only: bool = False
    as_json: bool = False
    overwrite: bool = False
    timeout: float = TIMEOUT_S


@dataclass
class Answer:
    """What the command found and did."""

    results: list[Result] = field(default_factory=list)
    written: Path | None = None
    notes: list[str] = field(default_factory=list)
    code: Exit = Exit.GOOD

    def to_json(self) -> str:
        body = {
            "ok": self.code is Exit.GOOD,
            "written": None if self.written is None else str(self.written),
            "checks": [result.to_json() for result in self.results],
            "notes": self.notes,
        }
        return json.dumps(body, ensure_ascii=False)


def main(environ: Mapping[str, str], given: Given, language: str = "") -> int:
    """Ask, check, write, tell; returns the exit code."""
    logs.configure("critical", "text", ())  # What the parts log is told here, in words.
    spoken = _language(language or environ.get("CLAW_LANG", ""))
    terminal = Terminal(spoken, quiet=given.as_json)
    try:
        answer = _authorise(environ, given, terminal)
    except UnusableError as error:
        answer = Answer(notes=[str(error)], code=Exit.UNUSABLE)
    except KeyboardInterrupt:
        print(file=sys.stderr)  # noqa: T201 - the shell's prompt begins on a line of its own
        return Exit.INTERRUPTED
    if given.as_json:
        print(answer.to_json())  # noqa: T201
    else:
        target = sys.stderr if answer.code is Exit.UNUSABLE else sys.stdout
        for note in answer.notes:
            print(note, file=target)
    return answer.code


def _language(value: str) -> Language:
    try:
        return parsers.OneOf(Language).parse(value.strip())
    except ValueError:
        return Language.ZH


def _authorise(environ: Mapping[str, str], given: Given, terminal: Terminal) -> Answer:
    language = terminal.language
    text = _text_of(given.env_file, language)
    present = _present(environ, env_file.values(text))
    client_id, secret = _credentials(present, given, terminal)
    register(Secret(secret))
    terminal.tell("auth.checking")
    answer = Answer(asyncio.run(_asked(environ, client_id, secret, language, given.timeout)))
    if not given.as_json:
        for line in lines([each for each in answer.results if each.status is not Status.SKIPPED], language):
            print(line)  # noqa: T201
    if not _good(answer.results):
        answer.code = Exit.REFUSED
        answer.notes.append(told("auth.bad", language))
        return answer
    answer.notes.append(told("auth.good", language))
    new = {ID: client_id, SECRET: secret}
    if given.check_only:
        kept = all(env_file.values(text).get(name) == value for name, value in new.items())
        answer.notes.append(told("auth.next" if kept else "auth.next_check", language))
        return answer
    return _keep(answer, text, new, environ=environ, given=given, terminal=terminal)


async def _asked(
    environ: Mapping[str, str], client_id: str, secret: str, language: Language, timeout: float
) -> list[Result]:
    """What DingTalk says to these credentials."""
    others = {each for name in (ID, SECRET) for alias in (name, *ALIASES[name]) for each in (alias, f"{alias}_FILE")}
    laid = {name: value for name, value in environ.items() if name not in others}
    laid |= {ID: client_id, SECRET: secret}
    results, _ = await diagnose(laid, language, checks=CONNECTION, timeout=timeout, own_session=True)
    return results


def _good(results: Sequence[Result]) -> bool:
    """The credentials are right and a session opened; a clock that is off, for example, is no refusal."""
    found = {result.name: result.status for result in results}
    needed = (found.get("credentials"), found.get("stream.session"))
    return all(status is not None and status is not Status.SKIPPED and SEVERITY[status] < 2 for status in needed)


# --- what is given -----------------------------------------------------------------------------------------------


def _present(environ: Mapping[str, str], kept: Mapping[str, str]) -> dict[str, str]:
    """The values that hold now: the environment's, else those of `.env`; each under its first name."""
    found: dict[str, str] = {}
    for name in (ID, SECRET):
        for source in (environ, kept):
            for alias in (name, *ALIASES[name]):
                value = _clean(source.get(alias, ""))
                if not value and (path := source.get(f"{alias}_FILE", "").strip()):
                    try:
                        value = _clean(files.read_secret_file(Path(path)))
                    except (OSError, ValueError):
                        value = ""
                if value:
                    found.setdefault(name, value)
    return found


def _credentials(present: Mapping[str, str], given: Given, terminal: Terminal) -> tuple[str, str]:
    """Client ID and Client Secret, both usable as far as can be told here. Raises UnusableError."""
    language = terminal.language
    client_id = _usable(given.client_id, ID, language) if given.client_id else ""
    # A person who types into `-` is asked instead: the terminal would show it.
    from_file = given.secret_file and not (given.secret_file == STDIN and terminal.there)
    secret = _usable(_from_file(given.secret_file, language), SECRET, language) if from_file else ""
    # A person who only checks is not asked for what is there.
    if given.check_only or not terminal.there:
        client_id = client_id or _usable(present.get(ID, ""), ID, language)
        secret = secret or _usable(present.get(SECRET, ""), SECRET, language)
    if client_id and secret:
        return client_id, secret
    if not terminal.there:
        raise UnusableError(told("auth.no_terminal", language))
    terminal.tell("auth.where")
    if not client_id:
        shown = present.get(ID, "")
        keep = f" [{shown}, {told('auth.keep', language)}]" if shown else ""
        client_id = _ask(terminal.ask, told("auth.ask_id", language) + keep, ID, shown, terminal)
    if not secret:
        # An old secret belongs to an old Client ID.
        shown = present.get(SECRET, "") if client_id == present.get(ID) else ""
        keep = f" [{told('auth.keep', language)}]" if shown else ""
        secret = _ask(terminal.ask_secret, told("auth.ask_secret", language) + keep, SECRET, shown, terminal)
    return client_id, secret


def _ask(ask: Callable[[str], str], question: str, name: str, present: str, terminal: Terminal) -> str:
    problem = UnusableError(told("auth.no_terminal", terminal.language))
    for _ in range(TRIES):
        try:
            value = _usable(_clean(ask(question)) or present, name, terminal.language)
        except UnusableError as error:
            problem = error
            terminal.tell("auth.again", problem=error)
            continue
        if value:
            return value
    raise problem


def _clean(value: str) -> str:
    """A pasted value without the blanks and invisible characters around it."""
    return value.strip(_INVISIBLE + " \t\r\n\v\f\u00a0\u3000").strip()


def _usable(value: str, name: str, language: Language) -> str:
    """`value` as settings would take it; empty where there is none. Raises UnusableError, which does not show it."""
    value = _clean(value)
    if not value:
        return ""
    try:
        if name == ID:
            return parsers.Identifier().parse(value)
        parsers.Identifier().parse(parsers.SecretText().parse(value).reveal())  # Both are ASCII at DingTalk.
    except ValueError as error:
        raise UnusableError(told("auth.unusable", language, name=name, right=error)) from None
    return value


def _from_file(path: str, language: Language) -> str:
    """The secret in a file or on standard input. Raises UnusableError, without the path: it may be a secret itself."""
    try:
        value = sys.stdin.buffer.read(STDIN_MAX).decode() if path == STDIN else files.read_secret_file(Path(path))
    except OSError as error:
        cause = error.strerror or type(error).__name__
    except UnicodeDecodeError:
        cause = "is not text"
    except ValueError as error:
        cause = str(error)
    else:
        cause = "" if _clean(value) else "is empty"
        if not cause:
            return value
    raise UnusableError(told("auth.unreadable", language, path="--client-secret-file", cause=cause))


# --- what is written ---------------------------------------------------------------------------------------------


def _text_of(path: Path, language: Language) -> str:
    try:
        return env_file.read(path)
    except OSError as error:
        cause = error.strerror or type(error).__name__
        raise UnusableError(told("auth.unreadable", language, path=path, cause=cause)) from None
    except UnicodeDecodeError:
        raise UnusableError(told("auth.unreadable", language, path=path, cause="is not UTF-8 text")) from None


def _keep(
    answer: Answer,
    text: str,
    new: Mapping[str, str],
    *,
    environ: Mapping[str, str],
    given: Given,
    terminal: Terminal,
) -> Answer:
    """Write the values, unless they are there already or the person would rather keep others."""
    language, path = terminal.language, given.env_file
    there = env_file.values(text)
    names = [
        alias
        for name in new
        for alias in (name, *ALIASES[name])
        if (old := _clean(there.get(alias, ""))) and old != new[name]
    ]
    if names and not given.overwrite and not _may_overwrite(path, names, terminal):
        answer.notes.append(told("auth.kept", language, path=path, names=", ".join(names)))
        answer.code = Exit.UNUSABLE
        return answer
    after = env_file.changed(text, new, ALIASES)
    if after == text:
        answer.notes.append(told("auth.same", language, path=path))
    else:
        try:
            env_file.write(path, after)
        except OSError as error:
            cause = error.strerror or type(error).__name__
            raise UnusableError(told("auth.unwritable", language, path=path, cause=cause)) from None
        answer.written = path
        answer.notes.append(told("auth.written", language, path=path))
    answer.notes += _caveats(path, new, environ, there, language)
    answer.notes.append(told("auth.next", language))
    return answer


def _may_overwrite(path: Path, names: Sequence[str], terminal: Terminal) -> bool:
    if not terminal.there:
        return False
    question = told("auth.ask_overwrite", terminal.language, path=path, names=", ".join(names))
    return _clean(terminal.ask(f"{question} [y/N]")).lower() in {"y", "yes", "是"}


def _caveats(
    path: Path, new: Mapping[str, str], environ: Mapping[str, str], there: Mapping[str, str], language: Language
) -> list[str]:
    """Why the file, as right as it is, may not be what `claw run` goes by."""
    if files.in_container(os.environ):
        return [told("auth.container", language)]
    notes = []
    shadowing = [
        alias
        for name in new
        for alias in (name, *ALIASES[name])
        # What the file itself said before came into `environ` by it, and is gone now.
        if _clean(environ.get(alias, "")) not in {"", new[name], _clean(there.get(alias, ""))}
    ]
    if shadowing:
        notes.append(told("auth.shadowed", language, names=", ".join(shadowing), path=path))
    return notes
