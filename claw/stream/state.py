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
    CLOSED = "CLOSED"


MOVES: Final[Mapping[SlotState, set[SlotState]]] = {
    SlotState.CONNECTING: {SlotState.OPEN, SlotState.BACKOFF, SlotState.REJECTED, SlotState.CLOSED},
    SlotState.OPEN: {SlotState.REPLACING, SlotState.CONNECTING, SlotState.BACKOFF, SlotState.CLOSED},
    SlotState.REPLACING: set(SlotState) - {SlotState.REPLACING},
    SlotState.BACKOFF: {SlotState.OPEN, SlotState.REJECTED, SlotState.CLOSED},
    SlotState.REJECTED: {SlotState.OPEN, SlotState.BACKOFF, SlotState.CLOSED},
    SlotState.CLOSED: {SlotState.CONNECTING},
}
