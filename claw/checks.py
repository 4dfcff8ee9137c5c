"""What a part of the process reports of itself to the probes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """What a part says of itself to the probes. `since`: seconds since the epoch at which it became so; 0: unknown."""

    ok: bool
    state: str = ""
    reason: str = ""
    since: float = 0.0
