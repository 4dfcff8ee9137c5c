"""The way to the model's server: TLS with an own CA, proxies, connections that went stale."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from claw.config import settings
from claw.errors import ModelError, ModelErrorKind
from claw.secret import Secret
from claw.turn.model.client import ModelClient
from tests.certificates import certificate
from tests.turn.servers import ModelServer, answer

QUESTION = [{"role": "user", "content": "Hello?"}]
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@asynccontextmanager
async def model_at(base_url: str) -> AsyncIterator[ModelClient]:
    model = ModelClient(settings.ModelSettings(api_key=Secret("k"), base_url=base_url), history_kept_elsewhere=False)
    try:
        yield model
    finally:
        await model.close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def test_an_own_ca_is_trusted_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SSL_CERT_FILE makes a company's own CA good; without it the certificate's fault is told."""
    made = certificate(tmp_path, "localhost")
    async with ModelServer().serve(made.context()) as server:
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        async with model_at(server.base_url) as model:
            with pytest.raises(ModelError) as caught:
                await model.ask(QUESTION, user="u")
        assert caught.value.kind is ModelErrorKind.UNREACHABLE
        assert "CERTIFICATE_VERIFY_FAILED" in caught.value.reason
        monkeypatch.setenv("SSL_CERT_FILE", str(made.cert))
        async with model_at(server.base_url) as model:
            assert (await model.ask(QUESTION, user="u")).text == "Hello there"


@pytest.mark.parametrize(
    ("scheme", "variable", "line"),
    [
        ("http", "HTTP_PROXY", b"POST http://model.test/v1/chat/completions HTTP/1.1"),
        ("https", "HTTPS_PROXY", b"CONNECT model.test:443 HTTP/1.1"),
    ],
)
async def test_proxies_of_the_environment_hold(
    scheme: str, variable: str, line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model behind a proxy is asked through it; what the proxy refuses is told, without its password."""
    lines = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.append((await reader.readline()).strip())
        writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(proxy, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        monkeypatch.setenv(variable, f"http://user:hunter22@127.0.0.1:{port}")
        async with model_at(f"{scheme}://model.test/v1") as model:
            with pytest.raises(ModelError) as caught:
                await model.ask(QUESTION, user="u")
    assert lines == [line]
    assert "403" in str(caught.value.reason)
    assert "hunter22" not in str(caught.value)


async def test_no_proxy_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that NO_PROXY names is asked directly."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with ModelServer().serve() as server, model_at(server.base_url) as model:
        assert (await model.ask(QUESTION, user="u")).text == "Hello there"


async def test_a_restarted_server_is_reached_again() -> None:
    """A kept-alive connection that the server has closed meanwhile is not used for the next question."""
    async with ModelServer().serve() as server:
        base_url = server.base_url
        async with model_at(base_url) as model:
            await model.ask(QUESTION, user="u")
            server.close_idle()
            await asyncio.sleep(0.05)
            assert (await model.ask(QUESTION, user="u")).text == "Hello there"


async def test_a_question_that_may_have_been_read_is_not_asked_again() -> None:
    """A server that closes a kept connection at its next question may have begun to work: the worker counts it."""
    connections: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(0)
        place = len(connections) - 1
        while await _asked(reader):
            connections[place] += 1
            if connections[place] == 2:
                break
            body = answer("Hello")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
            writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
        writer.transport.abort()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        async with model_at(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1") as model:
            await model.ask(QUESTION, user="u")
            with pytest.raises(ModelError) as caught:
                await model.ask(QUESTION, user="u")
            assert (caught.value.kind, caught.value.retryable) == (ModelErrorKind.UNREACHABLE, True)
            assert connections == [2]
            assert (await model.ask(QUESTION, user="u")).text == "Hello"
    finally:
        listener.close()
        await listener.wait_closed()


async def _asked(reader: asyncio.StreamReader) -> int:
    """Return the length of the next request's body; 0 where none comes."""
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        return length
    return 0
