"""Reactions on a person's message: the sign that it arrived (docs/protocol.md section 6.5, not documented by DingTalk).

All of it is best effort: right after a message DingTalk may not know it yet, and a reaction that fails costs nobody an
answer. Each call counts against the month.
"""

from __future__ import annotations

from typing import Final

from claw.dingtalk.openapi import OpenApiClient
from claw.dingtalk.quota import Api
from claw.messages import Inbound

_EMOTION_ID: Final = "2659900"
_BACKGROUND_ID: Final = "im_bg_1"
"""The one look of a text reaction that clients are known to show."""


class ReactionClient:
    """Adds and removes reactions."""

    def __init__(self, openapi: OpenApiClient) -> None:
        self._openapi = openapi

    async def add(self, inbound: Inbound, name: str) -> None:
        """Put a reaction under a message. Raises DingTalkError."""
        await self._openapi.call(Api.REACTION, "/v1.0/robot/emotion/reply", _make_payload(inbound, name))

    async def remove(self, inbound: Inbound, name: str) -> None:
        """Take it back. Raises DingTalkError."""
        await self._openapi.call(Api.REACTION, "/v1.0/robot/emotion/recall", _make_payload(inbound, name))


def _make_payload(inbound: Inbound, name: str) -> dict[str, object]:
    return {
        "robotCode": inbound.robot_code,
        "openMsgId": inbound.msg_id,
        "openConversationId": inbound.conversation.id,
        "emotionType": 2,
        "emotionName": name,
        "textEmotion": {
            "emotionId": _EMOTION_ID,
            "emotionName": name,
            "text": name,
            "backgroundId": _BACKGROUND_ID,
        },
    }
