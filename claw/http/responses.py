"""JSON answers: one form for every body, one for every error, and the headers that all of them carry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from claw.errors import ClawError

HEADERS: Final = {"Server": "claw", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""On every answer. aiohttp's own `Server` would tell its version and Python's."""


class ApiError(ClawError):
    """Raise it in a route to answer with `status` and a JSON body.

    `code` is for programs and stays the same over versions, `field` names the part of the request at fault, if one is.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.field = field
        self.headers = dict(headers or {})

    def to_response(self) -> web.Response:
        """Return `{"error": {"code": ..., "field": ..., "message": ...}}`."""
        body = {"error": {"code": self.code, "field": self.field, "message": self.message}}
        # `field` is always there, null where none is at fault: clients read one shape.
        return json_response(body, status=self.status, headers=self.headers)


async def read_json(request: web.Request) -> dict[str, Any]:
    """Return the body, a JSON object. Raises ApiError 400."""
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError):
        raise ApiError(400, "bad_json", "the body must be JSON in UTF-8") from None
    if not isinstance(body, dict):
        raise ApiError(400, "bad_json", "the body must be a JSON object")
    return body


def read_limit(request: web.Request, *, name: str = "limit", default: int, most: int) -> int:
    """Return a number of the query, from 1 to `most`. Raises ApiError 400."""
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most):
        raise ApiError(400, "bad_number", f"must be a number from 1 to {most}", field=name)
    return int(text)


def json_response(
    body: Mapping[str, Any], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return `body` as UTF-8 JSON with HEADERS."""
    # Surrogates, which UTF-8 cannot hold, become the escapes that JSON has for them.
    data = json.dumps(body, ensure_ascii=False).encode("utf-8", "backslashreplace")
    # Bytes and not `text`: aiohttp would encode again, and fail at what is left of a surrogate.
    response = web.Response(status=status, body=data, content_type="application/json", charset="utf-8")
    response.headers.update(HEADERS | dict(headers or {}))
    return response
