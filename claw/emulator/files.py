"""Files: what people send (download codes) and what the robot uploads (media ids), held in memory and bounded.

Order of events: a file that somebody sends gets a download code; the robot trades it for a URL without
authentication; an upload gets a media id that a message may show (docs/protocol.md section 6.4).
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import struct
import time
import zlib
from collections.abc import Callable
from typing import Any, Final

from aiohttp import BodyPartReader, web

from claw.emulator.faults import Faults
from claw.emulator.responses import Hangs, RefusedError, as_text, reply_json
from claw.emulator.tokens import Tokens

MEGABYTE: Final = 1024 * 1024
TOTAL_MAX_BYTES: Final = 128 * MEGABYTE
"""What all files together may take; the oldest go first."""
LIMITS: Final = {
    "image": (20 * MEGABYTE, {"jpg", "jpeg", "gif", "png", "bmp"}),
    "voice": (2 * MEGABYTE, {"amr", "mp3", "wav"}),
    "video": (20 * MEGABYTE, {"mp4"}),
    "file": (20 * MEGABYTE, {"doc", "docx", "xls", "xlsx", "ppt", "pptx", "zip", "pdf", "rar"}),
}
"""Size and kinds by upload type (docs/protocol.md section 6.4)."""

FILE_HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"}
"""Anybody may have uploaded HTML: it must not act on the page's origin."""
SLICE_S: Final = 0.1
"""Between two pieces of a file that comes slowly."""


@dataclasses.dataclass(frozen=True)
class File:
    name: str
    content: bytes
    content_type: str


class Files:
    def __init__(self, *, tokens: Tokens, base_url: Callable[[], str], faults: Faults, hangs: Hangs) -> None:
        self._tokens = tokens
        self._faults = faults
        self._hangs = hangs
        self._base_url = base_url
        self._files: dict[str, File] = {}
        self._size = 0

    def add(self, content: bytes, name: str = "picture.png", content_type: str = "image/png") -> str:
        """Hold a file; return its download code."""
        # Not to be guessed, since `serve` asks for nothing else.
        return self._hold("dc" + secrets.token_urlsafe(24), File(name, content, content_type))

    def add_sample(self) -> str:
        """Hold a small picture, for whoever sends one without giving any; return its download code."""
        return self.add(make_png())

    def lend(self, media_id: str) -> str:
        """Return a download code for what was uploaded under that media id; empty if there is no such thing."""
        file = self._files.get(media_id)
        return self.add(file.content, file.name, file.content_type) if file else ""

    def _hold(self, key: str, file: File) -> str:
        # Bounded by bytes and not by number: pictures of 20 MB and of 2 kB come through the same call.
        self._files[key] = file
        self._size += len(file.content)
        while self._size > TOTAL_MAX_BYTES:
            oldest = next(iter(self._files))
            self._size -= len(self._files.pop(oldest).content)
        return key

    async def download(self, body: dict[str, Any]) -> dict[str, Any]:
        """`POST /v1.0/robot/messageFiles/download`."""
        code = as_text(body.get("downloadCode"))
        # Media ids lie in the same dict and are no download codes: the real one does not know them here either.
        if self._faults.take("file_expired") or code not in self._files or not code.startswith("dc"):
            raise RefusedError(400, "invalidParameter.robotCode.downloadCode", "downloadCode 错误或已过期")
        return {"downloadUrl": f"{self._base_url()}/files/{code}"}

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """`GET /files/{key}`: no authentication, as the real storage wants none."""
        take = self._faults.take
        await self._hangs.sleep(take("file_delay"), request)
        if status := take("file_status"):
            return web.Response(status=status, text="storage")
        file = self._files.get(request.match_info["key"])
        if file is None:
            return web.Response(status=404, text="no such file")
        length, rate = take("file_length"), take("file_rate")
        return await self._serve_oddly(request, file, length, rate) if length or rate else _reply_file(file)

    async def show(self, request: web.Request) -> web.Response:
        """`GET /_/files/{key}`: for the page. Past the faults, whose budgets are the robot's and not the browser's."""
        file = self._files.get(request.match_info["key"])
        return _reply_file(file) if file else web.Response(status=404, text="no such file")

    async def _serve_oddly(self, request: web.Request, file: File, length: str, rate: int) -> web.StreamResponse:
        """Serve a file under a Content-Length that lies, or slowly."""
        response = web.StreamResponse(headers=FILE_HEADERS)
        response.content_type = file.content_type
        size = len(file.content)
        if length != "none":
            response.content_length = {"longer": size * 2 + 1, "shorter": size // 2}.get(length, size)
        # What was announced and never comes is missed only when the connection ends.
        response.force_close()
        # The client may have enough of it at any moment.
        with contextlib.suppress(ConnectionError):
            await response.prepare(request)
            step = max(1, int(rate * SLICE_S)) if rate else max(1, size)
            for start in range(0, size, step):
                await response.write(file.content[start : start + step])
                await self._hangs.sleep(SLICE_S if rate else 0, request)
        return response

    async def upload(self, request: web.Request) -> web.Response:
        """`POST /media/upload?access_token=&type=`, multipart field `media`."""
        # The old API: its token is in the query, and its errors are HTTP 200 with an errcode.
        if not self._tokens.is_valid(request.query.get("access_token", "")):
            return reply_json({"errcode": 40014, "errmsg": "不合法的access_token"})
        kind = request.query.get("type", "")
        file: File | None = None
        if request.content_type == "multipart/form-data":
            async for part in await request.multipart():
                if not isinstance(part, BodyPartReader):
                    continue
                # The official Python SDK sends the type as a form field, others in the query.
                if part.name == "type" and not kind:
                    kind = await part.text()
                elif part.name == "media":
                    content_type = part.headers.get("Content-Type", "application/octet-stream").partition(";")[0]
                    file = File(part.filename or "", bytes(await part.read()), content_type)
        if file is None:
            return reply_json({"errcode": 40035, "errmsg": "缺少参数 media"})
        if kind not in LIMITS:
            return reply_json({"errcode": 40004, "errmsg": "无效的媒体文件类型"})
        size, kinds = LIMITS[kind]
        # By the name alone: whether the real one looks at the content is not known.
        if file.name.rpartition(".")[2].lower() not in kinds:
            return reply_json({"errcode": 40005, "errmsg": "无效的文件类型"})
        if not file.content or len(file.content) > size:
            return reply_json({"errcode": 40006, "errmsg": "无效的文件大小"})
        media_id = self._hold("@lAD" + secrets.token_urlsafe(12), file)
        created = int(time.time() * 1000)
        return reply_json({"errcode": 0, "errmsg": "ok", "type": kind, "media_id": media_id, "created_at": created})


def _reply_file(file: File) -> web.Response:
    return web.Response(body=file.content, content_type=file.content_type, headers=FILE_HEADERS)


def make_png(size: int = 48) -> bytes:
    """Draw a small blue picture, so that no binary file has to be shipped."""

    def make_chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    # Each row begins with its filter byte; a gradient, so that a scaled or cut picture is seen at once.
    rows = b"".join(
        b"\0" + bytes(value for x in range(size) for value in (40 + 3 * x, 110 + 2 * y, 230)) for y in range(size)
    )
    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + make_chunk(b"IHDR", head)
        + make_chunk(b"IDAT", zlib.compress(rows))
        + make_chunk(b"IEND", b"")
    )
