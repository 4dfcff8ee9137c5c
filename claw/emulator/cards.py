"""AI cards: create, deliver, update and stream (docs/protocol.md section 7); what people press is in `presses`.

Order of events: a card is created with its template's values; delivering puts it into a chat; streaming updates replace
one value again and again until one is final; a whole update changes any value, also for clients that were offline.
"""

from __future__ import annotations

import random
import time
from typing import Any, Final

from claw.emulator.bounds import trim
from claw.emulator.card import FakeCard, FakeCardCall, FakeCardState, make_face
from claw.emulator.chats import Chats, UnknownError
from claw.emulator.faults import Faults
from claw.emulator.replies import Replies
from claw.emulator.responses import RefusedError, as_text
from claw.emulator.templates import FakeOverflow, FakeTemplate, FakeTemplates

GUIDS_MAX: Final = 200
"""guids that a card remembers to recognise a repeated update."""


class FakeCardApi:
    def __init__(self, *, chats: Chats, replies: Replies, faults: Faults, keep: int, rng: random.Random) -> None:
        self.cards: dict[str, FakeCard] = {}
        """By outTrackId."""
        self.templates = FakeTemplates(faults)
        self._chats = chats
        self._replies = replies
        self._faults = faults
        self._keep = keep
        self._rng = rng

    def find(self, track: str) -> FakeCard:
        """Find a card by its outTrackId. Raises UnknownError."""
        card = self.cards.get(track)
        if card is None:
            raise UnknownError(f"no card {track!r}")
        return card

    def forget(self) -> None:
        self.cards.clear()
        self.templates.forget()

    def take_streaming_delay(self) -> float:
        """Take how long a streaming update takes: some take 3 to 10 s (docs/protocol.md section 10a)."""
        # The lower bound has the budget: one that is used up switches the slowness off altogether.
        low = float(self._faults.take("card_streaming_delay"))
        return self._rng.uniform(low, max(low, float(self._faults.card_streaming_delay_max)))

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
        self._check_sizes(self._find_template(card.template), params)
        # Counted when it is right: what was refused changed nothing and shows in the outcomes.
        card.put_count += 1
        options = body.get("cardUpdateOptions")
        # Without this option the new values replace all old ones, which empties a card whose client knows only one.
        by_key = isinstance(options, dict) and options.get("updateCardDataByKey") is True
        self._settle(card, params, FakeCardCall.UPDATE, by_key=by_key)
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
        card.after_end += card.state.is_end
        card.text_by = FakeCardCall.STREAM
        end = FakeCardState.FINISHED if body.get("isFinalize") is True else None
        # An error counts for more than an end, if a client claims both.
        end = FakeCardState.FAILED if body.get("isError") is True else end
        if end is None and not card.state.is_end:
            end = FakeCardState.STREAMING
        # A client that is away misses the frame for good; its next one brings the whole text again.
        faces = [card.face] if self._faults.client_offline else [card.face, card.seen]
        for face in faces:
            face.stream_key = body["key"]
            face.apply(face.params | {body["key"]: body["content"]}, end=end)
        self._show(card)
        return {"success": True, "result": True}

    def answer(self, card: FakeCard, person_id: str, response: dict[str, Any]) -> bool:
        """Use the answer to a press; say whether there was anything in it to use."""
        try:
            params, private = _read_params(response), _read_params(response, "userPrivateData")
        except RefusedError:
            return False  # What is wrong in an answer is not told to anybody.
        card.private.setdefault(person_id, {}).update(private)
        # Merged by key, which is what the answers of all SDKs ask for; an empty answer changes nothing.
        self._settle(card, params, FakeCardCall.PRESS, by_key=True)
        return bool(params or private)

    def _find(self, body: dict[str, Any]) -> FakeCard:
        card = self.cards.get(as_text(body.get("outTrackId")))
        if card is None:
            raise RefusedError(400, "param.cardNotExist", "card not exist")
        return card

    def _find_template(self, template_id: str) -> FakeTemplate:
        try:
            template = self.templates.find(template_id)
        except UnknownError:
            raise RefusedError(400, "param.templateNotExist", "template not exist") from None
        return template

    def _check_update(self, body: dict[str, Any]) -> FakeCard:
        card = self.cards.get(as_text(body.get("outTrackId")))
        if card is None:
            raise RefusedError(400, "param.stream.outTrackId", "outTrackId is invalid")
        content = body.get("content")
        template = self._find_template(card.template)
        for is_right, code, message in (
            (as_text(body.get("key")), "keyEmpty", "key is empty"),
            (as_text(body.get("guid")), "guidEmpty", "guid is empty"),
            (isinstance(content, str), "contentEmpty", "content is empty"),
            # Every known template streams a markdown variable, which takes the full text each time.
            (body.get("isFull") is True, "isFull", "isFull must be true for markdown"),
            # 200092 in DingTalk's table of codes (docs/protocol.md section 7.3).
            (_takes(template, str(content)), "content", "content is too large"),
        ):
            if not is_right:
                raise RefusedError(400, f"param.stream.{code}", message)
        return card

    def _create(self, body: dict[str, Any]) -> FakeCard:
        track = as_text(body.get("outTrackId"))
        template = self._find_template(as_text(body.get("cardTemplateId")))
        if self._faults.take("card_template_missing") or not template.exists:
            raise RefusedError(400, "param.templateNotExist", "template not exist")
        if self._faults.take("card_template_unpublished") or not template.published:
            raise RefusedError(400, "param.templateUnpublished", "template unpublished")
        if not track:
            raise RefusedError(400, "param.outTrackIdEmpty", "outTrackId is empty")
        params = _read_params(body)
        self._check_sizes(template, params)
        if track not in self.cards:  # Otherwise it keeps its old data: that is what makes a repeated call harmless.
            card = FakeCard(
                track,
                template.id,
                body.get("callbackType") == "STREAM",
                make_face(params),
                make_face(params),
                make_face(params),
                space=as_text(body.get("openSpaceId")),
            )
            self.cards[track] = card
            trim(self.cards, self._keep)
            self._show(card)
        return self.cards[track]

    def _check_sizes(self, template: FakeTemplate, params: dict[str, str]) -> None:
        # Every value, since a limit is the variable's own: some templates take 1 024 bytes of each.
        if not all(_takes(template, value) for value in params.values()):
            raise RefusedError(400, "param.cardDataInvalid", "content is too large")

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
        # Made and delivered by two calls, only the second one tells where to.
        card.space = card.space or as_text(body.get("openSpaceId"))
        # Delivering again shows nothing new: one outTrackId is one card, however often its call is repeated.
        if all(reply.chat != chat.id for reply in card.replies):
            receipt = self._replies.make_carrier_id(card.out_track_id)
            card.replies.append(
                self._replies.post(
                    chat, "card", "card", card.seen.text, body, card=self.make_view(card), receipt=receipt
                )
            )
            # It may be finished already.
            self.publish(card)
        return [result | {"success": True, "carrierId": self._replies.make_carrier_id(card.out_track_id)}]

    def make_view(self, card: FakeCard) -> dict[str, Any]:
        """Make what a page needs to draw the card as a client of its template would."""
        template = self.templates.find(card.template)
        return {
            "outTrackId": card.out_track_id,
            **card.seen.to_dict(),
            "template": template.id,
            "buttons": template.buttons and card.stream,
            "chars_per_s": template.chars_per_s,
            "pressed": card.pressed(),
            "updates": card.update_count,
            "puts": card.put_count,
        }

    def _settle(self, card: FakeCard, params: dict[str, str], call: FakeCardCall, *, by_key: bool) -> None:
        """Put whole values into all faces: clients ask for them when they come back."""
        # A call that changes buttons only brings no text to those that were offline.
        if card.face.text_name in params:
            card.text_by = call
        for face in (card.face, card.settled, card.seen):
            face.apply(face.params | params if by_key else dict(params))
        self._show(card)

    def _show(self, card: FakeCard) -> None:
        template = self._find_template(card.template)
        # Each by its own text: the one that was offline may hold a shorter one, which fits.
        for face in (card.face, card.settled, card.seen):
            face.blank = not template.fits(face.params.get(face.text_name, ""))
        if card.state.is_end and card.ended_at is None:
            card.ended_at = time.monotonic()
        self.publish(card)

    def publish(self, card: FakeCard) -> None:
        """Show the card as it is now wherever it was delivered."""
        for reply in card.replies:
            self._replies.update_card(reply, card.text, self.make_view(card), finished=card.state.is_end)


def _takes(template: FakeTemplate, text: str) -> bool:
    return template.overflow == FakeOverflow.BLANK or template.fits(text)


def _read_params(body: dict[str, Any], name: str = "cardData") -> dict[str, str]:
    """Read `cardParamMap`, whose values all have to be strings (docs/protocol.md section 7.2)."""
    data = body.get(name)
    params = data.get("cardParamMap", {}) if isinstance(data, dict) else {} if data is None else None
    if not isinstance(params, dict) or not all(isinstance(value, str) for value in params.values()):
        raise RefusedError(400, "param.cardDataInvalid", "cardParamMap values must be strings")
    return dict(params)
