"""What a slot is at, and which moves between these states make sense."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final


class SlotState(Enum):
    """What a slot, or all of them together, is at. In order: the further up, the better for the people."""

    OPEN = "OPEN"
    REPLACING = "REPLACING"
    """A session still reads while its successor is being opened."""
    CONNECTING = "CONNECTING"
    BACKOFF = "BACKOFF"
    """Since the first attempt that failed, until one succeeds."""
    REJECTED = "REJECTED"
    """DingTalk refuses us, and only a person can cure it."""
    PAUSED = "PAUSED"
    """We hold no connection by our own wish, so that DingTalk pushes to other processes."""
    CLOSED = "CLOSED"


_ENDS: Final = {SlotState.PAUSED, SlotState.CLOSED}

MOVES: Final[Mapping[SlotState, set[SlotState]]] = {
    SlotState.CONNECTING: {SlotState.OPEN, SlotState.BACKOFF, SlotState.REJECTED} | _ENDS,
    SlotState.OPEN: {SlotState.REPLACING, SlotState.CONNECTING, SlotState.BACKOFF} | _ENDS,
    SlotState.REPLACING: set(SlotState) - {SlotState.REPLACING},
    SlotState.BACKOFF: {SlotState.OPEN, SlotState.REJECTED} | _ENDS,
    SlotState.REJECTED: {SlotState.OPEN, SlotState.BACKOFF} | _ENDS,
    SlotState.PAUSED: {SlotState.CONNECTING, SlotState.CLOSED},
    SlotState.CLOSED: {SlotState.CONNECTING},
}
