"""Cards and signs of life, measured: how soon something shows, what an answer costs, what is left open.

Order of events: each measurement starts a real claw against a local DingTalk, lets people ask, and prints its figures;
`python -m bench.cards` runs all, `--only NAME` one of them.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from claw.dingtalk.budget import MonthSoFar, Quotas, Richness, plan
from claw.dingtalk.quota import DINGTALK_TIME, BillableCalls
from claw.emulator import Emulator
from claw.emulator.card import FakeCardState
from claw.emulator.chats import Person
from tests.service import ADMIN_TOKEN, Service, environment, running

FIRST_TOKEN_S: Final = 10.0
CHUNKS: Final = 20
"""Chunks in which the emulator's model streams an answer."""
STANDARD: Final = Quotas(5000, 3000)
"""Calls a month of an organisation that pays nothing (docs/protocol.md section 6.6)."""
CARD_CALLS: Final = ("card_create", "card_stream", "card_update")


def quantile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def add_people(emulator: Emulator, count: int) -> list[str]:
    for number in range(count):
        emulator.chats.add_person(Person(f"u-b{number}", f"Person {number}", f"u-b{number}"))
    return [f"u-b{number}" for number in range(count)]


async def count_calls(service: Service) -> dict[str, int]:
    _, status = await service.get("/status", ADMIN_TOKEN)
    calls: dict[str, int] = status["calls"]["by_api"]
    return calls


def count_open(emulator: Emulator) -> int:
    return sum(card.state in {FakeCardState.CREATED, FakeCardState.STREAMING} for card in emulator.cards.cards.values())


async def measure_first_sign(mode: str, count: int = 50, first_token_s: float = FIRST_TOKEN_S) -> None:
    """Ask in so many conversations at once, and look when the first thing of ours is visible in each."""
    with tempfile.TemporaryDirectory() as folder:
        async with Emulator() as emulator:
            emulator.faults.update({"model_delay": first_token_s})
            people = add_people(emulator, count)
            more = {"CLAW_REPLY_MODE": mode}
            async with running(environment(emulator.url, Path(folder) / "claw.db", **more), Path(folder)):
                await emulator.wait_connections()
                began = {each: (time.monotonic(), await emulator.say("hello there", person=each)) for each in people}
                seen: dict[str, float] = {}
                deadline = time.monotonic() + first_token_s + 10
                while len(seen) < count and time.monotonic() < deadline:
                    chats = {reply.chat for card in emulator.cards.cards.values() for reply in card.replies}
                    for person, (at, said) in began.items():
                        message = emulator.chats.find(said.msg_id)
                        if person not in seen and (
                            message.reactions or message.chat in chats or emulator.replies.to(said.msg_id)
                        ):
                            seen[person] = time.monotonic() - at
                    await asyncio.sleep(0.01)
    waits = list(seen.values())
    print(
        f"first sign, {mode}, {count} conversations, first token after {first_token_s:g} s: "
        f"p50 {quantile(waits, 0.5):.2f} s, p99 {quantile(waits, 0.99):.2f} s, max {max(waits):.2f} s, {len(seen)} seen"
    )


async def measure_streams(
    answer_s: float, count: int = 200, *, slots: int = 32, cut: str = "", wait_s: float = 240
) -> None:
    """Let many answers stream at once; with `cut` the process is killed or drained half-way, and another begins."""
    with tempfile.TemporaryDirectory() as folder:
        async with Emulator() as emulator:
            emulator.faults.update({"model_delay": 0.5, "model_chunk_delay": answer_s / CHUNKS})
            people = add_people(emulator, count)
            more = {"CLAW_REPLY_MODE": "card", "CLAW_MAX_CONCURRENCY": str(slots), "CLAW_MONTHLY_API_CALLS": "0"}
            environ = environment(emulator.url, Path(folder) / "claw.db", **more)
            began = time.monotonic()
            calls: dict[str, int] = {}
            async with running(environ, Path(folder)) as service:
                await emulator.wait_connections()
                for each in people:
                    await emulator.say("hello there " + "x " * 40, person=each)
                if cut:
                    await asyncio.sleep(answer_s / 2 + 2)
                    await (service.kill() if cut == "kill" else service.terminate())
                else:
                    await wait_for_cards(emulator, count, wait_s)
                    calls = await count_calls(service)
            if cut:
                async with running(environ, Path(folder)) as service:
                    await wait_for_cards(emulator, count, wait_s)
                    calls = await count_calls(service)
            took = time.monotonic() - began
            per_card = sorted(1 + card.update_count + card.put_count for card in emulator.cards.cards.values())
            peaks = {name: peak for name, peak in emulator.openapi.peaks.peaks.items() if "card" in name}
            print(
                f"streams, {count} answers of {answer_s:g} s, {slots} slots{', ' + cut if cut else ''}: {took:.0f} s; "
                f"{len(per_card)} cards, open at the end {count_open(emulator)}; calls a card: median "
                f"{statistics.median(per_card):g}, max {per_card[-1]}; peak calls a second {peaks}; "
                f"calls of the last process { ({name: calls.get(name, 0) for name in CARD_CALLS}) }"
            )


