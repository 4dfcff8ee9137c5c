"""The bench of attacks: which are chosen, what is kept of them, and what the table says."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.attacks import delivery, hostile, memory, people, report, stores
from bench.attacks.model import MARK
from bench.attacks.registry import ATTACKS, Outcome, attack, choose

MODULES = (delivery, hostile, memory, people, stores)


def test_every_kind_is_there() -> None:
    """Twenty kinds, in the order of their numbers, each attack with a label of its own."""
    names = [each.name for each in choose("", long=True)]
    kinds = list(dict.fromkeys(name.rstrip("abcd") for name in names))
    assert kinds == [f"F{number}" for number in range(1, 21)]
    assert len({each.label for each in ATTACKS.values()}) == len(ATTACKS)


@pytest.mark.parametrize(
    ("only", "long", "chosen"),
    [
        ("F1", False, ["F1a", "F1b", "F1c", "F1d"]),
        ("F11,F2", False, ["F2", "F11"]),
        ("F5", False, ["F5b", "F5c"]),
        ("F5", True, ["F5a", "F5b", "F5c"]),
        ("F5a", False, ["F5a"]),
    ],
)
def test_choose(only: str, chosen: list[str], *, long: bool) -> None:
    """A kind names all its attacks but the long ones, a whole name that one attack."""
    assert [each.name for each in choose(only, long=long)] == chosen


def test_unknown_attack() -> None:
    """A name that nobody has is an error, not an empty table."""
    with pytest.raises(ValueError, match="no attack is called F99"):
        choose("F99", long=False)
    with pytest.raises(ValueError, match="two attacks are called F2"):
        attack("F2", "another")(people.takeover)


def test_table(tmp_path: Path) -> None:
    """Results are kept by side; the table has a row for each attack, and a dash for what was not measured."""
    path = tmp_path / "attacks.json"
    found = report.load(path)
    one = ATTACKS["F1a"]
    report.put(found, "before", one, Outcome("peak 800 | 900 MB", held=False), seconds=1.24, commit="abc")
    report.put(found, "after", one, Outcome("peak 100 MB", held=True), seconds=2.0, commit="def")
    report.save(found, path)
    page = report.render(report.load(path))
    assert f"| F1a | {one.label} | **broken**: peak 800 \\| 900 MB | held: peak 100 MB |" in page
    assert f"| F20a | {ATTACKS['F20a'].label} | - | - |" in page
    assert "Before: 0 of 1 held (commit abc)." in page


def test_marks_are_in_no_base64() -> None:
    """A question's name cannot come about in a picture's data."""
    assert MARK.search('"m-12-m hello"')
    assert not MARK.search("m12m+/==")
