"""Each invariant notices a record in which it does not hold, and says nothing of one in which it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.chaos.invariants import (
    INVARIANTS,
    THREADS_MORE,
    Asked,
    Cause,
    Delivered,
    Footprint,
    Heard,
    Letter,
    Life,
    Phase,
    Record,
    Sample,
    Told,
    Window,
    bad_acks,
    bad_ends,
    crossed,
    dead_lies,
    disordered,
    duplicates,
    lags,
    left_behind,
    lost,
    settled_how,
    summary,
    too_many_registrations,
    twice,
    unfinished,
    unready_lies,
    untold,
    violations,
)
from tests.chaos.schedule import Kind

INFINITE = float("inf")


def asked(number: int, *, acked: bool = True, chat: str = "a", connection: str = "c1", at: float = 0.0) -> Asked:
    """Message `number`, pushed at its number (or `at`) and acked a tenth of a second later."""
    sent = at or float(number)
    deliveries = (Delivered(connection, sent, sent + 0.1 if acked else None),)
    return Asked(f"id{number}", f"q{number}", chat, sent, acked, deliveries)


def answer(number: int, at: float, *, chat: str = "a", via: str = "webhook") -> Heard:
    return Heard(at, chat, Told.ANSWER, via, f"id{number}" if via == "webhook" else "", f"q{number}")


def apology(number: int, at: float, *, via: str = "webhook") -> Heard:
    return Heard(at, "a", Told.APOLOGY, via, f"id{number}" if via == "webhook" else "")


def good() -> Record:
    """A run in which much went wrong, and all of it well."""
    return Record(
        seed=7,
        asked=[asked(1), asked(2), asked(3), asked(4), asked(5, acked=False), asked(6)],
        heard=[answer(1, 1.5), apology(2, 2.5), answer(4, 4.5, via="openapi"), answer(4, 22.0), answer(6, 30.0)],
        letters=[Letter("id2", "ModelError: HTTP 500"), Letter("id3", "not delivered: the message is too long")],
        windows=[Window(Kind.SIGKILL, 5.0, 5.1), Window(Kind.DISK_FULL, 40.0, 45.0)],
        lives=[Life(1, 0.0, 5.1, -9, "SIGKILL", 5.0), Life(2, 5.5, 100.0, 0, "SIGTERM", 99.0)],
        phases=[(0.2, Phase.RUNNING), (5.0, Phase.DOWN), (6.0, Phase.RUNNING), (99.0, Phase.DRAINING)],
        usable=[(0.0, False), (0.5, True), (10.0, False), (12.0, True)],
        samples=[
            Sample(1.0, 1.0, ready=True, stream=True, store=True, health=200),
            Sample(5.2, 5.2, ready=None, stream=None, store=None, health=None),
            Sample(9.0, 9.0, ready=True, stream=True, store=True, health=200),
            Sample(11.0, 11.0, ready=False, stream=False, store=True, health=200),
            Sample(12.5, 12.5, ready=True, stream=True, store=True, health=200),
            Sample(44.0, 44.0, ready=False, stream=True, store=False, health=200),
            Sample(99.5, 99.5, ready=False, stream=True, store=True, health=200),
        ],
        registrations=[0.3, 0.6, 4.9, 5.6, 5.8, 12.0],
        idle=Footprint(14, 5, 80e6),
        left=Footprint(20, 6, 90e6),
        pending=0,
    )


def said_twice(*, until: float = 1.6, **more: object) -> Record:
    """A record in which message 1 is answered at 1.5 and again at `until`."""
    record = replace(good(), **more)  # type: ignore[arg-type]
    record.heard = [*record.heard, answer(1, until)]
    record.heard.sort(key=lambda heard: heard.at)
    return record


ENDED = Life(1, 0.0, 6.0, 0, "SIGTERM", 5.5)
"""It was asked to end 4 s after message 1 was answered."""


def test_good_record() -> None:
    """A run that went well has no violations; what was said twice is explained by the kill."""
    record = good()
    assert violations(record) == []
    assert [cause for *_, cause in duplicates(record)] == [Cause.KILLED]
    assert settled_how(record) == {
        "id1": "answered",
        "id2": "apologised",
        "id3": "refused",
        "id4": "answered",
        "id6": "answered",
    }
    assert "5 acked; of these 3 answered, 1 apologised, 1 refused, 0 lost" in summary(record)


BAD: list[tuple[Callable[[Record], list[str]], Record]] = [
    (lost, replace(good(), asked=[*good().asked, asked(7)])),
    (lost, replace(good(), letters=good().letters[:1])),
    (unfinished, replace(good(), pending=1)),
    (unfinished, replace(good(), pending=None)),
    (untold, replace(good(), heard=[each for each in good().heard if each.told is Told.ANSWER])),
    (crossed, replace(good(), heard=[*good().heard, answer(9, 31.0)])),
    (crossed, replace(good(), heard=[answer(1, 1.5, chat="b"), *good().heard[1:]])),
    (crossed, replace(good(), heard=[replace(answer(1, 1.5), msg_id="id6"), *good().heard[1:]])),
    (crossed, replace(good(), heard=[*good().heard, Heard(31.0, "a", Told.OTHER, "webhook", "id6")])),
    (disordered, replace(good(), heard=[answer(4, 4.5), answer(6, 5.0), answer(1, 30.0)])),
    (twice, said_twice()),
    (twice, said_twice(until=60.0)),
    (twice, replace(good(), heard=[*good().heard, apology(2, 2.6)])),
    (bad_acks, replace(good(), protocol=["2 acks for one frame"])),
    (too_many_registrations, replace(good(), registrations=[6.0, 6.4, 6.99])),
    (bad_ends, replace(good(), lives=[Life(1, 0.0, 5.0, 70)])),
    (bad_ends, replace(good(), lives=[Life(1, 0.0, 5.0, 0)])),
    (bad_ends, replace(good(), lives=[Life(1, 0.0, 5.0, 78)])),
    (bad_ends, replace(good(), lives=[Life(1, 0.0, 5.0, -9, "SIGTERM", 4.0)])),
    (left_behind, replace(good(), complaints=["Traceback (most recent call last):"])),
    (left_behind, replace(good(), connections_left=1)),
    (left_behind, replace(good(), left=None)),
    (left_behind, replace(good(), left=Footprint(60, 5, 80e6))),
    (left_behind, replace(good(), left=Footprint(14, 5 + THREADS_MORE + 1, 80e6))),
    (left_behind, replace(good(), left=Footprint(14, 5, 200e6))),
    (left_behind, replace(good(), left=Footprint(14, 5, 80e6, close_wait=1))),
    (
        unready_lies,
        replace(
            good(),
            usable=[(0.0, True), (10.0, False)],
            samples=[Sample(31.0, 31.0, ready=True, stream=True, store=True, health=200)],
        ),
    ),
    (unready_lies, replace(good(), samples=[Sample(28.0, 28.0, ready=False, stream=False, store=True, health=200)])),
    (unready_lies, replace(good(), samples=[Sample(28.0, 28.0, ready=False, stream=True, store=False, health=200)])),
    (unready_lies, replace(good(), samples=[Sample(100.5, 100.5, ready=True, stream=True, store=True, health=200)])),
    (dead_lies, replace(good(), samples=[Sample(20.0, 20.0, ready=False, stream=True, store=True, health=503)])),
    (
        dead_lies,
        replace(good(), samples=[Sample(at, at, None, None, None, None) for at in (20.0, 22.0, 24.0, 25.5)]),
    ),
]


@pytest.mark.parametrize(("invariant", "record"), BAD)
def test_bad_record(invariant: Callable[[Record], list[str]], record: Record) -> None:
    """What does not hold is noticed by its invariant, with evidence, and among all violations."""
    found = invariant(record)
    assert found
    assert set(found) <= set(violations(record))


def test_every_invariant_can_fail() -> None:
    """There is a bad record for each of them: one that cannot fail would prove nothing."""
    assert {invariant for invariant, _ in BAD} == set(INVARIANTS)


@pytest.mark.parametrize(
    ("record", "cause"),
    [
        (said_twice(hung=[(1.4, 1.5)], until=12.0), Cause.HUNG),
        (said_twice(windows=[Window(Kind.READ_ONLY, 1.0, 4.0)], lives=[ENDED], until=8.0), Cause.STORE),
        (said_twice(windows=[Window(Kind.DISK_FULL, 2.0, 9.0)], lives=[ENDED], until=8.0), Cause.STORE),
        (said_twice(windows=[Window(Kind.DISK_FULL, 2.0, 2.5)], lives=[ENDED], until=8.0), None),
        (said_twice(windows=[Window(Kind.DISK_FULL, 2.0, 9.0)], until=4.0), None),
        (said_twice(windows=[Window(Kind.OUTAGE, 1.55, 3.0)], until=4.0), Cause.OUTAGE),
        (said_twice(windows=[Window(Kind.SIGSTOP, 1.4, 21.4)], until=22.0), Cause.STOPPED),
        (said_twice(windows=[Window(Kind.SIGSTOP, 1.4, 2.4)], until=2.5), None),
        (said_twice(windows=[Window(Kind.DISK_FULL, 3.6, 9.0)], until=14.0), None),
        (said_twice(windows=[Window(Kind.DISK_FULL, 2.0, 9.0)], until=1.7), None),
        (said_twice(lives=[Life(1, 0.0, 3.0, 0, "SIGTERM", 1.6)], until=4.0), Cause.KILLED),
        (said_twice(lives=[Life(1, 0.0, 9.0, -9, "SIGKILL", 9.0)], until=14.0), None),
        (said_twice(lives=[Life(1, 0.0, 3.0, -9, "SIGKILL", 3.0)], until=2.0), None),
    ],
)
def test_causes(record: Record, cause: Cause | None) -> None:
    """A repetition is explained only by something that came between the two, and soon enough after the first."""
    (found,) = [each for one, _, _, each in duplicates(record) if one.mark == "q1"]
    assert found is cause


def test_order_is_only_judged_where_it_is_certain() -> None:
    """Without an ack between them, and on two sockets, nobody outside knows which message was accepted first."""
    both = [asked(1, at=1.0), replace(asked(2, connection="c2"), deliveries=(Delivered("c2", 1.05, 1.2),))]
    heard = [answer(2, 3.0), answer(1, 4.0)]
    assert disordered(Record(0, asked=both, heard=heard)) == []
    same = [both[0], replace(both[1], deliveries=(Delivered("c1", 1.05, 1.2),))]
    assert len(disordered(Record(0, asked=same, heard=heard))) == 1


LATE: list[tuple[Callable[[Record], list[str]], Record, float]] = [
    (
        unready_lies,
        replace(
            good(),
            usable=[(0.0, True), (10.0, False)],
            samples=[Sample(22.5, 22.6, ready=True, stream=True, store=True, health=200)],
        ),
        12.0,
    ),
    (
        unready_lies,
        replace(good(), samples=[Sample(17.5, 17.6, ready=False, stream=False, store=True, health=200)]),
        14.0,
    ),
    (
        unready_lies,
        replace(good(), samples=[Sample(50.5, 50.6, ready=False, stream=True, store=False, health=200)]),
        47.0,
    ),
    (
        unready_lies,
        replace(good(), samples=[Sample(100.2, 100.3, ready=True, stream=True, store=True, health=200)]),
        99.5,
    ),
    (dead_lies, replace(good(), samples=[Sample(at, at, None, None, None, None) for at in (20.0, 22.5, 25.5)]), 21.0),
    (twice, said_twice(windows=[Window(Kind.READ_ONLY, 4.0, 5.0)], lives=[ENDED], until=8.0), 2.0),
    (twice, said_twice(lives=[Life(1, 0.0, 4.0, -9, "SIGKILL", 4.0)], until=6.0), 2.0),
]


@pytest.mark.parametrize(("invariant", "record", "since"), LATE)
def test_limits_grow_with_the_delay_of_the_witness(
    invariant: Callable[[Record], list[str]], record: Record, since: float
) -> None:
    """A limit in seconds grows by what the witness itself was held up for within it, and not by other times."""
    assert len(invariant(record)) == 1
    assert invariant(replace(record, stalls=[(since, since + 1.5)])) == []
    assert len(invariant(replace(record, stalls=[(since, since + 0.05), (200.0, 300.0)]))) == 1


def test_a_late_answer_is_no_lie() -> None:
    """What /ready says is of some moment between question and answer: it is judged by when it was asked."""
    late = Sample(99.5, 101.0, ready=True, stream=True, store=True, health=200)
    assert unready_lies(replace(good(), samples=[late])) == []
    assert len(unready_lies(replace(good(), samples=[replace(late, asked=100.9)]))) == 1


def test_lags() -> None:
    """The lag is counted from the emulator's view to the first probe that agrees, in milliseconds."""
    down, up = lags(good())
    assert down == [1000.0]
    assert up == [500.0]


def test_many_violations_are_counted() -> None:
    """Of one invariant some are shown, the others counted."""
    record = replace(good(), asked=[asked(number) for number in range(100, 130)], heard=[], letters=[])
    found = violations(record)
    assert len(found) == 11
    assert found[-1] == "... and 20 more of lost"
