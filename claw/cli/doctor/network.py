"""Connectivity checks: DNS, TCP, TLS and proxy to each host; then the clock, and the model.

Each host is asked by the client that claw itself uses, with a request that costs nothing and needs no credentials: any
HTTP answer shows that the host can be reached. A failure is reported by the stage at which it happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp
from yarl import URL

from claw.cli.doctor.runner import Context, Finding, fault, good, skip, warn
from claw.errors import ModelError, ModelErrorKind
from claw.http_client import read_at_most
from claw.proxy import proxy_of
from claw.turn.model.client import ModelClient

SKEW_WARNED_S: Final = 5.0
SKEW_FAULT_S: Final = 300.0
"""Seconds; beyond five minutes certificates and signatures begin to fail."""
MODEL_SLOW_MS: Final = 5_000
"""Milliseconds to the first text after which people begin to wonder."""
MODEL_VARIABLE: Final = "OPENAI_BASE_URL"
LOOPBACKS: Final = frozenset({"localhost", "127.0.0.1", "::1"})
USUAL_PORTS: Final = {
    11434: ("Ollama", "/v1"),
    8000: ("vLLM", "/v1"),
    18789: ("OpenClaw", "/v1"),
    1234: ("LM Studio", "/v1"),
}
"""Where servers of one's own machine usually listen, and the path of their API."""
PORT_TIMEOUT_S: Final = 0.5
MODELS_MAX_BYTES: Final = 1024 * 1024
_NO_SETTING: Final = "HTTPS_PROXY"
"""What a person can look at where the address comes from DingTalk."""


def make_connectivity_check(
    name: str, variable: str, address: Callable[[Context], str]
) -> Callable[[Context], Awaitable[Finding]]:
    """Make a check of the host in the address that `variable` names; `openapi` is asked for the time as well."""

    async def check(context: Context) -> Finding:
        return await _check_connectivity(context, URL(address(context)), variable, reads_clock=name == "openapi")

    return check


async def check_model_connectivity(context: Context) -> Finding:
    """Check the model's host; where this machine refuses, look at the ports where servers usually are."""
    url = URL(context.settings.model.base_url)
    found = await _check_connectivity(context, url, MODEL_VARIABLE)
    if found.key != "network.refused" or url.host not in LOOPBACKS:
        return found
    for port, (server, path) in USUAL_PORTS.items():
        if port != url.port and await _is_open(port):
            values = {"host": url.host, "port": url.port, "found": port, "server": server, "variable": MODEL_VARIABLE}
            return fault("network.elsewhere", **values, url=f"http://127.0.0.1:{port}{path}")
    return found


async def _is_open(port: int) -> bool:
    # Bounded: a firewall of this machine may swallow what it does not like.
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(PORT_TIMEOUT_S):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return True
    return False


async def check_models(context: Context) -> Finding:
    """Compare CLAW_MODELS with what the server lists, which costs nothing; asking each of them would."""
    wanted, settings = context.settings.model.others, context.settings.model
    if not wanted:
        return skip("models.none")
    url = URL(settings.base_url.rstrip("/") + "/models")
    key = settings.api_key.reveal()
    try:
        async with (
            asyncio.timeout(context.timeout),
            context.http.get(
                url,
                headers={"Authorization": f"Bearer {key}"} if key else {},
                allow_redirects=False,
                proxy=proxy_of(url),
            ) as response,
        ):
            body = json.loads(await read_at_most(response, MODELS_MAX_BYTES) or b"")
        listed = {str(each["id"]) for each in body["data"]}
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError, LookupError, TypeError):
        return skip("models.unlisted", host=url.host)
    # An agent of OpenClaw is listed by its id, with or without the gateway's name in front of it.
    missing = [name for name in wanted if name not in listed and name.removeprefix("openclaw/") not in listed]
    if missing:
        return warn("models.missing", host=url.host, names=", ".join(missing))
    return good("models.ok", count=len(wanted))


async def check_stream_connectivity(context: Context) -> Finding:
    """Check the host that the registration named."""
    if context.registration is None:
        return skip("skip.after", name="stream.registration")
    # The ticket is in the query and is good for one session only: it must not be spent here.
    url = URL(context.registration.url.reveal(), encoded=True).with_query(None)
    return await _check_connectivity(context, url.with_scheme("https" if url.scheme == "wss" else "http"), _NO_SETTING)


