"""What must hold after a run, as pure functions over what was recorded: each gives its violations, with evidence.

Order of events: the driver fills a `Record`; `violations` asks every invariant; `Summary.of` counts. The emulator is
the witness throughout, claw's own word counts only for readiness and for its dead letters.

A message counts as *acked* when DingTalk got an ack with code 200 for any of its pushes. Every acked message must be
*settled*, in one of three ways, which are counted apart:

- answered: the model's answer, which quotes the message's mark, stands in the chat that it came from;
- apologised: the turn was given up (the model failed too often, or in a way that no other try cures), the person was
  told with one of the texts of claw/turn/texts.py, and the message lies with the dead letters;
- refused: DingTalk would not take the answer for good (too long, unsafe, nobody to send it to): a dead letter whose
  error begins with "not delivered" names the reason, and nothing more can be done.

Anything else is lost. An answer that is seen *twice* must be explained by what happened between the two: DingTalk
gives no idempotency key for its webhook and robot sends, so the last step is at least once. The causes are in `Cause`.

Where a limit is in seconds, it is as long as an idle machine needs, and grows by as much time as the witness itself was
kept from running within it (`held_up`): claw, on the same machine, had no better luck.
"""

from __future__ import annotations

import itertools
import os
import statistics
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Final

from tests.chaos.schedule import STORE, Kind

CALL_S: Final = 11.0
"""Seconds that a call of DingTalk may be under way: claw gives it 10."""
SAVED_S: Final = 2.0
"""Seconds within which an answer that is out is durably known to be out, unless something is wrong."""
FALSE_READY_S: Final = 12.0
"""Three heartbeats, the grace of 5 s and the 0.2 s for which checks are kept: 8.2; and a zombie accepts us anew."""
FALSE_UNREADY_S: Final = 5.0
"""A connection counts as soon as it is open, the store as soon as it has written: a lie begins soon."""
SILENT_S: Final = 5.0
"""Seconds for which a running process may leave /health without an answer."""
DRAIN_LAG_S: Final = 1.0
RATE: Final = 2
RATE_WINDOW_S: Final = 1.0
"""Two registrations a second, whenever they are seen: claw counts from the end of a call."""
FDS_MORE: Final = 24
"""Descriptors beyond those of the idle process: pooled connections, one a conversation."""
THREADS_MORE: Final = min(32, (os.cpu_count() or 1) + 4) - 1
"""The rest of asyncio's executor, whose threads come one by one and stay; the idle process has its first."""
RSS_MORE: Final = 64e6
"""Bytes beyond those of the idle process."""
TRACES: Final = (
    "Traceback",
    "ResourceWarning",
    "never awaited",
    "never retrieved",
    "was destroyed but it is pending",
    "Unclosed",
    "unhandled error",
    "CRITICAL",
)
"""Words in standard error that tell of a fault nobody foresaw, or of something left open."""


class Told(Enum):
    """What a reply of the robot is."""

    ANSWER = "answer"
    APOLOGY = "apology"
    NOTICE = "notice"
    """What a person or an owner is told of an answer that was given up; it quotes the question."""
    OTHER = "other"


class Phase(StrEnum):
    """How claw's process is, as its keeper knows."""

    DOWN = "down"
    RUNNING = "running"
    STOPPED = "stopped"
    DRAINING = "draining"


class Cause(StrEnum):
    """Why an answer may stand twice in a chat."""

    KILLED = "the process ended between sending and saving"
    HUNG = "DingTalk delivered and did not answer"
    STORE = "the process ended while the store failed, between sending and saving"
    STOPPED = "the process was stopped longer than the call may take"
    OUTAGE = "DingTalk went away between delivering and answering"


@dataclass(frozen=True, slots=True)
class Delivered:
    """One frame on one connection. Times here and below: monotonic seconds of the witness."""

    connection: str
    sent: float
    acked: float | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """One message of a person."""

    msg_id: str
    mark: str
    chat: str
    said: float
    acked: bool
    deliveries: tuple[Delivered, ...] = ()


