"""One card: how it is made, filled and ended, and the cards that nobody ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from claw.dingtalk.cards import CardClient, CardStatus
from claw.dingtalk.openapi import OpenApiClient
from claw.errors import DingTalkError, DingTalkReason, StoreError
from claw.language import Language
from claw.messages import Inbound
from claw.reply import texts
from claw.reply.card import BROKEN_S, ORPHAN_S, CardDesk, CardLook, CardState, LiveCard, make_card_id
from claw.store.values import KeptCard, Lease, RowPlace
from tests.clock import FakeClock
from tests.dingtalk.conftest import CREATE_PATH, STREAM_PATH, UPDATE_PATH, FakeDingTalk, cut, inbound
from tests.reply.tools import TEMPLATE, lease_of

BUSY = (500, {"code": "system.busy", "message": "busy"})
FORBIDDEN = (403, {"code": "Forbidden.AccessDenied.AccessTokenPermissionDenied", "message": "no"})
NO_TEMPLATE = (400, {"code": "param.templateNotExist", "message": "no"})
NO_CARD = (400, {"code": "param.cardNotExist", "message": "no"})
EXISTS = (400, {"code": "param.cardAlreadyExist", "message": "there"})
UNHEARD_OF = (400, {"code": "param.unheardOf", "message": "what"})
TOO_LONG = (400, {"code": "param.stream.content", "message": "content is too large"})
PROXY_WAITS = (429, {"message": "wait"})


class KeptCards:
    """The store's cards, in memory."""

    def __init__(self) -> None:
        self.cards: dict[str, KeptCard] = {}
        self.fault: StoreError | None = None
        self.history: list[KeptCard] = []

    async def keep_card(self, card: KeptCard) -> None:
        if self.fault is not None:
            raise self.fault
        self.cards[card.id] = card
        self.history.append(card)

    async def find_card(self, card_id: str) -> KeptCard | None:
        return self.cards.get(card_id)

    async def open_cards(self, opened_until: float, limit: int) -> list[KeptCard]:
        found = [card for card in self.cards.values() if not card.ended and card.opened_at <= opened_until]
        return sorted(found, key=lambda card: card.opened_at)[:limit]

    async def vote(self, card_id: str, person: str, vote: str) -> str:
        return ""


class Kit:
    """A desk over the small DingTalk, and one message to answer."""

    def __init__(self, dingtalk: FakeDingTalk, openapi: OpenApiClient, clock: FakeClock) -> None:
        self.dingtalk = dingtalk
        self.clock = clock
        self.cards = KeptCards()
        self.desk = CardDesk(CardClient(openapi, TEMPLATE), self.cards, CardLook("content", 3000), clock)
        self.lease = lease_of(inbound(), clock)

    def make(self, lease: Lease | None = None) -> LiveCard:
        return LiveCard.of(self.desk, lease or self.lease, Language.EN)

    async def open(self, text: str = "so far") -> LiveCard:
        card = self.make()
        await card.open(self.lease, text, CardStatus.INPUTTING)
        return card

    async def over_time(self, work: Awaitable[Any]) -> Any:
        """Let the clock run until it is done."""
        task = asyncio.ensure_future(work)
        while not task.done():
            await asyncio.sleep(0.001)
            await self.clock.advance(0.1)
        return await task

    @property
    def calls(self) -> list[str]:
        """The calls that were made, by their last words."""
        return [each.path.rpartition("/")[2] for each in self.dingtalk.requests if "/card/" in each.path]

    @property
    def kept(self) -> KeptCard:
        return self.cards.cards[self.make().id]


@pytest.fixture
def kit(dingtalk: FakeDingTalk, openapi: OpenApiClient, clock: FakeClock) -> Kit:
    return Kit(dingtalk, openapi, clock)


@pytest.mark.parametrize("before", CardState)
@pytest.mark.parametrize("after", CardState)
def test_transitions(before: CardState, after: CardState, kit: Kit) -> None:
    """A card goes on, never back; while it is open its process works on it, and no other time."""
    allowed = {
        CardState.NEW: {CardState.OPEN, CardState.ENDED, CardState.FAILED},
        CardState.OPEN: {CardState.ENDED, CardState.FAILED},
        CardState.ENDED: set(),
        CardState.FAILED: set(),
    }[before]
    card = kit.make()
    card.state = before
    if after in allowed:
        card.transition(after)
        assert card.state is after
        assert (card.id in kit.desk.live) == (after is CardState.OPEN)
    else:
        with pytest.raises(RuntimeError, match="a card does not go from"):
            card.transition(after)


