"""Card templates: what each lets its cards hold, which buttons it shows, how fast a client types it.

A template is whatever ends in `.schema`: operators import their own, whose ids nobody knows before. What templates do
differs (docs/protocol.md section 7.5 and 10a), so a test sets what it needs of one; what a template says nothing of
follows the switches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from claw.emulator.bounds import trim
from claw.emulator.chats import UnknownError
from claw.emulator.faults import FaultError, Faults

TEMPLATES_MAX: Final = 200
"""Templates that are remembered."""
BARE: Final = (
    "382e4302-551d-4880-bf29-a30acfab2e71.schema",
    "589420e2-c1e2-46ef-a5ed-b8728e654da9.schema",
    "7f538f6d-ebb7-4533-a9ac-61a32da094cf.schema",
)
"""Public templates of the Python SDK that show a text and nothing to press (docs/protocol.md section 7.5)."""
LONG: Final = "675cde2f-f526-40cb-b828-f5b2b57b8b77.schema"
LONG_CHARS_MAX: Final = 20_000
"""Characters that the variable `content` of LONG takes (docs/protocol.md section 10a)."""
FIELDS: Final[Mapping[str, tuple[type, ...]]] = {
    **dict.fromkeys(("exists", "published", "buttons"), (bool,)),
    **dict.fromkeys(("chars_max", "bytes_max"), (int, type(None))),
    "chars_per_s": (int, float, type(None)),
    "overflow": (str, type(None)),
}
"""What can be set of a template."""


class FakeOverflow(StrEnum):
    """What happens to a text that is too long for its template (docs/protocol.md section 7.3)."""

    REFUSED = "refused"
    """The call gets 400 `content is too large`."""
    BLANK = "blank"
    """The call succeeds, and people see an empty card."""


@dataclasses.dataclass(frozen=True)
class FakeTemplate:
    """None: as the switches say."""

    id: str
    exists: bool = True
    published: bool = True
    buttons: bool = True
    """It has a button to stop while it is not finished, and thumbs afterwards."""
    chars_max: int | None = None
    bytes_max: int | None = None
    overflow: str | None = None
    chars_per_s: float | None = None
    """How fast a client types what an update brought; 0: at once."""

    def fits(self, text: str) -> bool:
        return (self.chars_max is None or len(text) <= self.chars_max) and (
            self.bytes_max is None or len(text.encode()) <= self.bytes_max
        )


class FakeTemplates:
    """All templates of the app."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._known: dict[str, FakeTemplate] = {}
        self.forget()

    def find(self, template_id: str) -> FakeTemplate:
        """Find a template as it is now, the switches put in. Raises UnknownError for what is no template's id."""
        if not template_id.endswith(".schema"):
            raise UnknownError(f"no template {template_id!r}")
        known = self._known.get(template_id) or FakeTemplate(template_id)
        faults = self._faults
        # A template's own bound replaces the common one, be it in characters or in bytes.
        is_bounded = known.chars_max is not None or known.bytes_max is not None
        return dataclasses.replace(
            known,
            bytes_max=known.bytes_max if is_bounded else faults.card_content_limit,
            overflow=known.overflow or faults.card_over_limit,
            chars_per_s=faults.card_typing_speed if known.chars_per_s is None else known.chars_per_s,
        )

    def set(self, template_id: str, **changes: Any) -> FakeTemplate:
        """Change what a template does. Raises FaultError for a wrong field, UnknownError for what is no template."""
        # Nothing is set of what could never be used.
        self.find(template_id)
        for name, value in changes.items():
            _check_field(name, value)
        self._known[template_id] = dataclasses.replace(
            self._known.get(template_id) or FakeTemplate(template_id), **changes
        )
        trim(self._known, TEMPLATES_MAX)
        return self.find(template_id)

    def forget(self) -> None:
        self._known = {each: FakeTemplate(each, buttons=False) for each in BARE}
        self._known[LONG] = FakeTemplate(LONG, chars_max=LONG_CHARS_MAX)

    def list_all(self) -> list[Mapping[str, Any]]:
        return [dataclasses.asdict(self.find(each)) for each in self._known]


def _check_field(name: str, value: Any) -> None:
    if name not in FIELDS:
        raise FaultError(f"unknown field {name!r} of a template; known: {', '.join(FIELDS)}")
    # By the very type: True is an int to Python, but no number of characters.
    is_right = type(value) in FIELDS[name]
    if isinstance(value, int | float):
        is_right = is_right and value >= 0
    elif isinstance(value, str):
        is_right = is_right and value in list(FakeOverflow)
    if not is_right:
        raise FaultError(f"{name}: {value!r} is no value of a template's {name}")
