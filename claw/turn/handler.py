"""One turn: a message becomes an answer, by a command or by the model.

Order of events: who may not talk here is kept out; a command is obeyed; a message without anything to ask about gets
a hint; otherwise the model is told the system prompt, the newest turns of the conversation's memory and the message
(pictures as data URLs), and what it says becomes the answer, together with the turn that history will keep. What the
model cannot do is raised as ModelError; `apology` makes the answer that a person gets when it is given up.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from claw.config.settings import ConversationSettings
from claw.errors import MediaError, ModelError
from claw.inbox.routing import session_of
from claw.language import Language, detect_language
from claw.messages import Answer, ChatKind, Exchange, Inbound, Markdown, MediaKind, Outcome
from claw.observe import telemetry
from claw.secret import hash_id
from claw.store.ports import History
from claw.turn import texts
from claw.turn.access import AccessControl, Verdict, decide
from claw.turn.commands.handlers import CommandHandlers
from claw.turn.commands.parser import order_of
from claw.turn.model.chat import ChatModel, Message

log: Final = logging.getLogger(__name__)

TURN_KEPT_CHARS: Final = 20_000
"""Characters of one side of an exchange that history keeps: a pasted book would push everything else out."""
TOLD_EVERY_S: Final = 3600.0
"""Seconds between two words to somebody who is kept out, or over the limit."""
SHORTENED_TO: Final = 4
"""When the model's context overflows, one in so many of the turns is kept: the newest."""

_THOUGHTS: Final = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)


