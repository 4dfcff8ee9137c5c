"""Schedules: repeatable by their seed, and complete where a run is long enough."""

from __future__ import annotations

import itertools
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.chaos.schedule import BRISK, FLEET_TRACKS, LONG, TRACKS, Kind, Pace, schedule

SEEDS = st.integers(0, 2**63)
PACES = st.sampled_from([BRISK, LONG])
HALF_AN_HOUR = 1800.0
ALONE = {kind for track in TRACKS for kind in track}
"""The kinds for a claw that is alone."""


@given(seed=SEEDS, seconds=st.floats(0, HALF_AN_HOUR), pace=PACES)
@settings(max_examples=40, deadline=None)
def test_same_seed_same_schedule(seed: int, seconds: float, pace: Pace) -> None:
    """A seed is all that a failure needs to be repeated."""
    assert schedule(seed, seconds, pace) == schedule(seed, seconds, pace)


@given(seed=SEEDS, pace=PACES)
@settings(max_examples=40, deadline=None)
def test_long_run_has_every_kind(seed: int, pace: Pace) -> None:
    """Half an hour sees every fault, whatever the seed; most of them many times."""
    faults = schedule(seed, HALF_AN_HOUR, pace)
    assert {fault.kind for fault in faults} == ALONE - pace.without
    fleet = schedule(seed, HALF_AN_HOUR, pace, FLEET_TRACKS)
    assert {fault.kind for fault in fleet} == {kind for track in FLEET_TRACKS for kind in track} - pace.without
    assert not LONG.without


@given(seed=SEEDS, seconds=st.floats(0, 300), pace=PACES)
@settings(max_examples=40, deadline=None)
def test_faults_of_a_track_never_overlap(seed: int, seconds: float, pace: Pace) -> None:
    """Each track has one fault at a time, by time, and all end within the run."""
    faults = schedule(seed, seconds, pace)
    assert list(faults) == sorted(faults, key=lambda fault: fault.at)
    assert all(0 <= fault.at < fault.end <= seconds + 0.01 for fault in faults)
    for kinds in TRACKS:
        mine = [fault for fault in faults if fault.kind in kinds]
        assert all(earlier.end < later.at for earlier, later in itertools.pairwise(mine))


def test_every_kind_has_one_track() -> None:
    """No kind was forgotten, and none stands twice."""
    kinds = [kind for track in TRACKS for kind in track]
    fleet = [kind for track in FLEET_TRACKS for kind in track]
    assert len(kinds) == len(set(kinds))
    assert len(fleet) == len(set(fleet))
    assert set(kinds) | set(fleet) == set(Kind)


def test_seeds_differ() -> None:
    """Another seed is another run."""
    assert len({schedule(seed, 60, BRISK) for seed in range(50)}) == 50


def test_kinds_can_be_left_out() -> None:
    """A pace may do without some kinds, even without a whole track."""
    pace = replace(BRISK, without=frozenset(TRACKS[0]) | {Kind.SIGKILL})
    kinds = {fault.kind for fault in schedule(1, 300, pace)}
    assert kinds == ALONE - pace.without
