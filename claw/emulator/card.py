"""One card as it was told to be: what it holds, what clients see of it, and who called how often.

Order of events: it is created with values (a face); streaming updates change one value again and again, whole updates
change any. A client that is offline misses the streaming updates for good, and sees only what creating and whole
updates brought (docs/protocol.md section 10a): that is the card's settled face, which is kept beside the one that is
held.
"""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from claw.emulator.replies import Reply

if TYPE_CHECKING:
    from claw.emulator.presses import FakePress

UPDATES_MAX: Final = 500
PRESSES_MAX: Final = 100
"""What a card remembers of each: a client that streams to one card for hours must not fill this memory."""
TEXT_NAMES: Final = ("content", "msgContent", "markdown", "text")
"""Templates name their variable as they like; these are the known ones' (docs/protocol.md section 7.5)."""
OTHER_NAMES: Final = frozenset({"flowStatus", "sys_full_json_obj"})


class FakeCardState(StrEnum):
    CREATED = "created"
    """Nothing was streamed yet."""
    STREAMING = "streaming"
    """A card that is never finalized stays so."""
    FINISHED = "finished"
    FAILED = "failed"

    @property
    def is_end(self) -> bool:
        return self in {FakeCardState.FINISHED, FakeCardState.FAILED}


STATES: Final = {
    "2": FakeCardState.STREAMING,
    "4": FakeCardState.STREAMING,
    "3": FakeCardState.FINISHED,
    "5": FakeCardState.FAILED,
}
"""By flowStatus (docs/protocol.md section 7.4)."""
FLOW_STATUS: Final = {
    FakeCardState.CREATED: "1",
    FakeCardState.STREAMING: "2",
    FakeCardState.FINISHED: "3",
    FakeCardState.FAILED: "5",
}


class FakeCardCall(StrEnum):
    """What changes a card's values."""

    CREATE = "create"
    STREAM = "stream"
    UPDATE = "update"
    """`PUT /v1.0/card/instances`."""
    PRESS = "press"
    """The answer to a person's press."""


@dataclasses.dataclass(eq=False)
class FakeCardFace:
    """Values of a card, and what a client makes of them."""

    params: dict[str, str]
    state: FakeCardState = FakeCardState.CREATED
    stream_key: str = ""
    blank: bool = False
    """Its text is too long for its template, which then shows none."""

    @property
    def text(self) -> str:
        """What it shows: the streamed value, or the likeliest one."""
        return "" if self.blank else self.params.get(self.text_name, "")

    @property
    def text_name(self) -> str:
        if self.stream_key:
            return self.stream_key
        # Before anything was streamed nobody has named the variable; an empty one may be any.
        for name in TEXT_NAMES:
            if self.params.get(name):
                return name
        return max(self.params.keys() - OTHER_NAMES, key=lambda name: len(self.params[name]), default="")

    @property
    def flow_status(self) -> str:
        """The platform sets it by the streaming calls; a client may say more with it while the card is open."""
        is_executing = self.state is FakeCardState.STREAMING and self.params.get("flowStatus") == "4"
        return "4" if is_executing else FLOW_STATUS[self.state]

    def apply(self, params: dict[str, str], *, end: FakeCardState | None = None) -> None:
        self.params = params
        # A client says it in a value as well, and some end their cards by that alone.
        told = STATES.get(params.get("flowStatus", ""))
        # A card never goes back to typing by itself: an update that names no state leaves it as it is.
        if not self.state.is_end or (told is not None and told.is_end):
            self.state = told or self.state
        self.state = end or self.state

    def to_dict(self) -> dict[str, Any]:
        return {"text": self.text, "state": self.state, "flowStatus": self.flow_status, "blank": self.blank}


def make_face(params: dict[str, str]) -> FakeCardFace:
    face = FakeCardFace({})
    face.apply(dict(params))
    return face


@dataclasses.dataclass(eq=False)
class FakeCard:
    out_track_id: str
    template: str
    stream: bool
    """Created with `callbackType: STREAM`: its presses come over the socket."""
    face: FakeCardFace
    """What DingTalk holds, and a client that is online shows."""
    settled: FakeCardFace
    """What a client shows that missed every streaming update."""
    seen: FakeCardFace
    """What the page shows: one that was offline only at times (the switch `client_offline`)."""
    space: str = ""
    """`openSpaceId` of whom it was made for."""
    private: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    """Values by person, of `userPrivateData`."""
    replies: list[Reply] = dataclasses.field(default_factory=list)
    """Where it was delivered."""
    created_at: float = dataclasses.field(default_factory=time.monotonic)
    ended_at: float | None = None
    """Monotonic seconds of its end."""
    text_by: FakeCardCall = FakeCardCall.CREATE
    """Which call brought the text that it holds."""
    updates: collections.deque[tuple[float, int]] = dataclasses.field(
        default_factory=lambda: collections.deque(maxlen=UPDATES_MAX)
    )
    """Monotonic time and length of every streaming update."""
    update_count: int = 0
    """`PUT /v1.0/card/streaming` that were not repeated."""
    put_count: int = 0
    """`PUT /v1.0/card/instances`."""
    repeated_guids: int = 0
    in_flight: int = 0
    in_flight_max: int = 0
    """Above 1: the client did not wait for its previous update."""
    after_end: int = 0
    """Streaming updates that came after the final one."""
    guids: dict[str, None] = dataclasses.field(default_factory=dict)
    presses: collections.deque[FakePress] = dataclasses.field(
        default_factory=lambda: collections.deque(maxlen=PRESSES_MAX)
    )

    @property
    def text(self) -> str:
        return self.face.text

    @property
    def state(self) -> FakeCardState:
        return self.face.state

    @property
    def params(self) -> dict[str, str]:
        return self.face.params

    @property
    def offline_text(self) -> str:
        return self.settled.text

    def pressed(self) -> Mapping[str, str]:
        """By person: the last action whose press was answered in time."""
        # What was not answered in time is shown as not pressed, so that the person presses again.
        return {press.person: press.action for press in self.presses if press.outcome.is_answer}

    def to_dict(self) -> dict[str, Any]:
        return {
            "outTrackId": self.out_track_id,
            "template": self.template,
            "space": self.space,
            "stream": self.stream,
            "state": self.state,
            "flowStatus": self.face.flow_status,
            "text": self.text,
            "params": self.params,
            "private": self.private,
            "offline": self.settled.to_dict(),
            "text_by": self.text_by,
            "updates": self.update_count,
            "puts": self.put_count,
            "in_flight_max": self.in_flight_max,
            "repeated_guids": self.repeated_guids,
            "after_end": self.after_end,
            "delivered": [reply.chat for reply in self.replies],
            "seconds": None if self.ended_at is None else round(self.ended_at - self.created_at, 3),
            "presses": [press.to_dict() for press in self.presses],
        }
