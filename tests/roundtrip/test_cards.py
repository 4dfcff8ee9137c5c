"""Answers in cards, by a real process over real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from claw.dingtalk.quota import Api
from claw.emulator import Emulator
from claw.emulator.card import FakeCard, FakeCardCall, FakeCardState
from claw.language import Language
from claw.reply import texts
from tests.roundtrip.conftest import Claw
from tests.service import Service

pytestmark = pytest.mark.timeout(90)

CARDS = {"CLAW_REPLY_MODE": "card", "CLAW_OWNER": "u-1003"}
SLOW = {"model_delay": 2.0, "model_chunk_delay": 0.1}
"""A model that says nothing for two seconds, then speaks for some."""


async def until(condition: Callable[[], object], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def card_of(emulator: Emulator, number: int = 0) -> FakeCard:
    await until(lambda: len(emulator.cards.cards) > number)
    return list(emulator.cards.cards.values())[number]


async def finished(emulator: Emulator, number: int = 0) -> FakeCard:
    card = await card_of(emulator, number)
    await until(lambda: card.state is FakeCardState.FINISHED)
    return card


async def count_calls(service: Service) -> dict[str, int]:
    _, status = await service.get("/status", "admin-token-of-the-test")
    calls: dict[str, int] = status["calls"]["by_api"]
    return calls


async def test_an_answer_grows_in_a_card(emulator: Emulator, claw: Claw) -> None:
    """A slow answer is one card: shown within 2.5 s, filled by few steps, ended for offline clients as well."""
    emulator.faults.update(SLOW)
    async with claw(**CARDS) as service:
        began = time.monotonic()
        await emulator.say("你好 " + "字" * 40)
        card = await card_of(emulator)
        assert time.monotonic() - began < 2.5
        assert card.text == texts.ASKED[Language.ZH]
        await until(lambda: card.update_count)
        assert card.text != texts.ASKED[Language.ZH], "the first text comes at once"
        assert card.state is FakeCardState.STREAMING
        await finished(emulator)
        assert card.text_by is FakeCardCall.STREAM or card.text_by is FakeCardCall.UPDATE
        await until(lambda: card.put_count == 1)
        assert "字" * 40 in card.offline_text
        assert card.in_flight_max == 1
        assert card.after_end == 0
        calls = await count_calls(service)
        assert calls.get(Api.REACTION, 0) == 0, "the card is the sign"
        assert calls[Api.CARD_CREATE] + calls[Api.CARD_STREAM] + calls[Api.CARD_UPDATE] <= 4


async def test_a_fast_answer_is_a_card_too(emulator: Emulator, claw: Claw) -> None:
    """An answer that came at once is a card of three calls at most; a command is a message."""
    async with claw(**CARDS) as service:
        # The first answer of a process is not fast: its model's library is still being loaded.
        await emulator.say("good morning")
        await service.wait_log("turn ended")
        before = await count_calls(service)
        await emulator.say("hello there")
        card = await finished(emulator, 1)
        assert "hello there" in card.text
        help_text = await emulator.wait_reply_to(await emulator.say("/help"))
        assert "/new" in help_text.text
        calls = await count_calls(service)
        assert len(emulator.cards.cards) == 2
        assert calls[Api.WEBHOOK] == 1
        made = {api: count - before.get(api, 0) for api, count in calls.items() if api.startswith("card_")}
        # Two, or four where the machine is so slow that its card was shown before its end.
        assert sum(made.values()) <= 4


@pytest.mark.parametrize(
    "switch",
    [
        {"card_template_missing": True},
        {"card_template_unpublished": True},
        {"card_inner_failure": True},
        {"no_card_instance_write": True},
        {"openapi_month_limit": 1},
    ],
    ids=lambda switch: next(iter(switch)),
)
async def test_without_a_card_the_answer_is_a_message(
    emulator: Emulator, claw: Claw, switch: dict[str, bool | int]
) -> None:
    """Whatever keeps a card from being made: the same turn sends messages, and the operator is told once, with why."""
    emulator.faults.update({**switch, "model_chunk_delay": 0.05})
    if "openapi_month_limit" in switch:
        emulator.month.openapi = 1
    async with claw(**CARDS) as service:
        for question in ("first question", "second question"):
            reply = await emulator.wait_reply_to(await emulator.say(question))
            assert question in reply.text
        await service.wait_log("no card: answers go out as messages")
        assert sum("no card" in str(entry["message"]) for entry in service.logs) == 1
        shown = [card for card in emulator.cards.cards.values() if card.replies]
        assert all(card.state is FakeCardState.FINISHED for card in shown)


async def test_without_the_right_to_stream_the_card_ends_whole(emulator: Emulator, claw: Claw) -> None:
    """Where steps are refused the card still gets the whole text, by the other call."""
    emulator.faults.update({**SLOW, "no_card_streaming_write": True})
    async with claw(**CARDS):
        await emulator.say("what is this")
        card = await card_of(emulator)
        await until(lambda: "what is this" in card.offline_text)
        await until(lambda: card.settled.state is FakeCardState.FINISHED)


async def test_what_a_card_cannot_hold_follows(emulator: Emulator, claw: Claw) -> None:
    """Over the limit of the template the rest comes as messages; nothing of it is lost."""
    emulator.faults.update({"model_fixed_reply": "\n\n".join(f"第{number}段" + "字" * 60 for number in range(30))})
    async with claw(**CARDS, CLAW_CARD_MAX_CHARS="600"):
        said = await emulator.say("长一点")
        card = await finished(emulator)
        reply = await emulator.wait_reply_to(said)
        assert len(card.text) <= 600
        assert texts.CONTINUED[Language.ZH] in card.text
        shown = [number for number in range(30) if f"第{number}段" in card.text]
        assert shown == list(range(len(shown)))
        assert [number for number in range(30) if f"第{number}段" in reply.text] == list(range(len(shown), 30))


async def test_a_template_that_holds_less(emulator: Emulator, claw: Claw) -> None:
    """A text that the template refuses goes out as a message, and the card says where it is."""
    emulator.faults.update({"card_content_limit": 300, "model_fixed_reply": "字" * 500})
    async with claw(**CARDS) as service:
        reply = await emulator.wait_reply_to(await emulator.say("你好"))
        assert reply.text.count("字") == 500
        await service.wait_log("no card: answers go out as messages")
        for card in emulator.cards.cards.values():
            await until(lambda card=card: card.state is FakeCardState.FINISHED)  # type: ignore[misc]


async def test_the_stop_button(emulator: Emulator, claw: Claw) -> None:
    """Stop ends the turn within a second, at the model too: for who asked and for the owner, for nobody else."""
    emulator.faults.update({"model_delay": 0.1, "model_chunk_delay": 0.3})
    async with claw(**CARDS):
        for number, person in enumerate(("u-1001", "u-1003")):
            await emulator.say("tell me all " + "x " * 300)
            card = await card_of(emulator, number)
            await until(lambda card=card: card.state is FakeCardState.STREAMING)  # type: ignore[misc]
            refused = await emulator.press(card.out_track_id, person="u-1002", action="stop")
            assert texts.NOT_YOURS[Language.EN] in str(refused.answer)
            assert card.state is FakeCardState.STREAMING
            began = time.monotonic()
            await emulator.press(card.out_track_id, person=person, action="stop")
            await until(lambda card=card: card.state is FakeCardState.FINISHED)  # type: ignore[misc]
            assert time.monotonic() - began < 1
            assert texts.STOPPED[Language.EN] in card.text
            assert "I heard you say" in card.text
            await until(lambda: emulator.model.requests[-1].aborted)


async def test_votes_are_counted_once_each(emulator: Emulator, claw: Claw) -> None:
    """A thumb is answered within DingTalk's time; the same again changes nothing."""
    async with claw(**CARDS) as service:
        await emulator.say("hello there")
        card = await finished(emulator)
        for _ in range(2):
            press = await emulator.press(card.out_track_id, person="u-1002", action="like")
            assert texts.THANKS[Language.EN] in str(press.answer)
        await emulator.press(card.out_track_id, person="u-1002", action="dislike")
        await service.wait_log("vote on an answer")
        async with asyncio.timeout(10):
            while (votes := [entry["vote"] for entry in service.logs if "vote" in entry]) != ["like", "dislike"]:
                assert votes != ["like", "like"]
                await asyncio.sleep(0.02)


