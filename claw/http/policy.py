"""The routes of chats and policies: `GET /api/chats`, `PUT /api/chats/{id}`, `GET /api/policy`, `PUT /api/policy`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final, Protocol

from aiohttp import web

from claw.audit import API, Note
from claw.chat_settings import ChatBook, ChatSettingError, ChatSettings
from claw.clock import format_rfc3339
from claw.http.responses import ApiError, json_response, read_json, read_limit
from claw.store.ports import ChatDirectory
from claw.store.values import Chat

CHATS_MAX: Final = 1_000
PROMPT_SHOWN_CHARS: Final = 60
"""Of a prompt in the audit."""


class PolicyChanger(Protocol):
    """Who knows and changes policies and lists (turn/policies.py)."""

    async def report(self) -> dict[str, Any]:
        """Return them as JSON. Raises StoreError."""
        ...

    async def change(self, changes: Mapping[str, Any]) -> None:
        """Change them. Raises ChatSettingError, which names the field at fault, and StoreError."""
        ...


def settings_json(settings: ChatSettings) -> dict[str, str | None]:
    """Return a chat's settings; null stands for the default."""
    return {name: value or None for name, value in asdict(settings).items()}


def chat_json(chat: Chat, settings: ChatSettings) -> dict[str, Any]:
    return {
        "id": chat.id,
        "kind": chat.kind.value,
        "title": chat.title,
        "first_seen": format_rfc3339(chat.first_seen),
        "last_seen": format_rfc3339(chat.last_seen),
        "messages": chat.messages,
        "settings": settings_json(settings),
    }


def routes(
    chats: ChatDirectory, book: ChatBook, policies: PolicyChanger, defaults: Mapping[str, str], note: Note
) -> list[web.RouteDef]:
    """Make the routes, an administrator's. `defaults`: what holds for a chat without settings of its own."""

    async def get_chats(request: web.Request) -> web.Response:
        found = await chats.chats(read_limit(request, default=200, most=CHATS_MAX))
        await book.refresh()
        listed = [chat_json(each, book.current(each.id)) for each in found]
        return json_response({"chats": listed, "models": list(book.choices.models), "defaults": dict(defaults)})

    async def put_chat(request: web.Request) -> web.Response:
        chat_id, changes = request.match_info["id"], await read_json(request)
        # Only chats that are known: a mistyped id would keep settings for a chat that does not exist, for ever.
        chat = next((each for each in await chats.chats(CHATS_MAX) if each.id == chat_id), None)
        if chat is None:
            raise ApiError(404, "unknown_chat", "the robot was not written to in such a chat")
        if not changes:
            raise ApiError(400, "bad_field", "nothing to change")
        try:
            settings = await book.change(chat_id, chat.kind, changes)
        except ChatSettingError as error:
            raise _bad(error) from None
        told = ", ".join(f"{name}={str(value)[:PROMPT_SHOWN_CHARS]}" for name, value in changes.items())
        await note(API, "chat", chat_id, told)
        return json_response(chat_json(chat, settings))

    async def get_policy(_: web.Request) -> web.Response:
        return json_response(await policies.report())

    async def put_policy(request: web.Request) -> web.Response:
        changes = await read_json(request)
        try:
            await policies.change(changes)
        except ChatSettingError as error:
            raise _bad(error) from None
        told = ", ".join(f"{name}={_shorten(value)}" for name, value in changes.items())
        await note(API, "policy", "", told)
        return json_response(await policies.report())

    return [
        web.get("/api/chats", get_chats),
        web.put("/api/chats/{id}", put_chat),
        web.get("/api/policy", get_policy),
        web.put("/api/policy", put_policy),
    ]


def _bad(error: ChatSettingError) -> ApiError:
    return ApiError(400, "bad_field", str(error), field=error.field[:40])


def _shorten(value: Any) -> str:
    return f"{len(value)} people" if isinstance(value, list) else str(value)[:PROMPT_SHOWN_CHARS]
