"""What a robot does of its own accord: single and group messages, recalls, reactions.

Order of events: each call checks its robot code and its fields in the order in which the real one complains; what is
sent is posted into the chats and remembered under a processQueryKey, by which it can be recalled (docs/protocol.md
section 6.3 and 6.5).
"""

from __future__ import annotations

import json
import uuid
from typing import Any, Final, NamedTuple

from aiohttp import web

from claw.emulator.bounds import trim
from claw.emulator.chats import Chats, FakeChat, FakeMessage, UnknownError
from claw.emulator.faults import Faults
from claw.emulator.replies import Replies
from claw.emulator.responses import as_text, reply_error, reply_json

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


class FakeRobotApi:
    def __init__(self, *, chats: Chats, replies: Replies, faults: Faults, keep: int) -> None:
        self._chats = chats
        self._replies = replies
        self._faults = faults
        self._keep = keep
        self._sent: dict[str, list[FakeMessage]] = {}
        """By processQueryKey."""

    async def batch_send(self, body: dict[str, Any]) -> web.Response:
        """`POST /v1.0/robot/oToMessages/batchSend`: 200 also if no user got it, so both lists matter."""
        problem = self._refuse_robot(body) or self._refuse_users(body.get("userIds"))
        if problem is not None:
            return problem
        users: list[str] = body["userIds"]
        parsed = self._parse(body)
        if not isinstance(parsed, ParsedMessage):
            return parsed
        staff = {person.staff_id: person for person in self._chats.people.values() if person.staff_id}
        invalid = users if self._faults.take("invalid_staff") else [user for user in users if user not in staff]
        valid = [user for user in users if user not in invalid]
        throttled = valid if self._faults.take("flow_controlled") else []
        chats = [self._chats.chat(f"direct:{staff[user].id}") for user in valid if user not in throttled]
        lists = {"invalidStaffIdList": invalid, "flowControlledStaffIdList": throttled}
        return reply_json({"processQueryKey": self._post(chats, parsed, body)} | lists)

    def _refuse_users(self, users: Any) -> web.Response | None:
        if not isinstance(users, list) or not users or not all(isinstance(user, str) and user for user in users):
            return reply_error(400, "invalidParameter.userIds.empty", "userIds 不能为空")
        if len(users) > USERS_MAX:
            return reply_error(400, "invalidParameter.userIds.overMax", "userIds 超过上限")
        return None

    async def group_send(self, body: dict[str, Any]) -> web.Response:
        """`POST /v1.0/robot/groupMessages/send`."""
        problem = self._refuse_robot(body)
        if problem is not None:
            return problem
        chat = self._find_group(body)
        if chat is None:
            code = "invalid.openConversationId" if body.get("openConversationId") else "miss.openConversationId"
            return reply_error(400, code)
        parsed = self._parse(body)
        if not isinstance(parsed, ParsedMessage):
            return parsed
        if len(body["msgParam"].encode()) > GROUP_PARAM_MAX_BYTES:
            return reply_error(400, "invalidParameter.msgParam.tooLong", "msgParam 过长")
        return reply_json({"processQueryKey": self._post([chat], parsed, body)})

    async def recall_messages(self, body: dict[str, Any]) -> web.Response:
        """`POST /v1.0/robot/otoMessages/batchRecall` and `/v1.0/robot/groupMessages/recall`."""
        problem = self._refuse_robot(body)
        keys = body.get("processQueryKeys")
        if problem is not None:
            return problem
        if not isinstance(keys, list) or not 0 < len(keys) <= RECALLS_MAX:
            return reply_error(400, "invalidParameter.processQueryKeys", "processQueryKeys 1 到 20 个")
        done, failed = [], {}
        for key in map(str, keys):
            if key in self._sent:
                done.append(key)
                for message in self._sent[key]:
                    message.recalled = True
                    self._chats.publish(message)
            else:
                failed[key] = "processQueryKey not exist"
        return reply_json({"successResult": done, "failedResult": failed})

    async def list_robots(self, body: dict[str, Any]) -> web.Response:
        """`POST /v1.0/robot/groups/robots/query`: the robots of a group."""
        if self._find_group(body) is None:
            return reply_error(400, "invalid.openConversationId")
        return reply_json({"chatbotInstanceVOList": [{"robotCode": self._chats.robot_code}]})

    async def set_emotion(self, body: dict[str, Any], *, on: bool) -> web.Response:
        """`POST /v1.0/robot/emotion/reply` and `/recall`: a reaction on a message (docs/protocol.md section 6.5)."""
        problem = self._refuse_robot(body)
        status = self._faults.take("emotion_status")
        if status:
            return reply_error(status, "system.err", "system error")
        message = self._chats.message(as_text(body.get("openMsgId")))
        name = as_text(body.get("emotionName"))
        if problem is not None:
            return problem
        if message is None or not name:
            return reply_error(400, "invalidParameter.openMsgId", "openMsgId is invalid")
        if self._chats.chat(message.chat).conversation_id != body.get("openConversationId"):
            return reply_error(400, "invalid.openConversationId")
        if on and name not in message.reactions:
            message.reactions.append(name)
        elif not on and name in message.reactions:
            message.reactions.remove(name)
        self._chats.publish(message)
        return reply_json({"success": True})

    def _refuse_robot(self, body: dict[str, Any]) -> web.Response | None:
        code = body.get("robotCode")
        if not code:
            return reply_error(400, "invalidParameter.robotCode.empty", "robotCode 不能为空")
        if code != self._chats.robot_code:
            return reply_error(400, "robot.oto.notExist", "机器人不存在")
        return None

    def _find_group(self, body: dict[str, Any]) -> FakeChat | None:
        try:
            chat = self._chats.chat(as_text(body.get("openConversationId")))
        except UnknownError:
            return None
        return chat if chat.is_group else None

    def _parse(self, body: dict[str, Any]) -> ParsedMessage | web.Response:
        """Read message type, text and title, or return the error that DingTalk answers."""
        key = as_text(body.get("msgKey"))
        if key not in MSG_KEYS:
            return reply_error(400, "invalidParameter.msgKey.invalid", "msgKey 不合法")
        msgtype, needed = MSG_KEYS[key]
        try:
            # A JSON string, not an object: the usual mistake of a client (docs/protocol.md section 6.3).
            params = json.loads(as_text(body.get("msgParam")))
        except ValueError:
            params = None
        if not isinstance(params, dict) or any(params.get(name) in (None, "") for name in needed):
            return reply_error(400, "invalidParameter.msgParam.invalid", "msgParam 不合法")
        text = str(
            params.get("text") or params.get("content") or params.get("photoURL") or params.get("fileName") or ""
        )
        return ParsedMessage(msgtype, text, str(params.get("title", "")))

    def _post(self, chats: list[FakeChat], parsed: ParsedMessage, body: dict[str, Any]) -> str:
        """Post into all the chats; return the processQueryKey of that. There is no idempotency key: twice is twice."""
        key = "pqk" + uuid.uuid4().hex
        msgtype, text, title = parsed
        self._sent[key] = [
            self._replies.post(chat, "openapi", msgtype, text, body, title=title).message for chat in chats
        ]
        trim(self._sent, self._keep)
        return key
