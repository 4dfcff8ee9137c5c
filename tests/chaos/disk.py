"""A small disk of its own for the store, so that it can be full: a tmpfs where root permits, else a plain folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import psutil

SIZE_MB: Final = 32
CHUNK: Final = 1 << 16


class Disk:
    """`folder` is on it. `own`: it is a disk of its own, so `fill` can hurt nobody else."""

    def __init__(self, folder: Path, *, own: bool) -> None:
        self.folder = folder
        self.own = own
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leave not a byte free."""
        with self._filler.open("wb", buffering=0) as file:
            for size in (CHUNK, 512, 1):
                with contextlib.suppress(OSError):
                    while file.write(b"\0" * size) == size:
                        pass

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)


@contextlib.asynccontextmanager
async def disk(folder: Path, size: int = SIZE_MB) -> AsyncIterator[Disk]:
    """A disk of `size` MB at `folder`, which is made; unmounted at the end."""
    folder.mkdir(parents=True)  # noqa: ASYNC240 - once, before anything runs
    own = os.geteuid() == 0 and await _ran("mount", "-t", "tmpfs", "-o", f"size={size}m", "claw-chaos", str(folder))
    try:
        yield Disk(folder, own=own)
    finally:
        if own:
            await _ran("umount", str(folder))


async def _ran(*command: str) -> bool:
    """Whether the command is there and succeeds."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError:
        return False
    return await process.wait() == 0


def forbid_writing(process: psutil.Process) -> None:
    """Make every write of a running process to a file fail (EFBIG), as on a disk that has become read-only.

    A remount would be refused while the store is open, and no mode holds for root.
    """
    _, hard = process.rlimit(psutil.RLIMIT_FSIZE)
    process.rlimit(psutil.RLIMIT_FSIZE, (0, hard))


def permit_writing(process: psutil.Process) -> None:
    _, hard = process.rlimit(psutil.RLIMIT_FSIZE)
    process.rlimit(psutil.RLIMIT_FSIZE, (hard, hard))
