"""The client of the model's server: asks any OpenAI-compatible one, and says truthfully how that went.

Order of events: `warm` imports the SDK and builds its client in a thread. `ask` sends one streamed chat completion and
hands the text out as it comes, all within one deadline. Whatever goes wrong becomes a ModelError (errors.py).
Cancelling `ask` closes its connection, by which servers stop working.

The only retry of a turn is the worker's, which is durable; the SDK's own is switched off. Two failures are worth one
immediate second try here, as long as no text came: the "internal error" that two first requests of a session cause in
each other at OpenClaw, and a context overflow, with what `shorten` leaves.

What the openai package (3, over HTTPX2) does here: it joins the URL, sets the headers, writes the request's body, and
raises errors that hold the status and the parsed body. That is little for its half a second and 24 MB of import, which
`warm` takes off the critical path. What it does not do here, and why:

- Reading the stream (sse.py): the SDK's decoder bounds no line, so that a server which never ends one fills the memory;
  it leaves async generators behind where a stream is left early; and it makes one pydantic model for each token.
- Sending (transport.py): its transport over aiohttp finds no proxy; its own one needs twice the CPU.
- `client.chat.completions.create`: it walks through every field of the messages by their type annotations, which takes
  longer than the request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, cast

from claw.clock import Clock
from claw.config.settings import ModelSettings
from claw.errors import ModelError, ModelErrorKind
from claw.turn.model.chat import Completion, Message, OnText, Shorten, iter_texts
from claw.turn.model.errors import SESSION_RACE, classify_error, mask_echo, root_cause
from claw.turn.model.spans import ChatSpan
from claw.turn.model.sse import StreamParser

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

log: Final = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 10.0
"""Time to reach the server. Silence after that is bounded by the turn's deadline alone: agents are quiet for minutes
while they run tools (docs/openclaw.md, "first byte")."""
DRAIN_TIMEOUT_S: Final = 0.1
"""Time that a server gets after `[DONE]` to end the body, so that its connection can be used again."""
PROBE_USER: Final = "claw-doctor"
"""The `user` of a probe: a session of its own at a gateway that keeps sessions."""

_OUT_OF_TOKENS: Final = "could not finish the message"
"""What OpenAI's reasoning models answer, with HTTP 400, where one token does not suffice: they can be asked."""
_CLOCK: Final = Clock()


