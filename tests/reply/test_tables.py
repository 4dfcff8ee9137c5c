"""Tables over several parts: no row is torn that need not be, and each part that goes on with one is a table."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claw.reply.characters import clean, measure_json, measure_utf8
from claw.reply.cutting import split
from claw.reply.fences import find_blocks
from claw.reply.markdown import format_for_dingtalk
from claw.reply.tables import Table, find_tables, read_head

HEAD = "| 序号 | 姓名 | 说明 |\n|---:|:---|---|\n"


def tables_of(text: str) -> list[Table]:
    return list(find_tables(text, list(find_blocks(text, lambda _: True)), None, 0))


def rows_of(part: str) -> list[str]:
    return [line for line in part.split("\n") if line.startswith("| ") and "姓名" not in line]


@pytest.mark.parametrize(
    ("header", "rule", "columns"),
    [
        ("| a | b |", "|---|---|", 2),
        ("a | b", "--|--", 2),
        ("| a |", "|-|", 1),
        ("| a | b", "|:-:|--:", 2),
        ("| a \\| c | b |", "|---|---|", 2),
        ("> | a | b |", "> |---|---|", 2),
        (">> | a | b |", "> > | - | - |", 2),
        ("   | a | b |", "  |---|---|", 2),
        ("| | |", "|-|-|", 2),
    ],
)
def test_heads_of_tables(header: str, rule: str, columns: int) -> None:
    """A header and a rule of as many columns make a table."""
    head = read_head(header, rule)
    assert head is not None
    assert head.columns == columns
    assert read_head(*head.without_words().opening.split("\n")) is not None


@pytest.mark.parametrize(
    ("header", "rule"),
    [
        ("| a | b |", "|---|"),
        ("a", "---"),
        ("a | b", "---"),
        ("| a | b |", "> |---|---|"),
        ("- a | b", "---|---"),
        ("# a | b", "---|---"),
        ("    | a | b |", "|---|---|"),
        ("| a | b |", "|---| |"),
        ("> " * 20 + "a | b", "> " * 20 + "--|--"),
    ],
)
def test_what_is_no_head(header: str, rule: str) -> None:
    """Anything else is text."""
    assert read_head(header, rule) is None


def test_a_table_in_code_is_code() -> None:
    """As are its rows; a fence, a list and a quote end a table."""
    table = "| a | b |\n|---|---|\n| 1 | 2 |\n"
    assert tables_of(f"```\n{table}```\n") == []
    for after in ("", "text\n", "\n| x |\n", "```\n|x|\n```\n", "- a | b\n", "> | x |\n", "# a | b\n"):
        (found,) = tables_of("text\n\n" + table + after)
        assert (found.start, found.end) == (6, 6 + len(table))


def test_four_hundred_rows() -> None:
    """Header and rule stand again at the head of each part, and no row is torn."""
    rows = [f"| {n} | 员工{n} | {'负责第' + str(n) + '号项目的日常工作与沟通协调，' * 2} |" for n in range(400)]
    text = "员工名单如下：\n\n" + HEAD + "\n".join(rows) + "\n\n以上。"
    parts = split(format_for_dingtalk(text), 14_000, measure=measure_json)
    assert len(parts) == 4
    assert parts[0].startswith("员工名单如下：\n\n" + HEAD)
    assert all(part.startswith(HEAD) for part in parts[1:])
    assert all(10_000 < measure_json(part) <= 14_000 for part in parts[:-1])
    assert [row for part in parts for row in rows_of(part)] == rows
    assert parts[-1].endswith("\n\n以上。")


@pytest.mark.parametrize("margin", ["> ", ">> ", "  ", "> > "])
def test_tables_in_quotes_and_lists(margin: str) -> None:
    """They go on in the same quote, at the same indentation."""
    lines = ["| name | value |", "|---|---|", *(f"| name {n} | value {n} |" for n in range(40))]
    parts = split("\n".join(margin + line for line in lines), 250)
    assert len(parts) > 3
    for part in parts:
        assert part.split("\n")[:2] == [margin + "| name | value |", margin + "|---|---|"]
        assert all(line.startswith(f"{margin}| name") and line.endswith("|") for line in part.split("\n")[2:])
    assert sum(part.count("| value ") for part in parts) == 40 + len(parts)


def test_a_row_larger_than_a_part_stays_in_its_columns() -> None:
    """It is torn between cells, else between words, and what is left of it begins in the column where it was torn."""
    words = " ".join(f"word{n}" for n in range(60))
    text = f"| k | text | end |\n|---|---|---|\n| 1 | short | x |\n| 2 | {words} | y |\n| 3 | short | z |"
    parts = split(text, 200)
    head = "| k | text | end |\n|---|---|---|\n"
    assert all(part.startswith(head) and len(part) <= 200 for part in parts)
    assert parts[1].removeprefix(head).startswith("| 2 | word0 word1 ")
    assert all(part.removeprefix(head).startswith("| | word") for part in parts[2:-1])
    assert " ".join(re.findall("word[0-9]+", "".join(parts))) == words
    assert parts[-1].endswith(" | y |\n| 3 | short | z |")


def test_a_row_of_one_word() -> None:
    """Nothing but characters is left to cut between; only its closing pipe may be lost."""
    head = "| k | text |\n|---|---|\n"
    parts = split(head + "| 1 | " + "x" * 500 + " |", 100)
    assert all(part.startswith(head) and len(part) <= 100 for part in parts)
    assert "".join(parts).count("x") == 500 + len(parts)
    for length in range(40, 200):
        assert "".join(split(head + "| 1 | " + "字" * length + " |", 100)).count("字") == length


def test_a_header_too_large_to_repeat() -> None:
    """One above a quarter of a part gives way to one of empty cells; one of too many columns to none."""
    rows = "".join(f"| {n} | {n} |\n" for n in range(100))
    parts = split(f"| {'a' * 40} | b |\n|---|---|\n{rows}", 160)
    assert all(part.startswith("| | |\n|-|-|\n| ") for part in parts[1:])
    many = 60
    parts = split("| a " * many + "|\n" + "|-" * many + "|\n" + ("| 1 " * many + "|\n") * 9, 400)
    assert not any("|-|" in part for part in parts[1:])
    assert "".join(parts).count("1") == 9 * many


def test_a_table_is_cut_rather_than_moved() -> None:
    """A message costs more than a header; but one row, or the head alone, is not worth it."""
    table = "| a | b |\n|---|---|\n" + "| 1234 | 5678 |\n" * 30
    first, second, *_ = split("intro\n\n" + table, 200)
    assert first.startswith("intro\n\n| a | b |")
    assert second.startswith("| a | b |\n|---|---|\n| 1234")
    assert split("x" * 180 + "\n\n" + table, 200)[0] == "x" * 180
    small = "| a | b |\n|---|---|\n" + "| 1234 | 5678 |\n" * 5
    assert split("x" * 120 + "\n\n" + small, 200) == ["x" * 120, small.strip()]


CELL = st.text(alphabet="ab字。 \\`~<-", max_size=30) | st.just("word " * 12)
ROWS = st.lists(st.lists(CELL, min_size=3, max_size=3).map(lambda cells: "| x" + " | ".join(cells) + " |"), max_size=30)


@given(ROWS, st.sampled_from(["", "> ", "  "]), st.sampled_from(["", "text\n\n"]), st.integers(140, 600))
@settings(max_examples=300, deadline=None)
def test_every_part_that_goes_on_is_a_table(rows: list[str], margin: str, before: str, limit: int) -> None:
    """Whatever is in the cells: no part is too large, nothing is lost, and each is a table of the same columns."""
    lines = ["| 一 | 二 | 三 |", "|---|---|---|", *rows]
    text = before + "\n".join(margin + line for line in lines)
    for measure in (measure_utf8, measure_json):
        parts = split(text, limit, measure=measure)
        assert all(measure(part) <= limit for part in parts)
        for part in parts:
            if part == before.strip():
                continue
            (table,) = tables_of(part)
            assert table.head.columns == 3
            assert table.end == len(part)
        assert letters("".join(parts)) == letters(text)


def letters(text: str) -> str:
    """What is in the cells, without blanks and what rows and heads are made of."""
    return re.sub(r"\s|[|>]|一|二|三|-", "", clean(text))


HEADS = "| a | b |\n|---|---|\n"


@pytest.mark.parametrize(
    "text",
    [
        HEADS + "| x | y |\n" * 100_000,
        HEADS + "| " + "x" * 1_000_000,
        HEADS + "|" * 1_000_000,
        HEADS + "x|" * 500_000,
        HEADS + "| " + "\\|" * 500_000,
        HEADS * 50_000,
        (HEADS + "\n") * 50_000,
        "|" * 300_000 + "\n" + "|-" * 300_000,
        "| a " * 3000 + "\n" + "|-" * 3000 + "\n" + "|" * 900_000,
        "|-\n" * 300_000,
        "-|\n" * 300_000,
        "> " * 500_000 + "\n|-|",
        "> |a\n> |-\n" * 100_000,
        " " * 1_000_000 + "|\n|-|",
        "|:" * 500_000 + "x",
    ],
    ids=lambda text: f"{text[-24:]!r}x{len(text)}",
)
def test_hostile_tables_end_soon(text: str) -> None:
    """Megabytes of anything that looks like a table are cut in linear time."""
    began = time.process_time()
    parts = split(text, 14_000, measure=measure_json)
    assert time.process_time() - began < 5
    assert all(measure_json(part) <= 14_000 for part in parts)
