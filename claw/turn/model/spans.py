"""What an operator sees of one request to the model: a span and metrics, by OpenTelemetry's gen_ai conventions.

Order of events: entering the `ChatSpan` starts the span; `mark_text` notes when the first text came; leaving it adds
what the parser has learnt by then (model, tokens, how it ended) and records the metrics. What people and model said is
left out unless the operator asked for it (`telemetry.captures_content`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import urlsplit

from opentelemetry.trace import Span, SpanKind, StatusCode

from claw.clock import Clock
from claw.config.settings import ModelSettings
from claw.errors import ModelError
from claw.observe import telemetry
from claw.turn.model.chat import Message, iter_texts
from claw.turn.model.sse import StreamParser


class ChatSpan:
    """The span and the metrics of one request; a context manager around it."""

    def __init__(
        self,
        settings: ModelSettings,
        messages: Sequence[Message],
        model: str,
        user: str,
        *,
        parser: StreamParser,
        clock: Clock,
    ) -> None:
        self._parser = parser
        self._clock = clock
        self._started = clock.monotonic()
        self._first_text: float | None = None
        address = urlsplit(settings.base_url)
        # Metrics get these and nothing else: what names a conversation would make a series for each.
        self._common: dict[str, str | int | bool] = {
            telemetry.GEN_AI_OPERATION_NAME: "chat",
            telemetry.GEN_AI_PROVIDER_NAME: "openai",
            telemetry.GEN_AI_REQUEST_MODEL: model,
            telemetry.SERVER_ADDRESS: address.hostname or "",
            telemetry.SERVER_PORT: address.port or (443 if address.scheme == "https" else 80),
        }
        request: dict[str, str | int | bool] = {
            telemetry.GEN_AI_REQUEST_STREAM: True,
            # The very value that the server gets: what it logs of a session can be found by it.
            telemetry.GEN_AI_CONVERSATION_ID: user,
        }
        if telemetry.captures_content():
            request[telemetry.GEN_AI_INPUT_MESSAGES] = _to_gen_ai_json(messages)
        self._span_scope = telemetry.tracer.start_as_current_span(
            f"chat {model}",
            kind=SpanKind.CLIENT,
            attributes=self._common | request,
        )

    def __enter__(self) -> ChatSpan:
        self._span = self._span_scope.__enter__()
        return self

    def mark_text(self) -> None:
        """Note that text came; only the first time counts."""
        if self._first_text is None:
            self._first_text = self._clock.monotonic() - self._started

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        parser, common = self._parser, self._common
        if parser.model:
            common[telemetry.GEN_AI_RESPONSE_MODEL] = parser.model
        if error is not None:
            common[telemetry.ERROR_TYPE] = _get_error_type(error)
        self._describe(self._span, error)
        # Without the error: the span would record its words and its stack, which may quote what was said.
        self._span_scope.__exit__(None, None, None)
        telemetry.gen_ai_operation_duration.record(self._clock.monotonic() - self._started, common)
        if self._first_text is not None:
            telemetry.gen_ai_time_to_first_chunk.record(self._first_text, common)
        if parser.usage is not None:
            for kind, count in (("input", parser.usage.input_tokens), ("output", parser.usage.output_tokens)):
                telemetry.gen_ai_token_usage.record(count, common | {telemetry.GEN_AI_TOKEN_TYPE: kind})

    def _describe(self, span: Span, error: BaseException | None) -> None:
        parser = self._parser
        span.set_attributes(self._common)
        if parser.id:
            span.set_attribute(telemetry.GEN_AI_RESPONSE_ID, parser.id)
        if parser.finish_reason:
            span.set_attribute(telemetry.GEN_AI_RESPONSE_FINISH_REASONS, [parser.finish_reason])
        if parser.usage is not None:
            span.set_attribute(telemetry.GEN_AI_USAGE_INPUT_TOKENS, parser.usage.input_tokens)
            span.set_attribute(telemetry.GEN_AI_USAGE_OUTPUT_TOKENS, parser.usage.output_tokens)
        if self._first_text is not None:
            span.set_attribute(telemetry.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, self._first_text)
        # A cancelled request (`/stop`, a drain) is no Exception: the person wanted it, nothing failed.
        if isinstance(error, Exception):
            span.set_status(StatusCode.ERROR, _get_error_type(error))
        elif error is None and telemetry.captures_content():
            answer = {"role": "assistant", "content": parser.text, "finish_reason": parser.finish_reason}
            span.set_attribute(telemetry.GEN_AI_OUTPUT_MESSAGES, _to_gen_ai_json([answer]))


def _get_error_type(error: BaseException) -> str:
    """Return the value of `error.type`: of few different ones, so that metrics can be told apart by them."""
    if isinstance(error, ModelError):
        return str(error.status or error.kind.value)
    return type(error).__name__


def _to_gen_ai_json(messages: Sequence[Message]) -> str:
    """Bring messages into the shape of the gen_ai conventions, pictures left out."""
    shaped = [
        {name: value for name, value in message.items() if name in {"role", "finish_reason"}}
        | {"parts": [{"type": "text", "content": text} for text in iter_texts([message])]}
        for message in messages
    ]
    return json.dumps(shaped, ensure_ascii=False)
