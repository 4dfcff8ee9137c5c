"""What is made of a file: its text, or a picture as models take it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class FileText:
    """The text of a file. `size` in bytes; `pages` are pages, slides or sheets, 0 where it has none."""

    kind: str
    """What it is, by its content: `pdf`, `docx`, `xlsx`, `pptx`, `html` or `text`."""
    text: str = field(repr=False)
    size: int
    pages: int = 0
    pages_read: int = 0
    is_whole: bool = True
    """Whether this is all of its text."""


@dataclass(frozen=True, slots=True)
class PictureBytes:
    """A picture without anything but its pixels."""

    mime: str
    content: bytes = field(repr=False)
