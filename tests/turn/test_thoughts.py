"""Thoughts are recognised in every spelling, wherever the stream is cut; what is said to people stays as it is."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claw.config.settings import ConversationSettings
from claw.draft import Activity, ActivityKind
from claw.errors import ModelError, ModelErrorKind
from claw.store.sqlite.store import SqliteStore
from claw.turn.model.chat import Completion
from claw.turn.model.finish import FinishReason
from claw.turn.model.sse import StreamParser
from claw.turn.model.thoughts import ThoughtFilter, filter_thoughts
from tests.messages import inbound
from tests.turn.harness import TurnHarness

CLOSED = {
    "<think>hmm</think>42": "42",
    "  <think>\nhmm\n</think>\n\n42": "42",
    "<think></think>42": "42",
    "<think/>42": "42",
    "<think>hmm</think>先查。<think>hmm</think>42": "先查。42",
    "<THINKING>hmm</Thinking >42": "42",
    '<think time="3">hmm</think>42': "42",
    "<thought>hmm</thought>42": "42",
    "<reasoning>hmm</reasoning>42": "42",
    "<seed:think>hmm</seed:think>42": "42",
    "[THINK]hmm[/THINK]42": "42",
    "◁think▷hmm◁/think▷42": "42",
    "<|begin_of_thought|>hmm<|end_of_thought|>\n<|begin_of_solution|>42<|end_of_solution|>": "42",
    "<|channel|>analysis<|message|>hmm<|end|><|start|>assistant<|channel|>final<|message|>42<|return|>": "42",
    "<|start|>assistant<|channel|>analysis<|message|>hmm<|end|><|start|>assistant<|channel|>commentary"
    " to=functions.search <|constrain|>json<|message|>{}<|call|><|start|>assistant<|channel|>final<|message|>42": "42",
    "<|channel|>final<|message|>42": "42",
    "<|channel>thought\nhmm<channel|>42": "42",
    "<think>about `</think>` as such: hmm</think>42": "42",
    "<think>hmm": "",
    "<|channel|>analysis<|message|>hmm": "",
    "<|channel|>anal": "",
    "42<think>hmm": "42",
}
"""Answers whose thoughts begin with a mark: not a letter of one is ever shown."""
ORPHANS = {
    "The user asks 6x7.\n</think>\n\n42": "42",
    "hmm[/THINK]42": "42",
    "hmm◁/think▷42": "42",
    "hmm<|end_of_thought|>42": "42",
    "hmm<channel|>42": "42",
    "hmm ` hmm </think> 42": "42",
    "Well. <think>a<think>b</think>hmm</think>42": "Well. 42",
}
"""Answers that show a thought's beginning until its end comes."""
PLAIN = (
    "use `</think>` and `<think>x</think>` here",
    "a `` b ` c </think> d `` e",
    "```\n<think>x</think>\n```\nok",
    "~~~html\n</think>\n~~~\nok",
    "- ```\n  </think>\n  ```\nok",
    "```\nnever closed </think>",
    "a < b, List<thing>, <thinker>, [1], [Think], ◁x, <|x|>, ~~gone~~",
    "a `tick",
    "1. `` ` `` 2",
    "床前明月光\n\n> 疑是地上霜",
)
SAID = {**CLOSED, **ORPHANS, **{text: text for text in PLAIN}}


def stream(text: str) -> bytes:
    """Return the text as a server streams it, a few characters in each chunk."""
    chunks = [{"choices": [{"index": 0, "delta": {"content": text[at : at + 3]}}]} for at in range(0, len(text), 3)]
    lines = [f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n" for chunk in chunks]
    return "".join((*lines, "data: [DONE]\n\n")).encode()


@pytest.mark.parametrize("text", SAID)
def test_what_is_said(text: str) -> None:
    """A whole text says what it says to people, and so does it letter by letter."""
    assert filter_thoughts(text) == SAID[text]
    thoughts = ThoughtFilter()
    for letter in text:
        thoughts.add(letter)
    thoughts.end()
    assert thoughts.text == SAID[text]


@pytest.mark.parametrize("text", SAID)
def test_a_stream_may_be_cut_at_every_byte(text: str) -> None:
    """Wherever the bytes of a stream are cut, the same is said."""
    data = stream(text)
    for cut in range(len(data) + 1):
        parser, thoughts = StreamParser(), ThoughtFilter()
        for part in (data[:cut], data[cut:]):
            thoughts.add(parser.feed(part))
        thoughts.add(parser.end())
        thoughts.end()
        assert thoughts.text == SAID[text], cut


@pytest.mark.parametrize("text", CLOSED)
def test_no_letter_of_a_thought_is_ever_shown(text: str) -> None:
    """Whatever of the answer has come: what is shown of it is the beginning of what is said."""
    thoughts = ThoughtFilter()
    for letter in text:
        thoughts.add(letter)
        assert CLOSED[text].startswith(thoughts.text.strip()), thoughts.text


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("ab<>[]/`~\n |think"), max_size=60), st.integers(0, 60))
def test_cuts_change_nothing(text: str, cut: int) -> None:
    """Any text says the same in one piece, in two, and letter by letter."""
    whole = filter_thoughts(text)
    for pieces in ([text[:cut], text[cut:]], list(text)):
        thoughts = ThoughtFilter()
        for piece in pieces:
            thoughts.add(piece)
        thoughts.end()
        assert thoughts.text == whole


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_characters="<[◁", codec="utf-8"), max_size=200))
def test_texts_without_marks_stay(text: str) -> None:
    """Without the beginning of any mark a text loses nothing but blanks at its ends."""
    assert filter_thoughts(text) == text.strip()