class MessageHandler:
    """Answers messages, one at a time per conversation: the order is the worker's business.

    `pictures` fetches a message's pictures as data URLs (raises MediaError).
    """

    def __init__(
        self,
        settings: ConversationSettings,
        *,
        model: ChatModel,
        history: History,
        door: AccessControl,
        orders: CommandHandlers,
        language: Language,
        pictures: Callable[[Inbound], Awaitable[list[str]]],
    ) -> None:
        self._settings = settings
        self._model = model
        self._history = history
        self._door = door
        self._orders = orders
        self._language = language
        self._pictures = pictures

    def _language_of(self, inbound: Inbound) -> Language:
        order = order_of(inbound.text)
        if order is None or order.chinese:
            return detect_language(inbound.text, self._language)
        # A command's name is Latin whoever writes it: it says nothing about the language of the person.
        return self._language

    async def answer(self, inbound: Inbound) -> Answer:
        """Answer a message. Raises ModelError, StoreError."""
        language = self._language_of(inbound)
        if inbound.quota_exhausted:
            log.error("DingTalk delivered a message without content: the month's quota is used up (code 20001)")
            return Answer.of(texts.QUOTA_EXHAUSTED[language], Outcome.DENIED)
        paired = await self._door.pair(inbound)
        rules = await self._door.rules()
        standing = rules.standing(inbound.sender.staff_id, inbound.conversation.kind)
        if decide(rules, inbound.conversation.kind, standing) is Verdict.KEPT_OUT:
            return await self._kept_out(inbound, language)
        session = session_of(inbound, self._settings.group_session)
        order = order_of(inbound.text)
        if order is not None:
            answer = Answer.of(await self._orders.obey(order, inbound, session, rules, language), Outcome.COMMAND)
        elif paired and self._door.by_code:
            # The message was the code: it is nothing to ask about, and in no language.
            return Answer.of(texts.PAIRED[self._language], Outcome.COMMAND)
        else:
            answer = await self._ask(inbound, session, language)
        return replace(answer, content=(Markdown(texts.PAIRED[language]), *answer.content)) if paired else answer

    async def _kept_out(self, inbound: Inbound, language: Language) -> Answer:
        """In a group silence; in a direct chat a word, once an hour: each one costs the user's quota."""
        direct = inbound.conversation.kind is ChatKind.DIRECT
        if not direct or not await self._door.is_first_word(inbound, "kept out", TOLD_EVERY_S):
            return Answer.of("", Outcome.DENIED)
        staff = inbound.sender.staff_id or texts.NO_STAFF_ID[language]
        return Answer.of(texts.KEPT_OUT[language].format(staff=staff), Outcome.DENIED)

    async def _ask(self, inbound: Inbound, history_key: str, language: Language) -> Answer:
        said = self._said(inbound, language)
        pictures: list[str] = []
        if any(media.kind is MediaKind.PICTURE for media in inbound.media):
            try:
                pictures = await self._pictures(inbound)
            except MediaError as error:
                log.warning("picture not fetched", extra={"cause": error.reason})
                if not inbound.text:
                    return Answer.of(texts.PICTURE_LOST[language], Outcome.ANSWERED)
                said = f"{said}\n{texts.PICTURE_LOST_MARK[language]}"
        if not said and not pictures:
            hint = texts.UNREADABLE if inbound.msgtype not in {"text", "richText"} else texts.NO_TEXT
            return Answer.of(hint[language], Outcome.ANSWERED)
        if not await self._door.has_budget(inbound):
            if not await self._door.is_first_word(inbound, "limit", TOLD_EVERY_S):
                return Answer.of("", Outcome.DENIED)
            return Answer.of(texts.LIMIT_REACHED[language].format(limit=self._door.daily_limit), Outcome.DENIED)
        epoch = await self._history.epoch(history_key)
        turns = (
            await self._history.exchanges(history_key, self._settings.history_turns)
            if self._settings.history_turns
            else []
        )
        completion = await self._model.ask(
            self._messages(turns, said, pictures),
            user=hash_id(f"{history_key}:{epoch}"),
            shorten=lambda: self._shortened(turns, said, pictures),
        )
        text = strip_reasoning(completion.text)
        kept = Exchange(history_key, self._kept(said, pictures, language), text[:TURN_KEPT_CHARS])
        if completion.cut:
            text += "\n\n" + texts.CUT[language]
        return Answer.of(text, Outcome.ANSWERED, exchange=kept)

    def _said(self, inbound: Inbound, language: Language) -> str:
        """What the model is told that the person said; empty where there is nothing to ask about."""
        files = [
            texts.ATTACHMENT[language].format(name=media.name or media.kind.value)
            for media in inbound.media
            if media.kind in {MediaKind.FILE, MediaKind.VIDEO}
        ]
        if inbound.msgtype == "unknownMsgType":
            return ""
        if not inbound.text and not inbound.quoted:
            return "\n".join(files) if any(media.kind is MediaKind.FILE for media in inbound.media) else ""
        quoted = ["> " + line for line in inbound.quoted.splitlines()]
        parts = [texts.QUOTE[language], *quoted, ""] if quoted else []
        return "\n".join([*parts, inbound.text, *files]).strip()

    def _messages(self, turns: Sequence[Exchange], said: str, pictures: Sequence[str]) -> list[Message]:
        messages: list[Message] = []
        if self._settings.system_prompt:
            messages.append({"role": "system", "content": self._settings.system_prompt})
        for turn in turns:
            messages.append({"role": "user", "content": turn.user})
            messages.append({"role": "assistant", "content": turn.assistant})
        if not pictures:
            messages.append({"role": "user", "content": said})
        else:
            content: list[Message] = [{"type": "text", "text": said}] if said else []
            content += [{"type": "image_url", "image_url": {"url": url}} for url in pictures]
            messages.append({"role": "user", "content": content})
        return messages

    def _shortened(self, turns: Sequence[Exchange], said: str, pictures: Sequence[str]) -> list[Message] | None:
        if not turns:
            return None
        keep = len(turns) // SHORTENED_TO
        return self._messages(turns[len(turns) - keep :], said, pictures)

    @staticmethod
    def _kept(said: str, pictures: Sequence[str], language: Language) -> str:
        marks = " ".join([texts.PICTURE_MARK[language]] * len(pictures))
        return f"{said} {marks}".strip()[:TURN_KEPT_CHARS]

    def apology(self, inbound: Inbound, error: Exception) -> Answer:
        """What the person is told when a turn is given up: what happened, what helps, and the trace's id."""
        language = self._language_of(inbound)
        text = (texts.FAILURES[error.kind] if isinstance(error, ModelError) else texts.INTERNAL)[language]
        trace = telemetry.trace_id()
        if trace:
            text += texts.REFERENCE[language].format(trace=trace)
        return Answer.of(text, Outcome.FAILED, error=f"{type(error).__name__}: {error}"[:500])


def strip_reasoning(text: str) -> str:
    """Return an answer without the thoughts that some open models say aloud before it, in `<think>`."""
    said = _THOUGHTS.sub("", text, count=1).strip()
    return said or text.strip()
