"""Settings of one chat: what they may be, how they are kept, and that models keep conversations apart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from claw.chat_settings import CHAT_PREFIX, ChatBook, ChatSettingError, ChatSettings, add_model, split_model
from claw.inbox.routing import Router
from claw.messages import ChatKind
from claw.policy import GroupSession
from claw.store.sqlite.store import SqliteStore
from claw.turn.commands.parser import is_urgent
from tests.messages import inbound

MODELS = ("first", "second", "openclaw/research")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = SqliteStore(tmp_path / "claw.db")
    await made.open()
    yield made
    await made.close()


async def test_what_is_changed_is_kept(store: SqliteStore) -> None:
    """Changes add up, another replica reads them, and a chat without any leaves no item."""
    book = ChatBook(store, MODELS)
    await book.change("cid", ChatKind.GROUP, {"model": "second", "prompt": " Sei kurz. "})
    await book.change("cid", ChatKind.GROUP, {"policy": "disabled"})
    other = ChatBook(store, MODELS)
    await other.load()
    assert other.current("cid") == ChatSettings(policy="disabled", model="second", prompt="Sei kurz.")
    assert other.current("elsewhere") == ChatSettings()
    await other.change("cid", ChatKind.GROUP, dict.fromkeys(ChatSettings.__slots__))
    assert await store.items(CHAT_PREFIX) == {}


async def test_a_model_that_is_not_offered_any_more_is_not_asked(store: SqliteStore) -> None:
    """When CLAW_MODELS loses a model, its chats are answered by the environment's."""
    await ChatBook(store, MODELS).change("cid", ChatKind.DIRECT, {"model": "second"})
    book = ChatBook(store, ("first",))
    await book.load()
    assert book.current("cid").model == ""


@pytest.mark.parametrize(
    ("kind", "changes", "field"),
    [
        (ChatKind.GROUP, {"policy": "owner"}, "policy"),
        (ChatKind.DIRECT, {"policy": "disabled"}, "policy"),
        (ChatKind.DIRECT, {"session": "per_user"}, "session"),
        (ChatKind.GROUP, {"model": "third"}, "model"),
        (ChatKind.GROUP, {"reply_mode": "film"}, "reply_mode"),
        (ChatKind.GROUP, {"prompt": 7}, "prompt"),
        (ChatKind.GROUP, {"prompt": "x" * 4001}, "prompt"),
        (ChatKind.GROUP, {"nonsense": "x"}, "nonsense"),
    ],
)
async def test_what_cannot_be_is_refused(
    store: SqliteStore, kind: ChatKind, changes: dict[str, Any], field: str
) -> None:
    """A refusal names the setting, and nothing is kept."""
    with pytest.raises(ChatSettingError) as caught:
        await ChatBook(store, MODELS).change("cid", kind, changes)
    assert caught.value.field == field
    assert await store.items(CHAT_PREFIX) == {}


@pytest.mark.parametrize("text", ["", "[]", "7", "not json", '{"model": 7, "policy": ["x"]}', '{"later": "x"}'])
def test_what_was_kept_by_another_version_is_passed_over(text: str) -> None:
    """Whatever an item holds, a chat has settings."""
    assert ChatSettings.from_json(text) == ChatSettings()


async def test_the_model_is_a_part_of_the_conversation(store: SqliteStore) -> None:
    """Another model means another conversation and another queue; the environment's leaves the key as it was."""
    book = ChatBook(store, MODELS)
    router = Router(GroupSession.SHARED, is_urgent, book)
    await router.load()
    message = inbound("hello")
    plain = router.route(message)
    assert plain.conversation_key == message.chat_key
    await book.change(message.conversation.id, message.conversation.kind, {"model": "openclaw/research"})
    routed = router.route(message)
    assert split_model(routed.conversation_key) == (message.chat_key, "openclaw/research")
    assert routed.queue != plain.queue
    await book.change(message.conversation.id, message.conversation.kind, {"model": "first"})
    assert router.route(message) == plain


def test_a_key_is_split_as_it_was_made() -> None:
    """A model may hold what keys hold, and a key without one has none."""
    for model in ("", "a", "openclaw/a", "qwen:7b@q4"):
        assert split_model(add_model("robot:cid+/=:$:LWCP_v1:$x", model)) == ("robot:cid+/=:$:LWCP_v1:$x", model)