async def _check_connectivity(context: Context, url: URL, variable: str, *, reads_clock: bool = False) -> Finding:
    """Ask `url` for anything; any HTTP answer is good."""
    host, port = url.host or "", url.port or 0
    proxy = _name_proxy(url)
    timeout = aiohttp.ClientTimeout(total=context.timeout)
    try:
        before = context.clock.wall()
        # No redirect is followed: the host that was named is the one to reach.
        async with context.http.get(url, allow_redirects=False, proxy=proxy_of(url), timeout=timeout) as response:
            if reads_clock:
                context.skew = measure_skew(response.headers.get("Date", ""), before, context.clock.wall())
            key = "network.ok_proxy" if proxy else "network.ok"
            return good(key, host=host, proxy=proxy, status=response.status)
    # aiohttp's errors overlap, and a proxy's URL of the environment may raise any ValueError.
    except Exception as error:  # noqa: BLE001 - sorted below; a setting of any wrongness may raise anything
        # The last entry takes every Exception, so that there is always one.
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
"""Error -> the stage that failed. The first that fits decides, as the library's errors are kinds of one another."""


def cause_of(error: BaseException) -> str:
    """Return the innermost cause in few words, without any address."""
    inner = getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error
    if isinstance(inner, ssl.SSLCertVerificationError):
        return inner.verify_message
    if isinstance(inner, ssl.SSLError):
        return inner.reason or type(inner).__name__
    # asyncio joins the failures of several addresses into one message, each with its errno in brackets.
    if isinstance(inner, OSError) and inner.strerror and "[" not in inner.strerror:
        return inner.strerror
    return type(inner).__name__


def _name_proxy(url: URL) -> str:
    """Return host and port of the proxy for `url`, without its user and password; empty where there is none."""
    try:
        proxy = proxy_of(url)
    except ValueError:
        return ""
    return f"{proxy.host}:{proxy.port}" if proxy is not None else ""


# --- clock -------------------------------------------------------------------------------------------------------


def measure_skew(date: str, before: float, after: float) -> float | None:
    """Return the seconds that the other clock is ahead of ours, as far as is sure; None where `date` is no HTTP date.

    The header gives whole seconds, and was written at some moment between `before` and `after`.
    """
    try:
        theirs = parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    # Ahead or behind only as far as neither the whole second nor the way can explain it.
    if theirs + 1 < before:
        return theirs + 1 - before
    return theirs - after if theirs > after else 0.0


async def check_clock(context: Context) -> Finding:
    """Compare our clock with the time in DingTalk's answer."""
    if context.skew is None:
        return skip("clock.unknown")
    off = abs(context.skew)
    if off > SKEW_FAULT_S:
        return fault("clock.off", seconds=f"{off:.0f}")
    return warn("clock.off", seconds=f"{off:.0f}") if off > SKEW_WARNED_S else good("clock.ok")


# --- model -------------------------------------------------------------------------------------------------------

MODEL_TEXTS: Final = {
    ModelErrorKind.UNAUTHORIZED: "model.unauthorized",
    ModelErrorKind.QUOTA: "model.quota",
    ModelErrorKind.BAD_REQUEST: "model.refused",
    ModelErrorKind.REDIRECTED: "model.redirected",
    ModelErrorKind.FILTERED: "model.refused",
    ModelErrorKind.TOO_LONG: "model.refused",
    ModelErrorKind.TOO_LARGE: "model.refused",
    ModelErrorKind.UNAVAILABLE: "model.unavailable",
    ModelErrorKind.BUSY: "model.busy",
    ModelErrorKind.TIMEOUT: "model.timeout",
    ModelErrorKind.UNREACHABLE: "model.unreachable",
    ModelErrorKind.BROKEN_OFF: "model.server",
    ModelErrorKind.EMPTY: "model.server",
    ModelErrorKind.SERVER: "model.server",
}


async def check_model(context: Context) -> Finding:
    """Ask for one token, by the client that answers people."""
    settings = context.settings.model
    client = ModelClient(settings, history_kept_elsewhere=True, clock=context.clock)
    name, host = settings.name, URL(settings.base_url).host
    seconds = context.timeout
    started = 0.0
    try:
        await client.warm()  # The SDK's import is not the server's latency.
        started = context.clock.monotonic()
        async with asyncio.timeout(seconds):
            await client.probe()
    except TimeoutError:
        # Our own limit: the model's client has a longer one, for people's questions.
        return fault("model.timeout", seconds=f"{seconds:g}")
    except ModelError as error:
        key = "model.not_found" if error.status == 404 else MODEL_TEXTS[error.kind]
        finding = warn if error.kind is ModelErrorKind.BUSY else fault
        return finding(key, host=host, cause=error.reason, seconds=f"{seconds:g}")
    finally:
        await client.close()
    ms = round((context.clock.monotonic() - started) * 1000)
    return warn("model.slow", model=name, ms=ms) if ms > MODEL_SLOW_MS else good("model.ok", model=name, ms=ms)
