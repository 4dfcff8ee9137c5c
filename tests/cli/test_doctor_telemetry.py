"""`claw doctor` at the OpenTelemetry collector: what is wrong on the way there is told, and never as a fault."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from aiohttp import web

from claw.cli.doctor.command import TABLE, diagnose
from claw.cli.doctor.runner import CheckStatus, Result
from claw.language import Language
from tests.certificates import certificate
from tests.cli.sentences import says
from tests.collector import Collector
from tests.service import environment

EN = Language.EN
OK, WARNING, SKIPPED = CheckStatus.OK, CheckStatus.WARNING, CheckStatus.SKIPPED
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"


async def look(variables: Mapping[str, str], timeout: float = 15) -> Result:
    """The line of the check."""
    environ = environment("http://127.0.0.1:9", Path("claw.db")) | dict(variables)
    (check,) = (check for check in TABLE if check.name == "telemetry")
    ((result,), _) = await diagnose(environ, EN, checks=[check], timeout=timeout)
    return result


@contextlib.asynccontextmanager
async def listener(answer: bytes | None) -> AsyncIterator[int]:
    """A port that answers anything with these bytes, or never."""
    held: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        await reader.read(4096)
        if answer is not None:
            writer.write(answer)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for each in held:
            each.transport.abort()


@pytest.mark.parametrize("tail", ["", "/", "\n", "  ", "/v1/traces", "/v1/metrics/"])
async def test_a_collector_that_takes_it(tail: str) -> None:
    """An empty export reaches the collector as a real one would; what had to be mended is told by its variable."""
    async with Collector() as collector:
        result = await look({ENDPOINT: collector.url + tail})
    assert not collector.spans
    if "/v1/" in tail:
        assert (result.status, says("telemetry.mended", EN, result.message)) == (WARNING, True), result
        assert ENDPOINT in result.message
    else:
        assert (result.status, says("telemetry.ok", EN, result.message)) == (OK, True), result


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {ENDPOINT: " "},
        {ENDPOINT: "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"},
        {ENDPOINT: "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "console"},
    ],
)
async def test_nothing_is_exported(variables: dict[str, str]) -> None:
    """Without an address, or switched off, there is nothing to check."""
    result = await look(variables)
    assert (result.status, says("telemetry.off", EN, result.message)) == (SKIPPED, True), result


async def test_an_address_that_cannot_be_used_is_named() -> None:
    """A scheme or value that claw cannot use is told by its variable, without the value."""
    result = await look({ENDPOINT: "grpc://private-host:4317", "OTEL_BSP_MAX_QUEUE_SIZE": "many"})
    assert (result.status, says("telemetry.mended", EN, result.message)) == (WARNING, True), result
    assert ENDPOINT in result.message
    assert "OTEL_BSP_MAX_QUEUE_SIZE" in result.message
    assert "private-host" not in result.message


async def test_only_metrics_are_exported() -> None:
    """Where traces go nowhere, the address of metrics is tried, by its own variable first."""
    async with Collector() as collector:
        own = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{collector.url}/v1/metrics"}
        result = await look(own | {"OTEL_TRACES_EXPORTER": "none", ENDPOINT: "http://127.0.0.1:9"})
    assert result.status is OK, result


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b"HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n", "HTTP 404 from /v1/traces"),
        (b"HTTP/1.1 401 x\r\nContent-Length: 0\r\n\r\n", "HTTP 401"),
        (b"HTTP/1.1 302 x\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n", "HTTP 302"),
        # What a gRPC port answers to HTTP/1.1: the beginning of HTTP/2.
        (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x7f\xff\xff\xff", "its answer is no HTTP/1.1"),
        (b"", "ServerDisconnectedError"),
        (None, "no answer within 0.3 s"),
    ],
)
async def test_a_collector_that_does_not(answer: bytes | None, cause: str) -> None:
    """Whatever comes back in place of an acceptance is told with its cause and what to look at; never as a fault."""
    async with listener(answer) as port:
        result = await look({ENDPOINT: f"http://127.0.0.1:{port}"}, timeout=0.3 if answer is None else 15)
    assert (result.status, says("telemetry.failing", EN, result.message)) == (WARNING, True), result
    assert cause in result.message
    assert "4318" in result.remedy


async def test_nobody_there() -> None:
    """A collector that is down is told with the system's words, and the port of gRPC by its number."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert "Connect" in (await look({ENDPOINT: f"http://127.0.0.1:{port}"})).message
    result = await look({ENDPOINT: "http://127.0.0.1:4317"})
    assert result.status is WARNING
    assert "gRPC" in result.message


async def test_its_own_headers_and_certificates(tmp_path: Path) -> None:
    """Headers and the CA of OTEL_* are used; no header's value is shown, whatever fails."""
    seen: list[str] = []

    async def take(request: web.Request) -> web.Response:
        seen.append(request.headers.get("api-key", ""))
        return web.Response(status=200 if seen[-1] == "key value" else 403)

    app = web.Application()
    app.router.add_post("/own", take)
    made = certificate(tmp_path, "127.0.0.1")
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=made.context()).start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}/own"
    ca = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(made.cert)}
    try:
        good = await look({TRACES: url, "OTEL_EXPORTER_OTLP_HEADERS": "api-key=key%20value"} | ca)
        wrong = await look({TRACES: url, "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "api-key=other-key"} | ca)
        unknown = await look({TRACES: url, "OTEL_EXPORTER_OTLP_HEADERS": "api-key=key%20value"})
        plain = await look({TRACES: url.replace("https", "http")})
    finally:
        await runner.cleanup()
    assert good.status is OK, good
    assert "HTTP 403" in wrong.message
    assert "certificate" in unknown.message
    assert plain.status is WARNING
    assert seen == ["key value", "other-key"]
    assert "key value" not in str([good, unknown, plain])
    assert "other-key" not in str(wrong)
