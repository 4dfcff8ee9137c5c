"""One turn: a message becomes an answer, by a command or by the model.

Order of events: a command answers at once; a message without anything to ask about gets a hint; otherwise the model
is told the system prompt, the newest turns of the conversation's memory and the message (pictures as data URLs),
and what it says becomes the answer, together with the turn that history will keep. What the model cannot do is
raised as ModelError; `apology` makes the answer that a person gets when it is given up.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from claw import telemetry
from claw.errors import MediaError, ModelError
from claw.messages import Answer, Inbound, Language, MediaKind, Outcome, Turn, hashed, language_of
from claw.settings import Dialogue
from claw.store.ports import History
from claw.turn import texts
from claw.turn.commands import Command, command_of
from claw.turn.faults import remedy_of as remedy_of_model
from claw.turn.llm import Completion

log: Final = logging.getLogger(__name__)

TURN_KEPT_CHARS: Final = 20_000
"""Characters of one side of an exchange that history keeps: a pasted book would push everything else out."""
SHORTENED_TO: Final = 4
"""When the model's context overflows, one in so many of the turns is kept: the newest."""

_THOUGHTS: Final = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)

Message = dict[str, Any]


class Asks(Protocol):
    """The model, as a conversation needs it."""

    async def ask(
        self, messages: Sequence[Message], *, user: str, shorten: Callable[[], Sequence[Message] | None] | None = None
    ) -> Completion: ...


class Conversations:
    """Answers messages, one at a time per conversation: the order is the worker's business.

    `pictures` fetches a message's pictures as data URLs (raises MediaError), `status` describes the service in one
    short text, `stop` interrupts the running turn of a lane and says whether there was one.
    """

    def __init__(
        self,
        settings: Dialogue,
        *,
        model: Asks,
        history: History,
        language: Language,
        pictures: Callable[[Inbound], Awaitable[list[str]]],
        status: Callable[[Language], Awaitable[str]],
        stop: Callable[[str], bool],
    ) -> None:
        self._settings = settings
        self._model = model
        self._history = history
        self._language = language
        self._pictures = pictures
        self._status = status
        self._stop = stop

    def _language_of(self, inbound: Inbound) -> Language:
        named = command_of(inbound.text) is not None
        # A command's name is Latin whoever writes it: it says nothing about the language of the person.
        return self._language if named and inbound.text.isascii() else language_of(inbound.text, self._language)

    async def answer(self, inbound: Inbound) -> Answer:
        """Answer a message. Raises ModelError, StoreError."""
        language = self._language_of(inbound)
        if inbound.quota_exhausted:
            log.error("DingTalk delivered a message without content: the month's quota is used up (code 20001)")
            return Answer(texts.QUOTA_EXHAUSTED[language], Outcome.DENIED)
        command = command_of(inbound.text)
        if command is not None:
            return Answer(await self._obey(command, inbound, language), Outcome.COMMAND)
        return await self._ask(inbound, language)

    async def _obey(self, command: Command, inbound: Inbound, language: Language) -> str:
        match command:
            case Command.NEW:
                await self._history.forget(inbound.conversation_key)
                return texts.FORGOTTEN[language]
            case Command.STOP:
                stopped = self._stop(inbound.conversation_key)
                return (texts.STOPPED if stopped else texts.NOTHING_TO_STOP)[language]
            case Command.HELP:
                return texts.HELP[language]
            case Command.STATUS:
                return await self._status(language)

    async def _ask(self, inbound: Inbound, language: Language) -> Answer:
        said = self._said(inbound, language)
        pictures: list[str] = []
        if any(media.kind is MediaKind.PICTURE for media in inbound.media):
            try:
                pictures = await self._pictures(inbound)
            except MediaError as error:
                log.warning("picture not fetched", extra={"cause": error.reason})
                if not inbound.text:
                    return Answer(texts.PICTURE_LOST[language], Outcome.ANSWERED)
                said = f"{said}\n{texts.PICTURE_LOST_MARK[language]}"
        if not said and not pictures:
            hint = texts.UNREADABLE if inbound.msgtype not in {"text", "richText"} else texts.NO_TEXT
            return Answer(hint[language], Outcome.ANSWERED)
        memory = inbound.conversation_key
        epoch = await self._history.epoch(memory)
        turns = await self._history.turns(memory, self._settings.history_turns) if self._settings.history_turns else []
        completion = await self._model.ask(
            self._messages(turns, said, pictures),
            user=hashed(f"{memory}:{epoch}"),
            shorten=lambda: self._shortened(turns, said, pictures),
        )
        text = spoken(completion.text)
        kept = Turn(memory, self._kept(said, pictures, language), text[:TURN_KEPT_CHARS])
        if completion.cut:
            text += "\n\n" + texts.CUT[language]
        return Answer(text, Outcome.ANSWERED, turn=kept)

    def _said(self, inbound: Inbound, language: Language) -> str:
        """What the model is told that the person said; empty where there is nothing to ask about."""
        files = [
            texts.ATTACHMENT[language].format(name=media.name or media.kind.value)
            for media in inbound.media
            if media.kind in {MediaKind.FILE, MediaKind.VIDEO}
        ]
        if not inbound.text and not inbound.quoted:
            return "\n".join(files) if any(media.kind is MediaKind.FILE for media in inbound.media) else ""
        quoted = ["> " + line for line in inbound.quoted.splitlines()]
        parts = [texts.QUOTE[language], *quoted, ""] if quoted else []
        return "\n".join([*parts, inbound.text, *files]).strip()

    def _messages(self, turns: Sequence[Turn], said: str, pictures: Sequence[str]) -> list[Message]:
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

    def _shortened(self, turns: Sequence[Turn], said: str, pictures: Sequence[str]) -> list[Message] | None:
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
        text = (texts.FAILURES[error.fault] if isinstance(error, ModelError) else texts.INTERNAL)[language]
        trace = telemetry.trace_id()
        if trace:
            text += texts.REFERENCE[language].format(trace=trace)
        return Answer(text, Outcome.FAILED, error=f"{type(error).__name__}: {error}"[:500])


def spoken(text: str) -> str:
    """An answer without the thoughts that some open models say aloud before it, in `<think>`."""
    said = _THOUGHTS.sub("", text, count=1).strip()
    return said or text.strip()


def remedy_of(error: Exception) -> str:
    """What an operator can do about a failed turn."""
    return remedy_of_model(error) if isinstance(error, ModelError) else "see the exception in the log"
