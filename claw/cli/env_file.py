"""A `.env` file: read for what it says, and changed in place without touching anything else.

Order of events of a change: the file is parsed by python-dotenv, which will read it later; the lines of the names to
be set get their new values, names without a line are appended, all other lines and comments stay as they are; the
whole goes to a new file beside it (0600, synced), which then takes its place, so that a crash leaves the old one or
the new one. A line of `NAME_FILE` would contradict the new value: it becomes a comment.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Final

from dotenv.parser import Binding, parse_stream

MODE: Final = 0o600
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./+=:@%,~-]+")
"""Values that need no quotes, neither for python-dotenv nor for a shell."""
_COMMENT: Final = re.compile(r"[^\S\r\n]+#[^\r\n]*(?=[\r\n]*\Z)")


def read(path: Path) -> str:
    """The file's text; empty where there is none. Raises OSError or UnicodeDecodeError."""
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return ""


def values(text: str) -> dict[str, str]:
    """What the text sets, as `claw.config.settings.environment` will read it."""
    bindings = parse_stream(StringIO(text.removeprefix("\ufeff")))
    return {each.key: each.value for each in bindings if each.key and each.value is not None}


def changed(text: str, new: Mapping[str, str], aliases: Mapping[str, Iterable[str]]) -> str:
    """`text` with `new` set. `aliases`: by name, what else sets the same thing and must not say another."""
    newline = "\r\n" if "\r\n" in text else "\n"
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    owner = {alias: name for name in new for alias in (name, *aliases.get(name, ()))}
    files = {f"{alias}_FILE" for alias in owner}
    parts: list[str] = []
    there: set[str] = set()
    for binding in parse_stream(StringIO(text.removeprefix(mark))):
        key, line = binding.key, binding.original.string
        if key in owner:
            there.add(owner[key])
            line = _with_value(binding, quoted(new[owner[key]]))
        elif key in files and binding.value:
            line = _commented(line)
        parts.append(line)
    body = "".join(parts)
    missing = [f"{name}={quoted(value)}{newline}" for name, value in new.items() if name not in there]
    if missing and body and not body.endswith(("\n", "\r")):
        body += newline
    return mark + body + "".join(missing)


def _with_value(binding: Binding, value: str) -> str:
    """The line with another value; blank lines before it, `export`, its comment and its end stay."""
    line = binding.original.string
    start = re.match(r"\s*", line)
    end = re.search(r"[\r\n]*\Z", line)
    export = re.match(r"\s*(export[^\S\r\n]+)", line)
    kept = _COMMENT.search(line)
    # Within quotes, or in a value of several lines, a # is no comment.
    comment = kept[0] if kept and not re.search(r"[\"'\r\n]", line.strip()) else ""
    before = (start[0] if start else "") + (export[1] if export else "")
    return f"{before}{binding.key}={value}{comment}{end[0] if end else ''}"


def _commented(line: str) -> str:
    blank = line[: len(line) - len(line.lstrip())]
    return f"{blank}# {line.lstrip()}"


def quoted(value: str) -> str:
    """`value` as python-dotenv reads it back, whatever it holds."""
    if _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def write(path: Path, text: str) -> None:
    """Put `text` in the file's place, readable by its owner only. Raises OSError; the old file is whole then."""
    path = path.resolve()  # A link stays a link.
    trial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with contextlib.suppress(OSError):  # Somebody else's file stays theirs, where we may do that.
                old = path.stat()
                os.fchown(file.fileno(), old.st_uid, old.st_gid)
            os.fchmod(file.fileno(), MODE)
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        trial.replace(path)
    except BaseException:
        trial.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # Not every file system syncs folders.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
