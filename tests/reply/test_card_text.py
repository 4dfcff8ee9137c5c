"""The text of a card: what fits into it, what follows, and what stands below half an answer."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from claw.draft import Activity, ActivityKind
from claw.language import Language
from claw.reply import texts
from claw.reply.card_text import add_note, loosen, plan_card, show_so_far
from claw.reply.fences import find_blocks, find_open_fence

LANGUAGES = st.sampled_from(list(Language))
SIZES = st.sampled_from([200, 201, 350, 600, 3000])
WORDS = st.sampled_from(
    ["word", "<b>", "List<String>", "字字字。", "`code`", "@all", "https://h.example/a", "😀", "|", "&"]
)
WORD = re.compile(r"w\d+w")


@st.composite
def answers(draw: st.DrawFn) -> tuple[str, list[str]]:
    """An answer of several kinds of blocks, and the numbered words in it, in their order."""
    numbers = iter(range(10_000))

    def line() -> str:
        rest = " ".join(draw(st.lists(WORDS, max_size=12)))
        return f"w{next(numbers)}w {rest}".strip()

    def block() -> str:
        lines = [line() for _ in range(draw(st.integers(1, 12)))]
        match draw(st.sampled_from(["prose", "quote", "code", "open code", "list"])):
            case "quote":
                return "\n".join(f"> {each}" for each in lines)
            case "code":
                return "\n".join(["```python", *lines, "```"])
            case "open code":
                return "\n".join(["~~~", *lines])
            case "list":
                return "\n".join(f"- {each}" for each in lines)
        return "\n".join(lines)

    text = "\n\n".join(block() for _ in range(draw(st.integers(1, 12))))
    return text, WORD.findall(text)


def is_balanced(text: str) -> bool:
    return find_open_fence(find_blocks(text, lambda _: True)) is None


@settings(max_examples=60, deadline=None)
@given(answers(), LANGUAGES, SIZES)
def test_a_card_and_what_follows_are_the_whole_answer(
    answer: tuple[str, list[str]], language: Language, size: int
) -> None:
    """The card keeps the template's limit, no word is lost or out of order, and a cut within code closes it."""
    text, words = answer
    plan = plan_card(text, language, size)
    assert len(plan.shown) <= size
    assert WORD.findall(plan.shown) + WORD.findall(plan.rest) == words
    assert (texts.CONTINUED[language] in plan.shown) == bool(plan.rest)
    if plan.rest:
        assert is_balanced(plan.shown)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=1500), LANGUAGES, SIZES)
@example("<" * 1500, Language.EN, 200)
@example("```" * 500, Language.ZH, 200)
def test_any_text_fits_into_a_card(text: str, language: Language, size: int) -> None:
    """Whatever a model says, neither its end nor its beginning is longer than the card takes."""
    assert len(plan_card(text, language, size).shown) <= size
    assert len(show_so_far(text, "doing", language, size)) <= size
    assert len(add_note(show_so_far(text, "", language, size), texts.STOPPED[language], size)) <= size


@pytest.mark.parametrize("unit", ["<", "<a>", "&", "a\nb\n", "> a\n", "|<x>|y|\n", "@all ", "[a](javascript:x) ", "*"])
def test_a_text_of_nothing_but_markup_is_divided_at_once(unit: str) -> None:
    """What formatting makes many times as long is cut in a moment, and fills the better part of the card."""
    began = time.thread_time()
    plan = plan_card(unit * 20_000, Language.EN, 3000)
    assert time.thread_time() - began < 0.5
    assert 2000 < len(plan.shown) <= 3000


def test_a_short_answer_is_a_card_alone() -> None:
    """What fits is shown as it would be in a message, and nothing follows."""
    assert plan_card("\nhello **you**\n", Language.EN, 200) == ("hello **you**", "")


def test_a_cut_within_code_opens_it_again_in_what_follows() -> None:
    """Both halves of a block are code, of the same kind."""
    plan = plan_card("```python\n" + "print(1)\n" * 100 + "```", Language.EN, 400)
    assert is_balanced(plan.shown)
    assert plan.rest.startswith("```python\n")


def test_half_an_answer_shows_its_head_and_what_is_being_done() -> None:
    """Below the text so far stands what the agent is doing; of a long one the head is shown, and no more."""
    assert show_so_far("", "doing", Language.EN, 200) == "doing"
    assert show_so_far("said", "", Language.EN, 200) == "said"
    assert show_so_far("said", "doing", Language.EN, 200) == "said\n\ndoing"
    long = show_so_far("word " * 1000, "doing", Language.EN, 200)
    assert long.endswith("\n\ndoing")
    assert len(long) <= 200


def test_our_own_word_stands_outside_of_code() -> None:
    """A mark below half an answer closes a block that is open, and finds room where the card is full."""
    assert add_note("", "Stopped.", 200) == "Stopped."
    assert add_note("said", "Stopped.", 200) == "said\n\nStopped."
    assert add_note("```py\nprint(", "Stopped.", 200) == "```py\nprint(\n```\n\nStopped."
    full = add_note("```py\n" + "x = 1\n" * 40, "Stopped.", 200)
    assert full.endswith("\n```\n\nStopped.")
    assert len(full) <= 200


def test_breaks_of_prose_become_paragraphs() -> None:
    """A break within prose, in a quote as well, is a blank line in a card; in code nothing changes."""
    assert loosen("a  \nb") == "a\n\nb"
    assert loosen("> a  \n> b") == "> a\n>\n> b"
    assert loosen("```\na  \nb\n```") == "```\na  \nb\n```"


@pytest.mark.parametrize(
    ("activity", "said"),
    [
        (Activity(ActivityKind.ASKED), "🤔 Working on it…"),
        (Activity(ActivityKind.THINKING), "🤔 Thinking…"),
        (Activity(ActivityKind.TOOL, "search"), "🔧 Using the tool `search`…"),
        (Activity(ActivityKind.TOOL), "🤔 Thinking…"),
        (Activity(ActivityKind.TOOL, "``"), "🤔 Thinking…"),
        (Activity(ActivityKind.TOOL, "a`b\n{c}"), "🔧 Using the tool `ab {c}`…"),
    ],
)
def test_what_the_agent_is_doing(activity: Activity, said: str) -> None:
    """A tool is named as code, whatever its name holds."""
    assert texts.describe_activity(activity, Language.EN) == said


def test_a_tool_with_a_long_name() -> None:
    """The name is a server's word: it never fills a card."""
    said = texts.describe_activity(Activity(ActivityKind.TOOL, "x" * 10_000), Language.EN)
    assert len(said) < 2 * texts.TOOL_NAME_MAX_CHARS
