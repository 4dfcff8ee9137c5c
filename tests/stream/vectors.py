"""The test vectors of the protocol's description (section 9), with invented values."""

from __future__ import annotations

import json
from typing import Any

ROBOT_TOPIC = "/v1.0/im/bot/messages/get"
CARD_TOPIC = "/v1.0/card/instances/callback"

GATEWAY_OK = (
    '{"endpoint":"wss://wss-open-connection.dingtalk.com:443/connect","ticket":"8c1e7a52-0b6d-11f0-9d3a-5e0c1b2a3f44"}'
)
GATEWAY_401 = '{"requestid":"0A1B2C3D-1111-7222-8333-444455556666","code":"authFailed","message":"鉴权失败"}'

PING = r"""{"specVersion":"1.0","type":"SYSTEM","headers":{"appId":"0f3a1c9e-aaaa-4bbb-8ccc-123456789abc","connectionId":"8c1e7a52-0b6d-11f0-9d3a-5e0c1b2a3f44","contentType":"application/json","messageId":"2141a0c7_3f2_19c0aa10001_5d20","time":"1771234567001","topic":"ping"},"data":"{\"opaque\":\"5b0c7f4e-0001-4a6b-9f00-00000000aa01\"}"}"""  # noqa: E501 - as it came
PONG = r"""{"code":200,"headers":{"contentType":"application/json","messageId":"2141a0c7_3f2_19c0aa10001_5d20"},"message":"OK","data":"{\"opaque\":\"5b0c7f4e-0001-4a6b-9f00-00000000aa01\"}"}"""  # noqa: E501 - as it goes
DISCONNECT = r"""{"specVersion":"1.0","type":"SYSTEM","headers":{"contentType":"application/json","messageId":"c0a80a0b17712345680015d43","time":"1771234568001","topic":"disconnect"},"data":"{\"reason\":\"persistent connection is timeout\"}"}"""  # noqa: E501 - as it came
EVENT = r"""{"specVersion":"1.0","type":"EVENT","headers":{"contentType":"application/json","messageId":"2141a0c7_3f2_19c0aa20c11_5d30","time":"1771234580000","topic":"*","eventType":"user_add_org","eventId":"e0000000000000000000000000000001","eventCorpId":"dingfakecorp","eventBornTime":"1771234579000","eventUnifiedAppId":"0f3a1c9e-aaaa-4bbb-8ccc-123456789abc"},"data":"{\"timeStamp\":\"1771234579000\",\"userId\":[\"u-2002\"]}"}"""  # noqa: E501 - as it came
EVENT_ACK = r"""{"code":200,"headers":{"contentType":"application/json","messageId":"2141a0c7_3f2_19c0aa20c11_5d30"},"message":"OK","data":"{\"status\":\"SUCCESS\",\"message\":\"success\"}"}"""  # noqa: E501 - as it goes
ROBOT = r"""{"specVersion":"1.0","type":"CALLBACK","headers":{"appId":"0f3a1c9e-aaaa-4bbb-8ccc-123456789abc","connectionId":"8c1e7a52-0b6d-11f0-9d3a-5e0c1b2a3f44","contentType":"application/json","messageId":"2141a0c7_3f2_19c0aa10b7e_5d21","time":"1771234570100","topic":"/v1.0/im/bot/messages/get"},"data":"{\"senderPlatform\":\"Win\",\"conversationId\":\"cidFakeGroup00==\",\"openThreadId\":\"cidFakeGroup00==\",\"atUsers\":[{\"dingtalkId\":\"$:LWCP_v1:$FakeBot\"}],\"chatbotCorpId\":\"dingfakecorp\",\"chatbotUserId\":\"$:LWCP_v1:$FakeBot\",\"msgId\":\"msgFakeOne000==\",\"senderNick\":\"Ann\",\"isAdmin\":false,\"senderStaffId\":\"u-1001\",\"sessionWebhookExpiredTime\":1771239970000,\"createAt\":1771234570000,\"senderCorpId\":\"dingfakecorp\",\"conversationType\":\"2\",\"senderId\":\"$:LWCP_v1:$FakeAnn\",\"conversationTitle\":\"Test room\",\"isInAtList\":true,\"sessionWebhook\":\"https://oapi.dingtalk.com/robot/sendBySession?session=00ff\",\"text\":{\"content\":\" hello bot\"},\"robotCode\":\"dingfakeclient\",\"msgtype\":\"text\"}"}"""  # noqa: E501 - as it came
ROBOT_ACK = r"""{"code":200,"headers":{"contentType":"application/json","messageId":"2141a0c7_3f2_19c0aa10b7e_5d21"},"message":"OK","data":"{\"response\":null}"}"""  # noqa: E501 - as it goes
ROBOT_REPEAT_ID = "2141a0c7_3f2_19c0aa1f5ee_5e07"
CARD_DATA = {
    "type": "actionCallback",
    "outTrackId": "trk-0001",
    "corpId": "dingfakecorp",
    "userId": "u-1001",
    "userIdType": 1,
    "spaceType": "IM",
    "spaceId": "cidFakeGroup00==",
    "extension": "{}",
    "content": '{"cardPrivateData":{"actionIds":["btn_stop"],"params":{"run":"42"}}}',
}

DIRECT: dict[str, Any] = {
    "conversationId": "cidFakeDirect0==",
    "conversationType": "1",
    "msgId": "msgFakeTwo000==",
    "senderId": "$:LWCP_v1:$FakeAnn",
    "senderStaffId": "u-1001",
    "senderNick": "Ann",
    "createAt": 1771234570000,
    "sessionWebhook": "https://oapi.dingtalk.com/robot/sendBySession?session=00ff",
    "sessionWebhookExpiredTime": 1771239970000,
    "robotCode": "dingfakeclient",
}
"""The fields that every message of a direct chat has."""


def frame(
    data: object, *, message_id: str = "m-1", topic: str = ROBOT_TOPIC, frame_type: str = "CALLBACK", **more: object
) -> str:
    """A frame's text; `data` is dumped unless it is a text already."""
    text = data if isinstance(data, str) else json.dumps(data)
    headers = {"messageId": message_id, "topic": topic, "contentType": "application/json", "time": "1771234570100"}
    return json.dumps({"specVersion": "1.0", "type": frame_type, "headers": headers, "data": text} | more)


def robot(number: int = 1, text: str = "hello") -> str:
    """A direct message of its own id."""
    body = DIRECT | {"msgtype": "text", "text": {"content": text}, "msgId": f"msg-{number}"}
    return frame(body, message_id=f"push-{number}")
