"""People: what they say in their chats, and how it reaches the robot.

A person may sit at any client: most take the robot's mention out of the words, some leave it there
(docs/protocol.md section 10a). Order of events: `say` puts the message into its chat; if it is meant for the robot, the
robot's copy with a fresh session webhook is pushed; whether a connection took it is noted on the message, which is then
published to the pages.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from claw.emulator.bodies import Client, find_client, make_body, make_record, mention
from claw.emulator.chats import Chats, FakeMessage, describe_body
from claw.emulator.files import Files
from claw.emulator.gateway import FakeGateway
from claw.emulator.month import FakeMonth
from claw.emulator.pushes import Push

SIGNED: Final = frozenset({"audio", "interactiveCard"})
"""What is shown by its sign, also where its sender gave it words."""


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

    def __init__(self, *, chats: Chats, files: Files, gateway: FakeGateway, month: FakeMonth) -> None:
        self.said_count = 0
        self._chats = chats
        self._files = files
        self._gateway = gateway
        self._month = month

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
        bare_quote: bool = False,
        forward: Iterable[str] = (),
        named: bool = True,
        client: str = Client.USUAL,
    ) -> Said:
        """Let a person say something in `direct` or in a group (its id or conversationId).

        In a group the robot gets it only when it is mentioned. `content` is the body of a message that is not text;
        without it a suitable one is made up. `bare_quote`: the quote comes as a reference alone. `forward` are the
        messages of a forwarded chat (`named`: its entries tell who spoke, else its summary alone does).
        `at` are people that are mentioned beside it, `client` is what the person writes with (`bodies.Client`). Raises
        UnknownError for an unknown person, chat, client or message.
        """
        who = self._chats.person(person)
        where = self._chats.chat(chat, who)
        others = [self._chats.person(each) for each in at]
        if forwarded := [self._chats.find(each) for each in forward]:
            msgtype, content = "chatRecord", make_record(forwarded, self._chats.id_of, named=named)
        body = content if content is not None else make_body(msgtype, text, self._files.add_sample)
        sent_type, sent_body = msgtype, body
        if where.is_group and at_robot:
            sent_type, sent_body = mention(msgtype, body, others, find_client(client))
        # Built also for what no robot gets: a quote of an unknown message is then an error in every case.
        data = self._chats.build_robot_data(
            who,
            where,
            number=self._chats.next_number(),
            base_url=self._gateway.tickets.base_url,
            msgtype=sent_type,
            body=sent_body,
            quote=quote,
            bare_quote=bare_quote,
            at=others,
            over_quota=self._month.is_stream_used_up,
        )
        shown = text if text and msgtype not in SIGNED else describe_body(msgtype, body, text)
        message = FakeMessage(data["msgId"], where.id, who.id, who.nick, data["createAt"], msgtype, shown, quote=quote)
        message.content = {} if msgtype == "text" else body
        message.to_robot = at_robot or not where.is_group
        return self._post(message, data)

    def _post(self, message: FakeMessage, data: dict[str, Any]) -> Said:
        # First into the chat, then to the robot: its reply may come before this returns, and belongs below it.
        self._chats.add(message)
        # Among themselves people say much that no robot hears; it is in the chat and costs no quota.
        push = None
        if message.to_robot:
            self.said_count += 1
            self._month.pushed += 1
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
