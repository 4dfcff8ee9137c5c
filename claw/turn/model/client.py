"""The model: asks any OpenAI-compatible server, and says truthfully how that went.

Order of events: `warm` imports the SDK and builds its client in a thread, since that takes half a second; `ask` sends
one streamed chat completion and hands the text out as it comes, all within one deadline; whatever goes wrong becomes a
ModelError by `fault_of`. The only retry of a turn is the worker's, which is durable: the SDK's own is switched off.
Two failures are worth one immediate second try here, as long as nothing was said: OpenClaw's "internal error", which
two first requests of a session cause in each other, and a context overflow, with what `shorten` leaves. Cancelling
`ask` closes its connection, by which servers stop working.

The SDK (openai 3, which speaks HTTPX2) finds `HTTPS_PROXY`, `NO_PROXY`, `SSL_CERT_FILE` and `SSL_CERT_DIR` by itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from opentelemetry.trace import Span, SpanKind, StatusCode

from claw.clock import Clock
from claw.config import settings
from claw.errors import ModelError, ModelErrorKind
from claw.observe import telemetry
from claw.turn.model.errors import Told, covered, of_event, of_status, remedy_of, retry_after, root_of
from claw.turn.model.sse import EventError, Reading, UnreadableError, Usage

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

__all__ = ["Completion", "Message", "ModelClient", "Usage", "fault_of", "remedy_of"]

log: Final = logging.getLogger(__name__)

CONNECT_TIMEOUT: Final = 10.0
"""Seconds to reach the server. Silence after that is bounded by the deadline alone: agents are quiet for minutes
while they run tools (OPENCLAW.md, "first byte")."""
DRAIN_TIMEOUT: Final = 0.1
"""Seconds that a server gets after `[DONE]` to end the body, so that its connection can be used again."""
RACE: Final = "internal_error"
"""The code of the failure that two first requests of a session cause in each other at OpenClaw."""

Message = dict[str, Any]
Shorten = Callable[[], Sequence[Message] | None]

_CLOCK: Final = Clock()


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer. `cut`: it ended only because it had become too long. `usage`: None where none was counted."""

    text: str
    finish_reason: str
    usage: Usage | None
    model: str
    cut: bool


def fault_of(
    error: BaseException, *, began: bool, history_kept_elsewhere: bool, private: Iterable[str] = ()
) -> ModelError:
    """Classify `error`. `began`: text had come; `private`: texts that the reason must not show.

    Another try is worth it where the server asks for one or could not be reached. It is not where the settings are at
    fault or the failure took minutes, nor where text had come and the gateway keeps the history: after its restart it
    takes such a turn up by itself, and another try would run the agent's tools twice (OPENCLAW.md).
    """
    import openai  # noqa: PLC0415 - half a second, off the critical path; who holds an error of it has it loaded

    fault, retry, told, wait = ModelErrorKind.SERVER, False, Told(), None
    status: int | None = None
    match error:
        case ModelError():
            return error
        case TimeoutError():
            fault, reason = ModelErrorKind.TIMEOUT, "no whole answer before the deadline"
        case openai.APIStatusError():
            status, told = error.status_code, Told.of(error.body)
            fault, retry = of_status(status, told)
            reason = f"HTTP {status}: {told.message}" if told.message else f"HTTP {status}"
            wait = retry_after(error.response.headers)
        case openai.APIConnectionError():
            fault, retry = (ModelErrorKind.BROKEN_OFF if began else ModelErrorKind.UNREACHABLE), True
            reason = root_of(error)
        case EventError() | openai.APIError():
            told = Told.of(error.body)
            fault, retry = of_event(told)
            reason = told.message or "an error event without words"
        case UnreadableError():
            fault, reason = (ModelErrorKind.BROKEN_OFF if began else ModelErrorKind.SERVER), str(error)
        case _:
            # Its words may quote what was said: nobody foresaw it.
            reason = f"unexpected {type(error).__name__}"
    retry = retry and not (began and history_kept_elsewhere)
    return ModelError(
        fault,
        covered(reason, private),
        status=status,
        code=RACE if told.race else covered(told.name, private),
        began=began,
        retryable=retry,
        retry_after=wait if retry else None,
    )


