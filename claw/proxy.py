"""Proxy lookup from `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, cached per host and port.

HTTP, WebSocket, the model and telemetry ask here, so that the variables mean the same for all four: `NO_PROXY` knows
names with their subdomains, ports, addresses and networks. The lower-case names win, as in curl.

aiohttp can look by itself (`trust_env`), but does so with every request and in a thread of the pool that also looks
up names, and reads `~/.netrc` each time: a fifth of a round trip's CPU, and a name server that hangs would hold up
requests on connections that are open. The environment does not change while we run, so each host is looked up once,
and nobody's `.netrc` is sent to anybody.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from yarl import URL

from claw.language import Bilingual

HOSTS_MAX: Final = 256
"""Hosts whose proxy is remembered."""
PROXY_NAMES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_SCHEMES: Final = {"ws": "http", "wss": "https"}
_SOCKS: Final = re.compile(r"socks", re.IGNORECASE)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Bypass(NamedTuple):
    """One entry of `NO_PROXY`: a network, or a name (empty: every host), with a port or without (0)."""

    name: str
    network: Network | None
    port: int

    def matches(self, host: str, port: int) -> bool:
        if self.port and self.port != port:
            return False
        if self.network is not None:
            try:
                return ipaddress.ip_address(host) in self.network
            except ValueError:  # A name: it is not looked up, its address may be another one at the proxy.
                return False
        return not self.name or host == self.name or host.endswith(f".{self.name}")


def parse_proxy(text: str) -> URL:
    """Return a proxy's address with its user and password. Raises ValueError with what would be right."""
    right = Bilingual(
        "an http:// or https:// address of a proxy, for example http://proxy.example.com:3128",
        "代理的 http:// 或 https:// 地址，例如 http://proxy.example.com:3128",
    )
    if _SOCKS.match(text):
        en = f"{right}; SOCKS is not supported, many SOCKS proxies speak HTTP on another port"
        raise ValueError(Bilingual(en, f"{right.zh}；不支持 SOCKS，许多 SOCKS 代理在另一个端口上提供 HTTP"))
    # As other clients take it: a proxy that is named without a scheme speaks HTTP.
    try:
        proxy = URL(text if "://" in text else f"http://{text}")
        usable = proxy.scheme in {"http", "https"} and proxy.host and proxy.port
    except ValueError:
        raise ValueError(right) from None
    if not usable or re.search(r"\s", text):
        raise ValueError(right)
    return proxy


def parse_bypass(text: str) -> tuple[Bypass, ...]:
    """Return the entries of a `NO_PROXY`; one that is nothing of the kind is left out."""
    entries = (_parse_entry(each) for each in re.split(r"[,\s]+", text.lower()) if each)
    return tuple(each for each in entries if each is not None)


def _parse_entry(text: str) -> Bypass | None:
    if text == "*":
        return Bypass("", None, 0)
    bare, port = text, 0
    # `[::1]:8080`, `host:8080`; more than one colon without brackets is an IPv6 address as it stands.
    if match := re.fullmatch(r"(\[[^\]]+\]|[^:\[\]]+):([0-9]{1,5})", text):
        bare, port = match[1], int(match[2])
    bare = bare.strip("[]")
    try:
        return Bypass("", ipaddress.ip_network(bare, strict=False), port)
    except ValueError:
        name = bare.removeprefix("*").strip(".")
        return Bypass(name, None, port) if name else None


def proxy_of(url: URL) -> URL | None:
    """Return the proxy for `url`, with user and password; None: directly. Raises ValueError for one that is none."""
    scheme = _SCHEMES.get(url.scheme, url.scheme)
    return _proxy(scheme, (url.host or "").lower().rstrip("."), url.port or 0)


@lru_cache(HOSTS_MAX)
def _proxy(scheme: str, host: str, port: int) -> URL | None:
    return find_proxy(os.environ, scheme, host, port)


def find_proxy(environ: Mapping[str, str], scheme: str, host: str, port: int) -> URL | None:
    """Return the proxy that `environ` names for a host. Raises ValueError for one that is none."""
    text = _variable(environ, f"{scheme}_proxy") or _variable(environ, "all_proxy")
    if not text:
        return None
    if any(each.matches(host, port) for each in parse_bypass(_variable(environ, "no_proxy"))):
        return None
    return parse_proxy(text)


def _variable(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, "").strip() or environ.get(name.upper(), "").strip()


def forget() -> None:
    """Look afresh, for tests that change the environment."""
    _proxy.cache_clear()
