"""What a robot does of its own accord: single and group messages, recalls, reactions.

Order of events: each call checks its robot code and its fields in the order in which the real one complains; what is
sent is posted into the chats and remembered under a processQueryKey, by which it can be recalled (docs/protocol.md
section 6.3 and 6.5).
"""

from __future__ import annotations

import json
import uuid
from typing import Any, Final, NamedTuple

from claw.emulator.bounds import trim
from claw.emulator.chats import Chats, FakeChat, FakeMessage, UnknownError
from claw.emulator.faults import Faults
from claw.emulator.files import Files
from claw.emulator.replies import Replies
from claw.emulator.responses import RefusedError, as_text

GROUP_PARAM_MAX_BYTES: Final = 15_000
"""Of a group message's msgParam; nothing is said of a single one's (docs/protocol.md section 6.3)."""
USERS_MAX: Final = 20
"""The parameter's text says 20, its error's text 100: the smaller one is safe (docs/protocol.md section 6.3)."""
RECALLS_MAX: Final = 20
MSG_KEYS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "sampleText": ("text", ("content",)),
    "sampleMarkdown": ("markdown", ("title", "text")),
    "sampleImageMsg": ("image", ("photoURL",)),
    "sampleLink": ("link", ("title", "text", "messageUrl")),
    "sampleActionCard": ("actionCard", ("title", "text")),
    "sampleAudio": ("audio", ("mediaId", "duration")),
    "sampleFile": ("file", ("mediaId", "fileName", "fileType")),
    "sampleVideo": ("video", ("videoMediaId", "videoType")),
} | {f"sampleActionCard{n}": ("actionCard", ("title", "text")) for n in range(2, 7)}
"""msgKey: the msgtype that it becomes, and what its msgParam needs."""


class ParsedMessage(NamedTuple):
    msgtype: str
    text: str
    title: str
    params: dict[str, Any]


