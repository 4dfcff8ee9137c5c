"""A chaos run: real claw processes against the emulator, under a seeded schedule of faults, while people talk.

Order of events: the emulator and a first claw (of replicas: all) are up and idle (its footprint is taken); then, all at
the same time, people talk, every track of the schedule has its faults, a keeper starts claw again whenever it has
ended, and two watchers note what the emulator sees and what the probes say. When the schedule is over all faults are
taken back and nobody speaks; in this calm everything acked has to become settled. The last process is asked to end, and
what was recorded goes to the invariants. Nothing is judged here.

One claw keeps its rows in a file, on a small disk of its own. Replicas share a real Redis that is killed, stalled and
cut off like everything else; which of them a fault hits is drawn with the fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil

from claw.emulator import DEFAULT_CLIENT_ID, Emulator, Person, Push, PushKind, Reply
from claw.emulator import ConnectionState as State
from claw.emulator.faults import DEFAULTS
from claw.language import Language
from claw.secret import Secret
from claw.store.redis.store import RedisStore
from claw.turn.texts import FAILURES, INTERNAL, UNDELIVERED, UNDELIVERED_ALERT
from tests.chaos.disk import SIZE_MB, Disk, disk, forbid_writing, permit_writing
from tests.chaos.invariants import (
    FDS_MORE,
    Asked,
    Delivered,
    Footprint,
    Heard,
    Letter,
    Record,
    Sample,
    Told,
    Window,
)
from tests.chaos.keeper import Keeper
from tests.chaos.relay import Relay, relay_to
from tests.chaos.schedule import BRISK, FLEET_TRACKS, NEWCOMERS, TRACKS, Fault, Kind, Pace, schedule
from tests.redis_server import RedisServer
from tests.service import ADMIN_TOKEN, RUN, environment

KEEP: Final = 400_000
"""Entries that the emulator remembers: all of a run."""
LOOK_EVERY_S: Final = 0.005
STALL_S: Final = 0.02
"""Seconds between two looks above which the witness was held up."""
PORTS: Final = range(20_000, 30_000)
"""Where the emulator listens: not where the system takes the ports of outgoing connections from, since one of them
could get ours while the emulator is away."""
PROBE_EVERY_S: Final = 0.05
PROBE_PATIENCE_S: Final = 2.0
KEPT_ALIVE_S: Final = 16.0
"""Seconds for which a client keeps an idle connection: aiohttp 15, httpx 5."""
SETTLE_DOWN_S: Final = 22.0
STATUSES: Final = (401, 403, 429, 503)
MARK: Final = re.compile(r"\bq\d+\b")
APOLOGIES: Final = tuple({text[language] for text in (*FAILURES.values(), INTERNAL) for language in Language})
NOTICES: Final = tuple(
    part
    for text in (UNDELIVERED, UNDELIVERED_ALERT)
    for language in Language
    # The longest part without a name in it.
    for part in [max(re.split(r"\{\w+\}", text[language]), key=len)]
)
REDIS: Final = {"appendonly": "yes", "appendfsync": "always"}
"""As the documents want it where nothing may be lost."""
LETTERS_MAX: Final = 10_000
HEADERS: Final = {"Authorization": f"Bearer {ADMIN_TOKEN}"}


class Server(StrEnum):
    """What DingTalk does with a message whose ack it misses: both have been reported."""

    FORGETS = "fire-and-forget"
    REPEATS = "re-push once"


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. Times in seconds; `rate`: messages a second in all."""

    seed: int
    seconds: float
    server: Server = Server.REPEATS
    pace: Pace = BRISK
    rate: float = 12.0
    people: int = 6
    repush_after: float = 2.0
    calm: float = 120.0
    """At most: the calm is over as soon as all is settled."""
    turn_timeout: float = 4.0
    rotate: float = 15.0
    groups: bool = True
    """Some of what is said is said in groups, where all wait for one another."""
    disk: int = SIZE_MB
    """MB for the store."""
    outsider: bool = False
    """One of the people has no staff id: where the webhook is throttled, their answer waits for a minute."""
    replicas: int = 1
    """More than one share a Redis; one alone keeps its rows in a file."""
    lease: float = 0.0
    """Seconds of a lease; 0: claw's own. What a killed replica held waits for so long."""

    @property
    def in_redis(self) -> bool:
        return self.replicas > 1

    @property
    def arguments(self) -> tuple[str, ...]:
        """The interpreter's, for a claw with such leases."""
        if not self.lease:
            return RUN
        program = (
            "import sys; from claw.inbox import leases; from claw.__main__ import main;"
            f"leases.LEASE_TTL_S, leases.RENEW_INTERVAL_S = {self.lease}, {self.lease / 6}; sys.exit(main(['run']))"
        )
        return ("-c", program)

    @property
    def command(self) -> str:
        """What repeats this run from a shell."""
        options = f"--minutes {self.seconds / 60:g} --server {self.server.name} --rate {self.rate:g}"
        options += " --redis" if self.in_redis else ""
        return f"python -m bench.chaos --seed {self.seed} {options}"


