"""One turn: a message becomes an answer, by a command or by the model.

Order of events: the command that the message is, if any, is read once. Whoever may not talk here is denied. A command
is carried out, as long as its sender gives no more of them than a person does. Anything else counts to the sender's
day, before it costs anything. An empty message gets a usage hint. Otherwise the model is asked (prompt.py); the text so
far goes to the draft as it comes, and the whole of it becomes the answer, with the exchange that history will keep.

What the model cannot do is raised as ModelError, for the worker to try again; `failure_reply` makes the answer that a
person gets when a turn is given up: what came of the answer, if anything, and why it is not all. `patience_reply` says
that it takes longer.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from typing import Final

from claw.config.settings import ConversationSettings
from claw.draft import Draft
from claw.errors import MediaError, ModelError
from claw.language import Language, Text, detect_language
from claw.messages import Answer, ChatKind, Exchange, Inbound, Markdown, MediaKind, Outcome, Route
from claw.observe import telemetry
from claw.secret import hash_id
from claw.store.ports import History
from claw.turn import texts
from claw.turn.access import AccessControl, Decision, decide
from claw.turn.commands.handlers import CommandHandlers
from claw.turn.commands.parser import parse_command
from claw.turn.commands.registry import Command
from claw.turn.model.chat import ChatModel, Completion, Message, OnSent, Picture
from claw.turn.model.finish import FinishReason
from claw.turn.prompt import EXCHANGE_MAX_CHARS, Prompt, describe, drop_pictures, make_picture_part

log: Final = logging.getLogger(__name__)

NOTICE_INTERVAL_S: Final = 3600.0
"""Seconds between two notices to somebody who is denied, or over the limit: each costs the organisation's quota."""
ERROR_MAX_CHARS: Final = 500
"""What the dead letters keep of a cause."""
PARTIALS_MAX: Final = 64
"""Messages whose partial answers are kept while their turns are tried again."""

_REASONING: Final = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_REASONING_START: Final = "<think>"


@dataclass(frozen=True, slots=True)
class Question:
    """What the model is asked; `pictures` are parts of its message, given up when `on_sent` is called."""

    conversation_key: str
    said: str
    pictures: Sequence[Message]
    on_sent: OnSent


