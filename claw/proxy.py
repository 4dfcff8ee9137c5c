"""Proxy lookup from `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, cached per host.

aiohttp can look by itself (`trust_env`), but does so with every request and in a thread of the pool that also looks
up names, and reads `~/.netrc` each time: a fifth of a round trip's CPU, and a name server that hangs would hold up
requests on connections that are open. The environment does not change while we run, so each host is looked up once,
and nobody's `.netrc` is sent to anybody.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final
from urllib.request import getproxies, proxy_bypass

from yarl import URL

HOSTS_KEPT: Final = 256
"""Hosts whose proxy is remembered."""


def proxy_of(url: URL) -> URL | None:
    """Return the proxy for `url` by `HTTP(S)_PROXY` and `NO_PROXY`, user and password included; None: directly."""
    return _proxy(url.scheme, url.host or "")


@lru_cache(HOSTS_KEPT)
def _proxy(scheme: str, host: str) -> URL | None:
    found = getproxies().get(scheme)
    if not found or proxy_bypass(host):
        return None
    # As other clients take it: a proxy that is named without a scheme speaks HTTP.
    return URL(found if "://" in found else f"http://{found}")


def forget() -> None:
    """Look afresh, for tests that change the environment."""
    _proxy.cache_clear()
