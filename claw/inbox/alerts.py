"""Telling whom it concerns that an answer was given up.

Order of events: a turn gives an answer up and calls `UndeliveredAlerts`. The owner gets an alert, once an hour for
each reason, and the person a word in their direct chat, once an hour. Both are rows of the inbox like any other: they
wait, survive a restart and are tried for an hour, and go by the OpenAPI, which needs no session webhook. What cannot be
told is logged: an alert about an alert would go on for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from typing import Final, Protocol

from claw.clock import Clock
from claw.errors import DingTalkError, DingTalkReason
from claw.inbox.routing import queue_of_own
from claw.messages import Answer, ChatKind, Conversation, Inbound, Outcome, Sender
from claw.secret import hash_id
from claw.store.ports import Inbox
from claw.store.values import Lease, Row, RowKind

log: Final = logging.getLogger(__name__)

ALERT_INTERVAL_S: Final = 3600.0
"""Seconds between two alerts of a kind to an owner, and two notices to a person: each is a billed call."""

OncePer = Callable[[str, float], Awaitable[bool]]
"""Says whether a notice of this name is due after so many seconds; if so, it counts as given (QuotaStore.once_per)."""


class Wording(Protocol):
    """What is said, each in the language of whom it is for."""

    def undelivered_alert(self, inbound: Inbound, error: Exception) -> Answer:
        """Tell an owner that the answer to `inbound` was given up, and why."""
        ...

    async def undelivered_notice(self, inbound: Inbound) -> Answer:
        """Tell the person that the answer to `inbound` did not get through."""
        ...


@dataclass(frozen=True)
class UndeliveredAlerts:
    """Puts alerts into the inbox; `find_owners` returns the owners' staff ids. Handed to the worker as a callable."""

    inbox: Inbox
    once_per: OncePer
    find_owners: Callable[[], Awaitable[Collection[str]]]
    wording: Wording
    clock: Clock

    async def __call__(self, lease: Lease, answer: Answer, error: Exception) -> None:
        """Tell of an answer that was given up. Raises nothing but cancellation."""
        # What could not be told to somebody who is denied is no loss, and an alert must not lead to another one.
        if lease.kind is RowKind.ALERT or answer.outcome is Outcome.DENIED:
            return
        try:
            owners = await self.find_owners()
            await self._alert_owners(lease, error, owners)
            if lease.kind is RowKind.MESSAGE and lease.inbound.sender.staff_id not in owners:
                await self._tell_person(lease, error)
        except Exception as failure:  # noqa: BLE001 - the message must be buried all the same
            extra = {"cause": str(failure) or type(failure).__name__, "seq": lease.seq}
            log.warning("nobody told that an answer was given up", extra=extra)

    async def _alert_owners(self, lease: Lease, error: Exception, owners: Collection[str]) -> None:
        reason = error.reason.value if isinstance(error, DingTalkError) else type(error).__name__
        if owners and await self.once_per(f"alert:undelivered:{reason}", ALERT_INTERVAL_S):
            for owner in sorted(owners):
                await self._put(lease, owner, self.wording.undelivered_alert(lease.inbound, error))

    async def _tell_person(self, lease: Lease, error: Exception) -> None:
        """Write to the person directly, unless it is known that this cannot be."""
        staff_id = lease.inbound.sender.staff_id
        unreachable = isinstance(error, DingTalkError) and error.reason is DingTalkReason.USER_INVALID
        if not staff_id or unreachable:
            return
        if await self.once_per(f"undelivered:{lease.inbound.robot_code}:{staff_id}", ALERT_INTERVAL_S):
            await self._put(lease, staff_id, await self.wording.undelivered_notice(lease.inbound))

    async def _put(self, lease: Lease, staff_id: str, answer: Answer) -> None:
        """Address `answer` to somebody's direct chat. Raises StoreError."""
        about = lease.inbound
        # Named after its message: another process that gives up the same one puts a duplicate.
        name = f"undelivered:{hash_id(staff_id)}:{about.msg_id}"
        row = make_alert(about.robot_code, staff_id, name, answer, self.clock.wall())
        await self.inbox.put(replace(row, trace=lease.trace))


def make_alert(robot_code: str, staff_id: str, name: str, answer: Answer, now: float) -> Row:
    """Make the row of an alert to somebody's direct chat. `name` tells repeats; `now`: seconds since the epoch."""
    inbound = Inbound(
        robot_code=robot_code,
        msg_id=name,
        # DingTalk did not tell the id of the direct chat, and to write to a person it takes the staff id alone.
        conversation=Conversation(staff_id, ChatKind.DIRECT),
        sender=Sender(staff_id, staff_id),
        msgtype="text",
        text="",
        created_at=now,
    )
    return Row(inbound, queue_of_own(RowKind.ALERT, inbound), {}, RowKind.ALERT, answer)
