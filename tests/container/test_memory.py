"""A flood of pictures within a container's memory: slower where there is less, but nobody is killed or forgotten."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from bench.attacks.arena import arena
from bench.attacks.memory import PICTURES, add_pictures
from tests.container.conftest import Image
from tests.container.test_container import NAME, memory_of, podman, started, stopped, volume

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]
__all__ = ["volume"]

CHATS = 32
FLOOD_S = 240.0
"""Seconds for all of them: with little memory they are fetched one after the other."""
STATE = "{{.State.OOMKilled}} {{.State.Running}} {{.RestartCount}}"
ALIVE = "false true 0"


@pytest.mark.parametrize("limit_mb", [512, 256])
async def test_flood_of_pictures(
    limit_mb: int,
    image: Image,
    volume: str,
    memory: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """32 chats with a picture of 9.9 MB and 4 messages with four: all answered or told, in one life of the process."""
    limit = limit_mb * 1024 * 1024
    # Where this machine's control groups hold no limit, the kernel's count is compared with it all the same.
    options = (f"--memory={limit}", f"--memory-swap={limit}") if memory else ()
    async with arena(tmp_path / "arena") as place:
        await started(image, place.emulator, volume, *options, OPENAI_BASE_URL=f"{place.model_url}/v1")
        codes, people = add_pictures(place), place.people(CHATS + 4)
        asked = [
            await place.ask(person=person, pictures=[codes[n % PICTURES]]) for n, person in enumerate(people[:CHATS])
        ]
        asked += [await place.ask(person=person, pictures=codes[n % 3 :: 3]) for n, person in enumerate(people[CHATS:])]
        left, state = asked, ALIVE
        deadline = time.monotonic() + FLOOD_S
        # Who is killed answers nobody: there is no use in waiting for it.
        while left and state == ALIVE and time.monotonic() < deadline:
            left = await place.settle(left, 5)
            state = await podman("inspect", NAME, "--format", STATE)
        assert state == ALIVE, f"{len(left)} of {len(asked)} were not answered when it was killed"
        assert not left
        took = max(times[0] for times in place.heard().values()) - asked[0].said
        used = await memory_of(NAME)
        ended, _ = await stopped()
    assert used["VmHWM"] < limit
    assert ended == 0
    with capsys.disabled():
        held = "held" if options else "measured; this machine holds no limit"
        sys.stdout.write(
            f"\nflood of pictures within {limit_mb} MiB ({held}): {took:.0f} s, at most {used['VmHWM'] >> 20} MiB "
        )
