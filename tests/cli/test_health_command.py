"""`claw health`: one cheap question, an exit code, and a line that says why."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from claw.checks import Check
from claw.cli.health import main, probe
from claw.errors import SettingsError
from claw.http.health import Health, routes
from claw.http.server import Server
from claw.secret import Secret


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], int]]:
    """A port that answers one connection with fixed bytes and closes it."""
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def listen(answer: bytes) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        threads.append(threading.Thread(target=serve, daemon=True))
        threads[-1].start()
        return int(listener.getsockname()[1])

    yield listen
    for thread in threads:
        thread.join(10)
    for listener in listeners:
        listener.close()


async def test_against_the_real_server(capsys: pytest.CaptureFixture[str]) -> None:
    """Ready: 0 and silent. Not ready: 1, and the failing checks with their reasons in one line."""
    health = Health()
    server = Server("127.0.0.1", 0, public=routes(health), admin_token=lambda: Secret(""))
    await server.start()
    environ = {"PORT": str(server.port), "HOST": "0.0.0.0"}
    assert await asyncio.to_thread(main, environ) == 0
    assert capsys.readouterr().err == ""
    health.add("stream", lambda: Check(ok=False, state="REJECTED", reason="凭证\n无效"))
    health.add("store", lambda: Check(ok=True))
    assert await asyncio.to_thread(main, environ) == 1
    assert capsys.readouterr().err == "claw is not ready: stream: REJECTED 凭证 无效\n"
    await server.stop()


@pytest.mark.parametrize("host", ["", "0.0.0.0", "127.0.0.1", "localhost", "::", "[::]", "::1", "[::1]"])
async def test_each_host_is_reached(host: str) -> None:
    """`claw health` finds the claw of this machine whatever HOST is, and so whatever families the machine has."""
    server = Server(host or "0.0.0.0", 0, public=routes(Health()), admin_token=lambda: Secret(""))
    try:
        await server.start()
    except SettingsError:
        pytest.skip("this machine has no IPv6 loopback")
    try:
        assert await asyncio.to_thread(main, {"PORT": str(server.port), "HOST": host}) == 0
    finally:
        await server.stop()


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (b"", "claw does not answer on port"),
        (b"garbage", "claw does not answer on port"),
        (b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n", "claw answers with HTTP 503 and no report"),
        (b"HTTP/1.1 404 x\r\nContent-Length: 2\r\n\r\n[]", "claw answers with HTTP 404 and no report"),
        (b'HTTP/1.1 503 x\r\nContent-Length: 17\r\n\r\n{"checks":{"a":1}', "claw answers with HTTP 503 and no report"),
        (b'HTTP/1.1 503 x\r\nContent-Length: 18\r\n\r\n{"checks":{"a":1}}', "claw answers with HTTP 503 and no report"),
        (b"HTTP/1.1 302 x\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", "claw answers with HTTP 302 and no report"),
        (b"HTTP/1.1 503 x\r\nContent-Length: 99\r\n\r\n{}", "claw answers with HTTP 503 and no report"),
    ],
)
def test_any_answer_but_200_is_not_ready(answer: bytes, line: str, answering: Callable[[bytes], int]) -> None:
    """Whatever else comes back is "not ready" with a line, never an error."""
    ready, told = probe("127.0.0.1", answering(answer))
    assert not ready
    assert told.startswith(line)
    assert "\n" not in told


def test_nobody_there(capsys: pytest.CaptureFixture[str]) -> None:
    """A port without claw is exit code 1 and one line."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    assert main({"PORT": str(port)}) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_silent_port_ends_in_time() -> None:
    """A port that accepts and never answers is given up after the timeout."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        ready, line = probe("", listener.getsockname()[1], timeout=0.1)
    assert not ready
    assert "TimeoutError" in line


@pytest.mark.parametrize("port", ["0", "-1", "65536", "8080x", "９", "9" * 5000])
def test_a_bad_port_is_told(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A PORT that cannot be asked is exit code 1 and one line."""
    assert main({"PORT": port}) == 1
    assert capsys.readouterr().err == "PORT is not a port that can be asked\n"


def test_the_probe_is_light() -> None:
    """The probe imports neither aiohttp nor any other package: it runs every few seconds beside the service."""
    code = (
        "import sys, claw.cli.health\n"
        "print([name for name in ('aiohttp', 'asyncio', 'openai', 'opentelemetry', 'dotenv') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