class Chaos:
    """One run; `run` gives its record."""

    def __init__(
        self,
        plan: Plan,
        emulator: Emulator,
        where: Disk,
        folder: Path,
        redis: RedisServer | None,
        relays: Sequence[Relay],
    ) -> None:
        self.plan = plan
        self.emulator = emulator
        self.record = Record(plan.seed, replicas=plan.replicas)
        self._disk = where
        self._folder = folder
        self.store = where.folder / "claw.db"
        self._secret = folder / "secret"
        self._redis = redis
        self._keepers = [
            Keeper("claw" if relay is None else f"claw-{number}", *self._given(relay), plan.arguments, relay)
            for number, relay in enumerate(relays or [None], 1)
        ]
        self._deaf: set[str] = set()
        """Connections that the emulator does not read."""
        self._marks: dict[str, str] = {}
        """By msgId."""
        self._said: list[tuple[str, str, float]] = []
        self._hang_began: float | None = None
        self._draw = random.Random(f"{plan.seed}/driver")
        self._rotations = 0

    async def run(self) -> Record:
        """Everything from the first start to the last end."""
        self._prepare()
        tracks = FLEET_TRACKS if self.plan.in_redis else TRACKS
        faults = schedule(self.plan.seed, self.plan.seconds, self.plan.pace, tracks)
        keeping = [asyncio.create_task(each.keep(), name=f"chaos-{each.name}") for each in self._keepers]
        watchers = [asyncio.create_task(self._look(), name="chaos-look")]
        if not self.plan.in_redis:
            # Of several, each may be unready for reasons of its own, which the emulator cannot tell apart.
            watchers.append(asyncio.create_task(self._probe(), name="chaos-probe"))
        try:
            await self._idle()
            await self._storm(faults)
            await self._calm()
            await self._end(keeping)
        finally:
            for task in (*keeping, *watchers):
                task.cancel()
            await asyncio.gather(*keeping, *watchers, return_exceptions=True)
        await self._collect()
        self._keep_evidence()
        return self.record

    # --- before and after ------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        self._secret.write_text(self.emulator.gateway.client_secret or "")
        for number in range(self.plan.people):
            self.emulator.chats.add_person(Person(f"p-{number}", f"P{number}", f"p-{number}"))
        self._set_base()
        self.emulator.faults.listen(self._switched)

    def _set_base(self) -> None:
        """The switches as they are when nothing is wrong."""
        self.emulator.faults.reset()
        self.emulator.faults.update(
            {
                "model_delay": 0.05,
                "model_chunk_delay": 0.002,
                "connection_limit": 1000,
                "repush_after": self.plan.repush_after,
                "repush_times": 1 if self.plan.server is Server.REPEATS else 0,
            }
        )

    async def _idle(self) -> None:
        for keeper in self._keepers:
            await asyncio.wait_for(keeper.up.wait(), 30)
        await self.emulator.wait_connections(len(self._keepers), timeout=20)
        for chat in ("direct", "g-team"):
            await self.emulator.wait_reply_to(await self._say("p-0", chat), timeout=20)
        await asyncio.sleep(1)
        self.record.idle = self.footprint()

    async def _calm(self) -> None:
        """Nothing is wrong any more: wait until all that was acked is settled, and what was used is given back."""
        self._set_base()
        self._disk.free()
        deadline = time.monotonic() + self.plan.calm
        quiet = 0
        while quiet < 3 and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
            self.record.pending = await self._pending()
            unacked = any(not push.acked.is_set() and push.timer is not None for push in self.emulator.pushes)
            settled = self.record.pending == 0 and not unacked and self._usable()
            quiet = quiet + 1 if settled else 0
        await self._settle_down()

    async def _settle_down(self) -> None:
        """Wait until what was used is given back, and note what is left."""
        began, asked = time.monotonic(), False
        while True:
            self.record.left = left = self.footprint()
            idle = self.record.idle
            small = left and idle and left.fds <= idle.fds + FDS_MORE / 2 and not left.close_wait
            if small or time.monotonic() >= began + SETTLE_DOWN_S:
                return
            if not asked and time.monotonic() >= began + KEPT_ALIVE_S:
                # The model's client drops connections that have been idle for too long when it is used again.
                asked = True
                with contextlib.suppress(TimeoutError):
                    await self.emulator.wait_reply_to(await self._say("p-0", "direct"), timeout=10)
            await asyncio.sleep(0.2)

    async def _pending(self) -> int | None:
        """Messages in the inbox, by claw's own word; None where it gives none."""
        keeper = next((each for each in self._keepers if each.running), None)
        if keeper is None or keeper.service is None:
            return None
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, KeyError, TypeError):
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http,
                http.get(f"{keeper.service.url}/status", headers=HEADERS) as response,
            ):
                return int((await response.json())["inbox"]["pending"])
        return None

    async def _end(self, keeping: Sequence[asyncio.Task[None]]) -> None:
        await asyncio.gather(*(each.close(task) for each, task in zip(self._keepers, keeping, strict=True)))
        deadline = time.monotonic() + 10
        while self.emulator.connections and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        self.record.connections_left = len(self.emulator.connections)

    async def _collect(self) -> None:
        """Turn what the emulator remembers into the record's own values."""
        record, emulator = self.record, self.emulator
        acked_at: dict[str, float] = {}
        for ack in emulator.acks:
            acked_at.setdefault(ack.message_id, ack.at)
        pushes: dict[str, list[Push]] = {}
        for push in emulator.pushes:
            if push.kind is PushKind.CALLBACK:
                pushes.setdefault(push.msg_id, []).append(push)
        for msg_id, chat, said in self._said:
            mine = pushes.get(msg_id, [])
            deliveries = [
                Delivered(each.connection, each.sent, acked_at.get(each.message_id))
                for push in mine
                for each in push.deliveries
            ]
            acked = any(push.acked.is_set() and push.ack_code == 200 for push in mine)
            record.asked.append(Asked(msg_id, self._marks[msg_id], chat, said, acked, tuple(deliveries)))
        record.heard = [heard_of(reply) for reply in emulator.replies]
        record.registrations = list(emulator.registrations)
        record.protocol = [f"{each.what} at {each.at:.2f} on {each.connection}" for each in emulator.violations]
        record.letters = list(letters_of(self.store)) if self._redis is None else await letters_in(self._redis.url())
        if not self.plan.in_redis:
            record.phases = self._keepers[0].changes

    def _keep_evidence(self) -> None:
        """Beside what the processes wrote: the store, whose disk goes away, and what the witness saw, by time."""
        for file in self.store.parent.glob("claw.db*"):
            shutil.copy(file, self._folder)
        record, wall = self.record, time.time() - time.monotonic()
        events = [
            *((at, f"{keeper.name} {phase}") for keeper in self._keepers for at, phase in keeper.changes),
            *((at, "a usable connection" if can else "no usable connection") for at, can in record.usable),
            *((at, "registration") for at in record.registrations),
            *(
                (each.began, f"process {each.pid} until {each.ended:.2f}, {each.how or 'unasked'}")
                for each in record.lives
            ),
            *((each.began, f"{each.kind}, until {each.ended:.2f}") for each in record.windows),
            *((each.at, f"{each.told.value} to {each.mark or each.msg_id} in {each.chat}") for each in record.heard),
            *((each.said, f"{each.mark} said in {each.chat}, acked: {each.acked}") for each in record.asked),
        ]
        lines = [f"{at:.3f} {datetime.fromtimestamp(wall + at, UTC):%H:%M:%S.%f} {what}" for at, what in sorted(events)]
        (self._folder / "witness.log").write_text("\n".join(lines))

    # --- people ----------------------------------------------------------------------------------------------------

    async def _talk(self) -> None:
        draw = random.Random(f"{self.plan.seed}/talk")
        people = [f"p-{number}" for number in range(self.plan.people)]
        if self.plan.outsider:
            people.append("x-2001")
        chats = ["direct"] * 4 + (["g-team", "g-ops"] if self.plan.groups else [])
        while True:
            await asyncio.sleep(draw.expovariate(self.plan.rate))
            await self._say(draw.choice(people), draw.choice(chats))

    async def _say(self, person: str, chat: str) -> str:
        mark = f"q{len(self._said)}"
        text = mark if len(self._said) % 2 else f"{mark} 你好"
        said = await self.emulator.say(text, person=person, chat=chat)
        self._marks[said.msg_id] = mark
        self._said.append((said.msg_id, said.message.chat, time.monotonic()))
        return said.msg_id

    def _repush(self) -> None:
        """Push a few of the latest messages once more, whether they were acked or not."""
        latest = [push for push in list(self.emulator.pushes)[-40:] if push.kind is PushKind.CALLBACK]
        for push in self._draw.sample(latest, min(5, len(latest))):
            self.emulator.gateway.push(push.data, msg_id=push.msg_id)

    # --- the process -----------------------------------------------------------------------------------------------

    def _given(self, relay: Relay | None) -> tuple[dict[str, str], Path, Record]:
        """Return a keeper's environment, folder and record; `relay` leads to the Redis."""
        environ = environment(
            self.emulator.url,
            self.store,
            DINGTALK_CLIENT_SECRET_FILE=str(self._secret),
            CLAW_STREAM_HEARTBEAT="1",
            CLAW_STREAM_ROTATE=f"{self.plan.rotate:g}",
            CLAW_TURN_TIMEOUT=f"{self.plan.turn_timeout:g}",
            CLAW_DRAIN_TIMEOUT="2",
            PYTHONWARNINGS="always::ResourceWarning",
        )
        del environ["DINGTALK_CLIENT_SECRET"]
        if relay is not None:
            environ["CLAW_STORE_URL"] = f"redis://127.0.0.1:{relay.port}/0"
        return environ, self._folder, self.record

    def footprint(self) -> Footprint | None:
        """What the processes that run now hold, of each the most; None where there is none."""
        found = [each for keeper in self._keepers if (each := keeper.footprint()) is not None]
        if not found:
            return None
        return Footprint(
            max(each.fds for each in found),
            max(each.threads for each in found),
            max(each.rss for each in found),
            sum(each.close_wait for each in found),
        )

    # --- watching --------------------------------------------------------------------------------------------------

    def _usable(self) -> bool:
        """Whether the emulator has a connection on which it can push and be acked."""
        faults = self.emulator.faults
        if faults.zombie or faults.never_pong:
            return False
        return any(
            each.state is State.OPEN and not each.frozen and each.id not in self._deaf
            for each in self.emulator.connections
        )

    async def _look(self) -> None:
        before = time.monotonic()
        while True:
            now = time.monotonic()
            if now - before > STALL_S:
                self.record.stalls.append((before + LOOK_EVERY_S, now))
            before = now
            usable = self._usable()
            if not self.record.usable or self.record.usable[-1][1] != usable:
                self.record.usable.append((now, usable))
            await asyncio.sleep(LOOK_EVERY_S)

    async def _probe(self) -> None:
        timeout = aiohttp.ClientTimeout(total=PROBE_PATIENCE_S)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(force_close=True)) as http:
            while True:
                ready, stream, store, reason = None, None, None, ""
                asked = time.monotonic()
                body = await self._asked_for(http, "/ready")
                at = time.monotonic()
                if body is not None:
                    checks = body[1]["checks"]
                    ready, stream, store = body[0] == 200, checks["stream"]["ok"], checks["store"]["ok"]
                    reason = str(checks["store"].get("reason", ""))
                health = await self._asked_for(http, "/health")
                self.record.samples.append(
                    Sample(asked, at, ready, stream, store, health[0] if health else None, reason)
                )
                await asyncio.sleep(PROBE_EVERY_S)

    async def _asked_for(self, http: aiohttp.ClientSession, path: str) -> tuple[int, Any] | None:
        service = self._keepers[0].service
        if service is None:
            return None
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with http.get(service.url + path) as response:
                return response.status, await response.json()
        return None

    def _switched(self, name: str) -> None:
        if name != "webhook_timeout_after_delivery":
            return
        now = time.monotonic()
        if self.emulator.faults.webhook_timeout_after_delivery:
            self._hang_began = now
        elif self._hang_began is not None:
            self.record.hung.append((self._hang_began, now))
            self._hang_began = None

    # --- faults ----------------------------------------------------------------------------------------------------

    async def _storm(self, faults: tuple[Fault, ...]) -> None:
        began = time.monotonic()
        talking = asyncio.create_task(self._talk(), name="chaos-talk")
        try:
            async with asyncio.TaskGroup() as group:
                for fault in faults:
                    group.create_task(self._at(began, fault), name=f"chaos-{fault.kind}")
            await asyncio.sleep(max(0.0, began + self.plan.seconds - time.monotonic()))
        finally:
            self.record.storm = began, time.monotonic()
            talking.cancel()
            await asyncio.gather(talking, return_exceptions=True)

    async def _at(self, began: float, fault: Fault) -> None:
        await asyncio.sleep(max(0.0, began + fault.at - time.monotonic()))
        at = time.monotonic()
        if await self._do(fault):
            self.record.windows.append(Window(fault.kind, at, time.monotonic()))

    async def _do(self, fault: Fault) -> bool:
        """Do it, for as long as it takes; whether it could be done."""
        if fault.kind in _SWITCHES:
            switches, uses = _SWITCHES[fault.kind]
            await self._switch(fault, switches, uses)
            return True
        match fault.kind:
            case Kind.RESET | Kind.CLOSE | Kind.DISCONNECT | Kind.DISCONNECT_LINGERING | Kind.REPUSHED:
                self._at_once(fault.kind)
            case Kind.FREEZE:
                self.emulator.act("freeze")
                await asyncio.sleep(fault.seconds)
                self.emulator.act("thaw")
            case Kind.FREEZE_INBOUND:
                await self._deafen(fault.seconds)
            case Kind.OUTAGE:
                await self.emulator.stop()
                await asyncio.sleep(fault.seconds)
                await self.emulator.start()
            case Kind.UPGRADE_REFUSED:
                await self._switch(fault, {"refuse_upgrade": STATUSES[fault.draw % len(STATUSES)]})
            case Kind.GATEWAY_400 | Kind.GATEWAY_401:
                await self._switch(fault, {"gateway_status": 400 if fault.kind is Kind.GATEWAY_400 else 401})
                self._new_secret()
            case _:
                return await self._hurt(fault)
        return True

    def _at_once(self, kind: Kind) -> None:
        match kind:
            case Kind.DISCONNECT:
                self.emulator.act("disconnect", close_after=1.0)
            case Kind.DISCONNECT_LINGERING:
                self.emulator.act("disconnect", close_after=None)
            case Kind.REPUSHED:
                self._repush()
            case _:
                self.emulator.act(kind.value)

    async def _switch(self, fault: Fault, switches: dict[str, Any], uses: int = 0) -> None:
        """Turn switches for the fault's time, or for so many uses; cut the connection where only a new one is hurt."""
        if uses:
            for name in switches:
                self.emulator.faults.fault_budget[name] = 1 + fault.draw % uses
        self.emulator.faults.update(switches)
        if fault.kind in NEWCOMERS:
            self.emulator.act("reset")
        await asyncio.sleep(fault.seconds)
        for name in switches:
            self.emulator.faults.fault_budget.pop(name, None)
            self.emulator.faults.update({name: DEFAULTS[name]})

    async def _deafen(self, seconds: float) -> None:
        """The server reads nothing: neither pings nor acks arrive, but its pushes do."""
        chosen = self.emulator.connections
        for one in chosen:
            self._deaf.add(one.id)
            one._transport.pause_reading()
        await asyncio.sleep(seconds)
        for one in chosen:
            self._deaf.discard(one.id)
            if not one._transport.is_closing():
                one._transport.resume_reading()

    def _new_secret(self) -> None:
        """The credentials are good again because somebody has changed them: claw need not wait out its half minute."""
        self._rotations += 1
        secret = f"another-secret-{self._rotations}"
        self.emulator.gateway.client_secret = secret
        self._secret.write_text(secret)

    async def _hurt(self, fault: Fault) -> bool:
        """A fault of a process, its store or the way between; False where there is none now to be hurt."""
        if fault.kind in {Kind.REDIS_KILLED, Kind.REDIS_STALLED}:
            await self._hurt_redis(fault)
            return True
        keeper = self._keepers[fault.draw % len(self._keepers)]
        if keeper.relay is not None and fault.kind in {Kind.PARTITION, Kind.REDIS_CUT}:
            if fault.kind is Kind.PARTITION:
                keeper.relay.stall()
            else:
                await keeper.relay.cut()
            await asyncio.sleep(fault.seconds)
            keeper.relay.heal()
            return True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(keeper.up.wait(), fault.seconds)
        if keeper.service is None or not keeper.running:
            return False
        match fault.kind:
            case Kind.SIGTERM:
                keeper.terminate()
                await keeper.gone()
            case Kind.SIGKILL:
                keeper.kill()
                await keeper.gone()
            case Kind.SIGSTOP:
                await keeper.stop_for(fault.seconds)
            case Kind.READ_ONLY:
                with contextlib.suppress(psutil.Error):  # Where it has died, its end is told by another invariant.
                    process = psutil.Process(keeper.service.process.pid)
                    forbid_writing(process)
                    await asyncio.sleep(fault.seconds)
                    permit_writing(process)
            case Kind.DISK_FULL:
                if not self._disk.own:
                    self.record.unsupported = (fault.kind.value,)
                    return False
                self._disk.fill()
                await asyncio.sleep(fault.seconds)
                self._disk.free()
            case _:
                raise AssertionError(f"nobody knows how to do {fault.kind}")
        return True

    async def _hurt_redis(self, fault: Fault) -> None:
        assert self._redis is not None
        if fault.kind is Kind.REDIS_KILLED:
            await asyncio.to_thread(self._redis.kill)
            await asyncio.sleep(fault.seconds)
            await asyncio.to_thread(self._redis.start)
        else:
            self._redis.freeze()
            await asyncio.sleep(fault.seconds)
            self._redis.thaw()


