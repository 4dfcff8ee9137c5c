"""README in both languages: the same headings, tables, pictures and commands, line by line where that can be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENGLISH = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")


def tables(text: str) -> list[tuple[int, int]]:
    """Rows and columns of each table."""
    found = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [(table.count("\n"), table.splitlines()[0].count("|")) for table in found]


def test_headings_are_the_same() -> None:
    """As many headings of each level, in the same order."""
    levels = [[len(mark) for mark in re.findall(r"^(#+) ", text, re.MULTILINE)] for text in (ENGLISH, CHINESE)]
    assert levels[0] == levels[1]


def test_tables_are_the_same() -> None:
    """As many tables, each with as many rows and columns."""
    assert tables(ENGLISH) == tables(CHINESE)


def test_commands_are_the_same() -> None:
    """The blocks say the same but for their comments."""
    blocks = [
        [
            [line.partition("#")[0].rstrip() for line in block.splitlines()]
            for block in re.findall(r"^```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        ]
        for text in (ENGLISH, CHINESE)
    ]
    assert blocks[0] == blocks[1]


@pytest.mark.parametrize("pattern", [r"!\[[^\]]*\]\(([^)]+)\)", r"`(claw [a-z]+[^`]*)`", r"`(/[a-z]+)`"])
def test_pictures_and_words_to_type_are_the_same(pattern: str) -> None:
    """What one names to look at or to type, the other names as well."""
    found = [sorted(set(re.findall(pattern, text))) for text in (ENGLISH, CHINESE)]
    assert [each for each in found[0] if each != "/retry"] == found[1]


def test_the_robot_is_connected_by_three_commands() -> None:
    """A newcomer types three commands at most before the first answer."""
    block = re.search(r"## Connect your robot.*?```sh\n(.*?)```", ENGLISH, re.DOTALL)
    assert block is not None
    assert len(block[1].splitlines()) <= 3