class ModelClient:
    """The client of the model's server; its connections are pooled until `close`."""

    def __init__(
        self, settings: settings.ModelSettings, *, history_kept_elsewhere: bool, clock: Clock = _CLOCK
    ) -> None:
        self._settings = settings
        self._history_kept_elsewhere = history_kept_elsewhere
        self._clock = clock
        self._client: AsyncOpenAI | None = None
        self._building = asyncio.Lock()

    async def warm(self) -> None:
        """Get ready for the first question, off its critical path. A fault is logged here, and told by `ask`."""
        try:
            await self._ready()
        except Exception as error:  # noqa: BLE001 - a proxy or CA setting of any wrongness must not end the caller
            log.error(
                "the model's client cannot be built",
                extra={"cause": covered(root_of(error)), "remedy": "check HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE"},
            )

    async def close(self) -> None:
        """Close all connections. Call it when no `ask` runs any more."""
        async with self._building:
            if self._client is not None:
                await self._client.close()

    async def ask(
        self,
        messages: Sequence[Message],
        *,
        user: str,
        shorten: Shorten | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        """The model's answer. Raises ModelError, and what `shorten` or `on_text` raise.

        `user` is the conversation's hash, by which a gateway finds its session. `shorten` gives the messages without
        their oldest part, or None if that cannot be. `on_text` gets each piece of text as it comes; a piece is final,
        but a ModelError after it means that all of them are void.
        """
        deadline = asyncio.get_running_loop().time() + self._settings.turn_timeout
        try:
            return await self._request(messages, user, deadline, on_text)
        except ModelError as error:
            again = _second_try(error, messages, shorten)
            if again is None:
                raise
            log.info("asking the model a second time", extra={"fault": error.kind.value, "cause": error.reason})
        return await self._request(again, user, deadline, on_text)

    async def _request(
        self, messages: Sequence[Message], user: str, deadline: float, on_text: Callable[[str], None] | None
    ) -> Completion:
        """One request, its span and its metrics."""
        reading = Reading()
        with _Watch(self._settings, messages, user, reading, self._clock) as watch:
            try:
                async with asyncio.timeout_at(deadline), aclosing(self._texts(messages, user, reading)) as texts:
                    async for text in texts:
                        watch.text_came()
                        if on_text is not None:
                            on_text(text)
                return _completion(reading, history_kept_elsewhere=self._history_kept_elsewhere)
            except TimeoutError as error:
                raise self._fault_of(error, messages, reading) from None

    async def _texts(self, messages: Sequence[Message], user: str, reading: Reading) -> AsyncGenerator[str]:
        """The pieces of one answer. Everything that fails on the way is a ModelError."""
        try:
            async with self._asked(
                {"messages": messages, "user": user, "stream_options": {"include_usage": True}}, reading
            ) as parts:
                async for part in parts:
                    if text := reading.feed(part):
                        yield text
                    if reading.over:
                        break
                if text := reading.end():
                    yield text
        except Exception as error:  # noqa: BLE001 - what others sent may raise anything; `fault_of` sorts it
            # Not chained: the SDK's error holds the server's words, which may be anything. The reason tells the cause.
            raise self._fault_of(error, messages, reading) from None

    @asynccontextmanager
    async def _asked(self, fields: Mapping[str, Any], reading: Reading) -> AsyncIterator[AsyncGenerator[bytes]]:
        """Ask for a streamed chat completion; its body as it comes, which `reading` is fed with."""
        client = await self._ready()
        import httpx2  # noqa: PLC0415 - see _build, which has imported it by now
        import openai  # noqa: PLC0415

        # By the SDK's way to any endpoint: the one for chat completions walks through every field by its type
        # annotations, word by word, which takes longer than the request.
        answer: object = await client.post(
            "/chat/completions",
            body={"model": self._settings.name, "stream": True, **fields},
            options={} if self._settings.api_key else {"headers": {"Authorization": openai.omit}},
            cast_to=httpx2.Response,
            stream=True,
            stream_cls=openai.AsyncStream[Any],
        )
        # The SDK's types promise a stream; what it is told to cast to is what comes.
        response = cast("httpx2.Response", answer)
        parts = _parts(response)
        try:
            yield parts
        finally:
            await _unwind(parts, DRAIN_TIMEOUT if reading.done else 0)
            await response.aclose()

    def _fault_of(self, error: Exception, messages: Sequence[Message], reading: Reading) -> ModelError:
        return fault_of(
            error,
            began=reading.began,
            history_kept_elsewhere=self._history_kept_elsewhere,
            private=(self._settings.api_key.reveal(), *_texts_of(messages)),
        )

    async def _ready(self) -> AsyncOpenAI:
        async with self._building:
            if self._client is None:
                # The thread keeps it by itself: a cancelled caller must not leave a client without an owner.
                await asyncio.to_thread(self._build)
            assert self._client is not None  # noqa: S101 - for the type checker
            return self._client

    def _build(self) -> None:
        import openai  # noqa: PLC0415 - half a second and 24 MB, off the critical path

        from claw.turn.model.transport import AiohttpTransport  # noqa: PLC0415 - imports what the SDK does

        client = openai.AsyncOpenAI(
            # The SDK refuses an empty key; `_without_key` keeps this one out of the request.
            api_key=self._settings.api_key.reveal() or "none",
            base_url=self._settings.base_url,
            max_retries=0,
            timeout=openai.Timeout(None, connect=CONNECT_TIMEOUT),
            # Ours. The SDK's own closes itself when it is collected, in a task that fails if it was only half built (a
            # CA setting that is wrong). The environment's proxies are the transport's business.
            http_client=openai.DefaultAsyncHttpxClient(transport=AiohttpTransport(CONNECT_TIMEOUT), trust_env=False),
        )
        self._client = client


def _second_try(error: ModelError, messages: Sequence[Message], shorten: Shorten | None) -> Sequence[Message] | None:
    """What to ask at once after `error`, if anything; nothing where text had come."""
    if error.began:
        return None
    if error.kind is ModelErrorKind.TOO_LONG:
        return shorten() if shorten is not None else None
    return messages if error.code == RACE and error.status in {None, 500} else None


def _completion(reading: Reading, *, history_kept_elsewhere: bool) -> Completion:
    """The answer that was read to its end. Raises ModelError where it has no text, or no end."""
    text, ended = reading.text, reading.finish_reason
    if not text.strip():
        # Another reason than these says why there is no text, and would say so again.
        retry = ended in {"", "stop"} and not history_kept_elsewhere
        raise ModelError(
            ModelErrorKind.EMPTY, covered(f"no text came; finish_reason: {ended or 'none'}"), retryable=retry
        )
    if not reading.whole:
        reason = "the server closed before the answer's end"
        raise ModelError(ModelErrorKind.BROKEN_OFF, reason, began=True, retryable=not history_kept_elsewhere)
    return Completion(text, ended, reading.usage, reading.model, cut=ended == "length")


async def _parts(response: httpx2.Response) -> AsyncGenerator[bytes]:
    """The body as it comes. Raises openai.APIConnectionError for everything that breaks it off."""
    import openai  # noqa: PLC0415 - see Model._build

    try:
        async for part in response.aiter_bytes():
            yield part
    except Exception as error:
        raise openai.APIConnectionError(request=response.request) from error


async def _unwind(parts: AsyncGenerator[bytes], seconds: float) -> None:
    """Read on for `seconds` at most and forget what comes.

    Where that is too short, the cancellation passes through the generators of three libraries from the innermost
    outwards. One that is merely left would be closed by the garbage collector, in a task of nobody.
    """
    with suppress(Exception):
        async with asyncio.timeout(seconds):
            async for _ in parts:
                pass


def _texts_of(messages: Sequence[Message]) -> Iterator[str]:
    """What was said in `messages`; pictures are not."""
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else [{"text": content}]:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]