_SWITCHES: Final[dict[Kind, tuple[dict[str, Any], int]]] = {
    Kind.FREEZE_OUTBOUND: ({"zombie": True, "never_pong": True}, 0),
    Kind.GATEWAY_403: ({"gateway_status": 403}, 0),
    Kind.GATEWAY_429: ({"gateway_status": 429}, 0),
    Kind.GATEWAY_503: ({"gateway_status": 503}, 0),
    Kind.GATEWAY_HTML: ({"gateway_html": True}, 0),
    Kind.GATEWAY_HANG: ({"gateway_hang": True}, 0),
    Kind.GATEWAY_WRONG_ENDPOINT: ({"gateway_wrong_endpoint": True}, 0),
    Kind.UPGRADE_HANG: ({"hang_upgrade": True}, 0),
    Kind.ACCEPT_CLOSE: ({"close_after_accept": "clean"}, 0),
    Kind.ACCEPT_RESET: ({"close_after_accept": "reset"}, 0),
    Kind.DUPLICATE: ({"duplicate_frames": True}, 0),
    Kind.REORDERED: ({"reorder_frames": True}, 0),
    Kind.DROPPED: ({"drop_frames": 0.5}, 0),
    Kind.WEBHOOK_500: ({"webhook_status": 500}, 3),
    Kind.WEBHOOK_TIMEOUT: ({"webhook_timeout_after_delivery": True}, 2),
    Kind.WEBHOOK_300001: ({"webhook_errcode": 300001}, 5),
    Kind.WEBHOOK_130101: ({"webhook_errcode": 130101}, 5),
    Kind.WEBHOOK_410100: ({"webhook_errcode": 410100}, 5),
    Kind.WEBHOOK_BUSY: ({"webhook_errcode": -1}, 3),
    Kind.WEBHOOK_460101: ({"webhook_errcode": 460101}, 3),
    Kind.MODEL_429: ({"model_status": 429}, 0),
    Kind.MODEL_500: ({"model_status": 500}, 0),
    Kind.MODEL_HANG: ({"model_hang": True}, 3),
    Kind.MODEL_CUT: ({"model_cut": True}, 0),
}
"""The emulator's switches of a fault, and how many uses it has at most (0: as many as come in its time)."""


