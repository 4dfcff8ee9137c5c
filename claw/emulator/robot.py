"""What a robot sends on its own: single and group messages, recalls, reactions (PROTOCOL 6.3 and 6.5)."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any, Final

from claw.emulator.answers import api_error, reply, words
from claw.emulator.chats import UnknownError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from claw.emulator.chats import Chat, Chats, Message
    from claw.emulator.faults import Faults

MAX_GROUP_PARAM: Final = 15_000
"""Bytes of a group message's msgParam (PROTOCOL 6.3)."""
MAX_USERS: Final = 20
MAX_RECALLS: Final = 20
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


class Robot:
    """``deliver(chat, msgtype, text, title, body)`` puts a message into a chat; ``changed`` tells of a changed one."""

    def __init__(
        self,
        *,
        chats: Chats,
        faults: Faults,
        deliver: Callable[[Chat, str, str, str, dict[str, Any]], Message],
        changed: Callable[[Message], None],
        keep: int,
    ) -> None:
        self._chats = chats
        self._faults = faults
        self._deliver = deliver
        self._changed = changed
        self._keep = keep
        self._sent: dict[str, list[Message]] = {}

    async def batch_send(self, body: dict[str, Any]) -> web.Response:
        """``POST /v1.0/robot/oToMessages/batchSend``: 200 also if no user got it, so both lists matter."""
        problem = self._bad_robot(body)
        users = body.get("userIds")
        if problem is not None:
            return problem
        if not isinstance(users, list) or not users or not all(isinstance(user, str) and user for user in users):
            return api_error(400, "invalidParameter.userIds.empty", "userIds 不能为空")
        if len(users) > MAX_USERS:
            return api_error(400, "invalidParameter.userIds.overMax", "userIds 超过上限")
        parsed = self._parse(body)
        if not isinstance(parsed, tuple):
            return parsed
        staff = {person.staff_id: person for person in self._chats.people.values() if person.staff_id}
        invalid = users if self._faults.take("invalid_staff") else [user for user in users if user not in staff]
        valid = [user for user in users if user not in invalid]
        throttled = valid if self._faults.take("flow_controlled") else []
        sent = [
            self._deliver(self._chats.chat(f"direct:{staff[user].id}"), *parsed, body)
            for user in valid
            if user not in throttled
        ]
        lists = {"invalidStaffIdList": invalid, "flowControlledStaffIdList": throttled}
        return reply({"processQueryKey": self._remember(sent)} | lists)

    async def group_send(self, body: dict[str, Any]) -> web.Response:
        """``POST /v1.0/robot/groupMessages/send``."""
        problem = self._bad_robot(body)
        if problem is not None:
            return problem
        chat = self._group(body)
        if chat is None:
            code = "invalid.openConversationId" if body.get("openConversationId") else "miss.openConversationId"
            return api_error(400, code)
        parsed = self._parse(body)
        if not isinstance(parsed, tuple):
            return parsed
        if len(body["msgParam"].encode()) > MAX_GROUP_PARAM:
            return api_error(400, "invalidParameter.msgParam.tooLong", "msgParam 过长")
        return reply({"processQueryKey": self._remember([self._deliver(chat, *parsed, body)])})

    async def recall(self, body: dict[str, Any]) -> web.Response:
        """``POST /v1.0/robot/otoMessages/batchRecall`` and ``/v1.0/robot/groupMessages/recall``."""
        problem = self._bad_robot(body)
        keys = body.get("processQueryKeys")
        if problem is not None:
            return problem
        if not isinstance(keys, list) or not 0 < len(keys) <= MAX_RECALLS:
            return api_error(400, "invalidParameter.processQueryKeys", "processQueryKeys 1 到 20 个")
        done, failed = [], {}
        for key in map(str, keys):
            if key in self._sent:
                done.append(key)
                for message in self._sent[key]:
                    message.recalled = True
                    self._changed(message)
            else:
                failed[key] = "processQueryKey not exist"
        return reply({"successResult": done, "failedResult": failed})

    async def robots(self, body: dict[str, Any]) -> web.Response:
        """``POST /v1.0/robot/groups/robots/query``: the robots of a group."""
        if self._group(body) is None:
            return api_error(400, "invalid.openConversationId")
        return reply({"chatbotInstanceVOList": [{"robotCode": self._chats.robot_code}]})

    async def emotion(self, body: dict[str, Any], *, on: bool) -> web.Response:
        """``POST /v1.0/robot/emotion/reply`` and ``/recall``: a reaction on a message (PROTOCOL 6.5)."""
        problem = self._bad_robot(body)
        status = self._faults.take("emotion_status")
        if status:
            return api_error(status, "system.err", "system error")
        message = self._chats.message(words(body.get("openMsgId")))
        name = words(body.get("emotionName"))
        if problem is not None:
            return problem
        if message is None or not name:
            return api_error(400, "invalidParameter.openMsgId", "openMsgId is invalid")
        if self._chats.chat(message.chat).conversation_id != body.get("openConversationId"):
            return api_error(400, "invalid.openConversationId")
        if on and name not in message.reactions:
            message.reactions.append(name)
        elif not on and name in message.reactions:
            message.reactions.remove(name)
        self._changed(message)
        return reply({"success": True})

    def _bad_robot(self, body: dict[str, Any]) -> web.Response | None:
        code = body.get("robotCode")
        if not code:
            return api_error(400, "invalidParameter.robotCode.empty", "robotCode 不能为空")
        if code != self._chats.robot_code:
            return api_error(400, "robot.oto.notExist", "机器人不存在")
        return None

    def _group(self, body: dict[str, Any]) -> Chat | None:
        try:
            chat = self._chats.chat(words(body.get("openConversationId")))
        except UnknownError:
            return None
        return chat if chat.is_group else None

    def _parse(self, body: dict[str, Any]) -> tuple[str, str, str] | web.Response:
        """Message type, text and title; or the error that DingTalk answers."""
        key = words(body.get("msgKey"))
        if key not in MSG_KEYS:
            return api_error(400, "invalidParameter.msgKey.invalid", "msgKey 不合法")
        msgtype, needed = MSG_KEYS[key]
        try:
            # A JSON string, not an object: the usual mistake (PROTOCOL 6.3).
            params = json.loads(words(body.get("msgParam")))
        except ValueError:
            params = None
        if not isinstance(params, dict) or any(params.get(name) in (None, "") for name in needed):
            return api_error(400, "invalidParameter.msgParam.invalid", "msgParam 不合法")
        text = str(
            params.get("text") or params.get("content") or params.get("photoURL") or params.get("fileName") or ""
        )
        return msgtype, text, str(params.get("title", ""))

    def _remember(self, messages: list[Message]) -> str:
        key = "pqk" + uuid.uuid4().hex
        self._sent[key] = messages
        if len(self._sent) > self._keep:
            del self._sent[next(iter(self._sent))]
        return key