async def test_a_card_that_was_open_at_a_crash_is_ended(emulator: Emulator, claw: Claw) -> None:
    """The process that takes the turn up goes on in the same card; no second one is made."""
    emulator.faults.update({"model_delay": 0.1, "model_chunk_delay": 0.2})
    async with claw(**CARDS) as service:
        await emulator.say("tell me all " + "x " * 30)
        card = await card_of(emulator)
        await until(lambda: card.state is FakeCardState.STREAMING)
        await service.kill()
    emulator.faults.update({"model_chunk_delay": 0.0})
    async with claw(**CARDS):
        await finished(emulator)
        assert "x x x" in card.text
        assert len(emulator.cards.cards) == 1


async def test_a_drain_says_so_in_the_card(emulator: Emulator, claw: Claw) -> None:
    """A card whose turn is given back tells that it goes on; the next process ends it, also in markdown mode."""
    emulator.faults.update({"model_delay": 0.1, "model_chunk_delay": 0.3})
    async with claw(**CARDS, CLAW_DRAIN_TIMEOUT="1") as service:
        await emulator.say("tell me all " + "x " * 60)
        card = await card_of(emulator)
        await until(lambda: card.state is FakeCardState.STREAMING)
        assert await service.terminate() == 0
    assert texts.PAUSED[Language.EN] in card.text
    emulator.faults.update({"model_chunk_delay": 0.0})
    async with claw(**CARDS):
        await finished(emulator)
    assert texts.PAUSED[Language.EN] not in card.text


