"""Retry plans, row by row."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest

from claw.errors import ClawError, DingTalkError, ModelError, ModelErrorKind, StoreError
from claw.inbox.retries import (
    DELIVERY_BACKOFF_CEILING_S,
    DELIVERY_TIMEOUT_S,
    Effort,
    GiveUp,
    Limits,
    Retry,
    plan_next_try,
    plan_retry,
)


class Latest(random.Random):
    """Draws the longest wait each time."""

    def uniform(self, a: float, b: float) -> float:
        return b


class Earliest(random.Random):
    """Draws the shortest wait each time."""

    def uniform(self, a: float, b: float) -> float:
        return a


def refused(**fields: Any) -> DingTalkError:
    return DingTalkError("webhook", "no", **{"retryable": True, **fields})


@pytest.mark.parametrize(
    ("error", "tries", "age", "doubts", "earliest", "latest"),
    [
        # What surely was not delivered: full jitter that doubles from 1 s to 5 min.
        (refused(status=500), 1, 0, 0, 0, 1),
        (refused(status=500), 2, 0, 0, 0, 2),
        (refused(status=500), 5, 60, 0, 0, 16),
        (refused(status=500), 30, 900, 0, 0, 300),
        (refused(status=500), 10_000, 900, 0, 0, 300),
        # What was doubtful before does not count against what surely fails now, and the other way round.
        (refused(status=500), 1, 900, 3, 0, 1),
        (refused(status=502, maybe_delivered=True), 40, 3000, 1, 60, 75),
        # A wait that DingTalk asks for is kept, a short one makes none shorter.
        (refused(retry_after=60.0), 1, 0, 0, 60, 60),
        (refused(retry_after=2.0), 9, 0, 0, 2, 256),
        (refused(maybe_delivered=True, retry_after=90.0), 1, 0, 1, 90, 90),
        # What may have been delivered: a minute, then ten, then never again.
        (refused(maybe_delivered=True), 1, 0, 1, 60, 75),
        (refused(maybe_delivered=True), 2, 70, 2, 600, 750),
        (refused(maybe_delivered=True), 3, 800, 3, GiveUp.TRIES, GiveUp.TRIES),
        # A fault of the program may come after the call.
        (ZeroDivisionError(), 1, 0, 1, 60, 75),
        (ZeroDivisionError(), 3, 0, 3, GiveUp.TRIES, GiveUp.TRIES),
        # A refusal that nobody knows: few tries, each billed, and long waits.
        (refused(tries_max=4), 1, 0, 0, 5, 6.25),
        (refused(tries_max=4), 2, 6, 0, 60, 75),
        (refused(tries_max=4, retry_after=90.0), 2, 6, 0, 90, 90),
        (refused(tries_max=4), 3, 80, 0, 600, 750),
        (refused(tries_max=4), 4, 830, 0, GiveUp.TRIES, GiveUp.TRIES),
        (refused(tries_max=9), 7, 830, 0, 600, 750),
        # The hour: its last try comes at its end.
        (refused(status=500), 30, DELIVERY_TIMEOUT_S - 20, 0, 0, 20),
        (refused(status=500), 1, DELIVERY_TIMEOUT_S, 0, GiveUp.TIME, GiveUp.TIME),
        (refused(maybe_delivered=True), 1, DELIVERY_TIMEOUT_S, 1, GiveUp.TIME, GiveUp.TIME),
        # By DingTalk's own code.
        (refused(retryable=False, errcode=400013), 1, 0, 0, GiveUp.FINAL, GiveUp.FINAL),
        (refused(retryable=False, maybe_delivered=True), 1, 0, 1, GiveUp.FINAL, GiveUp.FINAL),
    ],
)
def test_plan_of_deliveries(
    error: Exception, tries: int, age: float, doubts: int, earliest: float | GiveUp, latest: float | GiveUp
) -> None:
    """For an hour whatever failed, unless DingTalk's code is final; what may be there already is tried twice more."""

    def plan(rng: random.Random) -> float | GiveUp:
        found = plan_retry(error, tries, age, doubts=doubts, rng=rng)
        return found.delay if isinstance(found, Retry) else found

    assert (plan(Earliest()), plan(Latest())) == (earliest, latest)


def test_deliveries_span_the_hour() -> None:
    """The tries of one answer are spread over the hour: many early ones, none after it, and one at its end."""
    rng, age, tries, times = random.Random(7), 0.0, 0, list[float]()
    while True:
        tries += 1
        plan = plan_retry(refused(status=500), tries, age, rng=rng)
        if isinstance(plan, GiveUp):
            break
        age += plan.delay
        times.append(age)
    assert plan is GiveUp.TIME
    assert len([at for at in times if at < 60]) >= 5
    assert 20 < len(times) < 60
    assert max(b - a for a, b in pairwise(times)) <= DELIVERY_BACKOFF_CEILING_S
    assert times[-1] == pytest.approx(DELIVERY_TIMEOUT_S)


