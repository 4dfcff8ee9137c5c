"""What the operation of claw costs: `python -m bench.operation [--only sends|usage|memory]`.

Order of events of each: a real claw against the emulator. `sends`: 1,000 texts by `POST /send`, with a `kill -9` in
between, counted at the emulator. `usage`: a day of 10,000 questions of 500 people, the growth of the store, and how
long the API takes. `memory`: a claw that idles, with and without an operator's page open.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Final

import aiohttp

from claw.emulator import Emulator
from claw.store.sqlite.store import SqliteStore
from claw.store.values import UsageRow
from tests.service import ADMIN_TOKEN, Service, environment, running

SENDS: Final = 1_000
CHATS: Final = 10
PEOPLE: Final = 500
QUESTIONS: Final = 10_000
HEADERS: Final = {"Authorization": f"Bearer {ADMIN_TOKEN}"}


async def sends(folder: Path) -> None:
    """Send every text once, in order for each receiver, over a kill."""
    async with Emulator(rate_limits=False, keep=5 * SENDS) as emulator:
        service = Service(environment(emulator.url, folder / "claw.db"), folder)
        await service.start()
        await service.until_ready()
        began, ids = time.monotonic(), []
        async with aiohttp.ClientSession(headers=HEADERS) as http:
            for number in range(SENDS):
                if number == SENDS // 2:
                    await service.kill()
                    service = Service(service.environ, folder)
                    await service.start()
                body = {
                    "to": {"user": f"u-100{1 + number % 3}"},
                    "markdown": f"({number:04d})",
                    "idempotency_key": f"bench-{number}",
                }
                async with http.post(f"{service.url}/send", json=body) as response:
                    assert response.status == 202, await response.text()
                    ids.append((await response.json())["id"])
            accepted = time.monotonic() - began
            while True:
                async with http.get(f"{service.url}/send/{ids[-1]}") as response:
                    last = (await response.json())["state"]
                async with http.get(f"{service.url}/status") as response:
                    pending = (await response.json())["inbox"]["pending"]
                if last == "sent" and not pending:
                    break
                await asyncio.sleep(0.1)
        took = time.monotonic() - began
        await service.terminate()
        texts = [(reply.chat, reply.text.strip()) for reply in emulator.replies if reply.text.startswith("(")]
    counts = Counter(text for _, text in texts)
    by_chat: dict[str, list[str]] = {}
    for chat, text in texts:
        by_chat.setdefault(chat, []).append(text)
    ordered = all(list(dict.fromkeys(each)) == sorted(set(each)) for each in by_chat.values())
    twice = sum(1 for count in counts.values() if count > 1)
    print(
        f"sends: {len(counts)} of {SENDS} arrived, {twice} twice, in order: {ordered}; "
        f"accepted in {accepted:.1f} s, out in {took:.1f} s, one kill"
    )


async def usage(folder: Path) -> None:
    """Count a day of 10,000 questions of 500 people."""
    path = folder / "claw.db"
    store = SqliteStore(path)
    await store.open()
    before = path.stat().st_size
    chance = random.Random(7)
    today = date.today().isoformat()  # noqa: DTZ011 - the machine's day will do
    for start in range(0, QUESTIONS, 100):
        rows = [
            UsageRow(today, f"u-{person}", f"cid{person % 50}", f"Person {person}", f"Group {person % 50}", 1, 800, 300)
            for person in (chance.randrange(PEOPLE) for _ in range(100))
        ]
        await store.add_usage(rows)
        del start
    await store.clean()
    await store.close()
    grown = path.stat().st_size - before
    async with Emulator() as emulator, running(environment(emulator.url, path), folder) as service:
        times, rows_read = [], 0
        async with aiohttp.ClientSession(headers=HEADERS) as http:
            for _ in range(10):
                began = time.monotonic()
                async with http.get(f"{service.url}/api/usage?days=30") as response:
                    rows_read = len((await response.json())["rows"])
                times.append(time.monotonic() - began)
    print(
        f"usage: {QUESTIONS} questions of {PEOPLE} people: {grown / 1e3:.0f} kB in the store, {rows_read} rows, "
        f"read in {sorted(times)[len(times) // 2] * 1e3:.0f} ms"
    )


async def memory(folder: Path) -> None:
    """Tell what an idle claw holds, and what an open page adds."""

    def held(service: Service) -> float:
        status = Path(f"/proc/{service.process.pid}/status").read_text(encoding="ascii")
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) / 1024

    async with Emulator() as emulator, running(environment(emulator.url, folder / "claw.db"), folder) as service:
        await asyncio.sleep(8)
        idle = held(service)
        async with aiohttp.ClientSession(headers=HEADERS) as http, http.get(f"{service.url}/api/events") as response:
            await response.content.readline()
            await asyncio.sleep(8)
            watched = held(service)
    print(f"memory: idle {idle:.1f} MB, with a page open {watched:.1f} MB")


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.operation", description=__doc__)
    parser.add_argument("--only", choices=("sends", "usage", "memory"))
    only = parser.parse_args().only
    for bench in (sends, usage, memory):
        if only in {None, bench.__name__}:
            with tempfile.TemporaryDirectory() as folder:
                await bench(Path(folder))


if __name__ == "__main__":
    asyncio.run(main())
