"""Drafts: what the person sees of an answer before its end, and how it gets out.

Pauses run on the fake clock. Real time passes only for the loopback's sockets and the store's thread, which `until`
waits for by its condition.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from claw.config.answers import ReplySettings
from claw.dingtalk import budget
from claw.dingtalk.budget import STEPS_S
from claw.dingtalk.cards import CardStatus
from claw.dingtalk.openapi import OpenApiClient
from claw.dingtalk.pace import PacedCall
from claw.dingtalk.webhook import WebhookClient
from claw.draft import Activity, ActivityKind, DeliveryStoppedError, Draft, Suspension
from claw.errors import DingTalkError, StoreError
from claw.language import Language
from claw.messages import Answer, CardText, ChatKind, Markdown, Outcome, SentFile
from claw.policy import ReactionMode, ReplyMode
from claw.reply import answer_draft as module
from claw.reply import texts
from claw.reply.card import make_card_id
from claw.reply.card_text import show_so_far
from claw.reply.delivering import Delivering
from claw.reply.outbound import MessageDraft, Outbound
from claw.store.sqlite.store import SqliteStore
from claw.store.values import KeptCard, Lease, RowKind
from tests.clock import FakeClock
from tests.dingtalk.conftest import (
    CREATE_PATH,
    DIRECT_PATH,
    REACT_PATH,
    RECALL_PATH,
    STREAM_PATH,
    UPDATE_PATH,
    WEBHOOK_PATH,
    FakeDingTalk,
    cut,
    inbound,
)
from tests.reply.test_card import BUSY, EXISTS, FORBIDDEN, NO_CARD, NO_TEMPLATE, TOO_LONG, UNHEARD_OF
from tests.reply.tools import lease_of, make_tools, open_store

CARDS = ReplySettings(mode=ReplyMode.CARD, monthly_api_calls=0, monthly_webhook_calls=0, card_max_chars=600)
"""Cards with a step every other second."""
MARKDOWN = ReplySettings(monthly_api_calls=0, monthly_webhook_calls=0, reaction=ReactionMode.OFF)
MONTH_GONE = (403, {"code": "Forbidden.AccessDenied.ApiCountLimitForOrg", "message": "no"})
NOT_SHOWN = (200, {"success": True, "result": {"deliverResults": [{"success": False, "errorMsg": "no"}]}})
LONG = "\n\n".join(f"Paragraph {number} of a long answer, which goes on for a while." for number in range(30))
TAKEN = f"take {texts.REACTION[Language.EN]}"
ASKED, PAUSED, STOPPED, BELOW = (each[Language.EN] for each in (texts.ASKED, texts.PAUSED, texts.STOPPED, texts.BELOW))


class Gate:
    """Holds calls of a path back until it is opened, then lets them succeed."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.waiting = self.waiting_max = 0

    async def __call__(self, _: web.Request) -> web.StreamResponse:
        self.waiting += 1
        self.waiting_max = max(self.waiting_max, self.waiting)
        await self.opened.wait()
        self.waiting -= 1
        return web.json_response({"success": True, "result": {}})


class Kit:
    """The reply room over the small DingTalk, and one message to answer."""

    def __init__(self, tools: Delivering, dingtalk: FakeDingTalk, store: SqliteStore, clock: FakeClock) -> None:
        self.tools = tools
        self.outbound = Outbound(tools)
        self.dingtalk = dingtalk
        self.store = store
        self.clock = clock
        self.lease = lease_of(inbound(webhook=dingtalk.webhook), clock)
        self.kept: list[Answer] = []
        self.is_elsewhere = False
        """Another process had the message before: it may have put a reaction, which is taken back at some moment."""

    def begin(self, lease: Lease | None = None) -> Draft:
        return self.outbound.begin(lease or self.lease)

    def begin_again(self, **changes: Any) -> Draft:
        """Begin another try of the message, as another process does."""
        self.is_elsewhere = True
        return self.begin(replace(self.lease, claims=2, **changes))

    async def persist(self, answer: Answer) -> None:
        self.kept.append(answer)

    async def say(self, draft: Draft, text: str, outcome: Outcome = Outcome.ANSWERED) -> tuple[str, ...]:
        return await draft.finish(Answer.of(text, outcome), self.persist)

    async def over_time(self, condition: Callable[[], object]) -> None:
        """Let the clock run until something is so."""
        async with asyncio.timeout(5):
            while not condition():
                await self.rest()
                if not condition():
                    await self.clock.advance(0.1)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for the sockets and the store, in real time."""
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.001)

    async def rest(self) -> None:
        """Let everything go as far as it does without the clock, also what must not happen."""
        for _ in range(6):
            # The store's thread does one job after the other: behind this one nothing waits that was wanted before it.
            await self.store.calls("2000-01")
            # The sockets are in this process, hence a few turns of the loop take any call there and back.
            await asyncio.sleep(0.001)
            await self.clock.settle()

    async def made(self, draft: Draft, text: str = "") -> None:
        """Let a card be made, with text or without."""
        if text:
            draft.update(text)
            await self.until(lambda: self.calls)
        else:
            draft.activity(Activity(ActivityKind.ASKED))
            await self.rest()
            await self.clock.advance(module.CARD_DUE_S)
            await self.until(lambda: self.calls)
        await self.rest()

    @property
    def calls(self) -> list[str]:
        """The calls that were made, each with what it shows."""
        return [each for each in self.all_calls if each != TAKEN or not self.is_elsewhere]

    @property
    def all_calls(self) -> list[str]:
        found = []
        for each in self.dingtalk.requests:
            body = each.json if each.path != "/v1.0/oauth2/accessToken" else {}
            if each.path == CREATE_PATH:
                found.append(f"create {body['cardData']['cardParamMap']['content']}")
            elif each.path == STREAM_PATH:
                found.append(f"{'last' if body['isFinalize'] else 'step'} {body['content']}")
            elif each.path == UPDATE_PATH:
                found.append(f"update {body['cardData']['cardParamMap']['content']}")
            elif each.path == WEBHOOK_PATH:
                found.append(f"webhook {body['markdown']['text']}")
            elif each.path == DIRECT_PATH:
                param = json.loads(body["msgParam"])
                found.append(f"direct {param.get('text') or param['fileName']}")
            elif each.path in {REACT_PATH, RECALL_PATH}:
                found.append(f"{'put' if each.path == REACT_PATH else 'take'} {body['emotionName']}")
        return found

    @property
    def statuses(self) -> list[str]:
        return [each.json["cardData"]["cardParamMap"]["flowStatus"] for each in self.dingtalk.to(CREATE_PATH)]

    def has_asked(self, count: int) -> bool:
        """Whether a card was asked for so often."""
        return len(self.dingtalk.to(CREATE_PATH)) == count

    async def find_kept(self) -> KeptCard | None:
        return await self.store.find_card(make_card_id(self.lease.inbound.key))

    async def is_ended(self) -> bool:
        card = await self.find_kept()
        return card is not None and card.ended


MakeKit = Callable[..., Any]


@pytest.fixture(autouse=True)
def _quick_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps every other second, so that tests see several of them."""
    monkeypatch.setattr(budget, "STEPS_S", (2.0,))


