"""What goes wrong, and when: a seed -> the faults of a run. Pure, so that a seed is all that a failure needs.

Order of events: every track draws its kinds from a shuffled deck, one after the other with pauses between; a deck that
is used up is shuffled anew, so that a run that is long enough sees every kind. Faults of one track never overlap, those
of different tracks do: a webhook fails while the connection is frozen and the process is killed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """A fault; what it does to whom is the driver's business."""

    RESET = "reset"
    CLOSE = "close"
    DISCONNECT = "disconnect"
    DISCONNECT_LINGERING = "disconnect, and the server never closes the TCP"
    FREEZE = "freeze both ways"
    FREEZE_INBOUND = "freeze one way: the server reads nothing"
    FREEZE_OUTBOUND = "freeze one way: the server writes nothing"
    OUTAGE = "outage"
    GATEWAY_400 = "gateway 400"
    GATEWAY_401 = "gateway 401"
    GATEWAY_403 = "gateway 403"
    GATEWAY_429 = "gateway 429"
    GATEWAY_503 = "gateway 503"
    GATEWAY_HTML = "gateway HTML"
    GATEWAY_HANG = "gateway hang"
    GATEWAY_WRONG_ENDPOINT = "gateway wrong endpoint"
    UPGRADE_REFUSED = "upgrade refused"
    UPGRADE_HANG = "upgrade hang"
    ACCEPT_CLOSE = "close at once after accept"
    ACCEPT_RESET = "reset at once after accept"
    DUPLICATE = "duplicate frames"
    REPUSHED = "re-pushed frames"
    REORDERED = "reordered frames"
    DROPPED = "dropped frames"
    WEBHOOK_500 = "webhook 500"
    WEBHOOK_TIMEOUT = "webhook timeout after delivery"
    WEBHOOK_300001 = "webhook errcode 300001"
    WEBHOOK_130101 = "webhook errcode 130101"
    WEBHOOK_410100 = "webhook errcode 410100"
    WEBHOOK_BUSY = "webhook errcode -1"
    WEBHOOK_460101 = "webhook errcode 460101"
    MODEL_429 = "model 429"
    MODEL_500 = "model 500"
    MODEL_HANG = "model hang"
    MODEL_CUT = "model cut mid-stream"
    DISK_FULL = "disk full"
    READ_ONLY = "read-only store"
    SIGTERM = "SIGTERM"
    SIGKILL = "SIGKILL"
    SIGSTOP = "SIGSTOP, then SIGCONT"
    REDIS_KILLED = "Redis killed and started with its log"
    REDIS_STALLED = "Redis stalled"
    REDIS_CUT = "one replica's connections to Redis cut"
    PARTITION = "one replica partitioned from Redis"


NEWCOMERS: Final = (
    Kind.GATEWAY_400,
    Kind.GATEWAY_401,
    Kind.GATEWAY_403,
    Kind.GATEWAY_429,
    Kind.GATEWAY_503,
    Kind.GATEWAY_HTML,
    Kind.GATEWAY_HANG,
    Kind.GATEWAY_WRONG_ENDPOINT,
    Kind.UPGRADE_REFUSED,
    Kind.UPGRADE_HANG,
    Kind.ACCEPT_CLOSE,
    Kind.ACCEPT_RESET,
)
"""They hurt only who connects anew."""
TRACKS: Final[tuple[tuple[Kind, ...], ...]] = (
    (
        Kind.RESET,
        Kind.CLOSE,
        Kind.DISCONNECT,
        Kind.DISCONNECT_LINGERING,
        Kind.FREEZE,
        Kind.FREEZE_INBOUND,
        Kind.FREEZE_OUTBOUND,
        Kind.OUTAGE,
        *NEWCOMERS,
    ),
    (Kind.DUPLICATE, Kind.REPUSHED, Kind.REORDERED, Kind.DROPPED),
    (
        Kind.WEBHOOK_500,
        Kind.WEBHOOK_TIMEOUT,
        Kind.WEBHOOK_300001,
        Kind.WEBHOOK_130101,
        Kind.WEBHOOK_410100,
        Kind.WEBHOOK_BUSY,
        Kind.WEBHOOK_460101,
    ),
    (Kind.MODEL_429, Kind.MODEL_500, Kind.MODEL_HANG, Kind.MODEL_CUT),
    (Kind.DISK_FULL, Kind.READ_ONLY, Kind.SIGTERM, Kind.SIGKILL, Kind.SIGSTOP),
)
"""Connection and gateway, pushes, answers, model, process and store."""
FLEET_TRACKS: Final[tuple[tuple[Kind, ...], ...]] = (
    *TRACKS[:-1],
    (Kind.SIGTERM, Kind.SIGKILL, Kind.SIGSTOP),
    (Kind.REDIS_KILLED, Kind.REDIS_STALLED, Kind.REDIS_CUT, Kind.PARTITION),
)
"""The same for replicas that share a Redis: process and store are hurt apart, since each has others beside it."""
_DISRUPTIVE: Final = (TRACKS[0], TRACKS[-1], *FLEET_TRACKS[-2:])
STORE: Final = frozenset({Kind.DISK_FULL, Kind.READ_ONLY, *FLEET_TRACKS[-1]})


@dataclass(frozen=True, slots=True)
class Pace:
    """How dense a run is. All in seconds."""

    length: tuple[float, float]
    """From a fault's begin to its end."""
    pause: tuple[float, float]
    """From its end to the next one of the track."""
    recovery: tuple[float, float]
    """The same for the connection and the process: a run that is never connected tries nothing else."""
    stop: float
    """How long SIGSTOP holds."""
    without: frozenset[Kind] = frozenset()
    """What takes too long: claw waits 10 s for a peer that hangs, however soon that comes back."""


BRISK: Final = Pace(
    length=(0.8, 2.5),
    pause=(0.3, 1.5),
    recovery=(3.0, 6.0),
    stop=3.0,
    without=frozenset({Kind.GATEWAY_HANG, Kind.UPGRADE_HANG}),
)
LONG: Final = Pace(length=(1.0, 8.0), pause=(0.5, 6.0), recovery=(5.0, 15.0), stop=20.0)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. Times are in seconds since the begin of the run."""

    at: float
    kind: Kind
    seconds: float
    draw: int
    """From 0 to 999, for whatever else the kind has to choose: which status, how many uses, which replica."""

    @property
    def end(self) -> float:
        return self.at + self.seconds


def schedule(seed: int, seconds: float, pace: Pace, tracks: tuple[tuple[Kind, ...], ...] = TRACKS) -> tuple[Fault, ...]:
    """All faults of a run, by time; each ends within `seconds`."""
    faults: list[Fault] = []
    for number, track in enumerate(tracks):
        kinds = [kind for kind in track if kind not in pace.without]
        pause = pace.recovery if track in _DISRUPTIVE else pace.pause
        faults += _track(random.Random(f"{seed}/track {number}"), kinds, seconds, pace, pause)
    return tuple(sorted(faults, key=lambda fault: fault.at))


def _track(
    draw: random.Random, kinds: Sequence[Kind], seconds: float, pace: Pace, pause: tuple[float, float]
) -> Iterator[Fault]:
    deck: list[Kind] = []
    at = draw.uniform(*pause)
    while kinds:
        if not deck:
            deck = draw.sample(kinds, len(kinds))
        kind = deck.pop()
        length = pace.stop if kind is Kind.SIGSTOP else draw.uniform(*pace.length)
        if at + length > seconds:
            return
        yield Fault(round(at, 3), kind, round(length, 3), draw.randrange(1000))
        at += length + draw.uniform(*pause)
