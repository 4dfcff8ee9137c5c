"""The owner's commands about what failed and about one chat.

`/dead` lists the dead letters, `/retry` puts them back; `/chat` shows and changes the settings of its
chat.

What people wrote is told in the owner's direct chat alone; in a group there is a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from claw.chat_settings import ChatSettingError, ChatSettings
from claw.language import Language, Text
from claw.messages import ChatKind
from claw.store.values import DeadLetter, Requeued
from claw.turn import owner_texts as texts
from claw.turn.access import AccessControl
from claw.turn.commands.actions import AdminActions
from claw.turn.commands.formatting import strip_markup
from claw.turn.commands.registry import COMMANDS, Invocation

LETTERS_SHOWN_MAX: Final = 10
RETRIED_MAX: Final = 100
"""Letters that `/retry all` puts back: each of them may cost an answer of the model."""
CAUSE_MAX_CHARS: Final = 120
QUESTION_MAX_CHARS: Final = 60
PROMPT_SHOWN_CHARS: Final = 100
_RESET: Final = frozenset({"reset", "default", "重置", "默认"})
_CHAT_FIELDS: Final = {
    "policy": "policy",
    "策略": "policy",
    "model": "model",
    "模型": "model",
    "prompt": "prompt",
    "提示词": "prompt",
    "session": "session",
    "会话": "session",
    "mode": "reply_mode",
    "回复": "reply_mode",
}
"""Settings by the words for them."""
_ALL: Final = frozenset({"all", "全部", "所有"})


class OwnerCommands:
    """That part of the command handlers which is about the operation of claw."""

    _actions: AdminActions
    _access: AccessControl

    @COMMANDS.command(
        "dead",
        "失败消息",
        "死信",
        owner_only=True,
        urgent=True,
        help_text=Text(
            "`/失败消息`（`/dead`）没能回答的消息　`/重试 编号`（`/retry`，或 `全部`）重新回答或发送",
            "`/dead` messages that could not be answered; `/retry NUMBER`, or `all`, to try one again",
        ),
    )
    async def _list_dead(self, call: Invocation) -> str:
        language = call.language
        letters = await self._actions.list_dead(LETTERS_SHOWN_MAX + 1)
        if not letters:
            return texts.NO_LETTERS[language]
        # What a colleague asked in confidence must not be read by a group, because its owner is curious there.
        if call.inbound.conversation.kind is ChatKind.GROUP:
            return texts.LETTERS_IN_DIRECT[language]
        lines = [self._format_letter(each, language) for each in letters[:LETTERS_SHOWN_MAX]]
        if len(letters) > LETTERS_SHOWN_MAX:
            lines.append(texts.MORE_LETTERS[language])
        return "\n".join([*lines, "", texts.RETRY_HINT[language]])

    def _format_letter(self, letter: DeadLetter, language: Language) -> str:
        inbound = letter.inbound
        at = datetime.fromtimestamp(letter.buried_at, ZoneInfo(self._access.timezone))
        return texts.LETTER[language].format(
            id=letter.id,
            at=f"{at:%m-%d %H:%M}",
            person=(strip_markup(inbound.sender.nick) if inbound else "") or "-",
            question=(strip_markup(inbound.text, QUESTION_MAX_CHARS) if inbound else "") or "-",
            cause=strip_markup(letter.error, CAUSE_MAX_CHARS),
        )

    @COMMANDS.command(
        "retry",
        "重试",
        owner_only=True,
        takes_arguments=True,
        urgent=True,
        help_text=Text(
            "`/失败消息`（`/dead`）没能回答的消息　`/重试 编号`（`/retry`，或 `全部`）重新回答或发送",
            "`/dead` messages that could not be answered; `/retry NUMBER`, or `all`, to try one again",
        ),
    )
    async def _retry(self, call: Invocation) -> str:
        language, words = call.language, call.arguments
        if not words:
            return texts.RETRY_USAGE[language]
        if words[0].lower() in _ALL:
            letters: Sequence[DeadLetter] = await self._actions.list_dead(RETRIED_MAX)
            ids = [each.id for each in reversed(letters)]
        else:
            ids = list(dict.fromkeys(words))[:RETRIED_MAX]
        # One after the other, the oldest first: in a conversation they are answered in the order in which they came.
        ends = [await self._actions.retry_dead(each) for each in ids]
        back = sum(end in {Requeued.ASK, Requeued.SEND} for end in ends)
        if back:
            await self._actions.note(call.inbound.sender.staff_id, "dead.retry", " ".join(ids)[:200], f"{back}")
        told = texts.RETRIED[language].format(count=back) if back else ""
        left = len(ends) - back
        return (told + (texts.NOT_RETRIED[language].format(count=left) if left else "")) or texts.NO_LETTERS[language]

    # --- the settings of one chat ------------------------------------------------------------------------------------

    @COMMANDS.command(
        "chat",
        "会话设置",
        owner_only=True,
        takes_arguments=True,
        help_text=Text(
            "`/会话设置`（`/chat`）本会话的设置：`策略`、`模型`、`提示词`、`会话`、`回复`，或 `重置`",
            "`/chat` the settings of this chat: `policy`, `model`, `prompt`, `session`, `mode`, or `reset`",
        ),
    )
    async def _change_chat(self, call: Invocation) -> str:
        where, language = call.inbound.conversation, call.language
        # All that stands behind the word, as it was written: a prompt has lines.
        # `call.words` would have lost them, and the blanks of an example in it.
        said = call.inbound.text.split(None, 2)
        word = said[1].lower() if len(said) > 1 else ""
        value = said[2].strip() if len(said) > 2 else ""
        try:
            if word in _RESET:
                await self._actions.book.change(where.id, where.kind, dict.fromkeys(ChatSettings.__slots__))
            elif word in _CHAT_FIELDS and value:
                value = "" if value.lower() in _RESET else value
                await self._actions.book.change(where.id, where.kind, {_CHAT_FIELDS[word]: value})
            elif word:
                return texts.CHAT_USAGE[language]
        except ChatSettingError as error:
            known = self._actions.book.choices.of(error.field, where.kind)
            return texts.CHAT_REFUSED[language].format(known=", ".join(f"`{each}`" for each in known) or "-")
        if word:
            await self._actions.note(call.inbound.sender.staff_id, "chat", where.id, f"{word} {value}".strip())
        return self._format_chat(call)

    def _format_chat(self, call: Invocation) -> str:
        book, language = self._actions.book, call.language
        own, default = book.current(call.inbound.conversation.id), texts.AS_EVERYWHERE[language]
        return texts.CHAT_SETTINGS[language].format(
            policy=own.policy or default,
            model=own.model or f"{book.choices.models[0]} ({default})",
            prompt=strip_markup(own.prompt, PROMPT_SHOWN_CHARS) or default,
            session=own.session or default,
            mode=own.reply_mode or default,
            models=", ".join(f"`{each}`" for each in book.choices.models),
        )
