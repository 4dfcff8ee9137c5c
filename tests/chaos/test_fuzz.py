"""Every parser of what others send, against mutations of the official vectors."""

from __future__ import annotations

import random

from tests.chaos.fuzzing import TARGETS, Target, fuzz, mutated

COUNT = 6000


def test_parsers_raise_only_what_they_declare() -> None:
    """Whatever comes, a parser takes it or raises its own error, soon; both happen for each of them that can refuse."""
    outcome = fuzz(20261121, COUNT)
    assert outcome.faults == []
    assert outcome.tried == COUNT
    for target in TARGETS:
        assert outcome.by_target[f"{target.name}: taken"] > COUNT / 400, target.name
        assert not target.declared or outcome.by_target[f"{target.name}: refused"] > COUNT / 400, target.name


def test_mutations_are_repeatable_and_many() -> None:
    """A seed gives the same input again, and hardly ever the vector itself."""
    seed = TARGETS[0].seeds[0]
    some = [mutated(seed, random.Random(number)) for number in range(200)]
    assert some == [mutated(seed, random.Random(number)) for number in range(200)]
    assert len(set(some)) > 180
    assert some.count(seed) < 10


def test_fault_is_noticed() -> None:
    """An error that a parser does not declare, and a promise that it breaks, are found and shown with their input."""

    def careless(data: bytes, _: random.Random) -> None:
        if len(data) % 2:
            raise KeyError("careless")

    target = Target("careless", (b'{"a":1}',), careless)
    outcome = fuzz(1, 50, [target])
    assert outcome.faults
    assert all(each.startswith("careless #") and "KeyError" in each for each in outcome.faults)