def heard_of(reply: Reply) -> Heard:
    """What a reply is: an apology and a notice are known by their texts, an answer by the mark that it quotes."""
    mark = MARK.search(reply.text)
    if any(text in reply.text for text in APOLOGIES):
        told, quoted = Told.APOLOGY, ""
    elif any(text in reply.text for text in NOTICES):
        told, quoted = Told.NOTICE, ""
    elif mark is not None:
        told, quoted = Told.ANSWER, mark[0]
    else:
        told, quoted = Told.OTHER, ""
    return Heard(reply.time, reply.chat, told, reply.via, reply.in_reply_to or "", quoted)


def letters_of(store: Path) -> Iterator[Letter]:
    """The dead letters in a store that nobody has open."""
    if not store.exists():
        return
    with contextlib.closing(sqlite3.connect(store)) as connection:
        for key, error in connection.execute("SELECT CAST(key AS TEXT), CAST(error AS TEXT) FROM dead ORDER BY id"):
            yield Letter(key.partition(":")[2], error)


async def letters_in(url: str) -> list[Letter]:
    """The dead letters in a Redis."""
    store = RedisStore(Secret(url), DEFAULT_CLIENT_ID)
    await store.open()
    try:
        return [Letter(each.key.partition(":")[2], each.error) for each in await store.dead(LETTERS_MAX)]
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def chaos(plan: Plan, folder: Path) -> AsyncIterator[Chaos]:
    """A run that is ready to begin, in a folder of its own."""
    async with (
        disk(folder / "disk", plan.disk) as where,
        listening(plan.seed) as emulator,
        contextlib.AsyncExitStack() as stack,
    ):
        redis, relays = None, []
        if plan.in_redis:
            redis = RedisServer(folder / "redis", **REDIS)
            await asyncio.to_thread(redis.start)
            stack.callback(redis.kill)
            # A way of its own for each replica, so that one can be cut off while the others are not.
            relays = [await stack.enter_async_context(relay_to(redis.port)) for _ in range(plan.replicas)]
        yield Chaos(plan, emulator, where, folder, redis, relays)


@contextlib.asynccontextmanager
async def listening(seed: int) -> AsyncIterator[Emulator]:
    """An emulator on a port to which it can come back after an outage."""
    for port in random.sample(PORTS, 100):
        emulator = Emulator(keep=KEEP, seed=seed, port=port)
        try:
            await emulator.start()
        except OSError:
            continue
        try:
            yield emulator
        finally:
            await emulator.stop()
        return
    raise OSError("no port is free")


async def recorded(plan: Plan, folder: Path, tell: Callable[[str], None] = lambda _: None) -> Record:
    """Run a plan from begin to end; `tell` gets the command that repeats it, before anything can fail."""
    tell(plan.command)
    async with chaos(plan, folder) as each:
        return await each.run()
