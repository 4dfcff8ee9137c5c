"""Pictures within reach: the newest ones of all conversations, so that the next question about one costs no call.

Bounded by bytes and by time; what is not there any more is fetched again by its code, as long as that is good.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from claw.clock import Clock

CACHE_BYTES: Final = 8 * 1024 * 1024
CACHE_LIFE_S: Final = 1800.0
"""Seconds for which a picture is kept; a conversation about one is over by then."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as models take it: a `data:` URL."""

    url: str = field(repr=False)


class PictureCache:
    """Pictures by key; those that were not asked for longest go first."""

    def __init__(self, clock: Clock, limit: int = CACHE_BYTES) -> None:
        self._clock = clock
        self._limit = limit
        self._kept: dict[str, tuple[Picture, float]] = {}
        self.used = 0
        """Bytes that are kept."""

    def get(self, key: str) -> Picture | None:
        """Return the picture, which is the newest then."""
        found = self._kept.get(key)
        if found is None:
            return None
        picture, until = found
        self._drop(key)
        if self._clock.monotonic() >= until:
            return None
        # Its time is not prolonged: a picture that is asked about all day is fetched again now and then.
        self._keep(key, picture, until)
        return picture

    def add(self, key: str, picture: Picture) -> None:
        """Keep a picture, if it is not larger than all that is kept."""
        self._drop(key)
        if len(picture.url) > self._limit:
            return
        self._keep(key, picture, self._clock.monotonic() + CACHE_LIFE_S)
        # A dict keeps the order of insertion, and `get` inserts anew: the first is what nobody asked for longest.
        while self.used > self._limit:
            self._drop(next(iter(self._kept)))

    def _keep(self, key: str, picture: Picture, until: float) -> None:
        self._kept[key] = picture, until
        self.used += len(picture.url)

    def _drop(self, key: str) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self.used -= len(found[0].url)
