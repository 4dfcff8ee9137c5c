"""Requests to the model's server: their headers, fields that it does not take, keys that change, redirects."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider

from claw.config import settings
from claw.errors import ModelError, ModelErrorKind
from claw.observe import telemetry
from claw.secret import Secret
from claw.turn.model.body import ErrorBody
from claw.turn.model.client import ModelClient
from claw.turn.model.fields import find_refused_fields
from tests.turn.asking import QUESTION, USER, ask, fault, model_at
from tests.turn.servers import DONE, STOP, ModelServer, answer, refuses, sends, text

UNKNOWN_FIELD = refuses(400, {"error": {"message": "Unrecognized request arguments supplied: stream_options, user"}})
SENT = ("model", "messages", "user", "stream", "stream_options")


async def test_refused_fields_are_remembered(server: ModelServer, caplog: pytest.LogCaptureFixture) -> None:
    """A server that takes no such fields is asked once more without them, and from then on never with them."""
    server.behaviours = [UNKNOWN_FIELD, sends(answer("Hi"))]
    with caplog.at_level(logging.WARNING, "claw"):
        async with model_at(server.base_url) as model:
            for _ in range(2):
                assert (await model.ask(QUESTION, user=USER)).text == "Hi"
    assert [sorted(asked) for asked in server.asked] == [
        ["messages", "model", "stream", "stream_options", "user"],
        ["messages", "model", "stream"],
        ["messages", "model", "stream"],
    ]
    assert caplog.messages.count("the model's server takes no such fields") == 1


async def test_the_limit_of_tokens(server: ModelServer) -> None:
    """CLAW_MODEL_MAX_TOKENS goes with each question; 0 leaves the limit to the server."""
    await ask(server, max_tokens=700)
    await ask(server)
    assert server.asked[0]["max_completion_tokens"] == 700
    assert not {"max_tokens", "max_completion_tokens"} & server.asked[1].keys()


async def test_the_limit_of_tokens_by_its_older_name(server: ModelServer) -> None:
    """A server that knows only the older name of the limit is told it by that one, from then on at once."""
    refusal = refuses(400, {"error": {"message": "Unsupported parameter: 'max_completion_tokens'. Use 'max_tokens'."}})
    server.behaviours = [refusal, sends(answer("Hi"))]
    async with model_at(server.base_url, max_tokens=700) as model:
        for _ in range(2):
            await model.ask(QUESTION, user=USER)
    assert [each.get("max_completion_tokens") for each in server.asked] == [700, None, None]
    assert [each.get("max_tokens") for each in server.asked] == [None, 700, 700]


async def test_a_server_without_any_limit_of_tokens(server: ModelServer) -> None:
    """Where both names are refused the question is asked without a limit."""
    refusal = refuses(400, {"error": {"message": "unknown field 'max_completion_tokens'"}})
    older = refuses(400, {"error": {"message": "unknown field 'max_tokens'"}})
    server.behaviours = [refusal, older, sends(answer("Hi"))]
    async with model_at(server.base_url, max_tokens=700) as model:
        for _ in range(2):
            await model.ask(QUESTION, user=USER)
    assert len(server.asked) == 4
    assert not {"max_tokens", "max_completion_tokens"} & server.asked[3].keys()


async def test_an_overflow_does_not_blame_the_limit(server: ModelServer) -> None:
    """A context that overflows with the limit of tokens is shortened; the limit stays."""
    words = "'max_completion_tokens' is too large: 700. This model's maximum context length is 800 tokens"
    server.behaviours = [refuses(400, {"error": {"message": words}}), sends(answer("Hi"))]
    error = await fault(server, max_tokens=700)
    assert error.kind is ModelErrorKind.TOO_LONG


async def test_fields_are_not_blamed_for_another_refusal(server: ModelServer) -> None:
    """A request that is refused without the fields too says so by its own words, and nothing is remembered."""
    server.behaviours = [UNKNOWN_FIELD, refuses(400, {"error": {"message": "no such model"}}), sends(answer("Hi"))]
    async with model_at(server.base_url) as model:
        with pytest.raises(ModelError, match="no such model"):
            await model.ask(QUESTION, user=USER)
        await model.ask(QUESTION, user=USER)
    assert "user" in server.asked[2]


async def test_a_server_that_streams_to_nobody(server: ModelServer) -> None:
    """An account that may not stream is asked for a whole answer, without what belongs to streaming."""
    refusal = {"error": {"message": "Your organization must be verified to stream this model.", "param": "stream"}}
    whole = {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}
    server.behaviours = [refuses(400, refusal), refuses(200, whole)]
    assert (await ask(server)).text == "Hi"
    assert sorted(server.asked[1]) == ["messages", "model", "user"]


async def test_a_server_that_refuses_for_ever_is_left(server: ModelServer) -> None:
    """What names a field that is not sent any more is a refusal like any other."""
    server.behaviours = [UNKNOWN_FIELD]
    assert (await fault(server)).kind is ModelErrorKind.BAD_REQUEST
    assert len(server.asked) == 2


async def test_a_probe_leaves_its_limit_out(server: ModelServer) -> None:
    """Doctor's limit of tokens is optional, too."""
    server.behaviours = [
        refuses(400, {"error": {"message": "Unsupported parameter: 'max_completion_tokens'"}}),
        sends(answer("Hi")),
    ]
    async with model_at(server.base_url) as model:
        await model.probe()
    assert "max_completion_tokens" not in server.asked[1]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"message": "Unrecognized request argument supplied: user"}, {"user"}),
        ({"message": "Unknown parameter: 'stream_options'.", "param": "stream_options"}, {"stream_options"}),
        ({"message": "property 'user' is unsupported"}, {"user"}),
        ({"message": "'user' is not supported"}, {"user"}),
        ({"detail": [{"type": "extra_forbidden", "loc": ["body", "user"], "msg": "Extra inputs"}]}, {"user"}),
        ({"message": "body.user: Extra inputs are not permitted"}, {"user"}),
        ("1 validation error for Request\nuser\n  Extra inputs are not permitted", {"user"}),
        ({"message": "Additional properties are not allowed ('user' was unexpected)"}, {"user"}),
        ({"message": 'Invalid JSON payload received. Unknown name "user": Cannot find field.'}, {"user"}),
        ({"message": "unknown field `stream_options`, expected one of `user`, `stream`"}, {"stream_options"}),
        ({"message": "got an unexpected keyword argument 'user'"}, {"user"}),
        ({"message": "不支持的参数 user"}, {"user"}),
        # Words about something else.
        ({"message": "Missing user message"}, set()),
        ({"message": "roles must alternate between 'user' and 'assistant'"}, set()),
        ({"message": "Unknown role 'user' in messages[0]"}, set()),
        ({"message": "Unknown parameter: messages[0].user"}, set()),
        ({"message": "model not found", "param": "model"}, set()),
        ({"message": "This user is not allowed to use the model"}, set()),
        ({"detail": [{"type": "missing", "loc": ["body", "messages", 0, "user"], "msg": "x"}]}, set()),
    ],
)
def test_which_fields_a_server_names(body: object, fields: set[str]) -> None:
    """A field is named where the words leave no doubt, and required ones never."""
    assert find_refused_fields(400, ErrorBody.parse(body), SENT) == fields
    assert find_refused_fields(422, ErrorBody.parse({"error": body}), SENT) == fields
    assert not find_refused_fields(500, ErrorBody.parse(body), SENT)


