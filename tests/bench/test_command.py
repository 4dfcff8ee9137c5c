"""The command line's choice of parts and peers, and the peers' table."""

from __future__ import annotations

import re

import pytest

from bench.__main__ import PARTS, START_LANES, at_once, chosen_parts, chosen_peers
from bench.peers import HERE, PEERS, Runtime
from bench.plots import COLOURS


@pytest.mark.parametrize(
    ("only", "parts"),
    [
        ([], list(PARTS)),
        (["start"], ["start"]),
        (["ack"], ["ack/10", "ack/100", "ack/500"]),
        (["recovery/reset", "start"], ["start", "recovery/reset"]),
    ],
)
def test_parts(only: list[str], parts: list[str]) -> None:
    """A part is named by itself or with its group; the order stays that of the whole."""
    assert chosen_parts(only) == parts


@pytest.mark.parametrize(("names", "peers"), [("", [peer.name for peer in PEERS]), ("node,claw", ["claw", "node"])])
def test_peers(names: str, peers: list[str]) -> None:
    """Peers are named with commas between them; the order in which they take turns stays."""
    assert [peer.name for peer in chosen_peers(names)] == peers


@pytest.mark.parametrize(
    ("part", "peer", "lanes", "width"),
    [
        ("ack/100", "claw", 32, 1),
        ("throughput", "node", 32, 1),
        ("recovery/refuse", "node", 32, 1),
        ("recovery/refuse", "claw", 32, 32),
        ("recovery/kill", "claw", 32, START_LANES),
        ("recovery/kill", "claw", 2, 2),
    ],
)
def test_what_loads_the_machine_is_measured_alone(part: str, peer: str, lanes: int, width: int) -> None:
    """Figures of CPU are taken one bot at a time, starts with few beside them, and a storm disturbs nobody."""
    assert at_once(part, peer, lanes) == width


def test_unknown_names_are_refused() -> None:
    """A name that means nothing is told, with those that do."""
    with pytest.raises(ValueError, match="recovery/reset"):
        chosen_parts(["recover"])
    with pytest.raises(ValueError, match="open-stream"):
        chosen_peers("claw,go")


def test_every_peer_is_locked_and_coloured() -> None:
    """Each peer has its bot, a lock with hashes that names no registry, and a colour."""
    for peer in PEERS:
        assert peer.name in COLOURS
        if peer.runtime is Runtime.CLAW:
            continue
        assert (HERE / peer.script).is_file()
        lock = (HERE / peer.lock).read_text(encoding="utf-8")
        assert "sha" in lock
        assert not re.search(r"index-url|resolved|https?://[^\"\s]*(pypi|npm)", lock)
        version = peer.package.split()[1]
        assert version in lock