def test_the_id_follows_from_the_message(kit: Kit) -> None:
    """Each process finds the same one, and no other message has it; it says nothing of the message."""
    card = kit.make()
    assert card.id == make_card_id(kit.lease.inbound.key) == kit.make().id
    assert make_card_id("another") != card.id
    assert kit.lease.inbound.msg_id not in card.id
    assert make_card_id("\ud800")


# --- made ----------------------------------------------------------------------------------------------------------


async def test_a_card_is_kept_before_it_is_made(kit: Kit) -> None:
    """A crash in between leaves one that is known and not there, and never the other way round."""
    seen: list[KeptCard] = []

    async def create(_: web.Request) -> web.StreamResponse:
        seen.append(kit.kept)
        return web.json_response({"success": True, "result": {"deliverResults": [{"success": True}]}})

    kit.dingtalk.will(CREATE_PATH, create)
    card = await kit.open("so far")
    assert not seen[0].ended
    assert (seen[0].key, seen[0].queue) == (kit.lease.inbound.key, kit.lease.route.queue)
    assert seen[0].asker == "u-1001"
    assert card.state is CardState.OPEN
    assert card.shown == "so far"
    assert card.id in kit.desk.live


async def test_without_the_store_no_card_is_made(kit: Kit) -> None:
    """What cannot be kept is not made."""
    kit.cards.fault = StoreError("away")
    with pytest.raises(StoreError):
        await kit.open()
    assert kit.calls == []


async def test_the_card_that_an_earlier_call_has_made(kit: Kit) -> None:
    """A call whose answer was lost may have made it: DingTalk says that it exists, and it is gone on with."""
    kit.dingtalk.will(CREATE_PATH, cut, EXISTS)
    card = kit.make()
    with pytest.raises(DingTalkError) as lost:
        await card.open(kit.lease, "first", CardStatus.PROCESSING)
    assert lost.value.maybe_delivered
    await card.open(kit.lease, "whole", CardStatus.FINISHED)
    assert card.state is CardState.OPEN
    await card.end("whole")
    # Not only the last step: offline clients have what the first call said.
    assert kit.calls[-2:] == ["streaming", "instances"]
    assert kit.kept.ended


@pytest.mark.parametrize("answers", [[NO_TEMPLATE], [cut, NO_TEMPLATE], [cut, BUSY]], ids=["no", "lost, no", "lost"])
async def test_a_card_that_is_given_up(kit: Kit, answers: list[Any]) -> None:
    """One that surely is not there is done with; one that may be is left to the upkeep."""
    kit.dingtalk.will(CREATE_PATH, *answers)
    card = kit.make()
    errors: list[DingTalkError] = []
    for _ in answers:
        with pytest.raises(DingTalkError) as failure:
            await card.open(kit.lease, "text", CardStatus.PROCESSING)
        errors.append(failure.value)
    await card.fail(errors[-1])
    assert card.has_failed
    assert kit.kept.ended == (answers[0] is not cut)
    assert card.id not in kit.desk.live


async def test_a_call_that_is_cut_off_may_have_made_it(kit: Kit) -> None:
    """Cancelled while the answer was on its way: the card is known, and not taken for one that is not there."""
    began, go_on = asyncio.Event(), asyncio.Event()

    async def create(_: web.Request) -> web.StreamResponse:
        began.set()
        await go_on.wait()
        return web.json_response({})

    kit.dingtalk.will(CREATE_PATH, create)
    card = kit.make()
    opening = asyncio.create_task(card.open(kit.lease, "text", CardStatus.PROCESSING))
    await began.wait()
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    go_on.set()
    await card.fail(DingTalkError("card_create", "no template", reason=DingTalkReason.CARD_TEMPLATE))
    assert not kit.kept.ended


