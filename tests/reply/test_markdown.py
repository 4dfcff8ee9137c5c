"""Splitting loses nothing, tears nothing, and ends; titles and line breaks are what DingTalk can show."""

from __future__ import annotations

import json
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claw.language import Language
from claw.reply.markdown import clean, format_for_dingtalk, make_title, measure_json, measure_utf8, split

FENCE = re.compile(r"([ \t]*)(`{3,}|~{3,})([^\n]*)")
LINES = st.sampled_from(
    [
        "```",
        "```python",
        "````",
        "~~~",
        "~~~~ sh",
        "  ```",
        "    ```js",
        "",
        " ",
        "# Title",
        "- item",
        "| a | b |",
        "|---|---|",
        "print('hello world')",
        "你好，世界。这是一句话！还有吗？",
        "One sentence. Another one! A third?",
        "word " * 30,
        "字" * 70,
        "x" * 150,
        "👩‍👩‍👧‍👦" * 5,
        "``` a`b",
        "a ``` b ``` c",
        "a ~~~ b",
        "`" * 90,
        '"quotes" and \\backslashes\\',
    ]
)
DOCUMENTS = st.one_of(
    st.lists(LINES, max_size=40).map("\n".join),
    st.text(max_size=600),
    st.text(alphabet="`~ \n\tab.。\ud83d\ude00é́", max_size=600),
)


def without_fences(text: str) -> str:
    """What is said, without white space and without lines that are nothing but a fence's."""
    return "".join("".join(line.split()) for line in text.split("\n") if not FENCE.match(line))


def open_fence(text: str, limit: int, size: object = measure_utf8) -> str:
    """The fence that is open at the end, as a renderer would see it; lines too long to repeat are no fences."""
    assert callable(size)
    opened = ""
    column = 0
    for line in text.split("\n"):
        match = FENCE.fullmatch(line)
        if not match:
            continue
        indent = len(match[1].expandtabs(4))
        if not opened:
            if size(line) <= limit // 4 and not (match[2][0] == "`" and "`" in match[3]):
                opened, column = match[2], indent
        elif match[2].startswith(opened) and not match[3].strip() and indent < column + 4:
            opened = ""
    return opened


@given(DOCUMENTS, st.integers(64, 400))
@settings(max_examples=400, deadline=None)
def test_every_part_fits_and_is_balanced(text: str, limit: int) -> None:
    """A part is at most the limit in bytes, is never blank, and leaves no fence open."""
    for part in split(text, limit):
        assert len(part.encode()) <= limit
        assert part.strip()
        assert open_fence(part, limit) == ""


@given(DOCUMENTS, st.integers(64, 400))
@settings(max_examples=300, deadline=None)
def test_nothing_is_lost_but_white_space(text: str, limit: int) -> None:
    """All parts together say what the text said, but for fence lines and white space."""
    # A line of fence characters that is longer than a part is cut, so its pieces may or may not look like fences.
    parts = split(text, limit)
    if any(len(line.encode()) > limit // 4 for line in clean(text).split("\n") if FENCE.match(line)):
        for character in "abx字":
            assert sum(part.count(character) for part in parts) >= clean(text).count(character)
        return
    assert "".join(map(plain, parts)) == plain(clean(text))


def plain(text: str) -> str:
    return re.sub(r"[`~]|\s", "", without_fences(text))


@given(DOCUMENTS, st.integers(64, 400))
@settings(max_examples=200, deadline=None)
def test_split_is_deterministic_and_json_sizes_hold(text: str, limit: int) -> None:
    """The same text gives the same parts, and a limit on JSON bytes is kept as well."""
    parts = split(text, limit, measure=measure_json)
    assert parts == split(text, limit, measure=measure_json)
    for part in parts:
        assert len(json.dumps(part, ensure_ascii=False).encode()) - 2 <= limit
        assert open_fence(part, limit, measure_json) == ""


@given(st.text())
def test_json_size_is_what_json_takes(text: str) -> None:
    """`measure_json` counts the bytes of a cleaned text in a JSON string."""
    assert measure_json(clean(text)) == len(json.dumps(clean(text), ensure_ascii=False).encode()) - 2


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        (" \n\t\n", []),
        ("short", ["short"]),
        ("a" * 50 + "\n\n" + "b" * 40, ["a" * 50, "b" * 40]),
        ("a" * 40 + "\n" + "b" * 40, ["a" * 40, "b" * 40]),
        ("a " * 25 + "end. " + "b" * 20, ["a " * 25 + "end.", "b" * 20]),
        ("字" * 16 + "。" + "句" * 16, ["字" * 16 + "。", "句" * 16]),
        ("a" * 40 + " " + "b" * 40, ["a" * 40, "b" * 40]),
        ("a" * 100, ["a" * 64, "a" * 36]),
        ("a" * 40 + " - " + "b" * 40, ["a" * 40 + " -", "b" * 40]),
    ],
)
def test_where_text_is_cut(text: str, parts: list[str]) -> None:
    """Paragraph before line before sentence before word; a cut makes no list of a dash."""
    assert split(text, 64) == parts


def test_a_fence_that_fits_is_kept_whole() -> None:
    """Code that fits into one part goes there in one piece, even if the part before stays short."""
    code = "```py\n" + "x = 1\n" * 8 + "```"
    assert split("intro text\n" + code + "\nafter", 64) == ["intro text", code + "\nafter"]


def test_a_long_fence_is_closed_and_opened_again() -> None:
    """Each part of long code has the same info string and its own closing line."""
    parts = split("```py\n" + "value = 12345\n" * 10 + "```\ndone", 64)
    assert len(parts) > 1
    for part in parts[:-1]:
        assert part.startswith("```py\n")
        assert part.endswith("\n```")
    assert parts[-1].endswith("done")
    assert sum(part.count("value = 12345") for part in parts) == 10


