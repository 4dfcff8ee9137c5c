"""The dead letters in Redis, and how one of them gets back into the queues."""

from __future__ import annotations

from claw.store.codec import decode, decode_answer, decode_inbound, encode, encode_row
from claw.store.redis import scripts
from claw.store.redis.memory import RedisMemory
from claw.store.values import DeadLetter, Row, RowKind


class RedisDeadLetters(RedisMemory):
    """That part of a `RedisStore` which keeps what was given up."""

    async def dead(self, limit: int = 100) -> list[DeadLetter]:
        letters = await self._call(scripts.DEAD, limit) if limit > 0 else []
        found = (_decode(decode(letter_id), fields) for letter_id, fields in letters)
        return [letter for letter in found if letter is not None]

    async def find_dead(self, letter_id: str) -> DeadLetter | None:
        return _decode(letter_id, await self._call(scripts.FIND_DEAD, encode(letter_id)))

    async def drop_dead(self, letter_id: str) -> bool:
        return bool(await self._call(scripts.DROP_DEAD, encode(letter_id)))

    async def requeue(self, letter_id: str, row: Row) -> bool:
        stored = encode_row(row)
        found, ready = await self._call(
            scripts.REQUEUE,
            encode(letter_id),
            encode(row.inbound.key),
            encode(stored.queue),
            int(stored.urgent),
            stored.trace,
            stored.inbound,
            stored.kind,
            stored.conversation_key or b"",
            stored.answer or b"",
        )
        self._wake_if(ready)
        return bool(found)

    def _wake_if(self, ready: int) -> None:
        """Wake who waits for messages, where some are ready."""
        raise NotImplementedError


def _decode(letter_id: str, fields: list[bytes | None]) -> DeadLetter | None:
    """Return the letter; None where Redis has evicted it, or never had it."""
    key, error, attempts, at, buried, inbound, answer, kind = fields
    if key is None:
        return None
    return DeadLetter(
        id=letter_id,
        kind=RowKind(decode(kind)) if kind else RowKind.MESSAGE,
        key=decode(key),
        error=decode(error or b""),
        attempts=int(attempts or 0),
        received_at=int(at or 0) / 1000,
        buried_at=int(buried or 0) / 1000,
        inbound=decode_inbound(inbound),
        answer=decode_answer(answer),
    )
