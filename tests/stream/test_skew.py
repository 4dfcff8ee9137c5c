"""How far our clock is off: measured at each registration, told once per change, and trusted by nobody."""

from __future__ import annotations

import asyncio
import logging
from email.utils import formatdate

import aiohttp
import pytest
from aiohttp import web

from claw.clock import Clock
from claw.config.settings import Credentials, StreamSettings
from claw.errors import GatewayError
from claw.language import Language, choose
from claw.secret import Secret
from claw.stream.gateway import Gateway
from claw.stream.skew import SKEW_MAX_S, ClockSkew
from claw.stream.supervisor import Supervisor
from tests.stream.dingtalk import DingTalk, nothing_left, until

CREDENTIALS = Credentials("dingfakeclient", Secret("not-a-real-secret"))
NOON = 1_800_000_000.0
HOURS_8 = 8 * 3600.0


class WrongClock(Clock):
    """The real clock, whose epoch is off by some seconds."""

    off = 0.0

    def wall(self) -> float:
        return super().wall() + self.off


@pytest.fixture
def clock() -> WrongClock:
    return WrongClock()


@pytest.fixture
def gateway(dingtalk: DingTalk, http: aiohttp.ClientSession, clock: WrongClock) -> Gateway:
    return Gateway(http, dingtalk.url, lambda: CREDENTIALS, clock=clock)


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str, int]]:
    """What was said of the clock: level, which way, and seconds."""
    return [
        (record.levelno, vars(record)["clock"], vars(record)["skew_s"])
        for record in caplog.records
        if record.name == "claw.stream.skew"
    ]


@pytest.mark.parametrize("off", [-HOURS_8, -90.0, 0.0, 90.0, HOURS_8])
async def test_each_registration_measures_our_clock(gateway: Gateway, clock: WrongClock, off: float) -> None:
    """Ahead is positive, behind negative, to about a second; before the first answer nothing is known."""
    assert gateway.clock_skew_s is None
    clock.off = off
    await gateway.register()
    assert gateway.clock_skew_s == pytest.approx(off, abs=2)


async def test_a_change_is_told_once(gateway: Gateway, clock: WrongClock, caplog: pytest.LogCaptureFixture) -> None:
    """A warning with what helps when it begins or turns over, a line when it is over, and nothing in between."""
    caplog.set_level(logging.INFO)
    for off in (5.0, HOURS_8, HOURS_8 + 10, -HOURS_8, -HOURS_8, 0.0, 1.0):
        clock.off = off
        await gateway.register()
    assert [(level, state) for level, state, _ in told(caplog)] == [
        (logging.WARNING, "ahead"),
        (logging.WARNING, "behind"),
        (logging.INFO, "in time"),
    ]
    remedy = next(vars(record)["remedy"] for record in caplog.records if record.name == "claw.stream.skew")
    assert all("NTP" in choose(remedy, language) for language in Language)


@pytest.mark.parametrize(
    ("took_s", "received_at", "seconds"),
    [
        (0.0, NOON + 0.5, 0.0),
        (4.0, NOON + 2.5, 0.0),
        (4.0, NOON + 2.5 + SKEW_MAX_S, SKEW_MAX_S),
        (4.0, NOON - 3597.5, -3600.0),
    ],
)
def test_half_of_the_exchange_is_not_skew(took_s: float, received_at: float, seconds: float) -> None:
    """DingTalk wrote the time in the middle of the exchange, as far as anybody knows, cut to a whole second."""
    skew = ClockSkew()
    skew.measure(formatdate(NOON, usegmt=True), received_at=received_at, took_s=took_s)
    assert skew.seconds == pytest.approx(seconds)


@pytest.mark.parametrize("skew_s", [SKEW_MAX_S, -SKEW_MAX_S])
def test_a_minute_is_not_told(skew_s: float, caplog: pytest.LogCaptureFixture) -> None:
    """The limit itself is still in time."""
    caplog.set_level(logging.INFO)
    ClockSkew().measure(formatdate(NOON, usegmt=True), received_at=NOON + 0.5 + skew_s, took_s=0.0)
    assert told(caplog) == []


@pytest.mark.parametrize("date", [None, "", "yesterday", "Thu, 99 Foo 2026"])
def test_an_answer_without_a_date_changes_nothing(date: str | None) -> None:
    """What was measured stays."""
    skew = ClockSkew()
    skew.measure(formatdate(NOON, usegmt=True), received_at=NOON + 10.5, took_s=0.0)
    skew.measure(date, received_at=NOON, took_s=0.0)
    assert skew.seconds == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("status", "text", "content_type", "measured"),
    [
        (401, '{"code":"authFailed"}', "application/json", True),
        (403, '{"code":"Forbidden.AccessDenied.IpNotInWhiteList"}', "application/json", True),
        (200, "<html>Log in</html>", "text/html", False),
        (403, "<html>Blocked</html>", "text/html", False),
        (502, "", "text/plain", False),
    ],
)
async def test_a_proxys_clock_is_not_dingtalks(
    status: int, text: str, content_type: str, *, measured: bool, gateway: Gateway, dingtalk: DingTalk
) -> None:
    """Only an answer with DingTalk's own word tells DingTalk's time."""

    async def answer() -> web.Response:
        return web.Response(status=status, text=text, content_type=content_type)

    dingtalk.answer = answer
    with pytest.raises(GatewayError):
        await gateway.register()
    assert (gateway.clock_skew_s is not None) is measured


@pytest.mark.parametrize("off", [-HOURS_8, HOURS_8])
async def test_a_date_to_wait_for_is_measured_by_the_gateways_clock(
    gateway: Gateway, dingtalk: DingTalk, clock: WrongClock, off: float
) -> None:
    """However far ours is off, 20 s are 20 s."""
    clock.off = off

    async def busy() -> web.Response:
        headers = {"Date": formatdate(NOON, usegmt=True), "Retry-After": formatdate(NOON + 20, usegmt=True)}
        return web.Response(status=503, headers=headers)

    dingtalk.answer = busy
    with pytest.raises(GatewayError) as caught:
        await gateway.register()
    assert caught.value.retry_after == 20.0


async def test_the_status_shows_it(
    gateway: Gateway, http: aiohttp.ClientSession, clock: WrongClock, dingtalk: DingTalk
) -> None:
    """Seconds with one decimal; nothing before the first registration."""

    async def ignore(_: object) -> None: ...

    async with nothing_left():
        supervisor = Supervisor(StreamSettings(connections=1, rotate=0.0), gateway, http, ignore, ignore)
        assert supervisor.status()["clock_skew_s"] is None
        clock.off = HOURS_8
        running = asyncio.create_task(supervisor.run())
        await until(lambda: supervisor.connected)
        assert supervisor.status()["clock_skew_s"] == pytest.approx(HOURS_8, abs=2)
        await supervisor.drain()
        await running