async def wait_for_cards(emulator: Emulator, count: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if len(emulator.cards.cards) >= count and not count_open(emulator):
            return
        await asyncio.sleep(0.1)


def simulate_month(per_day: int = 60) -> None:
    """Spend a month day by day as the plan allows: answers of 30 s, each at its full allowance."""
    begin = datetime(2026, 11, 1, tzinfo=DINGTALK_TIME)
    openapi = webhook = 0
    shown = dict.fromkeys(Richness, 0)
    for answers in range(30 * per_day):
        at = begin + timedelta(days=answers / per_day)
        days = (at - begin).total_seconds() / 86_400
        month = MonthSoFar(BillableCalls(openapi, webhook), answers, days, 30 - days)
        chosen = plan(STANDARD, month)
        shown[chosen.richness] += 1
        webhook += 1
        if chosen.richness is Richness.MARKDOWN:
            webhook, openapi = (webhook, openapi + 1) if chosen.by_openapi else (webhook + 1, openapi)
        else:
            # An answer of 30 s has one step in between at the plan's own pauses.
            openapi += 3 + min(chosen.steps, 1)
    print(
        f"month, {per_day} answers a day: left of {STANDARD.openapi} OpenAPI calls {STANDARD.openapi - openapi}, of "
        f"{STANDARD.webhook} webhook calls {STANDARD.webhook - webhook}; "
        + ", ".join(f"{richness.name.lower()} {count}" for richness, count in shown.items())
    )


async def measure_latency(label: str, per_s: int = 100, seconds: float = 5, **more: str) -> None:
    """Look how long an answer takes from its question to its final text, at a steady rate."""
    with tempfile.TemporaryDirectory() as folder:
        async with Emulator(rate_limits=False) as emulator:
            emulator.faults.update({"model_chunk_delay": 0.0})
            people = add_people(emulator, 100)
            quotas = {"CLAW_MONTHLY_API_CALLS": "0", "CLAW_MONTHLY_WEBHOOK_CALLS": "0"}
            environ = environment(emulator.url, Path(folder) / "claw.db", **quotas, **more)
            async with running(environ, Path(folder)):
                await emulator.wait_connections()
                await emulator.say("warm up", person=people[0])
                await asyncio.sleep(2)
                asked: dict[str, float] = {}
                began = time.monotonic()
                for number in range(int(per_s * seconds)):
                    await asyncio.sleep(max(0.0, began + number / per_s - time.monotonic()))
                    asked[f"q{number}q"] = time.monotonic()
                    await emulator.say(f"q{number}q", person=people[number % len(people)])
                done: dict[str, float] = {}
                deadline = time.monotonic() + 60
                while len(done) < len(asked) and time.monotonic() < deadline:
                    await asyncio.sleep(0.02)
                    for reply in emulator.replies.log:
                        if reply.finished:
                            note(done, reply.text, reply.time)
    waits = [done[mark] - at for mark, at in asked.items() if mark in done]
    print(
        f"final text, {label}, {per_s} messages a second: p50 {quantile(waits, 0.5) * 1000:.0f} ms, "
        f"p99 {quantile(waits, 0.99) * 1000:.0f} ms, {len(waits)} of {len(asked)}"
    )


def note(done: dict[str, float], text: str, at: float) -> None:
    start = text.find("q")
    while start >= 0:
        end = text.find("q", start + 1)
        if end < 0:
            return
        if text[start + 1 : end].isdigit():
            done.setdefault(text[start : end + 1], at)
        start = end


async def measure_all_latencies() -> None:
    await measure_latency("markdown without reactions", CLAW_REACTION="off")
    await measure_latency("markdown")
    await measure_latency("card", CLAW_REPLY_MODE="card")


async def measure_month() -> None:
    for per_day in (20, 60, 100):
        simulate_month(per_day)


MEASURES: Final[dict[str, Callable[[], Awaitable[None]]]] = {
    "sign-markdown": lambda: measure_first_sign("markdown"),
    "sign-card": lambda: measure_first_sign("card"),
    "sign-auto": lambda: measure_first_sign("auto"),
    "streams": lambda: measure_streams(10),
    "streams-30s": lambda: measure_streams(30, 64, slots=64),
    "streams-kill": lambda: measure_streams(10, cut="kill"),
    "streams-drain": lambda: measure_streams(10, cut="drain"),
    "month": measure_month,
    "latency": measure_all_latencies,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=MEASURES, action="append")
    for name in parser.parse_args().only or MEASURES:
        asyncio.run(_run(name))


async def _run(name: str) -> None:
    await MEASURES[name]()


if __name__ == "__main__":
    main()
