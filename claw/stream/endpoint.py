"""Which WebSocket addresses of the gateway's answer we go to: the guard against server-side request forgery.

The ticket goes there, and so does a connection out of the operator's network, hence the address is judged before it is
used, as a webhook's is. DingTalk's own gateway names DingTalk's hosts. A gateway that the operator configured may name
any public host, or one in the kind of network in which it stands itself.
"""

from __future__ import annotations

import re
from typing import Final

from yarl import URL

from claw.dingtalk.hosts import UrlPolicy, is_loopback, is_private, parse_address, parse_url

_DINGTALK: Final = UrlPolicy(())
_NUMBER: Final = re.compile(r"(0[xX][0-9a-fA-F]*|[0-9]+)")


def find_refusal(endpoint: str, gateway: str) -> str:
    """Say why the ws or wss address `endpoint`, named by `gateway`, is not gone to; empty where it may be."""
    # As http and https, of which all rules are: ws and wss differ from them in name only.
    url, own = parse_url(re.sub("^ws", "http", endpoint, flags=re.IGNORECASE)), URL(gateway)
    if url is None:
        return "it is no plain address: a user, a password or odd characters are in it"
    if url.scheme != "https" and own.scheme != "http":
        return "it is without TLS"
    host, own_host = (url.host or "").rstrip("."), own.host or ""
    if host == own_host:
        return ""
    if _DINGTALK.is_dingtalk(own):
        return "" if _DINGTALK.is_dingtalk(url) else "it is not a host of DingTalk's"
    network = _network_of(host)
    return f"it is a {network} address" if network and network != _network_of(own_host) else ""


def _network_of(host: str) -> str:
    """Name the kind of network that is not the internet in which `host` lies; empty for the internet, and for a name.

    A name may stand for any address. With TLS its certificate is the judge; without, the operator chose to trust names.
    """
    if is_loopback(host):
        return "loopback"
    address = parse_address(host)
    if address is None:
        # What ends in a number is an address to the resolver, such as 127.1 or 0x7f000001 (RFC 3986, 7.4).
        return "disguised" if _NUMBER.fullmatch(host.rpartition(".")[2]) else ""
    if not is_private(address):
        return ""
    # The metadata services of clouds lie in link-local networks and in carrier NAT, which are nobody's home.
    return "private" if address.is_private and not address.is_link_local else "local"
