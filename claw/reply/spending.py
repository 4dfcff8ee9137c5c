"""What the next answer may cost: the settings, as far as the month's budget goes along.

Order of events: a draft asks once, when the model is asked. What DingTalk itself refuses since a quota is used up
counts more than our own sums: other programs of the organisation use it as well, and an administrator may have capped
the webhooks of one robot (docs/protocol.md section 10a). It is believed for REFUSED_S.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from claw.clock import Clock
from claw.config.answers import ReplySettings
from claw.dingtalk.budget import STEPS_S, MonthlyBudget, Richness, plan, plan_reactions
from claw.dingtalk.quota import Api
from claw.errors import DingTalkError, DingTalkReason, StoreError
from claw.policy import ReactionMode, ReplyMode

REFUSED_S: Final = 3600.0
"""Seconds for which a quota that DingTalk called used up is not tried, where there is another way."""

log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one answer may cost."""

    card: bool
    steps: int
    """Steps in between that its card may have."""
    intervals_s: tuple[float, ...]
    """Seconds between them, the last again and again."""
    reaction: bool
    by_openapi: bool
    """Its messages go by the OpenAPI, for the webhooks' quota would not last."""


class Spending:
    """Decides what answers may cost."""

    def __init__(
        self,
        settings: ReplySettings,
        budget: MonthlyBudget,
        clock: Clock,
        mode_of: Callable[[str], ReplyMode | None] = lambda _chat: None,
    ) -> None:
        """`mode_of` gives a chat's own mode, by the conversation's id."""
        self._mode_of = mode_of
        self._settings = settings
        self._budget = budget
        self._clock = clock
        self._refused_until = {Api.WEBHOOK: float("-inf"), Api.CARD_CREATE: float("-inf")}
        """Until when the webhooks' quota and the OpenAPI's are taken for used up, by the monotonic clock."""

    async def choose(self, chat_id: str = "") -> Allowance:
        """Decide for the next answer, in a chat. Raises nothing: a store that is away must hold up no answer."""
        mode = self._mode_of(chat_id) or self._settings.mode
        openapi_gone = self._is_refused(Api.CARD_CREATE)
        try:
            month = await self._budget.refresh()
        except StoreError:
            # Nobody knows what is left. What the operator wants always is still wanted, and as little of it as there
            # can be; `auto` means within the budget, and there is none to be seen.
            return Allowance(
                card=mode is ReplyMode.CARD and not openapi_gone,
                steps=1,
                intervals_s=STEPS_S,
                reaction=not openapi_gone and self._wants_reaction(affordable=False),
                by_openapi=False,
            )
        chosen = plan(self._budget.quotas, month)
        without_cards = mode is ReplyMode.MARKDOWN
        # Without cards there is more left for reactions than a plan with cards in it says.
        reaction = plan_reactions(self._budget.quotas, month) if without_cards else chosen.reactions
        # `card` is the operator's word and goes beyond the budget, until DingTalk itself refuses.
        in_budget = mode is ReplyMode.CARD or chosen.richness >= Richness.CARD
        return Allowance(
            card=not without_cards and in_budget and not openapi_gone,
            steps=max(0, chosen.steps),
            intervals_s=chosen.intervals_s,
            reaction=not openapi_gone and self._wants_reaction(affordable=reaction),
            # Where both quotas are gone the webhook is tried: its own word changes the way, message by message.
            by_openapi=not openapi_gone and (chosen.by_openapi or self._is_refused(Api.WEBHOOK)),
        )

    async def may_upload(self) -> bool:
        """Whether a picture or file of an answer may be uploaded. Raises nothing."""
        # Nothing of the plan: what an agent hands over is the answer itself, and costs one call.
        return not self._is_refused(Api.CARD_CREATE)

    def note_refusal(self, error: DingTalkError) -> None:
        """Remember that DingTalk called a quota used up."""
        if error.reason is not DingTalkReason.QUOTA_EXHAUSTED:
            return
        # Two quotas, each with many calls: what one call of the OpenAPI was refused for, all of them would be.
        quota = Api.WEBHOOK if error.api == Api.WEBHOOK else Api.CARD_CREATE
        # Loudly once an hour, not for each answer of a day.
        if not self._is_refused(quota):
            log.error(
                "DingTalk says that a quota is used up",
                extra={"quota": "webhook" if quota is Api.WEBHOOK else "openapi", "cause": error.detail},
            )
        # By the clock and not until the month's end: an add-on pack, or a lifted cap, is seen within the hour.
        self._refused_until[quota] = self._clock.monotonic() + REFUSED_S

    async def report(self) -> dict[str, object]:
        """Return the month as JSON, for `/status`, with the quotas that DingTalk itself calls used up."""
        quotas = {"webhook": Api.WEBHOOK, "openapi": Api.CARD_CREATE}
        refused = [name for name, quota in quotas.items() if self._is_refused(quota)]
        return {**await self._budget.report(), "refused": refused}

    def _wants_reaction(self, *, affordable: bool) -> bool:
        wish = self._settings.reaction
        return wish is ReactionMode.ON or (wish is ReactionMode.AUTO and affordable)

    def _is_refused(self, quota: Api) -> bool:
        return self._clock.monotonic() < self._refused_until[quota]
