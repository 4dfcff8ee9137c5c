"""How the model's server does, as the questions of people found it: nothing is asked for this alone.

Order of events: the client notes how each question ended. `/status`, the status page and a gauge read it. What the
server says of one question (too long, against a policy) shows that it is there, and is no trouble of its own.
"""

from __future__ import annotations

from typing import Any, Final

from claw.clock import Clock, format_rfc3339
from claw.errors import ModelError, ModelErrorKind
from claw.turn.model.errors import suggest_remedy

_ABOUT_ONE_QUESTION: Final = frozenset({ModelErrorKind.FILTERED, ModelErrorKind.TOO_LONG, ModelErrorKind.TOO_LARGE})


class ModelHealth:
    """The last success and the last error of this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._success: str | None = None
        self._error: dict[str, str | None] | None = None
        self._up = True

    @property
    def is_up(self) -> bool:
        """Whether the server did what it is there for when it was last asked; True before that."""
        return self._up

    def note_success(self) -> None:
        """Note that a question was answered."""
        self._success = format_rfc3339(self._clock.wall())
        self._up = True

    def note_error(self, error: ModelError) -> None:
        """Note that a question failed."""
        # Not the error itself, which holds what people were told.
        self._error = {
            "at": format_rfc3339(self._clock.wall()),
            "kind": error.kind.value,
            "reason": error.reason,
            "remedy": suggest_remedy(error),
        }
        self._up = error.kind in _ABOUT_ONE_QUESTION

    def read_up(self) -> float:
        """Return 1 or 0, for the gauge `claw.model.up`."""
        return float(self._up)

    def snapshot(self) -> dict[str, Any]:
        """Return it as JSON: times in RFC 3339, None for what has not happened yet. It holds nothing that was said."""
        return {"up": self._up, "last_success": self._success, "last_error": self._error}
