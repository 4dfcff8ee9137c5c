"""What is remembered between messages, in Redis: history, items, chats, quotas and usage.

Items are kept here as well, and asked for by the token of their last change, so that what one process sets the others
see with their next look.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from claw.messages import ChatKind, Exchange
from claw.store.codec import (
    audit_from_json,
    audit_to_json,
    card_from_json,
    card_to_json,
    decode,
    decode_message,
    encode,
    format_epoch,
    media_from_json,
    send_from_json,
    send_to_json,
    usage_to_stored,
)
from claw.store.lifecycle import Lifecycle
from claw.store.operation import USAGE_RETENTION_DAYS, USAGE_ROWS_MAX
from claw.store.redis import scripts
from claw.store.redis.client import Arg, RedisClient
from claw.store.values import AuditEntry, Chat, KeptCard, KeptMessage, Replica, SendReceipt, UsageRow

LANGUAGES_MAX: Final = 4_096
"""People whose language is kept here."""
LANGUAGE_FRESH_S: Final = 60.0
"""Seconds after which what another replica may have changed is asked for again."""


class RedisMemory:
    """That part of a `RedisStore` which knows nothing of queues; `_call` is the way to Redis of both."""

    _client: RedisClient

    def __init__(self) -> None:
        self._life = Lifecycle()
        self._items: dict[str, str] = {}
        self._items_version: bytes = b""
        self._languages: dict[str, tuple[str, float]] = {}
        """Languages of people, and until when they are taken as they were read, by the monotonic clock."""

    async def exchanges(self, history_key: str, limit: int) -> list[Exchange]:
        self._life.require_open()
        if limit <= 0:
            return []
        said = await self._call(scripts.EXCHANGES, encode(history_key), limit)
        # Each begins with its time, for the cleaning.
        found = (json.loads(each.partition(b" ")[2]) for each in said)
        # Until 0.2.0 there were no media.
        return [
            Exchange(history_key, user, assistant, media=media_from_json(media[0] if media else None))
            for user, assistant, *media in found
        ]

    async def epoch(self, history_key: str, *, idle_reset: float = 0.0) -> str:
        store_id, forgettings = await self._call(scripts.EPOCH, encode(history_key), to_ms(idle_reset))
        return format_epoch(decode(store_id), int(forgettings))

    async def forget(self, history_key: str) -> str:
        store_id, forgettings = await self._call(scripts.FORGET, encode(history_key))
        return format_epoch(decode(store_id), int(forgettings))

    async def items(self, prefix: str = "") -> dict[str, str]:
        """As the port says: a short question to Redis, and the items come only where they have changed.

        Raises StoreError where they are gone though nobody deleted them: that there is no owner is another thing.
        """
        changed = await self._call(scripts.ITEMS, self._items_version, self._client.store_id or "")
        # Two calls at once may bring replies in turn; the last one is the newest, since the client keeps their order.
        if changed is not None:
            self._items_version, flat, store_id, lost = changed
            # Here, since each message asks for them: a Redis that was emptied is noticed before anybody is paired.
            self._client.note_identity(decode(store_id), lost)
            self._items = {decode(name): decode(value) for name, value in _pairs(flat)}
        return {name: value for name, value in self._items.items() if name.startswith(prefix)}

    async def set(self, name: str, value: str) -> None:
        await self._call(scripts.SET_ITEM, encode(name), encode(value))

    async def set_if_absent(self, name: str, value: str) -> str:
        return decode(await self._call(scripts.SET_ITEM_IF_ABSENT, encode(name), encode(value)))

    async def delete(self, *names: str) -> None:
        await self._call(scripts.DELETE_ITEMS, *(encode(name) for name in names))

    async def chats(self, limit: int = 50) -> list[Chat]:
        chats = await self._call(scripts.CHATS, limit) if limit > 0 else []
        return [
            Chat(decode(key), ChatKind(kind.decode()), decode(title), int(first) / 1000, int(last) / 1000, int(count))
            for key, kind, title, first, last, count in chats
            if key is not None  # Evicted.
        ]

    async def consume_quota(self, person: str, day: str, key: str, limit: int) -> bool:
        return bool(await self._call(scripts.CONSUME_QUOTA, encode(person), encode(day), encode(key), limit))

    async def once_per(self, name: str, seconds: float) -> bool:
        return bool(await self._call(scripts.ONCE_PER, encode(name), to_ms(seconds)))

    async def find_message(self, chat_key: str, ids: Sequence[str]) -> KeptMessage | None:
        names = [encode(each) for each in ids if each]
        body = await self._call(scripts.FIND_MESSAGE, encode(chat_key), *names) if names else None
        return decode_message(chat_key, body)

    async def find_sent(self, chat_key: str, at: float, within: float) -> KeptMessage | None:
        body = await self._call(scripts.FIND_SENT, encode(chat_key), to_ms(at), to_ms(within))
        return decode_message(chat_key, body)

    async def language(self, person: str) -> str:
        kept = self._languages.get(person)
        if kept is not None and kept[1] > time.monotonic():
            return kept[0]
        found = await self._call(scripts.LANGUAGE, encode(person))
        self._keep_language(person, decode(found or b""))
        return self._languages[person][0]

    async def set_language(self, person: str, language: str) -> None:
        await self._call(scripts.SET_LANGUAGE, encode(person), encode(language))
        self._keep_language(person, language)

    def _keep_language(self, person: str, language: str) -> None:
        self._languages.pop(person, None)
        self._languages[person] = language, time.monotonic() + LANGUAGE_FRESH_S
        while len(self._languages) > LANGUAGES_MAX:
            del self._languages[next(iter(self._languages))]

    async def keep_card(self, card: KeptCard) -> None:
        at = to_ms(card.opened_at)
        await self._call(scripts.KEEP_CARD, encode(card.id), at, int(card.ended), card_to_json(card))

    async def find_card(self, card_id: str) -> KeptCard | None:
        return card_from_json(await self._call(scripts.FIND_CARD, encode(card_id)))

    async def open_cards(self, opened_until: float, limit: int) -> list[KeptCard]:
        found = await self._call(scripts.OPEN_CARDS, to_ms(opened_until), limit) if limit > 0 else []
        return [card for body in found if (card := card_from_json(body)) is not None]

    async def vote(self, card_id: str, person: str, vote: str) -> str:
        return decode(await self._call(scripts.VOTE, encode(card_id), encode(person), encode(vote)))

    async def add_calls(self, month: str, calls: Mapping[str, int]) -> None:
        counts = [arg for api, count in calls.items() for arg in (encode(api), count)]
        await self._call(scripts.ADD_CALLS, encode(month), *counts)

    async def calls(self, month: str) -> dict[str, int]:
        return {decode(api): int(count) for api, count in _pairs(await self._call(scripts.CALLS, encode(month)))}

    async def add_usage(self, rows: Sequence[UsageRow]) -> None:
        args = [arg for row in rows for arg in usage_to_stored(row)]
        await self._call(scripts.ADD_USAGE, *(encode(arg) if isinstance(arg, str) else arg for arg in args))

    async def usage(self, since: str) -> list[UsageRow]:
        day, first = datetime.now(UTC).date() + timedelta(days=1), date.fromisoformat(since)
        first = max(first, day - timedelta(days=USAGE_RETENTION_DAYS + 1))
        rows: list[UsageRow] = []
        # A day at a time: no script holds Redis up for long.
        while day >= first and len(rows) < USAGE_ROWS_MAX:
            found = await self._call(scripts.USAGE, day.isoformat())
            rows += sorted(
                (_decode_usage(day.isoformat(), each) for each in found), key=lambda row: (row.person, row.chat)
            )
            day -= timedelta(days=1)
        return rows[:USAGE_ROWS_MAX]

    async def begin_send(self, receipt: SendReceipt) -> SendReceipt:
        stands = await self._call(scripts.BEGIN_SEND, encode(receipt.id), send_to_json(receipt))
        return send_from_json(stands) or receipt

    async def end_send(self, receipt: SendReceipt) -> None:
        await self._call(scripts.END_SEND, encode(receipt.id), send_to_json(receipt))

    async def find_send(self, send_id: str) -> SendReceipt | None:
        return send_from_json(await self._call(scripts.FIND_SEND, encode(send_id)))

    async def append_audit(self, entry: AuditEntry) -> None:
        await self._call(scripts.APPEND_AUDIT, audit_to_json(entry))

    async def audit(self, limit: int = 100) -> list[AuditEntry]:
        found = await self._call(scripts.AUDIT, limit) if limit > 0 else []
        return [entry for body in found if (entry := audit_from_json(body)) is not None]

    async def beat(self, replica: str, version: str, healthy: bool) -> None:  # noqa: FBT001 - as in the port
        await self._call(scripts.BEAT, encode(replica), encode(version), int(healthy))

    async def replicas(self) -> list[Replica]:
        found = await self._call(scripts.REPLICAS)
        return sorted(
            (
                Replica(decode(each), decode(version), int(at) / 1000, healthy == b"1")
                for each, at, version, healthy in found
            ),
            key=lambda replica: replica.id,
        )

    async def _call(self, script: scripts.Script, *args: Arg, on_abandoned: Callable[[Any], None] | None = None) -> Any:
        self._life.require_open()
        future = self._client.submit(script, *args, on_abandoned=on_abandoned)
        try:
            return await future
        except asyncio.CancelledError:
            # The reply may have come in the very turn of the loop in which we were cancelled: then the client takes
            # it for delivered.
            if on_abandoned is not None and not future.cancelled() and future.exception() is None:
                on_abandoned(future.result())
            raise


def _decode_usage(day: str, told: list[bytes]) -> UsageRow:
    row, names, *counts = told
    person, chat = json.loads(decode(row))
    name, title = json.loads(decode(names))
    return UsageRow(day, person, chat, name, title, *map(int, counts))


def _pairs(flat: list[bytes]) -> zip[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


def to_ms(seconds: float) -> int:
    return round(seconds * 1000)
