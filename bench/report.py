"""RESULTS.md: the tables, what each figure means, and where a peer is better, all from results.json.

Order of events: `report` puts the parts together, each a table with a sentence of its meaning; `better` goes over every
figure that the tables show and names each in which a peer beats claw. Nothing in the file is written by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from bench import load
from bench.faults import FAULTS, LEAD_S, MODEL_S, RATE, REPEAT_AFTER_S, SETTLE_S, SLOW_MODEL_S, Fault, Server
from bench.peers import CLAW, PEERS, Peer
from bench.results import Results, median, spread

NOTABLE: Final = 0.05
"""A median that is better by less than this share of claw's is no difference."""

# --- what the figures mean -------------------------------------------------------------------------------------------

INTRO: Final = """\
Written by `make bench`; do not edit. Each bot is the smallest that its SDK's README shows: it asks the same
model server and answers by the session webhook, against the same emulator of DingTalk. A cell is the median of
the runs, with least and most in brackets."""
RECOVERY: Final = """\
Seconds from the fault to the next session that can carry a message; for the three faults that last, from their
end. Until then nobody is answered. *Never*: not within the seconds in brackets."""
REGISTRATIONS: Final = """\
Registrations in the fullest second from the fault on: DingTalk limits calls, so a bot that storms locks itself
out."""
LOSSES: Final = f"""\
{RATE:g} messages a second come before, during and after the fault, each from another person, and each answer
takes the model {MODEL_S:g} s. Every bot is asked as often. *Lost* is what has no answer {SETTLE_S:g} s after it
could have been there. Counts are sums over the runs."""
SERVER_NEVER: Final = """\
**The server repeats nothing.** Messages that were never answered, of those asked. A message that comes while
there is no session is lost whoever the bot is; *acked* are those that the bot had taken over and lost all the
same."""
SERVER_ONCE: Final = f"""\
**The server repeats once** what is not acked within {REPEAT_AFTER_S:g} s. Lost, and answered more than once:
then a person reads the same answer twice, and the model is paid twice."""
ACKS: Final = f"""\
For {load.ACK_S:g} s messages come at a steady rate, while each answer takes the model {load.MODEL_S:g} s and
the webhook {load.WEBHOOK_S * 1000:.0f} ms. The ack's time decides whether DingTalk repeats a message.
*Answered* are those of all that had their answer {load.ACK_GRACE_S:g} s after the last one. Where the emulator
takes nearly a whole core, it is the emulator that sets the limit. claw runs with `CLAW_MAX_CONCURRENCY=1000`
here: by default it answers 32 chats at the same time, the others any number."""
THROUGHPUT: Final = f"""\
{load.IN_FLIGHT} chats that each wait for their answer before they ask again, with a model that answers at once:
what the bot itself can do, and what it costs. claw commits every message to disk in this time, the others keep
nothing. Memory is the resident memory of the process."""
BETTER: Final = """\
Derived from the figures above: every one in which a peer's median beats claw's by more than 5 %, and every
count that is a smaller share of what was asked."""
HOW: Final = f"""\
## How it was measured

- The emulator of DingTalk is `claw/emulator`, one Python process on this machine, reached over loopback. The
  SDKs run against it unmodified: the Python ones take DingTalk's address from the environment or from a class
  attribute, the Node SDK's HTTP client is sent there by the bot. A real network adds its own delays to every
  bot alike.
- The bots run in turn (A B C D E, A B C D E, ...). What loads the machine is measured one bot at a time;
  recovery, which is waiting, with many bots at once, each with an emulator of its own; six at once where the
  process is killed, since starts take CPU, and a bot that storms alone.
- Every run is a fresh process, after one round trip. A bot that ends by itself, or is killed, is started again
  after 0.1 s, as an orchestrator would.
- A session has lived for 5 s before a fault, and the fault comes at a random moment (for the half-open
  connection within 20 s), so that no bot's timer is met in step. Messages begin {LEAD_S:g} s before it.
- The model that is slower than the repeat takes {SLOW_MODEL_S:g} s, and the repeat comes after
  {REPEAT_AFTER_S:g} s: DingTalk's own 60 s at a tenth.
- The Node bot leaves `keepAlive` off, as that SDK does by default and in its example; a half-open connection is
  measured with it switched on as well. The bot on dingtalk-open-stream asks the gateway for JSON, which that
  library does not do by itself.
- Each bot's design is what its README shows: the official SDKs ack when the handler has answered, and the
  Python SDK's reply holds up its event loop for as long as the webhook takes.
- `python -m bench --only recovery/freeze --peers claw,node --runs 10` measures a part again; `--render` makes
  this file and the plots from `bench/results.json` without measuring."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the tables: where its runs are, how it is shown, which way is better."""

    part: str
    name: str
    label: str
    show: Callable[[float], str]
    more_is_better: bool = False


