"""AI cards: create, deliver, update, stream, and the click of a person on one (docs/protocol.md section 7).

Order of events: a card is created with its template's values; delivering puts it into a chat; streaming updates replace
one value again and again until one is final; a click is pushed to the robot, whose answer, if it comes within 2 s,
changes the values once more.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import time
import uuid
from typing import Any, Final

from claw.emulator.bounds import trim
from claw.emulator.chats import Chats, FakeChat, UnknownError
from claw.emulator.faults import Faults
from claw.emulator.replies import Replies, Reply
from claw.emulator.responses import RefusedError, as_text

FINISHED: Final = {"3": "finished", "5": "failed"}
"""flowStatus values that end a card (docs/protocol.md section 7.4)."""
GUIDS_MAX: Final = 200
"""guids that a card remembers to recognise a repeated update."""
UPDATES_MAX: Final = 500


@dataclasses.dataclass(eq=False)
class FakeCard:
    out_track_id: str
    template: str
    stream: bool
    """Created with `callbackType: STREAM`: its clicks come over the socket."""
    params: dict[str, str]
    private: dict[str, str] = dataclasses.field(default_factory=dict)
    state: str = "typing"
    """`typing`, `finished` or `failed`; a card that is never finalized stays `typing`."""
    stream_key: str = ""
    replies: list[Reply] = dataclasses.field(default_factory=list)
    """Where it was delivered."""
    # A client that streams to one card for hours is what a soak is to find, and must not fill this memory.
    updates: collections.deque[tuple[float, int]] = dataclasses.field(
        default_factory=lambda: collections.deque(maxlen=UPDATES_MAX)
    )
    """Monotonic time and length of every streaming update."""
    update_count: int = 0
    repeated_guids: int = 0
    in_flight: int = 0
    in_flight_max: int = 0
    """Above 1: the client did not wait for its previous update."""
    after_end: int = 0
    """Streaming updates that came after the final one."""
    guids: dict[str, None] = dataclasses.field(default_factory=dict)

    @property
    def text(self) -> str:
        """What it shows: the streamed value, or the likeliest one."""
        if self.stream_key:
            return self.params.get(self.stream_key, "")
        # Templates name their variable as they like; these are the known ones' (docs/protocol.md section 7.5).
        for name in ("content", "msgContent", "markdown", "text"):
            if self.params.get(name):
                return self.params[name]
        shown = [value for name, value in self.params.items() if name not in {"flowStatus", "sys_full_json_obj"}]
        return max(shown, key=len, default="")

    def to_dict(self) -> dict[str, Any]:
        return {
            "outTrackId": self.out_track_id,
            "template": self.template,
            "state": self.state,
            "text": self.text,
            "params": self.params,
            "stream": self.stream,
            "updates": self.update_count,
        }


class FakeCardApi:
    def __init__(self, *, chats: Chats, replies: Replies, faults: Faults, keep: int) -> None:
        self.cards: dict[str, FakeCard] = {}
        """By outTrackId."""
        self._chats = chats
        self._replies = replies
        self._faults = faults
        self._keep = keep

    async def create(self, body: dict[str, Any]) -> dict[str, Any]:
        """`POST /v1.0/card/instances`."""
        return {"success": True, "result": self._create(body).out_track_id}

    async def deliver(self, body: dict[str, Any]) -> dict[str, Any]:
        """`POST /v1.0/card/instances/deliver`."""
        card = self._find(body)
        return {"success": True, "result": self._deliver(card, *self._read_space(body), body)}

    async def create_and_deliver(self, body: dict[str, Any]) -> dict[str, Any]:
        """`POST /v1.0/card/instances/createAndDeliver` (docs/protocol.md section 7.2)."""
        space, target = self._read_space(body)  # Before the card is made: a wrong call leaves none behind.
        card = self._create(body)
        results = self._deliver(card, space, target, body)
        return {"success": True, "result": {"outTrackId": card.out_track_id, "deliverResults": results}}

    async def update(self, body: dict[str, Any]) -> dict[str, Any]:
        """`PUT /v1.0/card/instances`."""
        card, params = self._find(body), _read_params(body)
        options = body.get("cardUpdateOptions")
        # Without this option the new values replace all old ones, which empties a card whose client knows only one.
        by_key = isinstance(options, dict) and options.get("updateCardDataByKey") is True
        self._apply(card, card.params | params if by_key else params)
        return {"success": True, "result": True}

    async def stream_update(self, body: dict[str, Any]) -> dict[str, Any]:
        """`PUT /v1.0/card/streaming` (docs/protocol.md section 7.3)."""
        card = self._check_update(body)
        guid = body["guid"]
        if guid in card.guids:
            # A repeated call whose first answer was lost: it succeeds, and an older text may not overwrite a newer one.
            card.repeated_guids += 1
            return {"success": True, "result": True}
        card.guids[guid] = None
        trim(card.guids, GUIDS_MAX)
        card.update_count += 1
        card.updates.append((time.monotonic(), len(body["content"])))
        # Accepted and counted: the real one takes it as well, and people see a finished card move.
        card.after_end += card.state != "typing"
        card.stream_key = body["key"]
        # An error counts for more than an end, if a client claims both.
        state = "failed" if body.get("isError") is True else "finished" if body.get("isFinalize") is True else ""
        self._apply(card, card.params | {body["key"]: body["content"]}, state)
        return {"success": True, "result": True}

    def _find(self, body: dict[str, Any]) -> FakeCard:
        card = self.cards.get(as_text(body.get("outTrackId")))
        if card is None:
            raise RefusedError(400, "param.cardNotExist", "card not exist")
        return card

    def _check_update(self, body: dict[str, Any]) -> FakeCard:
        card = self.cards.get(as_text(body.get("outTrackId")))
        if card is None:
            raise RefusedError(400, "param.stream.outTrackId", "outTrackId is invalid")
        content = body.get("content")
        for is_right, code, message in (
            (as_text(body.get("key")), "keyEmpty", "key is empty"),
            (as_text(body.get("guid")), "guidEmpty", "guid is empty"),
            (isinstance(content, str), "contentEmpty", "content is empty"),
            # Every known template streams a markdown variable, which takes the full text each time.
            (body.get("isFull") is True, "isFull", "isFull must be true for markdown"),
            (len(str(content).encode()) <= self._faults.card_content_limit, "content", "content is too large"),
        ):
            if not is_right:
                raise RefusedError(400, f"param.stream.{code}", message)
        return card

    def _create(self, body: dict[str, Any]) -> FakeCard:
        template, track = as_text(body.get("cardTemplateId")), as_text(body.get("outTrackId"))
        if not template.endswith(".schema"):
            raise RefusedError(400, "param.templateNotExist", "template not exist")
        if not track:
            raise RefusedError(400, "param.outTrackIdEmpty", "outTrackId is empty")
        params = _read_params(body)
        if track not in self.cards:  # Otherwise it keeps its old data: that is what makes a repeated call harmless.
            state = FINISHED.get(params.get("flowStatus", ""), "typing")
            self.cards[track] = FakeCard(track, template, body.get("callbackType") == "STREAM", params, state=state)
            trim(self.cards, self._keep)
        return self.cards[track]

    def _read_space(self, body: dict[str, Any]) -> tuple[str, str]:
        """Read where the card goes: the kind of space, and the conversation or user."""
        space, _, target = as_text(body.get("openSpaceId")).removeprefix("dtv1.card//").partition(".")
        if space not in {"IM_GROUP", "IM_ROBOT"} or not target:
            raise RefusedError(400, "param.openSpaceIdInvalid", "openSpaceId is invalid")
        model = body.get("imGroupOpenDeliverModel" if space == "IM_GROUP" else "imRobotOpenDeliverModel")
        if not isinstance(model, dict) or not model:
            raise RefusedError(400, "param.openDeliverModelEmpty", "the open deliver model is empty")
        # Only groups need it: in a direct chat the robot is known from the app.
        if space == "IM_GROUP" and model.get("robotCode") != self._chats.robot_code:
            raise RefusedError(400, "param.robotCodeInvalid", "robotCode is invalid")
        return space, target

    def _deliver(self, card: FakeCard, space: str, target: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Deliver the card. A failure stands in the result, while the call itself succeeds."""
        result = {"spaceType": space, "spaceId": target, "success": False, "carrierId": "", "errorMsg": ""}
        try:
            where = target if space == "IM_GROUP" else f"direct:{target}"
            chat = None if self._faults.take("card_inner_failure") else self._chats.chat(where)
        except UnknownError:
            chat = None
        if chat is None:
            return [result | {"errorMsg": "spaceId is illegal"}]
        # Delivering again shows nothing new: one outTrackId is one card, however often its call is repeated.
        if all(reply.chat != chat.id for reply in card.replies):
            track, state = card.out_track_id, card.state
            card.replies.append(self._replies.post(chat, "card", "card", card.text, body, card=track, card_state=state))
        carrier = uuid.uuid5(uuid.NAMESPACE_OID, card.out_track_id).hex
        return [result | {"success": True, "carrierId": f"carrier{carrier}"}]

    def _apply(self, card: FakeCard, params: dict[str, str], state: str = "") -> None:
        card.params = params
        # A card never goes back to typing by itself: an update that names no state leaves it as it is.
        card.state = state or FINISHED.get(params.get("flowStatus", "")) or card.state
        for reply in card.replies:
            self._replies.update_card(reply, card.text, card.state)

    def build_click(
        self, card: FakeCard, person_id: str, chat: FakeChat, action: str, params: dict[str, Any]
    ) -> dict[str, Any]:
        """Build the callback's data of a person's click (docs/protocol.md section 7.6, vector V9)."""
        # JSON as a string inside the data, which is a string inside the frame: a client has to parse three times.
        content = {"cardPrivateData": {"actionIds": [action], "params": params}}
        return {
            "type": "actionCallback",
            "outTrackId": card.out_track_id,
            "corpId": "dingfakecorp",
            "userId": person_id,
            "userIdType": 1,
            "spaceType": "IM",
            "spaceId": chat.conversation_id,
            "extension": "{}",
            "content": json.dumps(content, ensure_ascii=False),
        }

    def answer_click(self, card: FakeCard, data: Any) -> None:
        """Use the answer to a click, if there is anything in it to use; what is wrong in it is not told to anybody."""
        response = data.get("response") if isinstance(data, dict) else None
        if isinstance(response, dict):
            with contextlib.suppress(RefusedError):
                # Merged by key, which is what the answers of all SDKs ask for; an empty answer changes nothing.
                params, private = _read_params(response), _read_params(response, "userPrivateData")
                card.private |= private
                self._apply(card, card.params | params)


def _read_params(body: dict[str, Any], name: str = "cardData") -> dict[str, str]:
    """Read `cardParamMap`, whose values all have to be strings (docs/protocol.md section 7.2)."""
    data = body.get(name)
    params = data.get("cardParamMap", {}) if isinstance(data, dict) else {} if data is None else None
    if not isinstance(params, dict) or not all(isinstance(value, str) for value in params.values()):
        raise RefusedError(400, "param.cardDataInvalid", "cardParamMap values must be strings")
    return dict(params)