@dataclass(frozen=True, slots=True)
class Heard:
    """One reply of the robot. `msg_id`: whose session webhook was used; `mark`: what it quotes."""

    at: float
    chat: str
    told: Told
    via: str
    msg_id: str = ""
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter of the store."""

    msg_id: str
    error: str

    @property
    def refused(self) -> bool:
        return self.error.startswith("not delivered")


@dataclass(frozen=True, slots=True)
class Window:
    """A fault as it really was: from `began` to `ended`."""

    kind: Kind
    began: float
    ended: float

    def touches(self, began: float, ended: float) -> bool:
        return self.began <= ended and began <= self.ended


@dataclass(frozen=True, slots=True)
class Life:
    """One process. `asked`: when it was asked to end or killed; infinite: never."""

    pid: int
    began: float
    ended: float
    code: int | None
    how: str = ""
    """`SIGTERM`, `SIGKILL` or nothing: what ended it."""
    asked: float = float("inf")


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the probes; None: no answer within the patience of a kubelet.

    /ready was asked at `asked` and had answered by `at`; what it says is of some moment between.
    """

    asked: float
    at: float
    ready: bool | None
    stream: bool | None
    """What /ready says of the connection alone."""
    store: bool | None
    health: int | None
    store_reason: str = ""
    """Why /ready says that the store cannot write."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a process holds. `close_wait`: sockets that the other side has closed and nobody here has noticed."""

    fds: int
    threads: int
    rss: float
    close_wait: int = 0


@dataclass
class Record:
    """All that is known of a run."""

    seed: int
    asked: list[Asked] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    hung: list[tuple[float, float]] = field(default_factory=list)
    """When the switch that delivers and never answers was really on."""
    lives: list[Life] = field(default_factory=list)
    phases: list[tuple[float, Phase]] = field(default_factory=list)
    usable: list[tuple[float, bool]] = field(default_factory=list)
    """When the emulator began (or ceased) to have a connection on which it can push and be acked."""
    samples: list[Sample] = field(default_factory=list)
    stalls: list[tuple[float, float]] = field(default_factory=list)
    """When the witness was kept from running: the machine had other things to do, or it had itself."""
    registrations: list[float] = field(default_factory=list)
    protocol: list[str] = field(default_factory=list)
    """What the emulator noted as violations: a second ack, an ack on a foreign socket, an unknown id, ..."""
    complaints: list[str] = field(default_factory=list)
    """Lines of standard error with one of `TRACES`."""
    idle: Footprint | None = None
    left: Footprint | None = None
    """Of the first process before the faults, and of the last one after the calm."""
    connections_left: int = 0
    """Connections at the emulator after the last process had ended."""
    pending: int | None = None
    """Messages still in the inbox when the calm ended; None: it could not be asked."""
    storm: tuple[float, float] = (0.0, 0.0)
    """When people talked and faults came."""
    unsupported: tuple[str, ...] = ()
    """Faults that this machine does not permit."""
    replicas: int = 1
    """Claws that ran at the same time; of more than one, probes and phases are not recorded."""


def held_up(record: Record, began: float, ended: float) -> float:
    """Seconds of that span for which the witness did not run."""
    return sum(max(0.0, min(until, ended) - max(since, began)) for since, until in record.stalls)


# --- messages ------------------------------------------------------------------------------------------------------


def settled_how(record: Record) -> dict[str, str]:
    """By msgId: `answered`, `apologised` or `refused`; who is missing is not settled."""
    marks = {asked.mark: asked.msg_id for asked in record.asked}
    how = {letter.msg_id: "refused" if letter.refused else "apologised" for letter in record.letters}
    for heard in record.heard:
        msg_id = heard.msg_id or marks.get(heard.mark, "")
        if heard.told is Told.ANSWER:
            how[msg_id] = "answered"
        elif heard.told is Told.APOLOGY and msg_id:
            how.setdefault(msg_id, "apologised")
    return how


def lost(record: Record) -> list[str]:
    """Every acked message is answered, apologised for, or refused by DingTalk."""
    how = settled_how(record)
    return [
        f"lost: {asked.mark} in {asked.chat}, said at {asked.said:.2f}, acked, never settled; pending: {record.pending}"
        for asked in record.asked
        if asked.acked and asked.msg_id not in how
    ]


def unfinished(record: Record) -> list[str]:
    """Nothing waits in the inbox when all faults have been gone for long enough."""
    return [] if record.pending == 0 else [f"unfinished: {record.pending} messages in the inbox at the end"]


def untold(record: Record) -> list[str]:
    """Whoever's message was given up was told so: no chat has more such messages than apologies."""
    chats = {asked.msg_id: asked.chat for asked in record.asked}
    given_up = Counter(chats.get(letter.msg_id, "?") for letter in record.letters if not letter.refused)
    told = Counter(heard.chat for heard in record.heard if heard.told is Told.APOLOGY)
    return [
        f"untold: {count} messages given up in {chat}, {told[chat]} apologies"
        for chat, count in given_up.items()
        if told[chat] < count
    ]


