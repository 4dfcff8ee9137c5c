"""The choices an operator has: who may talk, whose conversation a group is, what the model gets, and when."""

from __future__ import annotations

from enum import StrEnum


class GroupPolicy(StrEnum):
    """Who may talk to the robot in groups."""

    OPEN = "open"
    ALLOWLIST = "allowlist"
    DISABLED = "disabled"


class DirectPolicy(StrEnum):
    """Who may talk to the robot in a direct chat."""

    OPEN = "open"
    ALLOWLIST = "allowlist"
    OWNER = "owner"


class Pairing(StrEnum):
    """How the robot finds its owner where CLAW_OWNER names none."""

    FIRST = "first"
    CODE = "code"
    OFF = "off"


class GroupSession(StrEnum):
    """Whose conversation a group is."""

    SHARED = "shared"
    PER_USER = "per_user"


class ModelApi(StrEnum):
    """By which of its APIs the model's server is asked (CLAW_MODEL_API)."""

    CHAT = "chat"
    """Chat completions, which everybody speaks."""
    RESPONSES = "responses"
    """`/responses`, of OpenAI and of an OpenClaw gateway: with typed events of what the agent does."""


class Switch(StrEnum):
    """On or off."""

    ON = "on"
    OFF = "off"


class Vision(StrEnum):
    """Whether the model gets pictures."""

    ON = "on"
    OFF = "off"
    AUTO = "auto"
    """Until it refuses one."""


class BusyMode(StrEnum):
    """What becomes of a message that comes while an answer is in progress in its conversation."""

    QUEUE = "queue"
    MERGE = "merge"
    """Those that wait are answered together in the next turn."""
    INTERRUPT = "interrupt"
    """It ends its sender's own turn, and is answered in its place."""


class ReplyMode(StrEnum):
    """How answers are shown."""

    MARKDOWN = "markdown"
    """As messages, once they are whole."""
    CARD = "card"
    """As a card that grows; as messages where a card cannot be had."""
    AUTO = "auto"
    """As a card while the month's budget lasts."""


class ReactionMode(StrEnum):
    """Whether a message gets a reaction as the sign that it arrived."""

    ON = "on"
    OFF = "off"
    AUTO = "auto"
    """Where nothing else is visible after a moment, while the month's budget lasts."""
