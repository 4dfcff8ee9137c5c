"""Drafts for tests: they remember what they were told."""

from __future__ import annotations

from claw.draft import Persist
from claw.messages import Answer, Inbound


class RecordingDraft:
    """Remembers updates and activities, and the answers that it delivered whole."""

    def __init__(self, inbound: Inbound) -> None:
        self.inbound = inbound
        self.updates: list[str] = []
        self.activities: list[str] = []
        self.finished: list[Answer] = []

    def update(self, text: str) -> None:
        self.updates.append(text)

    def activity(self, what: str) -> None:
        self.activities.append(what)

    async def finish(self, answer: Answer, persist: Persist) -> None:
        self.finished.append(answer)
