"""The routes by which programs have claw say something: `POST /send`, `GET /send/{id}` (docs/http-api.md).

Order of events: the body is checked field by field, the first fault is answered with 400 and the field's name. What is
accepted is durable, and answered with 202 and an id; what became of it is asked by that id. The same idempotency key
again is answered with the state of the first request, another text under it with 409.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from collections.abc import Mapping
from typing import Any, Final, Protocol

from aiohttp import web

from claw.audit import API, Note
from claw.clock import format_rfc3339
from claw.http.responses import ApiError, json_response, read_json
from claw.secret import hash_id
from claw.store.values import SendReceipt

SEND_MAX_BYTES: Final = 4 * 1024 * 1024
"""Of a body: a picture or a file may be in it."""
MARKDOWN_MAX_CHARS: Final = 100_000
KEY_MAX_CHARS: Final = 200
AT_MAX: Final = 50
NAME_MAX_CHARS: Final = 80
_FIELDS: Final = frozenset({"to", "markdown", "image", "file", "at", "idempotency_key"})
_STAFF_ID: Final = re.compile(r"[A-Za-z0-9._-][A-Za-z0-9._@-]{0,63}")
_CONVERSATION_ID: Final = re.compile(r"[A-Za-z0-9+/=_-]{4,200}")
_LINK: Final = re.compile(r"https://[^\s()<>\"]{1,2000}")
_DATA: Final = re.compile(r"data:image/(png|jpeg|gif|bmp|webp);base64,[A-Za-z0-9+/]+={0,2}")
_FILE_NAME: Final = re.compile(r"[^\x00-\x1f/\\\[\]()<>]{1,76}\.[A-Za-z0-9]{1,8}")


class Desk(Protocol):
    """Who accepts what programs send (inbox/sends.py). Methods raise StoreError."""

    async def accept(self, send_id: str, receiver: tuple[str, str], markdown: str) -> SendReceipt | None: ...

    async def find(self, send_id: str) -> SendReceipt | None: ...


def read_receiver(body: Mapping[str, Any]) -> tuple[str, str]:
    """Return user and conversation, one of which is empty. Raises ApiError."""
    to = body.get("to")
    if not isinstance(to, dict):
        raise _bad("to", 'must be an object: {"user": "STAFF_ID"} or {"conversation": "ID"}')
    if unknown := sorted(str(name) for name in to.keys() - {"user", "conversation"}):
        raise _bad(f"to.{unknown[0][:40]}", "unknown; user and conversation are known")
    if len(to) != 1:
        raise _bad("to", "must name either a user or a conversation")
    name, value = next(iter(to.items()))
    pattern = _STAFF_ID if name == "user" else _CONVERSATION_ID
    if not isinstance(value, str) or not pattern.fullmatch(value):
        shown = "the staff id of one person" if name == "user" else "a group's id, as `/chats` and `/id` tell it"
        raise _bad(f"to.{name}", f"must be {shown}")
    return (value, "") if name == "user" else ("", value)


def read_content(body: Mapping[str, Any]) -> str:
    """Return what is to be sent, as markdown. Raises ApiError."""
    kinds = [name for name in ("markdown", "image", "file") if body.get(name) is not None]
    # One thing a request: of two, one could be out and the other refused, and the receipt would have to say both.
    if len(kinds) != 1:
        raise _bad("markdown", "exactly one of markdown, image and file is needed")
    match kinds[0]:
        case "markdown":
            return _read_markdown(body["markdown"])
        case "image":
            return _read_image(body["image"])
    return _read_file(body["file"])


def _read_markdown(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _bad("markdown", "must be a text that is not empty")
    if len(value) > MARKDOWN_MAX_CHARS:
        raise _bad("markdown", f"may have {MARKDOWN_MAX_CHARS} characters at most")
    return value


def _read_image(value: Any) -> str:
    if not isinstance(value, str) or not (_LINK.fullmatch(value) or _DATA.fullmatch(value)):
        raise _bad("image", "must be an https:// link, or data:image/...;base64,...")
    return f"![image]({value})"


def _read_file(value: Any) -> str:
    if not isinstance(value, dict) or value.keys() not in ({"name", "url"}, {"name", "data"}):
        raise _bad("file", 'must be {"name": "report.pdf", "url": "https://..."} or {"name": ..., "data": BASE64}')
    name = value["name"]
    if not isinstance(name, str) or not _FILE_NAME.fullmatch(name):
        raise _bad("file.name", f"must be a name with an ending, of {NAME_MAX_CHARS} characters at most")
    if "url" in value:
        if not isinstance(value["url"], str) or not _LINK.fullmatch(value["url"]):
            raise _bad("file.url", "must be an https:// link")
        return f"[{name}]({value['url']})"
    if not isinstance(value["data"], str) or not _is_base64(value["data"]):
        raise _bad("file.data", "must be base64 that is not empty")
    return f"[{name}](data:application/octet-stream;base64,{value['data']})"


def _is_base64(text: str) -> bool:
    try:
        return bool(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error):
        return False


def read_mentions(body: Mapping[str, Any]) -> list[str]:
    """Return the staff ids of people whom the text names. Raises ApiError."""
    people = body.get("at", [])
    is_list = isinstance(people, list) and len(people) <= AT_MAX
    if not is_list or not all(isinstance(each, str) and _STAFF_ID.fullmatch(each) for each in people):
        raise _bad("at", f"must be a list of {AT_MAX} staff ids at most")
    return list(dict.fromkeys(people))


def read_id(body: Mapping[str, Any]) -> str:
    """Return the request's id, the same for the same idempotency key. Raises ApiError."""
    key = body.get("idempotency_key")
    if key is None:
        return secrets.token_hex(16)
    if not isinstance(key, str) or not key.strip() or len(key) > KEY_MAX_CHARS or not key.isprintable():
        raise _bad("idempotency_key", f"must be a text of 1 to {KEY_MAX_CHARS} printable characters")
    # The same over replicas and restarts, since it is the key by which a repeat is known.
    # Hashed: it becomes part of a path, and of a key in the store.
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def receipt_json(receipt: SendReceipt) -> dict[str, Any]:
    """Return what a program is told."""
    return {
        "id": receipt.id,
        "state": receipt.state.value,
        "accepted_at": format_rfc3339(receipt.accepted_at),
        "ended_at": format_rfc3339(receipt.ended_at),
        "process_query_keys": list(receipt.receipts),
        "error": receipt.error or None,
    }


