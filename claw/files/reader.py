"""Reading files: each in a process of its own, which is started for it and ends with it.

What people send may be made to harm whoever reads it, by size or by content. Order of events: room for the file's
bytes is reserved; the process is started, without anything of ours in its environment; the file is passed on to it as
it comes, so that it is never held here. The process begins at the end of the file only: before, the memory that it may
take is reserved of a second budget, and the first room given back, so that a file that comes slowly keeps nobody
waiting. Its answer is read, bounded. Whatever ends it in between (its limits, its own fault, the clock, a cancellation)
ends that file alone. Between files nothing is kept: an idle claw has no process beside it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Final

from claw.budget import ByteBudget, Room
from claw.errors import MediaError, MediaProblem
from claw.files.output import TEXT_MAX_CHARS
from claw.files.pictures import RESULT_MAX_BYTES
from claw.files.values import FileText, PictureBytes

MEMORY_MAX_BYTES: Final = 260 * 1024 * 1024
"""Bytes that all processes at work may take together: with claw's own, less than the chart's limit of a pod."""
COMING_MAX_BYTES: Final = 50 * 1024 * 1024
IDLE_BYTES: Final = 12 * 1024 * 1024
"""Bytes of all files that are coming, and what a process takes beside its file before it begins."""
SMALL_BYTES: Final = 2 * 1024 * 1024
"""Size of a file up to which two are read at a time; not of a picture, whose size tells nothing of its pixels."""
SMALL_MEMORY_BYTES: Final = 130 * 1024 * 1024
LARGE_MEMORY_BYTES: Final = 260 * 1024 * 1024
"""Bytes of memory for reading a small file, and any other."""
CPU_MAX_S: Final = 10
READ_TIMEOUT_S: Final = 14.0
"""Seconds of work, and seconds in all, after the last byte of the file came."""
QUEUE_TIMEOUT_S: Final = 20.0
"""Seconds that a file waits for others to be read, before it comes and afterwards."""
ANSWER_MAX_BYTES: Final = 4 * 1024 * 1024
PIPE_TIMEOUT_S: Final = 2.0
"""Seconds after the child's end in which its pipe closes."""
CHILD: Final = Path(__file__).with_name("child.py")
_ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1"}


class FileReader:
    """Reads files and shrinks pictures. All methods raise MediaError, and nothing else but cancellation."""

    def __init__(
        self,
        *,
        timeout_s: float = READ_TIMEOUT_S,
        queue_timeout_s: float = QUEUE_TIMEOUT_S,
    ) -> None:
        self._timeout_s = timeout_s
        self._queue_timeout_s = queue_timeout_s
        self._coming = ByteBudget(COMING_MAX_BYTES)
        self._memory = ByteBudget(MEMORY_MAX_BYTES)

    async def read(self, name: str, size: int, chunks: AsyncIterator[bytes]) -> FileText:
        """Read a file's text; `size` is the most that it may have."""
        # The name goes along for its ending alone; what the file is, its first bytes say.
        fields, _, taken = await self._run("text", name, size, chunks)
        # What read a hostile file may say anything.
        match fields:
            case {
                "kind": str(kind),
                "text": str(text),
                "pages": int(pages),
                "pages_read": int(pages_read),
                "is_whole": bool(is_whole),
            } if len(text) <= TEXT_MAX_CHARS:
                return FileText(kind, text, taken, pages, pages_read, is_whole)
        raise _damaged()

    async def shrink(self, size: int, chunks: AsyncIterator[bytes]) -> PictureBytes:
        """Make a picture as small as models need it, without its metadata."""
        fields, content, _ = await self._run("picture", "", size, chunks)
        # Checked here and not there: the child has handled what a stranger made.
        mime = fields.get("mime")
        if not content or len(content) > RESULT_MAX_BYTES or mime not in ("image/png", "image/jpeg"):
            raise _damaged()
        return PictureBytes(mime, content)

    async def _run(
        self, mode: str, name: str, size: int, chunks: AsyncIterator[bytes]
    ) -> tuple[dict[str, Any], bytes, int]:
        """Return the answer's fields, the bytes after them, and how many bytes the file had."""
        # By what a file of this size may need at worst, which only the child's own limit enforces.
        memory = SMALL_MEMORY_BYTES if mode == "text" and size <= SMALL_BYTES else LARGE_MEMORY_BYTES
        order = {"mode": mode, "name": name[-255:], "memory": memory, "cpu": CPU_MAX_S}
        async with AsyncExitStack() as coming:
            await self._wait(coming, self._coming.reserve(size + IDLE_BYTES))
            return await self._run_child(order, size, chunks, coming)

    async def _wait(self, stack: AsyncExitStack, turn: AbstractAsyncContextManager[Room]) -> None:
        try:
            async with asyncio.timeout(self._queue_timeout_s):
                await stack.enter_async_context(turn)
        except TimeoutError:
            raise MediaError("too many other files wait to be read", MediaProblem.BUSY) from None

    async def _run_child(
        self, order: dict[str, Any], size: int, chunks: AsyncIterator[bytes], coming: AsyncExitStack
    ) -> tuple[dict[str, Any], bytes, int]:
        """Start the child, feed it, and return what it answers. The room in `coming` is given back once it has all."""
        starting = asyncio.create_task(_start(), name="claw.files.start")
        try:
            child = await asyncio.shield(starting)
        except OSError as error:
            raise MediaError(f"no process for reading it ({type(error).__name__})", MediaProblem.BUSY) from None
        except asyncio.CancelledError:
            # A start that is cut off half-way leaves a process that nobody waits for: it is let come to its end.
            await _outlast(asyncio.create_task(_end_started(starting), name="claw.files.reap"))
            raise
        async with AsyncExitStack() as working:
            try:
                taken = await self._feed(child, order, size, chunks)
                await self._wait(working, self._memory.reserve(order["memory"]))
                # From here the file is the child's: the next one may come while this one is read.
                await coming.aclose()
                fields, content = await self._take_answer(child)
            finally:
                await _end(child)
        if fields.get("ok") is not True:
            raise _refuse(fields)
        return fields, content, taken

    async def _feed(
        self, child: asyncio.subprocess.Process, order: dict[str, Any], size: int, chunks: AsyncIterator[bytes]
    ) -> int:
        """Pass the file on as it comes; return its size. The child may end before: then its answer says why."""
        stdin = child.stdin
        if stdin is None:
            raise _damaged()
        stdin.write(json.dumps(order).encode() + b"\n")
        taken = 0
        async for chunk in chunks:
            # Counted here too: a server may say one size and send another.
            taken += len(chunk)
            if taken > size:
                raise MediaError("the file is larger than it said", MediaProblem.TOO_LARGE)
            # Around this alone: where the file's own connection breaks, what came of it is not the file.
            if not await self._write(stdin, chunk):
                break
        return taken

    async def _write(self, stdin: asyncio.StreamWriter, chunk: bytes) -> bool:
        """Pass bytes on; False where the child takes no more."""
        try:
            async with asyncio.timeout(self._timeout_s):
                stdin.write(chunk)
                await stdin.drain()
        except TimeoutError:
            raise _too_slow() from None
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    async def _take_answer(self, child: asyncio.subprocess.Process) -> tuple[dict[str, Any], bytes]:
        """Let the child begin, and return what it answers."""
        if child.stdin is not None:
            child.stdin.close()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await _read_answer(child)
        except TimeoutError:
            raise _too_slow() from None


