"""The draft of an answer to a person: signs of life before it, a card or messages for it.

Order of events: the sign is taken over when the turn begins. When the model is asked the draft begins to show: a card
(card.py) as soon as there is text, or CARD_DUE_S have passed, then a few steps of it; or, where answers are messages,
one line after CLAW_PATIENCE. `finish` waits for a call that is under way, then ends the card with the stored answer, or
sends messages. Where a card cannot be had the answer goes out as messages within the same turn.

A card is one more way, and no other thing: what of an answer is out is kept in it (`Answer.sent`, `CardText`), so that
another process goes on from there, in the same card.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from typing import Final

from claw.dingtalk.cards import CardPlace, CardStatus
from claw.draft import Activity, ActivityKind, DeliveryStoppedError, Persist, Suspension
from claw.errors import DingTalkError, DingTalkReason, StoreError
from claw.language import Language
from claw.messages import Answer, CardText, Content, Inbound, Markdown, Outcome
from claw.reply import texts
from claw.reply.card import CardState, LiveCard
from claw.reply.card_text import CardPlan, add_note, plan_card, show_so_far
from claw.reply.changes import DraftChanges
from claw.reply.delivering import Delivering, forget, settle
from claw.reply.signs import Sign
from claw.reply.spending import Allowance
from claw.store.values import Lease

CARD_DUE_S: Final = 1.2
"""Seconds from the asking of the model on after which its card is shown, whether there is text or not."""
OPEN_TRIES_MAX: Final = 2
"""Tries to make a card; then the answer goes out as messages."""
OPEN_WAIT_MAX_S: Final = 5.0
"""Seconds of a wait that DingTalk asks for within which a card is tried again: until then nothing at all is visible."""
CALL_UNDER_WAY_S: Final = 10.0
"""Seconds that the end of an answer waits for a step of its card that is under way: two at once may change places."""
SLOWNESS: Final = 1.5
"""A step comes no sooner than so many times the seconds that the last one took: DingTalk is busy."""
DRAIN_NOTE_S: Final = 0.5
"""Seconds that saying so in the card may take when the process ends. The message is given back after it, and all of
that has a second (inbox/worker.py); one that is not given back waits until its lease runs out."""
NOTICE_TIMEOUT_S: Final = 10.0
"""Seconds that the "still working" message may take."""
NOTICE_KEPT_S: Final = 24 * 3600.0
"""Seconds for which it is remembered that somebody was told to wait."""

log: Final = logging.getLogger(__name__)


class AnswerDraft:
    """The answer to a person's message."""

    def __init__(self, tools: Delivering, lease: Lease) -> None:
        self._tools = tools
        self._lease = lease
        self._sign: Sign = tools.signs.begin(lease)
        self._text = ""
        self._activity: Activity | None = Activity(ActivityKind.ASKED)
        """What the agent does now; None: it speaks."""
        self._changes = DraftChanges(tools.clock)
        self._task: asyncio.Task[None] | None = None
        self._is_finished = False
        self._is_asked = False
        """The model was asked: of a command there is nothing to show before its end."""
        self._shows_text = False
        """Its card shows what the model said, and not only what it does."""
        self._waits_for_room = False
        """A step of the card is wanted and not sent yet."""
        self._said: tuple[tuple[str, Activity | None], str] | None = None
        """What `_say` made last, and of what."""
        self._allowance: Allowance | None = None
        self._card: LiveCard | None = None
        self._language: Language | None = None

    def join(self, inbound: Inbound) -> None:
        """Note that it answers this message as well."""
        self._tools.signs.join(self._sign, inbound)

    def update(self, text: str) -> None:
        """Show the text so far, as far as there is a card."""
        self._text = text
        if text:
            self._activity = None
        self._begin_showing()

    def activity(self, activity: Activity) -> None:
        """Show what the agent is doing."""
        self._activity = activity
        self._begin_showing()

    async def finish(self, answer: Answer, persist: Persist) -> tuple[str, ...]:
        """Deliver what of `answer` is not out yet. Raises DingTalkError and whatever `persist` raises."""
        await self._stop_showing()
        # Pictures first: they take seconds, in which the card still shows the text so far, as it was.
        try:
            receipts = await self._deliver(
                await settle(self._tools.settler, self._lease.inbound, answer, persist), persist
            )
        except DeliveryStoppedError as stop:
            # Nobody wants more of it; what shows it must not go on typing.
            await self._end_stopped(stop)
            raise
        self._is_finished = True
        # Where nothing was said nothing was seen either: a denial in silence is no first sign.
        if answer.content:
            self._tools.signs.note_visible(self._sign)
        self._tools.signs.end(self._sign, stopped=answer.outcome is Outcome.STOPPED)
        return receipts

    async def suspend(self, why: Suspension) -> None:
        """Stop showing; a card stays open for the next try, and says so where the process ends."""
        if self._is_finished:
            return
        # Not waited for where the process ends, or where the card is another process' by now.
        await self._stop_showing(wait=why in {Suspension.RETRY, Suspension.GIVEN_UP})
        if why is Suspension.GIVEN_UP:
            self._is_finished = True
            self._tools.signs.end(self._sign)
        else:
            self._tools.signs.suspend(self._sign)
        card = self._card
        if card is None or card.state is not CardState.OPEN:
            return
        if why is Suspension.DRAIN:
            # Best effort, and a step like any other: what was cut off on its way may still come after it.
            with suppress(DingTalkError, TimeoutError):
                async with asyncio.timeout(DRAIN_NOTE_S):
                    note = texts.PAUSED[await self._recall_language()]
                    await card.step(add_note(card.shown, note, self._max_chars))
        # Open as it is: its turn goes on in it, or the upkeep ends it.
        card.leave()

    # --- while the model speaks --------------------------------------------------------------------------------------

    def _begin_showing(self) -> None:
        self._is_asked = True
        self._changes.note()
        # Not after the end: what a handler says that is being cancelled would begin to show once more.
        if self._task is None and not self._changes.closed:
            self._task = asyncio.create_task(self._show(), name="claw.reply.draft")

    async def _stop_showing(self, *, wait: bool = True) -> None:
        """End the task that shows; a call that is under way is waited for, since its text would come after ours."""
        self._changes.close()
        task = self._task
        if task is None:
            return
        try:
            # A step that still waits for room is not: all others go before it, in a crowd for many seconds.
            if wait and not self._waits_for_room:
                await asyncio.wait([task], timeout=CALL_UNDER_WAY_S)
        finally:
            # Also where the wait itself is cancelled, as at the end of a drain: no task of ours outlives its turn.
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self._task = None

    async def _show(self) -> None:
        """Show the draft until it is finished. Whatever goes wrong here costs nobody an answer."""
        try:
            self._allowance = await self._tools.spending.choose(self._lease.inbound.conversation.id)
            if not self._allowance.card or not await self._show_card(self._allowance):
                await self._show_patience()
        except (DingTalkError, StoreError, TimeoutError) as error:
            log.warning("an answer does not show before its end", extra={"cause": str(error)})
        except Exception:
            log.exception("an answer does not show before its end")
        finally:
            # A sign that was held for a card which did not come. At the end it is not wanted: the answer comes.
            if not self._changes.closed:
                self._tools.signs.expect_again(self._sign)

    async def _show_card(self, allowance: Allowance) -> bool:
        """Show a card until the draft is finished; return whether there is one. Raises StoreError."""
        card = await self._get_card()
        if card is None:
            return False
        if card.state is CardState.NEW:
            # At once with the first text; without any when it is due, or earlier in a crowd.
            await self._changes.wait_for_turn(self._tools.due, CARD_DUE_S, lambda: bool(self._text))
            if not await self._open(card):
                return not card.has_failed
        await self._step(card, allowance)
        return True

    async def _step(self, card: LiveCard, allowance: Allowance) -> None:
        """Fill the card by as many steps as it may have."""
        language = await self._recall_language()
        took = 0.0
        for number in range(allowance.steps):
            # Longer ones later: the longer an answer takes, the less one step more is worth.
            pause = allowance.intervals_s[min(number, len(allowance.intervals_s) - 1)]
            await self._wait_for_news(card, max(pause, took * SLOWNESS), language)
            if self._changes.closed:
                return
            began = self._tools.clock.monotonic()
            # Before the call: while it is under way the first text may come, which is not in it.
            has_text = bool(self._text)
            self._waits_for_room = True
            try:
                await card.step(self._say(language), on_begin=self._note_begun)
            except DingTalkError as error:
                self._tools.spending.note_refusal(error)
                log.info("a step of a card failed", extra={"cause": str(error)})
                # No step will do better. The end is tried all the same: it has another way as well.
                if not error.retryable:
                    return
            else:
                self._shows_text = has_text
            finally:
                self._waits_for_room = False
            took = self._tools.clock.monotonic() - began

    def _note_begun(self) -> None:
        self._waits_for_room = False

    async def _wait_for_news(self, card: LiveCard, pause: float, language: Language) -> None:
        """Return when there is something new to show: the first text at once, anything else after a pause."""
        if self._shows_text:
            await self._changes.sleep(pause)
        else:
            # What people wait for is the text.
            await self._changes.wait_until(lambda: bool(self._text), pause)
            if self._text:
                return
        await self._changes.wait_until(lambda: self._say(language) != card.shown)

    async def _open(self, card: LiveCard) -> bool:
        """Make the card; return whether it is there. Raises StoreError."""
        language = await self._recall_language()
        # Until the card is there, or is given up: both at once would be two signs, and two calls too many.
        self._tools.signs.hold(self._sign)
        for tried in range(1, OPEN_TRIES_MAX + 1):
            if self._changes.closed:
                return False
            # What the template shows around the text depends on it: words that type, or dots that wait.
            status = CardStatus.INPUTTING if self._text else CardStatus.PROCESSING
            try:
                await card.open(self._lease, self._say(language), status)
            except DingTalkError as error:
                self._tools.spending.note_refusal(error)
                wait = error.retry_after or 1.0
                if tried == OPEN_TRIES_MAX or not error.retryable or wait > OPEN_WAIT_MAX_S:
                    self._tools.signs.expect_again(self._sign)
                    await card.fail(error)
                    return False
                await self._changes.sleep(wait)
            else:
                self._shows_text = status is CardStatus.INPUTTING
                self._tools.signs.note_visible(self._sign)
                return True
        return False

    async def _show_patience(self) -> None:
        """Say once, after a time, that it takes longer."""
        tools = self._tools
        if tools.patience_s <= 0:
            return
        # From the asking of the model on, of this try: who waited in the queue has a reaction for that.
        await self._changes.sleep(tools.patience_s)
        if self._changes.closed or not await tools.once_per(f"working:{self._lease.inbound.key}", NOTICE_KEPT_S):
            return
        language = await self._recall_language()
        known = self._activity is not None and self._activity.kind is not ActivityKind.ASKED
        doing = self._describe_activity(language) if known else ""
        text = texts.STILL_WORKING[language].format(activity=doing).strip()
        # As a message of its own, of which nothing is kept. It counts as given before it is sent: twice would be worse.
        async with asyncio.timeout(NOTICE_TIMEOUT_S):
            await tools.sender.send(self._lease.inbound, Answer.of(text, Outcome.ANSWERED), forget)
        tools.signs.note_visible(self._sign)

    def _say(self, language: Language) -> str:
        """Make what the card is to show now."""
        head = self._text[: self._max_chars]
        made_of = (head, self._activity)
        # Asked with each piece that comes. A long answer's head does not change any more, and formatting it each time
        # would take as much of the loop as all else.
        if self._said is None or self._said[0] != made_of:
            self._said = made_of, show_so_far(head, self._describe_activity(language), language, self._max_chars)
        return self._said[1]

    def _describe_activity(self, language: Language) -> str:
        return "" if self._activity is None else texts.describe_activity(self._activity, language)

    # --- the end -----------------------------------------------------------------------------------------------------

    async def _deliver(self, answer: Answer, persist: Persist) -> tuple[str, ...]:
        card = await self._find_card(answer)
        if card is not None:
            answer, is_whole = await self._end_card(card, answer, persist)
            if is_whole:
                return answer.receipts
        if not answer.content:
            return answer.receipts
        by_openapi = self._allowance is not None and self._allowance.by_openapi
        try:
            return await self._tools.sender.send(self._lease.inbound, answer, persist, by_openapi=by_openapi)
        except DingTalkError as error:
            self._tools.spending.note_refusal(error)
            raise

    async def _find_card(self, answer: Answer) -> LiveCard | None:
        """Return the card that shows this answer, or is to show it; None where it goes out as messages."""
        if answer.sent or any(isinstance(each, CardText) for each in answer.content):
            return None
        if self._card is None and self._may_have_card:
            # A store that is away costs no answer its way out: without knowing of a card it is sent as messages.
            with suppress(StoreError):
                await self._get_card()
        elif self._card is None and self._is_asked and answer.outcome is Outcome.ANSWERED:
            # The model was so fast that nothing was shown yet.
            self._allowance = self._allowance or await self._tools.spending.choose(self._lease.inbound.conversation.id)
            if self._allowance.card:
                await self._get_card()
        card = self._card
        if card is None or card.state is CardState.OPEN:
            return card
        # Whatever is no answer of the model's is no reason to begin a card.
        allowed = self._allowance is not None and self._allowance.card and self._tools.desk.works
        is_answer = self._is_asked and answer.outcome is Outcome.ANSWERED and answer.text
        begins = card.state is CardState.NEW and is_answer
        return card if begins and allowed else None

    @property
    def _may_have_card(self) -> bool:
        """Whether an earlier try of this turn, here or elsewhere, may have made a card."""
        lease = self._lease
        # Not by one of them alone: a release takes `claims` back, and a wait for the model's server counts no attempt.
        tried = lease.claims > 1 or lease.attempts or lease.worked or lease.waiting_since or lease.answer is not None
        return bool(tried) or self._sign.may_be_elsewhere

    async def _get_card(self) -> LiveCard | None:
        """Return the card of this answer, made or not; None where none can be made now. Raises StoreError."""
        if self._card is None and CardPlace.exists_for(self._lease.inbound):
            card = LiveCard.of(self._tools.desk, self._lease, await self._recall_language())
            if self._may_have_card:
                await card.find()
            if card.state is CardState.OPEN or self._tools.desk.works:
                self._card = card
        return self._card

    async def _end_card(self, card: LiveCard, answer: Answer, persist: Persist) -> tuple[Answer, bool]:
        """End the card with the answer; return what is left to be sent as messages, and whether that is nothing."""
        language = await self._recall_language()
        plan = self._plan_end(answer, language)
        try:
            if card.state is CardState.NEW:
                await card.open(self._lease, plan.shown, CardStatus.FINISHED)
        except StoreError as error:
            # What cannot be kept is not made: nobody would know of a card that a crash leaves open.
            log.warning("no card: the store failed", extra={"cause": str(error)})
            return answer, False
        except DingTalkError as error:
            self._tools.spending.note_refusal(error)
            await self._give_card_up(card, error, language)
            return answer, False
        try:
            await card.end(plan.shown)
        except DingTalkError as error:
            self._tools.spending.note_refusal(error)
            await self._give_card_up(card, error, language)
            return answer, False
        receipts = (*answer.receipts, card.receipt) if card.receipt else answer.receipts
        rest: list[Content] = [each for each in answer.content if not isinstance(each, Markdown)]
        if plan.rest:
            rest.insert(0, Markdown(plan.rest))
        shown = CardText(plan.shown if plan.rest else answer.text)
        answer = replace(answer, content=(shown, *rest), receipts=receipts).with_sent(1)
        if rest:
            # A crash from here on goes on with the rest; before, the card is ended once more with the same text.
            try:
                await persist(answer)
            except DeliveryStoppedError as stop:
                stop.shown = plan.shown
                raise
        return answer, not rest

    def _plan_end(self, answer: Answer, language: Language) -> CardPlan:
        """Plan what the card shows at the end, and what follows as messages."""
        if answer.text:
            return plan_card(answer.text, language, self._max_chars)
        if answer.content:
            # Files alone, which a card cannot hold.
            return CardPlan(texts.BELOW[language], "")
        # It was stopped: the head that was shown stays. Nobody wants more of it, so that nothing follows.
        so_far = show_so_far(self._text, "", language, self._max_chars)
        return CardPlan(add_note(so_far, texts.STOPPED[language], self._max_chars), "")

    async def _end_stopped(self, stop: DeliveryStoppedError) -> None:
        """End the card and the sign of an answer whose delivery was stopped."""
        card = self._card
        if card is not None and card.state is CardState.OPEN:
            stop.shown = stop.shown or (card.shown if self._shows_text else "")
            mark = texts.STOPPED[await self._recall_language()]
            with suppress(DingTalkError, StoreError):
                await card.end(add_note(card.shown, mark, self._max_chars))
        self._is_finished = True
        self._tools.signs.end(self._sign, stopped=True)

    async def _give_card_up(self, card: LiveCard, error: DingTalkError, language: Language) -> None:
        """Go on with messages; a card that is there says so, as far as that can be done."""
        # What the store does not keep now costs no answer its way out: the upkeep finds the card open, and ends it.
        with suppress(StoreError):
            if card.state is CardState.NEW:
                await card.fail(error)
                return
            self._tools.desk.note_failure(error)
            if error.reason is DingTalkReason.CARD_GONE:
                # It was never made, by a try that failed or crashed half-way: there is nothing to be said in it.
                await card.forget()
                return
            with suppress(DingTalkError):
                # Shorter than what was refused, where it was refused for its length or its words.
                await card.end(texts.BELOW[language])
        if card.state is CardState.OPEN:
            # The upkeep tries again later.
            card.leave()

    @property
    def _max_chars(self) -> int:
        return self._tools.desk.look.max_chars

    async def _recall_language(self) -> Language:
        if self._language is None:
            self._language = await self._tools.recall_language(self._lease.inbound)
        return self._language
