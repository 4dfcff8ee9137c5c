"""The emulator's own HTTP API under `/_/` and its page: say something, look at everything, turn faults on.

Order of events: the guard refuses what another site's page could send (a foreign Origin, a Host that is not ours, as
after DNS rebinding); then each call reads its JSON strictly and answers JSON, errors as `{"error": "…"}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from aiohttp import web

from claw.emulator.actions import ACTIONS, ActionError
from claw.emulator.chats import Person, UnknownError
from claw.emulator.faults import FaultError, Faults
from claw.emulator.responses import read_json, reply_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from claw.emulator import Emulator

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PAGE: Final = pathlib.Path(__file__).parent / "page"
CONTENT_TYPES: Final = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")
SHOWN_MAX: Final = 50
"""Pushes, acks and violations that the state shows."""
HEARTBEAT_S: Final = 15.0
"""Seconds between comments on a quiet event stream, so that a page that has gone is noticed."""
CSP: Final = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


class BadRequestError(Exception):
    """The call's JSON is not what it has to be."""


class Control:
    def __init__(self, emulator: Emulator, *, allowed_hosts: Sequence[str]) -> None:
        self._emulator = emulator
        self._names = {*LOCAL_NAMES, *allowed_hosts} - {"0.0.0.0", "::", ""}  # noqa: S104 - names, nothing is bound

    def add_routes(self, app: web.Application) -> None:
        router = app.router
        router.add_get("/", self._index)
        router.add_get("/page/{name}", self._file)
        router.add_get("/favicon.ico", self._favicon)
        router.add_get("/_/state", self._state)
        router.add_get("/_/events", self._events)
        router.add_get("/_/chats", self._chats)
        router.add_get("/_/chats/{chat:.+}/messages", self._messages)
        router.add_post("/_/say", self._say)
        router.add_post("/_/people", self._add_person)
        router.add_post("/_/groups", self._add_group)
        router.add_post("/_/files", self._add_file)
        router.add_get("/_/faults", self._faults)
        router.add_post("/_/faults", self._set_faults)
        router.add_delete("/_/faults", self._reset_faults)
        router.add_post("/_/actions/{name}", self._act)
        router.add_post("/_/reset", self._reset)

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Keep other sites' pages away from the control API, and turn its errors into JSON."""
        own = request.path.startswith(("/_/", "/page/")) or request.path == "/"
        if not own:
            return await handler(request)
        if not self._is_ours(request):
            return reply_json({"error": "this Host or Origin may not use the control API"}, status=403)
        try:
            return await handler(request)
        except UnknownError as error:
            return reply_json({"error": str(error)}, status=404)
        except (BadRequestError, FaultError, ActionError) as error:
            return reply_json({"error": str(error)}, status=400)

    def _is_ours(self, request: web.Request) -> bool:
        try:
            name = urlsplit(f"//{request.host}").hostname
        except ValueError:
            return False
        if name not in self._names:
            return False
        origin = request.headers.get("Origin")
        return origin is None or urlsplit(origin).netloc == request.host

    # The page

    async def _index(self, _request: web.Request) -> web.Response:
        return self._page("index.html")

    async def _file(self, request: web.Request) -> web.Response:
        return self._page(request.match_info["name"])

    async def _favicon(self, _request: web.Request) -> web.Response:
        return web.Response(status=204)

    def _page(self, name: str) -> web.Response:
        path = PAGE / name
        if path.parent != PAGE or path.suffix not in CONTENT_TYPES or not path.is_file():
            return reply_json({"error": "no such file"}, status=404)
        headers = {"Content-Security-Policy": CSP, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
        content_type = CONTENT_TYPES[path.suffix]
        return web.Response(body=path.read_bytes(), content_type=content_type, charset="utf-8", headers=headers)

    # Looking

    async def _state(self, _request: web.Request) -> web.Response:
        return reply_json(self.state())

    def state(self) -> dict[str, Any]:
        """Everything at one glance; secrets in frames are masked."""
        emulator = self._emulator
        return {
            "url": emulator.url,
            "robot_code": emulator.robot_code,
            "service_url": emulator.service_url,
            "people": [person.to_dict() for person in emulator.chats.people.values()],
            "chats": [chat.to_dict() for chat in emulator.chats.all()],
            "webhook": {"calls": dict(emulator.webhook.calls), "month": emulator.webhook.month},
            "openapi": {
                "calls": dict(emulator.openapi.calls),
                "outcomes": dict(emulator.openapi.outcomes),
                "month": emulator.openapi.month,
                "tokens_fetched": emulator.tokens.fetched,
            },
            "model": {
                "requests": emulator.model.count,
                "in_flight": emulator.model.in_flight,
                "in_flight_max": emulator.model.in_flight_max,
            },
            "cards": [card.to_dict() for card in list(emulator.cards.cards.values())[-SHOWN_MAX:]],
            "replies": emulator.replies.count,
            "faults": emulator.faults.to_dict(),
            "active_faults": emulator.faults.active(),
            "actions": {name: {"zh": zh, "en": en} for name, (zh, en) in ACTIONS.items()},
        } | emulator.gateway.to_dict()

    async def _chats(self, _request: web.Request) -> web.Response:
        return reply_json([chat.to_dict() for chat in self._emulator.chats.all()])

    async def _messages(self, request: web.Request) -> web.Response:
        chat = self._emulator.chats.chat(request.match_info["chat"])
        return reply_json([message.to_dict() for message in chat.messages])

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: message, connection, registration, push, frame, violation, faults, resync."""
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        )
        await response.prepare(request)
        queue = self._emulator.feed.subscribe()
        with contextlib.suppress(ConnectionError):
            try:
                await response.write(b"retry: 1000\n: connected\n\n")
                while True:
                    try:
                        event = await asyncio.wait_for(queue.get(), HEARTBEAT_S)
                    except TimeoutError:
                        await response.write(b": still here\n\n")
                        continue
                    if event is None:
                        break
                    await response.write(b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n")
            finally:
                self._emulator.feed.unsubscribe(queue)
        return response

    # Doing

    async def _say(self, request: web.Request) -> web.Response:
        body = await _object(request)
        known = {"from", "chat", "text", "at_robot", "at", "msgtype", "content", "quote"}
        _only(body, known)
        at = body.get("at", [])
        if not isinstance(at, list) or not all(isinstance(one, str) for one in at):
            raise BadRequestError("at: expected a list of person ids")
        said = await self._emulator.say(
            _field(body, "text", str, ""),
            person=_field(body, "from", str, "u-1001"),
            chat=_field(body, "chat", str, "direct"),
            at_robot=_field(body, "at_robot", bool, default=True),
            at=at,
            msgtype=_field(body, "msgtype", str, "text"),
            content=_field(body, "content", dict, None),
            quote=_field(body, "quote", str, None),
        )
        return reply_json({"msgId": said.msg_id, "delivered": said.delivered, "chat": said.message.chat})

    async def _add_person(self, request: web.Request) -> web.Response:
        body = await _object(request)
        _only(body, {"id", "nick", "staffId", "isAdmin", "external"})
        person_id = _name(body, "id")
        external = _field(body, "external", bool, default=False)
        staff = None if external else _field(body, "staffId", str, person_id)
        person = Person(
            person_id, _field(body, "nick", str, person_id), staff, _field(body, "isAdmin", bool, default=False)
        )
        self._emulator.chats.add_person(person)
        self._emulator.feed.publish("resync", dict)
        return reply_json(person.to_dict(), status=201)

    async def _add_group(self, request: web.Request) -> web.Response:
        body = await _object(request)
        _only(body, {"id", "title"})
        group_id = _name(body, "id")
        if ":" in group_id:
            raise BadRequestError("id: a group's id has no colon")
        chat = self._emulator.chats.add_group(group_id, _field(body, "title", str, group_id))
        self._emulator.feed.publish("resync", dict)
        return reply_json(chat.to_dict(), status=201)

    async def _add_file(self, request: web.Request) -> web.Response:
        """The raw body becomes a file that a message can carry by its download code."""
        content = await request.read()
        code = self._emulator.files.add(content, request.query.get("name", "file"), request.content_type)
        return reply_json({"downloadCode": code}, status=201)

    async def _faults(self, _request: web.Request) -> web.Response:
        return reply_json({"faults": self._emulator.faults.to_dict(), "switches": Faults.describe()})

    async def _set_faults(self, request: web.Request) -> web.Response:
        self._emulator.faults.update(await _object(request))
        return reply_json({"faults": self._emulator.faults.to_dict()})

    async def _reset_faults(self, _request: web.Request) -> web.Response:
        self._emulator.faults.reset()
        return reply_json({"faults": self._emulator.faults.to_dict()})

    async def _act(self, request: web.Request) -> web.Response:
        raw = await request.read()
        params = await _object(request) if raw else {}
        return reply_json(self._emulator.actions.act(request.match_info["name"], params))

    async def _reset(self, _request: web.Request) -> web.Response:
        self._emulator.reset()
        return reply_json({})


async def _object(request: web.Request) -> dict[str, Any]:
    body = await read_json(request)
    if body is None:
        raise BadRequestError("the body is not a JSON object")
    return body


def _only(body: dict[str, Any], known: set[str]) -> None:
    unknown = sorted(set(body) - known)
    if unknown:
        raise BadRequestError(f"unknown field {unknown[0]!r}; known: {', '.join(sorted(known))}")


def _field(body: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise BadRequestError(f"{name}: expected {kind.__name__}, got {type(value).__name__}")
    return value


def _name(body: dict[str, Any], name: str) -> str:
    value = _field(body, name, str, "")
    if not value or not value.isprintable() or "/" in value:
        raise BadRequestError(f"{name}: a name of printable characters without a slash is needed")
    return str(value)
