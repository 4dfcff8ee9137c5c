"""How a setting is declared: the variable, its default, its meaning."""

from __future__ import annotations

from dataclasses import MISSING, field
from typing import Any, NamedTuple

from claw.config.parsers import (
    Parser,
)


class Variable(NamedTuple):
    """What a reader must know of one environment variable."""

    name: str
    meaning: str
    parser: Parser[Any]
    aliases: tuple[str, ...] = ()
    secret: bool = False
    from_file: bool = False
    required: bool = False
    default_text: str = ""


def variable(
    name: str,
    parser: Parser[Any],
    meaning: str,
    *,
    default: Any = MISSING,
    default_text: str | None = None,
    aliases: tuple[str, ...] = (),
    secret: bool = False,
    from_file: bool = False,
    required: bool = False,
) -> Any:
    """Declare a settings field that is read from the environment; without a default it must be set."""
    shown = default_text if default_text is not None else ("" if default is MISSING else str(default))
    info = Variable(name, meaning, parser, aliases, secret, from_file or secret, required, shown)
    return field(default=default, metadata={"variable": info})


# A section is made by its own defaults, so that tests may leave out what they do not set.
def section(title: str) -> Any:
    """Declare a section of `Settings`, under the title that tables show."""
    return field(metadata={"title": title})