@pytest.fixture
async def make_kit(
    tmp_path: Path, dingtalk: FakeDingTalk, webhook: WebhookClient, openapi: OpenApiClient, clock: FakeClock
) -> AsyncIterator[MakeKit]:
    store = await open_store(tmp_path, clock)

    @asynccontextmanager
    async def make(settings: ReplySettings = CARDS) -> AsyncIterator[Kit]:
        """One process of claw; a second one after it finds the same store."""
        kit = Kit(make_tools(store, webhook, openapi, dingtalk, clock, settings=settings), dingtalk, store, clock)
        task = asyncio.create_task(kit.outbound.run())
        try:
            yield kit
        finally:
            await kit.outbound.close()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert not [each for each in asyncio.all_tasks() if each.get_name().startswith("claw.reply")]

    yield make
    await store.close()


@pytest.fixture
async def kit(make_kit: MakeKit) -> AsyncIterator[Kit]:
    async with make_kit() as kit:
        yield kit


# --- a card while the model speaks ---------------------------------------------------------------------------------


async def test_a_card_is_made_at_once_with_the_first_text(kit: Kit) -> None:
    """Nobody waits for a time when there is something to read."""
    draft = kit.begin()
    await kit.made(draft, "first words")
    assert kit.calls == ["create first words"]
    assert kit.statuses == [CardStatus.INPUTTING]
    await kit.say(draft, "first words, and all")
    assert kit.calls[1:] == ["last first words, and all", "update first words, and all"]
    assert await kit.is_ended()


async def test_without_text_a_card_is_made_when_it_is_due(kit: Kit) -> None:
    """After 1.2 s it shows that the agent works, in place of a reaction."""
    draft = kit.begin()
    draft.activity(Activity(ActivityKind.ASKED))
    await kit.rest()
    await kit.clock.advance(module.CARD_DUE_S - 0.01)
    await kit.rest()
    assert kit.calls == []
    await kit.clock.advance(0.01)
    await kit.until(lambda: kit.calls)
    assert kit.calls == [f"create {ASKED}"]
    assert kit.statuses == [CardStatus.PROCESSING]
    await kit.clock.advance(1.5)
    await kit.say(draft, "whole")
    assert not [each for each in kit.calls if each.startswith(("put", "take"))]


async def test_the_first_text_comes_at_once_and_the_next_after_a_pause(kit: Kit) -> None:
    """Between two steps there is a pause, and each brings all that came meanwhile; without news there is none."""
    draft = kit.begin()
    await kit.made(draft)
    draft.update("a")
    await kit.until(lambda: len(kit.calls) == 2)
    draft.update("a b")
    draft.update("a b c")
    await kit.clock.advance(1.9)
    await kit.rest()
    assert kit.calls[1:] == ["step a"]
    await kit.clock.advance(0.1)
    await kit.until(lambda: len(kit.calls) == 3)
    assert kit.calls[2] == "step a b c"
    await kit.rest()
    await kit.clock.advance(30)
    await kit.rest()
    assert len(kit.calls) == 3
    draft.update("a b c d")
    await kit.until(lambda: len(kit.calls) == 4)
    assert kit.calls[3] == "step a b c d"
    await kit.say(draft, "all")


