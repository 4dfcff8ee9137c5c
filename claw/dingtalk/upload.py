"""Uploads: a picture or file becomes a `mediaId`, by which messages show it (docs/protocol.md section 6.4)."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import aiohttp
from yarl import URL

from claw.dingtalk.openapi import OpenApiClient
from claw.dingtalk.quota import Api
from claw.errors import DingTalkError, DingTalkReason

UPLOAD_MAX_BYTES: Final = 20 * 1024 * 1024
"""Bytes of a picture or file that DingTalk takes."""
NAME_MAX_CHARS: Final = 120


class UploadKind(StrEnum):
    """`type` of the upload."""

    IMAGE = "image"
    FILE = "file"


class UploadClient:
    """Uploads to the old API. `endpoint` is DINGTALK_OAPI_ENDPOINT."""

    def __init__(self, openapi: OpenApiClient, endpoint: str) -> None:
        self._openapi = openapi
        self._url = URL(f"{endpoint.rstrip('/')}/media/upload")

    async def upload(self, kind: UploadKind, name: str, content: bytes, mime: str) -> str:
        """Upload a file; return its `mediaId`. Raises DingTalkError."""
        if len(content) > UPLOAD_MAX_BYTES:
            raise DingTalkError(Api.UPLOAD, "the file is too large", reason=DingTalkReason.TOO_LONG)

        # Anew for each try: a form that was sent once is used up.
        def make_form() -> aiohttp.MultipartWriter:
            form = aiohttp.MultipartWriter("form-data")
            part = form.append(content, {"Content-Type": mime})
            part.set_content_disposition("form-data", name="media", filename=name[:NAME_MAX_CHARS])
            return form

        body = await self._openapi.upload(self._url, make_form, type=kind.value)
        return str(body["media_id"])
