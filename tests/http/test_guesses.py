"""Wrong admin tokens: slowed down by address, bounded, logged in samples; a right token waits for nobody's guesses."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from claw.http import guesses as module
from claw.http.guesses import GuessLimiter, client_of, delay_of
from claw.http.health import Health
from claw.http.health import routes as health_routes
from claw.http.responses import ApiError, json_response
from claw.http.server import Server
from claw.secret import Secret
from tests.clock import FakeClock

TOKEN = "admin-token-of-this-test"
OTHER = "127.0.0.2"
"""A second client of this machine: all of 127/8 is its loopback."""


@asynccontextmanager
async def serving(clock: FakeClock | None = None, read: Callable[[], Secret] | None = None) -> AsyncIterator[Server]:
    async def get_status(_: web.Request) -> web.Response:
        return json_response({"status": "fine"})

    routes = [web.get("/status", get_status)]
    token = read or (lambda: Secret(TOKEN))
    server = Server("0.0.0.0", 0, public=health_routes(Health()), admin=routes, admin_token=token, clock=clock)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def ask(server: Server, token: str, source: str = "127.0.0.1", path: str = "/status") -> tuple[int, str, float]:
    """Status, Retry-After and seconds of one request from an address of this machine."""
    started = time.monotonic()
    connector = aiohttp.TCPConnector(local_addr=(source, 0))
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(connector=connector) as client,
        client.get(f"http://127.0.0.1:{server.port}{path}", headers=headers) as response,
    ):
        await response.json()
        return response.status, response.headers.get("Retry-After", ""), time.monotonic() - started


def test_delays_grow() -> None:
    """The first wrong tokens are answered at once, then later and later, never later than DELAY_MAX_S."""
    assert [delay_of(wrong) for wrong in range(1, 11)] == [0, 0, 0, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert delay_of(10**9) == module.DELAY_MAX_S


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        (None, "", True),
    ],
)
def test_what_is_one_client(one: str | None, other: str, same: bool) -> None:
    """A client is an IPv4 address, in either spelling, or the network of an IPv6 one."""
    assert (client_of(one) == client_of(other)) is same


async def test_a_wrong_token_waits_and_a_right_one_does_not() -> None:
    """Wrong tokens of one address are answered later and later; another address, and a probe, are answered at once."""
    clock = FakeClock()
    async with serving(clock) as server:
        for _ in range(module.FREE_MAX):
            assert (await ask(server, "wrong"))[0] == 401
        waiting = asyncio.create_task(ask(server, "wrong"))
        while not server._guesses._waiting:
            await asyncio.sleep(0.01)
        assert (await ask(server, TOKEN, OTHER))[0] == 200
        assert (await ask(server, "", path="/health"))[0] == 200
        assert (await ask(server, TOKEN))[0] == 200, "its own address has places left"
        assert not waiting.done()
        await clock.advance(module.DELAY_FIRST_S)
        assert (await waiting)[0] == 401
        assert (await ask(server, "wrong"))[0] == 401, "the right token has made a new beginning"


async def test_a_guesser_is_refused_unread_beyond_its_places() -> None:
    """With WAITING_PER_ADDRESS_MAX guesses waiting, an address gets 429 with Retry-After, without a comparison."""
    clock = FakeClock()
    compared = Counter[str]()

    def read() -> Secret:
        compared["read"] += 1
        return Secret(TOKEN)

    async with serving(clock, read) as server:
        for _ in range(module.FREE_MAX):
            await ask(server, "wrong")
        waiting = [asyncio.create_task(ask(server, "wrong")) for _ in range(module.WAITING_PER_ADDRESS_MAX)]
        while server._guesses._waiting < len(waiting):
            await asyncio.sleep(0.01)
        before = compared["read"]
        for token in ("wrong", TOKEN):
            assert (await ask(server, token))[:2] == (429, "2")
        assert compared["read"] == before
        assert (await ask(server, TOKEN, OTHER))[0] == 200
        await clock.advance(module.DELAY_MAX_S)
        assert {(await each)[0] for each in waiting} == {401}
        assert (await ask(server, TOKEN))[0] == 200


async def test_places_are_bounded_over_all_addresses() -> None:
    """Many guessing addresses hold WAITING_MAX answers at most; a right token from a fresh address still opens."""
    clock = FakeClock()
    limiter = GuessLimiter(clock)

    async def guess(remote: str) -> int:
        try:
            limiter.admit(remote)
            await limiter.punish(remote)
        except ApiError as error:
            return error.status

    addresses = [f"10.0.{n // 250}.{n % 250}" for n in range(100)]
    for address in addresses:
        for _ in range(module.FREE_MAX):
            assert await guess(address) == 401
    tasks = [asyncio.create_task(guess(address)) for address in addresses]
    await clock.settle()
    assert limiter._waiting == module.WAITING_MAX
    assert Counter(task.result() for task in tasks if task.done()) == {429: 100 - module.WAITING_MAX}
    assert await guess(addresses[-1]) == 429
    limiter.admit("10.9.9.9")
    await clock.advance(module.DELAY_MAX_S)
    assert [task.result() for task in tasks].count(401) == module.WAITING_MAX
    assert limiter._waiting == 0


async def test_addresses_are_bounded_and_forgotten() -> None:
    """The table holds ADDRESSES_MAX addresses; one that was quiet for FORGET_AFTER_S begins anew."""
    clock = FakeClock()
    limiter = GuessLimiter(clock)
    for n in range(3 * module.ADDRESSES_MAX):
        with contextlib.suppress(ApiError):
            await limiter.punish(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
    assert len(limiter._clients) == module.ADDRESSES_MAX
    for _ in range(module.FREE_MAX):
        with pytest.raises(ApiError, match="missing or wrong"):
            await limiter.punish("192.0.2.1")
    await clock.advance(module.FORGET_AFTER_S + 1)
    with pytest.raises(ApiError, match="missing or wrong"):
        await limiter.punish("192.0.2.1")


async def test_a_waiting_guess_that_is_cancelled_gives_its_place_back() -> None:
    """The end of the server, or of the request, leaves no place taken."""
    limiter = GuessLimiter(FakeClock())
    for _ in range(module.FREE_MAX):
        with pytest.raises(ApiError):
            await limiter.punish("192.0.2.1")
    task = asyncio.create_task(limiter.punish("192.0.2.1"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert limiter._waiting == 0
    limiter.admit("192.0.2.1")


async def test_wrong_tokens_are_logged_in_samples(caplog: pytest.LogCaptureFixture) -> None:
    """The first ten, then each thousandth with the count; after a quiet time the first ones again."""
    clock = FakeClock()
    limiter = GuessLimiter(clock)
    for n in range(4_321):
        with pytest.raises(ApiError):
            await limiter.punish(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
    counts = [record.wrong_tokens for record in caplog.records if hasattr(record, "wrong_tokens")]
    assert counts == [*range(1, 11), 1000, 2000, 3000, 4000]
    await clock.advance(module.FORGET_AFTER_S + 1)
    with pytest.raises(ApiError):
        await limiter.punish("10.0.0.1")
    assert getattr(caplog.records[-1], "wrong_tokens", 0) == 1


async def test_a_flood_of_guesses_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of guesses over many connections: probes and the right token from elsewhere are answered in time."""
    over = asyncio.Event()
    statuses = Counter[bytes]()

    async def flood(server: Server) -> None:
        while not over.is_set():
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                while not over.is_set():
                    writer.write(b"GET /status HTTP/1.0\r\nConnection: keep-alive\r\nAuthorization: Bearer no\r\n\r\n")
                    head = await reader.readuntil(b"\r\n\r\n")
                    statuses[head[9:12]] += 1
                    await reader.readuntil(b"}}")
                writer.close()

    async with serving() as server:
        floods = [asyncio.create_task(flood(server)) for _ in range(50)]
        try:
            while statuses[b"429"] < 2_000:
                for path in ("/status", "/health"):
                    status, _, seconds = await ask(server, TOKEN, OTHER, path)
                    assert (status, seconds < 1.0) == (200, True), seconds
        finally:
            over.set()
            await asyncio.gather(*floods)
    assert set(statuses) == {b"401", b"429"}
    assert len([record for record in caplog.records if hasattr(record, "wrong_tokens")]) < 20
