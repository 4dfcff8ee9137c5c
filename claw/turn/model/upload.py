"""A request's body with pictures, written while it is sent: encoded in one piece it would be tens of megabytes more.

Order of events: the body is encoded with a mark in the place of each picture, and cut at the marks. `Upload` gives the
pieces and the pictures in turn, some kilobytes at a time, with the loop's turn in between.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any, Final

from claw.turn.model.chat import Message

PART_BYTES: Final = 65_536
"""What is written at once."""


class Upload(AsyncIterator[bytes]):
    """A body of known `size` in bytes, which can be read once; after `close` nothing of it is held.

    A class and not a generator: one that a server's early answer leaves unfinished is finalised in nobody's task.
    """

    def __init__(self, body: Mapping[str, Any]) -> None:
        pictures: list[str] = []
        # Nobody can write it: it is drawn for this body.
        mark = secrets.token_hex(16)
        # By either API's name for what was said (responses.py).
        name = "messages" if "messages" in body else "input"
        messages = [_take_pictures(message, mark, pictures) for message in body[name]]
        texts = json.dumps({**body, name: messages}, ensure_ascii=False, separators=(",", ":")).encode(
            "utf-8", "replace"
        )
        pieces = texts.split(mark.encode())
        self.size = sum(map(len, pieces)) + sum(map(len, pictures))
        # Nothing in a `data:` URL is escaped in JSON.
        self._parts: Iterator[bytes] = _cut(
            [each for pair in zip(pieces, [*pictures, ""], strict=True) for each in pair]
        )

    def __aiter__(self) -> Upload:
        return self

    async def __anext__(self) -> bytes:
        # Where the server reads as fast as we write, nothing else gives way to others.
        await asyncio.sleep(0)
        for part in self._parts:
            return part
        raise StopAsyncIteration

    def close(self) -> None:
        self._parts = iter(())


def has_pictures(messages: Iterable[Message]) -> bool:
    """Whether a message has a part that is a picture."""
    return any(
        part.get("type") in {"image_url", "input_image"}
        for message in messages
        if isinstance(content := message.get("content"), list)
        for part in content
    )


def _take_pictures(message: Message, mark: str, pictures: list[str]) -> Message:
    """Return a message with `mark` for each picture, which is appended to `pictures`."""
    if not isinstance(content := message.get("content"), list):
        return message
    parts = []
    for part in content:
        if part.get("type") == "image_url":
            pictures.append(part["image_url"]["url"])
            part = {**part, "image_url": {**part["image_url"], "url": mark}}  # noqa: PLW2901
        elif part.get("type") == "input_image" and "source" in part:
            pictures.append(part["source"]["data"])
            part = {**part, "source": {**part["source"], "data": mark}}  # noqa: PLW2901
        elif part.get("type") == "input_image":
            pictures.append(part["image_url"])
            part = {**part, "image_url": mark}  # noqa: PLW2901
        parts.append(part)
    return {**message, "content": parts}


def _cut(pieces: list[bytes | str]) -> Iterator[bytes]:
    for piece in pieces:
        for start in range(0, len(piece), PART_BYTES):
            part = piece[start : start + PART_BYTES]
            yield part.encode() if isinstance(part, str) else part
