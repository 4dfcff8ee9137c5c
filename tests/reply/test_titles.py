"""A title is the first words of an answer, readable in a list that knows no markdown."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claw.language import Language
from claw.reply.sanitize import BREAK
from claw.reply.titles import make_title
from tests.reply.test_markdown import DOCUMENTS


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Hello there", "Hello there"),
        ("## **Plan** for `today`", "Plan for today"),
        ("## Plan ##", "Plan"),
        ("\n\n- [docs](https://example.com/x) first", "docs first"),
        ('[a](https://e.com/x_(y) "t") [b][1]', "a b"),
        ("- [ ] 任务一", "任务一"),
        ("1. 首先\n2. 然后", "首先"),
        ("snake_case stays, as does 2*3 or 2**3", "snake_case stays, as do…"),
        ("2*3*4 和 2**3", "2*3*4 和 2**3"),
        ("这是**重点**，约~5个", "这是重点，约~5个"),
        ("1\\. C:\\Users", "1. C:\\Users"),
        ("---\n\n***\n", "回复"),
        ("", "回复"),
        ("字" * 50, "字" * 23 + "…"),
        ("a || b", "a || b"),
        ("| 姓名 | 年龄 |\n|---|---|\n| 张三 | 3 |", "姓名 年龄"),
        ("|---|---|\n正文", "正文"),
        ("<https://example.com> 见此", "https://example.com 见此"),
        ("a<br>b", "a b"),
    ],
)
def test_titles(text: str, title: str) -> None:
    """A title is the first words without markup, 24 characters at most, never empty."""
    assert make_title(text) == title


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("```py\nprint(1)\n```", "回复"),
        ("```py\nprint(1)\n```\n就是这样", "就是这样"),
        ("![猫](https://example.com/cat.png)", "回复"),
        ("![](x)\n> 引用的话", "引用的话"),
        ("![猫](@lADOx) 一只猫", "一只猫"),
        ("~~~\nopen", "回复"),
    ],
)
def test_code_and_pictures_name_no_answer(text: str, title: str) -> None:
    """The first words beside them do, else a word that fits any answer."""
    assert make_title(text) == title


@pytest.mark.parametrize(
    "text", ["用 List<String>", "<user-id> 是什么", "a < b 且 x->y", "<b>粗</b>体", "Map<K, List<V>>", "<姓名>"]
)
def test_angle_brackets_are_seen(text: str) -> None:
    """As written, and none that a client could take for a tag."""
    title = make_title(text)
    assert title.replace(BREAK, "") == text
    assert "<" not in title.replace(f"<{BREAK}", "").replace("< ", "")


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("@张三 你好", "张三 你好"),
        ("请 @all 看", "请 all 看"),
        (f"请 @{BREAK}所有人 看", "请 所有人 看"),
        ("＠all", "all"),
        ("写信给 ann@example.com", "写信给 ann example.com"),
        ("&#64;all", "all"),
        ("@", "回复"),
    ],
)
def test_titles_mention_nobody(text: str, title: str) -> None:
    """Clients look for mentions in them."""
    assert make_title(text) == title


@given(st.one_of(DOCUMENTS, st.text(alphabet="<>@＠&lt;#64;[]()!*_`|\\ \na字", max_size=80)))
@settings(max_examples=300, deadline=None)
def test_titles_are_short_and_never_empty(text: str) -> None:
    """Whatever the text, its title can be shown and sent, mentions nobody and opens no tag."""
    title = make_title(text, Language.EN)
    assert 0 < len(title) <= 24
    assert title.strip()
    assert title.encode()
    assert not {"@", "＠", "\n"} & set(title)
    assert not any(f"<{each}" in title for each in "a字!/")


PIECES = ("|", "<", "[", "](", "![", "@", "*", "_ ", "\\", "&", "```\n", "![a](b)\n", "(", "> ")


@pytest.mark.parametrize("piece", PIECES)
def test_hostile_texts_end_soon(piece: str) -> None:
    """Only the head of a text is looked at, in linear time."""
    began = time.process_time()
    make_title(piece * (1_000_000 // len(piece)))
    assert time.process_time() - began < 0.5
