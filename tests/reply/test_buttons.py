"""The buttons of a card: who may stop an answer, what the one who pressed sees, and votes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from claw.errors import StoreError
from claw.language import Language, Text
from claw.messages import CardCallback
from claw.observe import telemetry
from claw.reply import texts
from claw.reply.buttons import NOTICE_FIELD, VOTE_FIELD, CardButtons
from claw.store.sqlite.store import SqliteStore
from claw.store.values import Interrupted, KeptCard
from tests.clock import FakeClock
from tests.reply.tools import open_store

ASKER, OWNER, OTHER = "u-1001", "u-boss", "u-1002"
CARD = KeptCard("claw-1", "dingfakeclient:msg1", "queue-1", "dingfakeclient", ASKER, "en", 1000.0)


class Kit:
    """Buttons over a real store, and what they did in their order."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.done: list[Any] = []
        self.fault: StoreError | None = None
        self.buttons = CardButtons(store, stop=self._stop, find_owners=self._find_owners, on_unknown=self._on_unknown)

    async def _stop(self, queue: str, asker: str) -> Interrupted:
        self.done.append(("stop", queue, asker))
        if self.fault is not None:
            raise self.fault
        return Interrupted.STOPPED

    async def _find_owners(self) -> list[str]:
        if self.fault is not None:
            raise self.fault
        return [OWNER]

    async def _on_unknown(self, callback: CardCallback) -> None:
        self.done.append(("unknown", callback.card_id))

    async def press(
        self, *actions: str, person: str = ASKER, card: str = CARD.id, params: Mapping[str, str] | None = None
    ) -> list[Any]:
        """Press a button; return what that did."""

        async def respond(response: Mapping[str, Any]) -> None:
            # Merged by key, or the card would lose what it shows; and for the one who pressed alone.
            assert response["cardUpdateOptions"] == {"updateCardDataByKey": True, "updatePrivateDataByKey": True}
            assert "cardData" not in response
            shown = response["userPrivateData"]["cardParamMap"]
            assert all(isinstance(each, str) for each in shown.values())
            self.done.append(shown)

        self.done.clear()
        await self.buttons.press(CardCallback(card, person, "cidA", actions, params or {}, respond))
        return list(self.done)


@pytest.fixture
async def kit(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Kit]:
    store = await open_store(tmp_path, clock)
    await store.keep_card(CARD)
    yield Kit(store)
    await store.close()


def told(words: Text) -> dict[str, str]:
    return {NOTICE_FIELD: words[Language.EN]}


@pytest.mark.parametrize("person", [ASKER, OWNER])
async def test_stop_is_for_who_asked_and_for_the_owner(kit: Kit, person: str) -> None:
    """Answered first, since DingTalk takes nothing after 2 s; only what answers the card's person is stopped."""
    assert await kit.press("stop", person=person) == [told(texts.STOPPING), ("stop", CARD.queue, ASKER)]


@pytest.mark.parametrize("person", [OTHER, ""], ids=["another", "an outsider"])
async def test_stop_is_refused_to_others(kit: Kit, person: str) -> None:
    """They are told so, and nothing happens."""
    assert await kit.press("stop", person=person) == [told(texts.NOT_YOURS)]


async def test_an_answer_that_has_ended_is_not_stopped(kit: Kit) -> None:
    """The press was late: whatever the queue works on now is another answer."""
    await kit.store.keep_card(KeptCard(**{name: getattr(CARD, name) for name in CARD.__slots__} | {"ended": True}))
    assert await kit.press("stop") == [told(texts.ENDED_ALREADY)]


@pytest.mark.parametrize(
    ("actions", "card"), [(("stop",), "claw-2"), (("buy",), CARD.id), ((), CARD.id)], ids=["card", "action", "none"]
)
async def test_what_is_not_known(kit: Kit, actions: tuple[str, ...], card: str) -> None:
    """A card of another program, or a button of a template of one's own: handed on, and not answered."""
    assert await kit.press(*actions, card=card) == [("unknown", card)]


async def test_the_action_may_be_named_by_a_parameter(kit: Kit) -> None:
    """Templates made in DingTalk's editor give their buttons ids of their own."""
    assert (await kit.press("button_7", params={"action": "stop"}))[1] == ("stop", CARD.queue, ASKER)
    assert (await kit.press("like", params={"action": "stop"}))[0][VOTE_FIELD] == "like"


async def test_a_store_that_is_away_costs_a_press_alone(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is raised: the socket that the press came by goes on."""
    kit.fault = StoreError("away")
    assert await kit.press("stop") == [told(texts.STOPPING), ("stop", CARD.queue, ASKER)]
    assert await kit.press("stop", person=OTHER) == []

    async def fail(*_: object) -> None:
        raise StoreError("away")

    monkeypatch.setattr(kit.store, "find_card", fail)
    assert await kit.press("like") == []
    assert caplog.messages == ["a button had no effect: the store failed"] * 3


async def test_votes_count_once_for_each_person(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The same again changes nothing, a change of mind does; the person sees their own vote. Names stay out of logs."""
    caplog.set_level(logging.INFO)
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr(telemetry, "feedback", provider.get_meter("tests").create_counter("feedback"))
    for person, vote in ((ASKER, "like"), (ASKER, "like"), (OTHER, "like"), (ASKER, "dislike")):
        assert await kit.press(vote, person=person) == [told(texts.THANKS) | {VOTE_FIELD: vote}]
    data = reader.get_metrics_data()
    assert data is not None
    points = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    votes = {(point.attributes or {})["vote"]: point.value for point in points}  # type: ignore[union-attr]
    assert votes == {"like": 2, "dislike": 1}
    assert [record.__dict__["before"] for record in caplog.records] == ["", "", "like"]
    assert ASKER not in caplog.text
    provider.shutdown()
