"""What the model is told of a message and its conversation, and what history keeps of it."""

from __future__ import annotations

from claw.config.settings import ConversationSettings
from claw.messages import Answer, Exchange, Outcome
from claw.parts import Media, MediaKind
from claw.secret import Secret
from claw.store.sqlite.store import SqliteStore
from tests.messages import inbound
from tests.turn.harness import TurnHarness


async def test_history_and_prompt_reach_the_model(store: SqliteStore) -> None:
    """The model is told the system prompt, then the earlier exchanges in order, then the message."""
    turn = TurnHarness(store, ConversationSettings(system_prompt="be brief"))
    await turn.say(inbound("one"))
    answer = await turn.say(inbound("two"))
    assert answer == Answer.of("fine", Outcome.ANSWERED, exchange=Exchange("dingfakeclient:cidA", "two", "fine"))
    assert turn.model.asked[-1] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "fine"},
        {"role": "user", "content": "two"},
    ]


async def test_window_is_bounded(store: SqliteStore) -> None:
    """No more than CLAW_HISTORY_TURNS earlier exchanges are told, the newest ones."""
    turn = TurnHarness(store, ConversationSettings(history_turns=2))
    for text in ("a", "b", "c", "d"):
        await turn.say(inbound(text))
    assert [m["content"] for m in turn.model.asked[-1] if m["role"] == "user"] == ["b", "c", "d"]


async def test_gateway_keeps_the_session(store: SqliteStore) -> None:
    """With CLAW_HISTORY_TURNS=0 the model gets the system prompt and the newest message (docs/openclaw.md: history)."""
    turn = TurnHarness(store, ConversationSettings(system_prompt="p", history_turns=0))
    await turn.say(inbound("one"))
    await turn.say(inbound("two"))
    assert [m["content"] for m in turn.model.asked[-1]] == ["p", "two"]


async def test_shortened_keeps_the_newest(store: SqliteStore) -> None:
    """When the context overflows, the newest quarter of the exchanges is kept, and the message itself always."""
    turn = TurnHarness(store, ConversationSettings(history_turns=8))
    for number in range(9):
        await turn.say(inbound(str(number)))
    assert turn.model.shortened is not None
    assert [m["content"] for m in turn.model.shortened if m["role"] == "user"] == ["6", "7", "8"]


async def test_nothing_to_shorten(store: SqliteStore) -> None:
    """A first message that is too long cannot be shortened."""
    turn = TurnHarness(store, ConversationSettings())
    await turn.say(inbound("long"))
    assert turn.model.shortened is None


async def test_pictures_are_data_urls(store: SqliteStore) -> None:
    """A picture reaches the model as a data URL, and history keeps a mark in its place (docs/openclaw.md: images)."""
    turn = TurnHarness(store, ConversationSettings())
    media = (Media(MediaKind.PICTURE, Secret("dc1")),)
    answer = await turn.say(inbound("what is it?", msgtype="richText", media=media))
    assert turn.model.asked[-1][-1]["content"] == [
        {"type": "text", "text": "what is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]
    assert answer.exchange == Exchange("dingfakeclient:cidA", "what is it? [picture]", "fine", media=media)
