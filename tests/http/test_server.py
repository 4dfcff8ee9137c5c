"""The HTTP surface: routes, rights and words of the contract, over real sockets, against friends and enemies."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import hmac
import json
import resource
import socket
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claw.checks import Check
from claw.config.reader import load
from claw.errors import SettingsError
from claw.http import server as module
from claw.http.admin import Scope
from claw.http.admin import routes as admin_routes
from claw.http.health import Health
from claw.http.health import routes as health_routes
from claw.http.responses import ApiError, json_response
from claw.http.server import Server
from claw.observe.redact import redact
from claw.secret import Secret

TOKEN = "admin-token-of-this-test"
ENVIRONMENT = {
    "DINGTALK_CLIENT_ID": "dingclient",
    "DINGTALK_CLIENT_SECRET": "ding-secret-value",
    "OPENAI_API_KEY": "sk-key-value",
}
BEARER = {"Authorization": f"Bearer {TOKEN}"}


LIMITS = resource.getrlimit(resource.RLIMIT_NOFILE)
FILES_MIN = 5_000
"""Files that a test with 2,000 connections, both ends of each, may need."""


class Parts:
    """What `app` hands in, to be set by tests; `health` belongs to the server made last."""

    health: Health

    def __init__(self) -> None:
        self.asked: list[Scope] = []
        self.running = False
        self.status: Mapping[str, Any] = {"version": "1", "名": "值"}
        self.error: Exception | None = None
        self.notes: list[tuple[str, ...]] = []

    async def note(self, *words: str) -> None:
        self.notes.append(words)

    def restart(self, scope: Scope) -> bool:
        if self.error:
            raise self.error
        if self.running:
            return False
        self.asked.append(scope)
        self.running = True
        return True

    async def get_status(self, _: web.Request) -> web.Response:
        if self.error:
            raise self.error
        return json_response(self.status)

    async def echo(self, request: web.Request) -> web.Response:
        return json_response({"length": len(await request.read())})


@pytest.fixture
def parts() -> Parts:
    return Parts()


def serving(
    parts: Parts,
    token: str = TOKEN,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    read: Callable[[], Secret] | None = None,
) -> Server:
    parts.health = Health(check_timeout=0.2)
    parts.health.add("stream", lambda: Check(ok=True, state="OPEN"))
    admin = [
        *admin_routes(parts.restart, parts.note),
        web.get("/status", parts.get_status),
        web.put("/echo", parts.echo),
    ]
    return Server(
        host, port, public=health_routes(parts.health), admin=admin, admin_token=read or (lambda: Secret(token))
    )


@pytest.fixture
async def server(parts: Parts) -> AsyncIterator[Server]:
    server = serving(parts)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as client:
        yield client


def error_body(code: str, message: str, field: str | None = None) -> dict[str, Any]:
    return {"error": {"code": code, "field": field, "message": message}}


async def alive(server: Server) -> bool:
    """Whether a fresh connection is answered."""
    async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{server.port}/health") as response:
        return response.status == 200


# --- routes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/health", "/livez", "/healthz"])
async def test_liveness(path: str, client: aiohttp.ClientSession, parts: Parts) -> None:
    """Liveness answers under its name and its aliases: 200, and 503 once an owned task is lost."""
    async with client.get(path) as response:
        assert response.status == 200
        assert (await response.json())["status"] == "ok"
    task = asyncio.create_task(asyncio.sleep(0), name="worker")
    parts.health.own(task)
    await task
    await asyncio.sleep(0)
    async with client.get(path) as response:
        assert response.status == 503
        body = await response.json()
        assert (body["status"], body["checks"]["tasks"]["reason"]) == ("failing", "worker returned")


@pytest.mark.parametrize("path", ["/ready", "/readyz"])
async def test_readiness(path: str, client: aiohttp.ClientSession, parts: Parts) -> None:
    """Readiness answers under its name and its alias: 200, and 503 with the cause while a check fails or we drain."""
    async with client.get(path) as response:
        assert response.status == 200
        assert (await response.json())["status"] == "ready"
    parts.health.add("store", lambda: Check(ok=False, state="DOWN", reason="磁盘已满"))
    async with client.get(path) as response:
        assert response.status == 503
        assert (await response.json())["checks"]["store"]["reason"] == "磁盘已满"
        assert "磁盘已满".encode() in await response.read()
    parts.health.add("store", lambda: Check(ok=True))
    parts.health.drain()
    async with client.get(path) as response:
        assert response.status == 503
        assert (await response.json())["checks"]["drain"]["ok"] is False


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 404),
        ("GET", "/health/", {}, 404),
        ("GET", "/healthy", {}, 404),
        ("GET", "/%00", {}, 404),
        ("HEAD", "/health", {}, 200),
        ("HEAD", "/ready?verbose", {}, 200),
        ("HEAD", "/nothing", {}, 404),
        ("POST", "/health", {}, 405),
        ("DELETE", "/ready", BEARER, 405),
        ("OPTIONS", "/health", {}, 405),
        ("TRACE", "/health", {}, 405),
        ("GET", "/restart", {}, 405),
        ("GET", "/restart", BEARER, 405),
        ("HEAD", "/restart", BEARER, 405),
        ("POST", "/status", BEARER, 405),
        ("POST", "/restart", {}, 401),
        ("POST", "/restart", {"Authorization": "Bearer wrong"}, 401),
        ("POST", "/restart", {"Authorization": f"Bearer {TOKEN}x"}, 401),
        ("POST", "/restart", {"Authorization": f"Bearer {TOKEN[:-1]}"}, 401),
        ("POST", "/restart", {"Authorization": f"Basic {TOKEN}"}, 401),
        ("POST", "/restart", {"Authorization": TOKEN}, 401),
        ("POST", "/restart", {"Authorization": "Bearer"}, 401),
        ("POST", "/restart", {"Authorization": "Bearer "}, 401),
        ("POST", "/restart", {"Authorization": "Bearer 令牌"}, 401),
        ("POST", "/restart?scope=planet", {}, 401),
        ("GET", "/status", {}, 401),
        ("GET", "/status", BEARER, 200),
        ("HEAD", "/status", BEARER, 200),
        ("GET", "/status", {"Authorization": f"bearer {TOKEN}"}, 200),
        ("POST", "/restart?scope=planet", BEARER, 400),
        ("POST", "/restart?scope=", BEARER, 400),
        ("POST", "/restart?scope=stream&scope=process", BEARER, 400),
        ("POST", "/restart", BEARER, 202),
    ],
)
async def test_statuses(
    method: str, path: str, headers: dict[str, str], status: int, client: aiohttp.ClientSession, parts: Parts
) -> None:
    """Each path, method and right has its status; every answer is JSON, is not stored, and names no version."""
    async with client.request(method, path, headers=headers) as response:
        assert response.status == status
        assert response.headers["Content-Type"] == "application/json; charset=utf-8"
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["Server"] == "claw"
        body = await response.read()
        if method == "HEAD":
            assert body == b""
        else:
            json.loads(body)
        if status == 405:
            assert response.headers["Allow"] in {"GET, HEAD", "POST"}
        if status == 401:
            assert response.headers["WWW-Authenticate"] == "Bearer"
    assert parts.asked == ([Scope.STREAM] if status == 202 else [])


@pytest.mark.parametrize("path", ["/restart", "/status"])
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "PUT"])
@pytest.mark.parametrize("authorization", [None, "Bearer ", "Bearer", f"Bearer {TOKEN}"])
async def test_without_a_token_there_is_no_administration(
    path: str, method: str, authorization: str | None, parts: Parts
) -> None:
    """Where CLAW_ADMIN_TOKEN is unset, the administrator's routes are 404 for everybody, an empty bearer included."""
    server = serving(parts, token="")
    await server.start()
    headers = {"Authorization": authorization} if authorization is not None else {}
    url = f"http://127.0.0.1:{server.port}{path}"
    async with aiohttp.ClientSession() as client, client.request(method, url, headers=headers) as response:
        assert response.status == 404
    await server.stop()
    assert parts.asked == []


