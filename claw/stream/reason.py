"""Why things change on the way to DingTalk: one vocabulary for sessions, slots, log lines and metrics."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a session ended or a slot changed its state; also the `reason` of the reconnect metric."""

    START = "start"

    # A session ended without our wish.
    LOST = "lost"
    """Reset or EOF without a close frame."""
    PEER_CLOSED = "peer_closed"
    PONGS_MISSED = "pongs_missed"
    CLOCK_JUMP = "clock_jump"
    TOO_LARGE = "too_large"
    """A frame above the limit, of which nothing can be read, not even what to ack."""
    BAD_PROTOCOL = "bad_protocol"
    """No WebSocket any more: text that is not UTF-8, a broken header."""

    # A session is to be replaced while it serves.
    DISCONNECT = "disconnect"
    ROTATION = "rotation"
    RESTART = "restart"

    # An attempt brought no session.
    FAILED = "failed"
    REJECTED = "rejected"

    PAUSE = "pause"
    RESUME = "resume"
    CLOSED = "closed"
    """A session, by us."""
    STOP = "stop"
    """A slot, by us."""
