"""Pictures that came with a message, as the model can read them: `data:` URLs.

Order of events: each download code is traded for an address at the OpenAPI; the address is checked (it is good for
anybody who has it, hence a secret) and made https; a request for it is sent, without following redirects, and the head
of its response says how large the picture is. When that is known of all pictures of the message, room for them is
reserved; then their bytes are read one after another, and encoded as they come. Their first bytes tell what picture it
is. The room is given back when the caller is done. No error names an address.
"""

from __future__ import annotations

import asyncio
import socket
from binascii import b2a_base64
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

import aiohttp
from yarl import URL

from claw.budget import ByteBudget
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
"""Seconds for the head of one picture, and again for its bytes."""
HEAD_BYTES: Final = 12
"""Bytes by which the kind of a picture is told."""


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as models take it: a `data:` URL."""

    url: str = field(repr=False)


@dataclass(slots=True)
class _File:
    """A picture at its address: asked for, its bytes not read; without `response` it has to be asked for again."""

    url: URL
    size: int
    """Bytes that its head told, else the most that are taken."""
    response: aiohttp.ClientResponse | None

    def close(self) -> None:
        if self.response is not None:
            self.response.close()
            self.response = None


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
    """Fetches pictures. `endpoints`: the configured ones, whose origins may serve files even inside the network.

    `budget` counts the bytes of the `data:` URLs that are held; what is made of them to be sent, its limit allows for.
    """

    def __init__(
        self,
        client: DingTalkClient,
        openapi: OpenApiClient,
        endpoints: tuple[str, ...],
        budget: ByteBudget,
        *,
        timeout_s: float = FETCH_TIMEOUT_S,
        max_bytes: int = PICTURE_MAX_BYTES,
    ) -> None:
        self._client = client
        self._openapi = openapi
        self._policy = UrlPolicy(endpoints)
        self._budget = budget
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes

    @asynccontextmanager
    async def hold(self, inbound: Inbound) -> AsyncIterator[list[Picture]]:
        """Fetch the first four pictures of a message, in its order, and hold the room that they take.

        Waits for that room. Raises MediaError where one cannot be had. The list is empty afterwards: whoever keeps a
        picture of it for longer takes room that others are told is free.
        """
        files: list[_File] = []
        with ExitStack() as closing:
            for media in [each for each in inbound.media if each.kind is MediaKind.PICTURE][:PICTURES_MAX]:
                # One after another, so that the first that cannot be had saves the calls for the others.
                file = _unwrap(await self._open(inbound.robot_code, media))
                closing.callback(file.close)
                files.append(file)
            # In one piece: who held a part and waited for more could wait for somebody who does the same.
            room = sum(_measure_data_url(file.size) for file in files)
            if self._budget.used and self._budget.used + room > self._budget.limit:
                # No server waits for as long as that may take: it would end the response in its middle.
                closing.close()
            async with self._budget.reserve(room):
                pictures = [_unwrap(await self._read(file)) for file in files]
                try:
                    yield pictures
                finally:
                    # A frame that still names the list, of an error's traceback for example, would keep them all.
                    pictures.clear()

    async def load(self, inbound: Inbound) -> list[str]:
        """Fetch as `hold` does, and give the room back at once. Raises MediaError."""
        async with self.hold(inbound) as pictures:
            return [picture.url for picture in pictures]

    async def _open(self, robot_code: str, media: Media) -> _File | MediaError:
        """Ask for a file. Errors are returned, lest the library's, which name addresses, hide behind them."""
        try:
            link = await self._openapi.get_download_url(robot_code, media.code)
        except DingTalkError as error:
            return MediaError(f"DingTalk gave no address for the picture: {error.detail}")
        try:
            # Over the look-up as well: a name server can hang as a file server can.
            async with deadline(self._timeout_s):
                url = await self._resolve(link)
                if url is None:
                    return MediaError("the picture's address is not allowed")
                response = await self._request(url)
                return response if isinstance(response, MediaError) else _File(url, self._size_of(response), response)
        except (aiohttp.ClientError, OSError, ValueError, EOFError) as fault:
            return self._describe(fault)

    async def _request(self, url: URL) -> aiohttp.ClientResponse | MediaError:
        response = await self._client.get(url)
        # A head that promises too much is believed; one that promises less is held to it (`_encode`).
        if response.status == 200 and self._size_of(response) <= self._max_bytes:
            return response
        response.close()
        if response.status != 200:
            return MediaError(f"the picture could not be fetched (HTTP {response.status})")
        return self._describe_size()

    def _size_of(self, response: aiohttp.ClientResponse) -> int:
        length = response.content_length
        return self._max_bytes if length is None else length

    async def _read(self, file: _File) -> Picture | MediaError:
        """Read a file's bytes, no more than there is room for. Errors are returned, as by `_open`."""
        try:
            async with deadline(self._timeout_s):
                response = file.response or await self._request(file.url)
                if isinstance(response, MediaError):
                    return response
                async with response:
                    return await self._encode(response, file.size)
        except (aiohttp.ClientError, OSError, ValueError, EOFError) as fault:
            return self._describe(fault)

    async def _encode(self, response: aiohttp.ClientResponse, size: int) -> Picture | MediaError:
        """Encode a body as it comes, so that it is never held beside what is made of it."""
        url = bytearray()
        left = b""
        read = 0
        async for chunk in response.content.iter_any():
            read += len(chunk)
            if read > size:
                response.close()
                return self._describe_size()
            left += chunk
            if not url and len(left) >= HEAD_BYTES:
                mime = detect_mime(left)
                if mime is None:
                    response.close()
                    return _make_no_picture()
                url += f"data:{mime};base64,".encode()
            if url:
                # Three bytes make four characters: what is over waits for the next chunk.
                whole = len(left) - len(left) % 3
                url += b2a_base64(left[:whole], newline=False)
                left = left[whole:]
        if not url:
            return _make_no_picture()
        url += b2a_base64(left, newline=False)
        # The one moment in which two copies of a picture are there; of one picture, not of all of its message.
        return Picture(url.decode("ascii"))

    def _describe(self, fault: Exception) -> MediaError:
        if isinstance(fault, TimeoutError):
            return MediaError(f"the picture did not come within {self._timeout_s:g} s")
        return MediaError(f"the picture could not be fetched ({type(fault).__name__})")

    def _describe_size(self) -> MediaError:
        return MediaError(f"the picture is larger than {self._max_bytes // (1024 * 1024)} MB")

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


def _unwrap(found: _T | MediaError) -> _T:
    if isinstance(found, MediaError):
        raise found
    return found


def _measure_data_url(size: int) -> int:
    """Count the bytes of a `data:` URL that stands for so many."""
    return 4 * (size // 3 + 1) + len("data:image/jpeg;base64,")


def _make_no_picture() -> MediaError:
    return MediaError("the file is no picture that can be read (PNG, JPEG, GIF, WebP, BMP)")
