"""What is remembered between messages, in the file: history, items, chats, quotas and usage.

Reads and writes go to the writer's thread in the order of the calls. Items alone are answered from memory: nobody else
holds the file, and each message asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from claw.clock import Clock
from claw.messages import Exchange
from claw.store.codec import (
    audit_from_json,
    audit_to_json,
    card_from_json,
    card_to_json,
    decode_message,
    encode,
    media_from_json,
    send_from_json,
    send_to_json,
    usage_to_stored,
)
from claw.store.lifecycle import Lifecycle
from claw.store.ports import EPOCH_TOUCH_S, REPLICA_LIFE_S
from claw.store.sqlite import cards, epochs, queries, records, said
from claw.store.sqlite.queries import to_sql_text
from claw.store.sqlite.writer import JobKind, Writer
from claw.store.values import AuditEntry, Chat, KeptCard, KeptMessage, Replica, SendReceipt, UsageRow

T = TypeVar("T")

LANGUAGES_MAX: Final = 4_096
"""People whose language is kept in memory."""


class SqliteMemory:
    """That part of a `SqliteStore` which knows nothing of queues."""

    _writer: Writer

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._life = Lifecycle()
        self._items: dict[str, str] = {}
        """All items, as they are in the file."""
        self._is_lost = False
        self._languages: dict[str, str] = {}
        """Languages of people that were asked for, as they are in the file."""
        self._self: Replica | None = None

    async def exchanges(self, history_key: str, limit: int) -> list[Exchange]:
        found = await self._read(queries.exchanges, to_sql_text(history_key), max(limit, 0))
        return [
            Exchange(history_key, user, assistant, media=media_from_json(media)) for user, assistant, media in found
        ]

    async def epoch(self, history_key: str, *, idle_reset: float = 0.0) -> str:
        if idle_reset > 0:
            return await self._write(epochs.use_epoch, to_sql_text(history_key), self._clock.wall(), idle_reset)
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

    async def find_message(self, chat_key: str, ids: Sequence[str]) -> KeptMessage | None:
        return decode_message(chat_key, await self._read(said.find, chat_key, tuple(ids)))

    async def find_sent(self, chat_key: str, at: float, within: float) -> KeptMessage | None:
        return decode_message(chat_key, await self._read(said.find_sent, chat_key, at, within))

    async def language(self, person: str) -> str:
        self._life.require_open()
        if person not in self._languages:
            self._keep_language(person, await self._read(said.language, person))
        return self._languages.get(person, "")

    async def set_language(self, person: str, language: str) -> None:
        await self._write(
            said.set_language,
            person,
            language,
            self._clock.wall(),
            on_commit=lambda _: self._keep_language(person, language),
        )

    def _keep_language(self, person: str, language: str) -> None:
        self._languages[person] = language
        while len(self._languages) > LANGUAGES_MAX:
            del self._languages[next(iter(self._languages))]

    async def keep_card(self, card: KeptCard) -> None:
        await self._write(cards.keep, card.id, card.opened_at, card.ended, card_to_json(card))

    async def find_card(self, card_id: str) -> KeptCard | None:
        return card_from_json(await self._read(cards.find, card_id))

    async def open_cards(self, opened_until: float, limit: int) -> list[KeptCard]:
        found = await self._read(cards.list_open, opened_until, limit)
        return [card for body in found if (card := card_from_json(body)) is not None]

    async def vote(self, card_id: str, person: str, vote: str) -> str:
        return await self._write(cards.vote, card_id, person, vote)

    async def add_calls(self, month: str, calls: Mapping[str, int]) -> None:
        counts = [(to_sql_text(api), count) for api, count in calls.items()]
        await self._write(queries.add_calls, to_sql_text(month), counts)

    async def calls(self, month: str) -> dict[str, int]:
        return await self._read(queries.calls, to_sql_text(month))

    async def add_usage(self, rows: Sequence[UsageRow]) -> None:
        await self._write(records.add_usage, [usage_to_stored(each) for each in rows])

    async def usage(self, since: str) -> list[UsageRow]:
        return await self._read(records.usage, since)

    async def begin_send(self, receipt: SendReceipt) -> SendReceipt:
        stands = await self._write(records.begin_send, receipt.id, receipt.accepted_at, send_to_json(receipt))
        return send_from_json(stands) or receipt

    async def end_send(self, receipt: SendReceipt) -> None:
        await self._write(records.end_send, receipt.id, receipt.accepted_at, send_to_json(receipt))

    async def find_send(self, send_id: str) -> SendReceipt | None:
        return send_from_json(await self._read(records.find_send, send_id))

    async def append_audit(self, entry: AuditEntry) -> None:
        await self._write(records.append_audit, entry.at, audit_to_json(entry))

    async def audit(self, limit: int = 100) -> list[AuditEntry]:
        found = map(audit_from_json, await self._read(records.audit, max(limit, 0)))
        return [entry for entry in found if entry is not None]

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