@pytest.mark.parametrize("unit", ["<", "` ", "<think>", "</think>", "```\n", "<|channel|>", "~", "<think ", "[", "\n"])
def test_whatever_a_model_says_takes_linear_time(unit: str) -> None:
    """Half a megabyte of marks costs a moment."""
    text = unit * (500_000 // len(unit))
    began = time.process_time()
    thoughts = ThoughtFilter()
    for at in range(0, len(text), 4096):
        thoughts.add(text[at : at + 4096])
    thoughts.end()
    assert time.process_time() - began < 5


THINKING = Activity(ActivityKind.THINKING)


@pytest.mark.parametrize(
    ("delta", "activity"),
    [
        ({"reasoning_content": "hmm"}, THINKING),
        ({"reasoning": "hmm"}, THINKING),
        ({"reasoning_details": [{"text": "hmm"}]}, THINKING),
        ({"thinking": "hmm"}, THINKING),
        ({"content": [{"type": "thinking", "thinking": [{"text": "hmm"}]}]}, THINKING),
        (
            {"tool_calls": [{"index": 0, "function": {"name": "search", "arguments": ""}}]},
            Activity(ActivityKind.TOOL, "search"),
        ),
        ({"function_call": {"name": "search"}}, Activity(ActivityKind.TOOL, "search")),
        (
            {"tool_calls": [{"function": {"name": "a\nb\x00" + "c" * 100}}]},
            Activity(ActivityKind.TOOL, "a b" + "c" * 61),
        ),
        ({"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}, None),
        ({"reasoning_content": ""}, None),
        ({"reasoning_content": None, "content": ""}, None),
        ({"tool_calls": 7, "function_call": "x"}, None),
    ],
)
def test_fields_tell_what_an_agent_does(delta: dict[str, object], activity: Activity | None) -> None:
    """Reasoning and tool calls are activity, each change told once, and no word of them is text."""
    told: list[Activity] = []
    parser = StreamParser(told.append)
    line = f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta}]})}\n\n".encode()
    assert parser.feed(line) + parser.feed(line) == ""
    assert told == ([] if activity is None else [activity])
    parser.feed(b'data: {"choices": [{"delta": {"content": "42"}}]}\n\n')
    parser.feed(line)
    assert told == ([] if activity is None else [activity, activity]), "after words it is told anew"


def test_events_about_tools_are_activity() -> None:
    """An event that is named after tools says what the agent does, and is no part of the answer."""
    told: list[Activity] = []
    parser = StreamParser(told.append)
    parser.feed(b'event: hermes.tool.progress\ndata: {"tool": "web_search", "label": "x", "message": "looks"}\n\n')
    parser.feed(b'data: {"choices": [{"delta": {"content": "42"}}]}\n\ndata: [DONE]\n\n')
    assert told == [Activity(ActivityKind.TOOL, "web_search")]
    assert parser.text == "42"


async def test_a_thought_is_never_the_answer(store: SqliteStore) -> None:
    """Where nothing but a thought came, the turn fails as one without an answer; nothing of it is remembered."""
    turn = TurnHarness(store, ConversationSettings())
    turn.model.pieces = ["<think>", "hmm"]
    turn.model.completion = Completion("<think>hmm", FinishReason.STOP, None, "m")
    with pytest.raises(ModelError) as raised:
        await turn.handle(inbound("你好"))
    assert raised.value.kind is ModelErrorKind.EMPTY
    assert turn.draft.shown == []
    assert [each.kind for each in turn.draft.activities] == [ActivityKind.ASKED, ActivityKind.THINKING]
    failure = await turn.handler.failure_reply(inbound("你好"), raised.value)
    assert "hmm" not in failure.text


async def test_what_turns_out_to_be_a_thought_is_taken_back(store: SqliteStore) -> None:
    """The draft gets less than before; the answer and its exchange have no word of it."""
    turn = TurnHarness(store, ConversationSettings())
    turn.model.pieces = ["hmm", "</think>", "42"]
    turn.model.completion = Completion("hmm</think>42", FinishReason.STOP, None, "m")
    answer = await turn.handle(inbound("你好"))
    assert turn.draft.shown == ["hmm", "", "42"]
    assert answer.text == "42"
    assert answer.exchange is not None
    assert answer.exchange.assistant == "42"
