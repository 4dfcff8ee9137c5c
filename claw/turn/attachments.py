"""What came with a message, as the model can read it: pictures as `data:` URLs, files as their text.

Order of events: room is reserved for all pictures of a message in one piece, since whoever held a part and waited for
more could wait for somebody who does the same; three at a time are fetched, pictures from the cache where they are
there, and read in processes of their own (files/). Each that cannot be had leaves its cause in its place: one failure
costs one picture. The room is given back when the caller is done.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Final, Protocol, TypeVar

from opentelemetry.trace import SpanKind, StatusCode

from claw.budget import ByteBudget
from claw.errors import MediaError, MediaProblem
from claw.files.values import FileText, PictureBytes
from claw.observe import telemetry
from claw.parts import Media, MediaKind
from claw.secret import hash_id
from claw.turn.pictures import Picture, PictureCache

log: Final = logging.getLogger(__name__)

PICTURES_MAX: Final = 9
FILES_MAX: Final = 5
"""Pictures and files of one question, those that it quotes included; each costs a call and a model's tokens."""
PICTURE_MAX_BYTES: Final = 20 * 1024 * 1024
"""Bytes of a picture: what people may send (docs/protocol.md section 6.4)."""
DATA_URL_MAX_BYTES: Final = 2_100_000
"""What a picture takes at most once it is made small."""
TEXTS_MAX_CHARS: Final = 240_000
"""Characters of all files of one question."""
AT_ONCE: Final = 3
_PICTURE_NAMES: Final = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".heic", ".heif")

Found = Picture | FileText | MediaProblem
"""What is there of a file: a picture, a text, or why it is neither."""
T = TypeVar("T")
Consume = Callable[[int, AsyncIterator[bytes]], Awaitable[T]]
"""Takes a file's size and bytes."""


class Loader(Protocol):
    """Fetches media (dingtalk/media.py)."""

    async def fetch(self, robot_code: str, media: Media, max_bytes: int, consume: Consume[T]) -> T:
        """Fetch a file and return what `consume` makes of it. Raises MediaError."""
        ...


class Reader(Protocol):
    """Reads files, each in a process of its own (files/reader.py). Raises MediaError."""

    async def read(self, name: str, size: int, chunks: AsyncIterator[bytes]) -> FileText: ...

    async def shrink(self, size: int, chunks: AsyncIterator[bytes]) -> PictureBytes: ...


class Attachments:
    """Fetches and reads what messages bring. `file_max_bytes` 0: no files are read."""

    def __init__(
        self, loader: Loader, reader: Reader, budget: ByteBudget, cache: PictureCache, *, file_max_bytes: int
    ) -> None:
        self._loader = loader
        self._reader = reader
        self._budget = budget
        self._cache = cache
        self._file_max_bytes = file_max_bytes

    @asynccontextmanager
    async def hold(self, robot_code: str, media: Sequence[Media]) -> AsyncIterator[list[Found]]:
        """Fetch media, and hold the room that pictures take; one Found for each, in the same order.

        Waits for that room. The list is empty afterwards: whoever keeps a picture of it for longer takes room that
        others are told is free.
        """
        plan = self._plan(media)
        # Only pictures stay in memory until the model has them: a file is text by then, and that is small.
        pictures = sum(each is None and is_picture(one) for each, one in zip(plan, media, strict=True))
        async with self._budget.reserve(pictures * DATA_URL_MAX_BYTES) as room:
            gate = asyncio.Semaphore(AT_ONCE)
            # Named, and ended with this one: a TaskGroup would turn its cancellation into a group of errors.
            tasks = [
                asyncio.create_task(self._find(robot_code, one, known, gate), name="claw.turn.attachment")
                for one, known in zip(media, plan, strict=True)
            ]
            try:
                # In the order of the message whatever comes first: the renderer takes them one after another. By `wait`
                # and not by `gather`, which would cancel them a first time, and the lines below a second.
                if tasks:
                    await asyncio.wait(tasks)
                found = _cut([task.result() for task in tasks])
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            # A finished task keeps its result: without this each picture would be held twice.
            tasks.clear()
            # Reserved for the largest that there could be; what they really take is known only now.
            room.shrink(sum(len(each.url) for each in found if isinstance(each, Picture)))
            try:
                yield found
            finally:
                # A frame that still names the list, of an error's traceback for example, would keep them all.
                found.clear()

    def _plan(self, media: Sequence[Media]) -> list[MediaProblem | None]:
        """Say of each why it is not fetched at all; None: it is."""
        pictures = files = 0
        plan: list[MediaProblem | None] = []
        for each in media:
            problem: MediaProblem | None = None
            if is_picture(each):
                pictures += 1
                problem = MediaProblem.TOO_MANY if pictures > PICTURES_MAX else None
            elif each.kind is not MediaKind.FILE:
                # Speech comes as words, and no model that we know takes a video.
                problem = MediaProblem.UNSUPPORTED
            elif not self._file_max_bytes:
                problem = MediaProblem.OFF
            else:
                files += 1
                problem = MediaProblem.TOO_MANY if files > FILES_MAX else None
            plan.append(problem)
        return plan

    async def _find(self, robot_code: str, media: Media, known: MediaProblem | None, gate: asyncio.Semaphore) -> Found:
        if known is not None:
            return known
        # The code fetches the file for whoever has it: a secret, which is not kept as a key.
        key = hash_id(f"{robot_code}:{media.code.reveal()}")
        if (kept := self._cache.get(key)) is not None:
            return kept
        # One try is all here: what is worth another one was tried by the loader, within its own time.
        async with gate:
            try:
                return await self._fetch(robot_code, media, key)
            except MediaError as error:
                log.warning(
                    "attachment not read",
                    extra={"kind": media.kind.value, "problem": error.problem.value, "cause": error.reason},
                )
                return error.problem

    async def _fetch(self, robot_code: str, media: Media, key: str) -> Found:
        """Fetch and read, within a span that tells neither name nor address. Raises MediaError."""
        with telemetry.tracer.start_as_current_span(
            telemetry.SPAN_ATTACHMENT.format(kind=media.kind.value),
            kind=SpanKind.CLIENT,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                if is_picture(media):
                    small = await self._loader.fetch(robot_code, media, PICTURE_MAX_BYTES, self._reader.shrink)
                    picture = Picture(f"data:{small.mime};base64,{b64encode(small.content).decode('ascii')}")
                    self._cache.add(key, picture)
                    return picture
                read = partial(self._reader.read, media.name)
                return await self._loader.fetch(robot_code, media, self._file_max_bytes, read)
            except MediaError as error:
                span.set_attribute(telemetry.ERROR_TYPE, error.problem.value)
                span.set_status(StatusCode.ERROR)
                raise


def is_picture(media: Media) -> bool:
    """Whether it is a picture, also one that was sent as a file."""
    return media.kind is MediaKind.PICTURE or (
        media.kind is MediaKind.FILE and media.name.lower().endswith(_PICTURE_NAMES)
    )


def _cut(found: Sequence[Found]) -> list[Found]:
    """Leave out what is beyond the characters of all files together."""
    left = TEXTS_MAX_CHARS
    kept: list[Found] = []
    for each in found:
        if isinstance(each, FileText):
            kept.append(each if len(each.text) <= left else replace(each, text=each.text[:left], is_whole=False))
            left = max(0, left - len(each.text))
        else:
            kept.append(each)
    return kept
