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
from claw.store.ports import Chat
from claw.store.sqlite import queries
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

    async def exchanges(self, history_key: str, limit: int) -> list[Exchange]:
        said = await self._read(queries.exchanges, to_sql_text(history_key), max(limit, 0))
        return [Exchange(history_key, user, assistant) for user, assistant in said]

    async def epoch(self, history_key: str) -> str:
        return await self._read(queries.epoch, to_sql_text(history_key))

    async def forget(self, history_key: str) -> str:
        return await self._write(queries.forget, to_sql_text(history_key))

    async def items(self, prefix: str = "") -> dict[str, str]:
        """As the port says, without a change of thread: what was set counts once it is on the disk."""
        self._life.require_open()
        return {name: value for name, value in self._items.items() if name.startswith(prefix)}

    async def set(self, name: str, value: str) -> None:
        await self._write(
            queries.set_item, encode(name), encode(value), on_commit=lambda _: self._items.update({name: value})
        )

    async def set_if_absent(self, name: str, value: str) -> str:
        """As the port says. Not decided in memory, which does not know of a `delete` that is on its way."""
        return await self._write(
            queries.set_item_if_absent,
            encode(name),
            encode(value),
            on_commit=lambda found: self._items.update({name: found}),
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

    async def _read(self, query: Callable[..., T], *args: object) -> T:
        self._life.require_open()
        return await self._writer.submit(query, *args, kind=JobKind.READ)

    async def _write(self, query: Callable[..., T], *args: object, on_commit: Callable[[T], None] | None = None) -> T:
        self._life.require_open()
        return await self._writer.submit(query, *args, on_commit=on_commit)

    def _on_deleted(self, names: tuple[str, ...]) -> None:
        for name in names:
            self._items.pop(name, None)
