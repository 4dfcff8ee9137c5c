"""One turn: a message becomes an answer, by a command or by the model.

Order of events: the command that the message is, if any, is read once. Whoever may not talk here is denied. A command
is carried out. An empty message gets a usage hint. Otherwise the model is asked (prompt.py); the text so far goes to
the draft as it comes, and the whole of it becomes the answer, together with the exchange that history will keep.

What the model cannot do is raised as ModelError, for the worker to try again; `failure_reply` makes the answer that a
person gets when a turn is given up.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from claw.config.settings import ConversationSettings
from claw.draft import Draft
from claw.errors import MediaError, ModelError
from claw.language import Language, detect_language
from claw.messages import Answer, ChatKind, Exchange, Inbound, Markdown, MediaKind, Outcome, Route
from claw.observe import telemetry
from claw.secret import hash_id
from claw.store.ports import History
from claw.turn import texts
from claw.turn.access import AccessControl, Decision, decide
from claw.turn.commands.handlers import CommandHandlers
from claw.turn.commands.parser import parse_command
from claw.turn.commands.registry import Command
from claw.turn.model.chat import ChatModel, Completion, OnText
from claw.turn.prompt import EXCHANGE_MAX_CHARS, Prompt, describe

log: Final = logging.getLogger(__name__)

NOTICE_INTERVAL_S: Final = 3600.0
"""Seconds between two notices to somebody who is denied, or over the limit: each costs the organisation's quota."""
ERROR_MAX_CHARS: Final = 500
"""What the dead letters keep of a cause."""

_REASONING: Final = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_REASONING_START: Final = "<think>"


