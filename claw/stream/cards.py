"""A card frame -> `CardCallback`: a button that somebody pressed (docs/protocol.md section 7.6)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from claw.clock import Clock
from claw.errors import FrameError
from claw.messages import CardCallback
from claw.stream.frames import Frame
from claw.stream.lenient import as_list, compact, loads, maybe_json, text_of

log: Final = logging.getLogger(__name__)

ACTIONS_MAX: Final = 50
PARAMS_MAX: Final = 200
"""Actions and parameters that are read; a card of ours has a handful."""
STAFF_ID_TYPE: Final = "1"
"""`userIdType` of a member's staff id; other types name people whom no rule of ours knows."""
UNKNOWN_LOGGED_EVERY_S: Final = 60.0


def to_card_callback(frame: Frame, respond: Callable[[Mapping[str, Any]], Awaitable[None]]) -> CardCallback:
    """Read a card frame. Raises FrameError where its data is no object; anything else may be missing or odd."""
    data = loads(frame.data, frame.size, frame.message_id)
    if not isinstance(data, dict):
        raise FrameError("a card callback is not a JSON object", size=frame.size, message_id=frame.message_id)
    try:
        actions, params = _pressed(data)
    except (ValueError, RecursionError):
        raise FrameError("a card callback is unusable", size=frame.size, message_id=frame.message_id) from None
    # Without a type the user id is taken for a staff id, which is what cards of ours ask for at their creation.
    has_staff_id = text_of(data.get("userIdType")) in {"", STAFF_ID_TYPE}
    return CardCallback(
        card_id=text_of(data.get("outTrackId")),
        staff_id=text_of(data.get("userId")) if has_staff_id else "",
        conversation_id=_conversation_id(text_of(data.get("spaceId"))),
        action_ids=actions,
        params=params,
        respond=respond,
    )


def _pressed(data: Mapping[str, Any]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Read action ids and parameters: JSON text in `content`, in `value` at times, and objects in their place."""
    for name in ("content", "value"):
        content = maybe_json(data.get(name))
        private = maybe_json(content.get("cardPrivateData")) if isinstance(content, dict) else None
        if isinstance(private, dict):
            # What cannot be read is left out: the button was pressed, and its card may still know what to do.
            actions = [text_of(each) for each in as_list(maybe_json(private.get("actionIds")))[:ACTIONS_MAX]]
            return tuple(filter(None, actions)), _params(maybe_json(private.get("params")))
    return (), {}


def _params(params: Any) -> dict[str, str]:
    """Texts by name; what a card form sends as an object or a switch comes as its JSON text."""
    if not isinstance(params, dict):
        return {}
    values = list(params.items())[:PARAMS_MAX]  # the first ones, as a form sends its fields in their order
    return {
        text_of(name): text_of(compact(value)) if isinstance(value, dict | list | bool) else text_of(value)
        for name, value in values
    }


def _conversation_id(space_id: str) -> str:
    """Return the chat's id, which comes bare or as `dtv1.card//IM_GROUP.<id>`, the way it was named at the delivery."""
    return space_id.partition(".card//")[2].partition(".")[2] or space_id if ".card//" in space_id else space_id


class UnknownCards:
    """Logs the callbacks of cards that nobody here knows, such as those of an earlier version."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._logged_at: float | None = None
        self._unlogged = 0

    async def log(self, callback: CardCallback) -> None:
        """Log a callback, but once a minute at most: pressing buttons must not fill a disk."""
        now = self._clock.monotonic()
        if self._logged_at is not None and now - self._logged_at < UNKNOWN_LOGGED_EVERY_S:
            self._unlogged += 1
            return
        # No name of a person, and no parameter, which may be what somebody typed.
        fields = {"card": callback.card_id[:64], "actions": len(callback.action_ids), "unlogged": self._unlogged}
        log.info("callback of an unknown card", extra=fields)
        self._logged_at, self._unlogged = now, 0