async def test_a_rotated_key_is_read_again(server: ModelServer, tmp_path: Path) -> None:
    """After a 401 the key's file is read again: a new key is used from then on, an old one is not tried again."""
    file = tmp_path / "key"
    file.write_text("sk-old-0123456789\n")
    chosen = settings.ModelSettings(
        api_key=Secret("sk-old-0123456789"), base_url=server.base_url, name="m", secret_file=file
    )
    model = ModelClient(chosen, history_kept_elsewhere=False)
    unauthorized = refuses(401, {"error": {"message": "sk-new-0123456789 is wrong"}})
    try:
        server.behaviours = [unauthorized]
        with pytest.raises(ModelError):
            await model.ask(QUESTION, user=USER)
        assert len(server.asked) == 1, "the key is the same"
        file.write_text("sk-new-0123456789\n")
        server.behaviours = [unauthorized, sends(answer("Hi"))]
        for _ in range(2):
            assert (await model.ask(QUESTION, user=USER)).text == "Hi"
        sent = [each["authorization"].removeprefix("Bearer sk-")[:3] for each in server.headers]
        assert sent == ["old", "old", "new", "new"]
        server.behaviours = [unauthorized]
        with pytest.raises(ModelError) as caught:
            await model.ask(QUESTION, user=USER)
        assert "sk-new" not in str(caught.value)
    finally:
        await model.close()


async def test_a_redirect_is_not_followed(server: ModelServer) -> None:
    """A conversation goes nowhere but to the address that the operator set."""
    async with ModelServer().serve() as elsewhere:
        server.behaviours = [refuses(307, "", location=f"{elsewhere.base_url}/chat/completions?key=secret")]
        error = await fault(server)
        assert elsewhere.asked == []
    assert (error.kind, error.retryable, len(server.asked)) == (ModelErrorKind.REDIRECTED, False, 1)
    assert "127.0.0.1" in error.reason
    assert "secret" not in error.reason


async def test_the_trace_goes_on(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server gets the trace of the turn, with the request's own span as parent."""
    tracer = TracerProvider().get_tracer("test")
    monkeypatch.setattr(telemetry, "tracer", tracer)
    with tracer.start_as_current_span("turn") as span:
        await ask(server)
    version, trace, parent, _ = server.headers[0]["traceparent"].split("-")
    context = span.get_span_context()
    assert (version, trace) == ("00", f"{context.trace_id:032x}")
    assert parent != f"{context.span_id:016x}"


@pytest.mark.parametrize(
    ("name", "channel"),
    [("openclaw", "dingtalk"), ("openclaw/default", "dingtalk"), ("openclaw2", None), ("gpt-5-mini", None)],
)
async def test_the_channel_is_told_to_an_openclaw(server: ModelServer, name: str, channel: str | None) -> None:
    """An OpenClaw learns that the message comes from DingTalk; nobody else is told."""
    await ask(server, name=name)
    assert server.headers[0].get("x-openclaw-message-channel") == channel


async def test_the_servers_name_for_an_answer_is_logged(server: ModelServer, caplog: pytest.LogCaptureFixture) -> None:
    """An answer can be found in the server's own log, and a finish reason that nobody knows is told."""
    with caplog.at_level(logging.INFO, "claw"):
        completion = await ask(server)
        server.behaviours = [sends(text("Hi"), STOP.replace(b"stop", b"moon_phase"), DONE)]
        await ask(server)
    first, second = (record for record in caplog.records if record.message == "the model answered")
    assert vars(first)["response"] == completion.id == "chatcmpl-7"
    assert (second.levelno, vars(second)["finish_reason"]) == (logging.WARNING, "moon_phase")
