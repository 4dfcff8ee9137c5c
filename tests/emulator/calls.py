"""Bodies of OpenAPI calls that are right; a test changes what it is about."""

from __future__ import annotations

import json
from typing import Any

SEND = "/v1.0/robot/oToMessages/batchSend"
GROUP_SEND = "/v1.0/robot/groupMessages/send"
CREATE = "/v1.0/card/instances/createAndDeliver"
UPDATE = "/v1.0/card/instances"
STREAMING = "/v1.0/card/streaming"
REACTION = "/v1.0/robot/emotion/reply"
TEMPLATE = "8aebdfb9-28f4-4a98-98f5-396c3dde41a0.schema"


def single(**changes: Any) -> dict[str, Any]:
    param = json.dumps({"title": "Hi", "text": "**done**"})
    body = {"robotCode": "dingfakeclient", "userIds": ["u-1001"], "msgKey": "sampleMarkdown", "msgParam": param}
    return body | changes


def card(space: str = "IM_ROBOT.u-1001", **changes: Any) -> dict[str, Any]:
    body = {
        "cardTemplateId": TEMPLATE,
        "outTrackId": "trk-0001",
        "callbackType": "STREAM",
        "cardData": {"cardParamMap": {"content": "", "flowStatus": "1"}},
        "openSpaceId": f"dtv1.card//{space}",
        "imRobotOpenDeliverModel": {"spaceType": "IM_ROBOT", "robotCode": "dingfakeclient"},
        "imGroupOpenDeliverModel": {"robotCode": "dingfakeclient"},
    }
    return body | changes


def stream(content: str, **changes: Any) -> dict[str, Any]:
    flags = {"isFull": True, "isFinalize": False, "isError": False}
    return {"outTrackId": "trk-0001", "guid": content, "key": "content", "content": content} | flags | changes


def update(content: str, **params: str) -> dict[str, Any]:
    """A whole update that keeps the values that it does not name."""
    return {
        "outTrackId": "trk-0001",
        "cardData": {"cardParamMap": {"content": content} | params},
        "cardUpdateOptions": {"updateCardDataByKey": True},
    }


def reaction(message: dict[str, Any], name: str = "思考中") -> dict[str, Any]:
    return {
        "robotCode": "dingfakeclient",
        "openMsgId": message["msgId"],
        "openConversationId": message["conversationId"],
        "emotionType": 2,
        "emotionName": name,
    }
