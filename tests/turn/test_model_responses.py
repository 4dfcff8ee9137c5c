"""`claw.turn.model.responses`: what is asked of `/responses`, and what its typed events become; over real sockets."""

from __future__ import annotations

from typing import Any

import pytest

from claw.draft import Activity, ActivityKind
from claw.errors import ModelErrorKind
from claw.policy import ModelApi
from claw.turn.model.chat import Completion
from claw.turn.model.finish import FinishReason
from claw.turn.model.responses import ResponsesParser, to_request
from claw.turn.model.sse import EventError, TokenUsage
from tests.turn.asking import QUESTION, USER, ask, fault
from tests.turn.servers import ModelServer, dies, event, refuses, sends

ID = "resp-7"
MESSAGE = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Whole."}]}


def typed(kind: str, **fields: Any) -> bytes:
    return event({"type": kind, **fields}, kind)


def head() -> bytes:
    return typed("response.created", response={"id": ID, "model": "fake-1", "status": "in_progress"})


def delta(text: str, item: str = "msg-1") -> bytes:
    return typed("response.output_text.delta", item_id=item, output_index=0, delta=text)


def end(kind: str = "completed", **fields: Any) -> bytes:
    usage = {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}
    return typed(f"response.{kind}", response={"id": ID, "status": kind, "usage": usage, **fields})


async def test_a_question_and_its_answer(server: ModelServer) -> None:
    """System messages are instructions, the rest is input; nothing is kept there; pieces, usage and end come back."""
    server.behaviours = [sends(head(), delta("Hello"), delta(" there"), end())]
    pieces: list[str] = []
    messages = [{"role": "system", "content": "Be brief."}, *QUESTION, {"role": "assistant", "content": "Paris."}]
    completion = await ask(server, api=ModelApi.RESPONSES, messages=messages, on_text=pieces.append)
    assert completion == Completion("Hello there", FinishReason.STOP, TokenUsage(7, 2), "fake-1", ID)
    assert pieces == ["Hello", " there"]
    assert server.paths == ["/v1/responses"]
    assert server.asked == [
        {
            "model": "openclaw",
            "stream": True,
            "user": USER,
            "store": False,
            "instructions": "Be brief.",
            "input": [
                {
                    "type": "message",
                    "role": "user",
                    "content": [{"type": "input_text", "text": QUESTION[0]["content"]}],
                },
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Paris."}]},
            ],
        }
    ]


async def test_pictures_go_as_parts(server: ModelServer) -> None:
    """A picture is an `input_image`, byte for byte: by its address at OpenAI, by its parts at a gateway."""
    server.behaviours = [sends(head(), delta("A cat."), end())]
    url = f"data:image/png;base64,{'QUJD' * 50_000}"
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    for name in ("gpt-5-mini", "openclaw"):
        await ask(server, api=ModelApi.RESPONSES, name=name, messages=[{"role": "user", "content": parts}])
    words = {"type": "input_text", "text": "What is it?"}
    source = {"type": "base64", "media_type": "image/png", "data": "QUJD" * 50_000}
    assert [asked["input"][0]["content"] for asked in server.asked] == [
        [words, {"type": "input_image", "image_url": url}],
        [words, {"type": "input_image", "source": source}],
    ]


async def test_an_agent_is_seen_at_work(server: ModelServer) -> None:
    """Reasoning and tools are told as they begin, each change once; two messages of one run are two paragraphs."""
    server.behaviours = [
        sends(
            head(),
            typed("response.output_item.added", item={"type": "reasoning"}),
            typed("response.reasoning_summary_text.delta", delta="secret thought"),
            typed("response.output_item.added", item={"type": "function_call", "name": "search"}),
            typed("response.function_call_arguments.delta", delta="{}"),
            delta("First."),
            typed("response.output_item.added", item={"type": "web_search_call"}),
            delta("Second.", "msg-2"),
            end(),
        )
    ]
    doing: list[Activity] = []
    completion = await ask(server, api=ModelApi.RESPONSES, on_activity=doing.append)
    assert completion.text == "First.\n\nSecond."
    assert doing == [
        Activity(ActivityKind.THINKING),
        Activity(ActivityKind.TOOL, "search"),
        Activity(ActivityKind.TOOL, "web_search"),
    ]


