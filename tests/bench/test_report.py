"""RESULTS.md: whole, true to results.json, and fair to the peers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest

from bench.faults import BY_NAME
from bench.peers import PEERS
from bench.report import Beaten, better, report, table
from bench.results import Results

from .made_up import made_up

NEVER = math.inf
SLOW = BY_NAME["slow"].label


def test_all_is_shown() -> None:
    """Every part has its table with a column for each bot, and every table's lines have the same number of cells."""
    text = report(made_up(), plots="plots")
    for heading in ("Who was measured", "Machine", "Recovery", "Lost, and answered twice", "Acks under load"):
        assert f"## {heading}" in text
    for chart in ("recovery", "ack", "throughput"):
        assert f"(plots/{chart}.svg)" in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1
    assert all(peer.label in text for peer in PEERS if not peer.parts)


def test_variant_stands_below_the_table() -> None:
    """A peer that was measured at one part has no column of its own, but its figure is told, and compared."""
    results = made_up()
    results.put("recovery/freeze", "node-alive", [{"recovery_s": 0.01}])
    text = report(results, plots="plots")
    assert "Node SDK 2.1.5, keepAlive: half-open 0.01." in text
    assert better(results, PEERS) == [
        Beaten("recovery from half-open, s", "0.05", ("Node SDK 2.1.5, keepAlive: 0.01",))
    ]


def test_nothing_measured() -> None:
    """Without figures there is no empty table, and the file is still made."""
    text = report(Results(), plots="plots")
    assert "## Recovery" not in text
    assert "In none of the figures above." in text


def test_best_in_everything() -> None:
    """Where no peer is better, it says just that."""
    results = made_up()
    assert better(results, PEERS) == []
    assert "In none of the figures above." in report(results, plots="plots")


Change = Callable[[Results], None]


def put(part: str, **figures: float | str | None) -> Change:
    return lambda results: results.put(part, "node", [figures, figures])


@pytest.mark.parametrize(
    ("change", "label", "ours", "theirs"),
    [
        (put("throughput", per_s=800.0), "round trips a second", "500", "800"),
        (put("start", start_s=0.2), "start to first session, s", "0.50", "0.20"),
        (put("ack/100", p99_ms=1.0), "ack p99 at 100/s, ms", "9.0", "1.0"),
        (put("recovery/reset", recovery_s=0.01), "recovery from TCP reset, s", "0.05", "0.01"),
        (
            put("recovery/close", lost=0, twice=9, asked=50, server="never"),
            "lost, clean close, the server repeats nothing",
            "1 of 50",
            "0 of 100",
        ),
        (
            put("recovery/slow", twice=0, lost=9, asked=50, server="once"),
            f"answered twice, {SLOW}, the server repeats once",
            "1 of 50",
            "0 of 100",
        ),
    ],
)
def test_a_better_peer_is_named(change: Change, label: str, ours: str, theirs: str) -> None:
    """Whatever the figure, a peer that beats claw is named with both figures, and nobody else is."""
    results = made_up()
    change(results)
    assert better(results, PEERS) == [Beaten(label, ours, (f"Node SDK 2.1.5: {theirs}",))]
    assert f"| {label} | {ours} | Node SDK 2.1.5: {theirs} |" in report(results, plots="plots")


@pytest.mark.parametrize(
    ("claw", "node", "said"),
    [
        ([1.0], [0.96], False),
        ([1.0], [0.94], True),
        ([NEVER], [50.0], True),
        ([1.0], [NEVER], False),
        ([NEVER], [NEVER], False),
    ],
)
def test_better_by_a_notable_share(claw: list[float], node: list[float], said: bool) -> None:
    """Five per cent is a difference, less is none; to come back at all beats never."""
    results = Results()
    for name, values in (("claw", claw), ("node", node)):
        results.put("start", name, [{"start_s": None if math.isinf(value) else value} for value in values])
    assert bool(better(results, PEERS)) is said


def test_overlap_is_told() -> None:
    """A better median whose range meets claw's is named with that caution."""
    results = Results()
    results.put("start", "claw", [{"start_s": 1.0}, {"start_s": 1.2}, {"start_s": 1.4}])
    results.put("start", "node", [{"start_s": 0.5}, {"start_s": 0.6}, {"start_s": 1.3}])
    (found,) = better(results, PEERS)
    assert found.theirs == ("Node SDK 2.1.5: 0.60 (0.50–1.30); ranges overlap",)


def test_a_peer_that_cannot_run_is_told_with_its_reason() -> None:
    """Who is left out stands in the table of the bots, and why stands below it."""
    results = made_up()
    del results.peers["open-stream"]["version"]
    results.peers["open-stream"]["missing"] = "needs Python 3.12 or later, and there is none here"
    text = report(results, plots="plots")
    assert "dingtalk-open-stream 0.1.6 was left out: needs Python 3.12 or later, and there is none here." in text


def test_bars_in_cells_are_escaped() -> None:
    """A cell cannot break its table."""
    assert table(["a|b"], [["c"]]).splitlines()[0] == "| a\\|b |"
