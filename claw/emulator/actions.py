"""One-shot faults: what happens now, once, to one connection or to all.

Order of events: `act` finds the action by its name, does it, and returns what it did; only a card's click goes on by
itself (`presses`), since its answer has to be waited for.

`reset`, `close`, `disconnect`, `freeze` and `thaw` act on connections; `bad_frames` and `event` send
something; `card_click` is a person's; `expire_sessions` and `expire_tokens` age what was handed out. Every action
takes its parameters by name; a wrong one raises ActionError.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from aiohttp import WSMsgType

from claw.emulator.cards import FakeCardApi
from claw.emulator.chats import Chats, UnknownError
from claw.emulator.connection import Connection, OutboxFrame
from claw.emulator.gateway import FakeGateway
from claw.emulator.month import FakeMonth
from claw.emulator.presses import FakePresses
from claw.emulator.pushes import ROBOT_TOPIC, PushKind
from claw.emulator.tokens import Tokens

ACTIONS: Final[dict[str, tuple[str, str]]] = {
    "reset": ("TCP 重置", "reset the TCP"),
    "close": ("正常关闭（1000）", "close cleanly (1000)"),
    "disconnect": ("发送 disconnect", "send disconnect"),
    "freeze": ("冻结（半开）", "freeze (half-open)"),
    "thaw": ("解冻", "thaw them"),
    "bad_frames": ("发送各种坏帧", "send bad frames"),
    "event": ("推送一个事件", "push an event"),
    "card_click": ("点击最近的卡片", "click the latest card"),
    "expire_sessions": ("让 Webhook 过期", "expire the webhooks"),
    "expire_tokens": ("让令牌失效", "expire the token"),
}
"""Name: what it does, in Chinese and English."""
LARGE_CHARS: Final = 1024 * 1024
"""Of the large bad frame: what a client has to take at least (docs/protocol.md section 1.4)."""


class ActionError(ValueError):
    """No such action, or a parameter that it cannot take."""


def make_bad_frames() -> dict[str, list[str | bytes | dict[str, Any]]]:
    """Make frames by kind of badness; a dict gets a messageId when it is sent."""
    # Strings go out as they are, and nobody can ack them. Dicts are whole enough to be acked, so they are given an id
    # and their acks are not taken for invented ones.
    robot = {"specVersion": "1.0", "type": "CALLBACK", "headers": {"topic": ROBOT_TOPIC}}
    return {
        # The last one begins with a byte order mark, which JSON in a file may have and JSON on the wire may not.
        "not_json": ["{not json", "", "\ufeff{}"],
        "binary": [b"\x00\x01\x02 binary", b'{"type":"SYSTEM"}'],
        "large": [{"type": "SYSTEM", "headers": {"topic": "padding"}, "data": "x" * LARGE_CHARS}],
        "unknown_type": [{"type": "WHATEVER", "headers": {"topic": "x"}, "data": "{}"}],
        "unknown_topic": [
            {"type": "CALLBACK", "headers": {"topic": "/v1.0/no/such/topic"}, "data": "{}"},
            # In the Node SDK's list of topics, and never seen on a wire (docs/protocol.md section 2.2).
            {"type": "SYSTEM", "headers": {"topic": "KEEPALIVE"}, "data": "{}"},
        ],
        "missing_fields": [
            "{}",
            "null",
            "[]",
            '"text"',
            '{"type":"CALLBACK"}',
            '{"headers":{}}',
            '{"type":"SYSTEM","headers":{}}',
        ],
        "wrong_types": [
            '{"type":7,"headers":[],"data":{}}',
            json.dumps(
                {"type": "CALLBACK", "headers": {"topic": ROBOT_TOPIC, "messageId": 7, "time": None}, "data": {}}
            ),
            robot | {"data": {"msgId": "not a string"}},
        ],
        "bad_data": [
            robot | {"data": "{not json"},
            robot | {"data": "[]"},
            robot | {"data": "{}"},
            robot | {"data": json.dumps({"msgId": 5, "msgtype": [], "text": "?", "conversationType": 2})},
        ],
    }


class Actions:
    def __init__(
        self,
        *,
        gateway: FakeGateway,
        chats: Chats,
        cards: FakeCardApi,
        presses: FakePresses,
        month: FakeMonth,
        tokens: Tokens,
    ) -> None:
        self._gateway = gateway
        self._chats = chats
        self._cards = cards
        self._presses = presses
        self._month = month
        self._tokens = tokens

    def act(self, name: str, /, **params: Any) -> dict[str, Any]:
        """Do a one-shot action, as `POST /_/actions/{name}` does.

        Raises ActionError for an unknown action, connection, card or parameter.
        """
        if name not in ACTIONS:
            raise ActionError(f"unknown action {name!r}; known: {', '.join(ACTIONS)}")
        # Only names of the table get here: no other method can be called from outside.
        method: Callable[..., dict[str, Any]] = getattr(self, f"_{name}")
        try:
            return method(**params)
        except (TypeError, UnknownError) as error:
            # TypeError is how Python itself refuses a parameter that an action does not have.
            raise ActionError(f"{name}: {error}") from None

    def _each(self, connection: str | None, do: Callable[[Connection], None]) -> dict[str, Any]:
        chosen = self._gateway.connections.find(connection)
        if connection is not None and not chosen:
            raise UnknownError(f"no connection {connection!r}")
        for each in chosen:
            do(each)
            self._gateway.connections.publish(each)
        return {"connections": [each.id for each in chosen]}

    def _reset(self, *, connection: str | None = None) -> dict[str, Any]:
        return self._each(connection, lambda each: each.abort("reset"))

    def _close(self, *, connection: str | None = None, code: int = 1000) -> dict[str, Any]:
        # Behind what lies in the outbox: frames that were sent before it are not lost by it.
        return self._each(connection, lambda each: each.send(OutboxFrame(WSMsgType.CLOSE, code)))

    def _disconnect(self, *, connection: str | None = None, close_after: float | None = 10.0) -> dict[str, Any]:
        if close_after is not None and (isinstance(close_after, bool) or not close_after >= 0):
            raise ActionError("disconnect: close_after is a number of seconds, or null for never")
        return self._each(connection, lambda each: self._gateway.disconnect(each, close_after))

    def _freeze(
        self, *, connection: str | None = None, routed: bool = True, notice_after: float | None = None
    ) -> dict[str, Any]:
        """Half-open: neither read nor written, pongs included.

        `routed`: it goes on getting its share of the pushes, as the real server's dead sockets do. `notice_after`:
        seconds after which the server notices and drops it; None: never.
        """

        def do(each: Connection) -> None:
            # What is written from now on waits in the outbox, and reaches the client late if it is thawed in time.
            each.freeze()
            each.routed = routed
            if notice_after is not None:
                each.arm("notice", notice_after, lambda: each.abort("now"))

        return self._each(connection, do)

    def _thaw(self, *, connection: str | None = None) -> dict[str, Any]:
        def do(each: Connection) -> None:
            each.thaw()
            each.routed = True
            each.disarm("notice")

        return self._each(connection, do)

    def _bad_frames(self, *, connection: str | None = None, which: str | None = None) -> dict[str, Any]:
        frames = make_bad_frames()
        if which is not None and which not in frames:
            raise ActionError(f"bad_frames: which is one of {', '.join(frames)}")
        kinds = list(frames) if which is None else [which]

        def do(each: Connection) -> None:
            for kind in kinds:
                for frame in frames[kind]:
                    self._gateway.pushes.push_odd(each, frame)

        return self._each(connection, do) | {"kinds": kinds}

    def _event(self, *, data: dict[str, Any] | None = None) -> dict[str, Any]:
        event = data or {"timeStamp": "1771234579000", "userId": ["u-2002"]}
        # All events have the one topic, which is also the only one that a client can subscribe to.
        self._month.pushed += 1
        push = self._gateway.push(event, kind=PushKind.EVENT, topic="*")
        return push.to_dict()

    def _card_click(
        self,
        *,
        card: str | None = None,
        person: str = "u-1001",
        action: str = "btn_stop",
        params: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        cards = self._cards.cards
        # Without a name the latest one: that is the card at the bottom of the chat, which a person would click.
        track = card if card is not None else next(reversed(cards), None)
        if track is None:
            raise UnknownError("no card was made yet")
        # The click returns before its answer: it may come from a page, whose request must not wait.
        press = self._presses.press_later(track, person=person, action=action, params=params)
        pushed = press.push.to_dict() if press.push is not None else {}
        return pushed | {"delivered": press.push is not None and press.push.delivered, "card": track} | press.to_dict()

    def _expire_sessions(self) -> dict[str, Any]:
        self._chats.expire_sessions()
        return {}

    def _expire_tokens(self) -> dict[str, Any]:
        self._tokens.expire()
        return {}
