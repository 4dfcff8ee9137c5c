"""Retry plans: what follows from a failed try, as pure functions; tests/inbox/test_retries.py holds their tables.

`plan_retry` is about an answer that DingTalk did not take, `plan_next_try` about a handler that failed. Each says how
long to wait, or why there is no other try. Nothing here knows the store or the clock: the caller hands in what has
been tried and for how long.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from claw.errors import ClawError, DingTalkError, ModelError
from claw.retry import full_jitter

BACKOFF_BASE_S: Final = 1.0
"""The wait after a first failure is drawn below this; each further failure doubles it up to a ceiling."""
HANDLER_BACKOFF_CEILING_S: Final = 30.0
"""A person waits for the answer, and tries of the model are few."""
RETRY_AFTER_MAX_S: Final = 120.0
"""A model that asks us to wait longer than this gets its next try all the same: a person waits, too."""
WAITING_CEILING_S: Final = 15.0
"""A model's server that is away is asked this often, by each conversation that waits for it."""
SERVER_RETRIES_S: Final = 60.0
"""An error that the server itself tells after so long comes after tries of its own: ours would be tries of tries."""

DELIVERY_TIMEOUT_S: Final = 3600.0
"""An answer that DingTalk does not take is tried again for so long (docs/failures.md)."""
DELIVERY_BACKOFF_CEILING_S: Final = 300.0
MAYBE_DELIVERED_DELAYS_S: Final = (60.0, 600.0)
"""Shortest waits after calls that may have been delivered, and so the number of further tries: each may show the answer
once more. A gateway in trouble needs a minute or ten; within seconds it would only take the same message again."""
FEW_TRIES_DELAYS_S: Final = (5.0, 60.0, 600.0)
"""Shortest waits after refusals that are worth few tries (`DingTalkError.tries_max`): whatever nobody knows may pass
within seconds or minutes, and each try of it is billed."""
LEAST_WAIT_SPREAD: Final = 0.25
"""A shortest wait is drawn from itself to this part more, so that many answers do not come back in step."""


class GiveUp(StrEnum):
    """Why there is no other try."""

    FINAL = "final"
    """By what the other side said: no try can help."""
    TRIES = "tries"
    """They are used up."""
    TIME = "time"
    """It is used up."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Another try after `delay` seconds. `waiting`: it is the server that is waited for, and no attempt counts."""

    delay: float
    waiting: bool = False


def is_doubtful(error: Exception) -> bool:
    """Whether a delivery that failed by `error` may have reached the person all the same."""
    # A fault of ours may come after the call: nobody knows how far it was.
    return error.maybe_delivered if isinstance(error, DingTalkError) else True


def plan_retry(
    error: Exception, tries: int, age: float, *, doubts: int = 0, rng: random.Random | None = None
) -> Retry | GiveUp:
    """Say what follows when an answer could not be delivered.

    `tries` counts the failed calls since the last part went out, this one included; `doubts` those of them that may
    have been delivered all the same. `age` is for how many seconds the answer has been there.
    """
    if isinstance(error, DingTalkError) and not error.retryable:
        return GiveUp.FINAL
    if age >= DELIVERY_TIMEOUT_S:
        return GiveUp.TIME
    asked = (error.retry_after if isinstance(error, DingTalkError) else None) or 0.0
    if is_doubtful(error):
        if doubts > len(MAYBE_DELIVERED_DELAYS_S):
            return GiveUp.TRIES
        least = MAYBE_DELIVERED_DELAYS_S[max(doubts, 1) - 1]
        return Retry(max(least * (rng or random).uniform(1, 1 + LEAST_WAIT_SPREAD), asked))
    if isinstance(error, DingTalkError) and error.tries_max is not None:
        if tries >= error.tries_max:
            return GiveUp.TRIES
        least = FEW_TRIES_DELAYS_S[min(max(tries, 1), len(FEW_TRIES_DELAYS_S)) - 1]
        return Retry(max(least * (rng or random).uniform(1, 1 + LEAST_WAIT_SPREAD), asked))
    delay = full_jitter(tries, base=BACKOFF_BASE_S, ceiling=DELIVERY_BACKOFF_CEILING_S, rng=rng)
    # The last try comes when the hour ends, not minutes before: a long trouble may just be over.
    return Retry(max(min(delay, DELIVERY_TIMEOUT_S - age), asked))


@dataclass(frozen=True, slots=True)
class Limits:
    """How far the handler is tried: the settings `CLAW_MAX_ATTEMPTS`, `CLAW_TURN_TIMEOUT`, `CLAW_MODEL_PATIENCE`."""

    max_attempts: int
    turn_timeout: float
    """Seconds of work over all tries."""
    patience: float
    """Seconds for which a server that takes no work is waited for; 0: it is tried like any other error."""


@dataclass(frozen=True, slots=True)
class Effort:
    """What a message has cost so far, the failed try included."""

    attempt: int
    """Number of the failed try."""
    took: float
    """Seconds of the failed try."""
    worked: float
    """Seconds of all tries."""
    waited: float
    """Seconds since the server was first found to take no work; 0: it was not, before this try."""


def plan_next_try(
    error: Exception, effort: Effort, limits: Limits, *, rng: random.Random | None = None
) -> Retry | GiveUp:
    """Say what follows when a handler failed.

    An error that is not ours is a fault of the program, which may be one of the moment: it is tried again, too.
    """
    asked = min((error.retry_after if isinstance(error, ClawError) else None) or 0.0, RETRY_AFTER_MAX_S)
    if isinstance(error, ModelError) and error.waits and limits.patience > 0:
        left = limits.patience - effort.waited
        if left <= 0:
            return GiveUp.TIME
        # Grows with the time waited: a server that only restarts is asked early, one that is away is not asked often.
        ceiling = min(max(effort.waited, BACKOFF_BASE_S), WAITING_CEILING_S)
        delay = full_jitter(1, base=ceiling, ceiling=ceiling, rng=rng)
        # The last try comes when the patience ends, not before it.
        return Retry(min(max(delay, asked), left), waiting=True)
    if isinstance(error, ClawError) and not error.retryable:
        return GiveUp.FINAL
    if _comes_after_retries(error) and effort.took >= SERVER_RETRIES_S:
        return GiveUp.FINAL
    if effort.worked >= limits.turn_timeout:
        return GiveUp.TIME
    if effort.attempt >= limits.max_attempts:
        return GiveUp.TRIES
    delay = full_jitter(effort.attempt, base=BACKOFF_BASE_S, ceiling=HANDLER_BACKOFF_CEILING_S, rng=rng)
    return Retry(max(delay, asked))


def _comes_after_retries(error: Exception) -> bool:
    """Whether the server said what failed; a connection that broke, or never came, is no word of it."""
    return isinstance(error, ModelError) and (error.status is not None or bool(error.code))