def crossed(record: Record) -> list[str]:
    """An answer stands in the chat of its message, and goes by its message's own webhook."""
    by_mark = {asked.mark: asked for asked in record.asked}
    found = []
    for heard in record.heard:
        asked = by_mark.get(heard.mark)
        if heard.told is Told.OTHER:
            found.append(f"crossed: an unknown kind of reply in {heard.chat} at {heard.at:.2f}")
        elif heard.mark and asked is None:
            found.append(f"crossed: an answer to nobody's {heard.mark} in {heard.chat}")
        elif asked is not None and (asked.chat != heard.chat or heard.msg_id not in {"", asked.msg_id}):
            found.append(f"crossed: the answer to {asked.mark} of {asked.chat} went to {heard.chat} ({heard.msg_id})")
    return found


def disordered(record: Record) -> list[str]:
    """No message is answered before one of its conversation that was said before it and accepted before it.

    DingTalk's times order what waits, so that what was said first may overtake what was accepted first. From outside it
    is certain that A was accepted before B where A's ack was there before B was first pushed, and where both were acked
    on one socket on which A was pushed before B, and B nowhere earlier. Other pairs say nothing.
    """
    marks = {asked.mark: asked.msg_id for asked in record.asked}
    first: dict[str, float] = {}
    for heard in record.heard:
        msg_id = heard.msg_id or marks.get(heard.mark, "")
        if msg_id:
            first.setdefault(msg_id, heard.at)
    found = []
    chats: dict[str, list[Asked]] = {}
    for asked in record.asked:
        if asked.msg_id in first and asked.deliveries:
            chats.setdefault(asked.chat, []).append(asked)
    for chat, messages in chats.items():
        # Whoever was answered later but surely accepted earlier than one who was answered before.
        messages.sort(key=lambda asked: first[asked.msg_id])
        for number, earlier in enumerate(messages):
            found += [
                f"disordered: in {chat} {earlier.mark} was answered at {first[earlier.msg_id]:.2f}, "
                f"before {later.mark} at {first[later.msg_id]:.2f}, which was accepted before it"
                for later in messages[number + 1 :]
                if later.said < earlier.said and surely_before(later, earlier)
            ]
    return found


def surely_before(one: Asked, other: Asked) -> bool:
    """Whether `one` was accepted before `other`, whatever happened in between."""
    acks = [each.acked for each in one.deliveries if each.acked is not None]
    begin = min(other.deliveries, key=lambda each: each.sent)
    if acks and min(acks) < begin.sent:
        return True
    return begin.acked is not None and any(
        each.acked is not None and each.connection == begin.connection and each.sent < begin.sent
        for each in one.deliveries
    )


def duplicates(record: Record) -> list[tuple[Asked, Heard, Heard, Cause | None]]:
    """Each repetition of an answer: the message, the copy before, the copy, and what explains it."""
    marks = {asked.mark: asked.msg_id for asked in record.asked}
    by_id = {asked.msg_id: asked for asked in record.asked}
    copies: dict[str, list[Heard]] = {}
    for heard in record.heard:
        msg_id = heard.msg_id or marks.get(heard.mark, "")
        if msg_id in by_id:
            copies.setdefault(msg_id, []).append(heard)
    return [
        (by_id[msg_id], before, again, _cause(record, before.at, again.at))
        for msg_id, heard in copies.items()
        for before, again in itertools.pairwise(heard)
    ]


def _cause(record: Record, out: float, again: float) -> Cause | None:
    """What, between the copy that was `out` and the one that came `again`, kept claw from knowing that it was out."""
    if any(began <= out <= ended for began, ended in record.hung):
        return Cause.HUNG
    patience = SAVED_S + held_up(record, out, out + 2 * SAVED_S)
    saved = out + patience
    ends = [
        min(life.asked, life.ended)
        for life in record.lives
        if life.began <= out <= life.ended + 0.5 and life.ended <= again
    ]
    if any(end < saved for end in ends):
        return Cause.KILLED
    for window in record.windows:
        if window.began > again:
            continue
        if window.kind in STORE and window.touches(out, saved) and any(end < window.ended + patience for end in ends):
            return Cause.STORE
        if window.kind is Kind.SIGSTOP and window.touches(out, saved) and window.ended - out > CALL_S - SAVED_S:
            return Cause.STOPPED
        if window.kind is Kind.OUTAGE and window.touches(out - 0.1, saved):
            return Cause.OUTAGE
    return None


def twice(record: Record) -> list[str]:
    """Nothing is said twice but where the last step cannot know whether it was done."""
    return [
        f"twice: {asked.mark} in {asked.chat} at {before.at:.2f} ({before.via}) and {again.at:.2f} ({again.via}), "
        "and nothing explains it"
        for asked, before, again, cause in duplicates(record)
        if cause is None
    ]