async def test_what_the_agent_does_is_shown_after_a_pause(kit: Kit) -> None:
    """A tool's name takes the place of "working on it" until there is text."""
    draft = kit.begin()
    await kit.made(draft)
    draft.activity(Activity(ActivityKind.TOOL, "search"))
    await kit.rest()
    assert len(kit.calls) == 1
    await kit.clock.advance(2)
    await kit.until(lambda: len(kit.calls) == 2)
    assert kit.calls[1] == f"step {texts.TOOL[Language.EN].format(name='`search`')}"
    await kit.say(draft, "found")


async def test_the_text_that_comes_during_a_step_is_not_taken_for_shown(kit: Kit) -> None:
    """A step that says what the agent does is under way while the first text comes: it follows at once."""
    draft = kit.begin()
    await kit.made(draft)
    gate = Gate()
    kit.dingtalk.will(STREAM_PATH, gate)
    draft.activity(Activity(ActivityKind.THINKING))
    await kit.rest()
    await kit.clock.advance(2)
    await kit.until(lambda: gate.waiting)
    draft.update("first words")
    gate.opened.set()
    await kit.until(lambda: len(kit.calls) == 3)
    assert kit.calls[2] == "step first words"
    await kit.say(draft, "all")


async def test_one_step_is_under_way_at_a_time_and_a_slow_one_stretches_the_pause(kit: Kit) -> None:
    """Where DingTalk takes four seconds for a step, the next one waits for six."""
    draft = kit.begin()
    await kit.made(draft, "a")
    gate = Gate()
    kit.dingtalk.will(STREAM_PATH, gate)
    draft.update("a b")
    await kit.clock.advance(2)
    await kit.until(lambda: gate.waiting)
    draft.update("a b c")
    await kit.clock.advance(4)
    await kit.rest()
    assert len(kit.dingtalk.to(STREAM_PATH)) == gate.waiting_max == 1
    gate.opened.set()
    await kit.until(lambda: not gate.waiting)
    await kit.rest()
    await kit.clock.advance(5.9)
    await kit.rest()
    assert len(kit.dingtalk.to(STREAM_PATH)) == 1
    await kit.clock.advance(0.2)
    await kit.until(lambda: len(kit.dingtalk.to(STREAM_PATH)) == 2)
    await kit.say(draft, "all")


