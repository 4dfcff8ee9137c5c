"""Who may talk to the robot, and whose conversation a group is: the choices an operator has."""

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
