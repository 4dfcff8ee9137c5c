"""Signs of life: a reaction under a person's message as long as nothing of its answer is visible.

Order of events: `expect` notes a message that was accepted here; `begin` takes its sign over for the turn that answers
it. When SIGN_S have passed and nothing is visible, the reaction is put; in a crowd the first ones earlier, so that the
last one is not late (dingtalk/pace.py). `end` takes it back; a turn that was stopped exchanges it, for no answer says
so. A message that waited elsewhere, or that outlived a crash, may have a reaction of which nobody here knows: it is
taken back all the same.

All of it is best effort: what fails is logged once an hour, and costs nobody an answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Final

from claw.clock import Clock
from claw.dingtalk.pace import DueCall, DueQueue
from claw.dingtalk.reactions import ReactionClient
from claw.errors import DingTalkError, StoreError
from claw.language import Bilingual, Language, detect_language
from claw.messages import Inbound, Route
from claw.observe import telemetry
from claw.reply import texts
from claw.secret import Secret
from claw.store.values import Lease

SIGN_S: Final = 2.0
"""Seconds after which a person must see that something happens."""
SIGNS_PER_QUEUE: Final = 3
"""Messages of a queue that get a reaction while they wait for their turns."""
LATE_SIGN_S: Final = 1.0
"""Seconds from the beginning of its turn on after which any other message gets one."""
PUT_DELAYS_S: Final = (0.0, 0.4, 1.2)
"""Seconds before each try to put a reaction: right after a message DingTalk may not know it (docs/protocol.md 6.5)."""
REMOVE_DELAYS_S: Final = (0.0, 1.5, 5.0)
LANGUAGE_CHARS: Final = 200
"""Characters of a message by which its language is told."""
EXPECTED_MAX: Final = 5_000
"""Messages whose signs are waited for; beyond that the oldest get none."""
FAULT_LOGGED_EVERY_S: Final = 3600.0
CLOSE_TIMEOUT_S: Final = 1.0
"""Seconds that reactions which are being taken back get at the end of the process."""

log: Final = logging.getLogger(__name__)


class SignState(Enum):
    """What became of a sign."""

    EXPECTED = auto()
    """Nothing was put yet."""
    PUTTING = auto()
    SHOWN = auto()
    NEEDLESS = auto()
    """Something else became visible first."""
    ENDED = auto()


_NEXT: Final = {
    SignState.EXPECTED: {SignState.PUTTING, SignState.NEEDLESS, SignState.ENDED},
    SignState.PUTTING: {SignState.SHOWN, SignState.NEEDLESS, SignState.ENDED},
    SignState.SHOWN: {SignState.ENDED},
    SignState.NEEDLESS: {SignState.ENDED},
    SignState.ENDED: set[SignState](),
}


@dataclass(slots=True, eq=False)
class Sign:
    """The sign of one message."""

    inbound: Inbound
    queue: str
    received_at: float
    """Seconds since the epoch."""
    state: SignState = SignState.EXPECTED
    claimed: bool = False
    """Its turn has begun here."""
    may_be_elsewhere: bool = False
    """Another process may have put it."""
    seen: bool = False
    """Something of ours was visible to the person, which counts once."""
    stopped: bool = False
    """Its turn was stopped, which the reaction in its place says."""
    call: DueCall | None = None
    putting: asyncio.Task[None] | None = None
    """Puts the reaction, and takes it back where it is not wanted any more when it is there."""
    joined: list[Sign] = field(default_factory=list)
    """Signs of messages that are answered with it."""

    def is_at(self, state: SignState) -> bool:
        """Whether that is its state now."""
        return self.state is state

    def transition(self, state: SignState) -> None:
        """Go on to `state`; there is no way back."""
        if state not in _NEXT[self.state]:
            raise RuntimeError(f"a sign does not go from {self.state.name} to {state.name}")
        self.state = state


class Signs:
    """The signs of this process. `run` is one named task of the reply room's.

    `may_react` says whether the budget has room for a reaction; `is_waiting` whether a message, which no turn here has
    begun, still waits and may be answered at all.
    """

    def __init__(
        self,
        reactions: ReactionClient,
        queue: DueQueue,
        *,
        may_react: Callable[[], Awaitable[bool]],
        is_waiting: Callable[[Inbound, str], Awaitable[bool]],
        language: Language,
        clock: Clock,
    ) -> None:
        self._reactions = reactions
        self._queue = queue
        self._may_react = may_react
        self._is_waiting = is_waiting
        self._language = language
        self._clock = clock
        self._signs: dict[str, Sign] = {}
        """Signs of messages whose turns have not begun here, by the messages' keys."""
        self._expected: Counter[str] = Counter()
        """How many of them there are, by queue."""
        self._begun: set[str] = set()
        """Keys of messages whose turns go on here."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._fault_logged_at = float("-inf")

    def expect(self, inbound: Inbound, route: Route) -> None:
        """Note a message that was accepted just now."""
        # The race: it is told of after its ack was written, and its turn may have begun before that.
        if route.urgent or inbound.key in self._begun:
            return
        # By our own clock: the time in the message is DingTalk's, and where ours is hours off, the sign would come at
        # once, or never.
        sign = self._signs[inbound.key] = Sign(_lighten(inbound), route.queue, self._clock.wall())
        self._expected[route.queue] += 1
        # Whoever writes a hundred messages in a row sees by the first of them that they arrive: each costs two calls.
        if self._expected[route.queue] <= SIGNS_PER_QUEUE:
            self._schedule(sign, self._clock.monotonic() + SIGN_S)
        # A dict keeps the order of coming. Who waited longest has seen a reaction, or will get an answer soon.
        while len(self._signs) > EXPECTED_MAX:
            oldest = self._forget(next(iter(self._signs)))
            if oldest is not None:
                self._unschedule(oldest)

    def begin(self, lease: Lease) -> Sign:
        """Take over the sign of a message whose turn begins."""
        sign = self._forget(lease.inbound.key)
        if sign is None:
            waited = self._clock.wall() - lease.received_at
            sign = Sign(lease.inbound, lease.route.queue, lease.received_at)
            if not lease.route.urgent:
                # Whoever accepted it, or worked on it before, may have put a reaction that is taken back from here.
                # That may cost a call for nothing; without it "working" may stand under a message for ever.
                sign.may_be_elsewhere = lease.claims > 1 or waited > SIGN_S
                self._schedule(sign, self._clock.monotonic() + max(0.0, SIGN_S - max(0.0, waited)))
        elif sign.state is SignState.EXPECTED and sign.call is None:
            self._schedule(sign, self._clock.monotonic() + LATE_SIGN_S)
        sign.claimed = True
        self._begun.add(lease.inbound.key)
        return sign

    def join(self, sign: Sign, inbound: Inbound) -> None:
        """Let the sign of another message end together with this one."""
        other = self._forget(inbound.key)
        if other is None:
            # Accepted elsewhere, or before a restart. It waited behind another turn, so that there may be a reaction;
            # one of ours is not needed, since the first message's stands for both.
            other = Sign(inbound, sign.queue, self._clock.wall(), SignState.NEEDLESS, may_be_elsewhere=True)
        other.claimed = True
        self._begun.add(inbound.key)
        sign.joined.append(other)

    def note_visible(self, sign: Sign) -> None:
        """Note that something else is visible: no reaction is needed, unless it is there already."""
        self._note_seen(sign)
        for each in (sign, *sign.joined):
            self._unschedule(each)
            # One that is being put is taken back by its own task, or not put at all if that still asks whether it may.
            if each.state in {SignState.EXPECTED, SignState.PUTTING}:
                each.transition(SignState.NEEDLESS)

    def hold(self, sign: Sign) -> None:
        """Put no reaction for now: something better is on its way."""
        for each in (sign, *sign.joined):
            self._unschedule(each)

    def expect_again(self, sign: Sign) -> None:
        """Put the reaction at once after all: what was on its way did not come."""
        for each in (sign, *sign.joined):
            # One whose time has not come yet keeps it: it was not held.
            if each.state is SignState.EXPECTED and each.call is None:
                self._schedule(each, self._clock.monotonic())

    def suspend(self, sign: Sign) -> None:
        """Keep a sign for the next try of its turn."""
        for each in (sign, *sign.joined):
            self._begun.discard(each.inbound.key)
            # Shown or not, it is the next turn's, which may be of these messages or of some of them alone.
            if each.state is not SignState.ENDED:
                each.claimed = False
                self._signs[each.inbound.key] = each
                self._expected[each.queue] += 1
        # What was on its way, and better than a reaction, is given up with the try.
        self.expect_again(sign)
        sign.joined = []

    def end(self, sign: Sign, *, stopped: bool = False) -> None:
        """Take the reaction back, in the background; the answer is out."""
        for each in (sign, *sign.joined):
            self._unschedule(each)
            self._begun.discard(each.inbound.key)
            each.stopped = stopped
            if each.state is SignState.ENDED:
                continue
            was_shown = each.state is SignState.SHOWN
            each.transition(SignState.ENDED)
            # One that is being put is taken back by its own task: two calls at once may change places.
            if each.putting is None and (was_shown or each.may_be_elsewhere):
                removing = self._take_back(each, is_ours=was_shown)
                self._own(asyncio.create_task(removing, name="claw.reply.remove_reaction"))

    async def run(self) -> None:
        """Put reactions when they are due, for ever; cancellation ends those that are on their way."""
        try:
            await self._queue.run()
        finally:
            await _cancel(self._tasks)

    async def close(self) -> None:
        """Let reactions that are being taken back go, for CLOSE_TIMEOUT_S at most; no task is left then."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=CLOSE_TIMEOUT_S)
        await _cancel(self._tasks)

    # --- one reaction ------------------------------------------------------------------------------------------------

    def _forget(self, key: str) -> Sign | None:
        """Take a sign out of those whose turns have not begun."""
        sign = self._signs.pop(key, None)
        if sign is not None:
            self._expected[sign.queue] -= 1
            if not self._expected[sign.queue]:
                del self._expected[sign.queue]
        return sign

    def _schedule(self, sign: Sign, due: float) -> None:
        def start() -> None:
            # A task, and not the queue's own: a call that hangs must hold up no other sign.
            sign.call = None
            sign.putting = asyncio.create_task(self._put(sign), name="claw.reply.put_reaction")
            self._own(sign.putting)

        sign.call = DueCall(due, start)
        self._queue.add(sign.call)

    def _unschedule(self, sign: Sign) -> None:
        if sign.call is not None:
            self._queue.remove(sign.call)
            sign.call = None

    async def _put(self, sign: Sign) -> None:
        try:
            is_put = False
            if sign.is_at(SignState.EXPECTED):
                sign.transition(SignState.PUTTING)
                name = texts.REACTION[self._choose_language(sign.inbound)]
                is_put = await self._is_wanted(sign) and await self._try(
                    lambda: self._reactions.add(sign.inbound, name), PUT_DELAYS_S, sign
                )
            if sign.is_at(SignState.PUTTING):
                sign.transition(SignState.SHOWN if is_put else SignState.NEEDLESS)
                if is_put:
                    self._note_seen(sign)
            elif is_put or sign.is_at(SignState.ENDED):
                # The race: while we asked, or while the reaction was on its way, the turn ended or its card came.
                await self._take_back(sign, is_ours=is_put)
        finally:
            sign.putting = None

    async def _is_wanted(self, sign: Sign) -> bool:
        """Whether the budget has room for it, and the message still waits where no turn here has begun."""
        try:
            if await self._may_react():
                waits = sign.claimed or await self._is_waiting(sign.inbound, sign.queue)
                # The race: while the store was asked, which called it leased, its turn may have begun here.
                if waits or sign.claimed:
                    return True
        except StoreError as error:
            log.debug("no reaction: the store failed", extra={"cause": str(error)})
        # Not kept: another process works on it, as a rule, and nobody here would ever take the sign over. Should its
        # turn begin here all the same, it gets a sign of its own.
        if self._signs.get(sign.inbound.key) is sign:
            self._forget(sign.inbound.key)
        return False

    async def _take_back(self, sign: Sign, *, is_ours: bool) -> None:
        """Take a reaction back that we have put, or that another process may have put."""
        if not is_ours and not (sign.may_be_elsewhere and await self._may_react()):
            # Where none are put there is none to be taken back, and each try would be a call.
            return
        sign.may_be_elsewhere = False
        language = self._choose_language(sign.inbound)
        name, stop_name = texts.REACTION[language], texts.STOPPED_REACTION[language]
        # One after the other: two calls at once may change places.
        await self._try(lambda: self._reactions.remove(sign.inbound, name), REMOVE_DELAYS_S)
        if sign.stopped:
            await self._try(lambda: self._reactions.add(sign.inbound, stop_name), PUT_DELAYS_S)

    async def _try(
        self, call: Callable[[], Awaitable[None]], delays_s: tuple[float, ...], sign: Sign | None = None
    ) -> bool:
        """Make a call, several times where it may help; with `sign` only as long as that is still to be put."""
        error: DingTalkError | None = None
        for delay in delays_s:
            if delay:
                await self._clock.sleep(delay)
            # Looked at again after each wait: people may see the answer by now.
            if sign is not None and not sign.is_at(SignState.PUTTING):
                return False
            try:
                await call()
            except DingTalkError as failure:
                error = failure
                if not failure.retryable:
                    break
            else:
                return True
        if error is not None:
            self._log_fault(error)
        return False

    def _log_fault(self, error: DingTalkError) -> None:
        # A permission that is missing fails for each message of a day: one line an hour tells as much.
        now = self._clock.monotonic()
        level = logging.DEBUG
        if now - self._fault_logged_at >= FAULT_LOGGED_EVERY_S:
            self._fault_logged_at, level = now, logging.WARNING
        remedy = Bilingual(
            "grant the robot's permissions, or set CLAW_REACTION=off", "开通机器人的权限，或设 CLAW_REACTION=off"
        )
        log.log(level, "no reaction on messages", extra={"cause": str(error), "remedy": remedy})

    def _note_seen(self, sign: Sign) -> None:
        if not sign.seen:
            sign.seen = True
            telemetry.first_sign_duration.record(max(0.0, self._clock.wall() - sign.received_at))

    def _choose_language(self, inbound: Inbound) -> Language:
        # By the message alone, not by what is remembered of its person: another process, or this one later, has to find
        # the same name, for a reaction is taken back by its name.
        return detect_language(inbound.text, self._language)

    def _own(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _lighten(inbound: Inbound) -> Inbound:
    """Return what a reaction needs of a message: a thousand that wait may have a fifth of a megabyte each."""
    return replace(
        inbound, text=inbound.text[:LANGUAGE_CHARS], parts=(), quote=None, people=(), webhook=Secret(""), unknown={}
    )


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    # A copy: each that ends takes itself out of the set.
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
