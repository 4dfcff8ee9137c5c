"""How often one person is answered without the model: commands and hints cost a call of DingTalk each, too.

In memory of this process only: a write of the store for each command would cost more than it guards.
"""

from __future__ import annotations

from typing import Final

from claw.clock import Clock

ANSWERS_MAX: Final = 30
"""Answers that a person gets within WINDOW_S."""
WINDOW_S: Final = 60.0
PEOPLE_MAX: Final = 10_000
"""People that are counted at the same time; beyond them the oldest window is forgotten."""


class AnswerPace:
    """Counts answers by person, in windows of a minute that begin with the first of them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # By person: when the window began, and how many were let through in it. In the order in which windows began.
        self._windows: dict[str, tuple[float, int]] = {}

    def allow(self, person: str) -> bool:
        """Whether the person may be answered once more; if so, it counts."""
        now = self._clock.monotonic()
        began, count = self._windows.get(person, (now, 0))
        if now - began >= WINDOW_S:
            began, count = now, 0
        if count >= ANSWERS_MAX:
            return False
        if not count:
            # At the end, where the newest windows are.
            self._windows.pop(person, None)
            while len(self._windows) >= PEOPLE_MAX:
                del self._windows[next(iter(self._windows))]
        self._windows[person] = began, count + 1
        return True
