"""What a model wrote does nothing but be read: links, mentions, embedded data."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claw.language import Language
from claw.reply.sanitize import BREAK, EMBEDDED, sanitize

MARK = EMBEDDED[Language.EN]
LIVE = re.compile(r"\]\(\s*<?\s*(?!https?:|mailto:)[a-z][a-z0-9+.-]*:", re.I)
"""A link with a scheme of its own, as a renderer finds it."""


def shown(text: str, max_chars: int = 100_000) -> str:
    return sanitize(text, Language.EN, max_chars).text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain words, and a: colon",
        "[docs](https://example.com/a?b=c:d#e) and ![](http://example.com/x.png)",
        "[write](mailto:ann@example.com) or ann@all.example.com",
        "[here](guide/start) [there](#a:b) ![](@lADOfakeMediaId) [up](../x?y=a:b)",
        "<https://example.com> <mailto:a@example.com> <b>bold</b>",
        "redis://localhost:6379/0 and postgres://user@host, https://api.dingtalk.com:443/x",
        "JavaScript: the good parts",
        "@allen and @u-1001 and user@all",
        "Use `[x](javascript:alert(1))` or ``a ` @all`` in a line of code",
        "```\n[x](javascript:alert(1)) @all data:image/png;base64,AAAA\n```",
        "data: the plural of datum; data:image is a word",
        "> quote\n\n- item [1]\n\n[1]: https://example.com",
    ],
)
def test_what_does_no_harm_is_left_alone(text: str) -> None:
    """Ordinary answers, and code, go out as they were written."""
    assert shown(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "[x](javascript:alert(1))",
        "[x](JavaScript:alert(1))",
        "[x]( \n javascript:alert(1))",
        "[x](<javascript:alert(1)>)",
        "[x](<java\tscript:alert(1)>)",
        "[x](&#106;avascript:alert(1))",
        "[x](&#x6A;avascript:alert(1))",
        "[x](javascript&colon;alert(1))",
        "[x](java\\script:alert(1))",
        "[x](\u200bjavascript:alert(1))",
        "[x](dingtalk://dingtalkclient/page/link?url=https%3A%2F%2Fevil.example)",
        "[x](DingTalk://x)",
        "![x](dingtalk://x)",
        "[x](tel:110)",
        "[x](file:///etc/passwd)",
        "[x](vbscript:x)",
        "[a](http://ok](javascript:alert(1))",
        "[![x](https://example.com/x.png)](javascript:alert(1))",
        "[x][1]\n\n[1]: javascript:alert(1)",
        "> [1]: <tel:110>",
        "<javascript:alert(1)>",
        "<tel:110>",
        '<a href="javascript:alert(1)">x</a>',
        "<a HREF = 'java&#115;cript:alert(1)'>x</a>",
        "open dingtalk://dingtalkclient/action/open_mini_app",
        "open javascript:alert(1)",
        # What looks like code in a line and is none.
        "\\`[x](javascript:alert(1))`",
        "`a\n`[x](javascript:alert(1))` b",
        "- `\n- [x](javascript:alert(1)) `",
        "`` [x](javascript:alert(1)) `",
        "`a`[x](javascript:alert(1))`",
        "`a\\`[x](javascript:alert(1))`",
        "`\n\n[x](javascript:alert(1))`",
        "``` a`b\n[x](javascript:alert(1))",
    ],
)
def test_other_schemes_are_no_links(text: str) -> None:
    """However they are spelt; the words stay, and nothing but a character without width is added."""
    found = shown(text)
    assert found != text
    assert found.replace(BREAK, "") == text.replace(BREAK, "")
    assert not LIVE.search(found)
    assert not re.search(r"(?i)(?:dingtalk|javascript):\S", found)


@pytest.mark.parametrize(
    "text", ["@all", "@All look", "@ALL!", "hey @所有人请看", "＠all", "(@everyone)", "a @全体成员", "@all。"]
)
def test_nobody_mentions_all(text: str) -> None:
    """DingTalk looks for the words of a mention in the text."""
    found = shown(text)
    assert found.replace(BREAK, "") == text
    assert re.search(f"[@＠]{BREAK}", found)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("a ![猫](data:image/png;base64,AAAA=) b", f"a 猫{MARK} b"),
        ("![](data:image/png;base64,AAAA)", MARK),
        ('![x](<data:image/png;base64,AAAA> "title")', f"x{MARK}"),
        ("[file](data:application/pdf;base64,AAAA)", f"file{MARK}"),
        ("![x](DATA:image/svg+xml;charset=utf-8,%3Csvg%3E)", f"x{MARK}"),
        ("see data:image/png;base64,AAAA.", f"see {MARK}"),
        ('<img src="data:image/png;base64,AAAA">', f'<img src="{MARK}">'),
        ("![x](data:image/png;base64,AAAA", f"x{MARK}"),
        ("![x](data:image/png;base64,AAAA\n" + "B" * 76 + "\n" + "C" * 40 + ")", f"x{MARK}"),
    ],
)
def test_embedded_data_becomes_a_mark(text: str, result: str) -> None:
    """People cannot read it, and each 14 KB of it would be a message."""
    assert shown(text) == result


def test_the_mark_is_in_the_persons_language() -> None:
    """Both say the same."""
    assert sanitize("![](data:image/png;base64,AAAA)", Language.ZH, 99).text == EMBEDDED[Language.ZH]


def test_no_more_is_looked_at_than_can_be_sent() -> None:
    """A picture of megabytes takes no room of what comes after it; what is left out is counted."""
    picture = f"![](data:image/png;base64,{'A' * 400_000})"
    assert sanitize(f"{picture} and this", Language.EN, 1000).text == f"{MARK} and this"
    assert sanitize("x" * 1000 + "\n```\ny\n```\n" + "z" * 50, Language.EN, 1000) == ("x" * 1000, 61)
    assert sanitize("abc", Language.EN, 3) == ("abc", 0)


PIECES = st.sampled_from(
    [
        "`",
        "``",
        "\\",
        "[x]",
        "(",
        ")",
        "javascript:",
        "dingtalk://",
        "http://a",
        "@all",
        "\n",
        "\n\n",
        "<",
        ">",
        " ",
        "x",
    ]
)


@given(st.lists(PIECES, max_size=40).map("".join))
@settings(max_examples=500, deadline=None)
def test_words_are_never_lost(text: str) -> None:
    """Whatever is put together, only characters without width are added."""
    assert shown(text).replace(BREAK, "") == text


@pytest.mark.parametrize(
    "text",
    [
        "@all " * 200_000,
        "](a:" * 250_000,
        "](" * 500_000,
        "](" + " " * 1_000_000,
        "[x](\n" * 200_000,
        "`" * 1_000_000,
        "` " * 500_000,
        "\\`" * 500_000,
        "``\n`" * 250_000,
        "data:a/a;" * 110_000,
        "data:" * 200_000,
        "![](data:" * 110_000,
        "![](data:image/png;base64," + "A" * 1_000_000,
        "![](data:" + "\nAAAAAAAAAAAAAAAAAAAAAAAA" * 40_000,
        "[" * 1_000_000,
        "<" * 1_000_000,
        "<a:" * 330_000,
        "href" * 250_000,
        "href=" + " " * 1_000_000,
        "javascript:" * 90_000,
        "```\n" * 250_000,
        "\n \n" * 330_000,
        "&#106;" * 160_000,
        "](&#0000106;" * 80_000,
    ],
    ids=lambda text: f"{text[:8]!r}",
)
def test_hostile_texts_end_soon(text: str) -> None:
    """Megabytes of anything take linear time, and little of it: only what can be sent is looked at."""
    began = time.process_time()
    sanitize(text, Language.EN, 70_000)
    assert time.process_time() - began < 3
