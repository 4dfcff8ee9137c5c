"""Registration: who may connect, and the ticket that opens one WebSocket.

Order of events: `open` checks the credentials and the subscriptions, and hands out a ticket; `redeem` takes it back
when the WebSocket is upgraded. A ticket lives 90 s and works once (docs/protocol.md section 1.1 to 1.4).
"""

from __future__ import annotations

import collections
import dataclasses
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from claw.emulator.faults import Faults
from claw.emulator.feed import Feed
from claw.emulator.responses import NO_OBJECT, Hangs, RefusedError, as_text, read_json, reply_html, reply_json

TICKET_LIFETIME_S: Final = 90.0
"""docs/protocol.md section 1.2."""
AUTH_FAILED: Final = "鉴权失败"
WRONG_ENDPOINT: Final = "ws://127.0.0.1:9/connect"
"""Port 9 (discard): nobody listens there."""


class AppCredentials:
    """The one app that the emulator knows. An id or a secret of None accepts any.

    `on_adopt` is called with the client id that was taken over from the first client.
    """

    def __init__(self, client_id: str | None, client_secret: str | None, *, on_adopt: Callable[[str], None]) -> None:
        self.client_id = client_id
        self.client_secret = client_secret
        self._on_adopt = on_adopt

    def accept(self, client_id: str, client_secret: str) -> bool:
        """Say whether these are the app's; an emulator without a client id adopts the first one that it sees."""
        if not client_id or not client_secret or self.client_secret not in {None, client_secret}:
            return False
        if self.client_id is None:
            # From here on a second robot with another id is refused, as the real app would refuse it: two robots on
            # one emulator by mistake would otherwise share each other's messages without a word.
            self.client_id = client_id
            self._on_adopt(client_id)
        return client_id == self.client_id


@dataclasses.dataclass(frozen=True)
class Ticket:
    expires: float
    """Monotonic seconds."""
    subscriptions: frozenset[tuple[str, str]]
    """Pairs of type and topic."""