@pytest.mark.parametrize(
    ("last", "finish"),
    [
        (end("incomplete", incomplete_details={"reason": "max_output_tokens"}), FinishReason.LENGTH),
        (end("incomplete", incomplete_details={"reason": "content_filter"}), FinishReason.CONTENT_FILTER),
        (end("incomplete"), FinishReason.LENGTH),
        (end(), FinishReason.STOP),
    ],
)
async def test_how_it_ended(server: ModelServer, last: bytes, finish: FinishReason) -> None:
    """A half answer is told as one, with the server's reason."""
    server.behaviours = [sends(head(), delta("Some text"), last)]
    assert (await ask(server, api=ModelApi.RESPONSES)).finish is finish


async def test_an_answer_without_pieces(server: ModelServer) -> None:
    """A server that sends no pieces has all in its last event, and one that streams nothing in its body."""
    server.behaviours = [sends(head(), end(output=[{"type": "reasoning"}, MESSAGE]))]
    assert (await ask(server, api=ModelApi.RESPONSES)).text == "Whole."
    body = {"object": "response", "id": ID, "model": "fake-1", "status": "completed", "output": [MESSAGE]}
    server.behaviours = [refuses(200, body)]
    assert (await ask(server, api=ModelApi.RESPONSES)).text == "Whole."


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        (end("failed", error={"code": "rate_limit_exceeded", "message": "Slow down, try again"}), ModelErrorKind.BUSY),
        (end("failed", error={"code": "invalid_api_key", "message": "no"}), ModelErrorKind.UNAUTHORIZED),
        (typed("error", code="context_length_exceeded", message="too long"), ModelErrorKind.TOO_LONG),
        (end("failed"), ModelErrorKind.SERVER),
        (end(), ModelErrorKind.EMPTY),
    ],
)
async def test_errors_in_the_stream(server: ModelServer, events: bytes, kind: ModelErrorKind) -> None:
    """What went wrong behind status 200 is classified as it is for a chat completion."""
    server.behaviours = [sends(head(), events)]
    assert (await fault(server, api=ModelApi.RESPONSES)).kind is kind


async def test_what_came_before_a_break_is_kept(server: ModelServer) -> None:
    """A connection that dies in the middle leaves the half answer in the error."""
    server.behaviours = [dies(head() + delta("Half of it"))]
    error = await fault(server, api=ModelApi.RESPONSES)
    assert (error.kind, error.partial) == (ModelErrorKind.BROKEN_OFF, "Half of it")


async def test_a_field_that_is_refused_is_left_out(server: ModelServer) -> None:
    """A server that knows no `store` is asked without it, and from then on never again with it."""
    refusal = {"error": {"message": "Unrecognized request argument supplied: store", "param": "store"}}
    server.behaviours = [refuses(400, refusal), sends(head(), delta("Hello"), end())]
    assert (await ask(server, api=ModelApi.RESPONSES)).text == "Hello"
    assert ["store" in each for each in server.asked] == [True, False]


@pytest.mark.parametrize(
    "chunk",
    [
        {"type": "response.output_text.delta", "delta": None},
        {"type": "response.output_text.delta", "delta": {"text": "x"}},
        {"type": "response.output_item.added", "item": "x"},
        {"type": ["response.completed"]},
        {"type": "response.something.new", "delta": "x"},
        {"type": "response.completed", "response": None},
        {"type": "response.completed", "response": {"output": "x", "usage": "y"}},
        {"type": "response.completed", "response": {"output": [None, {"type": "message", "content": [3, {}]}]}},
    ],
)
def test_odd_events_are_passed_over(chunk: dict[str, Any]) -> None:
    """Whatever another's event holds, nothing of it is taken for an answer, and nothing raises."""
    assert ResponsesParser().feed(event(chunk)) == ""


def test_a_body_that_is_no_response() -> None:
    """Another object in place of an answer is the server's word about why there is none."""
    parser = ResponsesParser()
    parser.feed(b'{"object": "list", "data": []')
    with pytest.raises(EventError):
        parser.feed(b"}")


def test_limits_of_tokens() -> None:
    """The limit of an answer goes by this API's name, and never below what OpenAI takes."""
    assert to_request({"messages": [], "max_completion_tokens": 1})["max_output_tokens"] == 16
    assert to_request({"messages": [], "max_tokens": 500})["max_output_tokens"] == 500
    assert "max_output_tokens" not in to_request({"messages": []})
