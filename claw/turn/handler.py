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
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from typing import Final

from claw.chat_settings import ChatBook, split_model
from claw.config.settings import ConversationSettings
from claw.draft import Activity, ActivityKind, Draft
from claw.errors import ModelError, ModelErrorKind
from claw.language import Language
from claw.messages import Answer, ChatKind, Exchange, Inbound, Markdown, Outcome, Route
from claw.observe import telemetry
from claw.parts import Media, Words
from claw.policy import DirectPolicy
from claw.secret import hash_id
from claw.store.ports import History, MessageIndex, People
from claw.store.values import Follower
from claw.turn import texts
from claw.turn.access import AccessControl, Decision, Rules, decide
from claw.turn.attachments import Found, is_picture
from claw.turn.commands.handlers import CommandHandlers
from claw.turn.commands.parser import parse_command, strip_escape
from claw.turn.context import ContextWriter
from claw.turn.languages import PersonalLanguages
from claw.turn.model.chat import ChatModel, Completion, Message, OnSent
from claw.turn.model.finish import FinishReason
from claw.turn.model.thoughts import ThoughtFilter, filter_thoughts
from claw.turn.pictures import Picture
from claw.turn.prompt import EXCHANGE_MAX_CHARS, Prompt, drop_pictures, find_reach, make_picture_part
from claw.turn.quotes import resolve_quote
from claw.turn.rendering import Rendered, Renderer, collect
from claw.turn.vision import ModelVision
from claw.usage import CountUsage

log: Final = logging.getLogger(__name__)

NOTICE_INTERVAL_S: Final = 3600.0
"""Seconds between two notices to somebody who is denied, or over the limit: each costs the organisation's quota."""
ERROR_MAX_CHARS: Final = 500
"""What the dead letters keep of a cause."""
INTERRUPTED: Final = "[interrupted by the next message]"
"""What history keeps behind an answer that its asker interrupted."""
SHOWN_PART: Final = 100
"""The draft is told of a text when it has grown by one part in so many."""
PARTIALS_MAX: Final = 64
"""Messages whose partial answers are kept while their turns are tried again."""


HoldMedia = Callable[[str, Sequence[Media]], AbstractAsyncContextManager[Sequence[Found]]]
"""Fetches the media of a robot's message, and holds the room that pictures take (attachments.py)."""


@dataclass(frozen=True, slots=True)
class Question:
    """What the model is asked."""

    conversation_key: str
    rendered: Rendered
    prompt: Prompt
    epoch: str
    on_sent: OnSent
    model: str


