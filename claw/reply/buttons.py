"""The buttons of a card: stop the answer, say whether it helped (docs/protocol.md section 7.6).

Order of events of a press: the card is looked up; DingTalk gets its response at once, for it takes none after 2 s; then
the turn is stopped, or the vote counted. Stop is for who asked and for the owner; a vote for everybody, one each. What
the response says, only the person who pressed sees, in the template's variable NOTICE_FIELD.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from enum import StrEnum
from typing import Any, Final

from claw.errors import StoreError
from claw.language import Language
from claw.messages import CardCallback
from claw.observe import telemetry
from claw.reply import texts
from claw.secret import hash_id
from claw.store.ports import Cards
from claw.store.values import Interrupted, KeptCard

NOTICE_FIELD: Final = "notice"
"""The variable of our template that shows a word to the one person who pressed."""
VOTE_FIELD: Final = "vote"
"""The variable of our template that shows a person their own vote."""
ACTION_PARAM: Final = "action"
"""A parameter in which templates whose buttons have ids of their own name the action."""

log: Final = logging.getLogger(__name__)


class ButtonAction(StrEnum):
    """What a button of ours does: the action ids of deploy/card/template.json."""

    STOP = "stop"
    LIKE = "like"
    DISLIKE = "dislike"


class CardButtons:
    """Does what buttons say.

    `stop` ends the turn of a queue that answers one person (`Sender.key`); `find_owners` returns the owners' staff ids.
    """

    def __init__(
        self,
        cards: Cards,
        *,
        stop: Callable[[str, str], Awaitable[Interrupted]],
        find_owners: Callable[[], Awaitable[Collection[str]]],
        on_unknown: Callable[[CardCallback], Awaitable[None]],
        on_vote: Callable[[str, str, bool], None] = lambda _person, _chat, _liked: None,
    ) -> None:
        """`on_vote` hears who votes in which chat, and whether they like the answer."""
        self._cards = cards
        self._stop = stop
        self._find_owners = find_owners
        self._on_unknown = on_unknown
        self._on_vote = on_vote

    async def press(self, callback: CardCallback) -> None:
        """Handle a press. Raises nothing but cancellation: where nothing can be done the response is empty."""
        try:
            kept = await self._cards.find_card(callback.card_id)
            action = _find_action(callback)
            if kept is None or action is None:
                await self._on_unknown(callback)
            elif action is ButtonAction.STOP:
                await self._press_stop(callback, kept)
            else:
                await self._vote(callback, kept, action)
        except StoreError as error:
            log.warning("a button had no effect: the store failed", extra={"cause": str(error)})

    async def _press_stop(self, callback: CardCallback, kept: KeptCard) -> None:
        language = Language(kept.language)
        # By staff id alone: DingTalk says who pressed, and nobody can write that into a message.
        if callback.staff_id != kept.asker and callback.staff_id not in await self._find_owners():
            log.info("somebody else's answer was not stopped", extra={"person": hash_id(callback.staff_id)})
            await callback.respond(_tell(texts.NOT_YOURS[language]))
            return
        if kept.ended:
            # The answer may have ended while the press was on its way: the button is still there for a moment.
            await callback.respond(_tell(texts.ENDED_ALREADY[language]))
            return
        # Before anything is stopped: DingTalk shows what comes within 2 s, and the turn takes as long as it takes.
        await callback.respond(_tell(texts.STOPPING[language]))
        # A card that has not ended belongs, as a rule, to the turn that its queue works on, or that waits there for
        # another try. Not always: one that could not be ended outlives its turn, and in a group the next turn may be
        # somebody else's, which nobody here may stop. Hence only what answers the card's own person.
        stopped = await self._stop(kept.queue, kept.asker)
        log.info("stop pressed", extra={"card": kept.id, "stopped": stopped.value})

    async def _vote(self, callback: CardCallback, kept: KeptCard, action: ButtonAction) -> None:
        # Kept first: thanks for a vote that is lost would be a lie, and the store answers within milliseconds.
        before = await self._cards.vote(kept.id, callback.staff_id, action.value)
        thanks = texts.THANKS[Language(kept.language)]
        await callback.respond(_tell(thanks, {VOTE_FIELD: action.value}))
        # The same again counts once. A change of mind counts as a vote of its own: the log tells what it was before.
        if before != action.value:
            telemetry.feedback.add(1, {"vote": action.value})
            self._on_vote(callback.staff_id, callback.conversation_id, action is ButtonAction.LIKE)
            log.info("vote on an answer", extra={"card": kept.id, "vote": action.value, "before": before})


def _find_action(callback: CardCallback) -> ButtonAction | None:
    for name in (*callback.action_ids, callback.params.get(ACTION_PARAM, "")):
        try:
            return ButtonAction(name)
        except ValueError:
            continue
    return None


def _tell(notice: str, more: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Make the response that shows a word to the person who pressed."""
    return {
        "cardUpdateOptions": {"updateCardDataByKey": True, "updatePrivateDataByKey": True},
        "userPrivateData": {"cardParamMap": {NOTICE_FIELD: notice, **(more or {})}},
    }
