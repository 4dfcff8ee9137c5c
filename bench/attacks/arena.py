"""One attack's arena: an emulator, a model's server, claws of any checkout, Redis and relays, on the loopback.

Order of events: `arena` starts the emulator and the model; the attack starts claws, whose memory and `/health` a thread
of each watches; people ask, each question with a mark that the answer repeats; `settle` waits for the answers. At the
end everything is killed that was started. Of claw only its command line, its environment and what it says over HTTP and
to DingTalk are used, so that any version of it can be attacked.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
from aiohttp import web

from bench.attacks.model import MARK, Model
from claw.emulator import Emulator, Person, Push
from tests.chaos.relay import Relay, relay_to
from tests.redis_server import RedisServer
from tests.service import ADMIN_TOKEN, Service, environment

KEEP: Final = 20_000
"""Entries of each log of the emulator."""
HEALTH_EVERY_S: Final = 0.05
HEALTH_PATIENCE_S: Final = 30.0
HEALTH_MAX_S: Final = 2.5
"""Within which `/health` must answer whatever happens: the chart's probes give it 3 s."""
"""Longer than any attack holds the loop up: the whole of it is to be seen."""
HERE: Final = Path(__file__).parents[2]


class Watch:
    """Looks at a process from a thread of its own, so that neither this loop's work nor claw's hides anything.

    `worst_s`: the longest that `/health` took; `peak_mb`: the most memory that was resident, by the kernel's word.
    """

    def __init__(self, pid: int, port: int) -> None:
        self._process = psutil.Process(pid)
        self._status = Path(f"/proc/{pid}/status")
        self._port = port
        self._worst = 0.0
        self._peak_mb = 0.0
        self._asked = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="attack-watch", daemon=True)
        self._thread.start()

    @property
    def worst_s(self) -> float:
        pending = time.monotonic() - self._asked if self._asked else 0.0
        return max(self._worst, pending)

    @property
    def peak_mb(self) -> float:
        self._look()
        return self._peak_mb

    def forget(self) -> None:
        """Let the longest `/health` be counted from now on."""
        self._worst = 0.0

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(HEALTH_PATIENCE_S)

    def _run(self) -> None:
        while not self._stopping.wait(HEALTH_EVERY_S):
            self._look()
            self._asked = asked = time.monotonic()
            with contextlib.suppress(OSError):
                with socket.create_connection(("127.0.0.1", self._port), HEALTH_PATIENCE_S) as connection:
                    connection.settimeout(HEALTH_PATIENCE_S)
                    connection.sendall(b"GET /health HTTP/1.1\r\nHost: claw\r\nConnection: close\r\n\r\n")
                    while connection.recv(4096):
                        pass
                self._worst = max(self._worst, time.monotonic() - asked)
            self._asked = 0.0

    def _look(self) -> None:
        with contextlib.suppress(OSError, psutil.Error):
            peak = re.search(r"^VmHWM:\s+(\d+) kB$", self._status.read_text(), re.MULTILINE)
            found = int(peak[1]) * 1024 if peak else self._process.memory_info().rss
            self._peak_mb = max(self._peak_mb, found / 1e6)


class Claw(Service):
    """A claw under attack."""

    watch: Watch

    async def start(self) -> None:
        await super().start()
        self.watch = Watch(self.process.pid, self.port)

    @property
    def log_bytes(self) -> int:
        return sum(len(line) + 1 for line in self.lines)

    async def status(self) -> dict[str, Any]:
        body = (await self.get("/status", ADMIN_TOKEN))[1]
        assert isinstance(body, dict)
        return body

    async def kill(self) -> None:
        # The kernel forgets what a process used as soon as it is gone.
        if hasattr(self, "watch"):
            self.watch._look()  # noqa: SLF001 - its own watcher
        await super().kill()


@dataclass(slots=True)
class Question:
    """Something that was asked. `said`: monotonic seconds."""

    msg_id: str
    mark: str
    chat: str
    push: Push
    said: float = field(default_factory=time.monotonic)

    @property
    def acked(self) -> bool:
        return self.push.acked.is_set()