async def _start() -> asyncio.subprocess.Process:
    # Isolated: neither the environment nor the folder that we run in changes what it loads.
    options = ["-I", "-B"] + (["-X", f"pycache_prefix={sys.pycache_prefix}"] if sys.pycache_prefix else [])
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *options,
        str(CHILD),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # A library's complaint may quote the file, and would fill a pipe that nobody reads.
        stderr=asyncio.subprocess.DEVNULL,
        env=_ENVIRONMENT,
        # A group of its own, so that whatever it starts ends with it.
        start_new_session=True,
    )


async def _read_answer(child: asyncio.subprocess.Process) -> tuple[dict[str, Any], bytes]:
    if child.stdout is None:
        raise _damaged()
    # Bounded while it comes: a child that was taken over may write for ever.
    raw = bytearray()
    while chunk := await child.stdout.read(65_536):
        raw += chunk
        if len(raw) > ANSWER_MAX_BYTES:
            raise _damaged()
    if not raw:
        code = await child.wait()
        # Killed by its limit of time, or by the system for want of memory; anything else is a fault of the file.
        if code == -signal.SIGXCPU:
            raise _too_slow()
        if code in {-signal.SIGKILL, -signal.SIGABRT}:
            raise MediaError("reading it takes too much memory or time", MediaProblem.TOO_COSTLY)
        raise _damaged()
    head, _, content = bytes(raw).partition(b"\n")
    try:
        fields = json.loads(head)
    except (ValueError, RecursionError):
        raise _damaged() from None
    if not isinstance(fields, dict):
        raise _damaged()
    return fields, content


async def _end(child: asyncio.subprocess.Process) -> None:
    """End the child, if it has not ended, with all that it started; wait until it is gone."""
    if child.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    if child.stdin is not None:
        child.stdin.close()
    await _outlast(asyncio.create_task(_reap(child), name="claw.files.reap"))


async def _end_started(starting: asyncio.Task[asyncio.subprocess.Process]) -> None:
    with suppress(OSError):
        await _end(await starting)


async def _outlast(task: asyncio.Task[None]) -> None:
    """Wait for a task of ours, also through further cancellations, which go on afterwards.

    Whoever is cancelled twice, as by a turn that is stopped while the process drains, must leave no zombie: a process
    that was killed ends at once.
    """
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


async def _reap(child: asyncio.subprocess.Process) -> None:
    try:
        await child.wait()
        # To its end, or its pipe would be closed by the garbage collector, when the loop may be gone. Not for long:
        # something that it started, and that left its group, could hold it open.
        with suppress(TimeoutError):
            async with asyncio.timeout(PIPE_TIMEOUT_S):
                while child.stdout is not None and await child.stdout.read(65_536):
                    pass
    finally:
        # asyncio closes it by itself only where all pipes ended, and gives no public way to do it before.
        child._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001


def _refuse(fields: dict[str, Any]) -> MediaError:
    try:
        return MediaError(str(fields["reason"])[:200], MediaProblem(fields["problem"]))
    except (LookupError, ValueError):
        return _damaged()


def _too_slow() -> MediaError:
    return MediaError("reading it took too long", MediaProblem.TOO_SLOW)


def _damaged() -> MediaError:
    return MediaError("the file could not be read", MediaProblem.DAMAGED)