class Tickets:
    """`registrations` remembers the last `keep` calls by monotonic seconds; `count` and `in_flight_max` all of them."""

    def __init__(self, *, app: AppCredentials, faults: Faults, feed: Feed, hangs: Hangs, keep: int) -> None:
        self.base_url = ""
        """`http://host:port` as clients see it, for the endpoint and all other URLs that are handed out."""
        self.is_base_url_learnt = True
        """Take it from what the last client itself called the emulator."""
        self.registrations: collections.deque[float] = collections.deque(maxlen=keep)
        self.count = 0
        self.last_status = 0
        """HTTP status of the last answer; 0 before the first."""
        self.in_flight = 0
        self.in_flight_max = 0
        self._app = app
        self._faults = faults
        self._feed = feed
        self._hangs = hangs
        self._tickets: dict[str, Ticket] = {}

    async def open(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1.0/gateway/connections/open` (docs/protocol.md section 1.1 to 1.3)."""
        self.registrations.append(time.monotonic())
        self.count += 1
        self.in_flight += 1
        # More than one at a time is how a client without a single supervisor betrays itself after an outage.
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        self._feed.publish("registration", lambda: {"count": self.count})
        try:
            # Faults come before the check: an overloaded gateway does not look at credentials either.
            response = await self._fail(request) or await self._open(request)
        except RefusedError as error:
            response = error.reply()
        finally:
            self.in_flight -= 1
        self.last_status = response.status
        return response

    async def _open(self, request: web.Request) -> web.Response:
        body = await read_json(request)
        if body is None:
            raise RefusedError(400, "invalidParameter", NO_OBJECT)
        # clientId and clientSecret here, appKey and appSecret in the token call: that is how the real ones are named.
        if not self._app.accept(as_text(body.get("clientId")), as_text(body.get("clientSecret"))):
            raise RefusedError(401, "authFailed", AUTH_FAILED)
        ticket = self._issue(_read_subscriptions(body))
        if self.is_base_url_learnt:
            # A robot in a container knows this machine under another name: what it called must be what it is sent to.
            self.base_url = f"http://{request.host}"
        endpoint = self.base_url.replace("http", "ws", 1) + "/connect"
        if self._faults.take("gateway_wrong_endpoint"):
            endpoint = WRONG_ENDPOINT
        if "json" not in request.headers.get("Accept", ""):
            # The real one answers XML unless JSON is asked for (docs/protocol.md section 1.1, the Node SDK's comment).
            fields = f"<endpoint>{endpoint}</endpoint><ticket>{ticket}</ticket>"
            text = f"<connectionOpenResponse>{fields}</connectionOpenResponse>"
            return web.Response(text=text, content_type="application/xml")
        return reply_json({"endpoint": endpoint, "ticket": ticket})

    async def _fail(self, request: web.Request) -> web.Response | None:
        """Fail as the switches say; None if none is on."""
        take = self._faults.take
        if take("gateway_hang"):
            return await self._hangs.hang(request)
        await self._hangs.sleep(take("gateway_delay"))
        if take("gateway_html"):
            return reply_html()
        # Read, not taken: it goes with the status, whose budget counts.
        retry_after = self._faults.gateway_retry_after
        status = take("gateway_status")
        if status:
            headers = {"Retry-After": f"{retry_after:g}"} if retry_after and status in {429, 503} else None
            # The gateway's 401 has words of its own; every other error is the API front's.
            code, message = ("authFailed", AUTH_FAILED) if status == 401 else ("", "")
            raise RefusedError(status, code, message, headers=headers)
        return None

    def _issue(self, subscriptions: frozenset[tuple[str, str]]) -> str:
        ticket, now = str(uuid.uuid1()), time.monotonic()
        # All live equally long, so the oldest expire first: the dict never holds more than 90 s of registrations.
        while self._tickets and next(iter(self._tickets.values())).expires < now:
            del self._tickets[next(iter(self._tickets))]
        # A version-1 UUID, as the real one's: logs of clients mask secrets by such shapes.
        self._tickets[ticket] = Ticket(now + TICKET_LIFETIME_S, subscriptions)
        return ticket

    def redeem(self, ticket_id: str) -> Ticket:
        """Use the ticket up. Raises RefusedError if it is unknown, was used before or has expired."""
        # Taken out whether it is still good or not: of two upgrades with one ticket the second has to fail.
        ticket = self._tickets.pop(ticket_id, None)
        if ticket is None or ticket.expires < time.monotonic():
            # Which status the real one has for it is unknown, so it is a switch (docs/protocol.md section 1.4).
            raise RefusedError(self._faults.take("bad_ticket_status"), "authFailed", AUTH_FAILED)
        return ticket

    def forget(self) -> None:
        """Empty the log; tickets that were handed out stay good."""
        self.registrations.clear()
        self.count = self.last_status = 0
        self.in_flight_max = self.in_flight


def _read_subscriptions(body: dict[str, Any]) -> frozenset[tuple[str, str]]:
    """Read the pairs of type and topic (docs/protocol.md section 1.1)."""
    subscriptions = body.get("subscriptions")
    if not isinstance(subscriptions, list) or not subscriptions:
        raise RefusedError(400, "invalidParameter", "subscriptions is missing")
    for each in subscriptions:
        if not (isinstance(each, dict) and isinstance(each.get("type"), str) and isinstance(each.get("topic"), str)):
            raise RefusedError(400, "invalidParameter", "a subscription needs type and topic")
        if each["type"] == "EVENT" and each["topic"] != "*":
            # Which events come is chosen in the developer console, never by the client.
            raise RefusedError(400, "invalidParameter", "an EVENT subscription has the topic *")
        if each["type"] not in {"EVENT", "CALLBACK", "SYSTEM"}:
            raise RefusedError(400, "invalidParameter", f"unknown subscription type {each['type'][:20]}")
    return frozenset((each["type"], each["topic"]) for each in subscriptions)
