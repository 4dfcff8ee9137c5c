"""Settings of one chat, over those of the environment: who may talk, which model answers, and how.

Order of events: the page or an owner's command calls `ChatBook.change`, which checks and keeps them as one item of the
store. Acceptance asks `ChatBook.load` once and then `current` for each message, since the route of a message depends on
session and model. What another replica changed is seen within a few seconds: `refresh` is called again and again.

The model is a part of the conversation's key, so that neither history nor an agent's session leaks from one model to
another. That of the environment has none: the conversations of before stay what they were.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from claw.errors import ClawError
from claw.messages import ChatKind
from claw.policy import DirectPolicy, GroupPolicy, GroupSession, ReplyMode
from claw.store.ports import ConfigStore

CHAT_PREFIX: Final = "chat."
"""Items of the store: each holds the settings of one chat as JSON, by the conversation's id."""
PROMPT_MAX_CHARS: Final = 4_000
CHATS_MAX: Final = 2_000
"""Chats that may have settings of their own: they are looked at with every message."""
_MODEL_MARK: Final = " @"
"""Between a conversation's key and its model; no id of DingTalk's has a blank."""


class ChatSettingError(ClawError):
    """A setting of a chat that cannot be; `field` names it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """What is settled for one chat; empty means as everywhere."""

    policy: str = ""
    model: str = ""
    prompt: str = ""
    """Added to the system prompt."""
    session: str = ""
    reply_mode: str = ""

    def to_json(self) -> str:
        return json.dumps({name: value for name, value in asdict(self).items() if value}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> ChatSettings:
        """Read what was kept; what this version does not understand is passed over."""
        try:
            fields = json.loads(text)
            return cls(**{name: fields[name] for name in cls.__slots__ if isinstance(fields.get(name), str)})
        except (ValueError, TypeError, AttributeError):
            return cls()


@dataclass(frozen=True, slots=True)
class ChatChoices:
    """What a chat's settings may be."""

    models: tuple[str, ...]
    """The environment's model first."""

    def of(self, field: str, kind: ChatKind) -> tuple[str, ...]:
        """Return the values that a setting may have; none where it is free text."""
        match field:
            case "policy":
                return tuple(GroupPolicy if kind is ChatKind.GROUP else DirectPolicy)
            case "model":
                return self.models
            case "session":
                return tuple(GroupSession) if kind is ChatKind.GROUP else ()
            case "reply_mode":
                return tuple(ReplyMode)
        return ()

    def check(self, kind: ChatKind, changes: Mapping[str, Any]) -> dict[str, str]:
        """Return changes as settings; None and an empty text reset one. Raises ChatSettingError."""
        checked: dict[str, str] = {}
        for field, value in changes.items():
            if field not in ChatSettings.__slots__:
                raise ChatSettingError(field, f"unknown; must be one of: {', '.join(ChatSettings.__slots__)}")
            if value is None:
                value = ""  # noqa: PLW2901 - the same thing in another form
            if not isinstance(value, str):
                raise ChatSettingError(field, "must be a text or null")
            if field == "prompt":
                if len(value) > PROMPT_MAX_CHARS:
                    raise ChatSettingError(field, f"may have {PROMPT_MAX_CHARS} characters at most")
            elif value and value not in (known := self.of(field, kind)):
                raise ChatSettingError(field, f"must be one of: {', '.join(known)}" if known else "not for this chat")
            checked[field] = value.strip()
        return checked


def add_model(conversation_key: str, model: str) -> str:
    """Return the conversation's key with its model; an empty one is the environment's."""
    return f"{conversation_key}{_MODEL_MARK}{model}" if model else conversation_key


def split_model(conversation_key: str) -> tuple[str, str]:
    """Return a conversation's key without its model, and the model; empty: the environment's."""
    key, _, model = conversation_key.partition(_MODEL_MARK)
    return key, model


class ChatBook:
    """The settings of chats, as last read. `models`: those of the environment, the default first."""

    def __init__(self, config: ConfigStore, models: tuple[str, ...]) -> None:
        self._config = config
        self.choices = ChatChoices(models)
        self._chats: dict[str, ChatSettings] | None = None

    async def load(self) -> None:
        """Read the settings once. Raises StoreError: nobody may be routed as if there were none."""
        # Messages that come while it is read wait for it here, each by a reading of its own: it is asked for once in a
        # process' life, and costs nothing afterwards.
        if self._chats is None:
            await self.refresh()

    async def refresh(self) -> None:
        """Read the settings again. Raises StoreError."""
        items = await self._config.items(CHAT_PREFIX)
        self._chats = {name.removeprefix(CHAT_PREFIX): ChatSettings.from_json(text) for name, text in items.items()}

    def current(self, chat_id: str) -> ChatSettings:
        """Return a chat's settings, as last read."""
        return self._clean((self._chats or {}).get(chat_id, ChatSettings()))

    async def change(self, chat_id: str, kind: ChatKind, changes: Mapping[str, Any]) -> ChatSettings:
        """Change settings of a chat, and return all of them. Raises ChatSettingError, StoreError."""
        checked = self.choices.check(kind, changes)
        # Read again: another replica, or the page, may have changed another setting of this chat a second ago.
        await self.refresh()
        settings = replace((self._chats or {}).get(chat_id, ChatSettings()), **checked)
        # Nothing left to say: the item goes, so that the chat follows the environment again.
        if settings == ChatSettings():
            await self._config.delete(f"{CHAT_PREFIX}{chat_id}")
        elif chat_id not in (self._chats or {}) and len(self._chats or {}) >= CHATS_MAX:
            raise ChatSettingError(next(iter(checked)), f"{CHATS_MAX} chats have settings of their own already")
        else:
            await self._config.set(f"{CHAT_PREFIX}{chat_id}", settings.to_json())
        await self.refresh()
        return self.current(chat_id)

    def _clean(self, settings: ChatSettings) -> ChatSettings:
        # The environment's own needs no mark; one that is not offered any more is not asked.
        if settings.model and settings.model not in self.choices.models[1:]:
            return replace(settings, model="")
        return settings