class MessageHandler:
    """Answers messages. That a conversation's messages come one at a time is the worker's business.

    `hold_pictures` fetches a message's pictures, and holds the room that they take (raises MediaError).
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
        hold_pictures: Callable[[Inbound], AbstractAsyncContextManager[Sequence[Picture]]],
    ) -> None:
        self._settings = settings
        self._model = model
        self._history = history
        self._access = access
        self._commands = commands
        self._language = language
        self._hold_pictures = hold_pictures
        # What came of answers that broke off, by message. In memory only: after a restart the next try counts alone.
        self._partials: dict[str, str] = {}

    async def handle(self, inbound: Inbound, route: Route, draft: Draft) -> Answer:
        """Answer a message; the text so far goes to `draft`. Raises ModelError, StoreError."""
        command = parse_command(inbound.text)
        language = self._choose_language(inbound, command)
        # Before the rules are read: the owner's first message is answered by the rules that it makes.
        paired = not inbound.quota_exhausted and await self._access.pair(inbound)
        rules = await self._access.read_rules()
        role = rules.find_role(inbound.sender, inbound.conversation.kind)
        if decide(rules, inbound.conversation.kind, role) is Decision.DENIED:
            return await self._deny(inbound, language)
        if inbound.quota_exhausted:
            log.error("DingTalk delivered a message without content: the month's quota is used up (code 20001)")
            return await self._tell_once(inbound, "exhausted", texts.QUOTA_EXHAUSTED[language])
        if command is not None:
            if not self._access.allow_answer(inbound):
                return await self._tell_once(inbound, "pace", texts.TOO_FAST[language])
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
        # Of all tries, the last of which may have brought less than the first.
        came = [self._partials.pop(inbound.key, ""), error.partial if isinstance(error, ModelError) else ""]
        if partial := select_shown(max(came, key=len)):
            text = f"{partial}\n\n{texts.INCOMPLETE[language]}{text}"
        trace = telemetry.trace_id()
        if trace:
            text += texts.REFERENCE[language].format(trace=trace)
        return Answer.of(text, Outcome.FAILED, error=f"{type(error).__name__}: {error}"[:ERROR_MAX_CHARS])

    def patience_reply(self, inbound: Inbound) -> Answer:
        """Tell the person that the model's server is waited for."""
        language = self._choose_language(inbound, parse_command(inbound.text))
        return Answer.of(texts.PATIENCE[language], Outcome.ANSWERED)

    def _choose_language(self, inbound: Inbound, command: Command | None) -> Language:
        if command is None or command.chinese:
            return detect_language(inbound.text, self._language)
        # A command's name is Latin whoever writes it: it says nothing about the language of the person.
        return self._language

    async def _deny(self, inbound: Inbound, language: Language) -> Answer:
        """Say nothing in a group; in a direct chat a word, once an hour."""
        # A group must not be disturbed by a robot that is not meant for it, and each word costs the month's quota.
        if inbound.conversation.kind is not ChatKind.DIRECT:
            return Answer.of("", Outcome.DENIED)
        staff = inbound.sender.staff_id or texts.NO_STAFF_ID[language]
        return await self._tell_once(inbound, "denied", texts.NOT_ALLOWED[language].format(staff=staff))

    async def _tell_once(self, inbound: Inbound, notice: str, text: str) -> Answer:
        """Say why there is no answer, once an hour to each person; otherwise nothing."""
        due = await self._access.once_per(inbound, notice, NOTICE_INTERVAL_S)
        return Answer.of(text if due else "", Outcome.DENIED)

    async def _hint(self, inbound: Inbound, language: Language, text: Text) -> Answer:
        """Tell what helps where there is nothing to ask the model: a call of DingTalk, hence at a person's pace."""
        if not self._access.allow_answer(inbound):
            return await self._tell_once(inbound, "pace", texts.TOO_FAST[language])
        return Answer.of(text[language], Outcome.ANSWERED)

    async def _ask(self, inbound: Inbound, conversation_key: str, language: Language, draft: Draft) -> Answer:
        # First of all: also what cannot be read costs calls of DingTalk, and each picture costs a fetch.
        if not await self._access.consume_quota(inbound):
            text = texts.LIMIT_REACHED[language].format(limit=self._access.daily_limit)
            return await self._tell_once(inbound, "limit", text)
        said = describe(inbound, language)
        async with AsyncExitStack() as room:
            pictures: list[Message] = []
            if any(media.kind is MediaKind.PICTURE for media in inbound.media):
                try:
                    held = await room.enter_async_context(self._hold_pictures(inbound))
                    pictures += map(make_picture_part, held)
                    room.callback(drop_pictures, pictures)
                except MediaError as error:
                    cause = {"cause": error.reason, "conversation": hash_id(conversation_key)}
                    log.warning("picture not fetched", extra=cause)
                    if not inbound.text:
                        return await self._hint(inbound, language, texts.PICTURE_LOST)
                    said = f"{said}\n{texts.PICTURE_LOST_MARK[language]}"
            # Never sent on: servers answer an empty text with a 400 (docs/openclaw.md).
            if not said and not pictures:
                hint = texts.UNREADABLE if inbound.msgtype not in {"text", "richText"} else texts.NO_TEXT
                return await self._hint(inbound, language, hint)
            # The room is others' as soon as the server has the pictures: an agent may work on them for minutes.
            shown = ShownText(draft)
            question = Question(conversation_key, said, pictures, room.aclose)
            return await self._answer(inbound, language, question, shown)

    async def _answer(self, inbound: Inbound, language: Language, question: Question, shown: ShownText) -> Answer:
        """Make an answer of what the model says."""
        conversation_key = question.conversation_key
        try:
            prompt, completion, epoch = await self._complete(question, shown)
        except (ModelError, asyncio.CancelledError):
            # A cancelled turn may be one that ran out of time: what came is told with its failure.
            self._keep_partial(inbound.key, shown.text)
            raise
        self._partials.pop(inbound.key, None)
        text = strip_reasoning(completion.text)
        exchange: Exchange | None = None
        if completion.finish is FinishReason.CONTENT_FILTER:
            # Without an exchange: it is no whole answer, and what a filter refuses would be refused with each question
            # that it is sent along with.
            text += "\n\n" + texts.FILTERED[language]
            log.warning("answer broken off by a content filter", extra={"conversation": hash_id(conversation_key)})
        else:
            exchange = Exchange(conversation_key, prompt.to_history(language), text[:EXCHANGE_MAX_CHARS], epoch)
        if completion.finish is FinishReason.LENGTH:
            # After the exchange: history keeps the model's words, and this notice is ours.
            text += "\n\n" + texts.CUT[language]
        return Answer.of(text, Outcome.ANSWERED, exchange=exchange)

    async def _complete(self, question: Question, shown: ShownText) -> tuple[Prompt, Completion, str]:
        """Ask the model within its conversation, and say in which epoch of it. Raises ModelError, StoreError."""
        # Before the exchanges: a `/new` in between would let them pass for the new conversation's. It raises the epoch,
        # and by another `user` a gateway begins another session.
        epoch = await self._history.epoch(question.conversation_key)
        limit = self._settings.history_turns
        # Where the gateway keeps the history, ours would be told twice (docs/openclaw.md): the limit is 0 then.
        exchanges = await self._history.exchanges(question.conversation_key, limit) if limit else []
        prompt = Prompt(self._settings.system_prompt, exchanges, question.said, question.pictures)
        completion = await self._model.ask(
            prompt.to_messages(),
            user=hash_id(f"{question.conversation_key}:{epoch}"),
            shorten=prompt.shorten,
            on_text=shown.add,
            on_sent=question.on_sent,
        )
        return prompt, completion, epoch

    def _keep_partial(self, key: str, text: str) -> None:
        if len(text) > len(self._partials.get(key, "")):
            self._partials[key] = text[:EXCHANGE_MAX_CHARS]
        while len(self._partials) > PARTIALS_MAX:
            del self._partials[next(iter(self._partials))]


class ShownText:
    """The text of an answer so far, which shows in a draft as it comes, its reasoning left out."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self.text = ""

    def add(self, piece: str) -> None:
        # Pieces come one for each read of the socket, not one for each token: adding them up stays cheap.
        self.text += piece
        if shown := select_shown(self.text):
            self._draft.update(shown)


def select_shown(so_far: str) -> str:
    """Return what may be shown of an answer that is not whole: nothing of a thought that has no end yet."""
    text = strip_reasoning(so_far)
    # What still is, or may become, a `<think>` without its end is not shown: it cannot be taken back.
    return "" if text.startswith(_REASONING_START) or _REASONING_START.startswith(text) else text


def strip_reasoning(text: str) -> str:
    """Return an answer without the thoughts that some open models say aloud before it, in `<think>`."""
    said = _REASONING.sub("", text, count=1).strip()
    return said or text.strip()
