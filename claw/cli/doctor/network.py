"""Checks of the way: DNS, TCP, TLS and proxy to each host, the clock, and the model at its end.

Each host is asked by the very client that claw uses, with a request that costs nothing and proves no identity: any
HTTP answer is a way that works. What fails is told by the stage at which it did.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp
from yarl import URL

from claw.cli.doctor.runner import Context, Finding, fault, good, skip, warn
from claw.errors import ModelError, ModelErrorKind
from claw.proxy import proxy_of
from claw.turn.model.client import ModelClient

SKEW_WARNED_S: Final = 5.0
SKEW_FAULT_S: Final = 300.0
"""Seconds; beyond five minutes certificates and signatures begin to fail."""
MODEL_SLOW_MS: Final = 5_000
"""Milliseconds to the first text after which people begin to wonder."""
_NO_SETTING: Final = "HTTPS_PROXY"
"""What a person can look at where the address comes from DingTalk."""


def way(name: str, variable: str, address: Callable[[Context], str]) -> Callable[[Context], Awaitable[Finding]]:
    """Make a check of the way to the address that `variable` names; `openapi` is asked for the time as well."""

    async def check(context: Context) -> Finding:
        return await reach(context, URL(address(context)), variable, clock=name == "openapi")

    return check


async def way_to_stream(context: Context) -> Finding:
    """The way to the endpoint that the registration named. The ticket stays at home: it is good for one session."""
    if context.registration is None:
        return skip("skip.after", name="stream.registration")
    url = URL(context.registration.url.reveal(), encoded=True).with_query(None)
    return await reach(context, url.with_scheme("https" if url.scheme == "wss" else "http"), _NO_SETTING)


async def reach(context: Context, url: URL, variable: str, *, clock: bool = False) -> Finding:
    """Ask `url` for anything; any HTTP answer is good."""
    host, port = url.host or "", url.port or 0
    proxy = _proxy_of(url)
    timeout = aiohttp.ClientTimeout(total=context.timeout)
    try:
        before = context.clock.wall()
        async with context.http.get(url, allow_redirects=False, proxy=proxy_of(url), timeout=timeout) as response:
            if clock:
                context.skew = skew(response.headers.get("Date", ""), before, context.clock.wall())
            key = "network.ok_proxy" if proxy else "network.ok"
            return good(key, host=host, proxy=proxy, status=response.status)
    except Exception as error:  # noqa: BLE001 - sorted below; a setting of any wrongness may raise anything
        stage = next(key for kind, key in _STAGES if isinstance(error, kind))
        seconds, status = f"{context.timeout:g}", getattr(error, "status", "")
        values = {"host": host, "port": port, "proxy": proxy, "variable": variable, "status": status}
        return fault(stage, **values, seconds=seconds, cause=cause_of(error))


_STAGES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (aiohttp.ClientHttpProxyError, "network.proxy_refused"),
    (aiohttp.ClientProxyConnectionError, "network.proxy"),
    (aiohttp.ClientConnectorDNSError, "network.dns"),
    (aiohttp.ClientConnectorCertificateError, "network.tls"),
    (aiohttp.ClientConnectorSSLError, "network.no_tls"),
    (TimeoutError, "network.timeout"),
    (aiohttp.ClientConnectorError, "network.refused"),
    (Exception, "network.broken"),
)
"""At which stage the way was lost; the first that fits decides, as the library's errors are kinds of one another."""


def cause_of(error: BaseException) -> str:
    """The innermost cause in few words, without any address."""
    inner = getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error
    if isinstance(inner, ssl.SSLCertVerificationError):
        return inner.verify_message
    if isinstance(inner, ssl.SSLError):
        return inner.reason or type(inner).__name__
    if isinstance(inner, OSError) and inner.strerror and "[" not in inner.strerror:
        return inner.strerror
    return type(inner).__name__


def _proxy_of(url: URL) -> str:
    """Host and port of the proxy on the way, without its user and password; empty where there is none."""
    try:
        proxy = proxy_of(url)
    except ValueError:
        return ""
    return f"{proxy.host}:{proxy.port}" if proxy is not None else ""


# --- clock -------------------------------------------------------------------------------------------------------


def skew(date: str, before: float, after: float) -> float | None:
    """Seconds that the other clock is ahead of ours, as far as is sure; None where `date` is no HTTP date.

    The header tells whole seconds, and was written at some moment between `before` and `after`.
    """
    try:
        told = parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    if told + 1 < before:
        return told + 1 - before
    return told - after if told > after else 0.0


async def clock(context: Context) -> Finding:
    if context.skew is None:
        return skip("clock.unknown")
    off = abs(context.skew)
    if off > SKEW_FAULT_S:
        return fault("clock.off", seconds=f"{off:.0f}")
    return warn("clock.off", seconds=f"{off:.0f}") if off > SKEW_WARNED_S else good("clock.ok")


# --- model -------------------------------------------------------------------------------------------------------

MODEL_TEXTS: Final = {
    ModelErrorKind.UNAUTHORIZED: "model.unauthorized",
    ModelErrorKind.BAD_REQUEST: "model.refused",
    ModelErrorKind.TOO_LONG: "model.refused",
    ModelErrorKind.BUSY: "model.busy",
    ModelErrorKind.TIMEOUT: "model.timeout",
    ModelErrorKind.UNREACHABLE: "model.unreachable",
    ModelErrorKind.BROKEN_OFF: "model.server",
    ModelErrorKind.EMPTY: "model.server",
    ModelErrorKind.SERVER: "model.server",
}


async def model(context: Context) -> Finding:
    """One question of one token, by the client that answers people."""
    settings = context.settings.model
    asked = ModelClient(settings, history_kept_elsewhere=True, clock=context.clock)
    name, host = settings.name, URL(settings.base_url).host
    seconds = context.timeout
    started = 0.0
    try:
        await asked.warm()  # The SDK's import is not the server's latency.
        started = context.clock.monotonic()
        async with asyncio.timeout(seconds):
            await asked.probe()
    except TimeoutError:
        return fault("model.timeout", seconds=f"{seconds:g}")
    except ModelError as error:
        key = "model.not_found" if error.status == 404 else MODEL_TEXTS[error.kind]
        finding = warn if error.kind is ModelErrorKind.BUSY else fault
        return finding(key, host=host, cause=error.reason, seconds=f"{seconds:g}")
    finally:
        await asked.close()
    ms = round((context.clock.monotonic() - started) * 1000)
    return warn("model.slow", model=name, ms=ms) if ms > MODEL_SLOW_MS else good("model.ok", model=name, ms=ms)
