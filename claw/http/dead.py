"""The routes of dead letters: `GET /api/dead`, `POST /api/dead/{id}/retry`, `DELETE /api/dead/{id}`.

What people wrote and what the model said is shown to the holder of the admin token alone, and only as an excerpt.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from aiohttp import web

from claw.audit import API, Note
from claw.clock import format_rfc3339
from claw.http.responses import ApiError, json_response, read_limit
from claw.messages import Outcome
from claw.observe.redact import redact
from claw.store.values import DeadLetter, Depth, Requeued

EXCERPT_CHARS: Final = 1_000
"""Of a question, and of an answer."""
LIMIT_MAX: Final = 500


class Desk(Protocol):
    """Who handles dead letters (inbox/dead_letters.py). Methods raise StoreError."""

    async def list(self, limit: int) -> list[DeadLetter]: ...

    async def retry(self, letter_id: str) -> Requeued: ...

    async def drop(self, letter_id: str) -> bool: ...


class DepthSource(Protocol):
    """Knows how many there are."""

    async def depth(self) -> Depth: ...


def letter_json(letter: DeadLetter) -> dict[str, Any]:
    """Return a letter for an operator; no secret is in it."""
    inbound, answer = letter.inbound, letter.answer
    where = inbound and inbound.conversation
    # What tells of a failure is no answer to send again.
    paid = answer is not None and bool(answer.content) and answer.outcome is not Outcome.FAILED
    return {
        "id": letter.id,
        "kind": letter.kind.value,
        "chat": where and {"id": where.id, "kind": where.kind.value, "title": where.title},
        "person": inbound and {"id": inbound.sender.key, "nick": inbound.sender.nick},
        "received_at": format_rfc3339(letter.received_at),
        "buried_at": format_rfc3339(letter.buried_at),
        "error": redact(letter.error),
        "attempts": letter.attempts,
        "has_answer": paid,
        "question": redact(inbound.text[:EXCERPT_CHARS]) if inbound else "",
        "answer": redact(answer.text[:EXCERPT_CHARS]) if answer else "",
    }


def routes(desk: Desk, depth: DepthSource, note: Note) -> list[web.RouteDef]:
    """Make the routes, an administrator's."""

    async def get_dead(request: web.Request) -> web.Response:
        letters = await desk.list(read_limit(request, default=100, most=LIMIT_MAX))
        total = (await depth.depth()).dead
        return json_response({"total": total, "letters": [letter_json(each) for each in letters]})

    async def retry(request: web.Request) -> web.Response:
        letter_id = request.match_info["id"]
        how = await desk.retry(letter_id)
        if how is Requeued.GONE:
            raise _unknown()
        if how is Requeued.UNREADABLE:
            raise ApiError(409, "unreadable_letter", "what it was cannot be read; it can only be dropped")
        # After the fact, as everywhere: an audit that lists what was only tried misleads whoever reads it in a hurry.
        await note(API, "dead.retry", letter_id, how.value)
        return json_response({"status": "accepted", "how": how.value}, status=202)

    async def drop(request: web.Request) -> web.Response:
        letter_id = request.match_info["id"]
        if not await desk.drop(letter_id):
            raise _unknown()
        await note(API, "dead.drop", letter_id, "")
        return json_response({"status": "dropped"})

    return [
        web.get("/api/dead", get_dead),
        web.post("/api/dead/{id}/retry", retry),
        web.delete("/api/dead/{id}", drop),
    ]


def _unknown() -> ApiError:
    return ApiError(404, "unknown_letter", "there is no such dead letter")
