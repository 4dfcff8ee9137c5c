"""What commands can do to the rest of the process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from claw.audit import Note
from claw.chat_settings import ChatBook
from claw.store.values import DeadLetter, Interrupted, Requeued


@dataclass(frozen=True)
class AdminActions:
    """What commands can do to the rest of the process; handed in by `app`.

    `stop` ends the running turn of a conversation, by its key: anybody's, or that of one sender; `restart` takes
    `stream` or `process` and says whether it was begun; `status` gives the service's figures by the names in
    texts.STATUS, and `model_health` a ModelHealth's snapshot. `list_dead` gives the newest dead letters, `retry_dead`
    puts one back, by its id; `note` keeps in the audit who did what, and
    `book` has the settings of chats.
    """

    stop: Callable[[str, str | None], Awaitable[Interrupted]]
    restart: Callable[[str], bool]
    status: Callable[[], Awaitable[dict[str, object]]]
    model: str
    list_dead: Callable[[int], Awaitable[Sequence[DeadLetter]]]
    retry_dead: Callable[[str], Awaitable[Requeued]]
    note: Note
    book: ChatBook
    model_health: Callable[[], Mapping[str, Any]] = dict
