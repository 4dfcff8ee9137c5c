"""Pictures that came with a message, as the model can read them: `data:` URLs.

Order of events: the download code is traded for an address at the OpenAPI; the address is checked (it is good for
anybody who has it, hence a secret) and made https; the bytes are fetched, bounded in time and size, without following
redirects; their first bytes tell what picture it is. No error names an address.
"""

from __future__ import annotations

import asyncio
import base64
import socket
from typing import Final

import aiohttp
from yarl import URL

from claw.dingtalk.client import DingTalkClient
from claw.dingtalk.hosts import Address, UrlPolicy, is_loopback, is_private, parse_address, parse_url
from claw.dingtalk.openapi import OpenApiClient
from claw.errors import DingTalkError, MediaError
from claw.http_client import deadline
from claw.messages import Inbound, Media, MediaKind
from claw.secret import Secret

PICTURES_MAX: Final = 4
"""Pictures of one message that are fetched; each costs a call and a model's tokens."""
PICTURE_MAX_BYTES: Final = 10 * 1024 * 1024
"""Bytes of a picture; people may send up to 20 MB (docs/protocol.md section 6.4), models take less."""
FETCH_TIMEOUT_S: Final = 20.0
"""Seconds for the fetch of one picture's bytes."""


def detect_mime(content: bytes) -> str | None:
    """Detect the kind of picture by its first bytes; None: none that models read."""
    # Not by Content-Type: storage calls many a picture application/octet-stream, and anybody can call a file a picture.
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "image/webp"
    return "image/bmp" if content.startswith(b"BM") else None


class PictureLoader:
    """Fetches pictures. `endpoints`: the configured ones, whose hosts may serve files even inside the network."""

    def __init__(
        self,
        client: DingTalkClient,
        openapi: OpenApiClient,
        endpoints: tuple[str, ...],
        *,
        timeout_s: float = FETCH_TIMEOUT_S,
        max_bytes: int = PICTURE_MAX_BYTES,
    ) -> None:
        self._client = client
        self._openapi = openapi
        self._policy = UrlPolicy(endpoints)
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes

    async def load(self, inbound: Inbound) -> list[str]:
        """Fetch the first four pictures of a message, in its order. Raises MediaError where one cannot be had."""
        pictures = [media for media in inbound.media if media.kind is MediaKind.PICTURE]
        # One after another, so that the first that cannot be had saves the calls for the others.
        return [await self.fetch(inbound.robot_code, media) for media in pictures[:PICTURES_MAX]]

    async def fetch(self, robot_code: str, media: Media) -> str:
        """Fetch one picture as a `data:` URL. Raises MediaError."""
        fetched = await self._fetch(robot_code, media)
        if isinstance(fetched, MediaError):
            raise fetched
        mime = detect_mime(fetched)
        if mime is None:
            raise MediaError("the file is no picture that can be read (PNG, JPEG, GIF, WebP, BMP)")
        return f"data:{mime};base64,{base64.b64encode(fetched).decode()}"

    async def _fetch(self, robot_code: str, media: Media) -> bytes | MediaError:
        """Errors are returned, so that none of the library's, which name addresses, becomes their context."""
        try:
            link = await self._openapi.get_download_url(robot_code, media.code)
        except DingTalkError as error:
            return MediaError(f"DingTalk gave no address for the picture: {error.detail}")
        try:
            # Over the look-up as well: a name server can hang as a file server can.
            async with deadline(self._timeout_s):
                url = await self._resolve(link)
                return MediaError("the picture's address is not allowed") if url is None else await self._read(url)
        except TimeoutError:
            return MediaError(f"the picture did not come within {self._timeout_s:g} s")
        except (aiohttp.ClientError, OSError, ValueError, EOFError) as fault:
            return MediaError(f"the picture could not be fetched ({type(fault).__name__})")

    async def _read(self, url: URL) -> bytes | MediaError:
        status, content = await self._client.download(url, self._max_bytes)
        if status != 200:
            return MediaError(f"the picture could not be fetched (HTTP {status})")
        if content is None:
            return MediaError(f"the picture is larger than {self._max_bytes // (1024 * 1024)} MB")
        return content

    async def _resolve(self, link: Secret) -> URL | None:
        """Return the address to fetch from, https where it can be; None where it leads into the operator's network.

        A name is looked up here and once more by the connector. In between it may change; the check is a second
        line of defence behind DingTalk's own answer. A name that cannot be looked up is left to the proxy, if any.
        """
        url = parse_url(link.reveal())
        if url is None or self._policy.is_configured(url):
            return url
        host = url.host or ""
        if is_loopback(host):
            return None
        address = parse_address(host)
        addresses = [address] if address is not None else await _look_up(host)
        if any(is_private(each) for each in addresses):
            return None
        # DingTalk often names storage by http, which has https as well (docs/protocol.md section 6.4).
        return url.with_scheme("https").with_port(None) if url.scheme == "http" and url.port == 80 else url


async def _look_up(host: str) -> list[Address]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    # A link-local IPv6 address may carry a zone.
    addresses = (parse_address(str(each[4][0]).partition("%")[0]) for each in found)
    return [each for each in addresses if each is not None]