# --- the connection ------------------------------------------------------------------------------------------------


def bad_acks(record: Record) -> list[str]:
    """One ack for each frame, on its own socket, and nothing else against the protocol."""
    return [f"protocol: {each}" for each in record.protocol]


def too_many_registrations(record: Record) -> list[str]:
    """No process registers more than twice in a second; several together no more than each of them may."""
    found = []
    stamps = sorted(record.registrations)
    rate = RATE * record.replicas
    for life in record.lives:
        mine = stamps[bisect_left(stamps, life.began) : bisect_right(stamps, life.ended)]
        found += [
            f"registrations: {rate + 1} within {third - first:.3f} s at {first:.2f} by process {life.pid}"
            for first, third in zip(mine, mine[rate:], strict=False)
            if third - first < RATE_WINDOW_S
        ]
    return found


# --- the process ---------------------------------------------------------------------------------------------------


def bad_ends(record: Record) -> list[str]:
    """A process ends when it is asked to, with 0, or is killed; with 78 only where it cannot open its store."""
    found = []
    for life in record.lives:
        good = {"SIGTERM": {0}, "SIGKILL": {-9}}.get(life.how, set())
        in_store_fault = any(each.kind in STORE and each.touches(life.began, life.ended) for each in record.windows)
        if life.code not in good and not (life.code == 78 and in_store_fault):
            found.append(
                f"end: process {life.pid} ended with {life.code} at {life.ended:.2f} ({life.how or 'unasked'})"
            )
    return found


def left_behind(record: Record) -> list[str]:
    """After the calm a process holds what it held when it was idle; when it has ended nothing is left of it."""
    found = [f"complaint: {line[:1000]}" for line in record.complaints]
    if record.connections_left:
        found.append(f"left: {record.connections_left} connections after the last process had ended")
    if record.idle is None or record.left is None:
        return [*found, "left: the process could not be looked at"]
    if record.left.close_wait:
        found.append(f"left: {record.left.close_wait} sockets that the other side has closed")
    for name, more in (("fds", FDS_MORE), ("threads", THREADS_MORE), ("rss", RSS_MORE)):
        before, after = getattr(record.idle, name), getattr(record.left, name)
        if after > before + more:
            found.append(f"left: {name} {after:g}, {before:g} when idle")
    return found


# --- probes --------------------------------------------------------------------------------------------------------


class _Steps:
    """A value that changes at known times. Before the first it is unknown."""

    def __init__(self, steps: Sequence[tuple[float, object]]) -> None:
        self._times = [at for at, _ in steps]
        self._values = [value for _, value in steps]

    def at(self, time: float) -> tuple[object, float]:
        """The value, and since when it has been so."""
        index = bisect_right(self._times, time) - 1
        if index < 0:
            return None, time
        return self._values[index], self._times[index]


def unready_lies(record: Record) -> list[str]:
    """/ready tells whether DingTalk can push to us, the store can write and we are not leaving, with a bounded lag."""
    usable, phases = _Steps(record.usable), _Steps(record.phases)
    found = []

    def lies(began: float, asked: float, limit: float) -> bool:
        """Whether what has held since `began` was known for too long when /ready was asked."""
        return asked - began > limit and asked - began > limit + held_up(record, began, asked)

    for sample in record.samples:
        phase, phase_since = phases.at(sample.at)
        if phase is Phase.DRAINING and sample.ready and lies(phase_since, sample.asked, DRAIN_LAG_S):
            found.append(f"ready: yes at {sample.at:.2f}, {sample.at - phase_since:.1f} s into the drain")
        if phase is not Phase.RUNNING:
            continue
        can, since = usable.at(sample.at)
        began = max(since, phase_since)
        if can is False and sample.ready and lies(began, sample.asked, FALSE_READY_S):
            found.append(f"ready: yes at {sample.at:.2f}, without a usable connection for {sample.at - began:.1f} s")
        if can is True and sample.stream is False and lies(began, sample.asked, FALSE_UNREADY_S):
            found.append(f"ready: no stream at {sample.at:.2f}, with a usable connection for {sample.at - began:.1f} s")
        if sample.store is False and not _store_fault(record, sample):
            found.append(f"ready: no store at {sample.at:.2f} ({sample.store_reason}), and nothing is wrong with it")
    return found


def _store_fault(record: Record, sample: Sample) -> bool:
    """Whether the store had reason to fail when that sample was taken, or shortly before."""
    began = sample.asked - FALSE_UNREADY_S
    began -= held_up(record, began, sample.at)
    return any(each.kind in STORE and each.touches(began, sample.at) for each in record.windows)


