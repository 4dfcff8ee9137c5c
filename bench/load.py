"""What a bot costs and bears: start and idle memory, acks under a steady rate, round trips a second.

Order of events, of each: a fresh bot, one round trip to warm it up, the load, the figures. The figures are taken at the
emulator: an ack's time runs from when the frame is handed to the socket, a round trip's from the person's message to
the robot's in the chat. The emulator itself is one Python process, which shares the machine; its own part of a core is
noted beside each figure, since near 1.0 it is the emulator that sets the limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from pathlib import Path
from typing import Final

import psutil

from bench.bot import person, ring
from bench.peers import Ready
from bench.results import Run, quantile
from claw.emulator import Said

IDLE_S: Final = 2.0
RATES: Final = (10, 100, 500)
"""Messages a second."""
ACK_S: Final = 5.0
"""Seconds of messages."""
ACK_GRACE_S: Final = 6.0
"""Seconds after the last message within which acks and answers still count."""
MODEL_S: Final = 2.0
WEBHOOK_S: Final = 0.15
IN_FLIGHT: Final = 50
"""Chats, each with one message under way."""
ROUND_TRIPS_WARM_S: Final = 1.0
ROUND_TRIPS_S: Final = 5.0
UNBOUND: Final = {"CLAW_MAX_CONCURRENCY": "1000"}
"""claw answers 32 chats at once by default, the bots any number: with its limit it would have less to do than they."""


async def start(ready: Ready, folder: Path, gate: asyncio.Semaphore) -> Run:
    """From the process's start to its first session; memory after one round trip and 2 s of rest."""
    async with ring(ready, folder, gate) as it:
        await asyncio.sleep(IDLE_S)
        return {"start_s": it.start_s, "idle_mb": it.bot.rss}


async def acks(ready: Ready, rate: int, seconds: float, folder: Path, gate: asyncio.Semaphore) -> Run:
    """Acks at a steady rate while each answer takes the model 2 s and the webhook 150 ms."""
    async with ring(ready, folder, gate, **UNBOUND) as it:
        it.emulator.faults.update({"model_delay": MODEL_S, "webhook_delay": WEBHOOK_S})
        ours = psutil.Process()
        spent, began = sum(ours.cpu_times()[:2]), time.monotonic()
        said: list[Said] = []
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            said.append(await it.emulator.say(f"n{number}", person=person(number)))
        offered = len(said) / max(time.monotonic() - began, 1e-9)
        deadline = time.monotonic() + ACK_GRACE_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ACK_GRACE_S):
                for each in said:
                    await it.emulator.wait_reply_to(each, timeout=max(0.001, deadline - time.monotonic()))
                    if each.push is not None and each.delivered:
                        await each.push.acked.wait()
        took = time.monotonic() - began
        times = [_ack_ms(each) for each in said]
        answers = [len(it.emulator.replies.to(each.msg_id)) for each in said]
        p50, p99 = quantile(times, 0.5), quantile(times, 0.99)
        return {
            "p50_ms": p50 if math.isfinite(p50) else None,
            "p99_ms": p99 if math.isfinite(p99) else None,
            "bound_ms": ACK_GRACE_S * 1000,
            "asked": len(said),
            "acked": sum(math.isfinite(each) for each in times),
            "answered": sum(count > 0 for count in answers),
            "offered_per_s": offered,
            "emulator_core": (sum(ours.cpu_times()[:2]) - spent) / took,
            "loaded_mb": it.bot.rss,
            "deaths": it.bot.deaths,
        }


def _ack_ms(said: Said) -> float:
    """Infinite if it was not acked."""
    push = said.push
    return push.ack_ms if push is not None and push.ack_ms is not None else math.inf


async def round_trips(ready: Ready, seconds: float, folder: Path, gate: asyncio.Semaphore) -> Run:
    """As many round trips as go, with an instant model and 50 chats that each wait for their answer."""
    async with ring(ready, folder, gate) as it:
        done = 0
        ours = psutil.Process()
        # By the clock: `wait_for` of Python 3.11 may swallow a cancellation that meets the answer.
        ends = time.monotonic() + ROUND_TRIPS_WARM_S + seconds

        async def chat(number: int) -> None:
            nonlocal done
            while time.monotonic() < ends:
                said = await it.emulator.say(f"n{done}", person=person(number))
                await it.emulator.wait_reply_to(said, timeout=60.0)
                done += 1

        chats = [asyncio.create_task(chat(number), name=f"bench-chat-{number}") for number in range(IN_FLIGHT)]
        try:
            await asyncio.sleep(ROUND_TRIPS_WARM_S)
            before, began = done, time.monotonic()
            cpu, spent = it.bot.cpu, sum(ours.cpu_times()[:2])
            await asyncio.sleep(seconds)
            took, count = time.monotonic() - began, done - before
            used, core = it.bot.cpu - cpu, (sum(ours.cpu_times()[:2]) - spent) / took
            return {
                "per_s": count / took,
                "cpu_ms": used / count * 1000 if count else None,
                "loaded_mb": it.bot.rss,
                "emulator_core": core,
                "deaths": it.bot.deaths,
            }
        finally:
            for task in chats:
                task.cancel()
            await asyncio.gather(*chats, return_exceptions=True)
