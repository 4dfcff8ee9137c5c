"""One card that shows an answer: kept, made, filled by steps, ended; and those that nobody ended.

Order of events: `open` keeps the card in the store, then makes it with the text so far in it: a crash in between leaves
a card that is known and not there, and never one that is there and not known. `step` replaces the text. `end` writes
the last text, once as the last step and once for clients that were offline (docs/protocol.md section 10a), and keeps
that it has ended. Its id follows from the message's, so that another process, or another try, goes on with the same
card.

A card whose turn is over and that has not ended is ended by `end_orphans`: nothing types for ever.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

from claw.clock import Clock
from claw.dingtalk.cards import STATUS_FIELD, CardClient, CardPlace, CardStatus
from claw.errors import DingTalkError, DingTalkReason
from claw.language import Bilingual, Language
from claw.reply import texts
from claw.store.ports import Cards
from claw.store.values import KeptCard, Lease, RowPlace

END_DELAYS_S: Final = (0.0, 1.0)
"""Seconds before each try to end a card; after the last one the answer goes out as messages."""
END_WAIT_MAX_S: Final = 5.0
"""Seconds of a wait that DingTalk asks for within which ending a card is tried again: a person waits for the answer."""
BROKEN_S: Final = 600.0
"""Seconds for which no card is tried after DingTalk refused one for what an operator has to put right."""
ORPHAN_S: Final = 60.0
"""Seconds after which a card that has not ended is looked at."""
ORPHANS_MAX: Final = 20
"""Cards that are looked at each time."""

_OPERATOR_REASONS: Final = frozenset(
    {
        DingTalkReason.CARD_TEMPLATE,
        DingTalkReason.NO_PERMISSION,
        DingTalkReason.QUOTA_EXHAUSTED,
        DingTalkReason.IP_NOT_ALLOWED,
        DingTalkReason.ROBOT_INVALID,
    }
)
"""Reasons that another card would meet as well."""
_REMEDIES: Final = {
    DingTalkReason.CARD_TEMPLATE: Bilingual(
        "import and publish deploy/card/template.json and set CLAW_CARD_TEMPLATE_ID",
        "导入并发布 deploy/card/template.json，再设置 CLAW_CARD_TEMPLATE_ID",
    ),
    DingTalkReason.NO_PERMISSION: Bilingual(
        "grant Card.Instance.Write and Card.Streaming.Write in the developer console",
        "在开放平台开通 Card.Instance.Write 和 Card.Streaming.Write",
    ),
    DingTalkReason.CARD_NOT_SHOWN: Bilingual(
        "look whether the robot is in the chat; otherwise CLAW_REPLY_MODE=markdown",
        "看机器人是否在会话里；否则设 CLAW_REPLY_MODE=markdown",
    ),
    DingTalkReason.QUOTA_EXHAUSTED: Bilingual(
        "buy an add-on pack, or set CLAW_REPLY_MODE=auto",
        "购买增量包，或设 CLAW_REPLY_MODE=auto",
    ),
    DingTalkReason.TOO_LONG: Bilingual(
        "set CLAW_CARD_MAX_CHARS lower: the template takes less",
        "调小 CLAW_CARD_MAX_CHARS：模板容纳不下",
    ),
}

log: Final = logging.getLogger(__name__)


class CardState(Enum):
    """How far a card is."""

    NEW = auto()
    OPEN = auto()
    """It is shown, or may be."""
    ENDED = auto()
    FAILED = auto()
    """It could not be made: the answer goes out as messages."""


_NEXT: Final = {
    CardState.NEW: {CardState.OPEN, CardState.ENDED, CardState.FAILED},
    CardState.OPEN: {CardState.ENDED, CardState.FAILED},
    CardState.ENDED: set[CardState](),
    CardState.FAILED: set[CardState](),
}


@dataclass(frozen=True, slots=True)
class CardLook:
    """What a template shows. `key` is the variable of the text."""

    key: str
    max_chars: int


def make_card_id(key: str) -> str:
    """Return the id of the card for a message (`Inbound.key`): the same in each process."""
    # Hashed: as long as any other, and without characters that an address or a callback might change.
    return f"claw-{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:40]}"


class CardDesk:
    """What the cards of this process share: how they are made, what stopped working, which are still open."""

    def __init__(self, client: CardClient, cards: Cards, look: CardLook, clock: Clock) -> None:
        self.client = client
        self.cards = cards
        self.look = look
        self.clock = clock
        self._broken_until = float("-inf")
        self._told: set[DingTalkReason] = set()
        self.live: set[str] = set()
        """Ids of the cards that a draft of this process works on."""

    @property
    def works(self) -> bool:
        """Whether a card may be tried now."""
        # Beyond what DingTalk takes a second messages are the faster way: there is no such limit on them.
        return self.clock.monotonic() >= self._broken_until and not self.client.is_busy

    def note_failure(self, error: DingTalkError) -> None:
        """Note why there is no card, and tell the operator, once for each reason."""
        # For a while and not for good: what is put right in the console holds without a restart.
        if error.reason in _OPERATOR_REASONS:
            self._broken_until = self.clock.monotonic() + BROKEN_S
        level = logging.DEBUG if error.reason in self._told else logging.ERROR
        self._told.add(error.reason)
        extra = {"cause": str(error), "fault": error.reason.value, "remedy": _REMEDIES.get(error.reason, "")}
        log.log(level, "no card: answers go out as messages", extra=extra)

    async def end_orphans(self, place: Callable[[str, str], Awaitable[RowPlace]]) -> int:
        """End cards whose turns are over; return how many there were. `place` says where a message is.

        Raises StoreError.
        """
        ended = 0
        for kept in await self.cards.open_cards(self.clock.wall() - ORPHAN_S, ORPHANS_MAX):
            if kept.id in self.live or await place(kept.queue, kept.key) is not RowPlace.GONE:
                continue
            # The race: since the list was read its turn may have ended, and with it the card. An answer that is whole
            # must not be overwritten. Read again after its message is gone, for a card is kept as ended before that.
            now = await self.cards.find_card(kept.id)
            if now is None or now.ended:
                continue
            # Of several claws that find the same one, each writes the same text: that needs no lock.
            card = LiveCard(self, kept)
            card.transition(CardState.OPEN)
            text = texts.ORPHAN[Language(kept.language)]
            try:
                await card.end(text)
            except DingTalkError as error:
                log.warning("a card could not be ended", extra={"card": kept.id, "cause": str(error)})
                if error.retryable and error.tries_max is None:
                    # Not among those that are worked on any more, or nobody here would look at it again.
                    card.leave()
                    continue
                # It was never made, or nobody can change it: there is nothing more to do about it. A refusal that
                # nobody knows counts as that: each try of it is billed, each minute for as long as the card is kept.
                await card.forget()
            ended += 1
        return ended


class LiveCard:
    """One card. Calls for it are made one after the other, by one task at a time."""

    def __init__(self, desk: CardDesk, kept: KeptCard) -> None:
        self._desk = desk
        self._kept = kept
        self.state = CardState.NEW
        self.receipt = ""
        """DingTalk's `carrierId`, by which a quote names it."""
        self.shown = ""
        """The text that it shows, as far as we know."""
        self._may_exist = False
        """A call that was to make it got no answer, or was cut off: it is there, or it is not."""
        self._made_with: str | None = None
        """The text that it was made with, which clients that were offline have; None: not known."""

    @classmethod
    def of(cls, desk: CardDesk, lease: Lease, language: Language) -> LiveCard:
        """Return the card for a message, not yet made."""
        inbound = lease.inbound
        kept = KeptCard(
            id=make_card_id(inbound.key),
            key=inbound.key,
            queue=lease.route.queue,
            robot_code=inbound.robot_code,
            asker=inbound.sender.key,
            language=language.value,
            opened_at=desk.clock.wall(),
        )
        return cls(desk, kept)

    @property
    def id(self) -> str:
        return self._kept.id

    @property
    def has_failed(self) -> bool:
        """Whether the answer has to go out as messages."""
        return self.state is CardState.FAILED

    def transition(self, state: CardState) -> None:
        """Go on to `state`; there is no way back."""
        if state not in _NEXT[self.state]:
            raise RuntimeError(f"a card does not go from {self.state.name} to {state.name}")
        self.state = state
        # In one place, so that no way out of a card leaves it among those that the upkeep passes over.
        if state is CardState.OPEN:
            self._desk.live.add(self.id)
        else:
            self._desk.live.discard(self.id)

    async def find(self) -> None:
        """Go on with the card that an earlier try, or another process, has made. Raises StoreError."""
        # Its text is not kept: what it shows nobody here knows, and the next step or the end replaces all of it.
        kept = await self._desk.cards.find_card(self.id)
        if kept is not None and self.state is CardState.NEW:
            self._kept = kept
            # One that has ended already shows an answer: it is shown again, which changes nothing.
            self.transition(CardState.OPEN)

    async def open(self, lease: Lease, text: str, status: CardStatus) -> None:
        """Make the card with `text` in it. Raises DingTalkError, StoreError; may be called again then."""
        await self._desk.cards.keep_card(self._kept)
        # From here on it may exist, whatever becomes of the call. Made again under its id it is no second one.
        inbound = lease.inbound
        place = CardPlace(inbound.robot_code, inbound.conversation, inbound.sender)
        params = {self._desk.look.key: text, STATUS_FIELD: status.value}
        may_exist, self._may_exist = self._may_exist, True
        try:
            self.receipt = await self._desk.client.create(self.id, place, params)
            self._made_with = None if may_exist else text
        except DingTalkError as error:
            # It exists: what is lost is the answer of the call that made it, and its receipt.
            if error.reason is not DingTalkReason.CARD_EXISTS:
                self._may_exist = may_exist or error.maybe_delivered
                raise
        # As far as we know: one that an earlier call has made keeps the text of that call.
        self.shown = text
        if self.state is CardState.NEW:
            self.transition(CardState.OPEN)

    async def fail(self, error: DingTalkError) -> None:
        """Give the card up that could not be made. Raises StoreError."""
        self._desk.note_failure(error)
        self.transition(CardState.FAILED)
        # One that may exist all the same is left to the upkeep, or it would type for ever.
        if not self._may_exist:
            await self._keep_ended()

    async def step(self, text: str, on_begin: Callable[[], None] = lambda: None) -> None:
        """Replace the text; `on_begin` is called when the call is sent. Raises DingTalkError."""
        # Not tried again, and under a name of its own: the next step brings all that this one would have brought.
        await self._desk.client.stream(self.id, self._desk.look.key, text, uuid.uuid4().hex, on_begin=on_begin)
        self.shown = text

    async def end(self, text: str) -> None:
        """Show the last text. Raises DingTalkError where neither way works, StoreError."""
        client, key, guid = self._desk.client, self._desk.look.key, uuid.uuid4().hex
        # Once for clients that are there, whatever it was made with: only a last step ends the typing.
        refused = await self._try(lambda: client.stream(self.id, key, text, guid, final=True))
        if refused is not None and refused.reason is DingTalkReason.CARD_GONE:
            # The other call would find it no more than this one.
            raise refused
        # Once for clients that were offline, unless they have got this very text with the card.
        if refused is not None or self._made_with != text:
            params = {key: text, STATUS_FIELD: CardStatus.FINISHED.value}
            failure = await self._try(lambda: client.update(self.id, params))
            # One of them is enough: some apps have the one permission and not the other.
            if refused is not None and failure is not None:
                raise refused
        self.shown = text
        self.transition(CardState.ENDED)
        await self._keep_ended()

    def leave(self) -> None:
        """Stop working on it, open as it is: its turn goes on elsewhere or later, or the upkeep ends it."""
        self._desk.live.discard(self.id)

    async def forget(self) -> None:
        """Take it for ended though it may not be. Raises StoreError."""
        self.transition(CardState.FAILED)
        await self._keep_ended()

    async def _try(self, call: Callable[[], Awaitable[None]]) -> DingTalkError | None:
        """Make a call, several times where that may help; return why it failed."""
        error: DingTalkError | None = None
        for delay in END_DELAYS_S:
            if error is not None:
                wait = max(delay, error.retry_after or 0.0)
                if wait > END_WAIT_MAX_S:
                    # A proxy may ask for minutes. Messages need not wait for it.
                    return error
                await self._desk.clock.sleep(wait)
            try:
                await call()
            except DingTalkError as failure:
                error = failure
                if not failure.retryable:
                    return failure
            else:
                return None
        return error

    async def _keep_ended(self) -> None:
        # After the last text is shown, and before the message is acked: a crash in between shows the text once more,
        # and the upkeep, which sees a message that is gone, finds the card ended.
        self._kept = replace(self._kept, ended=True)
        await self._desk.cards.keep_card(self._kept)
