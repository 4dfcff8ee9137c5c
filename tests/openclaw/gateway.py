"""A real OpenClaw gateway for tests: on loopback, with a home of its own, offline, asking only the provider given.

Order of events: `start` spawns it, `until_ready` waits for its own word that it takes questions; `kill` ends it and its
children without any chance to clean up, `terminate` asks it to go; a later `start` finds the sessions of the earlier.
Configuration keys are those of the package's own documents, `docs/gateway/` in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.openclaw.provider import KEY, MODEL
from tests.redis_server import free_port

log: Final = logging.getLogger("openclaw")
log.setLevel(logging.INFO)

PACKAGES: Final = Path(sys.prefix, "openclaw", "node_modules")
"""Where `make test-openclaw` installs."""
TOKEN: Final = "token-of-the-test"
START_S: Final = 120.0
"""Seconds that a start may take on a busy machine; 9 to 24 are usual (docs/openclaw.md)."""
POLL_S: Final = 0.05
ENVIRONMENT: Final = {
    "OPENCLAW_DISABLE_BONJOUR": "1",
    "OPENCLAW_EXEC_SHELL_SNAPSHOT": "0",
    "OPENCLAW_NO_AUTO_UPDATE": "1",
    "OPENCLAW_NO_RESPAWN": "1",
    "OPENCLAW_OFFLINE": "1",
    "OPENCLAW_SKIP_CHANNELS": "1",
    "DO_NOT_TRACK": "1",
    "NO_COLOR": "1",
}
"""No multicast, no downloads, no channel of its own, no respawn in another process than the one that we watch."""


def missing() -> str:
    """Why no gateway can be run here, or nothing."""
    if not (PACKAGES / "openclaw" / "openclaw.mjs").is_file():
        return "OpenClaw is not installed: make test-openclaw installs it"
    return "" if _node() else "no Node for OpenClaw: it comes with make test-openclaw on Linux, x64 and arm64"


def _node() -> str | None:
    """The Node that came with it; OpenClaw refuses one that is too old by itself."""
    installed = next(PACKAGES.glob("node-*/bin/node"), None)
    return str(installed) if installed else shutil.which("node")


class Gateway:
    """One gateway on one port and one state; `lines` holds what it wrote, which a failed test shows, too."""

    def __init__(self, folder: Path, provider_url: str, agents: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self._agents = agents
        """Ids of several; with them the gateway wants each request to name one."""
        self.port = free_port()
        self.lines: list[str] = []
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._started = 0.0
        for name in ("home", "state", "workspace"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "openclaw.json").write_text(json.dumps(self._configuration(provider_url)))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None, "not started"
        return self._process

    def _configuration(self, provider_url: str) -> dict[str, Any]:
        model = {
            "id": MODEL,
            "name": MODEL,
            "reasoning": False,
            "input": ["text", "image"],
            "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0},
            "contextWindow": 120_000,
            "maxTokens": 8192,
        }
        ours = {"baseUrl": provider_url, "apiKey": KEY, "api": "openai-completions", "models": [model]}
        return {
            "gateway": {
                "mode": "local",
                "bind": "loopback",
                "port": self.port,
                "auth": {"mode": "token", "token": TOKEN},
                "controlUi": {"enabled": False},
                "http": {"endpoints": {"chatCompletions": {"enabled": True}, "responses": {"enabled": True}}},
            },
            "agents": {
                **({"list": [{"id": each} for each in self._agents]} if self._agents else {}),
                "defaults": {
                    "model": {"primary": f"ours/{MODEL}"},
                    "workspace": str(self.folder / "workspace"),
                    "skipBootstrap": True,
                    "heartbeat": {"every": "0m"},
                },
            },
            "models": {"mode": "replace", "catalogRefresh": {"enabled": False}, "providers": {"ours": ours}},
            "browser": {"enabled": False},
            "discovery": {"mdns": {"mode": "off"}},
            "logging": {"file": str(self.folder / "openclaw.log")},
            "telemetry": {"enabled": False},
            "update": {"checkOnStart": False},
        }

    async def start(self) -> None:
        """Spawn it on what an earlier one left, without waiting for anything."""
        node = _node()
        assert node is not None
        self._started = time.monotonic()
        self._process = await asyncio.create_subprocess_exec(
            node,
            str(PACKAGES / "openclaw" / "openclaw.mjs"),
            "gateway",
            env={
                "PATH": f"{Path(node).parent}{os.pathsep}{os.environ['PATH']}",
                "HOME": str(self.folder / "home"),
                "OPENCLAW_STATE_DIR": str(self.folder / "state"),
                "OPENCLAW_CONFIG_PATH": str(self.folder / "openclaw.json"),
                **ENVIRONMENT,
            },
            cwd=self.folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=1 << 20,
            # It has children: a group of its own lets `kill` reach all of them, as the end of a container does.
            start_new_session=True,
        )
        self._reader = asyncio.create_task(self._read(self._process), name="gateway-output")

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip("\n")
            self.lines.append(line)
            log.info("%s", line)

    async def until_ready(self) -> float:
        """Wait for `/readyz`; returns the seconds since the start. Raises AssertionError with its output."""
        deadline = time.monotonic() + START_S
        async with aiohttp.ClientSession() as http:
            while time.monotonic() < deadline:
                assert self.process.returncode is None, f"the gateway ended:\n{self.output}"
                with contextlib.suppress(aiohttp.ClientError):
                    async with http.get(f"http://127.0.0.1:{self.port}/readyz") as response:
                        if response.status == 200:
                            return time.monotonic() - self._started
                await asyncio.sleep(POLL_S)
        raise AssertionError(f"the gateway is not ready after {START_S:g} s:\n{self.output}")

    async def ensure_ready(self) -> None:
        """Start it if it does not run, and wait for its readiness."""
        if self._process is None or self._process.returncode is not None:
            await self.start()
        await self.until_ready()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self, seconds: float = 60) -> int:
        """Wait for its end; returns the exit code. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            code = await self.process.wait()
            if self._reader is not None:
                await self._reader
        return code

    async def kill(self) -> None:
        """End it and its children without any chance to clean up."""
        if self._process is None:
            return
        # Even after its own end: children of a gateway that ended by itself may still hold its files.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self.ended()