class MessageHandler:
    """Answers messages. That a conversation's messages come one at a time is the worker's business."""

    def __init__(
        self,
        settings: ConversationSettings,
        *,
        model: ChatModel,
        history: History,
        access: AccessControl,
        commands: CommandHandlers,
        language: Language,
        hold_media: HoldMedia,
        index: MessageIndex,
        vision: ModelVision,
        people: People,
        chats: ChatBook,
        count_usage: CountUsage = lambda _inbound, _tokens_in, _tokens_out: None,
        context: ContextWriter | None = None,
    ) -> None:
        """`context`: None where the model is not told who speaks (CLAW_CONTEXT=off)."""
        self._settings = settings
        self._model = model
        self._history = history
        self._access = access
        self._commands = commands
        self._language = language
        self._languages = PersonalLanguages(people, language)
        self._hold_media = hold_media
        self._index = index
        self._vision = vision
        self._context = context
        self._chats = chats
        self._count_usage = count_usage
        # What came of answers that broke off, by message. In memory only: after a restart the next try counts alone.
        self._partials: dict[str, str] = {}

    async def handle(self, inbound: Inbound, route: Route, draft: Draft, followers: Sequence[Follower] = ()) -> Answer:
        """Answer a message, and `followers` with it; the text so far goes to `draft`. Raises ModelError, StoreError."""
        command = parse_command(inbound.text)
        language = await self._languages.choose(inbound, command)
        # Before the rules are read: the owner's first message is answered by the rules that it makes.
        paired = not inbound.quota_exhausted and await self._access.pair(inbound)
        rules = await self._access.read_rules(inbound.conversation.id)
        role = rules.find_role(inbound.sender, inbound.conversation.kind)
        # Before anything is fetched or asked: an outsider must not cost a call of the month.
        if decide(rules, inbound.conversation.kind, role) is Decision.DENIED:
            return await self._deny(inbound, rules, language)
        if inbound.quota_exhausted:
            log.error("DingTalk delivered a message without content: the month's quota is used up (code 20001)")
            return await self._tell_once(inbound, "exhausted", texts.QUOTA_EXHAUSTED[language])
        if command is not None:
            if not self._access.allow_answer(inbound):
                return await self._tell_once(inbound, "pace", texts.TOO_FAST[language])
            # A command is answered by its own pace and not from the day's questions: it costs no model.
            text = await self._commands.handle(command, inbound, route.conversation_key, rules, language)
            answer = Answer.of(text, Outcome.COMMAND)
        elif paired and self._access.pairs_by_code:
            # The message was the code: it is nothing to ask about, and in no language.
            return Answer.of(texts.PAIRED[self._language], Outcome.COMMAND)
        else:
            answer = await self._ask(inbound, route.conversation_key, language, draft, followers)
        if not paired:
            return answer
        # In one text: a message of its own would be one more billed call.
        return replace(answer, content=(Markdown(f"{texts.PAIRED[language]}\n\n{answer.text}".strip()),))

    async def select_followers(self, inbound: Inbound, followers: Sequence[Follower]) -> list[Follower]:
        """Return those of the messages right behind `inbound` that may be answered with it. Raises StoreError.

        Up to the first that is a command, that may not be answered, or whose sender has no question left.
        """
        if parse_command(inbound.text) is not None or inbound.quota_exhausted:
            return []
        rules = await self._access.read_rules(inbound.conversation.id)
        selected: list[Follower] = []
        for each in followers:
            asked = each.inbound
            role = rules.find_role(asked.sender, asked.conversation.kind)
            allowed = decide(rules, asked.conversation.kind, role) is Decision.ALLOWED
            if not allowed or asked.quota_exhausted or parse_command(asked.text) is not None:
                break
            # Taken here and not when it is answered: what is merged passes through no `_ask` of its own.
            if not await self._access.consume_quota(asked):
                break
            selected.append(each)
        return selected

    async def failure_reply(self, inbound: Inbound, error: Exception) -> Answer:
        """Tell the person that a turn was given up: what happened, what helps, and the trace's id."""
        language = await self._languages.recall(inbound)
        text = (texts.FAILURES[error.kind] if isinstance(error, ModelError) else texts.INTERNAL)[language]
        # Of all tries, the last of which may have brought less than the first.
        # The turn is over with this answer: what came of it belongs to it alone.
        came = [self._partials.pop(inbound.key, ""), error.partial if isinstance(error, ModelError) else ""]
        if partial := filter_thoughts(max(came, key=len)):
            text = f"{partial}\n\n{texts.INCOMPLETE[language]}{text}"
        trace = telemetry.trace_id()
        if trace:
            text += texts.REFERENCE[language].format(trace=trace)
        return Answer.of(text, Outcome.FAILED, error=f"{type(error).__name__}: {error}"[:ERROR_MAX_CHARS])

    async def patience_reply(self, inbound: Inbound) -> Answer:
        """Tell the person that the model's server is waited for."""
        return Answer.of(texts.PATIENCE[await self._languages.recall(inbound)], Outcome.ANSWERED)

    def interrupted_reply(self, inbound: Inbound, route: Route) -> Answer:
        """Say nothing of a turn that its sender's next message ended, but let the model know of it."""
        partial = filter_thoughts(self._partials.pop(inbound.key, ""))[:EXCHANGE_MAX_CHARS]
        said = inbound.text[:EXCHANGE_MAX_CHARS]
        exchange = Exchange(route.conversation_key, said, f"{partial} {INTERRUPTED}".strip()) if said else None
        return Answer((), Outcome.STOPPED, exchange=exchange)

    async def _deny(self, inbound: Inbound, rules: Rules, language: Language) -> Answer:
        """Say nothing in a group; in a direct chat a word, once an hour."""
        # A group must not be disturbed by a robot that is not meant for it, and each word costs the month's quota.
        if inbound.conversation.kind is not ChatKind.DIRECT:
            return Answer.of("", Outcome.DENIED)
        # Words that fit: who is no member has no staff id to give, and where only the owner may talk no list helps.
        if not inbound.sender.staff_id:
            text = texts.NOT_ALLOWED_GUEST[language]
        elif rules.direct_policy is DirectPolicy.OWNER:
            text = texts.NOT_ALLOWED_OWNER_ONLY[language]
        else:
            text = texts.NOT_ALLOWED[language].format(staff=inbound.sender.staff_id)
        return await self._tell_once(inbound, "denied", text)

    async def _tell_once(self, inbound: Inbound, notice: str, text: str) -> Answer:
        """Say why there is no answer, once an hour to each person; otherwise nothing."""
        due = await self._access.once_per(inbound, notice, NOTICE_INTERVAL_S)
        return Answer.of(text if due else "", Outcome.DENIED)

    async def _hint(self, inbound: Inbound, language: Language, text: str) -> Answer:
        """Tell what helps where there is nothing to ask the model: a call of DingTalk, hence at a person's pace."""
        if not self._access.allow_answer(inbound):
            return await self._tell_once(inbound, "pace", texts.TOO_FAST[language])
        return Answer.of(text, Outcome.ANSWERED)

    async def _ask(
        self, inbound: Inbound, conversation_key: str, language: Language, draft: Draft, followers: Sequence[Follower]
    ) -> Answer:
        # First of all: also what cannot be read costs calls of DingTalk, and each picture costs a fetch.
        if not await self._access.consume_quota(inbound):
            text = texts.LIMIT_REACHED[language].format(limit=self._access.daily_limit)
            return await self._tell_once(inbound, "limit", text)
        asked = [await self._prepare(each) for each in (inbound, *(follower.inbound for follower in followers))]
        # Before the exchanges: a `/new` in between would let them pass for the new conversation's. It raises the epoch,
        # and by another `user` a gateway begins another session.
        epoch = await self._history.epoch(conversation_key, idle_reset=self._settings.idle_reset)
        limit = self._settings.history_turns
        own, model = self._chats.current(inbound.conversation.id), self._model_of(conversation_key)
        # Where the gateway keeps the history, ours would be told twice (docs/openclaw.md): the limit is 0 then.
        exchanges = await self._history.exchanges(conversation_key, limit) if limit else []
        media = collect(asked)
        # The store is asked only where it matters: most questions have no picture.
        sees = not (any(map(is_picture, media)) or find_reach(exchanges)) or await self._vision.sees(model)
        reach = find_reach(exchanges) if sees else []
        async with AsyncExitStack() as room:
            wanted = [each for each in media if sees or not is_picture(each)]
            # In one go with the others, so that room is reserved once (attachments.py says why).
            wanted += [each for _, each in reach]
            found: Sequence[Found] = ()
            if wanted:
                found = await room.enter_async_context(self._hold_media(inbound.robot_code, wanted))
            rendered = self._render(asked, conversation_key, language, _spread(media, found, sees=sees))
            if not rendered.content:
                # Never sent on: servers answer an empty text with a 400 (docs/openclaw.md).
                return await self._hint(inbound, language, rendered.hint)
            within_reach = _group(reach, found[len(found) - len(reach) :] if reach else ())
            system = "\n\n".join(filter(None, (self._settings.system_prompt, own.prompt)))
            prompt = Prompt(system, exchanges, rendered.content, within_reach)
            # Whatever still names the prompt, a traceback for example, keeps no picture with it.
            room.callback(drop_pictures, prompt.pictures())
            draft.activity(Activity(ActivityKind.ASKED))
            # The room is others' as soon as the server has the pictures: an agent may work on them for minutes.
            question = Question(conversation_key, rendered, prompt, epoch, room.aclose, model)
            answer = await self._answer(inbound, language, question, ShownText(draft))
            return replace(answer, merged=tuple(each.seq for each in followers))

    async def _prepare(self, inbound: Inbound) -> Inbound:
        """Return the message as the model gets it: with what it quotes, as far as that can be found."""
        if inbound.text.startswith("//") and (not inbound.parts or isinstance(inbound.parts[0], Words)):
            parts = inbound.all_parts
            first = Words(strip_escape(parts[0].text)) if isinstance(parts[0], Words) else parts[0]
            inbound = replace(inbound, text=strip_escape(inbound.text), parts=(first, *parts[1:]))
        if inbound.quote is None:
            return inbound
        return replace(inbound, quote=await resolve_quote(self._index, inbound.chat_key, inbound.quote))

    def _render(
        self, asked: Sequence[Inbound], conversation_key: str, language: Language, found: Sequence[Found | None]
    ) -> Rendered:
        shared = asked[0].conversation.kind is ChatKind.GROUP and split_model(conversation_key)[0] == asked[0].chat_key
        renderer = Renderer(language, found, self._context, shared)
        for each in asked:
            renderer.add(each)
        return renderer.finish()

    async def _answer(self, inbound: Inbound, language: Language, question: Question, shown: ShownText) -> Answer:
        """Make an answer of what the model says."""
        conversation_key, rendered = question.conversation_key, question.rendered
        try:
            completion, is_blind = await self._complete(question, language, shown)
        except (ModelError, asyncio.CancelledError):
            # A cancelled turn may be one that ran out of time: what came is told with its failure.
            self._keep_partial(inbound.key, shown.text)
            raise
        usage = completion.usage
        self._count_usage(inbound, usage.input_tokens if usage else 0, usage.output_tokens if usage else 0)
        self._partials.pop(inbound.key, None)
        text = shown.finish(completion.text)
        if not text:
            # Never shown in place of an answer, as little as a thought beside one. A gateway has the question in its
            # session by now: another try would put it there twice.
            again = completion.finish in {FinishReason.NONE, FinishReason.STOP} and self._settings.history_turns > 0
            reason = f"nothing but thoughts came; finish_reason: {completion.finish.value}"
            raise ModelError(ModelErrorKind.EMPTY, reason, retryable=again)
        exchange: Exchange | None = None
        if completion.finish is FinishReason.CONTENT_FILTER:
            # Without an exchange: it is no whole answer, and what a filter refuses would be refused with each question
            # that it is sent along with.
            text += "\n\n" + texts.FILTERED[language]
            log.warning("answer broken off by a content filter", extra={"conversation": hash_id(conversation_key)})
        else:
            exchange = Exchange(
                conversation_key,
                rendered.history[:EXCHANGE_MAX_CHARS],
                text[:EXCHANGE_MAX_CHARS],
                question.epoch,
                () if is_blind else rendered.pictures,
            )
        if completion.finish is FinishReason.LENGTH:
            # After the exchange: history keeps the model's words, and this notice is ours.
            text += "\n\n" + texts.CUT[language]
        # Before the answer, as its reader must know what it is not about; in history are the model's words alone.
        notices = (*rendered.notices, texts.BLIND[language]) if is_blind else rendered.notices
        return Answer.of("\n\n".join((*notices, text)), Outcome.ANSWERED, exchange=exchange)

    async def _complete(self, question: Question, language: Language, shown: ShownText) -> tuple[Completion, bool]:
        """Ask the model, and say whether it turned out to see no pictures. Raises ModelError, StoreError."""
        prompt = question.prompt
        user = hash_id(f"{question.conversation_key}:{question.epoch}")
        # Looked at now: they are dropped from the prompt as soon as the server has them.
        has_pictures = bool(prompt.pictures())
        try:
            return await self._ask_model(question, prompt, user, shown), False
        except ModelError as error:
            if not has_pictures or not self._vision.may_be_refusal(error):
                raise
            refusal = error
        log.info("asking the model again without pictures", extra={"cause": refusal.reason})
        mark = texts.PICTURE_MISSING_MARK[language].format(of="", cause=texts.BLIND_CAUSE[language])
        try:
            completion = await self._ask_model(question, prompt.without_pictures(mark), user, shown)
        except ModelError as error:
            # It was not for the pictures, or there is another trouble by now: nothing is remembered.
            raise error from None
        # Only after an answer without them: the server may have refused for any other reason.
        await self._vision.remember_refusal(question.model)
        return completion, True

    async def _ask_model(self, question: Question, prompt: Prompt, user: str, shown: ShownText) -> Completion:
        shown.restart()
        return await self._model.ask(
            prompt.to_messages(),
            user=user,
            shorten=prompt.shorten,
            on_text=shown.add,
            on_activity=shown.note_activity,
            on_sent=question.on_sent,
            model=question.model,
        )

    def _model_of(self, conversation_key: str) -> str:
        """Return the model that answers in a conversation."""
        return split_model(conversation_key)[1] or self._chats.choices.models[0]

    def _keep_partial(self, key: str, text: str) -> None:
        if len(text) > len(self._partials.get(key, "")):
            self._partials[key] = text[:EXCHANGE_MAX_CHARS]
        while len(self._partials) > PARTIALS_MAX:
            del self._partials[next(iter(self._partials))]


