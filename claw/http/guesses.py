"""Wrong admin tokens: answered later and later, refused unread beyond a bound, and logged in samples.

Order of events for a request of an administrator's route: `admit` refuses with 429 whoever has too many guesses open,
before anything is compared; a right token ends with `forget`; a wrong one is counted by `punish`, which answers 401
late, or 429 at once where too many wait already.

Only who guesses is slowed down: guesses are counted by address, so that a right token from another one is never held
up. Behind one address (a proxy, a port-forward) all are one client; X-Forwarded-For is anybody's text and not read.
"""

from __future__ import annotations

import ipaddress
import logging
import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, NoReturn

from aiohttp import hdrs

from claw.clock import Clock
from claw.http.responses import ApiError

FREE_MAX: Final = 3
"""Wrong tokens of an address that are answered at once: a person's typing errors."""
DELAY_FIRST_S: Final = 0.1
DELAY_MAX_S: Final = 2.0
"""The delay doubles from the first to the last with each wrong token of an address."""
WAITING_MAX: Final = 32
"""Answers that wait at the same time: each holds one of the server's connections."""
WAITING_PER_ADDRESS_MAX: Final = 4
ADDRESSES_MAX: Final = 1024
"""Addresses that are remembered; the one that was quiet for the longest time is forgotten first."""
FORGET_AFTER_S: Final = 600.0
"""Seconds without a wrong token after which an address, and the sampling of the log, begin anew."""
LOGGED_FIRST_MAX: Final = 10
LOGGED_EACH: Final = 1000
"""The first wrong tokens are logged, then each thousandth: 8,000 a second would be 5 GB of log an hour."""
_IPV6_FREE_BITS: Final = 64
"""Bits at the end of an IPv6 address that its owner chooses: those before stand for one client."""
_CHALLENGE: Final = {str(hdrs.WWW_AUTHENTICATE): "Bearer"}
_RETRY_LATER: Final = {str(hdrs.RETRY_AFTER): str(math.ceil(DELAY_MAX_S))}

log: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class _Client:
    """What is known of one address."""

    wrong: int = 0
    waiting: int = 0
    last_at: float = 0.0


class GuessLimiter:
    """Counts wrong tokens by address. Belongs to one event loop."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._clients: OrderedDict[str, _Client] = OrderedDict()
        self._waiting = 0
        self._wrong = 0
        self._last_at = 0.0

    def admit(self, remote: str | None) -> None:
        """Raise ApiError 429 where this address has too many guesses open: its tokens are not even compared."""
        client = self._clients.get(client_of(remote))
        if client is None:
            return
        # Who typed something wrong once is still heard while others' guesses take all places.
        is_full = self._waiting >= WAITING_MAX and client.wrong > FREE_MAX
        if is_full or client.waiting >= WAITING_PER_ADDRESS_MAX:
            self._count(client, remote)
            raise _too_many()

    def forget(self, remote: str | None) -> None:
        """Begin anew with an address that gave the right token."""
        client = self._clients.get(client_of(remote))
        if client is not None:
            client.wrong = 0

    async def punish(self, remote: str | None) -> NoReturn:
        """Count a wrong token, wait, and raise ApiError 401; 429 at once where too many wait."""
        client = self._find(remote)
        self._count(client, remote)
        delay = delay_of(client.wrong)
        if delay:
            if self._waiting >= WAITING_MAX or client.waiting >= WAITING_PER_ADDRESS_MAX:
                raise _too_many()
            # Counted before the wait and in `finally`: a client that hangs up, or our own end, must not leave a place
            # taken.
            client.waiting += 1
            self._waiting += 1
            try:
                await self._clock.sleep(delay)
            finally:
                client.waiting -= 1
                self._waiting -= 1
        raise ApiError(401, "unauthorized", "the bearer token is missing or wrong", headers=_CHALLENGE)

    def _find(self, remote: str | None) -> _Client:
        key = client_of(remote)
        client = self._clients.setdefault(key, _Client())
        self._clients.move_to_end(key)
        if len(self._clients) > ADDRESSES_MAX:
            self._clients.popitem(last=False)
        return client

    def _count(self, client: _Client, remote: str | None) -> None:
        now = self._clock.monotonic()
        if now - client.last_at > FORGET_AFTER_S:
            client.wrong = 0
        if now - self._last_at > FORGET_AFTER_S:
            self._wrong = 0
        client.last_at = self._last_at = now
        client.wrong += 1
        self._wrong += 1
        if self._wrong <= LOGGED_FIRST_MAX or self._wrong % LOGGED_EACH == 0:
            extra = {"remote": remote, "wrong_tokens": self._wrong}
            log.warning("a request without the right token was refused", extra=extra)


def delay_of(wrong: int) -> float:
    """Return the seconds that an address's answer waits after its `wrong`th wrong token."""
    # The exponent is bounded: a float cannot hold two to the power of what a flood counts.
    return min(DELAY_FIRST_S * 2.0 ** min(wrong - FREE_MAX - 1, 10), DELAY_MAX_S) if wrong > FREE_MAX else 0.0


def client_of(remote: str | None) -> str:
    """Return what stands for one client: an IPv4 address, or the network of an IPv6 one."""
    try:
        address = ipaddress.ip_address(remote or "")
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    # A socket that listens on both families shows IPv4 clients so.
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(address) >> _IPV6_FREE_BITS << _IPV6_FREE_BITS))


def _too_many() -> ApiError:
    return ApiError(429, "too_many_guesses", "too many wrong tokens", headers=_RETRY_LATER)
