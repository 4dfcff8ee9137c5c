"""Splitting loses nothing, tears nothing, and ends; titles and line breaks are what DingTalk can show."""

from __future__ import annotations

import json
import re
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from claw.reply.characters import clean, measure_json, measure_utf8
from claw.reply.cutting import split
from claw.reply.markdown import format_for_dingtalk

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
    """What is said, without white space, a fence's lines and a table's, whose header is said twice."""
    return "".join("".join(line.split()) for line in text.split("\n") if not (FENCE.match(line) or line[:1] == "|"))


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
            if size(line.rstrip()) <= limit // 4 and not (match[2][0] == "`" and "`" in match[3]):
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
        "|" * 1_000_000,
        "<" * 1_000_000,
        "<a" * 500_000,
        "\\<a" * 330_000,
        "<br>" * 250_000,
        "<https://" * 110_000,
        "](<" * 330_000,
        "> " * 500_000,
        "> a\n" * 250_000,
        ">\n" * 300_000,
        "- a\n" * 250_000,
        "1. a\n" * 200_000,
        "2. a\n" * 200_000,
        "a\\\n" * 300_000,
        "\\" * 1_000_000,
        "` " * 500_000,
        "`<a>`" * 200_000,
        "├── a\n" * 160_000,
        "│\n" * 300_000,
        "│`\n" * 300_000,
        "|-- a\n" * 160_000,
        "- - " * 250_000 + "x",
        "_ " * 500_000 + "x",
    ],
    ids=lambda text: f"{text[:6]!r}x{len(text)}",
)
def test_hostile_texts_end_soon(text: str) -> None:
    """Megabytes of anything are made ready and split in linear time."""
    began = time.process_time()
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
    ("text", "shown"),
    [
        ("one\ntwo", "one  \ntwo"),
        ("one\n\ntwo", "one\n\ntwo"),
        ("one  \ntwo\n", "one  \ntwo\n"),
        ("- a\n- b", "- a\n- b"),
        ("1. a\n2. b", "1. a\n2. b"),
        ("# T\ntext", "# T\ntext"),
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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("> 床前明月光\n> 疑是地上霜", "> 床前明月光  \n> 疑是地上霜"),
        (">> a\n>> b\n> c\n\nd", ">> a  \n>> b  \n> c\n\nd"),
        ("> a\n>\n> b", "> a\n>\n> b"),
        ("> a\n>> b", "> a\n>> b"),
        ("> - a\n>   b\n> - c", "> - a  \n>   b\n> - c"),
        ("> quoted\ntext", "> quoted  \ntext"),
        ("- a\n  text\n  more\n- b", "- a  \n  text  \n  more\n- b"),
        ("- a\ntext\n- b", "- a  \ntext\n- b"),
        ("1. a\n   - b\n     c\n2. d", "1. a\n   - b  \n     c\n2. d"),
        ("1. a\n\n   p\n   q\n2. b", "1. a\n\n   p  \n   q\n2. b"),
        ("步骤：\n1. a\n2. b", "步骤：\n\n1. a\n2. b"),
        ("text\n- a\n- b", "text\n\n- a\n- b"),
        ("> text\n> 1. a", "> text\n>\n> 1. a"),
        ("先看\n2. a\n3. b", "先看  \n2. a  \n3. b"),
        ("生于\n1985. 后来", "生于  \n1985. 后来"),
        ("# T\na\nb\n## U\nc", "# T\na  \nb\n## U\nc"),
        ("a\nb\n---\nc\nd", "a  \nb\n---\nc  \nd"),
        ("a\n***\nb", "a\n***\nb"),
        ("浙江省杭州市\n余杭区文一西路969号\n310000", "浙江省杭州市  \n余杭区文一西路969号  \n310000"),
        ("　　空山新雨后\n　　天气晚来秋", "　　空山新雨后  \n　　天气晚来秋"),
        ("a\\\nb", "a  \nb"),
        ("a\\\\\nb", "a\\\\  \nb"),
        ("a\\\n\nb\\", "a\\\n\nb\\"),
        ("a<br>b<BR/>\nc<br />", "a  \nb  \nc"),
        ("> a<br>b", "> a  \n> b"),
        ("1. a<br>b\n2. c", "1. a  \n   b\n2. c"),
        ("a<br><br>b", "a\n\nb"),
        ("a<br>```b\nc", "a ```b  \nc"),
        ("``` a<br>`b`", "``` a `b`"),
        ("`a<br>b` \\<br>", "`a<br>b` &lt;br>"),
        ("| a |\n|---|\n| 1<br>2 |", "| a |\n|---|\n| 1 / 2 |"),
        ("| a | b |\n|---|---|\n| 1 | 2 |\ntext\nmore", "| a | b |\n|---|---|\n| 1 | 2 |\n\ntext  \nmore"),
        ("> x\n> | a |\n> |---|\n> | 1 |\n> y", "> x\n>\n> | a |\n> |---|\n> | 1 |\n>\n> y"),
        ("- x\n  | a |\n  |---|\n  | 1 |", "- x\n\n  | a |\n  |---|\n  | 1 |"),
        ("- x\n  - y\n    | a |\n    |---|\n    | 1 |", "- x\n  - y\n\n   | a |\n   |---|\n   | 1 |"),
        ("| a |\n|---|\n```\nx\n```", "| a |\n|---|\n```\nx\n```"),
    ],
)
def test_what_was_written_as_lines_is_seen_as_lines(text: str, shown: str) -> None:
    """In quotes, lists and poems, beside tables and headings; what CommonMark says stays what it is."""
    assert format_for_dingtalk(text) == shown
    assert format_for_dingtalk(shown) == shown


