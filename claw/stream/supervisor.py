"""All slots, and what they are together: `CLAW_STREAM_CONNECTIONS` of them, each of which keeps one session serving.

DingTalk pushes each message to one of the open connections, so with two of them a `disconnect`, a rotation or a reset
of one leaves no gap. Slots rotate and ping at different times. Where DingTalk turns out to keep one connection only,
all slots but one are closed until the next rotation. In a pause all are closed, so that DingTalk pushes to others.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

import aiohttp

from claw.checks import Check
from claw.clock import Clock, format_rfc3339
from claw.config.settings import StreamSettings
from claw.errors import GatewayError
from claw.messages import CardCallback, Delivery
from claw.observe import telemetry
from claw.stream.counters import TOO_LARGE_REMEDY, SessionCounters
from claw.stream.gateway import Gateway, Registration, rejection_text
from claw.stream.limit import ConnectionLimit
from claw.stream.reason import Reason
from claw.stream.session import SessionConfig, open_session
from claw.stream.slot import Connect, SessionLike, Slot
from claw.stream.state import SlotState
from claw.stream.tasks import stop_tasks
from claw.stream.upgrade import HANDSHAKE_TIMEOUT_S

log: Final = logging.getLogger(__name__)

HISTORY_MAX: Final = 50
"""Changes of state that are remembered."""
GRACE_S: Final = 5.0
"""Seconds without a session that readiness does not speak of."""
DELIVERIES_TIMEOUT_S: Final = 2.0
"""Seconds that deliveries under way get when we stop."""
TOO_LARGE_TOLD_S: Final = 600.0
"""Seconds for which readiness tells of a frame too large, ready as it is: it comes again, and a person may look."""
ONE_CONNECTION: Final = (
    "钉钉只允许本应用保持一个连接：另有新连接时旧连接即被关闭，暂以一个连接运行。 / "
    "DingTalk lets this app hold one connection only: each new one closed the other; claw goes on with one."
)


class Supervisor:
    """All slots, and what they are together."""

    def __init__(
        self,
        settings: StreamSettings,
        gateway: Gateway,
        http: aiohttp.ClientSession,
        accept: Callable[[Delivery], Awaitable[None]],
        on_card: Callable[[CardCallback], Awaitable[None]],
        *,
        clock: Clock | None = None,
        handshake_timeout: float = HANDSHAKE_TIMEOUT_S,
        rng: random.Random | None = None,
    ) -> None:
        self._clock = clock or Clock()
        self._gateway = gateway
        config = SessionConfig(accept, on_card, settings.heartbeat, self._clock, handshake_timeout=handshake_timeout)
        self._deliveries = config.deliveries

        def connect_with(config: SessionConfig) -> Connect:
            async def connect(registration: Registration, counters: SessionCounters) -> SessionLike:
                return await open_session(http, registration, config, counters)

            return connect

        # By a share of their period each, so that no two slots rotate or ping at the same moment.
        phases = [number / settings.connections for number in range(settings.connections)]
        self.slots: Final = tuple(
            Slot(
                number,
                register=gateway.register,
                connect=connect_with(replace(config, phase=phase)),
                credentials=gateway.credentials,
                rotate=settings.rotate,
                clock=self._clock,
                phase=phase,
                on_transition=self._on_transition,
                rng=rng,
            )
            for number, phase in enumerate(phases)
        )
        self._state = SlotState.CONNECTING
        self._since = self._clock.wall()
        self._history: deque[tuple[float, SlotState]] = deque(maxlen=HISTORY_MAX)
        self._pause_reason: str | None = None
        self._was_connected = False
        self._lost_at: float | None = None
        self._limit = ConnectionLimit(self._clock)
        self._limited_since = 0.0
        """Seconds since the epoch; 0: all slots are in use."""
        self._group: asyncio.TaskGroup | None = None
        self._finished: asyncio.Event | None = None

    @property
    def connected(self) -> int:
        """How many sessions DingTalk pushes messages to."""
        return sum(slot.is_open for slot in self.slots)

    @property
    def last_frame_at(self) -> float:
        """Seconds since the epoch at which the last frame was read; 0: none yet."""
        return max(slot.counters.last_frame_at for slot in self.slots)

    async def run(self) -> None:
        """Serve until `drain` is called. Cancelling cuts all connections; nothing is left in either case."""
        self._finished = asyncio.Event()
        try:
            # One slot's fault is everybody's: half of the connections would look like a whole, and nobody would know.
            async with asyncio.TaskGroup() as self._group:
                for slot in self.slots:
                    self._start(slot)
        finally:
            self._group = None
            # What was read may still become durable; then DingTalk's repeat is known as one.
            if self._deliveries:
                await asyncio.wait(self._deliveries, timeout=DELIVERIES_TIMEOUT_S)
            await stop_tasks(*self._deliveries)
            self._finished.set()

    def _start(self, slot: Slot) -> None:
        if self._group is not None:
            self._group.create_task(slot.run(), name=f"claw.stream.slot{slot.number}")

    async def drain(self) -> None:
        """Have the sessions stop reading after their pending acks and close (1000); returns when `run` has ended."""
        # Before the slots are told. Closed slots stay so: a rotation that ends just now would start them again.
        self._group = None
        for slot in self.slots:
            slot.drain()
        if self._finished is not None:
            await self._finished.wait()

    def replace(self) -> bool:
        """Replace all sessions without a gap, or try again now where there is none; False: already under way."""
        if any(slot.state is SlotState.REPLACING for slot in self.slots):
            return False
        begun = [slot.replace() for slot in self.slots]  # a list: `any` alone would stop at the first
        return any(begun)

    def pause(self, reason: str) -> bool:
        """Close all connections in order, and open none until `resume`: DingTalk then pushes to other processes.

        Acks under way are written first, for 2 s at most. Readiness is false from now on and tells `reason`, which is
        for operators. May come before `run`; `drain` works meanwhile. False: paused already, now for this reason.
        """
        begun = self._pause_reason is None
        self._pause_reason = reason
        if begun:
            log.warning("connections paused", extra={"reason": reason})
            self._lost_at = None
            for slot in self.slots:
                slot.pause()
        self._update()
        return begun

    def resume(self) -> bool:
        """Open the connections again, at once. False: they were not paused."""
        if self._pause_reason is None:
            return False
        log.info("connections resumed", extra={"reason": self._pause_reason})
        self._pause_reason = None
        for slot in self.slots:
            slot.resume()
        self._update()
        return True

    # --- changes of slots --------------------------------------------------------------------------------------------

    def _on_transition(self, slot: Slot, reason: Reason) -> None:
        self._update()
        if slot.state is SlotState.OPEN:
            others = [each for each in self.slots if each is not slot]
            self._limit.note_open(slot.number, others_open=any(each.is_open for each in others))
            # A slot that still writes its last acks cannot be started; then the next rotation will do.
            can_lift = self._limited_since and all(each.state is SlotState.CLOSED for each in others)
            if can_lift and reason in {Reason.ROTATION, Reason.RESTART}:
                self._lift_limit()
        elif reason in {Reason.LOST, Reason.PEER_CLOSED} and self._limit.note_close(slot.number):
            self._go_down_to_one()

    def _go_down_to_one(self) -> None:
        """Keep the slot that serves, and close the others: they would only go on closing each other's sessions."""
        kept = next((slot for slot in self.slots if slot.is_open), None)
        if kept is None:
            return  # It has just ended as well: then that row proves nothing, and whoever opens next is looked at anew.
        log.warning("one connection only", extra={"reason": ONE_CONNECTION, "slot": kept.number})
        self._limited_since = self._clock.wall()
        for slot in self.slots:
            if slot is not kept:
                slot.drain()

    def _lift_limit(self) -> None:
        """Try all slots again: the limit may have been a passing state of DingTalk's."""
        log.info("all connections are tried again")
        self._limited_since = 0.0
        self._limit.reset()
        for slot in self.slots:
            if slot.state is SlotState.CLOSED:
                self._start(slot)

    def _update(self) -> None:
        """See what the slots are together, and whether an outage begins or ends."""
        order = list(SlotState)
        state = min((slot.state for slot in self.slots), key=order.index)
        if self._pause_reason is not None and state is not SlotState.CLOSED:
            # From the wish on: its slots follow within a turn of the loop.
            state = SlotState.PAUSED
        if state is not self._state:
            self._state, self._since = state, self._clock.wall()
            self._history.appendleft((self._since, state))
        # From the sessions and not from the states: a slot that is REPLACING may have nobody who takes messages.
        connected = self.connected > 0
        if connected and not self._was_connected and self._lost_at is not None:
            telemetry.stream_outage_duration.record(self._clock.monotonic() - self._lost_at)
            self._lost_at = None
        elif self._was_connected and not connected and self._pause_reason is None:
            self._lost_at = self._clock.monotonic()
        self._was_connected = connected

    # --- what operators see ------------------------------------------------------------------------------------------

    def check(self) -> Check:
        """Good while DingTalk can push to us, and for 5 s beyond."""
        # DingTalk's `disconnect` ends a session's service some turns of the loop before its slot says so.
        self._update()
        lost = self._lost_at is not None and self._clock.monotonic() - self._lost_at < GRACE_S
        ok = self._state not in {SlotState.PAUSED, SlotState.CLOSED} and (self.connected > 0 or lost)
        return Check(ok, self._state.value, self._trouble(), self._since)

    def status(self) -> dict[str, Any]:
        """Everything an operator asks, as JSON."""
        reconnects: Counter[str] = Counter()
        for slot in self.slots:
            reconnects.update(slot.reconnects)
        skew_s = self._gateway.clock_skew_s
        return {
            "state": self._state.value,
            "since": format_rfc3339(self._since),
            "connected": self.connected,
            "one_connection_since": format_rfc3339(self._limited_since),
            "slots": [
                {
                    "state": slot.state.value,
                    "since": format_rfc3339(slot.since),
                    "age_s": round(slot.age, 1),
                    "frames": slot.counters.frames,
                    "last_frame_at": format_rfc3339(slot.counters.last_frame_at),
                }
                for slot in self.slots
            ],
            "history": [{"at": format_rfc3339(at), "state": past.value} for at, past in self._history],
            "reconnects": dict(reconnects),
            "clock_skew_s": None if skew_s is None else round(skew_s, 1),
            "refused_frames": sum(slot.counters.refused for slot in self.slots),
            "too_large_frames": sum(slot.counters.too_large for slot in self.slots),
            "last_frame_at": format_rfc3339(self.last_frame_at),
            "last_error": self._trouble(),
        }

    @property
    def rejection(self) -> str:
        """Why DingTalk rejects our credentials now; empty where it does not."""
        return self._trouble() if self._state is SlotState.REJECTED else ""

    def _trouble(self) -> str:
        """Say what an operator should know: a pause, else why some slot has no session, else a frame too large."""
        if self._pause_reason is not None:
            return self._pause_reason
        errors = [slot.last_error for slot in self.slots if slot.last_error is not None]
        for error in errors:
            if isinstance(error, GatewayError) and error.reason.is_rejection:
                return rejection_text(error)
        if self._limited_since:
            return ONE_CONNECTION
        if errors:
            return str(errors[0])
        too_large_at = max(slot.counters.too_large_at for slot in self.slots)
        return TOO_LARGE_REMEDY.both if self._clock.wall() - too_large_at < TOO_LARGE_TOLD_S else ""
