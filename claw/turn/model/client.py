"""The client of the model's server: asks any OpenAI-compatible one, and says truthfully how that went.

Order of events: `ask` sends one streamed chat completion (endpoint.py) and hands the text out as it comes, all within
one deadline. Whether the answer is whole is decided by what the server said of its end, not by how the connection
ended: with a `finish_reason` all is there, whatever breaks or hangs after it; a body that ended in good order is an
end, too. Whatever goes wrong becomes a ModelError (errors.py), which holds what had come. Cancelling `ask` closes its
connection, by which servers stop working.

The retry of a turn is the worker's, which is durable; the SDK's own is switched off. Two failures are worth other
tries here, as long as no text came: OpenClaw's "internal error" to a request that meets another one, or the gateway's
own recovery after a crash, on the same session, which passes in seconds; and a context overflow, with what `shorten`
leaves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, Final, NamedTuple

from claw.clock import Clock
from claw.config.settings import ModelSettings
from claw.errors import ModelError, ModelErrorKind
from claw.policy import ModelApi
from claw.turn.model.chat import Completion, Message, OnActivity, OnSent, OnText, Shorten, iter_texts
from claw.turn.model.endpoint import ChatEndpoint, iter_body
from claw.turn.model.errors import SESSION_RACE, Circumstances, classify_error, mask_echo
from claw.turn.model.finish import FinishReason
from claw.turn.model.health import ModelHealth
from claw.turn.model.responses import ResponsesParser
from claw.turn.model.spans import ChatSpan
from claw.turn.model.sse import EventError, StreamParser
from claw.turn.model.upload import has_pictures

log: Final = logging.getLogger(__name__)

DRAIN_TIMEOUT_S: Final = 0.1
"""Time that a server gets after `[DONE]` to end the body, so that its connection can be used again."""
FEED_BYTES: Final = 16_384
"""What is parsed of an answer before others have their turn: some milliseconds at most."""
GRACE_S: Final = 2.0
"""Time that a server gets after `finish_reason` to tell the usage and to end; then its answer is taken as it is."""
RACE_WAITS_S: Final = (0.2, 1.0, 2.0, 4.0, 7.0)
"""Waits before the tries after a session's race. The first is for two requests that began a session at once; a gateway
needs some 5 s after its start to recover one (docs/openclaw.md)."""
PROBE_USER: Final = "claw-doctor"
"""The `user` of a probe: a session of its own at a gateway that keeps sessions."""

_OUT_OF_TOKENS: Final = "could not finish the message"
"""What OpenAI's reasoning models answer, with HTTP 400, where one token does not suffice: they can be asked."""
_CLOCK: Final = Clock()


class _Asked(NamedTuple):
    """Who is asked, and for whom, by the names of a request's fields."""

    model: str
    user: str


class _Listeners(NamedTuple):
    """Who hears of an answer while it comes."""

    on_text: OnText | None
    on_activity: OnActivity | None


