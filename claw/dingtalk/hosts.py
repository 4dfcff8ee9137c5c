"""Hosts: where the reply room may send to and fetch from.

Addresses to answer at and to fetch pictures from come in messages, so they are checked before use: whoever could
forge one would make this process call a host of theirs, or one inside of the operator's network.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from yarl import URL

_DINGTALK: Final = (".dingtalk.com", ".dingtalk.io")
_SHARED: Final = ipaddress.ip_network("100.64.0.0/10")
"""Carrier-grade NAT; Alibaba Cloud's metadata service is in it (100.100.100.200)."""
_FAKE: Final = ipaddress.ip_network("198.18.0.0/15")
"""Benchmarking by RFC 2544; in practice what transparent proxies on developers' machines resolve every name to."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse(url: str) -> URL | None:
    """`url` as an absolute http(s) address without user and password, its escapes untouched; None if it is none."""
    try:
        parsed = URL(url, encoded=True)
        usable = parsed.scheme in {"http", "https"} and parsed.host and parsed.port and "@" not in parsed.raw_authority
        # Nothing but visible ASCII goes onto the wire, and no name that the connector would refuse.
        if not (usable and url.isascii() and url.isprintable() and " " not in url and len(url) <= 8192):
            return None
    except ValueError:
        return None
    return parsed


def address_of(host: str) -> Address | None:
    """The address that `host` spells out; None for a name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def is_loopback(host: str) -> bool:
    address = address_of(host)
    if address is not None:
        return address.is_loopback
    return host == "localhost" or host.endswith(".localhost")


def is_inner(address: Address) -> bool:
    """Whether `address` is this machine, its network, or otherwise nothing that the internet routes to."""
    if address.version == 4 and address in _FAKE:
        return False
    if address.version == 4 and address in _SHARED:
        return True
    return (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
    )


class UrlPolicy:
    """DingTalk's hosts, and those of the configured endpoints (an emulator's, for example).

    An endpoint on loopback makes every port of loopback good, since an emulator may listen on several.
    """

    def __init__(self, endpoints: Iterable[str]) -> None:
        urls = [URL(endpoint) for endpoint in endpoints]
        self._own = {(url.scheme, url.host) for url in urls}
        self._loopback = any(is_loopback(url.host or "") for url in urls)

    def configured(self, url: URL) -> bool:
        """Whether `url` is at a configured endpoint's host, over no weaker scheme than the endpoint's."""
        if self._loopback and is_loopback(url.host or ""):
            return True
        return (url.scheme, url.host) in self._own or ("http", url.host) in self._own

    def dingtalk(self, url: URL) -> bool:
        """Whether `url` may get an answer that is meant for DingTalk."""
        return self.configured(url) or (url.scheme == "https" and (url.host or "").endswith(_DINGTALK))
