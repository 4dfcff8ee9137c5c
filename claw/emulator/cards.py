"""AI cards: create, deliver, update, stream, and the click of a person on one (docs/protocol.md section 7).

Order of events: a card is created with its template's values; delivering puts it into a chat; streaming updates replace
one value again and again until one is final; a click is pushed to the robot, whose answer, if it comes within 2 s,
changes the values once more.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import time
import uuid
from typing import Any, Final

from aiohttp import web

from claw.emulator.bounds import trim
from claw.emulator.chats import Chats, FakeChat, UnknownError
from claw.emulator.faults import Faults
from claw.emulator.replies import Replies, Reply
from claw.emulator.responses import as_text, reply_error, reply_json

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

    async def create(self, body: dict[str, Any]) -> web.Response:
        """`POST /v1.0/card/instances`."""
        made = self._create(body)
        return made if not isinstance(made, FakeCard) else reply_json({"success": True, "result": made.out_track_id})

    async def deliver(self, body: dict[str, Any]) -> web.Response:
        """`POST /v1.0/card/instances/deliver`."""
        card = self.cards.get(as_text(body.get("outTrackId")))
        if card is None:
            return reply_error(400, "param.cardNotExist", "card not exist")
        problem = self._refuse_space(body)
        return problem or reply_json({"success": True, "result": self._deliver(card, body)})

    async def create_and_deliver(self, body: dict[str, Any]) -> web.Response:
        """`POST /v1.0/card/instances/createAndDeliver` (docs/protocol.md section 7.2)."""
        problem = self._refuse_space(body)
        if problem is not None:
            return problem
        made = self._create(body)
        if not isinstance(made, FakeCard):
            return made
        results = self._deliver(made, body)
        return reply_json({"success": True, "result": {"outTrackId": made.out_track_id, "deliverResults": results}})

    async def update(self, body: dict[str, Any]) -> web.Response:
        """`PUT /v1.0/card/instances`."""
        card = self.cards.get(as_text(body.get("outTrackId")))
        if card is None:
            return reply_error(400, "param.cardNotExist", "card not exist")
        params = _read_params(body)
        if params is None:
            return reply_error(400, "param.cardDataInvalid", "cardParamMap values must be strings")
        options = body.get("cardUpdateOptions")
        by_key = isinstance(options, dict) and options.get("updateCardDataByKey") is True
        self._apply(card, params if not by_key else card.params | params)
        return reply_json({"success": True, "result": True})

    async def stream_update(self, body: dict[str, Any]) -> web.Response:
        """`PUT /v1.0/card/streaming` (docs/protocol.md section 7.3)."""
        card = self.cards.get(as_text(body.get("outTrackId")))
        problem = self._refuse_update(card, body)
        if problem is not None or card is None:
            return problem or reply_error(400)
        guid = body["guid"]
        if guid in card.guids:
            # A repeated call whose first answer was lost: it succeeds, and an older text may not overwrite a newer one.
            card.repeated_guids += 1
            return reply_json({"success": True, "result": True})
        card.guids[guid] = None
        trim(card.guids, GUIDS_MAX)
        card.update_count += 1
        card.updates.append((time.monotonic(), len(body["content"])))
        card.after_end += card.state != "typing"
        card.stream_key = body["key"]
        state = "failed" if body.get("isError") is True else "finished" if body.get("isFinalize") is True else ""
        self._apply(card, card.params | {body["key"]: body["content"]}, state)
        return reply_json({"success": True, "result": True})

    def _refuse_update(self, card: FakeCard | None, body: dict[str, Any]) -> web.Response | None:
        checks = (
            (card is None, "param.stream.outTrackId", "outTrackId is invalid"),
            (not as_text(body.get("key")), "param.stream.keyEmpty", "key is empty"),
            (not as_text(body.get("guid")), "param.stream.guidEmpty", "guid is empty"),
            (not isinstance(body.get("content"), str), "param.stream.contentEmpty", "content is empty"),
            # Every known template streams a markdown variable, which takes the full text each time.
            (body.get("isFull") is not True, "param.stream.isFull", "isFull must be true for markdown"),
        )
        for wrong, code, message in checks:
            if wrong:
                return reply_error(400, code, message)
        if len(body["content"].encode()) > self._faults.card_content_limit:
            return reply_error(400, "param.stream.content", "content is too large")
        return None

    def _create(self, body: dict[str, Any]) -> FakeCard | web.Response:
        template, track = as_text(body.get("cardTemplateId")), as_text(body.get("outTrackId"))
        if not template.endswith(".schema"):
            return reply_error(400, "param.templateNotExist", "template not exist")
        if not track:
            return reply_error(400, "param.outTrackIdEmpty", "outTrackId is empty")
        params = _read_params(body)
        if params is None:
            return reply_error(400, "param.cardDataInvalid", "cardParamMap values must be strings")
        if track in self.cards:
            return self.cards[track]  # With its old data and template: that is what makes a repeated call harmless.
        card = FakeCard(track, template, body.get("callbackType") == "STREAM", params)
        card.state = FINISHED.get(params.get("flowStatus", ""), "typing")
        self.cards[track] = card
        trim(self.cards, self._keep)
        return card

    def _refuse_space(self, body: dict[str, Any]) -> web.Response | None:
        space, _, target = as_text(body.get("openSpaceId")).removeprefix("dtv1.card//").partition(".")
        if space not in {"IM_GROUP", "IM_ROBOT"} or not target:
            return reply_error(400, "param.openSpaceIdInvalid", "openSpaceId is invalid")
        model = body.get("imGroupOpenDeliverModel" if space == "IM_GROUP" else "imRobotOpenDeliverModel")
        if not isinstance(model, dict) or not model:
            return reply_error(400, "param.openDeliverModelEmpty", "the open deliver model is empty")
        if space == "IM_GROUP" and model.get("robotCode") != self._chats.robot_code:
            return reply_error(400, "param.robotCodeInvalid", "robotCode is invalid")
        return None

    def _deliver(self, card: FakeCard, body: dict[str, Any]) -> list[dict[str, Any]]:
        space, _, target = body["openSpaceId"].removeprefix("dtv1.card//").partition(".")
        result = {"spaceType": space, "spaceId": target, "success": False, "carrierId": "", "errorMsg": ""}
        if self._faults.take("card_inner_failure"):
            return [result | {"errorMsg": "spaceId is illegal"}]
        try:
            chat = self._chats.chat(target if space == "IM_GROUP" else f"direct:{target}")
        except UnknownError:
            return [result | {"errorMsg": "spaceId is illegal"}]
        # Delivering again shows nothing new: one outTrackId is one card, however often its call is repeated.
        if all(reply.chat != chat.id for reply in card.replies):
            reply = self._replies.post(
                chat, "card", "card", card.text, body, card=card.out_track_id, card_state=card.state
            )
            card.replies.append(reply)
        return [
            result | {"success": True, "carrierId": f"carrier{uuid.uuid5(uuid.NAMESPACE_OID, card.out_track_id).hex}"}
        ]

    def _apply(self, card: FakeCard, params: dict[str, str], state: str = "") -> None:
        card.params = params
        state = state or FINISHED.get(params.get("flowStatus", ""), "")
        card.state = state or card.state
        for reply in card.replies:
            self._replies.update_card(reply, card.text, card.state)

    def build_click(
        self, card: FakeCard, person_id: str, chat: FakeChat, action: str, params: dict[str, Any]
    ) -> dict[str, Any]:
        """Build the callback's data of a person's click (docs/protocol.md section 7.6, vector V9)."""
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

    def answer_click(self, card: FakeCard, data: Any) -> bool:
        """Use the answer to a callback; False if there is nothing in it to use."""
        response = data.get("response") if isinstance(data, dict) else None
        if not isinstance(response, dict):
            return False
        params = _read_params(response)
        private = _read_params(response, "userPrivateData")
        if params is None or private is None or not (params or private):
            return False
        card.private |= private
        self._apply(card, card.params | params)
        return True


def _read_params(body: dict[str, Any], name: str = "cardData") -> dict[str, str] | None:
    """Read `cardParamMap`; None if one of its values is not a string (docs/protocol.md section 7.2)."""
    data = body.get(name)
    if data is None:
        return {}
    params = data.get("cardParamMap", {}) if isinstance(data, dict) else None
    if not isinstance(params, dict) or not all(isinstance(value, str) for value in params.values()):
        return None
    return dict(params)
