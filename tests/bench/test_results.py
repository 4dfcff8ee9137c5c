"""What was measured: statistics, merging, and what must not be mixed."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.faults import fullest_second
from bench.results import MixedError, Results, Run, median, quantile, spread

NEVER = math.inf
MACHINE = {"cores": 2, "kernel": "Linux 6.1", "processor": "P", "memory_gb": 8, "commit": "abc"}
VALUES = st.lists(st.floats(0, 1e6) | st.just(NEVER), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("values", "middle"),
    [
        ([3.0, 1.0, 2.0], 2.0),
        ([4.0, 1.0, 2.0, 3.0], 2.5),
        ([1.0, NEVER, 2.0], 2.0),
        ([1.0, NEVER, NEVER], NEVER),
        ([1.0, NEVER], NEVER),
        ([NEVER], NEVER),
    ],
)
def test_median(values: Sequence[float], middle: float) -> None:
    """What never came counts as later than everything; half of it makes the median never."""
    assert median(values) == middle


@pytest.mark.parametrize(
    ("share", "value"), [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0), (0.0, 1.0), (0.001, 1.0), (0.981, 99.0)]
)
def test_quantile(share: float, value: float) -> None:
    """The nearest rank: the least value that this share of all does not exceed."""
    assert quantile([float(number) for number in range(100, 0, -1)], share) == value


@given(values=VALUES, share=st.floats(0, 1))
def test_quantile_is_one_of_the_values(values: Sequence[float], share: float) -> None:
    """A quantile is something that was measured, and at least its share of the values is not above it."""
    found = quantile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


@pytest.mark.parametrize(
    ("values", "cell"),
    [
        ([], "–"),
        ([1.0], "1.0"),
        ([1.0, 1.01], "1.0"),
        ([1.0, 2.0, 4.0], "2.0 (1.0–4.0)"),
        ([NEVER, NEVER], "late"),
        ([1.0, 2.0, NEVER], "2.0 (1.0–2.0), 1 of 3 late"),
        ([1.0, NEVER, NEVER], "late (1.0–1.0), 2 of 3 late"),
    ],
)
def test_spread(values: Sequence[float], cell: str) -> None:
    """A cell has the median and the range of what came, and says how often it did not come."""
    assert spread(values, lambda it: f"{it:.1f}", "late") == cell


@pytest.mark.parametrize(
    ("stamps", "most"),
    [([], 0), ([5.0], 1), ([0.0, 1.0, 2.0], 1), ([0.0, 0.5, 0.99, 1.2], 3), ([3.0, 2.9, 2.8, 0.0], 3)],
)
def test_fullest_second(stamps: Sequence[float], most: int) -> None:
    """The window is half open: what comes a whole second later is of the next one."""
    assert fullest_second(stamps) == most


@given(st.lists(st.floats(0, 20), max_size=60))
def test_fullest_second_counts_as_the_simple_way_does(stamps: Sequence[float]) -> None:
    """The sliding window finds what looking back from each stamp finds."""
    simple = max((sum(stamp - 1.0 < other <= stamp for other in stamps) for stamp in stamps), default=0)
    assert fullest_second(stamps) == simple


def test_put_replaces_one_record_only(tmp_path: Path) -> None:
    """A partial run replaces its own figures, and what else was measured stays, also through the file."""
    path = tmp_path / "results.json"
    results = Results()
    results.check_machine(dict(MACHINE))
    results.put("start", "claw", [{"start_s": 1.0}])
    results.put("start", "node", [{"start_s": 2.0}])
    results.put("ack/10", "claw", [{"p50_ms": 3.0}])
    results.save(path)
    again = Results.load(path)
    again.check_machine(dict(MACHINE) | {"commit": "def"})
    again.put("start", "claw", [{"start_s": 0.5}, {"start_s": 0.7}])
    again.save(path)
    last = Results.load(path)
    assert last.values("start", "claw", "start_s") == [0.5, 0.7]
    assert last.values("start", "node", "start_s") == [2.0]
    assert last.values("ack/10", "claw", "p50_ms") == [3.0]
    assert last.stamps("commit", "claw") == ["abc", "def"]
    assert last.stamps("commit", "node") == ["abc"]
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("name", "value"), [("cores", 4), ("kernel", "Linux 6.2"), ("processor", "Q"), ("memory_gb", 16)]
)
def test_figures_of_two_machines_are_not_mixed(name: str, value: object) -> None:
    """Another machine is refused while there are figures of this one, and told by what differs."""
    results = Results()
    results.check_machine(dict(MACHINE))
    results.check_machine(dict(MACHINE) | {name: value})  # Nothing was measured yet.
    results.put("start", "claw", [{"start_s": 1.0}])
    with pytest.raises(MixedError) as caught:
        results.check_machine(dict(MACHINE))
    assert caught.value.name == name


def test_never_is_null_in_the_file(tmp_path: Path) -> None:
    """The file is plain JSON: a figure that did not come about is null there and infinite here."""
    path = tmp_path / "results.json"
    results = Results()
    results.put("recovery/hang", "sdk", [{"recovery_s": None}, {"recovery_s": 10.0}])
    results.save(path)

    def refuse(word: str) -> float:
        raise AssertionError(word)

    json.loads(path.read_text(), parse_constant=refuse)
    assert Results.load(path).values("recovery/hang", "sdk", "recovery_s") == [NEVER, 10.0]


def test_another_schema_is_refused(tmp_path: Path) -> None:
    """A file that cannot be understood is not overwritten in silence."""
    path = tmp_path / "results.json"
    path.write_text('{"schema": 0}')
    with pytest.raises(ValueError, match="fresh"):
        Results.load(path)


def test_counts_add_up_by_server() -> None:
    """A count is the sum over the runs in which the server behaved so; a figure that is missing counts nothing."""
    results = Results()
    runs: list[Run] = [{"server": "never", "lost": 2}, {"server": "once", "lost": 3}, {"server": "once", "lost": None}]
    results.put("recovery/reset", "sdk", runs)
    assert results.total("recovery/reset", "sdk", "lost") == 5
    assert results.total("recovery/reset", "sdk", "lost", server="once") == 3
    assert results.total("recovery/reset", "node", "lost") == 0
