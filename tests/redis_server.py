"""A real Redis server for tests: on a free port of the loopback, in a folder of its own, ended with the test.

It can be stopped, started again with its data, frozen and told to misbehave by its own commands. What the store does
is looked at by `command`, over a socket of its own, so that no library of claw's stands between.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

START_S = 20.0
"""Seconds that a start may take on a busy machine."""


def binary() -> str:
    """The server's program; skips the test where it is not installed."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        pytest.skip("redis-server is not installed")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """One server. `options` are those of its configuration, by name."""

    def __init__(self, folder: Path, **options: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.options = {"save": "", "appendonly": "no", "bind": "127.0.0.1", "port": str(self.port)} | options
        self.password = options.get("requirepass", "")
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, db: int = 0) -> str:
        user = f":{self.password}@" if self.password else ""
        return f"redis://{user}127.0.0.1:{self.port}/{db}"

    def start(self) -> None:
        arguments = [word for name, value in self.options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen(
            [binary(), *arguments, "--dir", str(self.folder), "--daemonize", "no"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError, AssertionError):
                if self.command("PING") == b"PONG":
                    return
            assert self._process.poll() is None, "redis-server ended at its start"
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.02)

    def kill(self) -> None:
        """End without saving anything; what was appended to a file stays."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGCONT)
                self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let it stand still with its sockets open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def command(self, *words: str | bytes) -> Any:
        """Ask over a connection of our own; an error reply is an AssertionError."""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=START_S) as connection,
            connection.makefile("rb") as file,
        ):
            if self.password:
                _send(connection, "AUTH", self.password)
                _reply(file)
            _send(connection, *words)
            return _reply(file)

    def held(self) -> list[str]:
        """Every key of the first database."""
        return [each.decode("utf-8", "backslashreplace") for each in self.command("KEYS", "*")]


def _send(connection: socket.socket, *words: str | bytes) -> None:
    parts = [word.encode() if isinstance(word, str) else word for word in words]
    connection.sendall(b"".join([b"*%d\r\n" % len(parts), *(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)]))


def _reply(file: Any) -> Any:
    line = file.readline()
    assert line, "redis-server closed the connection"
    kind, rest = line[:1], line[1:-2]
    if kind == b"+":
        return rest
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return None if rest == b"-1" else file.read(int(rest) + 2)[:-2]
    if kind == b"*":
        return [_reply(file) for _ in range(int(rest))]
    raise AssertionError(rest.decode())


@contextlib.contextmanager
def running(folder: Path, **options: str) -> Iterator[RedisServer]:
    server = RedisServer(folder, **options)
    server.start()
    try:
        yield server
    finally:
        server.kill()