LIMITS = Limits(max_attempts=3, turn_timeout=300.0, patience=600.0)


def effort(attempt: int = 1, *, took: float = 0.0, worked: float = 0.0, waited: float = 0.0) -> Effort:
    return Effort(attempt, took, max(took, worked), waited)


def model_error(kind: ModelErrorKind = ModelErrorKind.BUSY, **fields: Any) -> ModelError:
    return ModelError(kind, "no", **{"retryable": True, **fields})


AWAY = model_error(ModelErrorKind.UNREACHABLE, waits=True)


@pytest.mark.parametrize(
    ("error", "spent", "limits", "earliest", "latest"),
    [
        # An error that another try can cure: so many tries, with growing waits.
        (model_error(), effort(1), LIMITS, Retry(0), Retry(1)),
        (model_error(), effort(2), LIMITS, Retry(0), Retry(2)),
        (model_error(), effort(3), LIMITS, GiveUp.TRIES, GiveUp.TRIES),
        (model_error(), effort(15), Limits(20, 300, 600), Retry(0), Retry(30)),
        (model_error(retry_after=60.0), effort(1), LIMITS, Retry(60), Retry(60)),
        (model_error(retry_after=1e6), effort(1), LIMITS, Retry(120), Retry(120)),
        # A fault of the program may be one of the moment.
        (ZeroDivisionError(), effort(1), LIMITS, Retry(0), Retry(1)),
        (StoreError("away"), effort(1), LIMITS, Retry(0), Retry(1)),
        (model_error(retryable=False), effort(1), LIMITS, GiveUp.FINAL, GiveUp.FINAL),
        (ClawError("no"), effort(1), LIMITS, GiveUp.FINAL, GiveUp.FINAL),
        # The time of all tries together.
        (model_error(), effort(2, took=5, worked=299), LIMITS, Retry(0), Retry(2)),
        (model_error(), effort(2, took=5, worked=300), LIMITS, GiveUp.TIME, GiveUp.TIME),
        (ZeroDivisionError(), effort(1, worked=301), LIMITS, GiveUp.TIME, GiveUp.TIME),
        # What the server says after a minute of its own tries is its last word; a connection that broke says nothing.
        (model_error(status=429), effort(1, took=59), LIMITS, Retry(0), Retry(1)),
        (model_error(status=429), effort(1, took=60), LIMITS, GiveUp.FINAL, GiveUp.FINAL),
        (model_error(ModelErrorKind.SERVER, code="overloaded"), effort(1, took=99), LIMITS, GiveUp.FINAL, GiveUp.FINAL),
        (model_error(ModelErrorKind.BROKEN_OFF), effort(1, took=99), LIMITS, Retry(0), Retry(1)),
        # A server that is away is waited for: no attempt counts, nor what was worked before.
        (AWAY, effort(1), LIMITS, Retry(0, waiting=True), Retry(1, waiting=True)),
        (AWAY, effort(3, worked=300), LIMITS, Retry(0, waiting=True), Retry(1, waiting=True)),
        (AWAY, effort(1, waited=6), LIMITS, Retry(0, waiting=True), Retry(6, waiting=True)),
        (AWAY, effort(1, waited=99), LIMITS, Retry(0, waiting=True), Retry(15, waiting=True)),
        (AWAY, effort(1, waited=590), LIMITS, Retry(0, waiting=True), Retry(10, waiting=True)),
        (AWAY, effort(1, waited=600), LIMITS, GiveUp.TIME, GiveUp.TIME),
        (
            model_error(ModelErrorKind.UNAVAILABLE, waits=True, retryable=False, status=503, retry_after=30.0),
            effort(1),
            LIMITS,
            Retry(30, waiting=True),
            Retry(30, waiting=True),
        ),
        # Without patience it is an error like any other.
        (AWAY, effort(1), Limits(3, 300, 0), Retry(0), Retry(1)),
        (AWAY, effort(3), Limits(3, 300, 0), GiveUp.TRIES, GiveUp.TRIES),
    ],
)
def test_plan_of_handling(
    error: Exception, spent: Effort, limits: Limits, earliest: Retry | GiveUp, latest: Retry | GiveUp
) -> None:
    """Attempts, work and patience have a bound each, and an error is held against the one that it is about."""
    assert plan_next_try(error, spent, limits, rng=Earliest()) == earliest
    assert plan_next_try(error, spent, limits, rng=Latest()) == latest