class ModelClient:
    """The client of the model's server; its connections are pooled until `close`."""

    def __init__(self, settings: ModelSettings, *, history_kept_elsewhere: bool, clock: Clock = _CLOCK) -> None:
        self._settings = settings
        self._history_kept_elsewhere = history_kept_elsewhere
        self._clock = clock
        self._endpoint = ChatEndpoint(settings)
        self.health = ModelHealth(clock)

    async def warm(self) -> None:
        """Get ready for the first question, off its critical path. A fault is logged here, and raised by `ask`."""
        await self._endpoint.warm()

    async def close(self) -> None:
        """Close all connections. Call it when no `ask` runs any more."""
        await self._endpoint.close()

    async def ask(
        self,
        messages: Sequence[Message],
        *,
        user: str,
        model: str = "",
        shorten: Shorten | None = None,
        on_text: OnText | None = None,
        on_activity: OnActivity | None = None,
        on_sent: OnSent | None = None,
    ) -> Completion:
        """Return the model's answer (see ChatModel). Raises ModelError, and what the callables raise."""
        asked = _Asked(model or self._settings.name, user)
        try:
            completion = await self._ask_patiently(messages, asked, shorten, _Listeners(on_text, on_activity), on_sent)
        except ModelError as error:
            self.health.note_error(error)
            raise
        self.health.note_success()
        return completion

    async def _ask_patiently(
        self,
        messages: Sequence[Message],
        asked: _Asked,
        shorten: Shorten | None,
        listeners: _Listeners,
        on_sent: OnSent | None,
    ) -> Completion:
        """Ask, and ask again where that cures the failure."""
        # One deadline for all tries: the person waits for the answer, not for a try.
        time = asyncio.get_running_loop().time
        deadline = time() + self._settings.turn_timeout
        waits = iter(RACE_WAITS_S)
        is_given_up = False

        async def give_up() -> None:
            nonlocal is_given_up
            if on_sent is not None:
                is_given_up = has_pictures(messages)
                await on_sent()

        while True:
            try:
                return await self._request(messages, asked, deadline, listeners, give_up)
            except ModelError as error:
                # Without its pictures it would be another question: the next try of the turn fetches them again.
                if error.began or is_given_up:
                    raise
                wait = 0.0
                if error.kind in {ModelErrorKind.TOO_LONG, ModelErrorKind.TOO_LARGE}:
                    less, shorten = shorten() if shorten is not None else None, None
                    if less is None:
                        raise
                    messages = less
                elif error.code == SESSION_RACE and error.retryable and error.status in {None, 500}:
                    wait = next(waits, -1.0)
                    if wait < 0 or time() + wait >= deadline:
                        # A gateway that keeps the sessions says so for as long as it runs the turn that a crash broke,
                        # minutes where tools run: nothing of ours has begun, so it is waited for. Elsewhere it is no
                        # race, and more of the same would be asked blindly.
                        error.waits = error.retryable = self._history_kept_elsewhere
                        raise
                else:
                    raise
                log.info("asking the model again", extra={"fault": error.kind.value, "cause": error.reason})
            await self._clock.sleep(wait)

    async def probe(self) -> None:
        """Ask for one token, for `claw doctor`; return when an answer begins. Raises ModelError.

        The caller sets the time limit: `turn_timeout` is for answers, a person at a terminal waits less.
        """
        parser = self._make_parser()
        # A server that knows no such field, and minds, is asked without it (endpoint.py).
        fields = {"messages": [{"role": "user", "content": "ping"}], "user": PROBE_USER, "max_completion_tokens": 1}
        try:
            async with self._open_stream(fields, parser) as parts:
                async for part in parts:
                    if parser.feed(part) or parser.finished:
                        break
                if not parser.has_text:
                    parser.end()
        except Exception as error:  # noqa: BLE001 - as in _stream_texts
            told = self._classify(error, (), self._circumstances(parser))
            if told.status == 400 and _OUT_OF_TOKENS in told.reason.lower():
                return
            raise told from None
        if not (parser.has_text or parser.finish is FinishReason.LENGTH):
            raise ModelError(ModelErrorKind.EMPTY, f"no text came; finish_reason: {parser.finish_reason or 'none'}")

    async def _request(
        self, messages: Sequence[Message], asked: _Asked, deadline: float, listeners: _Listeners, on_sent: OnSent
    ) -> Completion:
        """Make one request, with its span and its metrics."""
        parser = self._make_parser(listeners.on_activity)
        with ChatSpan(self._settings, messages, asked.model, asked.user, parser=parser, clock=self._clock) as span:
            try:
                streamed = self._stream_texts(messages, asked, parser, on_sent)
                async with asyncio.timeout_at(deadline), aclosing(streamed) as texts:
                    async for text in texts:
                        span.mark_text()
                        if listeners.on_text is not None:
                            listeners.on_text(text)
            except TimeoutError as error:
                if not (parser.is_closing and parser.has_text):
                    raise self._classify(error, messages, self._circumstances(parser)) from None
            return _make_completion(parser, history_kept_elsewhere=self._history_kept_elsewhere)

    async def _stream_texts(
        self, messages: Sequence[Message], asked: _Asked, parser: StreamParser, on_sent: OnSent
    ) -> AsyncGenerator[str]:
        """Yield the pieces of one answer. Everything that fails before its end is a ModelError."""
        fields = {**asked._asdict(), "messages": messages, "stream_options": {"include_usage": True}}
        began = self._clock.monotonic()
        head, given = False, 0
        try:
            async with self._open_stream(fields, parser) as parts:
                head = True
                await on_sent()
                async with aclosing(_iter_texts_of(parts, parser)) as texts:
                    async for text in texts:
                        given += len(text)
                        yield text
        except Exception as error:  # noqa: BLE001 - what others sent may raise anything; `classify_error` sorts it
            # What came in one read with the fault is a part of the answer, too.
            if rest := parser.text[given:]:
                yield rest
            at = self._circumstances(parser, head=head, elapsed=self._clock.monotonic() - began)
            # Not chained: the SDK's error holds the server's words, which may be anything. The reason tells the cause.
            told = self._classify(error, messages, at)
            # Where the server did not say how the answer ended, or gave none, its error is the end.
            is_end = isinstance(error, EventError) and (parser.finish is FinishReason.NONE or not parser.has_text)
            if is_end or not parser.is_closing:
                raise told from None
            log.info("the model's server failed after its answer", extra={"cause": told.reason})

    @asynccontextmanager
    async def _open_stream(
        self, fields: Mapping[str, Any], parser: StreamParser
    ) -> AsyncIterator[AsyncGenerator[bytes]]:
        """Ask for a streamed chat completion; its body as it comes, which `parser` is fed with."""
        response = await self._endpoint.post(fields)
        parts = iter_body(response)
        try:
            yield parts
        finally:
            # After `[DONE]` the body's end is a moment away, and saves the next question a TLS handshake. Before it,
            # the connection is closed at once: that is how a server learns that nobody listens any more.
            await _unwind(parts, DRAIN_TIMEOUT_S if parser.done else 0)
            await response.aclose()

    def _make_parser(self, on_activity: OnActivity | None = None) -> StreamParser:
        """Make what reads one answer of the API that is spoken."""
        return (ResponsesParser if self._settings.api is ModelApi.RESPONSES else StreamParser)(on_activity)

    def _circumstances(self, parser: StreamParser, *, head: bool = False, elapsed: float = 0.0) -> Circumstances:
        return Circumstances(self._history_kept_elsewhere, self._clock.wall(), head, parser.text, elapsed)

    def _classify(self, error: Exception, messages: Sequence[Message], at: Circumstances) -> ModelError:
        keys = {self._settings.api_key.reveal(), self._endpoint.api_key.reveal()}
        return classify_error(error, at, private=(*keys, *iter_texts(messages)))