@pytest.mark.parametrize(
    ("query", "scope"), [("", Scope.STREAM), ("?scope=stream", Scope.STREAM), ("?scope=process", Scope.PROCESS)]
)
async def test_restart(query: str, scope: Scope, client: aiohttp.ClientSession, parts: Parts) -> None:
    """A restart is accepted with 202 and handed on with its scope; a second one while it runs is 409."""
    async with client.post(f"/restart{query}", headers=BEARER) as response:
        assert response.status == 202
        assert await response.json() == {"status": "accepted", "scope": scope.value}
    async with client.post(f"/restart{query}", headers=BEARER) as response:
        assert response.status == 409
    assert parts.asked == [scope]
    parts.running = False
    async with client.post(f"/restart{query}", headers=BEARER) as response:
        assert response.status == 202


async def test_status_is_what_the_parts_say(client: aiohttp.ClientSession, parts: Parts) -> None:
    """`/status` gives what it was handed, as UTF-8."""
    async with client.get("/status", headers=BEARER) as response:
        assert await response.json() == parts.status
        assert "值".encode() in await response.read()
    parts.status = {"broken": "\ud800"}
    async with client.get("/status", headers=BEARER) as response:
        assert response.status == 200
        assert await response.json() == parts.status


@pytest.mark.parametrize("error", [ValueError("session=abcdef at /home"), TimeoutError(), KeyError("x")])
async def test_a_fault_of_ours_tells_nothing(
    error: Exception, client: aiohttp.ClientSession, parts: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    """An error in a route is 500 without any detail, is logged with its stack, and the server goes on."""
    parts.error = error
    for method, path in (("GET", "/status"), ("POST", "/restart")):
        async with client.request(method, path, headers=BEARER) as response:
            assert response.status == 500
            assert await response.json() == error_body("internal", "internal error")
    failed = [record for record in caplog.records if record.getMessage() == "a request failed"]
    assert [record.exc_info is not None for record in failed] == [True, True]
    parts.error = None
    async with client.get("/status", headers=BEARER) as response:
        assert response.status == 200


async def test_bodies_are_not_wanted(client: aiohttp.ClientSession, parts: Parts, server: Server) -> None:
    """A small body is ignored, a large one refused by its length alone, an endless one thrown away."""
    async with client.post("/restart", headers=BEARER, data=b"scope=process") as response:
        assert response.status == 202
    assert parts.asked == [Scope.STREAM]
    parts.running = False
    async with client.post("/restart", headers=BEARER, data=b"x" * (module.BODY_MAX_BYTES + 1)) as response:
        assert response.status == 413
    answer = await send(server, f"POST /restart HTTP/1.1\r\nHost: x\r\nContent-Length: {10**18}\r\n"
                        f"Authorization: Bearer {TOKEN}\r\n\r\n".encode())  # fmt: skip
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert parts.asked == [Scope.STREAM]


async def test_a_body_without_a_length_is_bounded(client: aiohttp.ClientSession) -> None:
    """A route that reads a body gets at most BODY_MAX_BYTES of it, also where no length was declared."""

    async def chunks(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * 100

    async with client.put("/echo", headers=BEARER, data=chunks(3)) as response:
        assert await response.json() == {"length": 300}
    async with client.put("/echo", headers=BEARER, data=chunks(50)) as response:
        assert response.status == 413
        assert (await response.json())["error"]["code"] == "body_too_large"


@pytest.mark.parametrize(
    ("method", "path", "headers", "body"),
    [
        ("GET", "/nothing", {}, error_body("not_found", "not found")),
        ("GET", "/restart", {}, error_body("method_not_allowed", "method not allowed")),
        ("GET", "/status", {}, error_body("unauthorized", "the bearer token is missing or wrong")),
        (
            "POST",
            "/restart?scope=planet",
            BEARER,
            error_body("unknown_scope", "must be one of: stream, process", "scope"),
        ),
    ],
)
async def test_errors_have_one_form(
    method: str, path: str, headers: dict[str, str], body: dict[str, Any], client: aiohttp.ClientSession
) -> None:
    """An error has a code for programs, a sentence for people, and the field at fault or null."""
    async with client.request(method, path, headers=headers) as response:
        assert await response.json() == body


async def test_an_expectation_tells_no_version(server: Server) -> None:
    """aiohttp answers an unknown Expect by itself, before any of our code: without its version all the same."""
    answer = await send(server, b"GET /health HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 417 ")
    assert b"Server: claw" in answer
    assert b"nosniff" in answer


async def test_a_route_is_for_administrators_unless_it_is_public() -> None:
    """A route on no list of public ones wants the token, and its own errors get the form of all."""

    async def fail(_: web.Request) -> web.Response:
        raise ApiError(422, "no_chat", "no such chat", field="chat")

    server = Server("127.0.0.1", 0, public=[], admin=[web.get("/new", fail)], admin_token=lambda: Secret(TOKEN))
    await server.start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as client:
        async with client.get("/new") as response:
            assert response.status == 401
        async with client.get("/new", headers=BEARER) as response:
            assert (response.status, await response.json()) == (422, error_body("no_chat", "no such chat", "chat"))
    await server.stop()


async def test_the_token_is_compared_in_constant_time(
    client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bearer goes through hmac.compare_digest, for wrong and right ones."""
    seen: list[bytes] = []

    def compare(given: bytes, right: bytes) -> bool:
        seen.append(given)
        return given == right

    monkeypatch.setattr(hmac, "compare_digest", compare)
    for token in ("x", TOKEN):
        async with client.get("/status", headers={"Authorization": f"Bearer {token}"}):
            pass
    assert seen == [b"x", TOKEN.encode()]


async def test_the_token_follows_its_file(parts: Parts, tmp_path: Path) -> None:
    """A changed file takes effect with the next request: the new token opens, the old one no more; neither is shown."""
    file = tmp_path / "token"
    file.write_text("first-admin-token\n", encoding="utf-8")
    loaded = load(ENVIRONMENT | {"CLAW_ADMIN_TOKEN_FILE": str(file)})
    routes = [web.get("/status", parts.get_status)]
    server = Server("127.0.0.1", 0, public=[], admin=routes, admin_token=loaded.http.read_admin_token)
    await server.start()

    async def ask(token: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession() as client, client.get(url, headers=headers) as response:
            return response.status

    url = f"http://127.0.0.1:{server.port}/status"
    assert [await ask("first-admin-token"), await ask("second-admin-token")] == [200, 401]
    file.write_text("second-admin-token\n", encoding="utf-8")
    assert [await ask("first-admin-token"), await ask("second-admin-token")] == [401, 200]
    assert redact("first-admin-token, second-admin-token") == "***, ***"
    await server.stop()


@pytest.mark.parametrize("bearer", ["", " ", "x"])
async def test_a_token_that_is_gone_opens_nothing(bearer: str, parts: Parts) -> None:
    """Where the token is empty after the start, nobody is an administrator, whoever sends an empty bearer included."""
    tokens = [Secret(TOKEN)]
    routes = [web.get("/status", parts.get_status)]
    server = Server("127.0.0.1", 0, public=[], admin=routes, admin_token=lambda: tokens[-1])
    await server.start()
    tokens.append(Secret(""))
    url, headers = f"http://127.0.0.1:{server.port}/status", {"Authorization": f"Bearer {bearer}"}
    async with aiohttp.ClientSession() as client, client.get(url, headers=headers) as response:
        assert response.status == 401
    await server.stop()


async def test_the_token_is_read_beside_the_loop(parts: Parts) -> None:
    """A token's file that hangs holds up no probe, and one thread at most waits for it."""
    serving_now, go_on = threading.Event(), threading.Event()
    reading: list[threading.Thread] = []

    def read() -> Secret:
        if serving_now.is_set():
            reading.append(threading.current_thread())
            go_on.wait(30)
        return Secret(TOKEN)

    server = serving(parts, read=read)
    await server.start()
    serving_now.set()
    url = f"http://127.0.0.1:{server.port}/status"
    async with aiohttp.ClientSession() as client:
        asked = [asyncio.create_task(client.get(url, headers=BEARER)) for _ in range(5)]
        try:
            async with asyncio.timeout(30):
                while not reading:
                    await asyncio.sleep(0.01)
                assert await alive(server)
            assert len(reading) == 1
        finally:
            go_on.set()
        for response in await asyncio.gather(*asked):
            assert response.status == 200
            response.release()
    await server.stop()


# --- listening ---------------------------------------------------------------------------------------------------


async def test_a_port_in_use_is_named(parts: Parts, server: Server) -> None:
    """A port that somebody holds is a fault of the settings that names PORT, and leaves nothing behind."""
    second = serving(parts, port=server.port)
    with pytest.raises(SettingsError) as caught:
        await second.start()
    assert caught.value.problems == (f"PORT: {server.port} is in use by another process",)
    await second.stop()
    assert await alive(server)


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "300.1.1.1"])
async def test_a_host_that_is_not_ours_is_named(host: str, parts: Parts) -> None:
    """An address that this machine has not is a fault of the settings that names HOST."""
    with pytest.raises(SettingsError) as caught:
        await serving(parts, host=host).start()
    assert caught.value.problems[0].startswith("HOST")


async def answers(host: str, port: int) -> bool:
    """Whether `/health` is answered at this address."""
    try:
        async with aiohttp.ClientSession() as client, client.get(f"http://{host}:{port}/health") as response:
            return response.status == 200
    except aiohttp.ClientConnectionError:
        return False


def loopbacks() -> list[str]:
    """The loopback addresses that this machine has."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return ["127.0.0.1"]
    return ["127.0.0.1", "[::1]"]


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("0.0.0.0", ["127.0.0.1"]),
        ("::1", ["[::1]"]),
        *((spelling, ["127.0.0.1", "[::1]"]) for spelling in ("::", "[::]", "::0", "0:0:0:0:0:0:0:0")),
    ],
)
async def test_families(host: str, reached: list[str], parts: Parts) -> None:
    """`::` means both families in any spelling; every other HOST is that address alone."""
    server = serving(parts, host=host)
    try:
        await server.start()
    except SettingsError:
        assert not set(reached) & set(loopbacks())
        pytest.skip("this machine has no IPv6 loopback")
    try:
        found = [address for address in loopbacks() if await answers(address, server.port)]
        assert found == [address for address in reached if address in loopbacks()]
    finally:
        await server.stop()


@pytest.mark.parametrize(
    "error",
    [
        ValueError("dualstack_ipv6 not supported on this platform"),
        OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol"),
        OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"),
    ],
)
async def test_a_machine_without_ipv6_is_no_error(
    error: Exception, parts: Parts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where there is no IPv6, `::` is IPv4, and one line says so."""

    def fail(*_: object, **__: object) -> socket.socket:
        raise error

    monkeypatch.setattr(socket, "create_server", fail)
    server = serving(parts, host="::")
    await server.start()
    try:
        assert await answers("127.0.0.1", server.port)
    finally:
        await server.stop()
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "this machine has no IPv6, listening on IPv4 only"
    ]


