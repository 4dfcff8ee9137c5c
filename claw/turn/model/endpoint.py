"""The server's `/chat/completions`, or `/responses` (CLAW_MODEL_API): requests go out, streamed responses come in.

Order of events: `warm` imports the SDK and builds its client in a thread. `post` sends a request and returns when the
head of its response is there. A field that the server does not know is left out and the request sent again, since the
server has done nothing yet; the next requests go without it. After a 401 the key is read from its file again, which
may have been rotated. Redirects are an answer like any other: to follow one would carry the conversation, and perhaps
the key, to whoever it names.

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
import re
from collections.abc import AsyncGenerator, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from claw.config.settings import ModelSettings
from claw.language import Bilingual
from claw.observe import telemetry
from claw.policy import ModelApi
from claw.turn.model.body import ErrorBody
from claw.turn.model.errors import mask_echo, root_cause
from claw.turn.model.fields import find_refused_fields
from claw.turn.model.responses import PATH, to_request
from claw.turn.model.sse import UnreadableError
from claw.turn.model.upload import Upload, has_pictures

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

log: Final = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 10.0
"""Time to reach the server. Silence after that is bounded by the turn's deadline alone: agents are quiet for minutes
while they run tools (docs/openclaw.md, "first byte")."""
CHANNEL_HEADER: Final = "x-openclaw-message-channel"
"""By which an OpenClaw gateway learns where a message comes from; without it the agent believes in a web chat."""
MAX_TOKENS: Final = "max_completion_tokens"
"""The limit of an answer; OpenAI's reasoning models refuse the older name, by which most other servers know it."""
OLD_MAX_TOKENS: Final = "max_tokens"
CHANNEL: Final = "dingtalk"
CHAT_PATH: Final = "/chat/completions"
_OPENCLAW: Final = re.compile(r"openclaw($|[/:])")


class ChatEndpoint:
    """Where questions are sent; its connections are pooled until `close`."""

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings
        self._client: AsyncOpenAI | None = None
        self._build_lock = asyncio.Lock()
        self._refused: frozenset[str] = frozenset()
        self.api_key = settings.api_key
        """The key as it was last read."""

    async def warm(self) -> None:
        """Get ready for the first question, off its critical path. A fault is logged here, and raised by `post`."""
        try:
            await self._get_client()
        except Exception as error:  # noqa: BLE001 - a proxy or CA setting of any wrongness must not end the caller
            log.error(
                "the model's client cannot be built",
                extra={
                    "cause": mask_echo(root_cause(error)),
                    "remedy": Bilingual(
                        "check HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE", "检查 HTTPS_PROXY、NO_PROXY 和 SSL_CERT_FILE"
                    ),
                },
            )

    async def close(self) -> None:
        """Close all connections. Call it when no `post` runs any more."""
        async with self._build_lock:
            if self._client is not None:
                await self._client.close()

    async def post(self, fields: Mapping[str, Any]) -> httpx2.Response:
        """Ask for a streamed chat completion with `fields`. Raises what the SDK raises; the caller closes it."""
        client = await self._get_client()
        import openai  # noqa: PLC0415 - see _build, which has imported it by now

        body = {"model": self._settings.name, "stream": True, **fields}
        if self._settings.max_tokens and MAX_TOKENS not in body:
            body[MAX_TOKENS] = self._settings.max_tokens
        if self._settings.api is ModelApi.RESPONSES:
            body = to_request(body, is_gateway=bool(_OPENCLAW.match(str(body["model"]))))
        body = _leave_out(body, self._refused)
        refused: frozenset[str] = frozenset()
        is_key_fresh = False
        # Each round but the first has one field less, or a fresh key: it ends.
        while True:
            key = self.api_key
            try:
                response = await self._send(client, body)
            except openai.APIStatusError as error:
                named = find_refused_fields(error.status_code, ErrorBody.parse(error.body), body)
                if "stream" in named:
                    named |= {"stream_options"} & body.keys()  # Nobody takes the one without the other.
                if named:
                    refused |= named
                    body = _leave_out(body, named)
                    continue
                if error.status_code != 401 or is_key_fresh:
                    raise
                # In a thread: the file may lie on a network's disk.
                self.api_key = await asyncio.to_thread(self._settings.read_api_key)
                if self.api_key == key:
                    raise
                is_key_fresh = True
                log.info("the model's key was rotated: asking again with the new one")
                continue
            if refused - self._refused:
                # Only now: a request that fails without them as well may have been refused for another reason.
                self._refused |= refused
                log.warning("the model's server takes no such fields", extra={"fields": sorted(refused)})
            return response

    async def _send(self, client: AsyncOpenAI, body: Mapping[str, Any]) -> httpx2.Response:
        import httpx2  # noqa: PLC0415 - see post
        import openai  # noqa: PLC0415

        # The trace goes on in the server's own spans, where it has some.
        headers: dict[str, Any] = {**telemetry.inject(), "Authorization": openai.omit, "Accept-Encoding": "identity"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key.reveal()}"
        if _OPENCLAW.match(str(body["model"])):
            headers[CHANNEL_HEADER] = CHANNEL
        is_chat = self._settings.api is ModelApi.CHAT
        upload = Upload(body) if has_pictures(body["messages" if is_chat else "input"]) else None
        if upload is not None:
            # With a length: many servers take no chunked request.
            headers |= {"Content-Type": "application/json", "Content-Length": str(upload.size)}
        try:
            # The SDK's way to any endpoint, see the module's docstring.
            answer: object = await client.post(
                CHAT_PATH if is_chat else PATH,
                body=None if upload is not None else body,
                content=upload,
                options={"headers": headers},
                cast_to=httpx2.Response,
                stream=True,
                stream_cls=openai.AsyncStream[Any],
            )
        finally:
            # The response refers to its request: what was not sent must not live as long as the answer takes.
            if upload is not None:
                upload.close()
        # The SDK's types promise a stream; what it is told to cast to is what comes.
        return cast("httpx2.Response", answer)

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
            # The SDK refuses an empty key; `_send` puts the real one into each request, as it may change.
            api_key="none",
            base_url=self._settings.base_url,
            max_retries=0,
            timeout=openai.Timeout(None, connect=CONNECT_TIMEOUT_S),
            # Ours. The SDK's own closes itself when it is collected, in a task that fails if it was only half built (a
            # CA setting that is wrong). The environment's proxies are the transport's business.
            http_client=openai.DefaultAsyncHttpxClient(
                transport=AiohttpTransport(CONNECT_TIMEOUT_S), trust_env=False, follow_redirects=False
            ),
        )
        self._client = client


def _leave_out(body: Mapping[str, Any], refused: Collection[str]) -> dict[str, Any]:
    """Return a body without the fields that a server refuses; the limit of tokens goes by its older name then."""
    left = {name: value for name, value in body.items() if name not in refused}
    if MAX_TOKENS in refused and MAX_TOKENS in body and OLD_MAX_TOKENS not in refused:
        left[OLD_MAX_TOKENS] = body[MAX_TOKENS]
    return left


async def iter_body(response: httpx2.Response) -> AsyncGenerator[bytes]:
    """Yield the body as it comes. Raises openai.APIConnectionError where it breaks off, UnreadableError if packed."""
    import openai  # noqa: PLC0415 - see ChatEndpoint._build

    from claw.turn.model.transport import is_packed  # noqa: PLC0415

    if is_packed(response.headers):
        raise UnreadableError("the answer is compressed, which was not asked for")
    try:
        async for part in response.aiter_bytes():
            yield part
    except Exception as error:
        raise openai.APIConnectionError(request=response.request) from error