def _make_completion(parser: StreamParser, *, history_kept_elsewhere: bool) -> Completion:
    """Return the answer that was read to its end. Raises ModelError where it has no text, or was broken off."""
    text, finish = parser.text, parser.finish
    word = mask_echo(parser.finish_reason) or "none"
    # A gateway has the question in its session by now: another try would put it there twice.
    again = not history_kept_elsewhere
    if finish is FinishReason.ABORTED:
        began = bool(text.strip())
        kind = ModelErrorKind.BROKEN_OFF if began else ModelErrorKind.SERVER
        reason = f"the server broke the answer off; finish_reason: {word}"
        raise ModelError(kind, reason, began=began, partial=text, retryable=again)
    if not text.strip():
        kind = ModelErrorKind.FILTERED if finish is FinishReason.CONTENT_FILTER else ModelErrorKind.EMPTY
        # Another reason than these says why there is no text, and would say so again.
        again = again and finish in {FinishReason.NONE, FinishReason.STOP}
        raise ModelError(kind, f"no text came; finish_reason: {word}", retryable=again)
    level = logging.WARNING if finish is FinishReason.UNKNOWN else logging.INFO
    log.log(level, "the model answered", extra={"response": mask_echo(parser.id), "finish_reason": word})
    return Completion(text, finish, parser.usage, parser.model, parser.id)


async def _iter_texts_of(parts: AsyncGenerator[bytes], parser: StreamParser) -> AsyncGenerator[str]:
    """Yield what `parser` makes of `parts`, until one of them, or GRACE_S after the answer's end, ends it."""
    time = asyncio.get_running_loop().time
    ends, chars = None, -1
    while not parser.finished:
        # From the end on, or from the last text: what only keeps the connection alive does not count.
        if parser.is_closing and parser.chars != chars:
            ends, chars = time() + GRACE_S, parser.chars
        try:
            async with asyncio.timeout_at(ends):
                part = await anext(parts, None)
        except TimeoutError:
            break
        if part is None:
            break
        for start in range(0, len(part), FEED_BYTES):
            if start:
                # The loop's turn: a server that sends faster than we read would keep everybody else from it.
                await asyncio.sleep(0)
            if text := parser.feed(part[start : start + FEED_BYTES]):
                yield text
    if text := parser.end():
        yield text


async def _unwind(parts: AsyncGenerator[bytes], seconds: float) -> None:
    """Read on for `seconds` at most and forget what comes.

    Where that is too short, the cancellation passes through the generators of three libraries from the innermost
    outwards. An abandoned async generator is finalised by the garbage collector, in a task that nobody owns.
    """
    with suppress(Exception):
        async with asyncio.timeout(seconds):
            async for _ in parts:
                pass