def routes(desk: Desk, note: Note) -> list[web.RouteDef]:
    """Make the routes, an administrator's."""

    async def post_send(request: web.Request) -> web.Response:
        body = await read_json(request)
        if unknown := sorted(str(name) for name in body.keys() - _FIELDS):
            raise _bad(unknown[0][:40], f"unknown; known are: {', '.join(sorted(_FIELDS))}")
        user, conversation = read_receiver(body)
        text, people, send_id = read_content(body), read_mentions(body), read_id(body)
        # The content is checked before anything is kept: what is refused leaves no trace, and its key stays free.
        # By words alone: DingTalk's call for groups rings at nobody (docs/protocol.md section 6.4).
        named = " ".join(f"@{each}" for each in people if f"@{each}" not in text)
        receipt = await desk.accept(send_id, (user, conversation), f"{named}\n\n{text}" if named else text)
        if receipt is None:
            message = "this key was used for another text or receiver"
            raise ApiError(409, "idempotency_conflict", message, field="idempotency_key")
        await note(API, "send", hash_id(user or conversation), receipt.id)
        return json_response(receipt_json(receipt), status=202)

    async def get_send(request: web.Request) -> web.Response:
        receipt = await desk.find(request.match_info["id"])
        if receipt is None:
            raise ApiError(404, "unknown_send", "nothing of this id was sent within 7 days")
        return json_response(receipt_json(receipt))

    return [web.post("/send", post_send), web.get("/send/{id}", get_send)]


def _bad(field: str, message: str) -> ApiError:
    return ApiError(400, "bad_field", message, field=field)
