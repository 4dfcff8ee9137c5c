"""URL allowlist for session webhooks and downloads: the guard against server-side request forgery.

Addresses to answer at and to fetch pictures from come in messages, so they are checked before use. Whoever could forge
one would make this process call a host of theirs, or one inside of the operator's network.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from yarl import URL

URL_MAX_CHARS: Final = 8192
"""Characters of an address; what servers take is no longer, a signed download address has some 500."""

_DINGTALK_SUFFIXES: Final = (".dingtalk.com", ".dingtalk.io")
_CARRIER_NAT: Final = ipaddress.ip_network("100.64.0.0/10")
"""RFC 6598; Alibaba Cloud's metadata service is in it (100.100.100.200)."""
_BENCHMARK: Final = ipaddress.ip_network("198.18.0.0/15")
"""RFC 2544; in practice what transparent proxies on developers' machines resolve every name to."""

_TRANSLATED: Final = ipaddress.ip_network("64:ff9b::/96")
"""RFC 6052: IPv6 addresses that a gateway translates to the IPv4 address in their last four bytes."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_url(url: str) -> URL | None:
    """Parse an absolute http(s) address without user and password, its escapes untouched; None if it is none."""
    try:
        parsed = URL(url, encoded=True)
        # A user part is how `https://oapi.dingtalk.com@evil.example/` looks like DingTalk's; nobody needs one.
        usable = parsed.scheme in {"http", "https"} and parsed.host and parsed.port and "@" not in parsed.raw_authority
        # Nothing but visible ASCII goes onto the wire, and no name that the connector would refuse.
        if not (usable and url.isascii() and url.isprintable() and " " not in url and len(url) <= URL_MAX_CHARS):
            return None
    except ValueError:
        return None
    return parsed


def parse_address(host: str) -> Address | None:
    """Parse a host that is an IP address; None for a name. An IPv4 address in IPv6 spelling is the IPv4 one."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def is_loopback(host: str) -> bool:
    """Whether `host`, an address or a name, is this machine by its very spelling."""
    address = parse_address(host)
    if address is not None:
        return address.is_loopback
    return host == "localhost" or host.endswith(".localhost")


def is_private(address: Address) -> bool:
    """Whether `address` is this machine, its network, or otherwise nothing that the internet routes to."""
    # An IPv4 address may be wrapped: on its way something unwraps it, and what counts is where it leads then.
    if isinstance(address, ipaddress.IPv6Address):
        wrapped = [address.sixtofour, *(address.teredo or ())]
        if address in _TRANSLATED:
            wrapped.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if any(is_private(each) for each in wrapped if each is not None):
            return True
    if address.version == 4 and address in _BENCHMARK:
        # Python calls it private; behind such a proxy nothing could be fetched.
        return False
    if address.version == 4 and address in _CARRIER_NAT:
        return True
    return (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
    )


Origin = tuple[str, str, int | None]


class UrlPolicy:
    """DingTalk's hosts, and the origins of the configured endpoints (an emulator's, for example).

    An origin is scheme, host and port: what else listens on an endpoint's host is none of DingTalk's, and may be the
    operator's database. This machine has many names, which are one host.
    """

    def __init__(self, endpoints: Iterable[str]) -> None:
        self._own = {_origin_of(URL(endpoint)) for endpoint in endpoints}

    def is_configured(self, url: URL) -> bool:
        """Whether `url` is at a configured endpoint's origin."""
        return _origin_of(url) in self._own

    def is_dingtalk(self, url: URL) -> bool:
        """Whether `url` may get an answer that is meant for DingTalk."""
        if self.is_configured(url):
            return True
        return url.scheme == "https" and url.port == 443 and (url.host or "").endswith(_DINGTALK_SUFFIXES)


def _origin_of(url: URL) -> Origin:
    host = url.host or ""
    return url.scheme, "localhost" if is_loopback(host) else host, url.port
