"""What all drafts of a process share, and the step that comes before anything of an answer is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from claw.clock import Clock
from claw.dingtalk.pace import DueQueue
from claw.draft import Persist
from claw.language import Language
from claw.messages import Answer, Inbound
from claw.reply.card import CardDesk
from claw.reply.media import MediaSettler
from claw.reply.sender import AnswerSender
from claw.reply.signs import Signs
from claw.reply.spending import Spending

RecallLanguage = Callable[[Inbound], Awaitable[Language]]
OncePer = Callable[[str, float], Awaitable[bool]]


@dataclass(frozen=True)
class Delivering:
    """What all drafts of a process share."""

    sender: AnswerSender
    settler: MediaSettler
    signs: Signs
    spending: Spending
    desk: CardDesk
    """Also where answers are messages: a card may have been made before the mode was changed."""
    due: DueQueue
    """Of cards that are to be made."""
    recall_language: RecallLanguage
    once_per: OncePer
    patience_s: float
    clock: Clock


async def settle(settler: MediaSettler, inbound: Inbound, answer: Answer, persist: Persist) -> Answer:
    """Bring the pictures and files of an answer to DingTalk, once. Raises what `persist` raises."""
    settled = await settler.settle(inbound, answer)
    if settled is not answer:
        # Before anything is sent: a crash from here on uploads nothing twice, and finds the same deliveries.
        await persist(settled)
    return settled


async def forget(_: Answer) -> None:
    """Keep nothing: what breaks off half-way is not sent again."""
