"""What strangers may send does no harm: attacks of bench/attacks at a real claw, with the right outcome.

Here are those that are decided from end to end and within seconds; the others take a minute each and are part of
`python -m bench.attacks`. Kinds that one room decides alone are tested there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from bench.attacks import hostile, memory, people
from bench.attacks.arena import Arena, arena
from bench.attacks.registry import Act, Outcome

pytestmark = pytest.mark.timeout(110)

FEW: Final = 200
"""Entries that the emulator keeps: with all of them the bodies would fill this process rather than claw."""


async def flood_bodies(place: Arena) -> Outcome:
    await place.start()
    return await memory.flood_bodies(place, "x" * memory.BODY_CHARS, answer_s=1)


async def many_chats(place: Arena) -> Outcome:
    return await memory.flood_chats(place, 12)


async def guess_tokens(place: Arena) -> Outcome:
    return await people.guess_for(place, 2)


ACTS: Final[dict[str, Act]] = {
    "4 messages of 4 pictures": memory.many_pictures,
    "12 chats with a picture each": many_chats,
    "1,024 waiting bodies": flood_bodies,
    "32 answers of fence lines": hostile.fence_lines,
    "a body of gzip that unpacks to 200 MB": hostile.gzip_bomb,
    "5,000 /stop": people.stops,
    "wrong tokens": guess_tokens,
    "a token of one letter": people.weak_token,
    "a redirect of the model's server": hostile.redirected_talk,
}


@pytest.mark.parametrize("name", ACTS)
async def test_attack(
    name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, record_property: Callable[[str, object], None]
) -> None:
    """Memory stays below 300 MB, `/health` below 1 s, and whoever did nothing wrong is answered."""
    keep = FEW if name == "1,024 waiting bodies" else 20_000
    # One cache of bytecode for all of them: a start that compiles takes seconds.
    cache = tmp_path_factory.getbasetemp() / "pycache"
    async with arena(tmp_path / "arena", keep=keep, cache=cache) as place:
        outcome = await ACTS[name](place)
    record_property("figures", f"attack, {name}: {outcome.figure}")
    assert outcome.held, outcome.figure
