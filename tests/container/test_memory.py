"""A flood of pictures within a container's memory: slower where there is less, but nobody is killed or forgotten."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.attacks.arena import arena
from bench.attacks.memory import add_picture
from tests.container.conftest import Image
from tests.container.test_container import NAME, memory_of, podman, started, stopped, volume

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]
__all__ = ["volume"]

CHATS = 32
FLOOD_S = 240.0
"""Seconds for all of them: with little memory they are fetched one after the other."""


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
        code = add_picture(place)
        people = place.people(CHATS + 4)
        asked = [await place.ask(person=person, pictures=[code]) for person in people[:CHATS]]
        asked += [await place.ask(person=person, pictures=[code] * 4) for person in people[CHATS:]]
        left = await place.settle(asked, FLOOD_S)
        took = max(times[0] for times in place.heard().values()) - asked[0].said
        used = await memory_of(NAME)
        state = await podman("inspect", NAME, "--format", "{{.State.OOMKilled}} {{.State.Running}} {{.RestartCount}}")
        code_of_end, _ = await stopped()
    assert not left
    assert state == "false true 0"
    assert used["VmHWM"] < limit
    assert code_of_end == 0
    with capsys.disabled():
        held = "held" if options else "measured; this machine holds no limit"
        sys.stdout.write(
            f"\nflood of pictures within {limit_mb} MiB ({held}): {took:.0f} s, at most {used['VmHWM'] >> 20} MiB "
        )