# --- what an operator sees -----------------------------------------------------------------------------------


class _Watch:
    """The span and the metrics of one request, by OpenTelemetry's gen_ai conventions."""

    def __init__(
        self, settings: settings.ModelSettings, messages: Sequence[Message], user: str, reading: Reading, clock: Clock
    ) -> None:
        self._reading = reading
        self._clock = clock
        self._started = clock.monotonic()
        self._first: float | None = None
        address = urlsplit(settings.base_url)
        self._common: dict[str, str | int | bool] = {
            telemetry.GEN_AI_OPERATION_NAME: "chat",
            telemetry.GEN_AI_PROVIDER_NAME: "openai",
            telemetry.GEN_AI_REQUEST_MODEL: settings.name,
            telemetry.SERVER_ADDRESS: address.hostname or "",
            telemetry.SERVER_PORT: address.port or (443 if address.scheme == "https" else 80),
        }
        asked: dict[str, str | int | bool] = {
            telemetry.GEN_AI_REQUEST_STREAM: True,
            telemetry.GEN_AI_CONVERSATION_ID: user,
        }
        if telemetry.captures_content():
            asked[telemetry.GEN_AI_INPUT_MESSAGES] = _content(messages)
        self._span_scope = telemetry.tracer.start_as_current_span(
            f"chat {settings.name}",
            kind=SpanKind.CLIENT,
            attributes=self._common | asked,
        )

    def __enter__(self) -> _Watch:
        self._span = self._span_scope.__enter__()
        return self

    def text_came(self) -> None:
        if self._first is None:
            self._first = self._clock.monotonic() - self._started

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        reading, common = self._reading, self._common
        if reading.model:
            common[telemetry.GEN_AI_RESPONSE_MODEL] = reading.model
        if error is not None:
            common[telemetry.ERROR_TYPE] = _type_of(error)
        self._describe(self._span, error)
        # Without the error: the span would record its words and its stack.
        self._span_scope.__exit__(None, None, None)
        telemetry.gen_ai_operation_duration.record(self._clock.monotonic() - self._started, common)
        if self._first is not None:
            telemetry.gen_ai_time_to_first_chunk.record(self._first, common)
        if reading.usage is not None:
            for kind, count in (("input", reading.usage.input_tokens), ("output", reading.usage.output_tokens)):
                telemetry.gen_ai_token_usage.record(count, common | {telemetry.GEN_AI_TOKEN_TYPE: kind})

    def _describe(self, span: Span, error: BaseException | None) -> None:
        reading = self._reading
        span.set_attributes(self._common)
        if reading.id:
            span.set_attribute(telemetry.GEN_AI_RESPONSE_ID, reading.id)
        if reading.finish_reason:
            span.set_attribute(telemetry.GEN_AI_RESPONSE_FINISH_REASONS, [reading.finish_reason])
        if reading.usage is not None:
            span.set_attribute(telemetry.GEN_AI_USAGE_INPUT_TOKENS, reading.usage.input_tokens)
            span.set_attribute(telemetry.GEN_AI_USAGE_OUTPUT_TOKENS, reading.usage.output_tokens)
        if self._first is not None:
            span.set_attribute(telemetry.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, self._first)
        if isinstance(error, Exception):
            span.set_status(StatusCode.ERROR, _type_of(error))
        elif error is None and telemetry.captures_content():
            answer = {"role": "assistant", "content": reading.text, "finish_reason": reading.finish_reason}
            span.set_attribute(telemetry.GEN_AI_OUTPUT_MESSAGES, _content([answer]))