@pytest.mark.parametrize(
    ("answer", "works"),
    [(NO_TEMPLATE, False), (FORBIDDEN, False), (BUSY, True), (UNHEARD_OF, True)],
    ids=["template", "permission", "busy", "unknown"],
)
async def test_what_an_operator_has_to_put_right(
    kit: Kit, answer: tuple[int, object], works: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Another card would fail as well: for ten minutes none is tried. The operator is told once, with a remedy."""
    caplog.set_level(logging.ERROR)
    kit.dingtalk.will(CREATE_PATH, answer, answer)
    for _ in range(2):
        card = kit.make()
        with pytest.raises(DingTalkError) as failure:
            await card.open(kit.lease, "text", CardStatus.PROCESSING)
        await card.fail(failure.value)
    assert kit.desk.works == works
    assert caplog.messages == ["no card: answers go out as messages"]
    assert bool(caplog.records[0].__dict__["remedy"]) != works
    await kit.clock.advance(BROKEN_S)
    assert kit.desk.works


# --- filled and ended ----------------------------------------------------------------------------------------------


async def test_the_last_text_is_written_twice(kit: Kit) -> None:
    """As the last step, and once more for clients that were offline; then it is kept as ended."""
    card = await kit.open("first")
    await card.step("more")
    assert card.shown == "more"
    await card.end("whole")
    assert kit.calls == ["createAndDeliver", "streaming", "streaming", "instances"]
    steps = [each.json for each in kit.dingtalk.to(STREAM_PATH)]
    assert [(each["content"], each["isFinalize"]) for each in steps] == [("more", False), ("whole", True)]
    assert len({each["guid"] for each in steps}) == 2
    params = kit.dingtalk.to(UPDATE_PATH)[0].json["cardData"]["cardParamMap"]
    assert params == {"content": "whole", "flowStatus": "3"}
    assert (card.state, card.shown, kit.kept.ended) == (CardState.ENDED, "whole", True)


async def test_a_card_that_was_made_with_its_last_text(kit: Kit) -> None:
    """Offline clients have it: two calls in all."""
    card = await kit.open("whole")
    await card.end("whole")
    assert kit.calls == ["createAndDeliver", "streaming"]


async def test_a_step_that_fails_changes_nothing(kit: Kit) -> None:
    """What is shown is what DingTalk took."""
    card = await kit.open("first")
    kit.dingtalk.will(STREAM_PATH, BUSY)
    with pytest.raises(DingTalkError):
        await card.step("more")
    assert card.shown == "first"


async def test_the_last_step_is_tried_again_under_its_name(kit: Kit) -> None:
    """After a lost answer the same again does nothing twice."""
    card = await kit.open("first")
    kit.dingtalk.will(STREAM_PATH, cut)
    await kit.over_time(card.end("whole"))
    assert kit.calls == ["createAndDeliver", "streaming", "streaming", "instances"]
    assert len({each.json["guid"] for each in kit.dingtalk.to(STREAM_PATH)}) == 1


@pytest.mark.parametrize("path", [STREAM_PATH, UPDATE_PATH])
async def test_one_of_two_ways_is_enough(kit: Kit, path: str) -> None:
    """Without the right to stream, or without the other one, the card still shows its last text."""
    card = await kit.open("first")
    kit.dingtalk.will(path, FORBIDDEN)
    await card.end("whole")
    assert (card.state, kit.kept.ended) == (CardState.ENDED, True)


async def test_an_end_that_neither_way_takes(kit: Kit) -> None:
    """The first refusal says why; the card is open still, and so it is kept."""
    card = await kit.open("first")
    kit.dingtalk.will(STREAM_PATH, TOO_LONG)
    kit.dingtalk.will(UPDATE_PATH, FORBIDDEN)
    with pytest.raises(DingTalkError) as refused:
        await card.end("whole")
    assert refused.value.reason is DingTalkReason.TOO_LONG
    assert (card.state, kit.kept.ended) == (CardState.OPEN, False)


async def test_an_end_of_a_card_that_is_not_there(kit: Kit) -> None:
    """One call finds that out."""
    card = await kit.open("first")
    kit.dingtalk.will(STREAM_PATH, NO_CARD)
    with pytest.raises(DingTalkError):
        await card.end("whole")
    assert kit.calls == ["createAndDeliver", "streaming"]


async def test_nobody_waits_for_minutes_for_a_cards_end(kit: Kit) -> None:
    """Where DingTalk, or a proxy, asks for a long wait, the answer goes out as messages meanwhile."""

    async def wait_long(_: web.Request) -> web.StreamResponse:
        return web.json_response(PROXY_WAITS[1], status=429, headers={"Retry-After": "120"})

    card = await kit.open("first")
    for path in (STREAM_PATH, UPDATE_PATH):
        kit.dingtalk.will(path, wait_long)
    began = kit.clock.monotonic()
    with pytest.raises(DingTalkError):
        await kit.over_time(card.end("whole"))
    assert kit.clock.monotonic() - began < 3


async def test_another_process_goes_on_in_the_same_card(kit: Kit) -> None:
    """What was kept is found by the message's id; where nothing was, the card is still to be made."""
    card = kit.make()
    await card.find()
    assert card.state is CardState.NEW
    await kit.open("first")
    again = kit.make()
    await again.find()
    await again.find()
    assert again.state is CardState.OPEN
    await again.end("whole")
    assert len(kit.dingtalk.to(CREATE_PATH)) == 1


# --- those that nobody ended ---------------------------------------------------------------------------------------


def gone(kit: Kit) -> Callable[[str, str], Awaitable[RowPlace]]:
    async def place(queue: str, key: str) -> RowPlace:
        assert (queue, key) == (kit.lease.route.queue, kit.lease.inbound.key)
        return RowPlace.GONE

    return place


async def leave_open(kit: Kit) -> LiveCard:
    """Leave a card as a crash does, a minute ago."""
    card = await kit.open("first")
    card.leave()
    await kit.clock.advance(ORPHAN_S)
    return card


async def test_a_card_whose_turn_is_over_is_ended(kit: Kit) -> None:
    """It says so in the person's language, and is not looked at again."""
    await leave_open(kit)
    assert await kit.desk.end_orphans(gone(kit)) == 1
    assert kit.dingtalk.to(STREAM_PATH)[0].json["content"] == texts.ORPHAN[Language.EN]
    assert kit.kept.ended
    assert await kit.desk.end_orphans(gone(kit)) == 0
    assert not kit.desk.live


@pytest.mark.parametrize("place", [RowPlace.WAITING, RowPlace.LEASED])
async def test_a_card_whose_turn_goes_on_is_left_alone(kit: Kit, place: RowPlace) -> None:
    """Somebody works on its message, or will."""

    async def say(_queue: str, _key: str) -> RowPlace:
        return place

    await leave_open(kit)
    assert await kit.desk.end_orphans(say) == 0
    assert kit.calls == ["createAndDeliver"]


async def test_a_card_that_is_worked_on_here_is_left_alone(kit: Kit) -> None:
    """Whatever the store says of its message; and a fresh one is no orphan."""
    await kit.open("first")
    assert await kit.desk.end_orphans(gone(kit)) == 0
    await kit.clock.advance(ORPHAN_S)
    assert await kit.desk.end_orphans(gone(kit)) == 0


async def test_an_answer_that_ended_while_orphans_were_looked_for(kit: Kit) -> None:
    """Its card was in the list, and its message is gone since its turn has ended: its answer must stay."""
    card = await kit.open("first")
    await kit.clock.advance(ORPHAN_S)
    card.leave()

    async def place(_queue: str, _key: str) -> RowPlace:
        await card.end("the whole answer")
        return RowPlace.GONE

    assert await kit.desk.end_orphans(place) == 0
    assert [each.json["content"] for each in kit.dingtalk.to(STREAM_PATH)] == ["the whole answer"]


async def test_an_orphan_that_cannot_be_ended_now_is_looked_at_again(kit: Kit) -> None:
    """DingTalk in trouble is no reason to let it type for ever."""
    await leave_open(kit)
    kit.dingtalk.will(STREAM_PATH, BUSY, BUSY)
    kit.dingtalk.will(UPDATE_PATH, BUSY, BUSY)
    assert await kit.over_time(kit.desk.end_orphans(gone(kit))) == 0
    assert not kit.kept.ended
    assert await kit.desk.end_orphans(gone(kit)) == 1
    assert kit.kept.ended


@pytest.mark.parametrize("answer", [NO_CARD, FORBIDDEN, UNHEARD_OF], ids=["no card", "permission", "unknown"])
async def test_an_orphan_that_nobody_can_end_is_forgotten(kit: Kit, answer: tuple[int, object]) -> None:
    """Each try is billed: what DingTalk refuses is not tried each minute for a week."""
    await leave_open(kit)
    kit.dingtalk.will(STREAM_PATH, answer, answer)
    kit.dingtalk.will(UPDATE_PATH, answer, answer)
    assert await kit.over_time(kit.desk.end_orphans(gone(kit))) == 1
    count = len(kit.calls)
    assert await kit.desk.end_orphans(gone(kit)) == 0
    assert len(kit.calls) == count
    assert not kit.desk.live


async def test_orphans_are_ended_oldest_first_and_some_at_a_time(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash of a busy process leaves many: they take turns with the rest of the upkeep."""
    monkeypatch.setattr("claw.reply.card.ORPHANS_MAX", 2)

    async def place(_queue: str, _key: str) -> RowPlace:
        return RowPlace.GONE

    def message(number: int) -> Inbound:
        return replace(inbound(), msg_id=f"msg{number}")

    for number in range(3):
        lease = lease_of(message(number), kit.clock)
        card = kit.make(lease)
        await card.open(lease, "first", CardStatus.PROCESSING)
        card.leave()
        await kit.clock.advance(1)
    await kit.clock.advance(ORPHAN_S)
    assert await kit.desk.end_orphans(place) == 2
    assert not kit.cards.cards[make_card_id(message(2).key)].ended
    assert await kit.desk.end_orphans(place) == 1