def _spread(media: Sequence[Media], found: Sequence[Found], *, sees: bool) -> list[Found | None]:
    """Return what was found of all media in order; None for pictures that were not fetched for a model without eyes."""
    left = iter(found)
    return [next(left) if sees or not is_picture(each) else None for each in media]


def _group(reach: Sequence[tuple[int, Media]], found: Sequence[Found]) -> dict[int, list[Message]]:
    """Return pictures of earlier exchanges as parts, by exchange; what is gone, its mark in history tells."""
    parts: dict[int, list[Message]] = {}
    for (number, _), each in zip(reach, found, strict=True):
        if isinstance(each, Picture):
            parts.setdefault(number, []).append(make_picture_part(each))
    return parts


class ShownText:
    """The text of an answer so far, which shows in a draft as it comes, its thoughts left out."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._pieces: list[str] = []
        self._size = 0
        self._unshown = 0
        """Characters that came since the draft was last told."""
        self._thoughts = ThoughtFilter()
        self._shown = ""

    @property
    def text(self) -> str:
        """All that came, thoughts too."""
        return "".join(self._pieces)

    def restart(self) -> None:
        """Begin anew: what came so far belongs to a request that failed."""
        self._pieces, self._size, self._unshown, self._thoughts = [], 0, 0, ThoughtFilter()

    def add(self, piece: str) -> None:
        """Take the next piece, and show what may be shown."""
        self._pieces.append(piece)
        self._size += len(piece)
        self._unshown += len(piece)
        was_thinking = self._thoughts.is_thinking
        self._thoughts.add(piece)
        if self._thoughts.is_thinking and not was_thinking:
            self.note_activity(Activity(ActivityKind.THINKING))
        # Putting a long text together costs its length: not for each of a hundred thousand tokens.
        if self._unshown * SHOWN_PART < self._size:
            return
        self._unshown = 0
        # Less than before where what was shown turns out to be a thought: it is taken back at once.
        if self._thoughts.text != self._shown:
            self._shown = self._thoughts.text
            self._draft.update(self._shown)

    def note_activity(self, activity: Activity) -> None:
        """Show what the agent is doing."""
        self._draft.activity(activity)

    def finish(self, whole: str) -> str:
        """Return what an answer says to people, all of which has come by now."""
        # A whole body that was no stream comes in one piece, or in none where only the end brought it.
        if len(whole) != self._size:
            return filter_thoughts(whole)
        self._thoughts.end()
        return self._thoughts.text
