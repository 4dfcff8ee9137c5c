"""A `.env` file: read for what it says, and changed in place without touching anything else.

Order of events of a change: each line of a name to be set gets its new value, names without a line are appended, all
other lines stay as they are. The whole goes to a new file beside the old one (0600, synced) and takes its place, so
that a crash leaves the old file or the new one.

python-dotenv's `set_key` is not used: it drops `export`, the line's comment, blank lines and CRLF, keeps a mode that
lets others read, and rewrites the file once per name, so that a crash could pair a new Client ID with an old secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Final

from dotenv import dotenv_values

_BYTE_ORDER_MARK: Final = "\ufeff"
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./+=:@%,~-]+")
"""Values that need no quotes, neither for python-dotenv nor for a shell."""
_BINDING: Final = re.compile(
    r"""^(?P<start>[^\S\r\n]*(?:export[^\S\r\n]+)?)
    (?P<name>[^=\#\s'"]+)
    # Quoted values may have several lines: they are matched whole, so that no line inside passes for a binding.
    (?:[^\S\r\n]*=(?P<value>[^\S\r\n]*(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|[^\r\n]*?))?
    (?P<comment>[^\S\r\n]+\#[^\r\n]*|[^\S\r\n]*)(?=[\r\n]|\Z)""",
    re.MULTILINE | re.VERBOSE | re.DOTALL,
)


def read(path: Path) -> str:
    """Return the file's text; empty where there is none. Raises OSError or UnicodeDecodeError."""
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return ""


def values(text: str) -> dict[str, str]:
    """Return what the text sets, as `claw.config.settings.environment` will read it."""
    found = dotenv_values(stream=StringIO(text.removeprefix(_BYTE_ORDER_MARK)), interpolate=False)
    return {name: value for name, value in found.items() if value is not None}


def change(text: str, new: Mapping[str, str], names: Mapping[str, Iterable[str]]) -> str:
    """Return `text` with `new` set. `names`: for each name all those that set the same thing, itself included.

    A line of `NAME_FILE` would contradict the new value: it becomes a comment.
    """
    owners = {alias: name for name in new for alias in names[name]}

    def replace(match: re.Match[str]) -> str:
        name = match["name"]
        if name in owners:
            return f"{match['start']}{name}={quote(new[owners[name]])}{match['comment'].rstrip()}"
        # Kept as a comment: its path is the person's, who may want it back.
        if name.removesuffix("_FILE") in owners and (match["value"] or "").strip():
            return re.sub(r"(?=\S)", "# ", match[0], count=1)
        return match[0]

    mark = _BYTE_ORDER_MARK if text.startswith(_BYTE_ORDER_MARK) else ""
    body = _BINDING.sub(replace, text.removeprefix(mark))
    # The file's own line end: an editor on Windows shows mixed ones badly.
    newline = "\r\n" if "\r\n" in text else "\n"
    # python-dotenv is the judge: it reads the file later, and the last line of a name wins.
    there = values(body)
    missing = [
        f"{name}={quote(value)}{newline}"
        for name, value in new.items()
        if value not in {there.get(alias) for alias in names[name]}
    ]
    # A last line without an end would swallow the first appended one.
    if missing and body and not body.endswith(("\n", "\r")):
        body += newline
    return mark + body + "".join(missing)


def quote(value: str) -> str:
    """Return `value` as python-dotenv reads it back, whatever it holds."""
    # Unquoted where possible: Docker's --env-file takes quotes for a part of the value.
    if _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
