"""The life of a store: NEW, OPENING, OPEN, CLOSED; the same for every adapter."""

from __future__ import annotations

from enum import Enum
from typing import Final

from claw.errors import StoreError


class State(Enum):
    """Where a store is in its life."""

    NEW = "new"
    OPENING = "opening"
    OPEN = "open"
    CLOSED = "closed"


_NEXT: Final = {
    State.NEW: {State.OPENING, State.CLOSED},
    State.OPENING: {State.NEW, State.OPEN, State.CLOSED},  # NEW: the opening failed, and may be tried again.
    State.OPEN: {State.CLOSED},
    State.CLOSED: {State.CLOSED},  # A store may be closed as often as somebody likes.
}


class Lifecycle:
    """The state of one store. `transition` is the only way to change it."""

    def __init__(self) -> None:
        self.state: State = State.NEW

    def transition(self, state: State) -> None:
        """Go on to `state`. Raises StoreError, in the words of whoever wanted to open, where no way leads there."""
        if state not in _NEXT[self.state]:
            closed_meanwhile = self.state is State.CLOSED and state is State.OPEN
            raise StoreError(
                "the store was closed while it opened" if closed_meanwhile else "the store was opened before"
            )
        self.state = state

    def require_open(self) -> None:
        """Raise StoreError unless the store is open."""
        if self.state is not State.OPEN:
            raise StoreError("the store is closed")
