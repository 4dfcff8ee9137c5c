"""All live connections of the app: which there are, which takes the next push, and waiting for them.

Order of events: the gateway adds a connection after its upgrade and removes it when it has ended; every change wakes
who waits for connections and is published to the pages.
"""

from __future__ import annotations

import asyncio
import random

from aiohttp import web

from claw.emulator.connection import Connection, ConnectionState
from claw.emulator.feed import Feed
from claw.emulator.tickets import Ticket
from claw.emulator.watchers import Watchers


class Connections:
    """`live` by id; `count` is how many there ever were, closed ones included."""

    def __init__(self, *, feed: Feed, rng: random.Random) -> None:
        self.live: dict[str, Connection] = {}
        self.count = 0
        self._feed = feed
        self._rng = rng
        self._watchers = Watchers()

    def add(
        self, ticket_id: str, ticket: Ticket, ws: web.WebSocketResponse, transport: asyncio.Transport
    ) -> Connection:
        # Never reset: a connection's id has to mean one connection in every log, over a reset as well.
        self.count += 1
        connection = Connection(self.count, ticket_id, ticket.subscriptions, ws, transport)
        self.live[connection.id] = connection
        return connection

    def remove(self, connection: Connection) -> None:
        self.live.pop(connection.id, None)
        self.publish(connection)

    def publish(self, connection: Connection) -> None:
        """Tell the waiters and the pages that it opened, changed or ended."""
        self._watchers.wake()
        self._feed.publish("connection", connection.to_dict)

    def pick(self, kind: str, topic: str) -> Connection | None:
        """Choose one of those that subscribed to the topic, at random (docs/protocol.md section 4).

        A frozen one is among them: the real server, too, gives a dead socket its share until it notices.
        """
        fit = [
            each
            for each in self.live.values()
            if each.state is ConnectionState.OPEN and each.routed and (kind, topic) in each.subscriptions
        ]
        # At random and not in turn: the real one promises no fairness, so no client may count on it.
        return self._rng.choice(fit) if fit else None

    def find(self, connection_id: str | None) -> list[Connection]:
        """Find the live connection with that id; None means all of them."""
        # A connection that has ended is not found: an action on it would act on nothing without a word.
        if connection_id is None:
            return list(self.live.values())
        return [self.live[connection_id]] if connection_id in self.live else []

    async def wait_open(self, count: int = 1, *, timeout: float = 10.0) -> list[Connection]:
        """Wait for at least so many connections that take pushes. Raises TimeoutError after `timeout` seconds."""

        def find() -> list[Connection] | None:
            # Frozen ones do not count: who waits for connections wants to be answered on them.
            opened = [each for each in self.live.values() if each.state is ConnectionState.OPEN and not each.frozen]
            return opened if len(opened) >= count else None

        return await self._watchers.wait_for(find, timeout=timeout, failure=f"fewer than {count} connections")

    async def wait_none(self) -> None:
        """Wait until the last one has been removed; every one of them ends by itself once it is aborted."""
        await self._watchers.wait_for(lambda: None if self.live else True, timeout=None, failure="")