def test_no_empty_fence_is_left_over() -> None:
    """When only the closing line is left, the next part does not open the fence for it."""
    line = "y" * 27
    parts = split(f"```\n{line}\n{line}\n\n\n```\n\nafter the code", 64)
    assert parts == [f"```\n{line}\n{line}\n```", "after the code"]


def test_code_keeps_its_blanks() -> None:
    """White space at the end of a line of code stays, also where it is cut."""
    assert split("```\n" + "y" * 40 + "   \n" + "z" * 40 + "\n```", 64)[0] == "```\n" + "y" * 40 + "   \n```"


def test_a_cut_makes_no_fence_of_a_line_that_is_none() -> None:
    """A line too long to be repeated opens no fence; its first word alone would."""
    assert split("``` " + "x" * 100, 64)[0] == "``` " + "x" * 60


@pytest.mark.parametrize("emoji", ["👩‍👩‍👧‍👦", "🇨🇳", "👍🏽", "é", "❤️"])
def test_no_visible_character_is_torn(emoji: str) -> None:
    """Joined emoji, flags, skin tones and accents stay in one part."""
    parts = split(emoji * 60, 70)
    assert "".join(parts) == emoji * 60
    assert all(part == emoji * (len(part) // len(emoji)) for part in parts)


def test_a_long_row_of_flags_is_not_torn() -> None:
    """However many flags come before, each stays in one part."""
    assert all(len(part) % 2 == 0 for part in split("🇨🇳" * 3000, 999))


@pytest.mark.parametrize(
    "text",
    [
        "x" * 1_000_000,
        "字" * 400_000,
        "`" * 100_000,
        "```\n" * 100_000,
        "~~~\n" + "a\n" * 300_000,
        "```py\n" + "z" * 1_000_000,
        " " * 500_000 + "x",
        "a\n" * 300_000,
        "\n" * 1_000_000 + "x",
        "a " * 400_000,
        "." * 500_000,
        "́" * 300_000,
        "🇨" * 200_000,
        "- " * 200_000,
        "|" * 300_000,
        "_" * 300_000,
        "``` " + "~" * 300_000,
        "\ud800" * 100_000,
        "```\n\n\n" * 60_000,
        "<" * 300_000,
        "[" * 300_000,
    ],
    ids=lambda text: f"{text[:6]!r}x{len(text)}",
)
def test_hostile_texts_end_soon(text: str) -> None:
    """Megabytes of anything are made ready, split and named in linear time."""
    began = time.process_time()
    make_title(text)
    parts = split(format_for_dingtalk(text), 14_000, measure=measure_json)
    assert time.process_time() - began < 20
    assert all(measure_json(part) <= 14_000 for part in parts)


def test_lone_surrogates_are_replaced_and_pairs_joined() -> None:
    """Half a surrogate pair cannot be sent; two halves that belong together are a character."""
    assert clean("a\ud83d\ude00b\ud800") == "a😀b�"


def test_a_limit_too_small_is_refused() -> None:
    """A part must hold a fence and something in it."""
    with pytest.raises(ValueError, match="too small"):
        split("x", 63)


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Hello there", "Hello there"),
        ("## **Plan** for `today`", "Plan for today"),
        ("\n\n- [docs](https://example.com/x) first", "docs first"),
        ("![](x)\n> 引用的话", "引用的话"),
        ("```py\nprint(1)\n```", "print(1)"),
        ("1. 首先\n2. 然后", "首先"),
        ("snake_case stays", "snake_case stays"),
        ("---\n\n***\n", "回复"),
        ("", "回复"),
        ("字" * 50, "字" * 23 + "…"),
    ],
)
def test_titles(text: str, title: str) -> None:
    """A title is the first words without markup, 24 characters at most, never empty."""
    assert make_title(text) == title


@given(DOCUMENTS)
def test_titles_are_short_and_never_empty(text: str) -> None:
    """Whatever the text, its title can be shown and sent."""
    title = make_title(text, Language.EN)
    assert 0 < len(title) <= 24
    assert title.strip()
    assert title.encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("one\ntwo", "one  \ntwo"),
        ("one\n\ntwo", "one\n\ntwo"),
        ("one  \ntwo\n", "one  \ntwo\n"),
        ("- a\n- b", "- a\n- b"),
        ("1. a\n2. b", "1. a\n2. b"),
        ("# T\ntext", "# T\ntext"),
        ("> q\n> r", "> q\n> r"),
        ("```\na\nb\n```", "```\na\nb\n```"),
        ("see\nthis\n```\na\nb\n```\nc\nd", "see  \nthis\n```\na\nb\n```\nc  \nd"),
        ("head\n| a | b |\n|---|---|\n| 1 | 2 |", "head\n\n| a | b |\n|---|---|\n| 1 | 2 |"),
        ("head\na | b\n--|--\n1 | 2\n\nx\ny", "head\n\na | b\n--|--\n1 | 2\n\nx  \ny"),
        ("Title\n===\ntext", "Title\n===\ntext"),
        ("a | b\nc", "a | b  \nc"),
    ],
)
def test_line_breaks_that_dingtalk_shows(text: str, shown: str) -> None:
    """Plain lines get two spaces before the break, tables a blank line before them; nothing else is touched."""
    assert format_for_dingtalk(text) == shown


@given(DOCUMENTS)
@settings(max_examples=200)
def test_line_breaks_change_only_white_space(text: str) -> None:
    """Making it visible adds and removes white space only, and doing it twice changes nothing more."""
    shown = format_for_dingtalk(text)
    assert "".join(shown.split()) == "".join(clean(text).split())
    assert format_for_dingtalk(shown) == shown
