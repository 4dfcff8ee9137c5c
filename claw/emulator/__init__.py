"""A local DingTalk: the gateway, the OpenAPI, a chat page and a small model, on one port and in one object.

Order of events: `start` listens; a robot registers and connects as it would to the real one; `say` (or a person on the
page) puts a message into a chat and pushes it; what the robot answers is found in `replies` and on the page. Faults are
switches (`faults`) and one-shot actions (`act`).

It imports nothing of the rest of claw, so that it can prove claw wrong. Where both have a thing, the emulator's is
named `Fake...`; values of its own machinery carry the noun of their module (`PushKind`, `ConnectionState`).
"""

from __future__ import annotations

from claw.emulator.acks import Ack, Violation
from claw.emulator.actions import ActionError
from claw.emulator.card import FakeCard, FakeCardCall, FakeCardState
from claw.emulator.chats import FakeMessage, Person, UnknownError
from claw.emulator.connection import Connection, ConnectionState
from claw.emulator.emulator import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, Emulator
from claw.emulator.faults import FaultError, Faults
from claw.emulator.people import Said
from claw.emulator.presses import FakePress, FakePressOutcome
from claw.emulator.pushes import CARD_TOPIC, ROBOT_TOPIC, Push, PushKind
from claw.emulator.replies import Reply
from claw.emulator.templates import FakeOverflow, FakeTemplate
from claw.emulator.webhook import CAP_ERRCODE, QUOTA_ERRCODE

__all__ = [
    "CAP_ERRCODE",
    "CARD_TOPIC",
    "DEFAULT_CLIENT_ID",
    "DEFAULT_CLIENT_SECRET",
    "QUOTA_ERRCODE",
    "ROBOT_TOPIC",
    "Ack",
    "ActionError",
    "Connection",
    "ConnectionState",
    "Emulator",
    "FakeCard",
    "FakeCardCall",
    "FakeCardState",
    "FakeMessage",
    "FakeOverflow",
    "FakePress",
    "FakePressOutcome",
    "FakeTemplate",
    "FaultError",
    "Faults",
    "Person",
    "Push",
    "PushKind",
    "Reply",
    "Said",
    "UnknownError",
    "Violation",
]