class FakeRobotApi:
    def __init__(self, *, chats: Chats, replies: Replies, files: Files, faults: Faults, keep: int) -> None:
        self._chats = chats
        self._replies = replies
        self._files = files
        self._faults = faults
        self._keep = keep
        self._sent: dict[str, list[FakeMessage]] = {}
        """By processQueryKey."""

    async def batch_send(self, body: dict[str, Any]) -> dict[str, Any]:
        """`POST /v1.0/robot/oToMessages/batchSend`: 200 also if no user got it, so both lists matter."""
        self._check_robot(body)
        users = body.get("userIds")
        if not isinstance(users, list) or not users or not all(isinstance(user, str) and user for user in users):
            raise RefusedError(400, "invalidParameter.userIds.empty", "userIds 不能为空")
        if len(users) > USERS_MAX:
            raise RefusedError(400, "invalidParameter.userIds.overMax", "userIds 超过上限")
        message = _parse_message(body)
        staff = {person.staff_id: person for person in self._chats.people.values() if person.staff_id}
        # A user stands in one list at most: a client that adds them up must come to the number it sent to.
        invalid = users if self._faults.take("invalid_staff") else [user for user in users if user not in staff]
        valid = [user for user in users if user not in invalid]
        throttled = valid if self._faults.take("flow_controlled") else []
        chats = [self._chats.chat(f"direct:{staff[user].id}") for user in valid if user not in throttled]
        lists = {"invalidStaffIdList": invalid, "flowControlledStaffIdList": throttled}
        return {"processQueryKey": self._post(chats, message, body)} | lists

    async def group_send(self, body: dict[str, Any]) -> dict[str, Any]:
        """`POST /v1.0/robot/groupMessages/send`."""
        self._check_robot(body)
        chat, message = self._find_group(body), _parse_message(body)
        if len(body["msgParam"].encode()) > GROUP_PARAM_MAX_BYTES:
            raise RefusedError(400, "invalidParameter.msgParam.tooLong", "msgParam 过长")
        return {"processQueryKey": self._post([chat], message, body)}

    async def recall_messages(self, body: dict[str, Any]) -> dict[str, Any]:
        """`POST /v1.0/robot/otoMessages/batchRecall` and `/v1.0/robot/groupMessages/recall`."""
        self._check_robot(body)
        keys = body.get("processQueryKeys")
        if not isinstance(keys, list) or not 0 < len(keys) <= RECALLS_MAX:
            raise RefusedError(400, "invalidParameter.processQueryKeys", "processQueryKeys 1 到 20 个")
        known = [key for key in map(str, keys) if key in self._sent]
        for message in (message for key in known for message in self._sent[key]):
            message.recalled = True
            self._chats.publish(message)
        # As with a send to several people: 200, and what failed stands in the body.
        unknown = {key: "processQueryKey not exist" for key in map(str, keys) if key not in self._sent}
        return {"successResult": known, "failedResult": unknown}

    async def list_robots(self, body: dict[str, Any]) -> dict[str, Any]:
        """`POST /v1.0/robot/groups/robots/query`: the robots of a group."""
        self._find_group(body)
        return {"chatbotInstanceVOList": [{"robotCode": self._chats.robot_code}]}

    async def set_emotion(self, body: dict[str, Any], *, on: bool) -> dict[str, Any]:
        """`POST /v1.0/robot/emotion/reply` and `/recall`: a reaction on a message (docs/protocol.md section 6.5)."""
        # Before any check: right after a message the real one fails at a right call (docs/protocol.md section 6.5).
        status = self._faults.take("emotion_status")
        if status:
            raise RefusedError(status, "system.err", "system error")
        self._check_robot(body)
        message = self._chats.message(as_text(body.get("openMsgId")))
        name = as_text(body.get("emotionName"))
        if message is None or not name:
            raise RefusedError(400, "invalidParameter.openMsgId", "openMsgId is invalid")
        if self._chats.chat(message.chat).conversation_id != body.get("openConversationId"):
            raise RefusedError(400, "invalid.openConversationId")
        # Once for each name: a call that is repeated because its answer was lost shows no second reaction.
        if on and name not in message.reactions:
            message.reactions.append(name)
        elif not on and name in message.reactions:
            message.reactions.remove(name)
        self._chats.publish(message)
        return {"success": True}

    def _check_robot(self, body: dict[str, Any]) -> None:
        code = body.get("robotCode")
        if not code:
            raise RefusedError(400, "invalidParameter.robotCode.empty", "robotCode 不能为空")
        if code != self._chats.robot_code:
            raise RefusedError(400, "robot.oto.notExist", "机器人不存在")

    def _find_group(self, body: dict[str, Any]) -> FakeChat:
        conversation_id = as_text(body.get("openConversationId"))
        try:
            chat = self._chats.chat(conversation_id)
        except UnknownError:
            chat = None
        # A direct chat has a conversation id as well, but only groups take it here.
        if chat is None or not chat.is_group:
            raise RefusedError(400, f"{'invalid' if conversation_id else 'miss'}.openConversationId")
        return chat

    def _post(self, chats: list[FakeChat], message: ParsedMessage, body: dict[str, Any]) -> str:
        """Post into all the chats; return the processQueryKey of that. There is no idempotency key: twice is twice."""
        key = "pqk" + uuid.uuid4().hex
        msgtype, text, title, params = message
        content = self._make_content(msgtype, params)
        self._sent[key] = [
            self._replies.post(chat, "openapi", msgtype, text, body, title=title, receipt=key, content=content).message
            for chat in chats
        ]
        trim(self._sent, self._keep)
        return key

    def _make_content(self, msgtype: str, params: dict[str, Any]) -> dict[str, Any]:
        """Make what whoever quotes a file or a picture of the robot hands on: as of any file, a download code."""
        media_id = str(params.get({"file": "mediaId", "image": "photoURL"}.get(msgtype, ""), ""))
        code = self._files.lend(media_id)
        if not code:
            return {}
        named = {"fileName": params["fileName"], "spaceId": "900001", "fileId": "800002"} if msgtype == "file" else {}
        return named | {"downloadCode": code}


def _parse_message(body: dict[str, Any]) -> ParsedMessage:
    key = as_text(body.get("msgKey"))
    if key not in MSG_KEYS:
        raise RefusedError(400, "invalidParameter.msgKey.invalid", "msgKey 不合法")
    msgtype, needed = MSG_KEYS[key]
    try:
        # A JSON string, not an object: the usual mistake of a client (docs/protocol.md section 6.3).
        params = json.loads(as_text(body.get("msgParam")))
    except ValueError:
        params = None
    if not isinstance(params, dict) or any(params.get(name) in (None, "") for name in needed):
        raise RefusedError(400, "invalidParameter.msgParam.invalid", "msgParam 不合法")
    # For the page: the first field with something to read; it does not matter to the robot.
    text = next((params[name] for name in ("text", "content", "photoURL", "fileName") if params.get(name)), "")
    return ParsedMessage(msgtype, str(text), str(params.get("title", "")), params)
