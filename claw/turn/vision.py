"""Whether the model gets pictures: as CLAW_VISION says, or as it showed.

Order of events with `auto`: pictures are sent until a model refuses a request that has some, and takes the same request
without them; that is kept for a day for this model, for all replicas, and people are told. After the day one more
picture is tried: the model, or the server, may be another by then.
"""

from __future__ import annotations

import hashlib
from typing import Final

from claw.clock import Clock
from claw.errors import ModelError, ModelErrorKind
from claw.policy import Vision
from claw.store.ports import ConfigStore

BLIND_S: Final = 24 * 3600.0
"""Seconds for which a refusal is remembered."""
PREFIX: Final = "vision."
"""Entries of models that refused: each holds the time at which it did."""
_STATUSES: Final = frozenset({400, 404, 415, 422, 500, 501})


class ModelVision:
    """Knows whether models see pictures. Its methods raise StoreError."""

    def __init__(self, mode: Vision, config: ConfigStore, clock: Clock) -> None:
        self._mode = mode
        self._config = config
        self._clock = clock

    async def sees(self, model: str) -> bool:
        """Whether pictures are worth sending to a model."""
        if self._mode is not Vision.AUTO:
            return self._mode is Vision.ON
        told = (await self._config.items(PREFIX)).get(_entry(model))
        try:
            # Absolute: a clock that was set back must not keep a model blind for years.
            return told is None or abs(self._clock.wall() - float(told)) >= BLIND_S
        except ValueError:
            return True

    def may_be_refusal(self, error: ModelError) -> bool:
        """Whether an error to a request with pictures may be for them: worth asking once more without."""
        if self._mode is not Vision.AUTO or error.began:
            return False
        # Servers say it in any words, or in none: a refusal is believed once the same question passes without.
        plain = error.kind is ModelErrorKind.BAD_REQUEST and (error.status or 400) in _STATUSES
        return plain or (error.about_pictures and (error.status or 400) in _STATUSES)

    async def remember_refusal(self, model: str) -> None:
        """Keep that it sees none."""
        await self._config.set(_entry(model), str(self._clock.wall()))


def _entry(model: str) -> str:
    return PREFIX + hashlib.sha256(model.encode()).hexdigest()[:16]
