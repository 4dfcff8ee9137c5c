"""AI cards: made and shown by one call, filled by steps, put right at the end (docs/protocol.md section 7).

Order of events of a card: `create` makes it under an id of ours and puts it into the chat; made again under the same id
it shows nothing new, so that a crash in between makes no second one. `stream` replaces its text, each time as a whole;
the last step ends it. `update` writes the whole text once more: clients that were offline have missed the steps for
good (section 10a). All values of a card are texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from claw.dingtalk.openapi import OpenApiClient
from claw.dingtalk.quota import Api
from claw.messages import ChatKind, Conversation, Inbound, Sender

STATUS_FIELD: Final = "flowStatus"


class CardStatus(StrEnum):
    """`flowStatus` of a card (docs/protocol.md section 7.4)."""

    PROCESSING = "1"
    INPUTTING = "2"
    FINISHED = "3"
    EXECUTING = "4"
    FAILED = "5"


@dataclass(frozen=True, slots=True)
class CardPlace:
    """Where a card is shown: a group, or one person's direct chat, who must have a staff id."""

    robot_code: str
    conversation: Conversation
    sender: Sender

    @staticmethod
    def exists_for(inbound: Inbound) -> bool:
        """Whether the chat of a message can show cards: a direct one by its person's staff id alone."""
        return inbound.conversation.kind is ChatKind.GROUP or bool(inbound.sender.staff_id)

    def to_fields(self) -> dict[str, object]:
        """Return the fields of `createAndDeliver` that name it."""
        if self.conversation.kind is ChatKind.GROUP:
            return {
                "openSpaceId": f"dtv1.card//IM_GROUP.{self.conversation.id}",
                "imGroupOpenSpaceModel": {"supportForward": True},
                "imGroupOpenDeliverModel": {"robotCode": self.robot_code, **self._mention()},
            }
        return {
            "openSpaceId": f"dtv1.card//IM_ROBOT.{self.sender.staff_id}",
            "imRobotOpenSpaceModel": {"supportForward": True},
            "imRobotOpenDeliverModel": {
                "spaceType": "IM_ROBOT",
                "robotCode": self.robot_code,
                "extension": {"dynamicSummary": "true"},
            },
        }

    def _mention(self) -> dict[str, object]:
        # Who asked is told by DingTalk, as by the mention of a message.
        staff_id = self.sender.staff_id
        return {"atUserIds": {staff_id: self.sender.nick or staff_id}} if staff_id else {}


class CardClient:
    """Makes and changes cards of one template."""

    def __init__(self, openapi: OpenApiClient, template_id: str) -> None:
        self._openapi = openapi
        self._template_id = template_id

    @property
    def is_busy(self) -> bool:
        """Whether one more card would wait for seconds: DingTalk takes some twenty of each call in one."""
        return any(map(self._openapi.is_busy, (Api.CARD_CREATE, Api.CARD_STREAM, Api.CARD_UPDATE)))

    async def create(self, card_id: str, place: CardPlace, params: Mapping[str, str]) -> str:
        """Make a card with the text so far in it, and show it; return its `carrierId`. Raises DingTalkError."""
        payload = {
            "cardTemplateId": self._template_id,
            "outTrackId": card_id,
            # Without it no press of a button reaches us.
            "callbackType": "STREAM",
            "cardData": {"cardParamMap": dict(params)},
            "userIdType": 1,
            **place.to_fields(),
        }
        body = await self._openapi.call(Api.CARD_CREATE, "/v1.0/card/instances/createAndDeliver", payload)
        return _find_carrier(body.get("result"))

    async def stream(
        self,
        card_id: str,
        key: str,
        text: str,
        guid: str,
        *,
        final: bool = False,
        on_begin: Callable[[], None] = lambda: None,
    ) -> None:
        """Replace the text. `guid` names this step: the same again, after a lost answer, does nothing twice.

        `on_begin` is called when there is room for the call, right before it is sent. Raises DingTalkError.
        """
        payload = {
            "outTrackId": card_id,
            "guid": guid,
            "key": key,
            "content": text,
            # The whole text and not what was added: a step that was lost is made up for by the next one.
            "isFull": True,
            "isFinalize": final,
            "isError": False,
        }
        path = "/v1.0/card/streaming"
        await self._openapi.call(Api.CARD_STREAM, path, payload, method="PUT", step=not final, on_begin=on_begin)

    async def update(self, card_id: str, params: Mapping[str, str]) -> None:
        """Write values of a card, for clients that missed its steps too. Raises DingTalkError."""
        payload = {
            "outTrackId": card_id,
            "cardData": {"cardParamMap": dict(params)},
            # Without it the values that are not named here would be emptied.
            "cardUpdateOptions": {"updateCardDataByKey": True},
            "userIdType": 1,
        }
        await self._openapi.call(Api.CARD_UPDATE, "/v1.0/card/instances", payload, method="PUT")


def _find_carrier(result: object) -> str:
    deliveries = result.get("deliverResults") if isinstance(result, dict) else None
    # Best effort: without it only a quote of the card is not found by its id.
    for each in deliveries if isinstance(deliveries, list) else []:
        if isinstance(each, dict) and isinstance(each.get("carrierId"), str):
            return str(each["carrierId"])
    return ""
