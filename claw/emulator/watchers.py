"""Waiting until something is so, without polling: connections that open, replies that arrive.

Order of events: whoever waits is woken by every change, looks by itself, and goes on waiting if it is not yet so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Watchers:
    def __init__(self) -> None:
        # One event for each that waits: a shared one would have to be cleared by one of them, and another, not yet
        # resumed, would lose its wake-up. They are made while waiting, so that they belong to the loop of that moment.
        self._events: set[asyncio.Event] = set()

    def __bool__(self) -> bool:
        """Somebody waits."""
        # Asked by whoever keeps many of these, to drop one when the last of those that wait has gone.
        return bool(self._events)

    def wake(self) -> None:
        for event in self._events:
            event.set()

    async def wait_for(self, find: Callable[[], T | None], *, timeout: float | None, failure: str) -> T:
        """Return what `find` finds, as soon as it is not None. Raises TimeoutError(failure) after `timeout` seconds."""
        event = asyncio.Event()
        self._events.add(event)
        try:
            async with asyncio.timeout(timeout):
                while (found := find()) is None:
                    # Nothing is awaited between looking and clearing, so no change falls in between.
                    event.clear()
                    await event.wait()
                return found
        except TimeoutError:
            raise TimeoutError(f"{failure} within {timeout:g} s") from None
        finally:
            self._events.discard(event)