class Arena:
    """What one attack has at hand. `checkout`: whose claw is attacked."""

    def __init__(
        self, emulator: Emulator, model: Model, model_url: str, folder: Path, checkout: Path, cache: Path
    ) -> None:
        self.emulator = emulator
        self.model = model
        self.model_url = model_url
        self.folder = folder
        self.checkout = checkout
        self.cache = cache
        """Where claw's bytecode is written: never into the checkout, which may be somebody else's."""
        self.stack = contextlib.AsyncExitStack()
        self.claws: list[Claw] = []
        self._marks = 0

    # --- parts ---

    def environ(self, **variables: str) -> dict[str, str]:
        """Make the environment of a claw: nobody else's packages, settings of the attack on top."""
        base = environment(self.emulator.url, self.folder / "claw.db", OPENAI_BASE_URL=f"{self.model_url}/v1")
        more = {"PYTHONPATH": str(self.checkout), "PYTHONPYCACHEPREFIX": str(self.cache)}
        return {name: value for name, value in (base | more | variables).items() if value}

    async def launch(self, **variables: str) -> Claw:
        """Start a claw, and return when it serves; the arena kills it. Raises AssertionError if it does not."""
        claw = Claw(self.environ(**variables), self.folder)
        self.stack.push_async_callback(claw.kill)
        await claw.start()
        self.stack.callback(claw.watch.stop)
        self.claws.append(claw)
        return claw

    async def start(self, **variables: str) -> Claw:
        """Start a claw that is ready for messages. Raises AssertionError if it does not get so far."""
        claw = await self.launch(**variables)
        await claw.until_ready()
        await self.emulator.wait_connections()
        return claw

    async def try_start(self, **variables: str) -> Claw | None:
        """Start a claw that may refuse to; None where it does."""
        try:
            return await self.launch(**variables)
        except AssertionError:
            return None

    async def restart(self, claw: Claw, **variables: str) -> Claw:
        """Kill a claw and start another one in its place."""
        await claw.kill()
        return await self.start(**variables)

    async def redis(self, name: str = "redis", **options: str) -> RedisServer:
        server = RedisServer(self.folder / name, **options)
        await asyncio.to_thread(server.start)
        self.stack.callback(server.kill)
        return server

    async def relay(self, target: int) -> Relay:
        return await self.stack.enter_async_context(relay_to(target))

    async def serve(
        self, handle: Callable[[web.Request], Awaitable[web.StreamResponse]], host: str = "127.0.0.1"
    ) -> str:
        """Let a stand-in answer every request of a port of its own; return its address."""
        return await self.stack.enter_async_context(serving(handle, host))

    def people(self, count: int, prefix: str = "p") -> list[str]:
        """Add so many people to the organisation; return their ids, which are their staff ids."""
        names = [f"{prefix}-{number}" for number in range(count)]
        for name in names:
            self.emulator.chats.add_person(Person(name, name.upper(), name))
        return names

    # --- people ---

    async def ask(
        self,
        words: str = "",
        *,
        person: str = "u-1002",
        chat: str = "direct",
        pictures: Sequence[str] = (),
        **more: Any,
    ) -> Question:
        """Let somebody ask something; `pictures` are download codes."""
        self._marks += 1
        mark = f"m-{self._marks}-m"
        text = f"{mark} {words}".strip()
        if pictures:
            parts = [{"type": "picture", "downloadCode": code, "pictureDownloadCode": code} for code in pictures]
            more |= {"msgtype": "richText", "content": {"richText": [{"text": text}, *parts]}}
        said = await self.emulator.say(text, person=person, chat=chat, **more)
        assert said.push is not None
        return Question(said.msg_id, mark, said.message.chat, said.push)

    async def say(self, text: str, *, person: str = "u-1002", chat: str = "direct", **more: Any) -> Question:
        """Let somebody say exactly that: a command, for example."""
        said = await self.emulator.say(text, person=person, chat=chat, **more)
        assert said.push is not None
        return Question(said.msg_id, "", said.message.chat, said.push)

    def heard(self) -> dict[str, list[float]]:
        """When each question was answered (or its asker told why not), by mark and by msgId."""
        found: dict[str, list[float]] = {}
        for reply in self.emulator.replies:
            names = {match[0] for match in MARK.finditer(reply.text)}
            if reply.in_reply_to:
                names.add(reply.in_reply_to)
            for name in names:
                found.setdefault(name, []).append(reply.time)
        return found

    def answered(self) -> set[str]:
        """Return the marks of those that got the model's answer."""
        return {match[0] for reply in self.emulator.replies for match in MARK.finditer(reply.text)}

    async def settle(self, questions: Iterable[Question], seconds: float) -> list[Question]:
        """Wait until each was answered, or its asker told why not; return the others after so many seconds."""
        left = list(questions)
        deadline = time.monotonic() + seconds
        while True:
            heard = self.heard()
            left = [each for each in left if each.mark not in heard and each.msg_id not in heard]
            if not left or time.monotonic() > deadline:
                return left
            await asyncio.sleep(0.1)

    async def acked(self, questions: Iterable[Question], seconds: float) -> int:
        """Wait for their acks; return how many have come within so many seconds."""
        asked = list(questions)
        await until(lambda: all(each.acked for each in asked), seconds)
        return sum(each.acked for each in asked)

    @property
    def calls(self) -> int:
        """Calls of DingTalk that cost money: answers over webhooks, and everything over the OpenAPI."""
        return self.emulator.webhook.calls.total() + self.emulator.openapi.calls.total()

    @property
    def peak_mb(self) -> float:
        return max((claw.watch.peak_mb for claw in self.claws), default=0.0)

    @property
    def worst_s(self) -> float:
        return max((claw.watch.worst_s for claw in self.claws), default=0.0)


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until it is so, for so many seconds at most; return whether it is."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


@contextlib.asynccontextmanager
async def serving(
    handle: Callable[[web.Request], Awaitable[web.StreamResponse]], host: str = "127.0.0.1"
) -> AsyncIterator[str]:
    """Serve every path by one handler, on a free port; gives the address."""
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handle_signals=False)
    await runner.setup()
    await web.TCPSite(runner, host, 0).start()
    try:
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def arena(
    folder: Path, checkout: Path = HERE, *, keep: int = KEEP, cache: Path | None = None
) -> AsyncIterator[Arena]:
    """Return an arena in a folder of its own, which is made; `cache`: one that several share."""
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - once, before anything runs
    model = Model()
    async with Emulator(rate_limits=False, keep=keep) as emulator, serving(model.handle) as url:
        emulator.faults.update({"connection_limit": 1000})
        made = Arena(emulator, model, url, folder, checkout, cache or folder / "pycache")
        async with made.stack:
            yield made
