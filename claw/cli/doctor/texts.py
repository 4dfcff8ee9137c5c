"""The sentences of `claw doctor`, `claw auth` and `claw owner`, read from texts.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from typing import Any, Final

from claw.language import Text


class Symptom(StrEnum):
    """A trouble as its people name it; the value is its name on the command line."""

    STREAM = "stream-connection-failed"
    SILENT = "bot-not-responding"
    DENIED = "permission-denied"
    UNSTEADY = "intermittent-disconnections"


@dataclass(frozen=True, slots=True)
class Sentence:
    """What is said, and what helps against it; `remedy` is empty where nothing needs to be done."""

    message: Text
    remedy: Text


def load() -> dict[str, Sentence]:
    """Read texts.toml. Keys are `table.name`. Raises KeyError where a sentence lacks a language."""
    tables = tomllib.loads(files(__package__).joinpath("texts.toml").read_text(encoding="utf-8"))
    return {f"{table}.{name}": sentence for table, rows in tables.items() for name, sentence in _parse(rows)}


def _parse(rows: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Sentence]]:
    for name, row in rows.items():
        # Good news has no remedy, and needs none.
        remedy = row.get("remedy", {"zh": "", "en": ""})
        yield name, Sentence(Text(row["zh"], row["en"]), Text(remedy["zh"], remedy["en"]))


TEXTS: Final[Mapping[str, Sentence]] = load()
SYMPTOMS: Final[Mapping[Symptom, Text]] = {each: TEXTS[f"symptom.{each}"].message for each in Symptom}
