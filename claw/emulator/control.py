"""The emulator's own HTTP API under `/_/` and its page: say something, look at everything, turn faults on.

Order of events: the guard refuses what another site's page could send (a foreign Origin, a Host that is not ours, as
after DNS rebinding); then each call reads its JSON strictly and answers JSON, errors as `{"error": "…"}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from claw.emulator.actions import ActionError, Actions
from claw.emulator.cards import FakeCardApi
from claw.emulator.chats import Chats, Person, UnknownError
from claw.emulator.faults import FaultError, Faults
from claw.emulator.feed import Feed
from claw.emulator.files import Files
from claw.emulator.month import FakeMonth
from claw.emulator.people import People
from claw.emulator.presses import FakePresses
from claw.emulator.responses import NO_OBJECT, as_text, read_json, reply_json

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


PAGE: Final = pathlib.Path(__file__).parent / "page"
CONTENT_TYPES: Final = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")
READY_TIMEOUT_S: Final = 2.0
"""Seconds that the service's `/ready` gets."""
HEARTBEAT_S: Final = 15.0
"""Between comments on a quiet event stream, so that a page that has gone is noticed."""
CSP: Final = (
    "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'"
)
"""The last one: no text ever becomes markup, not even by a slip of the page's own."""


SAY: Final[Mapping[str, type]] = {
    **dict.fromkeys(("from", "chat", "text", "msgtype", "quote", "client"), str),
    **dict.fromkeys(("at_robot", "bare_quote", "named"), bool),
    **dict.fromkeys(("at", "forward"), list),
    "content": dict,
}
PERSON: Final[Mapping[str, type]] = {"id": str, "nick": str, "staffId": str, "isAdmin": bool, "external": bool}
PRESS: Final[Mapping[str, type]] = {"person": str, "action": str, "params": dict}
GROUP: Final[Mapping[str, type]] = {"id": str, "title": str}


class BadRequestError(Exception):
    """The call's JSON is not what it has to be."""