TREE = "├── a.py\n│   └── b.py\n└── c"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"目录：\nsrc/\n{TREE}\n\n完", f"目录：\n```\nsrc/\n{TREE}\n```\n\n完"),
        (f"my-app/  # 根目录\n{TREE}", f"```\nmy-app/  # 根目录\n{TREE}\n```"),
        (f"结构如下：\n{TREE}\n说明", f"结构如下：\n```\n{TREE}\n```\n说明"),
        ("- 结构\n  ├── a\n  └── b", "- 结构\n  ```\n  ├── a\n  └── b\n  ```"),
        (".\n|-- src\n|   `-- a\n`-- b", "```\n.\n|-- src\n|   `-- a\n`-- b\n```"),
        ("┌───┐\n│ a │\n└───┘", "```\n┌───┐\n│ a │\n└───┘\n```"),
        (f"```\n{TREE}\n```", f"```\n{TREE}\n```"),
        ("├── a<T>\n└── b", "```\n├── a<T>\n└── b\n```"),
        ("├── **a**\n│   └── b", "├──\u00a0**a**  \n│\u00a0\u00a0\u00a0└──\u00a0b"),
        ("> ├── a\n> │   └── b", "> ├──\u00a0a  \n> │\u00a0\u00a0\u00a0└──\u00a0b"),
        ("━━━━━━\ntext\n━━━━━━", "━━━━━━  \ntext  \n━━━━━━"),
        ("---\n├── a\n└── b", "---\n```\n├── a\n└── b\n```"),
    ],
)
def test_trees_of_files_keep_their_lines(text: str, shown: str) -> None:
    """A drawing outside of code becomes code, or keeps its blanks where it has markup or stands in a quote."""
    assert format_for_dingtalk(text) == shown
    assert format_for_dingtalk(shown) == shown


BITS = st.sampled_from(
    [
        *("> ", "- ", "1. ", "2. ", "  ", "    ", "a", "字", "<b>", "<br>", "`", "\\", "|", "---", "|-", "\n", "\n\n"),
        *("├── ", "│"),
    ]
)


@given(st.one_of(DOCUMENTS, st.lists(BITS, max_size=40).map("".join)))
@settings(max_examples=500, deadline=None)
def test_nothing_is_lost_by_making_it_visible(text: str) -> None:
    """Blanks and line breaks change, brackets are spelt otherwise, drawings are fenced: no word goes, none comes."""
    assert letters(format_for_dingtalk(text)) == letters(clean(text))


def letters(text: str) -> str:
    text = text.replace("&lt;", "<").replace("<br>", "").replace("</br>", "")
    return re.sub(r"[\s>`/\\]", "", text)


@given(st.one_of(DOCUMENTS, st.lists(BITS, max_size=40).map("".join)))
@settings(max_examples=500, deadline=None)
def test_making_it_visible_twice_changes_nothing_more(text: str) -> None:
    """What is visible stays as it is. Lines that a `<br>` broke may be a table, or with a drawing a folder's name."""
    assume(not re.search("[\u2500-\u257f]", text))
    shown = format_for_dingtalk(re.sub("(?i)</?br[ \t]*/?>", "", clean(text)))
    assert format_for_dingtalk(shown) == shown


@given(st.lists(BITS, max_size=60).map("".join), st.integers(64, 300))
@settings(max_examples=300, deadline=None)
def test_visible_text_in_parts(text: str, limit: int) -> None:
    """What is made visible is cut into parts that fit, are balanced and tear no entity."""
    for part in split(format_for_dingtalk(text), limit, measure=measure_json):
        assert 0 < measure_json(part) <= limit
        assert open_fence(part, limit, measure_json) == ""
        assert not re.search(r"&(?:l?t?)$|^(?:lt;|t;|;)", part)