async def test_a_standard_month_has_few_steps(make_kit: MakeKit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first after 8 s, the next after another 30 s."""
    monkeypatch.setattr(budget, "STEPS_S", STEPS_S)
    settings = ReplySettings(mode=ReplyMode.CARD, monthly_api_calls=5000, monthly_webhook_calls=3000)
    async with make_kit(settings) as kit:
        draft = kit.begin()
        await kit.made(draft, "0")
        for second in range(1, 61):
            draft.update(str(second))
            await kit.clock.advance(1)
            await kit.rest()
        assert kit.calls[1:] == ["step 8", "step 38"]
        await kit.say(draft, "all")


async def test_a_long_answer_shows_its_head_while_it_grows(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the card's limit nothing changes any more: no step, and no work for each piece."""
    made: list[int] = []

    def show(*args: Any) -> str:
        made.append(1)
        return show_so_far(*args)

    monkeypatch.setattr(module, "show_so_far", show)
    draft = kit.begin()
    await kit.made(draft, LONG)
    await kit.clock.advance(3)
    for number in range(100):
        draft.update(LONG + "x" * number)
        await asyncio.sleep(0)
    await kit.rest()
    assert len(kit.calls) == 1
    assert len(made) <= 3
    await kit.say(draft, "all")


@pytest.mark.parametrize(("answer", "steps"), [(BUSY, 2), (FORBIDDEN, 1)], ids=["for now", "for good"])
async def test_a_step_that_fails_costs_nobody_an_answer(kit: Kit, answer: tuple[int, object], steps: int) -> None:
    """The next one makes up for it, if there can be one; the end is an end all the same."""
    draft = kit.begin()
    await kit.made(draft, "a")
    kit.dingtalk.will(STREAM_PATH, answer)
    for text in ("a b", "a b c"):
        draft.update(text)
        await kit.clock.advance(2)
        await kit.rest()
    assert len(kit.dingtalk.to(STREAM_PATH)) == steps
    await kit.say(draft, "all")
    assert kit.calls[-2:] == ["last all", "update all"]


# --- the end -------------------------------------------------------------------------------------------------------


async def test_the_end_waits_for_the_step_that_is_under_way(kit: Kit) -> None:
    """Two calls at once may change places, and half an answer would stay."""
    draft = kit.begin()
    await kit.made(draft, "a")
    gate = Gate()
    kit.dingtalk.will(STREAM_PATH, gate)
    draft.update("a b")
    await kit.clock.advance(2)
    await kit.until(lambda: gate.waiting)
    ending = asyncio.create_task(draft.finish(Answer.of("all", Outcome.ANSWERED), kit.persist))
    await kit.rest()
    assert kit.calls[1:] == ["step a b"]
    gate.opened.set()
    await ending
    assert kit.calls[1:] == ["step a b", "last all", "update all"]


async def test_the_end_waits_for_no_step_that_hangs(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time the last text goes out all the same."""
    monkeypatch.setattr(module, "CALL_UNDER_WAY_S", 0.02)
    draft = kit.begin()
    await kit.made(draft, "a")
    gate = Gate()
    kit.dingtalk.will(STREAM_PATH, gate)
    draft.update("a b")
    await kit.clock.advance(2)
    await kit.until(lambda: gate.waiting)
    await kit.say(draft, "all")
    assert kit.calls[-2:] == ["last all", "update all"]
    gate.opened.set()


async def test_the_end_does_not_wait_for_a_step_that_has_no_room(kit: Kit, openapi: OpenApiClient) -> None:
    """In a crowd all others go before a step: it is given up, for the last text makes up for it."""

    class Crowd:
        async def wait(self, api: str, *, step: bool = False) -> PacedCall:
            if step:
                await asyncio.Event().wait()
            return PacedCall(kit.clock, 0, 0)

        def is_busy(self, api: str) -> bool:
            return False

    draft = kit.begin()
    await kit.made(draft, "a")
    openapi._pace = Crowd()  # type: ignore[assignment]
    draft.update("a b")
    await kit.clock.advance(2)
    await kit.rest()
    async with asyncio.timeout(2):
        await draft.finish(Answer.of("all", Outcome.ANSWERED), kit.persist)
    assert kit.calls == ["create a", "last all", "update all"]


async def test_a_fast_answer_is_a_card_of_two_calls(kit: Kit) -> None:
    """Made whole and ended, also where nothing had been shown yet."""
    draft = kit.begin()
    draft.activity(Activity(ActivityKind.ASKED))
    receipts = await kit.say(draft, "here it is")
    assert kit.calls == ["create here it is", "last here it is"]
    assert kit.statuses == [CardStatus.FINISHED]
    assert receipts == ("carFake1",)
    assert kit.kept == [], "the ack that follows is the one write"


async def test_an_end_while_the_card_is_being_made(kit: Kit) -> None:
    """It is waited for, and no second one is made."""
    gate = Gate()
    kit.dingtalk.will(CREATE_PATH, gate)
    draft = kit.begin()
    draft.update("a")
    await kit.until(lambda: gate.waiting)
    ending = asyncio.create_task(draft.finish(Answer.of("all", Outcome.ANSWERED), kit.persist))
    await kit.rest()
    gate.opened.set()
    await ending
    assert kit.calls == ["create a", "last all", "update all"]


@pytest.mark.parametrize("outcome", [Outcome.COMMAND, Outcome.DENIED, Outcome.FAILED])
async def test_what_is_no_answer_of_the_models_is_a_message(kit: Kit, outcome: Outcome) -> None:
    """A command, a denial, a failure before anything was shown: one call."""
    await kit.say(kit.begin(), "words", outcome)
    assert kit.calls == ["webhook words"]


async def test_a_failure_after_a_card_was_made_is_told_in_it(kit: Kit) -> None:
    """It must not go on typing above the message."""
    draft = kit.begin()
    await kit.made(draft, "half of")
    await kit.say(draft, "sorry", Outcome.FAILED)
    assert kit.calls[1:] == ["last sorry", "update sorry"]


async def test_a_person_who_is_denied_in_silence(kit: Kit) -> None:
    """Nothing is made, sent or put."""
    await kit.say(kit.begin(), "", Outcome.DENIED)
    await kit.clock.advance(10)
    await kit.rest()
    assert kit.calls == []


async def test_who_has_no_staff_id_gets_messages(kit: Kit) -> None:
    """A card in a direct chat is addressed by it: the call would be refused, and billed."""
    lease = lease_of(inbound(webhook=kit.dingtalk.webhook, staff_id=""), kit.clock)
    draft = kit.begin(lease)
    draft.update("a")
    await kit.rest()
    await kit.say(draft, "all")
    group = replace(lease.inbound, conversation=replace(lease.inbound.conversation, kind=ChatKind.GROUP), msg_id="m2")
    draft = kit.begin(replace(lease, inbound=group))
    draft.activity(Activity(ActivityKind.ASKED))
    await kit.say(draft, "all")
    assert kit.calls == ["webhook all", "create all", "last all"]


async def test_files_follow_the_card(kit: Kit) -> None:
    """A card holds none; one that was open for files alone says where they are."""
    draft = kit.begin()
    await kit.made(draft, "a")
    file = SentFile("@lADfake", "a.pdf", "pdf")
    await draft.finish(Answer((file,), Outcome.ANSWERED), kit.persist)
    assert kit.calls[1:] == [f"last {BELOW}", f"update {BELOW}", "direct a.pdf"]
    assert kit.kept[-1].sent == 1
    draft = kit.begin()
    draft.activity(Activity(ActivityKind.ASKED))
    await draft.finish(Answer((file,), Outcome.ANSWERED), kit.persist)
    assert len(kit.dingtalk.to(CREATE_PATH)) == 1, "none is begun for them"


async def test_what_comes_after_the_end_begins_nothing(kit: Kit) -> None:
    """A handler that is being cancelled may still say something."""
    draft = kit.begin()
    await kit.made(draft, "a")
    await kit.say(draft, "all")
    draft.update("more")
    draft.activity(Activity(ActivityKind.THINKING))
    await kit.clock.advance(60)
    await kit.rest()
    assert len(kit.calls) == 3


# --- more than a card holds ----------------------------------------------------------------------------------------


def numbers(text: str) -> list[int]:
    return [number for number in range(30) if f"Paragraph {number} " in text]


async def test_what_a_card_cannot_hold_follows_as_messages(kit: Kit) -> None:
    """The progress is kept between the two: a card that is out counts as one delivery."""
    draft = kit.begin()
    draft.activity(Activity(ActivityKind.ASKED))
    await kit.say(draft, LONG)
    create, last, message = kit.calls
    assert create.endswith(texts.CONTINUED[Language.EN])
    assert last.removeprefix("last ") == create.removeprefix("create ")
    assert numbers(create) + numbers(message) == list(range(30))
    (kept,) = kit.kept
    assert kept.sent == 1
    assert isinstance(kept.content[0], CardText)
    assert isinstance(kept.content[1], Markdown)
    assert kept.receipts == ("carFake1",)


async def test_a_crash_between_the_card_and_its_rest(make_kit: MakeKit) -> None:
    """After the progress was kept the rest alone is sent; before, the card is ended once more with the same text."""

    async def crash(_: Answer) -> None:
        raise RuntimeError("the process dies here")

    async with make_kit() as kit:
        draft = kit.begin()
        draft.activity(Activity(ActivityKind.ASKED))
        with pytest.raises(RuntimeError):
            await draft.finish(Answer.of(LONG, Outcome.ANSWERED), crash)
        shown = kit.calls[-1]
    async with make_kit() as kit:
        answer = Answer.of(LONG, Outcome.ANSWERED)
        await kit.begin_again(answer=answer).finish(answer, kit.persist)
        assert kit.calls[2] == shown
        assert kit.calls[3] == shown.replace("last", "update")
        rest = kit.calls[4]
        (kept,) = kit.kept
    async with make_kit() as kit:
        await kit.begin_again(answer=kept).finish(kept, kit.persist)
        assert kit.calls[5:] == [rest]


async def test_a_stop_between_the_card_and_its_rest(kit: Kit) -> None:
    """The rest is not sent, and what people have seen is told on the way up."""

    async def stop(answer: Answer) -> None:
        raise DeliveryStoppedError

    draft = kit.begin()
    draft.activity(Activity(ActivityKind.ASKED))
    with pytest.raises(DeliveryStoppedError) as stopped:
        await draft.finish(Answer.of(LONG, Outcome.ANSWERED), stop)
    assert [each.split()[0] for each in kit.calls] == ["create", "last"]
    assert numbers(stopped.value.shown) == numbers(kit.calls[0])
    await draft.suspend(Suspension.RETRY)
    assert len(kit.calls) == 2


# --- where a card cannot be had ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "tries", "later"),
    [
        (NO_TEMPLATE, 1, 0),
        (FORBIDDEN, 1, 0),
        (MONTH_GONE, 1, 0),
        (NOT_SHOWN, 1, 1),
        (BUSY, 2, 2),
        (UNHEARD_OF, 2, 2),
        (TOO_LONG, 1, 1),
    ],
    ids=["template", "permission", "month", "not shown", "busy", "unknown", "too long"],
)
async def test_without_a_card_the_answer_is_a_message(
    kit: Kit, answer: tuple[int, object], tries: int, later: int, caplog: pytest.LogCaptureFixture
) -> None:
    """In the same turn, whatever keeps it from being made; the operator is told once, and what is broken left alone."""
    caplog.set_level(logging.ERROR)
    for number, count in enumerate((tries, later)):
        kit.dingtalk.will(CREATE_PATH, *[answer] * count)
        draft = kit.begin(replace(kit.lease, inbound=replace(kit.lease.inbound, msg_id=f"m{number}")))
        asked = len(kit.dingtalk.to(CREATE_PATH)) + count
        draft.update("a")
        await kit.over_time(partial(kit.has_asked, asked))
        await kit.rest()
        await kit.say(draft, "all")
    assert [each.split()[0] for each in kit.calls if each.split()[0] not in {"put", "take"}] == [
        *["create"] * tries,
        "webhook",
        *["create"] * later,
        "webhook",
    ]
    assert caplog.messages.count("no card: answers go out as messages") == 1


async def test_a_card_that_does_not_come_leaves_the_reaction(kit: Kit) -> None:
    """It was held for the card; it is put as soon as that is given up, and taken back at the end."""
    kit.dingtalk.will(CREATE_PATH, NO_TEMPLATE)
    draft = kit.begin()
    await kit.made(draft)
    assert len(kit.calls) == 2
    assert kit.calls[1] == f"put {texts.REACTION[Language.EN]}"
    await kit.say(draft, "all")
    await kit.until(lambda: len(kit.calls) == 4)
    assert sorted(kit.calls[2:]) == [f"take {texts.REACTION[Language.EN]}", "webhook all"]


async def test_nobody_waits_for_minutes_for_a_card(kit: Kit) -> None:
    """Where DingTalk, or a proxy, asks for a long wait, nothing would be visible until then."""

    async def wait_long(_: web.Request) -> web.StreamResponse:
        return web.json_response({}, status=429, headers={"Retry-After": "120"})

    kit.dingtalk.will(CREATE_PATH, wait_long)
    draft = kit.begin()
    await kit.made(draft)
    assert kit.calls[-1].startswith("put")
    await kit.say(draft, "all")
    assert kit.calls.count("webhook all") == 1


async def test_a_card_whose_making_is_not_known(kit: Kit) -> None:
    """Two lost answers: messages, and the upkeep finds a card that may be there."""
    kit.dingtalk.will(CREATE_PATH, cut, cut)
    draft = kit.begin()
    draft.update("a")
    await kit.over_time(partial(kit.has_asked, 2))
    await kit.rest()
    await kit.say(draft, "all")
    assert "webhook all" in kit.calls
    kept = await kit.find_kept()
    assert kept is not None
    assert not kept.ended


async def test_a_card_that_was_there_after_all(kit: Kit) -> None:
    """The answer was lost and the next try finds it made: it is gone on with, offline clients included."""
    kit.dingtalk.will(CREATE_PATH, cut, EXISTS)
    draft = kit.begin()
    draft.update("a")
    await kit.over_time(partial(kit.has_asked, 2))
    await kit.rest()
    await kit.say(draft, "a")
    assert kit.calls == ["create a", "create a", "last a", "update a"]


@pytest.mark.parametrize(
    ("answers", "at_end"),
    [((TOO_LONG,), [f"last {BELOW}", f"update {BELOW}"]), ((FORBIDDEN,) * 2, []), ((BUSY,) * 4, [])],
    ids=["for its length", "for good", "for now"],
)
async def test_an_end_that_is_refused(kit: Kit, answers: tuple[Any, ...], at_end: list[str]) -> None:
    """The answer goes out as messages in the same turn; the card says where, or is left to the upkeep."""
    draft = kit.begin()
    await kit.made(draft, "a")
    kit.dingtalk.will(STREAM_PATH, *answers)
    kit.dingtalk.will(UPDATE_PATH, *answers)
    ending = asyncio.create_task(kit.say(draft, "all"))
    await kit.over_time(ending.done)
    await ending
    assert kit.calls[-1] == "webhook all"
    if at_end:
        assert kit.calls[-3:-1] == at_end
    assert await kit.is_ended() == bool(at_end)
    assert not kit.tools.desk.live


async def test_a_card_that_is_gone(kit: Kit) -> None:
    """One call finds out that there is none, and nobody looks for it again."""
    draft = kit.begin()
    await kit.made(draft, "a")
    kit.dingtalk.will(STREAM_PATH, NO_CARD)
    await kit.say(draft, "all")
    assert kit.calls == ["create a", "last all", "webhook all"]
    assert await kit.is_ended()


@pytest.mark.parametrize("when", ["shown", "at the end"])
async def test_a_store_that_is_away_costs_no_answer(kit: Kit, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """What cannot be kept is not made as a card: it is a message, with a reaction before it."""

    async def fail(_: KeptCard) -> None:
        raise StoreError("away")

    monkeypatch.setattr(kit.store, "keep_card", fail)
    draft = kit.begin()
    draft.activity(Activity(ActivityKind.ASKED))
    if when == "shown":
        await kit.rest()
        await kit.clock.advance(module.CARD_DUE_S)
        await kit.until(lambda: kit.calls)
        assert kit.calls == [f"put {texts.REACTION[Language.EN]}"]
    await kit.say(draft, "all")
    assert "webhook all" in kit.calls
    assert not kit.dingtalk.to(CREATE_PATH)


async def test_answers_go_by_the_openapi_where_webhooks_would_not_last(make_kit: MakeKit) -> None:
    """The budget says so when the answer begins; a command takes the webhook."""
    settings = ReplySettings(monthly_api_calls=100_000, monthly_webhook_calls=1, reaction=ReactionMode.OFF)
    async with make_kit(settings) as kit:
        draft = kit.begin()
        draft.activity(Activity(ActivityKind.ASKED))
        await kit.say(draft, "all")
        await kit.say(kit.begin(), "help", Outcome.COMMAND)
        assert kit.calls == ["direct all", "webhook help"]


# --- stop ----------------------------------------------------------------------------------------------------------


async def test_a_stopped_answer_keeps_what_was_shown(kit: Kit) -> None:
    """With a mark below it, outside of code that was half written."""
    draft = kit.begin()
    await kit.made(draft, "```py\nprint(")
    await kit.say(draft, "", Outcome.STOPPED)
    whole = f"```py\nprint(\n```\n\n{STOPPED}"
    assert kit.calls[1:] == [f"last {whole}", f"update {whole}"]
    assert await kit.is_ended()


async def test_of_a_long_answer_that_is_stopped_nothing_follows(kit: Kit) -> None:
    """What was not seen is not wanted: the card keeps its head, and no message comes."""
    draft = kit.begin()
    await kit.made(draft, LONG)
    await kit.say(draft, "", Outcome.STOPPED)
    assert [each.split()[0] for each in kit.calls] == ["create", "last", "update"]
    assert kit.calls[1].endswith(STOPPED)
    assert texts.CONTINUED[Language.EN] not in kit.calls[1]
    assert kit.kept == []


@pytest.mark.parametrize("is_shown", [True, False])
async def test_a_stop_before_there_was_any_text(kit: Kit, is_shown: bool) -> None:
    """A card that is there says that it was stopped; none is made to say so."""
    draft = kit.begin()
    draft.activity(Activity(ActivityKind.ASKED))
    if is_shown:
        await kit.made(draft)
    await kit.say(draft, "", Outcome.STOPPED)
    assert kit.calls[1:] == ([f"last {STOPPED}", f"update {STOPPED}"] if is_shown else [])


async def test_a_stop_before_the_end_is_in_the_card(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """While its pictures are uploaded nobody wants it any more: the card keeps what it showed."""

    async def stop(*_: object) -> Answer:
        raise DeliveryStoppedError

    draft = kit.begin()
    await kit.made(draft, "half of")
    monkeypatch.setattr(module, "settle", stop)
    with pytest.raises(DeliveryStoppedError) as stopped:
        await draft.finish(Answer.of("half of it all", Outcome.ANSWERED), kit.persist)
    assert kit.calls[1] == f"last half of\n\n{STOPPED}"
    assert stopped.value.shown == "half of"
    assert await kit.is_ended()


# --- a draft that is left ------------------------------------------------------------------------------------------


async def test_a_drain_says_so_in_the_card(make_kit: MakeKit) -> None:
    """Below what it shows; the next process goes on in the same card, and makes no second one."""
    async with make_kit() as kit:
        draft = kit.begin()
        await kit.made(draft, "half of")
        await draft.suspend(Suspension.DRAIN)
        assert kit.calls[1:] == [f"step half of\n\n{PAUSED}"]
        assert not await kit.is_ended()
    async with make_kit() as kit:
        draft = kit.begin_again()
        draft.update("half of it")
        await kit.until(lambda: len(kit.calls) == 3)
        await kit.say(draft, "half of it all")
        assert kit.calls[2:] == ["step half of it", "last half of it all", "update half of it all"]
        assert await kit.is_ended()


async def test_a_drain_waits_for_no_card_that_hangs(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is given back after it, within the second that all of that has."""
    monkeypatch.setattr(module, "DRAIN_NOTE_S", 0.5)
    draft = kit.begin()
    await kit.made(draft, "half of")
    gate = Gate()
    kit.dingtalk.will(STREAM_PATH, gate)
    await draft.suspend(Suspension.DRAIN)
    assert gate.waiting == 1
    gate.opened.set()
    assert not kit.tools.desk.live


@pytest.mark.parametrize("why", [Suspension.RETRY, Suspension.LOST, Suspension.GIVEN_UP])
async def test_a_draft_that_is_left_says_nothing(kit: Kit, why: Suspension) -> None:
    """Its card stays open for the next try, for another process, or for the upkeep."""
    draft = kit.begin()
    await kit.made(draft, "half of")
    await draft.suspend(why)
    await draft.suspend(Suspension.RETRY)
    draft.update("half of it")
    await kit.clock.advance(30)
    await kit.rest()
    assert kit.calls == ["create half of"]
    assert not await kit.is_ended()
    assert not kit.tools.desk.live


async def test_another_try_here_goes_on_in_the_same_card(kit: Kit) -> None:
    """A model that failed is asked again: one answer, one card."""
    draft = kit.begin()
    await kit.made(draft, "half of")
    await draft.suspend(Suspension.RETRY)
    again = kit.begin(replace(kit.lease, attempts=1))
    again.update("anew")
    await kit.until(lambda: len(kit.calls) == 2)
    await kit.say(again, "anew, all")
    assert kit.calls[1:] == ["step anew", "last anew, all", "update anew, all"]


async def test_a_stored_answer_goes_on_in_the_card_of_the_process_that_died(make_kit: MakeKit) -> None:
    """Also where answers are messages by now: the card must not type for ever."""
    async with make_kit() as kit:
        draft = kit.begin()
        await kit.made(draft, "half of")
        await draft.suspend(Suspension.LOST)
    async with make_kit(MARKDOWN) as kit:
        answer = Answer.of("all", Outcome.ANSWERED)
        await kit.begin_again(answer=answer).finish(answer, kit.persist)
        assert kit.calls[1:] == ["last all", "update all"]
        assert await kit.is_ended()


async def test_a_stored_answer_without_a_card_begins_none(kit: Kit) -> None:
    """Nobody waited for it to grow."""
    answer = Answer.of("all", Outcome.ANSWERED)
    await kit.begin_again(answer=answer).finish(answer, kit.persist)
    assert kit.calls == ["webhook all"]


async def test_an_answer_that_is_given_up_takes_its_reaction_back(make_kit: MakeKit) -> None:
    """Nothing more comes of it: "working" would be a lie for ever; another try keeps it."""
    async with make_kit(replace(MARKDOWN, reaction=ReactionMode.ON)) as kit:
        draft = kit.begin()
        draft.activity(Activity(ActivityKind.ASKED))
        await kit.clock.advance(2)
        await kit.until(lambda: kit.calls)
        kit.dingtalk.will(WEBHOOK_PATH, BUSY)
        with pytest.raises(DingTalkError):
            await draft.finish(Answer.of("all", Outcome.ANSWERED), kit.persist)
        await draft.suspend(Suspension.RETRY)
        again = kit.begin(replace(kit.lease, attempts=1))
        await kit.rest()
        assert len(kit.calls) == 2
        await again.suspend(Suspension.GIVEN_UP)
        await again.suspend(Suspension.RETRY)
        await kit.until(lambda: len(kit.calls) == 3)
        assert kit.calls[2].startswith("take")


# --- where answers are messages ------------------------------------------------------------------------------------


async def test_one_line_says_that_it_takes_longer(make_kit: MakeKit) -> None:
    """Once for a message, over all of its tries, and no card."""
    async with make_kit(MARKDOWN) as kit:
        draft = kit.begin()
        draft.update("a")
        await kit.rest()
        await kit.clock.advance(19.9)
        await kit.rest()
        assert kit.calls == []
        await kit.clock.advance(0.1)
        await kit.until(lambda: kit.calls)
        assert kit.calls == ["webhook ⏳ Still working, please wait."]
        await kit.clock.advance(100)
        await draft.suspend(Suspension.RETRY)
        again = kit.begin(replace(kit.lease, attempts=1))
        again.update("b")
        await kit.rest()
        await kit.clock.advance(100)
        await kit.rest()
        await kit.say(again, "all")
        assert kit.calls[1:] == ["webhook all"]


async def test_the_line_says_what_the_agent_is_doing(make_kit: MakeKit) -> None:
    """As far as that is known: the tool by its name."""
    async with make_kit(MARKDOWN) as kit:
        draft = kit.begin()
        draft.activity(Activity(ActivityKind.TOOL, "search"))
        await kit.rest()
        await kit.clock.advance(20)
        await kit.until(lambda: kit.calls)
        assert "`search`" in kit.calls[0]
        await kit.say(draft, "all")


@pytest.mark.parametrize("answer", [BUSY, cut], ids=["busy", "lost"])
async def test_a_line_that_fails_costs_nothing(make_kit: MakeKit, answer: Any) -> None:
    """Neither the answer nor its time, nor another line."""
    async with make_kit(MARKDOWN) as kit:
        kit.dingtalk.will(WEBHOOK_PATH, answer)
        draft = kit.begin()
        draft.update("a")
        await kit.rest()
        await kit.clock.advance(20)
        await kit.until(lambda: kit.calls)
        await kit.rest()
        await kit.clock.advance(100)
        await kit.say(draft, "all")
        assert kit.calls[1:] == ["webhook all"]


async def test_a_line_can_be_switched_off(make_kit: MakeKit) -> None:
    """CLAW_PATIENCE=0 says nothing; nor does a card, which is seen to work."""
    for settings in (replace(MARKDOWN, patience=0.0), CARDS):
        async with make_kit(settings) as kit:
            draft = kit.begin()
            draft.update("a")
            await kit.rest()
            await kit.clock.advance(100)
            await kit.rest()
            assert not kit.dingtalk.to(WEBHOOK_PATH)
            await draft.suspend(Suspension.LOST)


async def test_an_answer_in_time_needs_no_line(make_kit: MakeKit) -> None:
    """What waits to say it is ended by the answer."""
    async with make_kit(MARKDOWN) as kit:
        draft = kit.begin()
        draft.update("a")
        await kit.rest()
        await kit.say(draft, "all")
        await kit.clock.advance(100)
        await kit.rest()
        assert kit.calls == ["webhook all"]


async def test_messages_that_are_answered_together_have_one_end(make_kit: MakeKit) -> None:
    """The reaction of the one behind goes with the answer."""
    async with make_kit(replace(MARKDOWN, reaction=ReactionMode.ON)) as kit:
        behind = replace(kit.lease.inbound, msg_id="behind")
        kit.outbound.expect(kit.lease.inbound, kit.lease.route)
        kit.outbound.expect(behind, kit.lease.route)
        draft = kit.begin()
        draft.join(behind)
        draft.activity(Activity(ActivityKind.ASKED))
        await kit.clock.advance(2)
        await kit.until(lambda: len(kit.calls) == 2)
        await kit.rest()
        await kit.say(draft, "all")
        await kit.until(lambda: len(kit.calls) == 5)
        assert [each.split()[0] for each in sorted(kit.calls)] == ["put", "put", "take", "take", "webhook"]


async def test_what_claw_says_of_its_own_accord_has_no_signs(kit: Kit) -> None:
    """An alert, or what a program has it say, is a message: nothing before it, nothing to suspend."""
    for kind in (RowKind.ALERT, RowKind.SEND):
        draft = kit.begin(lease_of(inbound(webhook=kit.dingtalk.webhook), kit.clock, kind))
        assert isinstance(draft, MessageDraft)
        draft.join(kit.lease.inbound)
        draft.update("a")
        draft.activity(Activity(ActivityKind.ASKED))
        await kit.clock.advance(60)
        await draft.finish(Answer.of("all", Outcome.ANSWERED), kit.persist)
        await draft.suspend(Suspension.DRAIN)
    await kit.outbound.say(kit.lease.inbound, Answer.of("beside", Outcome.ANSWERED))
    assert kit.calls == ["webhook all", "webhook all", "webhook beside"]
