"""A real `claw run` process for tests and benches: started with an environment, watched, stopped, killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

ADMIN_TOKEN = "admin-token-of-the-test"
CLIENT_SECRET = "not-a-real-secret"
API_KEY = "sk-not-a-real-key-000"

RUN = ("-m", "claw", "run")
KEPT = ("PATH", "HOME", "LANG", "SSL_CERT_FILE", "VIRTUAL_ENV", "PYTHONPATH")
"""Variables of the machine that a process of ours needs; everything else would change what it does."""


def environment(emulator_url: str, store: Path, **more: str) -> dict[str, str]:
    """What `claw run` needs against the emulator, on a port of its own choosing."""
    base = {name: os.environ[name] for name in KEPT if name in os.environ}
    return base | {
        "DINGTALK_CLIENT_ID": "dingfakeclient",
        "DINGTALK_CLIENT_SECRET": CLIENT_SECRET,
        "DINGTALK_OPENAPI_ENDPOINT": emulator_url,
        "DINGTALK_OAPI_ENDPOINT": emulator_url,
        "OPENAI_API_KEY": API_KEY,
        "OPENAI_BASE_URL": f"{emulator_url}/v1",
        "OPENAI_MODEL": "claw-test",
        "CLAW_STORE_URL": f"sqlite:///{store}",
        "CLAW_ADMIN_TOKEN": ADMIN_TOKEN,
        "CLAW_OWNER": "u-owner",
        "CLAW_LOG_FORMAT": "json",
        "HOST": "127.0.0.1",
        "PORT": "0",
        "PYTHONDONTWRITEBYTECODE": "",
        **more,
    }


class Service:
    """One `claw run` process. `logs` holds its standard error by lines, parsed where they are JSON.

    `arguments` are the interpreter's, for a claw whose constants a test has changed.
    """

    def __init__(self, environ: Mapping[str, str], cwd: Path, arguments: Sequence[str] = RUN) -> None:
        self.environ = dict(environ)
        self.cwd = cwd
        self.arguments = arguments
        self.lines: list[str] = []
        self.port = 0
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._served = asyncio.Event()

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None, "not started"
        return self._process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def logs(self) -> list[dict[str, Any]]:
        parsed = []
        for line in self.lines:
            with contextlib.suppress(ValueError):
                parsed.append(json.loads(line))
        return [entry for entry in parsed if isinstance(entry, dict)]

    async def start(self) -> None:
        """Start, and return when the HTTP surface serves. Raises AssertionError with the output if it does not."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self.arguments,
            env=self.environ,
            cwd=self.cwd,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        self._reader = asyncio.create_task(self._read(), name="service-stderr")
        ended = asyncio.create_task(self._process.wait())
        served = asyncio.create_task(self._served.wait())
        await asyncio.wait([ended, served], timeout=30, return_when=asyncio.FIRST_COMPLETED)
        for task in (ended, served):
            task.cancel()
        assert self._served.is_set(), "claw does not serve:\n" + "\n".join(self.lines)

    async def _read(self) -> None:
        stream = self.process.stderr
        assert stream is not None
        async for raw in stream:
            line = raw.decode(errors="replace").rstrip("\n")
            self.lines.append(line)
            if '"claw serves"' in line or '"set-up serves"' in line:
                self.port = int(json.loads(line)["port"])
                self._served.set()

    async def get(self, path: str, token: str = "") -> tuple[int, Any]:
        return await self._request("GET", path, token)

    async def post(self, path: str, token: str = ADMIN_TOKEN) -> tuple[int, Any]:
        return await self._request("POST", path, token)

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Call the API as an administrator, with a JSON body if there is one."""
        return await self._request(method, path, ADMIN_TOKEN, body)

    async def _request(self, method: str, path: str, token: str, body: Any = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # By URL as it is written: an id in a path may be encoded.
        url = URL(self.url + path, encoded=True)
        async with (
            aiohttp.ClientSession() as http,
            http.request(method, url, headers=headers, json=body) as response,
        ):
            return response.status, await response.json()

    async def until_ready(self, seconds: float = 30, *, ready: bool = True) -> dict[str, Any]:
        """Wait for /ready to say so (or to say no)."""
        deadline = time.monotonic() + seconds
        while True:
            status, body = await self.get("/ready")
            if (status == 200) is ready:
                assert isinstance(body, dict)
                return body
            assert time.monotonic() < deadline, body
            await asyncio.sleep(0.02)

    async def wait_log(self, message: str, seconds: float = 10) -> dict[str, Any]:
        """Wait for a line of the log, which its own thread writes a moment later, and return it."""
        deadline = time.monotonic() + seconds
        while True:
            for entry in self.logs:
                if message in str(entry["message"]):
                    return entry
            assert time.monotonic() < deadline, f"no log line {message!r} in:\n" + "\n".join(self.lines)
            await asyncio.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self, seconds: float = 20) -> int:
        """Wait for the end; returns the exit code."""
        async with asyncio.timeout(seconds):
            code = await self.process.wait()
        if self._reader is not None:
            await self._reader
        return code

    async def terminate(self) -> int:
        self.signal(signal.SIGTERM)
        return await self.ended()

    async def kill(self) -> None:
        """End without any chance to clean up."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self.ended()


@contextlib.asynccontextmanager
async def running(environ: Mapping[str, str], cwd: Path, arguments: Sequence[str] = RUN) -> AsyncIterator[Service]:
    """A service that is ready, and is killed at the end if it still runs."""
    service = Service(environ, cwd, arguments)
    try:
        await service.start()
        await service.until_ready()
        yield service
    finally:
        await service.kill()
