"""Alerts to the owner in DingTalk (CLAW_ALERTS): what an operator would want to hear of at once, with the remedy.

Order of events: whoever sees trouble calls `tell` with its kind. Each kind is told once an hour at most, for all
replicas together, as a row of the inbox like any other (alerts.py): it waits, survives a restart, and is tried for an
hour. What cannot be told now, since the connection or the store is away, is told when it is over.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from claw.clock import Clock
from claw.inbox.alerts import ALERT_INTERVAL_S, OncePer, make_alert
from claw.messages import Answer
from claw.observe import telemetry
from claw.secret import hash_id
from claw.store.ports import ConfigStore, Fleet, Inbox

RUNNING_PREFIX: Final = "running."
"""Items of processes that run: one that was left behind was not ended in order."""
LASTED_S: Final = 60.0
"""Seconds of trouble from which on it is told that there was some."""

log: Final = logging.getLogger(__name__)


class AlertKind(StrEnum):
    """What an owner is told of; undelivered answers and the budget have modules of their own."""

    MODEL_REFUSED = "model_refused"
    REJECTED = "credentials_rejected"
    UNCLEAN_STOP = "unclean_stop"
    STORE = "store_trouble"


class AlertWording(Protocol):
    """What is said of it, in the operator's language."""

    def operator_alert(self, kind: str, cause: str, seconds: float) -> Answer:
        """Tell of trouble, its cause, and how long it lasted (0: not known)."""
        ...


@dataclass(frozen=True)
class OperatorAlerts:
    """Puts alerts into the inbox; `find_owners` returns the owners' staff ids, none where alerts are off."""

    inbox: Inbox
    once_per: OncePer
    find_owners: Callable[[], Awaitable[Collection[str]]]
    wording: AlertWording
    robot_code: str
    clock: Clock

    async def tell(self, kind: AlertKind, cause: str, seconds: float = 0.0) -> None:
        """Tell every owner, unless that was told within the hour. Raises nothing but cancellation."""
        try:
            owners = await self.find_owners()
            # Owners first: without one nothing counts as told, and whoever becomes the owner hears of the next time.
            if not owners or not await self.once_per(f"alert:{kind.value}", ALERT_INTERVAL_S):
                return
            now = self.clock.wall()
            answer = self.wording.operator_alert(kind.value, cause, seconds)
            for owner in sorted(owners):
                name = f"alert:{kind.value}:{hash_id(owner)}:{int(now)}"
                await self.inbox.put(make_alert(self.robot_code, owner, name, answer, now))
        except Exception as error:  # noqa: BLE001 - whoever saw the trouble has work of its own to do
            extra = {"kind": kind.value, "cause": str(error) or type(error).__name__}
            log.warning("nobody told of trouble", extra=extra)


class Trouble:
    """A state that comes and goes, told at its end if it lasted."""

    def __init__(self, kind: AlertKind, alerts: OperatorAlerts, clock: Clock, lasted_s: float = LASTED_S) -> None:
        self._kind = kind
        self._alerts = alerts
        self._clock = clock
        self._lasted_s = lasted_s
        self._since: float | None = None
        self._cause = ""

    async def note(self, cause: str) -> None:
        """Note how it is now; an empty cause: it is well."""
        now = self._clock.monotonic()
        if cause:
            self._since = now if self._since is None else self._since
            self._cause = cause
        elif self._since is not None:
            # Taken before anybody is told, which waits for the store: another note meanwhile tells nothing twice.
            lasted, self._since = now - self._since, None
            if lasted >= self._lasted_s:
                await self._alerts.tell(self._kind, self._cause, lasted)


class RunMarks:
    """Marks of running processes in the store: who starts finds whether another one ended without a word."""

    def __init__(self, config: ConfigStore, fleet: Fleet, replica: str, clock: Clock) -> None:
        self._config = config
        self._fleet = fleet
        self._own = f"{RUNNING_PREFIX}{replica}"
        self._clock = clock

    async def begin(self) -> bool:
        """Mark this process as running; False where one of its name left its mark behind. Raises StoreError."""
        # In a container that is restarted the name stays the same.
        # By more than the time, which may be the same after a clock was set back.
        mark = f"{self._clock.wall()} {secrets.token_hex(4)}"
        stands = await self._config.set_if_absent(self._own, mark)
        if stands != mark:
            await self._config.set(self._own, mark)
        # Also where it is none: a count that is not there yet cannot be seen to grow.
        telemetry.unclean_stops.add(int(stands != mark))
        return stands == mark

    async def end(self) -> None:
        """Take the mark away: this process ends in order. Raises StoreError."""
        await self._config.delete(self._own)

    async def find_left(self) -> list[str]:
        """Return the marks of processes that live no more, and take them away. Raises StoreError."""
        living = {f"{RUNNING_PREFIX}{each.id}" for each in await self._fleet.replicas()} | {self._own}
        # A replica that is cut off from the store looks like a dead one: its mark goes, and comes back with its next
        # start.
        left = sorted(set(await self._config.items(RUNNING_PREFIX)) - living)
        if left:
            await self._config.delete(*left)
            telemetry.unclean_stops.add(len(left))
        return [each.removeprefix(RUNNING_PREFIX) for each in left]