@pytest.mark.parametrize("host", ["::", "0.0.0.0"])
async def test_a_port_in_use_by_the_other_family_is_named(host: str, parts: Parts) -> None:
    """A program that holds the port in one family is told by PORT, and nothing of ours is left open."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        server = serving(parts, host=host, port=other.getsockname()[1])
        with pytest.raises(SettingsError) as caught:
            await server.start()
    assert caught.value.problems[0].startswith("PORT")


async def test_stop_leaves_nothing(parts: Parts) -> None:
    """After `stop` no task and no connection is left, though clients hold theirs open; the port is free again."""
    server = serving(parts)
    await server.start()
    port = server.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /hea")
    await reader.readuntil(b"\r\n\r\n")
    silent_reader, silent_writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.wait_for(server.stop(), 30)
    await server.stop()
    await asyncio.wait_for(silent_reader.read(), 30)
    for each in (writer, silent_writer):
        each.close()
        await each.wait_closed()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    again = serving(parts, port=port)
    await again.start()
    assert again.port == port
    await again.stop()


@pytest.mark.parametrize("turns", range(8))
async def test_stop_closes_who_just_comes(turns: int, parts: Parts) -> None:
    """A connection that comes while we close is closed with us, in whichever turn of the loop that is."""
    server = serving(parts)
    await server.start()
    with warnings.catch_warnings(record=True) as caught, socket.create_connection(("127.0.0.1", server.port)) as client:
        warnings.simplefilter("always")
        for _ in range(turns):
            await asyncio.sleep(0)
        await server.stop()
        gc.collect()
        assert [str(each.message) for each in caught] == []
        client.settimeout(30)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""


# --- enemies -----------------------------------------------------------------------------------------------------


async def send(server: Server, data: bytes, *, eof: bool = False) -> bytes:
    """What comes back for raw bytes, until the server closes or falls silent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    answer = b""
    try:
        writer.write(data)
        if eof:
            writer.write_eof()
        while chunk := await asyncio.wait_for(reader.read(65536), 0.5 if answer else 5):
            answer += chunk
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
        b"garbage\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /h\xc3\xa9alth HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET /health HTTP/1.1\r\n: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(5000)) + b"\r\n",
        b"GET http://[::bad/health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=range(15),
)
async def test_what_is_no_http_is_refused_quietly(
    data: bytes, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Garbage, floods of headers and smuggling get a short 400 without version or echo; no log line; we go on."""
    caplog.set_level("INFO")
    caplog.clear()
    answer = await send(server, data)
    if answer:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
        assert b"Server: claw" in head
        assert json.loads(body) == error_body("bad_request", "bad request")
    assert caplog.records == []
    assert await alive(server)


@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        (b"GET /health HTTP/1.0\r\n\r\n", [200]),
        (b"GET http://elsewhere/health HTTP/1.1\r\nHost: x\r\n\r\n", [200]),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", [404]),
        (b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", [404]),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", [200]),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 30, [200] * 30),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nnonsense\r\n\r\n", [400]),
        (b"PROPFIND /health HTTP/1.1\r\nHost: x\r\n\r\n", [405]),
        (b"GET /status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\n\r\n", [401]),
        (b"GET /../health HTTP/1.1\r\nHost: x\r\n\r\n", [404]),
        (b"GET /%68ealth HTTP/1.1\r\nHost: x\r\n\r\n", [200]),
    ],
    ids=range(11),
)
async def test_unusual_http_is_answered(data: bytes, statuses: list[int], server: Server) -> None:
    """What is odd and allowed gets the answers of the contract, pipelined requests in order."""
    answer = await send(server, data)
    assert [int(part[2:5]) for part in answer.split(b"HTTP/1.")[1:]] == statuses


async def test_slow_requests_are_cut_off(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that dribbles its request, or sends none, loses its connection after KEEPALIVE_S."""
    monkeypatch.setattr(module, "KEEPALIVE_S", 0.2)
    server = serving(parts)
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /health HTTP/1.1\r\nX-Slow: ")
    silent_reader, silent_writer = await asyncio.open_connection("127.0.0.1", server.port)
    assert await asyncio.wait_for(reader.read(), 30) == b""
    assert await asyncio.wait_for(silent_reader.read(), 30) == b""
    writer.close()
    silent_writer.close()
    assert await alive(server)
    await server.stop()


async def test_a_flood_of_connections_keeps_no_probe_out(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every place taken by idle connections, the oldest one goes and a probe is answered."""
    monkeypatch.setattr(module, "CONNECTIONS_MAX", 20)
    server = serving(parts)
    await server.start()
    idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(60)]
    assert await alive(server)
    assert await asyncio.wait_for(idle[0][0].read(), 30) == b""
    runner = server._runner
    assert runner is not None
    assert runner.server is not None
    assert len([each for each in runner.server.connections if each.connected]) <= 20
    for _, writer in idle:
        writer.close()
    await server.stop()


async def hold(server: Server, count: int, data: bytes) -> list[socket.socket]:
    """Open `count` connections at once, each of which sends `data` and never reads."""
    loop = asyncio.get_running_loop()
    connections = []
    for _ in range(count):
        connection = socket.socket()
        connection.setblocking(False)
        connections.append(connection)
        await loop.sock_connect(connection, ("127.0.0.1", server.port))
        with contextlib.suppress(OSError):
            connection.send(data)
    return connections


@pytest.mark.parametrize(
    "data",
    [b"", b"GET /health HTTP/1.1\r\nX-Slow: ", b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n" * 200],
    ids=["idle", "slow", "unread"],
)
async def test_two_thousand_connections_keep_no_probe_out(data: bytes, server: Server) -> None:
    """2,000 open connections, silent, dribbling or never reading: a probe gets its answer in time all the while."""
    if LIMITS[1] < FILES_MIN:
        pytest.skip("this machine lets nobody open so many connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(LIMITS[0], FILES_MIN), LIMITS[1]))
    try:
        holding = asyncio.create_task(hold(server, 2_000, data))
        slowest = 0.0
        while not holding.done():
            started = time.monotonic()
            assert await alive(server)
            slowest = max(slowest, time.monotonic() - started)
        started = time.monotonic()
        assert await alive(server)
        # The chart's probes wait for 3 s. It is a tenth of a second on a machine of its own; tests share theirs.
        assert max(slowest, time.monotonic() - started) < 3
        runner = server._runner
        assert runner is not None
        assert runner.server is not None
        assert len([each for each in runner.server.connections if each.connected]) <= module.CONNECTIONS_MAX
    finally:
        for connection in await holding:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, LIMITS)


async def test_a_closed_connection_leaves_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is closed for others is gone at once, though its peer has not read what it asked for."""
    monkeypatch.setattr(module, "CONNECTIONS_MAX", 5)
    body = bytes(1 << 22)

    async def get_much(_: web.Request) -> web.Response:
        return web.Response(body=body)

    server = Server("127.0.0.1", 0, public=[web.get("/much", get_much)], admin_token=lambda: Secret(""))
    await server.start()
    held = await hold(server, 20, b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n")

    def count() -> int:
        """Sockets of the server's end that are still open."""
        found = psutil.Process().net_connections("tcp4")
        return sum(bool(each.raddr) and each.laddr.port == server.port for each in found)

    async with asyncio.timeout(10):
        while count() > 5:
            await asyncio.sleep(0.05)
    for connection in held:
        connection.close()
    await server.stop()


async def test_the_greediest_client_loses_a_connection(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are too many connections, the one who holds the most of them loses the oldest, and nobody else."""
    monkeypatch.setattr(module, "CONNECTIONS_MAX", 20)
    server = serving(parts, host="0.0.0.0")
    await server.start()
    quiet = await asyncio.open_connection("127.0.0.1", server.port, local_addr=("127.0.0.2", 0))
    idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(60)]
    quiet[1].write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await asyncio.wait_for(quiet[0].readuntil(b"\r\n"), 30)) == b"HTTP/1.1 200 OK\r\n"
    assert await asyncio.wait_for(idle[0][0].read(), 30) == b""
    for _, writer in (quiet, *idle):
        writer.close()
    await server.stop()


async def test_a_client_that_never_reads_holds_nobody_up(server: Server) -> None:
    """Thousands of pipelined requests whose answers nobody reads stop being read; others are served, `stop` ends."""
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.transport.set_write_buffer_limits(high=1 << 24)
    writer.write(b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n" * 50_000)
    for _ in range(20):
        assert await alive(server)
    await asyncio.wait_for(server.stop(), 30)
    writer.close()


async def test_a_client_that_leaves_does_no_harm(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Clients that reset their connection in the middle of anything leave no trace in the log."""
    for data in (b"", b"GET /hea", b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /restart HTTP/1.1\r\n"):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(data)
        writer.transport.abort()
    assert await alive(server)
    assert caplog.records == []


METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "get", "X"])
PATHS = st.sampled_from(["/health", "/ready", "/status", "/restart", "/restart?scope=process", "/"]) | st.text(
    st.characters(codec="latin-1")
)
HEADERS = st.lists(st.tuples(st.sampled_from(["Host", "Authorization", "Content-Length", "X"]), st.text(max_size=20)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(method=METHODS, path=PATHS, headers=HEADERS, tail=st.binary(max_size=200))
def test_any_bytes_are_survived(method: str, path: str, headers: list[tuple[str, str]], tail: bytes) -> None:
    """Any bytes on the wire: no restart without the token, never a 500, and the next probe is answered."""
    parts = Parts()

    async def attack() -> None:
        server = serving(parts)
        await server.start()
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
        answer = await send(server, "\r\n".join(lines).encode() + tail, eof=True)
        assert b"HTTP/1.1 50" not in answer
        assert await alive(server)
        await server.stop()

    asyncio.run(attack())
    assert parts.asked == []
