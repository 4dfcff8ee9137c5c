"""What Redis tells of itself, and what of it an operator should change."""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from claw.store.values import Risk

ServerInfo: TypeAlias = dict[str, str]
"""The fields of Redis' `INFO`."""
EVICTS: Final = f"Redis throws away what was acked when its memory is full ({{policy}}, {{where}}); {Risk.EVICTS.value}"
OLDEST: Final = (6, 2)
"""The oldest Redis that is served; Valkey tells a `redis_version` above it."""


def parse_info(info: bytes) -> ServerInfo:
    pairs = (line.partition(":") for line in info.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in pairs if colon}


def version_of(info: ServerInfo) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", info.get("redis_version", "0"))[:2])


def risks_of(info: ServerInfo) -> tuple[Risk, ...]:
    """Return what an operator should change, by what Redis tells of itself; the graver first."""
    found = []
    if info.get("maxmemory", "0") != "0" and info.get("maxmemory_policy", "noeviction") != "noeviction":
        found.append(Risk.EVICTS)
    if info.get("aof_enabled") == "0":
        found.append(Risk.FORGETS)
    return tuple(found)