async def test_a_reaction_while_nothing_is_visible(emulator: Emulator, claw: Claw) -> None:
    """In markdown mode a slow answer gets a reaction within 2.5 s, and one "still working"; the reaction goes again."""
    emulator.faults.update({"model_delay": 4.0})
    async with claw(CLAW_PATIENCE="3"):
        began = time.monotonic()
        said = await emulator.say("what is slow")
        message = emulator.chats.find(said.msg_id)
        await until(lambda: message.reactions)
        assert time.monotonic() - began < 2.6
        assert message.reactions == [texts.REACTION[Language.EN]]
        first = await emulator.wait_reply_to(said)
        assert "Still working" in first.text
        await until(lambda: len(emulator.replies.to(said.msg_id)) == 2)
        await until(lambda: not message.reactions)


async def test_an_answer_in_time_costs_no_reaction(emulator: Emulator, claw: Claw) -> None:
    """A fast answer, and a command, cost no call but their own."""
    async with claw() as service:
        began = time.monotonic()
        await emulator.wait_reply_to(await emulator.say("hello there"))
        took = time.monotonic() - began
        await emulator.wait_reply_to(await emulator.say("/help"))
        calls = await count_calls(service)
        assert (calls[Api.WEBHOOK], calls[Api.RECEIPT]) == (2, 2)
        # On a machine that is busy with other tests a fast answer may be a slow one.
        assert calls.get(Api.REACTION, 0) == 0 or took > 1.5


async def test_who_waits_behind_another_gets_a_sign_too(emulator: Emulator, claw: Claw) -> None:
    """A message whose turn has not begun, since its conversation is busy, is seen to have arrived."""
    emulator.faults.update({"model_delay": 3.0})
    async with claw():
        first = await emulator.say("what is slow")
        second = await emulator.say("and this")
        waiting = emulator.chats.find(second.msg_id)
        await until(lambda: waiting.reactions, 3)
        assert not emulator.replies.to(first.msg_id)
        await emulator.wait_reply_to(second)
        await until(lambda: not waiting.reactions)


async def test_a_cap_on_webhooks_is_recognised(emulator: Emulator, claw: Claw) -> None:
    """Where an administrator has capped the webhooks, answers go the other way at once, and the operator reads why."""
    emulator.faults.update({"webhook_month_cap": 1})
    async with claw() as service:
        for question in ("first question", "second question", "third question"):
            await emulator.say(question)
            await until(lambda question=question: any(question in each.text for each in emulator.replies.log))  # type: ignore[misc]
        told = await service.wait_log("DingTalk says that a quota is used up")
        assert "用量管控" in told["cause"]
        await asyncio.sleep(0.1)
        refused = [entry for entry in service.logs if "session webhook cannot be used" in str(entry["message"])]
        assert len(refused) == 1, "once it is known, nobody asks for it again"