def dead_lies(record: Record) -> list[str]:
    """/health never says 503 while the process runs, and is never silent for long."""
    phases = _Steps(record.phases)
    found = []
    silent_since: float | None = None
    for sample in record.samples:
        phase, since = phases.at(sample.at)
        if sample.health is not None and sample.health != 200:
            found.append(f"health: {sample.health} at {sample.at:.2f} ({phase})")
        if phase is not Phase.RUNNING or sample.health is not None:
            silent_since = None
            continue
        silent_since = max(silent_since or sample.at, since)
        silent = sample.at - silent_since
        if silent > SILENT_S and silent > SILENT_S + held_up(record, silent_since, sample.at):
            found.append(f"health: silent from {silent_since:.2f} to {sample.at:.2f}")
    return found


def lags(record: Record) -> tuple[list[float], list[float]]:
    """Milliseconds from the emulator's view to /ready's word on the stream: (lost -> no, there -> yes)."""
    phases = _Steps(record.phases)
    times = [sample.at for sample in record.samples]
    down: list[float] = []
    up: list[float] = []
    spans = itertools.pairwise([*record.usable, (float("inf"), False)])
    for (began, can), (ended, _) in spans:
        phase, since = phases.at(began)
        if phase is not Phase.RUNNING:
            continue
        index = bisect_left(times, began)
        said_before = record.samples[index - 1].stream if index else None
        for sample in record.samples[index:]:
            if sample.at >= ended or phases.at(sample.at) != (phase, since):
                break
            if sample.stream is can:
                if said_before is (not can):
                    (up if can else down).append((sample.at - began) * 1000)
                break
    return down, up


# --- all -----------------------------------------------------------------------------------------------------------

INVARIANTS: Final = (
    lost,
    unfinished,
    untold,
    crossed,
    disordered,
    twice,
    bad_acks,
    too_many_registrations,
    bad_ends,
    left_behind,
    unready_lies,
    dead_lies,
)
SHOWN: Final = 10
"""Violations of one invariant that are shown; one fault often has many."""


def violations(record: Record) -> list[str]:
    """What did not hold; empty where all did."""
    found = []
    for invariant in INVARIANTS:
        mine = invariant(record)
        found += mine[:SHOWN]
        if len(mine) > SHOWN:
            found.append(f"... and {len(mine) - SHOWN} more of {invariant.__name__}")
    return found


def quantiles(values: Iterable[float]) -> str:
    """`p50 / p95 / max`, as whole numbers."""
    ordered = sorted(values)
    if not ordered:
        return "none"
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return f"{statistics.median(ordered):.0f} / {p95:.0f} / {ordered[-1]:.0f} ({len(ordered)})"


BRIEF: Final = 4
"""Lines of the summary that tell what became of the messages."""


def summary(record: Record) -> str:
    """The figures of a run, a line each; the first `BRIEF` are of the messages."""
    how = settled_how(record)
    acked = [asked for asked in record.asked if asked.acked]
    ways = Counter(how.get(asked.msg_id, "lost") for asked in acked)
    answered_unacked = sum(asked.msg_id in how for asked in record.asked if not asked.acked)
    causes = Counter(str(cause or "unexplained") for *_, cause in duplicates(record))
    kinds = Counter(window.kind for window in record.windows)
    ends = Counter(f"{life.how or 'unasked'} -> {life.code}" for life in record.lives)
    acks = [
        (each.acked - each.sent) * 1000 for asked in acked for each in asked.deliveries[:1] if each.acked is not None
    ]
    down, up = lags(record)
    lines = [
        f"seed {record.seed}",
        f"messages: {len(record.asked)} said, {len(acked)} acked; of these "
        + ", ".join(f"{ways[way]} {way}" for way in ("answered", "apologised", "refused", "lost")),
        f"never acked: {len(record.asked) - len(acked)}, of these answered all the same: {answered_unacked}",
        f"said twice: {sum(causes.values())}" + "".join(f"; {count}: {cause}" for cause, count in causes.items()),
        f"faults: {sum(kinds.values())} of {len(kinds)} kinds; impossible here: {', '.join(record.unsupported) or '-'}",
        f"processes: {dict(ends)}",
        f"ack, ms (p50 / p95 / max): {quantiles(acks)}",
        f"/ready behind the emulator, ms (p50 / p95 / max): lost -> no {quantiles(down)}, there -> yes {quantiles(up)}",
        f"the witness was held up, ms: {quantiles((ended - began) * 1000 for began, ended in record.stalls)}",
        f"registrations: {len(record.registrations)}; probes: {len(record.samples)}",
        f"idle {record.idle}, after the calm {record.left}",
    ]
    return "\n".join(lines)