class ModelClient:
    """The client of the model's server; its connections are pooled until `close`."""

    def __init__(self, settings: ModelSettings, *, history_kept_elsewhere: bool, clock: Clock = _CLOCK) -> None:
        self._settings = settings
        self._history_kept_elsewhere = history_kept_elsewhere
        self._clock = clock
        self._client: AsyncOpenAI | None = None
        self._build_lock = asyncio.Lock()

    async def warm(self) -> None:
        """Get ready for the first question, off its critical path. A fault is logged here, and raised by `ask`."""
        try:
            await self._get_client()
        except Exception as error:  # noqa: BLE001 - a proxy or CA setting of any wrongness must not end the caller
            log.error(
                "the model's client cannot be built",
                extra={
                    "cause": mask_echo(root_cause(error)),
                    "remedy": "check HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE",
                },
            )

    async def close(self) -> None:
        """Close all connections. Call it when no `ask` runs any more."""
        async with self._build_lock:
            if self._client is not None:
                await self._client.close()

    async def ask(
        self,
        messages: Sequence[Message],
        *,
        user: str,
        shorten: Shorten | None = None,
        on_text: OnText | None = None,
    ) -> Completion:
        """Return the model's answer (see ChatModel). Raises ModelError, and what `shorten` or `on_text` raise."""
        # One deadline for both tries: the person waits for the answer, not for a try.
        deadline = asyncio.get_running_loop().time() + self._settings.turn_timeout
        try:
            return await self._request(messages, user, deadline, on_text)
        except ModelError as error:
            second = _choose_second_try(error, messages, shorten)
            if second is None:
                raise
            log.info("asking the model a second time", extra={"fault": error.kind.value, "cause": error.reason})
        return await self._request(second, user, deadline, on_text)

    async def probe(self) -> None:
        """Ask for one token, for `claw doctor`; return when an answer begins. Raises ModelError.

        The caller sets the time limit: `turn_timeout` is for answers, a person at a terminal waits less.
        """
        try:
            await self._probe_once({"max_completion_tokens": 1})
        except ModelError as error:
            words = error.reason.lower()
            if error.status == 400 and _OUT_OF_TOKENS in words:
                return
            if error.status not in {400, 422} or "max_completion_tokens" not in words:
                raise
            await self._probe_once({})  # A server that knows no such field, and minds.

    async def _probe_once(self, limit: Mapping[str, Any]) -> None:
        parser = StreamParser()
        fields = {"messages": [{"role": "user", "content": "ping"}], "user": PROBE_USER, **limit}
        try:
            async with self._open_stream(fields, parser) as parts:
                async for part in parts:
                    if parser.feed(part) or parser.finished:
                        break
                else:
                    parser.end()
        except Exception as error:  # noqa: BLE001 - as in _stream_texts
            raise self._classify(error, (), parser) from None
        if not (parser.has_text or parser.finish_reason == "length"):
            raise ModelError(ModelErrorKind.EMPTY, f"no text came; finish_reason: {parser.finish_reason or 'none'}")

    async def _request(
        self, messages: Sequence[Message], user: str, deadline: float, on_text: OnText | None
    ) -> Completion:
        """Make one request, with its span and its metrics."""
        parser = StreamParser()
        with ChatSpan(self._settings, messages, user, parser, self._clock) as span:
            try:
                async with asyncio.timeout_at(deadline), aclosing(self._stream_texts(messages, user, parser)) as texts:
                    async for text in texts:
                        span.mark_text()
                        if on_text is not None:
                            on_text(text)
            except TimeoutError as error:
                raise self._classify(error, messages, parser) from None
            return _make_completion(parser, history_kept_elsewhere=self._history_kept_elsewhere)

    async def _stream_texts(self, messages: Sequence[Message], user: str, parser: StreamParser) -> AsyncGenerator[str]:
        """Yield the pieces of one answer. Everything that fails on the way is a ModelError."""
        fields = {"messages": messages, "user": user, "stream_options": {"include_usage": True}}
        try:
            async with self._open_stream(fields, parser) as parts:
                async for part in parts:
                    if text := parser.feed(part):
                        yield text
                    if parser.finished:
                        break
                if text := parser.end():
                    yield text
        except Exception as error:  # noqa: BLE001 - what others sent may raise anything; `classify_error` sorts it
            # Not chained: the SDK's error holds the server's words, which may be anything. The reason tells the cause.
            raise self._classify(error, messages, parser) from None

    @asynccontextmanager
    async def _open_stream(
        self, fields: Mapping[str, Any], parser: StreamParser
    ) -> AsyncIterator[AsyncGenerator[bytes]]:
        """Ask for a streamed chat completion; its body as it comes, which `parser` is fed with."""
        client = await self._get_client()
        import httpx2  # noqa: PLC0415 - see _build, which has imported it by now
        import openai  # noqa: PLC0415

        # The SDK's way to any endpoint, see the module's docstring.
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
        parts = _iter_body(response)
        try:
            yield parts
        finally:
            # After `[DONE]` the body's end is a moment away, and saves the next question a TLS handshake. Before it,
            # the connection is closed at once: that is how a server learns that nobody listens any more.
            await _unwind(parts, DRAIN_TIMEOUT_S if parser.done else 0)
            await response.aclose()

    def _classify(self, error: Exception, messages: Sequence[Message], parser: StreamParser) -> ModelError:
        private: Iterable[str] = (self._settings.api_key.reveal(), *iter_texts(messages))
        return classify_error(
            error,
            began=parser.has_text,
            history_kept_elsewhere=self._history_kept_elsewhere,
            wall=self._clock.wall(),
            private=private,
        )

    async def _get_client(self) -> AsyncOpenAI:
        # The lock: `warm` and the first question may come at the same time, and two clients would be two pools.
        async with self._build_lock:
            if self._client is None:
                # The thread keeps it by itself: a cancelled caller must not leave a client without an owner.
                await asyncio.to_thread(self._build)
            assert self._client is not None  # noqa: S101 - for the type checker
            return self._client

    def _build(self) -> None:
        import openai  # noqa: PLC0415 - half a second and 24 MB, off the critical path

        from claw.turn.model.transport import AiohttpTransport  # noqa: PLC0415 - imports what the SDK does

        client = openai.AsyncOpenAI(
            # The SDK refuses an empty key; `_open_stream` keeps this one out of the request.
            api_key=self._settings.api_key.reveal() or "none",
            base_url=self._settings.base_url,
            max_retries=0,
            timeout=openai.Timeout(None, connect=CONNECT_TIMEOUT_S),
            # Ours. The SDK's own closes itself when it is collected, in a task that fails if it was only half built (a
            # CA setting that is wrong). The environment's proxies are the transport's business.
            http_client=openai.DefaultAsyncHttpxClient(transport=AiohttpTransport(CONNECT_TIMEOUT_S), trust_env=False),
        )
        self._client = client


def _choose_second_try(
    error: ModelError, messages: Sequence[Message], shorten: Shorten | None
) -> Sequence[Message] | None:
    """Return what to ask at once after `error`, if anything; nothing where text had come."""
    if error.began:
        return None
    if error.kind is ModelErrorKind.TOO_LONG:
        return shorten() if shorten is not None else None
    # The race: by the time it fails, the session exists, and the same request goes through.
    return messages if error.code == SESSION_RACE and error.status in {None, 500} else None


def _make_completion(parser: StreamParser, *, history_kept_elsewhere: bool) -> Completion:
    """Return the answer that was read to its end. Raises ModelError where it has no text, or no end."""
    text, ended = parser.text, parser.finish_reason
    if not text.strip():
        # Another reason than these says why there is no text, and would say so again.
        retry = ended in {"", "stop"} and not history_kept_elsewhere
        raise ModelError(
            ModelErrorKind.EMPTY, mask_echo(f"no text came; finish_reason: {ended or 'none'}"), retryable=retry
        )
    if not parser.complete:
        reason = "the server closed before the answer's end"
        raise ModelError(ModelErrorKind.BROKEN_OFF, reason, began=True, retryable=not history_kept_elsewhere)
    return Completion(text, ended, parser.usage, parser.model, cut=ended == "length")


async def _iter_body(response: httpx2.Response) -> AsyncGenerator[bytes]:
    """Yield the body as it comes. Raises openai.APIConnectionError for everything that breaks it off."""
    import openai  # noqa: PLC0415 - see ModelClient._build

    try:
        async for part in response.aiter_bytes():
            yield part
    except Exception as error:
        raise openai.APIConnectionError(request=response.request) from error


async def _unwind(parts: AsyncGenerator[bytes], seconds: float) -> None:
    """Read on for `seconds` at most and forget what comes.

    Where that is too short, the cancellation passes through the generators of three libraries from the innermost
    outwards. An abandoned async generator is finalised by the garbage collector, in a task that nobody owns.
    """
    with suppress(Exception):
        async with asyncio.timeout(seconds):
            async for _ in parts:
                pass