def seconds(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}"


def milliseconds(value: float) -> str:
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def whole(value: float) -> str:
    return f"{value:.0f}"


def report(results: Results, *, plots: str) -> str:
    """Return the whole file; `plots` is where the SVG files are, as seen from it."""
    peers = [peer for peer in PEERS if peer.name in results.peers and not peer.parts]
    sections = [
        "# claw beside the bots of today",
        INTRO,
        _bots(results, peers),
        _machine(results),
        _recovery(results, peers, plots),
        _losses(results, peers),
        _acks(results, peers, plots),
        _costs(results, peers, plots),
        _better(results, PEERS),
        HOW,
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; a bar inside of a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _bots(results: Results, peers: Sequence[Peer]) -> str:
    rows = []
    for peer in peers:
        known = results.peers[peer.name]
        rows.append([known["label"], known["package"], known.get("version", "–"), known["ack"]])
    text = "## Who was measured\n\n" + table(["bot", "package", "runs on", "acks a message"], rows)
    missing = [peer for peer in peers if "missing" in results.peers[peer.name]]
    return text + "".join(f"\n\n{peer.label} was left out: {results.peers[peer.name]['missing']}." for peer in missing)


def _machine(results: Results) -> str:
    it = results.machine
    dates, commits = results.stamps("measured"), results.stamps("commit", CLAW.name)
    rows = [
        ["processor", f"{it.get('processor', '?')}, {it.get('cores', '?')} cores, {it.get('architecture', '?')}"],
        ["memory", f"{it.get('memory_gb', '?')} GB"],
        ["kernel", str(it.get("kernel", "?"))],
        ["load before the run", f"{it.get('load_before', '?')}"],
        ["date", " to ".join([dates[0], dates[-1]] if len(dates) > 1 else dates) or "–"],
        ["claw at commit", ", ".join(filter(None, commits)) or "–"],
    ]
    return "## Machine\n\n" + table(["", ""], rows)


def _recovery(results: Results, peers: Sequence[Peer], plots: str) -> str:
    rows = []
    for fault in (each for each in FAULTS if each.breaks):
        part = f"recovery/{fault.name}"
        cells = [_recovered(results, part, it) for it in peers]
        if any(cell != "–" for cell in cells):
            rows.append([fault.label, *cells])
    if not rows:
        return ""
    peaks = []
    for fault in (each for each in FAULTS if each.lasts):
        counts = [results.values(f"recovery/{fault.name}", it.name, "registrations_peak") for it in peers]
        if any(counts):
            peaks.append([fault.label, *(spread(each, whole) for each in counts)])
    died = [
        f"{peer.label} {count}"
        for peer in peers
        if (count := sum(results.total(f"recovery/{fault.name}", peer.name, "deaths") for fault in FAULTS))
    ]
    text = [
        "## Recovery",
        RECOVERY,
        table(["fault", *(peer.label for peer in peers)], rows),
        f"![Time from each fault to the next session, by bot]({plots}/recovery.svg)",
    ]
    for variant in (each for each in PEERS if each.parts and each.name in results.peers):
        cells = [
            f"{fault.label} {_recovered(results, f'recovery/{fault.name}', variant)}"
            for fault in FAULTS
            if results.runs(f"recovery/{fault.name}", variant.name)
        ]
        text += [f"{variant.label}: {', '.join(cells)}."] if cells else []
    if peaks:
        text += [
            REGISTRATIONS,
            table(["fault", *(peer.label for peer in peers)], peaks),
        ]
    if died:
        text.append("Processes that ended by themselves and had to be started again: " + ", ".join(died) + ".")
    text.append("What the faults are:\n\n" + "\n".join(f"- **{it.label}**: {it.meaning}" for it in FAULTS))
    return "\n\n".join(text)


def _recovered(results: Results, part: str, peer: Peer) -> str:
    never = f"never (> {results.bound(part, peer.name):.0f} s)"
    return spread(results.values(part, peer.name, "recovery_s"), seconds, never)


def _losses(results: Results, peers: Sequence[Peer]) -> str:
    once, never = [], []
    for fault in FAULTS:
        part = f"recovery/{fault.name}"
        if not any(results.runs(part, peer.name) for peer in peers):
            continue
        never.append([fault.label, *(_lost(results, part, peer.name) for peer in peers)])
        once.append([fault.label, *(_lost_or_twice(results, part, peer.name) for peer in peers)])
    never, once = (_told(rows) for rows in (never, once))
    if not once and not never:
        return ""
    head = ["fault", *(peer.label for peer in peers)]
    return "\n\n".join(
        [
            "## Lost, and answered twice",
            LOSSES,
            SERVER_NEVER,
            table(head, never),
            SERVER_ONCE,
            table(head, once),
        ]
    )


def _told(rows: Sequence[list[str]]) -> list[list[str]]:
    """Without the rows in which nobody was measured."""
    return [row for row in rows if any(cell != "–" for cell in row[1:])]


def _lost(results: Results, part: str, peer: str) -> str:
    asked = results.total(part, peer, "asked", server=Server.NEVER.value)
    if not asked:
        return "–"
    lost = results.total(part, peer, "lost", server=Server.NEVER.value)
    acked = results.total(part, peer, "lost_acked", server=Server.NEVER.value)
    return f"{lost} of {asked}" + (f", {acked} acked" if acked else "")


def _lost_or_twice(results: Results, part: str, peer: str) -> str:
    asked = results.total(part, peer, "asked", server=Server.ONCE.value)
    if not asked:
        return "–"
    lost = results.total(part, peer, "lost", server=Server.ONCE.value)
    twice = results.total(part, peer, "twice", server=Server.ONCE.value)
    return f"{lost} lost, {twice} twice of {asked}"


def _late(results: Results, part: str, peer: str) -> str:
    return f"> {results.bound(part, peer, 'bound_ms') / 1000:g} s"


def _acks(results: Results, peers: Sequence[Peer], plots: str) -> str:
    rows: list[list[str]] = []
    for rate in load.RATES:
        part = f"ack/{rate}"
        if not any(results.runs(part, peer.name) for peer in peers):
            continue
        for name, label in (("p50_ms", "p50, ms"), ("p99_ms", "p99, ms")):
            found = [(results.values(part, it.name, name), _late(results, part, it.name)) for it in peers]
            rows.append([f"{rate}/s, {label}", *(spread(values, milliseconds, late) for values, late in found)])
        rows.append([f"{rate}/s, answered", *(_share(results, part, it.name, "answered") for it in peers)])
        cores = [spread(results.values(part, it.name, "emulator_core"), seconds) for it in peers]
        rows.append([f"{rate}/s, the emulator's part of a core", *cores])
    if not rows:
        return ""
    return "\n\n".join(
        [
            "## Acks under load",
            ACKS,
            table(["rate", *(peer.label for peer in peers)], rows),
            f"![Ack latency by rate and bot]({plots}/ack.svg)",
        ]
    )


def _share(results: Results, part: str, peer: str, figure: str) -> str:
    asked = results.total(part, peer, "asked")
    return f"{results.total(part, peer, figure) / asked:.0%}" if asked else "–"


COSTS: Final = (
    Figure("throughput", "per_s", "round trips a second", whole, more_is_better=True),
    Figure("throughput", "cpu_ms", "CPU a message, ms", milliseconds),
    Figure("start", "start_s", "start to first session, s", seconds),
    Figure("start", "idle_mb", "memory idle, MB", whole),
    Figure("throughput", "loaded_mb", "memory after the round trips, MB", whole),
    Figure("ack/100", "loaded_mb", "memory after 100 messages/s, MB", whole),
    Figure("ack/500", "loaded_mb", "memory after 500 messages/s, MB", whole),
)
"""Rows of the table of costs."""


def _costs(results: Results, peers: Sequence[Peer], plots: str) -> str:
    rows = []
    core = Figure("throughput", "emulator_core", "the emulator's part of a core meanwhile", seconds)
    for figure in (COSTS[0], core, *COSTS[1:]):
        cells = [spread(results.values(figure.part, it.name, figure.name), figure.show) for it in peers]
        if any(cell != "–" for cell in cells):
            rows.append([figure.label, *cells])
    if not rows:
        return ""
    return "\n\n".join(
        [
            "## Throughput and costs",
            THROUGHPUT,
            table(["figure", *(peer.label for peer in peers)], rows),
            f"![Round trips a second and CPU a message, by bot]({plots}/throughput.svg)",
        ]
    )


# --- where a peer is better ------------------------------------------------------------------------------------------


def figures() -> list[Figure]:
    """Every figure with a spread in which claw can be beaten."""
    found = [
        Figure(f"recovery/{fault.name}", "recovery_s", f"recovery from {fault.label}, s", seconds)
        for fault in FAULTS
        if fault.breaks
    ]
    found += [
        Figure(f"recovery/{fault.name}", "registrations_peak", f"registrations a second, {fault.label}", whole)
        for fault in FAULTS
        if fault.lasts
    ]
    for rate in load.RATES:
        found.append(Figure(f"ack/{rate}", "p50_ms", f"ack p50 at {rate}/s, ms", milliseconds))
        found.append(Figure(f"ack/{rate}", "p99_ms", f"ack p99 at {rate}/s, ms", milliseconds))
        found.append(Figure(f"ack/{rate}", "answered", f"answered in time at {rate}/s", whole, more_is_better=True))
    return [*found, *COSTS]


@dataclass(frozen=True, slots=True)
class Beaten:
    """A figure in which at least one peer is better than claw."""

    label: str
    ours: str
    theirs: tuple[str, ...]
    """Each with the peer's name."""


def better(results: Results, peers: Sequence[Peer]) -> list[Beaten]:
    """Every figure in which a peer beats claw, in the order of the tables; empty if there is none."""
    others = [peer for peer in peers if peer.name != CLAW.name]
    found = [_beaten(results, others, figure) for figure in figures()]
    for fault in FAULTS:
        for server in fault.servers:
            found += [_fewer(results, others, fault, server, count) for count in ("lost", "twice")]
    return [each for each in found if each.theirs]


def _beaten(results: Results, others: Sequence[Peer], figure: Figure) -> Beaten:
    ours = results.values(figure.part, CLAW.name, figure.name)
    theirs = []
    for peer in others:
        values = results.values(figure.part, peer.name, figure.name)
        if ours and values and _beats(values, ours, more=figure.more_is_better):
            sure = "" if _apart(values, ours, more=figure.more_is_better) else "; ranges overlap"
            theirs.append(f"{peer.label}: {spread(values, figure.show)}{sure}")
    return Beaten(figure.label, spread(ours, figure.show), tuple(theirs))


def _beats(theirs: Sequence[float], ours: Sequence[float], *, more: bool) -> bool:
    """By more than 5 % in the median."""
    their, our = median(theirs), median(ours)
    if math.isinf(their) or math.isinf(our):
        return math.isinf(our) and not math.isinf(their)
    return their > our * (1 + NOTABLE) if more else their < our * (1 - NOTABLE)


def _apart(theirs: Sequence[float], ours: Sequence[float], *, more: bool) -> bool:
    return min(theirs) > max(ours) if more else max(theirs) < min(ours)


def _fewer(results: Results, others: Sequence[Peer], fault: Fault, server: Server, count: str) -> Beaten:
    """Where a peer loses, or repeats, a smaller share than claw."""
    part = f"recovery/{fault.name}"

    def share(peer: str) -> tuple[int, int]:
        asked = results.total(part, peer, "asked", server=server.value)
        return results.total(part, peer, count, server=server.value), asked

    ours, our_asked = share(CLAW.name)
    theirs = []
    for peer in others:
        their, their_asked = share(peer.name)
        if our_asked and their_asked and their / their_asked < ours / our_asked:
            theirs.append(f"{peer.label}: {their} of {their_asked}")
    what = "lost" if count == "lost" else "answered twice"
    how = "the server repeats once" if server is Server.ONCE else "the server repeats nothing"
    return Beaten(f"{what}, {fault.label}, {how}", f"{ours} of {our_asked}", tuple(theirs))


def _better(results: Results, peers: Sequence[Peer]) -> str:
    rows = [[each.label, each.ours, "<br>".join(each.theirs)] for each in better(results, peers)]
    shown = table(["figure", "claw", "better"], rows) if rows else "In none of the figures above."
    return "\n\n".join(["## Where a peer is better", BETTER, shown])