class Control:
    def __init__(
        self,
        *,
        chats: Chats,
        people: People,
        files: Files,
        faults: Faults,
        feed: Feed,
        actions: Actions,
        cards: FakeCardApi,
        presses: FakePresses,
        month: FakeMonth,
        read_state: Callable[[], dict[str, Any]],
        reset: Callable[[], None],
        allowed_hosts: Sequence[str],
    ) -> None:
        self._chats = chats
        self._people = people
        self._files = files
        self._faults = faults
        self._feed = feed
        self._actions = actions
        self._cards = cards
        self._presses = presses
        self._month = month
        self._read_state = read_state
        self._reset_all = reset
        # An address that stands for all addresses is no name that a browser sends.
        self._names = {*LOCAL_NAMES, *allowed_hosts} - {"0.0.0.0", "::", ""}  # noqa: S104 - names, nothing is bound

    def add_routes(self, app: web.Application) -> None:
        router = app.router
        router.add_get("/", self._get_index)
        router.add_get("/page/{name}", self._get_file)
        router.add_get("/favicon.ico", self._get_favicon)
        router.add_get("/_/state", self._get_state)
        router.add_get("/_/events", self._stream_events)
        router.add_get("/_/ready", self._ask_ready)
        router.add_get("/_/chats", self._list_chats)
        router.add_get("/_/chats/{chat:.+}/messages", self._list_messages)
        router.add_post("/_/say", self._say)
        router.add_post("/_/people", self._add_person)
        router.add_post("/_/groups", self._add_group)
        router.add_post("/_/files", self._add_file)
        router.add_get("/_/files/{key}", self._files.show)
        router.add_get("/_/faults", self._get_faults)
        router.add_post("/_/faults", self._set_faults)
        router.add_delete("/_/faults", self._reset_faults)
        router.add_get("/_/cards", self._list_cards)
        router.add_get("/_/cards/{card}", self._get_card)
        router.add_post("/_/cards/{card}/press", self._press)
        router.add_get("/_/templates", self._list_templates)
        router.add_post("/_/templates", self._set_template)
        router.add_get("/_/month", self._get_month)
        router.add_post("/_/month", self._set_month)
        router.add_post("/_/actions/{name}", self._act)
        router.add_post("/_/reset", self._reset)

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Keep other sites' pages away from the control API, and turn its errors into JSON."""
        # DingTalk's own paths are open to every Host: robots call the emulator by whatever name their network gives it.
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
        # A page of another site can let its name point to this machine (DNS rebinding); then the Host is that name.
        if name not in self._names:
            return False
        # Browsers send it with every POST. What sends none is no browser, and could reach the port in other ways, too.
        origin = request.headers.get("Origin")
        return origin is None or urlsplit(origin).netloc == request.host

    # --- the page ---

    async def _get_index(self, _request: web.Request) -> web.Response:
        return self._serve_page("index.html")

    async def _get_file(self, request: web.Request) -> web.Response:
        return self._serve_page(request.match_info["name"])

    async def _get_favicon(self, _request: web.Request) -> web.Response:
        return web.Response(status=204)

    def _serve_page(self, name: str) -> web.Response:
        path = PAGE / name
        # There are no folders in it: a name with `..` has another parent and is not found.
        if path.parent != PAGE or path.suffix not in CONTENT_TYPES or not path.is_file():
            return reply_json({"error": "no such file"}, status=404)
        headers = {"Content-Security-Policy": CSP, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
        content_type = CONTENT_TYPES[path.suffix]
        return web.Response(body=path.read_bytes(), content_type=content_type, charset="utf-8", headers=headers)

    # --- looking ---

    async def _get_state(self, _request: web.Request) -> web.Response:
        return reply_json(self._read_state())

    async def _list_chats(self, _request: web.Request) -> web.Response:
        return reply_json([chat.to_dict() for chat in self._chats.list_all()])

    async def _list_messages(self, request: web.Request) -> web.Response:
        chat = self._chats.chat(request.match_info["chat"])
        return reply_json([message.to_dict() for message in chat.messages])

    async def _stream_events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: message, connection, registration, push, frame, violation, faults, resync."""
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        )
        await response.prepare(request)
        queue = self._feed.subscribe()
        with contextlib.suppress(ConnectionError):
            try:
                # Something at once, so that the page knows that it is connected before anything happens.
                await response.write(b"retry: 1000\n: connected\n\n")
                while True:
                    try:
                        # None ends the stream: the emulator stops, and its shutdown must not wait for a page.
                        event = await asyncio.wait_for(queue.get(), HEARTBEAT_S)
                    except TimeoutError:
                        # Only a write finds out that the page has gone.
                        await response.write(b": still here\n\n")
                        continue
                    if event is None:
                        break
                    await response.write(b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n")
            finally:
                self._feed.unsubscribe(queue)
        return response

    async def _ask_ready(self, _request: web.Request) -> web.Response:
        """Ask the service that the page is about whether it is ready: the page itself may not, it is another origin."""
        url = self._read_state().get("service_url")
        if not url:
            return reply_json({"status": 0, "reason": "no service is known"})
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=READY_TIMEOUT_S)) as http,
                http.get(f"{str(url).rstrip('/')}/ready") as answer,
            ):
                body = await answer.json()
                reason = body.get("reason", "") if isinstance(body, dict) else ""
                return reply_json({"status": answer.status, "reason": str(reason)})
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            return reply_json({"status": 0, "reason": type(error).__name__})

    async def _list_cards(self, _request: web.Request) -> web.Response:
        return reply_json([card.to_dict() for card in self._cards.cards.values()])

    async def _get_card(self, request: web.Request) -> web.Response:
        return reply_json(self._cards.find(request.match_info["card"]).to_dict())

    async def _list_templates(self, _request: web.Request) -> web.Response:
        return reply_json(self._cards.templates.list_all())

    async def _get_month(self, _request: web.Request) -> web.Response:
        return reply_json(self._month.to_dict())

    # --- doing ---

    async def _press(self, request: web.Request) -> web.Response:
        """Press a button of a card as any person; the answer waits for the robot's, or for its deadline."""
        fields = await _read_fields(request, PRESS)
        press = await self._presses.press(request.match_info["card"], **fields)
        return reply_json(press.to_dict())

    async def _set_template(self, request: web.Request) -> web.Response:
        fields = await _read_object(request)
        template = self._cards.templates.set(as_text(fields.pop("id", "")), **fields)
        return reply_json(dataclasses.asdict(template))

    async def _set_month(self, request: web.Request) -> web.Response:
        self._month.set(await _read_object(request))
        return reply_json(self._month.to_dict())

    async def _say(self, request: web.Request) -> web.Response:
        fields = await _read_fields(request, SAY)
        for name in ("at", "forward"):
            if not all(isinstance(each, str) for each in fields.get(name, [])):
                raise BadRequestError(f"{name}: expected a list of ids")
        if "from" in fields:
            fields["person"] = fields.pop("from")
        said = await self._people.say(**fields)
        return reply_json({"msgId": said.msg_id, "delivered": said.delivered, "chat": said.message.chat})

    async def _add_person(self, request: web.Request) -> web.Response:
        fields = await _read_fields(request, PERSON)
        person_id = _check_name(fields)
        staff_id = None if fields.get("external") else fields.get("staffId", person_id)
        person = Person(person_id, fields.get("nick", person_id), staff_id, fields.get("isAdmin", False))
        self._chats.add_person(person)
        # The lists of people and chats are read as a whole; there is no event for a single one.
        self._feed.publish("resync", dict)
        return reply_json(person.to_dict(), status=201)

    async def _add_group(self, request: web.Request) -> web.Response:
        fields = await _read_fields(request, GROUP)
        group_id = _check_name(fields)
        if ":" in group_id:  # As in direct:<person>, whose chats are made with their person.
            raise BadRequestError("id: a group's id has no colon")
        chat = self._chats.add_group(group_id, fields.get("title", group_id))
        self._feed.publish("resync", dict)
        return reply_json(chat.to_dict(), status=201)

    async def _add_file(self, request: web.Request) -> web.Response:
        """Hold the raw body as a file that a message can carry by its download code."""
        content = await request.read()
        code = self._files.add(content, request.query.get("name", "file"), request.content_type)
        return reply_json({"downloadCode": code}, status=201)

    async def _get_faults(self, _request: web.Request) -> web.Response:
        return reply_json({"faults": self._faults.to_dict(), "switches": Faults.describe()})

    async def _set_faults(self, request: web.Request) -> web.Response:
        self._faults.update(await _read_object(request))
        return reply_json({"faults": self._faults.to_dict()})

    async def _reset_faults(self, _request: web.Request) -> web.Response:
        self._faults.reset()
        return reply_json({"faults": self._faults.to_dict()})

    async def _act(self, request: web.Request) -> web.Response:
        raw = await request.read()
        # No body is fine: then every parameter has its default.
        params = await _read_object(request) if raw else {}
        return reply_json(self._actions.act(request.match_info["name"], **params))

    async def _reset(self, _request: web.Request) -> web.Response:
        self._reset_all()
        return reply_json({})


async def _read_object(request: web.Request) -> dict[str, Any]:
    body = await read_json(request)
    if body is None:
        raise BadRequestError(NO_OBJECT)
    return body


async def _read_fields(request: web.Request, known: Mapping[str, type]) -> dict[str, Any]:
    """Read the fields that are there and not null. A misspelt one is an error: it would otherwise just not work."""
    body = await _read_object(request)
    for name, value in body.items():
        if name not in known:
            raise BadRequestError(f"unknown field {name!r}; known: {', '.join(sorted(known))}")
        if value is not None and not isinstance(value, known[name]):
            raise BadRequestError(f"{name}: expected {known[name].__name__}, got {type(value).__name__}")
    return {name: value for name, value in body.items() if value is not None}


def _check_name(fields: dict[str, Any]) -> str:
    name = str(fields.get("id", ""))
    if not name or not name.isprintable() or "/" in name:
        raise BadRequestError("id: a name of printable characters without a slash is needed")
    return name
