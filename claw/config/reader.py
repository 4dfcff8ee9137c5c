"""Reading the environment into `Settings`, once, at start.

Order of events: `load` reads every variable of every section by its name, its aliases or the file that `NAME_FILE`
names; each fault is collected under the variable's name; then `load` returns `Settings`, or raises one SettingsError
that names every fault. Values of secrets are never shown, not even in the error that refuses them.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from claw.config.files import read_secret_file
from claw.config.settings import Settings, Variable, sections, variables, variables_of
from claw.errors import SettingsError

_UNREADABLE: Final = "\0"
"""Stands for a secret whose file is at fault, which has been reported already."""


class _Reader:
    """Collects values and faults out of one environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.problems: list[str] = []
        self.given: set[str] = set()
        self.files: dict[str, Path] = {}

    def _raw(self, info: Variable) -> str:
        """Return the variable's text from its name, an alias or a file; empty where none is set."""
        found: dict[str, str] = {}
        for name in (info.name, *info.aliases):
            value = self.environ.get(name, "").strip()
            if value:
                found[name] = value
            path = self.environ.get(f"{name}_FILE", "").strip() if info.from_file else ""
            if path:
                found[f"{name}_FILE"] = self._from_file(f"{name}_FILE", path)
                self.files[info.name] = Path(path)
        if len(set(found.values())) > 1:
            self.problems.append(f"{' and '.join(found)}: say different things; set only one of them")
            return next(iter(found.values()))
        return next(iter(found.values()), "")

    def _from_file(self, name: str, path: str) -> str:
        try:
            value = read_secret_file(Path(path))
        except OSError as error:
            self.problems.append(f"{name}: {path} cannot be read ({error.strerror or type(error).__name__})")
            return _UNREADABLE
        except ValueError as error:
            self.problems.append(f"{name}: {path} {error}")
            return _UNREADABLE
        if not value:
            self.problems.append(f"{name}: {path} is empty")
            return _UNREADABLE
        return value

    def read(self, kind: type[Any]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for each, info in variables_of(kind):
            raw = self._raw(info)
            if not raw:
                if info.required:
                    also = "".join(f" (or {alias})" for alias in info.aliases)
                    self.problems.append(f"{info.name}{also}: is not set; it must hold: {info.meaning}")
                continue
            self.given.add(info.name)
            if raw == _UNREADABLE:
                continue
            try:
                values[each.name] = info.parser.parse(raw)
            except ValueError as error:
                # An address may hold a password in front of its @.
                hidden = info.secret or "@" in raw
                shown = "its value" if hidden else repr(raw if len(raw) <= 60 else raw[:57] + "...")
                name = f"{info.name}_FILE" if info.name in self.files else info.name
                self.problems.append(f"{name}: {shown} is not usable; right would be {error}")
        return values


def _unknown(environ: Mapping[str, str]) -> list[str]:
    known = {name for _, info in variables() for name in (info.name, *info.aliases)}
    known |= {f"{name}_FILE" for _, info in variables() if info.from_file for name in (info.name, *info.aliases)}
    warnings = []
    for name in sorted(environ):
        if name.startswith(("CLAW_", "DINGTALK_")) and name not in known and environ[name].strip():
            near = difflib.get_close_matches(name, sorted(known), 1, 0.6)
            hint = f"; did you mean {near[0]}?" if near else ""
            warnings.append(f"{name} is not a setting of this version and has no effect{hint}")
    return warnings


def load(environ: Mapping[str, str]) -> Settings:
    """Read all settings. Raises SettingsError with every fault at once."""
    reader = _Reader(environ)
    values = {name: reader.read(kind) for name, _, kind in sections()}
    if not {"OPENAI_API_KEY", "OPENAI_BASE_URL"} & reader.given:
        reader.problems.append(
            "OPENAI_API_KEY: is not set; set it, or set OPENAI_BASE_URL to a server that asks for no key"
        )
    if reader.problems:
        raise SettingsError(reader.problems)
    if secret_file := reader.files.get("DINGTALK_CLIENT_SECRET"):
        values["dingtalk"]["secret_file"] = secret_file
    values["logs"].setdefault("format", "text" if sys.stderr.isatty() else "json")
    return Settings(**{name: kind(**values[name]) for name, _, kind in sections()}, warnings=tuple(_unknown(environ)))


def print_problems(error: SettingsError) -> None:
    """Tell the operator every fault of the environment, in one go and without a traceback."""
    print("claw cannot start with these settings:", file=sys.stderr)  # noqa: T201 - before there is a log
    for problem in error.problems:
        print(f"  - {problem}", file=sys.stderr)  # noqa: T201
