"""What the next answer may cost: the settings, the month's budget, and what DingTalk itself refuses."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import pytest

from claw.config.answers import ReplySettings
from claw.dingtalk.budget import MonthlyBudget, Quotas
from claw.dingtalk.quota import Api
from claw.errors import DingTalkError, DingTalkReason, StoreError
from claw.policy import ReactionMode, ReplyMode
from claw.reply.spending import REFUSED_S, Spending
from tests.clock import FakeClock

STANDARD = Quotas(5_000, 3_000)
EVERY_MODE = pytest.mark.parametrize("mode", ReplyMode)
RICH: Mapping[str, int] = {}
POOR: Mapping[str, int] = {Api.CARD_STREAM: 4_900}


def used_up(api: Api, reason: DingTalkReason = DingTalkReason.QUOTA_EXHAUSTED) -> DingTalkError:
    return DingTalkError(api, "used up", reason=reason)


class Kit:
    """What answers may cost, by counts that a test sets."""

    def __init__(
        self, calls: Mapping[str, int] | StoreError, quotas: Quotas = STANDARD, **settings: ReplyMode | ReactionMode
    ) -> None:
        self.calls = calls
        self.clock = FakeClock()
        chosen = replace(ReplySettings(), **settings)  # type: ignore[arg-type]
        self.spending = Spending(chosen, MonthlyBudget(quotas, self._read, self.clock), self.clock)

    async def _read(self, _: str) -> Mapping[str, int]:
        if isinstance(self.calls, StoreError):
            raise self.calls
        return self.calls


@pytest.mark.parametrize(("calls", "auto"), [(RICH, True), (POOR, False)], ids=["rich", "poor"])
@EVERY_MODE
async def test_the_mode_and_the_month(mode: ReplyMode, calls: Mapping[str, int], auto: bool) -> None:
    """`card` always, `markdown` never, `auto` while the month lasts; a poor month has no steps in any."""
    allowance = await Kit(calls, mode=mode).spending.choose()
    assert allowance.card == {ReplyMode.MARKDOWN: False, ReplyMode.CARD: True, ReplyMode.AUTO: auto}[mode]
    assert (allowance.steps > 0) == (calls is RICH)
    assert allowance.intervals_s


@pytest.mark.parametrize("reaction", ReactionMode)
@EVERY_MODE
async def test_reactions(reaction: ReactionMode, mode: ReplyMode) -> None:
    """`on` whatever the month, `off` never, `auto` while it lasts."""
    for calls in (RICH, POOR):
        allowance = await Kit(calls, mode=mode, reaction=reaction).spending.choose()
        wanted = {ReactionMode.ON: True, ReactionMode.OFF: False, ReactionMode.AUTO: calls is RICH}[reaction]
        assert allowance.reaction == wanted


async def test_plain_answers_have_reactions_for_longer() -> None:
    """In markdown mode nothing is set aside for cards."""
    calls: dict[str, int] = {Api.WEBHOOK: 300, Api.CARD_STREAM: 3_200}
    assert not (await Kit(calls, mode=ReplyMode.AUTO).spending.choose()).reaction
    assert (await Kit(calls, mode=ReplyMode.MARKDOWN).spending.choose()).reaction


@EVERY_MODE
async def test_without_a_limit_there_is_no_plan(mode: ReplyMode) -> None:
    """0 calls a month means unlimited: all that the mode has."""
    allowance = await Kit({Api.CARD_STREAM: 10**7}, Quotas(0, 0), mode=mode).spending.choose()
    assert allowance.card == (mode is not ReplyMode.MARKDOWN)
    assert allowance.steps > 100
    assert allowance.reaction
    assert not allowance.by_openapi


@pytest.mark.parametrize("reaction", ReactionMode)
@EVERY_MODE
async def test_a_store_that_is_away_holds_up_no_answer(mode: ReplyMode, reaction: ReactionMode) -> None:
    """What is wanted always is done, and as little of it as there can be; what depends on the budget is not."""
    kit = Kit(StoreError("away"), mode=mode, reaction=reaction)
    allowance = await kit.spending.choose()
    assert allowance.card == (mode is ReplyMode.CARD)
    assert allowance.steps == 1
    assert allowance.reaction == (reaction is ReactionMode.ON)
    kit.spending.note_refusal(used_up(Api.CARD_CREATE))
    allowance = await kit.spending.choose()
    assert not allowance.card
    assert not allowance.reaction


async def test_counts_that_were_read_hold_while_the_store_is_away() -> None:
    """A minute without a store is no reason to show less."""
    kit = Kit(RICH, mode=ReplyMode.AUTO)
    assert (await kit.spending.choose()).card
    kit.calls = StoreError("away")
    await kit.clock.advance(120)
    assert (await kit.spending.choose()).card


@pytest.mark.parametrize(
    "api", [Api.CARD_CREATE, Api.CARD_STREAM, Api.CARD_UPDATE, Api.REACTION, Api.DIRECT, Api.UPLOAD]
)
async def test_an_openapi_that_is_used_up(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever call met it: for an hour no card, no reaction, no upload, and messages by webhooks; told once."""
    caplog.set_level(logging.ERROR)
    kit = Kit(RICH, mode=ReplyMode.CARD, reaction=ReactionMode.ON)
    for _ in range(2):
        kit.spending.note_refusal(used_up(api))
    kit.spending.note_refusal(used_up(Api.WEBHOOK))
    allowance = await kit.spending.choose()
    assert not allowance.card
    assert not allowance.reaction
    assert not allowance.by_openapi, "with both gone the one that costs less is tried"
    assert not await kit.spending.may_upload()
    assert [record.__dict__["quota"] for record in caplog.records] == ["openapi", "webhook"]
    await kit.clock.advance(REFUSED_S)
    assert (await kit.spending.choose()).card
    assert await kit.spending.may_upload()


async def test_webhooks_that_are_used_up() -> None:
    """Plain answers take the other way for an hour; cards go on."""
    kit = Kit(RICH, mode=ReplyMode.AUTO)
    kit.spending.note_refusal(used_up(Api.WEBHOOK))
    allowance = await kit.spending.choose()
    assert allowance.by_openapi
    assert allowance.card
    await kit.clock.advance(REFUSED_S)
    assert not (await kit.spending.choose()).by_openapi


async def test_other_refusals_say_nothing_of_quotas() -> None:
    """Too many calls in a second, a missing permission: no matter of the month."""
    kit = Kit(RICH, mode=ReplyMode.CARD)
    for reason in DingTalkReason:
        if reason is not DingTalkReason.QUOTA_EXHAUSTED:
            kit.spending.note_refusal(used_up(Api.CARD_CREATE, reason))
            kit.spending.note_refusal(used_up(Api.WEBHOOK, reason))
    allowance = await kit.spending.choose()
    assert allowance.card
    assert not allowance.by_openapi
