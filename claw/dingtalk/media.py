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

from claw.dingtalk.hosts import Address, UrlPolicy, address_of, is_inner, is_loopback, parse
from claw.dingtalk.openapi import OpenApiClient
from claw.errors import DingTalkError, MediaError
from claw.messages import Inbound, Media, MediaKind
from claw.proxy import proxy_of
from claw.secret import Secret

PICTURES_MAX: Final = 4
"""Pictures of one message that are fetched; each costs a call and a model's tokens."""
PICTURE_BYTES_MAX: Final = 10 * 1024 * 1024
"""Bytes of a picture; people may send up to 20 MB (PROTOCOL section 6.4), models take less."""
FETCH_TIMEOUT: Final = 20.0
"""Seconds for the fetch of one picture's bytes."""

_CHUNK: Final = 64 * 1024
_UNBOUNDED: Final = aiohttp.ClientTimeout(total=None)


def mime_of(content: bytes) -> str | None:
    """The kind of picture that the first bytes promise; None: none that models read."""
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
        http: aiohttp.ClientSession,
        openapi: OpenApiClient,
        endpoints: tuple[str, ...],
        *,
        timeout: float = FETCH_TIMEOUT,
        max_bytes: int = PICTURE_BYTES_MAX,
    ) -> None:
        self._http = http
        self._openapi = openapi
        self._hosts = UrlPolicy(endpoints)
        self._timeout = timeout
        self._max_bytes = max_bytes

    async def of(self, inbound: Inbound) -> list[str]:
        """The first four pictures of a message, in its order. Raises MediaError where one cannot be had."""
        pictures = [media for media in inbound.media if media.kind is MediaKind.PICTURE]
        return [await self.fetch(inbound.robot_code, media) for media in pictures[:PICTURES_MAX]]

    async def fetch(self, robot_code: str, media: Media) -> str:
        """One picture as a `data:` URL. Raises MediaError."""
        fetched = await self._fetch(robot_code, media)
        if isinstance(fetched, MediaError):
            raise fetched
        mime = mime_of(fetched)
        if mime is None:
            raise MediaError("the file is no picture that can be read (PNG, JPEG, GIF, WebP, BMP)")
        return f"data:{mime};base64,{base64.b64encode(fetched).decode()}"

    async def _fetch(self, robot_code: str, media: Media) -> bytes | MediaError:
        """Errors are returned, so that none of the library's, which name addresses, becomes their context."""
        try:
            link = await self._openapi.download_url(robot_code, media.code)
        except DingTalkError as error:
            return MediaError(f"DingTalk gave no address for the picture: {error.detail}")
        try:
            async with asyncio.timeout(self._timeout):
                url = await self._checked(link)
                return MediaError("the picture's address is not allowed") if url is None else await self._read(url)
        except TimeoutError:
            return MediaError(f"the picture did not come within {self._timeout:g} s")
        except (aiohttp.ClientError, OSError, ValueError, EOFError) as fault:
            return MediaError(f"the picture could not be fetched ({type(fault).__name__})")

    async def _read(self, url: URL) -> bytes | MediaError:
        async with self._http.get(url, allow_redirects=False, proxy=proxy_of(url), timeout=_UNBOUNDED) as response:
            if response.status != 200:
                return MediaError(f"the picture could not be fetched (HTTP {response.status})")
            content = bytearray()
            async for chunk in response.content.iter_chunked(_CHUNK):
                content += chunk
                if len(content) > self._max_bytes:
                    response.close()
                    return MediaError(f"the picture is larger than {self._max_bytes // (1024 * 1024)} MB")
            return bytes(content)

    async def _checked(self, link: Secret) -> URL | None:
        """The address to fetch from, https where it can be; None where it leads into the operator's network.

        A name is looked up here and once more by the connector. In between it may change; the check is a second
        line of defence behind DingTalk's own answer. A name that cannot be looked up is left to the proxy, if any.
        """
        url = parse(link.reveal())
        if url is None or self._hosts.configured(url):
            return url
        host = url.host or ""
        if is_loopback(host):
            return None
        address = address_of(host)
        addresses = [address] if address is not None else await _look_up(host)
        if any(is_inner(each) for each in addresses):
            return None
        return url.with_scheme("https").with_port(None) if url.scheme == "http" and url.port == 80 else url


async def _look_up(host: str) -> list[Address]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    # A link-local IPv6 address may carry a zone.
    addresses = (address_of(str(each[4][0]).partition("%")[0]) for each in found)
    return [each for each in addresses if each is not None]
