"""Finds in an answer what is to be carried to the person: pictures and files that its text names.

Order of events: code is passed over; in what is left, pictures, links, HTML images, embedded data and the lines by
which agents hand files over (`MEDIA:/tmp/a.png`, `[FILE: a.pdf]`) are found in order, and told apart by where their
target lies: in the text itself, in the web, or on the disk of the agent's machine, where nobody else can look.

A link to the web is a file that is handed over where its words are the file's name; any other stays a link. All of it
is pure, and linear: a data URL may have megabytes, each other pattern looks a bounded number of characters ahead.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

from claw.dingtalk.hosts import is_loopback
from claw.reply.fences import find_blocks

PICTURE_ENDS: Final = frozenset(
    {"png", "jpg", "jpeg", "gif", "bmp", "webp", "heic", "heif", "tif", "tiff", "svg", "avif"}
)
FILE_ENDS: Final = frozenset(
    {"pdf", "doc", "docx", "xls", "xlsx", "ppt", "pptx", "zip", "rar", "md", "txt", "csv", "tsv", "json", "xml", "yaml"}
    | {"yml", "html", "htm", "log", "rtf", "epub"}
)
"""Ends of names of files that are handed over: documents. A program is not brought to anybody as a file."""
NAME_MAX_CHARS: Final = 80
FILE_NAME: Final = "file"
"""What a file is called that has no name."""

_DATA: Final = (
    r"data:[A-Za-z0-9+/=_%.,;:&?@~$!*#-]*+"
    r"(?:\n[A-Za-z0-9+/=]{20,}+(?=[\n)\"']))*+(?:\n[A-Za-z0-9+/=]{1,80}+(?=[)\"']))?"
)
"""Base64 may come in lines, the last of them shorter. Its characters are listed, and not those that it has none of:
twenty megabytes of them are passed over in one step, which nothing else can interrupt, at ten times the speed."""
_CARRIED: Final = re.compile(
    # A picture or a link. Its target may hold brackets of its own once, and blanks where it is a path.
    r"(?P<bang>!?)\[(?P<label>[^\[\]\n]{0,300})\]\([ \t]*"
    rf"(?:<?(?P<data>{_DATA})>?(?:[ \t]+\"[^\"\n]{{0,200}}\")?|(?P<target>(?:[^()\n]|\([^()\n]*\)){{1,2048}}+))[ \t]*"
    r"(?P<close>\))?"
    r"|<img\b(?P<attributes>[^<>]*)>"
    r"|\[(?:IMAGE|FILE|MEDIA|AUDIO|VIDEO):[ \t]*(?P<bracketed>[^\[\]\n]{1,1024})\](?!\()"
    r"|(?<![a-zA-Z0-9])(?:MEDIA:[ \t]*)?[\"'`]?"
    rf"(?P<bare>data:[a-z]+/[a-z0-9.+-]+(?:;[a-z0-9=_.+-]+)*;base64,{_DATA[5:]})"
    r"|^[ \t]*MEDIA:[ \t]*(?P<line>[^\n]{1,2048}?)[ \t]*$"
    r"|(?<![\w/])MEDIA:(?P<word>[^\s)\]]{1,2048})"
    r"|(?<![a-zA-Z0-9])<?(?P<local>(?:file://|sandbox:/|attachment://|media://)[^\s<>()\"'`]{1,1024})>?",
    re.MULTILINE,
)
_ATTRIBUTE: Final = re.compile(r"\b(src|alt)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))", re.IGNORECASE)
_TITLE: Final = re.compile(r"(\S+)[ \t]+(?:\"[^\"\n]*\"|'[^'\n]*')\Z")
_LOCAL: Final = re.compile(r"(?:file|sandbox|attachment|media|cid|blob):|[a-z]:[\\/]|\\\\|~[\\/]", re.IGNORECASE)
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_END: Final = re.compile(r"\.([A-Za-z0-9]{1,8})\Z")
_NO_NAME: Final = re.compile(r"[\x00-\x1f\x7f/\\:*?\"<>|\[\]()`#]+")
_TICKS: Final = re.compile(r"`+")


class Place(Enum):
    """Where a target lies."""

    EMBEDDED = auto()
    """In the text: a data URL."""
    CUT = auto()
    """The same, but its end is missing, as where a model stopped in its middle."""
    WEB = auto()
    LOCAL = auto()
    """On the agent's machine, or nowhere."""


class Form(Enum):
    """How the text names it."""

    PICTURE = auto()
    """To be shown in its place."""
    LINK = auto()
    HANDOVER = auto()
    """By a word of agents, which people have no use for."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A picture or file that a text names from `start` to `end`. `label` are the words that stand for it, if any."""

    start: int
    end: int
    label: str
    target: str
    place: Place
    form: Form

    @property
    def is_on_this_machine(self) -> bool:
        """Whether its address is nobody's but the machine's that reads it, by its very spelling."""
        try:
            return self.place is Place.WEB and is_loopback(urlsplit(self.target).hostname or "")
        except ValueError:
            return False

    @property
    def name(self) -> str:
        """Its name, as far as one is told: of the words, else of the target."""
        return name_of(self.label, self.target)


def find_references(text: str) -> list[Reference]:
    """Find what is to be carried, or cannot be reached, in order."""
    found: list[Reference] = []
    for start, end in _iter_prose(text):
        # Positions of the whole text, since lines begin there.
        found += filter(None, map(_read, _CARRIED.finditer(text, start, end)))
    return found


