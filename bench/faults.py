"""What goes wrong, and one bot going through it while messages come steadily.

Order of events: the bot has a session for at least 5 s, messages come all the time; the fault begins, lasts, and ends;
the next session that can carry a message is waited for, within a bound; messages go on for a fixed time, so that every
bot is asked the same number of them; what is under way is given time to be answered. Then it is counted: how long it
took, what was never answered, what was answered twice, how often the gateway was asked in the fullest second.

The server has two models, since its documentation and what people see disagree (docs say fire-and-forget; in practice
an unacked message comes once more): `NEVER` repeats nothing, `ONCE` repeats what is not acked within 6 s, once. That
is DingTalk's 60 s at a tenth, and so is the model that is slower than that.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Final

from bench.bot import Ring, person, ring
from bench.peers import Ready
from bench.results import Run
from claw.emulator import ROBOT_TOPIC, Connection, Said
from claw.emulator import ConnectionState as State

LIVED_S: Final = 5.2
"""A session older than 5 s is no longer young to claw, so that the next one comes at once; none of the others asks."""
LEAD_S: Final = 3.0
"""Of messages before the fault."""
RATE: Final = 2.0
"""Messages a second, each from another person."""
MODEL_S: Final = 1.0
REPEAT_AFTER_S: Final = 6.0
SLOW_MODEL_S: Final = 7.0
SETTLE_S: Final = 8.0
"""Beyond model and repeat: what is not answered by then is lost."""
ANSWER_S: Final = 2.0
"""Beyond model and repeat: a second answer has come by then."""


class Server(Enum):
    """What DingTalk does about a message that is not acked."""

    NEVER = "never"
    ONCE = "once"


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    label: str
    """In tables."""
    meaning: str
    """One sentence: what happens, and from when the time is taken."""
    begin: Callable[[Ring], None]
    end: Callable[[Ring], None] | None = None
    lasts: float = 0.0
    """Seconds from begin to end; recovery is timed from the end."""
    window: float = 12.0
    """Seconds after the end in which messages still come."""
    bound: float = 60.0
    """Seconds after the end within which a session counts; later is never."""
    phase: float = 1.0
    """The fault begins at a random moment of so many seconds: pings of some seconds must not be met in step."""
    breaks: bool = True
    """False: the connection stays, only the counts matter."""
    model: float = MODEL_S
    servers: tuple[Server, ...] = (Server.NEVER, Server.ONCE)


def _act(name: str, **params: float | None) -> Callable[[Ring], None]:
    def begin(it: Ring) -> None:
        it.emulator.act(name, **params)

    return begin


def _disconnect(close_after: float | None) -> Callable[[Ring], None]:
    """Announce the end of one connection, as DingTalk does; a bot that holds several keeps the others."""

    def begin(it: Ring) -> None:
        oldest = min(it.emulator.connections, key=lambda each: each.id)
        it.emulator.act("disconnect", connection=oldest.id, close_after=close_after)

    return begin


def _switch(**values: float | bool) -> Callable[[Ring], None]:
    """Turn switches and break the connection, so that the bot has to come by."""

    def begin(it: Ring) -> None:
        it.emulator.faults.update(dict(values))
        it.emulator.act("reset")

    return begin


def _heal(it: Ring) -> None:
    it.emulator.faults.update({"gateway_hang": False, "gateway_status": 0, "refuse_upgrade": 0})


def _nothing(_: Ring) -> None:
    return


FAULTS: Final[tuple[Fault, ...]] = (
    Fault("reset", "TCP reset", "The connection is reset (RST).", _act("reset")),
    Fault("close", "clean close", "The server closes the WebSocket with code 1000.", _act("close")),
    Fault(
        "disconnect",
        "disconnect, TCP closed 10 s later",
        "The server announces a connection's end, pushes no more on it and closes it after 10 s, as DingTalk does.",
        _disconnect(close_after=10.0),
    ),
    Fault(
        "disconnect-open",
        "disconnect, TCP left open",
        "The same, but the server never ends the TCP connection.",
        _disconnect(close_after=None),
    ),
    Fault(
        "freeze",
        "half-open",
        "From a random moment on the server neither reads nor writes, and answers no ping; the TCP connection stays.",
        _act("freeze"),
        window=55.0,
        bound=90.0,
        phase=20.0,
    ),
    Fault(
        "hang",
        "registration hangs for 25 s",
        "The connection is reset and the gateway accepts requests without answering; timed from its return.",
        _switch(gateway_hang=True),
        _heal,
        lasts=25.0,
    ),
    Fault(
        "refuse",
        "upgrade refused for 12 s",
        "The connection is reset and every WebSocket upgrade is answered 503; timed from when it is accepted again.",
        _switch(refuse_upgrade=503),
        _heal,
        lasts=12.0,
        window=8.0,
    ),
    Fault(
        "outage",
        "registration answers 503 for 30 s",
        "The connection is reset and registration answers 503; timed from its return.",
        _switch(gateway_status=503),
        _heal,
        lasts=30.0,
    ),
    Fault(
        "kill",
        "process killed",
        "SIGKILL; the process is started again after 0.1 s.",
        lambda it: it.bot.kill(),
    ),
    Fault(
        "slow",
        "model slower than the repeat",
        "Nothing breaks, but the model takes 7 s and an unacked message is repeated after 6 s.",
        _nothing,
        breaks=False,
        model=SLOW_MODEL_S,
        servers=(Server.ONCE,),
    ),
)
BY_NAME: Final = {fault.name: fault for fault in FAULTS}


def quick(fault: Fault) -> Fault:
    """Return the same in little time, to see that it runs: shorter, and given up earlier."""
    return replace(fault, lasts=min(fault.lasts, 5.0), window=3.0, bound=min(fault.bound, 20.0), phase=0.5)


async def ordeal(ready: Ready, fault: Fault, server: Server, folder: Path, gate: asyncio.Semaphore) -> Run:
    """One bot through one fault. Raises TimeoutError if it does not even start."""
    async with ring(ready, folder, gate) as it:
        emulator = it.emulator
        emulator.faults.update({"model_delay": fault.model, "repush_after": REPEAT_AFTER_S})
        emulator.faults.update({"repush_times": 1 if server is Server.ONCE else 0})
        said: list[Said] = []
        count = round((LEAD_S + fault.lasts + fault.window) * RATE)
        lived = min(time.monotonic() - each.opened for each in emulator.connections)
        await asyncio.sleep(max(0.0, LIVED_S - LEAD_S - lived) + random.uniform(0.0, fault.phase))
        async with asyncio.TaskGroup() as group:
            flow = group.create_task(_flow(it, said, count), name="bench-flow")
            # Between two messages, at random: in step with them, one would be under way at every fault.
            await asyncio.sleep(LEAD_S + random.uniform(0.0, 1 / RATE))
            old = {each.id for each in emulator.connections}
            began = time.monotonic()
            fault.begin(it)
            await asyncio.sleep(fault.lasts)
            if fault.end is not None:
                fault.end(it)
            ended = time.monotonic()
            opened = await _next_session(it, old, ended + fault.bound) if fault.breaks else None
            await flow
        await _settle(it, said, fault.model, server)
        answers = [len(emulator.replies.to(each.msg_id)) for each in said]
        lost = [each for each, count in zip(said, answers, strict=True) if not count]
        return {
            "server": server.value,
            "recovery_s": None if opened is None else max(0.0, opened - ended),
            "bound_s": fault.bound,
            "registrations_peak": fullest_second([at for at in emulator.registrations if at >= began]),
            "asked": len(said),
            "lost": len(lost),
            "undelivered": sum(not each.delivered for each in lost),
            "lost_acked": sum(each.push is not None and each.push.acked.is_set() for each in lost),
            "twice": sum(count > 1 for count in answers),
            "deaths": it.bot.deaths,
        }


async def _flow(it: Ring, said: list[Said], count: int) -> None:
    began = time.monotonic()
    for number in range(count):
        said.append(await it.emulator.say(f"n{number}", person=person(number)))
        await asyncio.sleep(max(0.0, began + (number + 1) / RATE - time.monotonic()))


def _serves(connection: Connection) -> bool:
    wanted = ("CALLBACK", ROBOT_TOPIC)
    return connection.state is State.OPEN and not connection.frozen and wanted in connection.subscriptions


async def _next_session(it: Ring, old: set[str], deadline: float) -> float | None:
    """When the next session opened that can carry a message; None if none has by then."""
    while True:
        opened = [each.opened for each in it.emulator.connections if each.id not in old and _serves(each)]
        if opened:
            break
        if time.monotonic() > deadline:
            return None
        await asyncio.sleep(0.005)
    # The server sends nothing more to the dead one, as it does once it has noticed: half of what comes now would be
    # lost there, whatever the bot does.
    for each in it.emulator.connections:
        if each.id in old and each.frozen:
            it.emulator.act("freeze", connection=each.id, routed=False)
    return min(opened)


async def _settle(it: Ring, said: Sequence[Said], model: float, server: Server) -> None:
    """Wait until everything is answered that found a session, and every repeat has been; but not for ever."""
    began = time.monotonic()
    repeat = REPEAT_AFTER_S if server is Server.ONCE else 0.0
    for each in said:
        if each.delivered:
            left = began + repeat + model + SETTLE_S - time.monotonic()
            with contextlib.suppress(TimeoutError):
                await it.emulator.wait_reply_to(each, timeout=max(0.001, left))
    if server is Server.ONCE:
        await asyncio.sleep(max(0.0, began + repeat + model + ANSWER_S - time.monotonic()))


def fullest_second(stamps: Sequence[float]) -> int:
    """Return the most of them within any second."""
    ordered = sorted(stamps)
    most = first = 0
    for last, stamp in enumerate(ordered):
        while ordered[first] <= stamp - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most
