"""Drafts for tests: they remember what they were told."""

from __future__ import annotations

from claw.draft import Activity, Persist, Suspension
from claw.messages import Answer, Inbound
from claw.store.values import Lease


class RecordingDraft:
    """Remembers updates and activities, the answers that it delivered whole, and why it was suspended."""

    def __init__(self, lease: Lease) -> None:
        self.inbound = lease.inbound
        self.joined: list[Inbound] = []
        self.updates: list[str] = []
        self.activities: list[Activity] = []
        self.finished: list[Answer] = []
        self.suspended: list[Suspension] = []

    def join(self, inbound: Inbound) -> None:
        self.joined.append(inbound)

    def update(self, text: str) -> None:
        self.updates.append(text)

    def activity(self, activity: Activity) -> None:
        self.activities.append(activity)

    async def finish(self, answer: Answer, persist: Persist) -> tuple[str, ...]:
        self.finished.append(answer)
        return ()

    async def suspend(self, why: Suspension) -> None:
        if not self.finished and Suspension.GIVEN_UP not in self.suspended:
            self.suspended.append(why)