def _type_of(error: BaseException) -> str:
    """The value of `error.type`: few words, so that metrics can be told apart by them."""
    if isinstance(error, ModelError):
        return str(error.status or error.kind.value)
    return type(error).__name__


def _content(messages: Sequence[Message]) -> str:
    """Messages in the shape of the gen_ai conventions, pictures left out."""
    shaped = [
        {name: value for name, value in message.items() if name in {"role", "finish_reason"}}
        | {"parts": [{"type": "text", "content": text} for text in _texts_of([message])]}
        for message in messages
    ]
    return json.dumps(shaped, ensure_ascii=False)


# --- a look at the model, for `claw doctor` --------------------------------------------------------------------

PROBE_USER: Final = "claw-doctor"
"""The `user` of a probe: a session of its own at a gateway that keeps sessions."""
_LIMIT_REACHED: Final = "could not finish the message"
"""What OpenAI's reasoning models answer, with HTTP 400, where one token does not suffice: they can be asked."""


async def probe(model: ModelClient) -> None:
    """Ask for one token; return when an answer begins. Raises ModelError. The caller sets the time limit."""
    try:
        await _first_token(model, {"max_completion_tokens": 1})
    except ModelError as error:
        words = error.reason.lower()
        if error.status == 400 and _LIMIT_REACHED in words:
            return
        if error.status not in {400, 422} or "max_completion_tokens" not in words:
            raise
        await _first_token(model, {})  # A server that knows no such field, and minds.


async def _first_token(model: ModelClient, limit: Mapping[str, Any]) -> None:
    reading = Reading()
    settings = model._settings
    try:
        messages = [{"role": "user", "content": "ping"}]
        async with model._asked({"messages": messages, "user": PROBE_USER, **limit}, reading) as parts:
            async for part in parts:
                if reading.feed(part) or reading.over:
                    break
            else:
                reading.end()
    except Exception as error:  # noqa: BLE001 - as in Model._texts
        private = (settings.api_key.reveal(),)
        raise fault_of(error, began=reading.began, history_kept_elsewhere=True, private=private) from None
    if not (reading.began or reading.finish_reason == "length"):
        raise ModelError(ModelErrorKind.EMPTY, f"no text came; finish_reason: {reading.finish_reason or 'none'}")
