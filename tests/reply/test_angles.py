"""Angle brackets are seen as they were written, on clients that take them for HTML."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claw.language import Language
from claw.messages import Markdown
from claw.reply.angles import escape_angles
from claw.reply.plan import PlannedDelivery, plan_answer
from claw.reply.sanitize import BREAK


def words(content: list[Markdown], language: Language) -> list[PlannedDelivery]:
    """Return the messages that an answer is sent in."""
    return [each for each in plan_answer(content, language, 5).deliveries if isinstance(each, PlannedDelivery)]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("用 List<String>", "用 List&lt;String>"),
        ("Map<K, List<V>>", "Map&lt;K, List&lt;V>>"),
        ("<user-id> <姓名> <_x>", "&lt;user-id> &lt;姓名> &lt;_x>"),
        ("<b>粗</b> <!-- c --> <?xml?> <a\nb>", "&lt;b>粗&lt;/b> &lt;!-- c --> &lt;?xml?> &lt;a\nb>"),
        ("a < b <= c <- d <3 x->y a > b", "a < b <= c <- d <3 x->y a > b"),
        ("cat <<EOF", "cat &lt;&lt;EOF"),
        ("\\<b> \\\\<b>", "&lt;b> \\\\&lt;b>"),
        ("&lt;b&gt; &amp;", "&lt;b&gt; &amp;"),
        ("`<div>` ``a ` <b>`` <i>", "`<div>` ``a ` <b>`` &lt;i>"),
        ("`<div>", "`&lt;div>"),
        ("<ann@example.com>", "&lt;ann@example.com>"),
        ("<https://example.com/a?b=c>", "[https://example.com/a?b=c](https://example.com/a?b=c)"),
        ("<http://e.com/(x)>", "[http://e.com/(x)](http://e.com/%28x%29)"),
        ("[a](<https://e.com/a b>) ![](<x>)", "[a](https://e.com/a%20b) ![](x)"),
        ('[a](<https://e.com> "t")', '[a](https://e.com "t")'),
        ("[<https://e.com>](https://e.com)", "[https://e.com](https://e.com)"),
        ("[1]: <https://e.com>", "[1]: https://e.com"),
        (f"<{BREAK}javascript:x>", f"&lt;{BREAK}javascript:x>"),
        ("<https://" + "a" * 2000 + ">", "&lt;https://" + "a" * 2000 + ">"),
    ],
)
def test_brackets_outside_of_code(text: str, shown: str) -> None:
    """What could begin a tag is an entity; links work, code is as it was, and the rest is left alone."""
    assert escape_angles(text) == shown
    assert escape_angles(shown) == shown


@pytest.mark.parametrize(
    "text", ["```html\n<div>a</div>\n```", "~~~\n<br>&lt;\n~~~", "`List<String>`", "- `<b>`\n- ok"]
)
def test_code_is_copied_as_it_was(text: str) -> None:
    """Characters in code are those that were written, with none between that is not seen."""
    ((_, shown),) = words([Markdown(text)], Language.EN)
    assert shown == text


def test_text_and_title_of_an_answer() -> None:
    """Both show the brackets."""
    ((title, text),) = words([Markdown("用 List<String>\n\n<details>x</details>")], Language.ZH)
    assert title.replace(BREAK, "") == "用 List<String>"
    assert html.unescape(text) == "用 List<String>\n\n<details>x</details>"


@given(st.text(alphabet="<>ab字/!? \n\\&;lt`[](): ", max_size=80))
@settings(max_examples=500, deadline=None)
def test_no_tag_is_left(text: str) -> None:
    """Whatever is put together: no tag begins outside of code, and nothing is lost."""
    shown = escape_angles(text)
    assert not re.search(r"<[a-z/!?字]", re.sub(r"(?s)`.*`", " ", shown))
    kept = re.sub(r"[\\<> ()]|%2[089]|&lt;", "", text)
    assert re.sub(r"[\\<> ()]|%2[089]|&lt;", "", shown) == kept
