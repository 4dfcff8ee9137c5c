"""What an attack is: a function with a name, which gives a figure and whether claw held.

Each module of attacks declares its own by `@attack`; the order of the table is that of the names. An attack is one
kind: `F1a` and `F1b` are two ways of the kind F1, and `--only F1` means both.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bench.attacks.arena import Arena


@dataclass(frozen=True, slots=True)
class Outcome:
    """`figure` is what was measured, in words; `held` whether claw did what it should."""

    figure: str
    held: bool


Act = Callable[["Arena"], Awaitable[Outcome]]


@dataclass(frozen=True, slots=True)
class Attack:
    """`long` ones take minutes and run only with --long, or where they are named whole."""

    name: str
    label: str
    act: Act
    long: bool = False

    @property
    def order(self) -> tuple[int, str]:
        number = re.sub(r"\D", "", self.name)
        return int(number), self.name


ATTACKS: Final[dict[str, Attack]] = {}


def attack(name: str, label: str, *, long: bool = False) -> Callable[[Act], Act]:
    """Declare an attack. Raises ValueError for a name that is taken."""

    def declare(act: Act) -> Act:
        if name in ATTACKS:
            raise ValueError(f"two attacks are called {name}")
        ATTACKS[name] = Attack(name, label, act, long)
        return act

    return declare


def choose(only: str, *, long: bool) -> list[Attack]:
    """Return the attacks that `only` names (`F1,F5a`; empty: all), in the table's order. Raises ValueError."""
    wanted = [word.strip() for word in only.split(",") if word.strip()]
    for word in wanted:
        if not any(_matches(each.name, word) for each in ATTACKS.values()):
            raise ValueError(f"no attack is called {word}; known: {', '.join(ATTACKS)}")
    chosen = [
        each
        for each in ATTACKS.values()
        if (each.name in wanted or (long or not each.long))
        and (not wanted or any(_matches(each.name, word) for word in wanted))
    ]
    return sorted(chosen, key=lambda each: each.order)


def _matches(name: str, word: str) -> bool:
    return name == word or re.sub(r"[a-z]+$", "", name) == word