class MessageHandler:
    """Answers messages. That a conversation's messages come one at a time is the worker's business.

    `load_pictures` fetches a message's pictures as data URLs (raises MediaError).
    """

    def __init__(
        self,
        settings: ConversationSettings,
        *,
        model: ChatModel,
        history: History,
        access: AccessControl,
        commands: CommandHandlers,
        language: Language,
        load_pictures: Callable[[Inbound], Awaitable[list[str]]],
    ) -> None:
        self._settings = settings
        self._model = model
        self._history = history
        self._access = access
        self._commands = commands
        self._language = language
        self._load_pictures = load_pictures

    async def handle(self, inbound: Inbound, route: Route, draft: Draft) -> Answer:
        """Answer a message; the text so far goes to `draft`. Raises ModelError, StoreError."""
        command = parse_command(inbound.text)
        language = self._choose_language(inbound, command)
        if inbound.quota_exhausted:
            log.error("DingTalk delivered a message without content: the month's quota is used up (code 20001)")
            return Answer.of(texts.QUOTA_EXHAUSTED[language], Outcome.DENIED)
        # Before the rules are read: the owner's first message is answered by the rules that it makes.
        paired = await self._access.pair(inbound)
        rules = await self._access.read_rules()
        role = rules.find_role(inbound.sender.staff_id, inbound.conversation.kind)
        if decide(rules, inbound.conversation.kind, role) is Decision.DENIED:
            return await self._deny(inbound, language)
        if command is not None:
            text = await self._commands.handle(command, inbound, route.conversation_key, rules, language)
            answer = Answer.of(text, Outcome.COMMAND)
        elif paired and self._access.pairs_by_code:
            # The message was the code: it is nothing to ask about, and in no language.
            return Answer.of(texts.PAIRED[self._language], Outcome.COMMAND)
        else:
            answer = await self._ask(inbound, route.conversation_key, language, draft)
        if not paired:
            return answer
        # In one text: a message of its own would be one more billed call.
        return replace(answer, content=(Markdown(f"{texts.PAIRED[language]}\n\n{answer.text}".strip()),))

    def failure_reply(self, inbound: Inbound, error: Exception) -> Answer:
        """Tell the person that a turn was given up: what happened, what helps, and the trace's id."""
        language = self._choose_language(inbound, parse_command(inbound.text))
        text = (texts.FAILURES[error.kind] if isinstance(error, ModelError) else texts.INTERNAL)[language]
        trace = telemetry.trace_id()
        if trace:
            text += texts.REFERENCE[language].format(trace=trace)
        return Answer.of(text, Outcome.FAILED, error=f"{type(error).__name__}: {error}"[:ERROR_MAX_CHARS])

    def _choose_language(self, inbound: Inbound, command: Command | None) -> Language:
        if command is None or command.chinese:
            return detect_language(inbound.text, self._language)
        # A command's name is Latin whoever writes it: it says nothing about the language of the person.
        return self._language

    async def _deny(self, inbound: Inbound, language: Language) -> Answer:
        """Say nothing in a group; in a direct chat a word, once an hour."""
        # A group must not be disturbed by a robot that is not meant for it, and each word costs the month's quota.
        direct = inbound.conversation.kind is ChatKind.DIRECT
        if not direct or not await self._access.once_per(inbound, "denied", NOTICE_INTERVAL_S):
            return Answer.of("", Outcome.DENIED)
        staff = inbound.sender.staff_id or texts.NO_STAFF_ID[language]
        return Answer.of(texts.NOT_ALLOWED[language].format(staff=staff), Outcome.DENIED)

    async def _ask(self, inbound: Inbound, conversation_key: str, language: Language, draft: Draft) -> Answer:
        said = describe(inbound, language)
        pictures: list[str] = []
        if any(media.kind is MediaKind.PICTURE for media in inbound.media):
            try:
                pictures = await self._load_pictures(inbound)
            except MediaError as error:
                log.warning(
                    "picture not fetched", extra={"cause": error.reason, "conversation": hash_id(conversation_key)}
                )
                if not inbound.text:
                    return Answer.of(texts.PICTURE_LOST[language], Outcome.ANSWERED)
                said = f"{said}\n{texts.PICTURE_LOST_MARK[language]}"
        # Never sent on: servers answer an empty text with a 400 (docs/openclaw.md).
        if not said and not pictures:
            hint = texts.UNREADABLE if inbound.msgtype not in {"text", "richText"} else texts.NO_TEXT
            return Answer.of(hint[language], Outcome.ANSWERED)
        # Counted last, so that only what costs a model call costs a question.
        if not await self._access.consume_quota(inbound):
            if not await self._access.once_per(inbound, "limit", NOTICE_INTERVAL_S):
                return Answer.of("", Outcome.DENIED)
            return Answer.of(texts.LIMIT_REACHED[language].format(limit=self._access.daily_limit), Outcome.DENIED)
        prompt, completion = await self._complete(conversation_key, said, pictures, draft)
        text = strip_reasoning(completion.text)
        exchange = Exchange(conversation_key, prompt.to_history(language), text[:EXCHANGE_MAX_CHARS])
        if completion.cut:
            # After the exchange: history keeps the model's words, and this notice is ours.
            text += "\n\n" + texts.CUT[language]
        return Answer.of(text, Outcome.ANSWERED, exchange=exchange)

    async def _complete(
        self, conversation_key: str, said: str, pictures: list[str], draft: Draft
    ) -> tuple[Prompt, Completion]:
        """Ask the model within its conversation. Raises ModelError, StoreError."""
        limit = self._settings.history_turns
        # Where the gateway keeps the history, ours would be told twice (docs/openclaw.md): the limit is 0 then.
        exchanges = await self._history.exchanges(conversation_key, limit) if limit else []
        prompt = Prompt(self._settings.system_prompt, exchanges, said, pictures)
        # `/new` raises the epoch, and by another `user` a gateway begins another session.
        epoch = await self._history.epoch(conversation_key)
        completion = await self._model.ask(
            prompt.to_messages(),
            user=hash_id(f"{conversation_key}:{epoch}"),
            shorten=prompt.shorten,
            on_text=show_text(draft),
        )
        return prompt, completion


def show_text(draft: Draft) -> OnText:
    """Return a callback that adds up pieces of text and shows the text so far in `draft`, its reasoning left out."""
    so_far = ""

    def on_text(piece: str) -> None:
        nonlocal so_far
        # Pieces come one for each read of the socket, not one for each token: adding them up stays cheap.
        so_far += piece
        text = strip_reasoning(so_far)
        # What still is, or may become, a `<think>` without its end is not shown: it cannot be taken back.
        if text and not text.startswith(_REASONING_START) and not _REASONING_START.startswith(text):
            draft.update(text)

    return on_text


def strip_reasoning(text: str) -> str:
    """Return an answer without the thoughts that some open models say aloud before it, in `<think>`."""
    said = _REASONING.sub("", text, count=1).strip()
    return said or text.strip()
