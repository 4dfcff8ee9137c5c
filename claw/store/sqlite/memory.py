"""What is remembered between messages, in the file: history, items, chats, quotas and usage.

Reads and writes go to the writer's thread in the order of the calls. Items alone are answered from memory: nobody else
holds the file, and each message asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from claw.clock import Clock
from claw.messages import Exchange
from claw.store.codec import encode
from claw.store.lifecycle import Lifecycle
from claw.store.ports import EPOCH_TOUCH_S, REPLICA_LIFE_S, Chat, Replica
from claw.store.sqlite import epochs, queries
from claw.store.sqlite.queries import to_sql_text
from claw.store.sqlite.writer import JobKind, Writer

T = TypeVar("T")


class SqliteMemory:
    """That part of a `SqliteStore` which knows nothing of queues."""

    _writer: Writer

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._life = Lifecycle()
        self._items: dict[str, str] = {}
        """All items, as they are in the file."""
        self._is_lost = False
        self._self: Replica | None = None

    async def exchanges(self, history_key: str, limit: int) -> list[Exchange]:
        said = await self._read(queries.exchanges, to_sql_text(history_key), max(limit, 0))
        return [Exchange(history_key, user, assistant) for user, assistant in said]

    async def epoch(self, history_key: str) -> str:
        # A read with each message, and a write once a day: a commit would make every turn wait for the disk.
        name, used_at = await self._read(epochs.epoch, to_sql_text(history_key))
        now = self._clock.wall()
        if now - used_at < EPOCH_TOUCH_S:
            return name
        return await self._write(epochs.touch_epoch, to_sql_text(history_key), now)

    async def forget(self, history_key: str) -> str:
        return await self._write(epochs.forget, to_sql_text(history_key), self._clock.wall())

    async def items(self, prefix: str = "") -> dict[str, str]:
        """As the port says, without a change of thread: what was set counts once it is on the disk."""
        self._life.require_open()
        return {name: value for name, value in self._items.items() if name.startswith(prefix)}

    async def set(self, name: str, value: str) -> None:
        await self._write(queries.set_item, encode(name), encode(value), on_commit=lambda _: self._on_set(name, value))

    async def set_if_absent(self, name: str, value: str) -> str:
        """As the port says. Not decided in memory, which does not know of a `delete` that is on its way."""
        return await self._write(
            queries.set_item_if_absent,
            encode(name),
            encode(value),
            on_commit=lambda found: self._on_set(name, found),
        )

    async def delete(self, *names: str) -> None:
        await self._write(
            queries.delete_items, [encode(name) for name in names], on_commit=lambda _: self._on_deleted(names)
        )

    async def chats(self, limit: int = 50) -> list[Chat]:
        return await self._read(queries.chats, max(limit, 0))

    async def consume_quota(self, person: str, day: str, key: str, limit: int) -> bool:
        return await self._write(queries.consume_quota, to_sql_text(person), to_sql_text(day), to_sql_text(key), limit)

    async def once_per(self, name: str, seconds: float) -> bool:
        return await self._write(queries.once_per, to_sql_text(name), self._clock.wall(), seconds)

    async def add_calls(self, month: str, calls: Mapping[str, int]) -> None:
        counts = [(to_sql_text(api), count) for api, count in calls.items()]
        await self._write(queries.add_calls, to_sql_text(month), counts)

    async def calls(self, month: str) -> dict[str, int]:
        return await self._read(queries.calls, to_sql_text(month))

    async def beat(self, replica: str, version: str, healthy: bool) -> None:  # noqa: FBT001 - as in the port
        """As the port says: nobody else can share the file."""
        self._life.require_open()
        self._self = Replica(replica, version, self._clock.wall(), healthy)

    async def replicas(self) -> list[Replica]:
        self._life.require_open()
        lives = self._self is not None and self._clock.wall() - self._self.seen_at < REPLICA_LIFE_S
        return [self._self] if self._self is not None and lives else []

    async def _read(self, query: Callable[..., T], *args: object) -> T:
        self._life.require_open()
        return await self._writer.submit(query, *args, kind=JobKind.READ)

    async def _write(self, query: Callable[..., T], *args: object, on_commit: Callable[[T], None] | None = None) -> T:
        self._life.require_open()
        return await self._writer.submit(query, *args, on_commit=on_commit)

    def _on_set(self, name: str, value: str) -> None:
        self._items[name] = value
        # In the very transaction its mark went from the file: whoever settles something has looked at what was lost.
        self._is_lost = False

    def _on_deleted(self, names: tuple[str, ...]) -> None:
        self._is_lost = False
        for name in names:
            self._items.pop(name, None)