def end_of(name: str) -> str:
    """Return the end of a file's name, in small letters: `pdf`; empty where there is none."""
    match = _END.search(name.strip())
    return match[1].lower() if match else ""


def name_of(label: str, target: str) -> str:
    """Return a name that a file may have anywhere: of the words that stand for it, else of its address."""
    last = "" if target[:5].lower() == "data:" else unquote(re.split(r"[/\\]", _path_of(target))[-1])
    # The words first: an address often ends in a number, or in a name of the server's own.
    for each in (label, last):
        name = _NO_NAME.sub(" ", each).strip(" .")
        if end_of(name):
            stem, end = PurePosixPath(name).stem, end_of(name)
            return f"{stem[: NAME_MAX_CHARS - len(end) - 1]}.{end}"
    plain = _NO_NAME.sub(" ", label or last).strip(" .")
    return plain[:NAME_MAX_CHARS]


def _path_of(target: str) -> str:
    # Split by hand where it is a path: a drive's letter would be taken for a scheme.
    if not _SCHEME.match(target) or _LOCAL.match(target):
        return target.partition("?")[0].rstrip("/\\")
    try:
        return urlsplit(target).path.rstrip("/")
    except ValueError:
        return ""


def _read(match: re.Match[str]) -> Reference | None:
    """Read what was found; None where it is to be left as it is."""
    # By the group that matched: the alternatives exclude each other.
    label, target, form, end = "", "", Form.HANDOVER, match.end()
    if match["attributes"] is not None:
        pairs = _ATTRIBUTE.findall(match["attributes"])
        attributes = {key.lower(): html.unescape(a or b or c) for key, a, b, c in pairs}
        label, target, form = attributes.get("alt", ""), attributes.get("src", ""), Form.PICTURE
    elif match["label"] is not None:
        label, form = match["label"], Form.PICTURE if match["bang"] else Form.LINK
        target = match["data"] or match["target"]
        if match["close"] is None:
            # A link that nothing closes is none; embedded data must not be shown all the same.
            return Reference(*match.span(), label.strip(), target, Place.CUT, form) if match["data"] else None
    elif (word := match["word"] or match["local"]) is not None:
        # What ends a sentence ends no name.
        target = word.rstrip(".,;:!?。，；：！？、")
        end -= len(word) - len(target)
    else:
        target = match["bare"] or match["bracketed"] or match["line"]
    target = _trim(target)
    place = _find_place(target, form)
    if place is Place.WEB and form is Form.LINK and not _is_handed_over(label):
        place = None
    return None if place is None else Reference(match.start(), end, " ".join(label.split()), target, place, form)


def _trim(target: str) -> str:
    target = target.strip()
    # Its head only: a path may have blanks of its own, and data has none.
    if titled := _TITLE.match(target[:4096]):
        target = titled[1]
    return target.strip("\"'`").removeprefix("<").removesuffix(">").strip()


def _find_place(target: str, form: Form) -> Place | None:
    head = target[:2048]
    if head[:5].lower() == "data:":
        return Place.EMBEDDED
    if head.lower().startswith(("http://", "https://")):
        return Place.WEB
    if _LOCAL.match(head):
        return Place.LOCAL
    # What is already DingTalk's, a place within a page, an address without its scheme, or a scheme of others.
    if not head or head[0] in "@#?$" or head.startswith("//") or _SCHEME.match(head):
        return None
    # A path. One without an end may be a page's (`[API](/users)`); a picture that lies nowhere is none in any case.
    is_file = form is Form.PICTURE or end_of(_path_of(head)) in FILE_ENDS | PICTURE_ENDS
    return Place.LOCAL if is_file else None


def _is_handed_over(label: str) -> bool:
    """Whether the words of a link are the name of a file."""
    return "/" not in label and end_of(label.strip("`*_ ")) in FILE_ENDS | PICTURE_ENDS


def _iter_prose(text: str) -> Iterator[tuple[int, int]]:
    """Yield where there is no code."""
    position = 0
    # Looked for first as a plain string, which passes over megabytes in no time.
    blocks = find_blocks(text, lambda _: True) if "```" in text or "~~~" in text else ()
    for block in blocks:
        yield from _iter_lines(text, position, block.start)
        position = block.end
    yield from _iter_lines(text, position, len(text))


def _iter_lines(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield where there is no code within lines; code of several lines is taken for none."""
    position = start
    for begin, stop in _find_code(text, start, end) if text.find("`", start, end) >= 0 else ():
        yield position, begin
        position = stop
    yield position, end


def _find_code(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    line: list[tuple[int, int]] = []
    for found in _TICKS.finditer(text, start, end):
        if line and text.find("\n", line[-1][1], found.start()) >= 0:
            yield from _pair(line)
            line = []
        line.append(found.span())
    yield from _pair(line)


def _pair(runs: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the code between runs of backticks of one length."""
    # From the last to the first, so that each knows the next one of its length: a line may be nothing but backticks.
    following: dict[int, int] = {}
    closers: list[int | None] = [None] * len(runs)
    for index in range(len(runs) - 1, -1, -1):
        length = runs[index][1] - runs[index][0]
        closers[index] = following.get(length)
        following[length] = index
    index = 0
    while index < len(runs):
        closer = closers[index]
        if closer is not None:
            yield runs[index][0], runs[closer][1]
        index = index + 1 if closer is None else closer + 1
