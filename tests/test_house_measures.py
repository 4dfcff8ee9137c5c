"""The house keeps its limits: names, sizes, comments and citations, as `python -m bench.measure` prints them.

The number of lines is printed there and not held here: it grows with what claw can do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from bench import measure
from bench.measure import Measure

LIMITED: Final = (
    "functions named",
    "class names",
    "functions above",
    "lines of the largest module",
    "lines that are a comment",
    "citations",
)


@pytest.fixture(scope="module")
def house() -> list[Measure]:
    """Measure this repository, once."""
    return measure.measures()


def build(root: Path, **files: str) -> dict[str, Measure]:
    """Measure a small house, where `inbox_worker` is claw/inbox/worker.py; the keys are the measures' first words."""
    for name, text in files.items():
        file = root / "claw" / f"{name.replace('_', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return {" ".join(each.name.split()[:2]): each for each in measure.measures(root)}


@pytest.mark.parametrize("name", LIMITED)
def test_limit_is_kept(house: list[Measure], name: str) -> None:
    """Each measure of the house is within its limit."""
    (taken,) = [each for each in house if each.name.startswith(name)]
    assert taken.ok, "\n".join([f"{taken.name}: {taken.value:.2f}, limit {taken.limit}", *taken.where])


@pytest.mark.parametrize(
    ("name", "participle"),
    [
        ("_kept", True),
        ("stored_rows", True),
        ("_told", True),
        ("is_stored", False),
        ("feed", False),
        ("put", False),
        ("read", False),
        ("claim", False),
    ],
)
def test_participles(name: str, participle: bool) -> None:
    """A name that begins with a past participle counts; predicates and ambiguous imperatives do not."""
    assert measure.is_participle(measure.first_word(name)) is participle


def test_properties_may_be_participles(tmp_path: Path) -> None:
    """A property is a noun or an adjective, so only other functions count."""
    text = "class A:\n    @property\n    def closed(self): ...\n    def _kept(self): ...\n    def keep(self): ...\n"
    assert build(tmp_path, inbox_worker=text)["functions named"].value == 50


def test_a_class_name_belongs_to_one_room(tmp_path: Path) -> None:
    """A name counts once if two rooms define it; private classes and repeats within a room are free."""
    taken = build(
        tmp_path,
        inbox_a="class Frame: ...\nclass State: ...\nclass _Own: ...\n",
        inbox_b="class State: ...\n",
        stream_c="class Frame: ...\nclass _Own: ...\n",
    )["class names"]
    assert taken.value == 1
    assert taken.where == ("claw/inbox/a.py:1 Frame", "claw/stream/c.py:1 Frame")


@pytest.mark.parametrize(("lines", "count"), [(49, 0), (50, 1)])
def test_length_of_a_function(tmp_path: Path, lines: int, count: int) -> None:
    """Docstring, comments and blank lines are free; the signature counts."""
    body = "".join(f"    a{n} = 1\n\n    # why\n" for n in range(lines))
    text = f'def f():\n    """One.\n\n    Two.\n    """\n{body}'
    assert build(tmp_path, inbox_a=text)["functions above"].value == count


def test_comment_lines() -> None:
    """Only a line that is nothing but a comment counts, and no `#` within a string."""
    assert measure.comment_lines('a = 1  # no\n# yes\nb = """\n# no\n"""\n    # yes\n') == 2


def test_docstrings_of_constants_count(tmp_path: Path) -> None:
    """A string below a constant documents it, as a docstring documents a function."""
    assert build(tmp_path, inbox_a='A = 1\n"""One."""\n')["lines of"].name == "lines of claw/"
    shares = [each for each in measure.measures(tmp_path) if each.name == "lines of docstrings"]
    assert [each.value for each in shares] == [50]
