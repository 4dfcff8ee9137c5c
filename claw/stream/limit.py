"""Notices that DingTalk keeps one connection of an app only.

DingTalk documents that an app may hold several connections (docs/protocol.md section 4), but does not promise it.
Where a new one closed the others, two slots would take turns in closing each other for ever.
"""

from __future__ import annotations

from typing import Final

from claw.clock import Clock

CLOSURES_MAX: Final = 3
"""Openings in a row that closed another slot's session: one is a coincidence, three are a rule."""
WINDOW_S: Final = 2.0
"""Seconds within which the end of a session is put down to the opening of another slot's."""


class ConnectionLimit:
    """Counts the openings in a row that were answered by the end of another slot's session."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._opened: dict[int, float] = {}
        """By slot, when its present session was opened."""
        self._answered = True
        self._closures = 0

    def note_open(self, slot: int, *, others_open: bool) -> None:
        """Take note of a new session; `others_open`: there is another one that it might close."""
        now = self._clock.monotonic()
        latest = max(self._opened.values(), default=now)
        if not self._answered and now - latest > WINDOW_S:
            # The opening before this one closed nothing, so that there is no such rule.
            self._closures = 0
        self._opened[slot] = now
        # With nobody else there it cannot close anything, and so proves nothing either way.
        self._answered = not others_open

    def note_close(self, slot: int) -> bool:
        """Take note that DingTalk ended a slot's session; True: one connection is all that it lets us have."""
        others = [at for other, at in self._opened.items() if other != slot]
        newest = max(others, default=float("-inf"))
        # A session that ends without another's opening, in a gateway's bad hour, speaks against the rule.
        is_answer = newest > self._opened.get(slot, float("-inf")) and self._clock.monotonic() - newest <= WINDOW_S
        self._closures = self._closures + 1 if is_answer else 0
        self._answered = self._answered or is_answer
        return self._closures >= CLOSURES_MAX

    def reset(self) -> None:
        """Count anew."""
        self._opened.clear()
        self._answered, self._closures = True, 0
