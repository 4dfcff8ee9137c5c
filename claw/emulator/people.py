"""People: what they say in their chats, and how it reaches the robot.

Order of events: `say` puts the message into its chat; if it is meant for the robot, the robot's copy with a fresh
session webhook is pushed; whether a connection took it is noted on the message, which is then published to the pages.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from claw.emulator.chats import Chats, FakeMessage, describe_body
from claw.emulator.faults import Faults
from claw.emulator.files import Files
from claw.emulator.gateway import FakeGateway
from claw.emulator.pushes import Push
from claw.emulator.webhook import FakeWebhook


class Said(NamedTuple):
    """A person's message and, if it was meant for the robot, its push."""

    message: FakeMessage
    push: Push | None

    @property
    def msg_id(self) -> str:
        return self.message.id

    @property
    def delivered(self) -> bool:
        """A live connection was there to take it."""
        return self.push is not None and self.push.delivered


class People:
    """`said_count` counts what was meant for the robot."""

    def __init__(
        self, *, chats: Chats, files: Files, gateway: FakeGateway, webhook: FakeWebhook, faults: Faults
    ) -> None:
        self.said_count = 0
        self._chats = chats
        self._files = files
        self._gateway = gateway
        self._webhook = webhook
        self._faults = faults

    async def say(
        self,
        text: str = "",
        *,
        person: str = "u-1001",
        chat: str = "direct",
        at_robot: bool = True,
        at: Iterable[str] = (),
        msgtype: str = "text",
        content: dict[str, Any] | None = None,
        quote: str | None = None,
    ) -> Said:
        """Let a person say something in `direct` or in a group (its id or conversationId).

        In a group the robot gets it only when it is mentioned. `content` is the body of a message that is not text;
        without it a suitable one is made up. Raises UnknownError for an unknown person, chat or quoted message.
        """
        who = self._chats.person(person)
        where = self._chats.chat(chat, who)
        body = content if content is not None else self._make_body(msgtype, text)
        sent_body = body
        if msgtype == "text" and content is None and where.is_group:
            # DingTalk takes the mention out of the text and leaves the blank after it.
            sent_body = {"content": f" {text}"}
        # Built also for what no robot gets: a quote of an unknown message is then an error in every case.
        data = self._chats.build_robot_data(
            who,
            where,
            number=self._chats.next_number(),
            base_url=self._gateway.tickets.base_url,
            msgtype=msgtype,
            body=sent_body,
            quote=quote,
            at=[self._chats.person(each) for each in at],
            over_quota=self._is_over_quota(),
        )
        message = FakeMessage(
            id=data["msgId"],
            chat=where.id,
            sender=who.id,
            nick=who.nick,
            created_at=data["createAt"],
            msgtype=msgtype,
            text=text or describe_body(msgtype, body),
            content={} if msgtype == "text" else body,
            quote=quote,
            to_robot=at_robot or not where.is_group,
        )
        # First into the chat, then to the robot: its reply may come before this returns, and belongs below it.
        self._chats.add(message)
        # Among themselves people say much that no robot hears; it is in the chat and costs no quota.
        push = None
        if message.to_robot:
            self.said_count += 1
            push = self._gateway.push(data)
            message.delivered = push.delivered
        self._chats.publish(message)
        return Said(message, push)

    def build_robot_data(
        self, text: str, *, person: str = "u-1001", chat: str = "direct", **more: Any
    ) -> dict[str, Any]:
        """Build a robot message's data with a fresh msgId and session, to change and `push`."""
        who = self._chats.person(person)
        number, base_url = self._chats.next_number(), self._gateway.tickets.base_url
        where = self._chats.chat(chat, who)
        return self._chats.build_robot_data(who, where, number=number, base_url=base_url, body={"content": text}) | more

    def _is_over_quota(self) -> bool:
        # One quota for both directions: what the robot answers over its webhooks empties the messages that it gets.
        limit = self._faults.stream_month_limit
        return bool(limit) and self._webhook.month + self.said_count >= limit

    def _make_body(self, msgtype: str, text: str) -> dict[str, Any]:
        """Make up a body for a message of that type (docs/protocol.md section 5.2, vector V7)."""
        if msgtype == "text":
            return {"content": text}
        if msgtype not in {"picture", "richText", "audio", "video", "file"}:
            # What the real one does with a type that robots cannot get: the type's own name as the key.
            return {msgtype: text or "[不支持的消息]"}
        code = self._files.add_sample()
        picture = {"downloadCode": code, "pictureDownloadCode": code}
        bodies: dict[str, dict[str, Any]] = {
            "picture": picture,
            "richText": {"richText": [{"text": text}, {"type": "picture"} | picture]},
            "audio": {"duration": 3200, "downloadCode": code, "recognition": text},
            "video": {"duration": "5", "videoType": "mp4", "downloadCode": code},
            "file": {"spaceId": "900001", "fileName": text or "a.png", "downloadCode": code, "fileId": "800001"},
        }
        return bodies[msgtype]
