"""Messages in words and pictures, as the model gets them: every part in its place.

Order of events: `collect` lists what has to be fetched, in the order in which it is written. `Renderer.add` writes a
message: its context, what it quotes, its own parts. Words add up to a text; a picture ends it, and stands between two
texts as it does in the message. What cannot be carried leaves a mark for the model, and a sentence for the person with
its true cause. `finish` gives the parts of the model's message, what history keeps, and whether there is anything to
ask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from claw.errors import MediaProblem
from claw.files.values import FileText
from claw.language import Language, Text
from claw.messages import Inbound
from claw.parts import Entry, Mark, Media, MediaKind, Part, Quote, Record, Words, iter_media
from claw.turn import texts
from claw.turn.attachments import Found, is_picture
from claw.turn.context import ContextWriter, clean_name, defuse
from claw.turn.fence import FencedFile
from claw.turn.model.chat import Message
from claw.turn.pictures import Picture

NOTICES_MAX: Final = 6
"""Sentences about what is missing, in one answer."""
KEPT_PICTURES_MAX: Final = 4
"""Pictures of an exchange that stay within reach."""
QUOTES_MAX: Final = 4
"""Quotes within quotes that are written."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """What is asked."""

    content: list[Message]
    """Parts of the model's message, text and pictures in order; empty where there is nothing to ask."""
    history: str
    """What history keeps of it: marks for pictures, files shortened."""
    pictures: tuple[Media, ...]
    """Pictures that the model got, for later questions about them."""
    notices: tuple[str, ...]
    """What the person is told of what is missing."""
    hint: str
    """What the person is told where there is nothing to ask."""


def collect(inbounds: Sequence[Inbound]) -> list[Media]:
    """List the media of messages in the order in which `Renderer` writes them."""
    return [media for inbound in inbounds for media in (*_quoted(inbound.quote), *iter_media(inbound.all_parts))]


def _quoted(quote: Quote | None) -> Iterator[Media]:
    if quote is not None:
        yield from _quoted(quote.quote)
        yield from iter_media(quote.parts)


@dataclass(slots=True)
class _Kind:
    """How many of a kind there are, and how many were written."""

    total: int = 0
    written: int = 0


@dataclass(slots=True)
class Renderer:
    """Writes messages. `found` is what is there of `collect`, in its order; None: kept from a model without eyes."""

    language: Language
    found: Sequence[Found | None]
    context: ContextWriter | None = None
    is_shared: bool = False
    """Several people share the conversation: history keeps who spoke."""
    _content: list[Message] = field(default_factory=list)
    _text: list[str] = field(default_factory=list)
    _history: list[str] = field(default_factory=list)
    _notices: dict[str, None] = field(default_factory=dict)
    _hints: list[str] = field(default_factory=list)
    _kept: list[Media] = field(default_factory=list)
    _prefix: str = ""
    """What each line begins with."""
    _next: int = 0
    _pictures: _Kind = field(default_factory=_Kind)
    _is_blind: bool = False
    """A picture was left out since the model sees none."""
    _has_substance: bool = False
    """Whether there is anything that can be asked about."""

    def add(self, inbound: Inbound) -> None:
        """Write a message."""
        if self._text or self._content:
            self._write("\n\n")
        if self.context is not None:
            self._text.append(self.context.write(inbound) + "\n")
            # In a chat of two everybody knows who spoke; the line would cost tokens with each question to come.
            if self.is_shared:
                self._history.append(self.context.write_short(inbound) + "\n")
        self._pictures = _Kind(sum(is_picture(media) for media in collect([inbound])))
        if inbound.quote is not None:
            self._write_quote(inbound.quote, 0)
        self._write_parts(inbound.all_parts)

    def finish(self) -> Rendered:
        """Return what is asked, or what is told in its place."""
        self._flush()
        history = "".join(self._history).strip()
        # With words there is something to answer, and the person is told what was not looked at.
        if self._is_blind and self._has_substance:
            self._tell(texts.BLIND[self.language])
        notices = tuple(self._notices)
        if len(notices) > NOTICES_MAX:
            left = texts.MORE_MISSING[self.language].format(count=len(notices) - NOTICES_MAX + 1)
            notices = (*notices[: NOTICES_MAX - 1], left)
        if not self._has_substance:
            hint = "\n\n".join((*self._hints[:1], *notices)) or texts.NO_TEXT[self.language]
            return Rendered([], "", (), (), hint)
        return Rendered(self._content, history, tuple(self._kept[:KEPT_PICTURES_MAX]), notices, "")

    # --- parts -----------------------------------------------------------------------------------------------------

    def _write_parts(self, parts: Sequence[Part]) -> None:
        for part in parts:
            match part:
                case Words(text):
                    self._has_substance = self._has_substance or bool(text.strip())
                    # Somebody may write a line that looks like one of ours: it is made harmless, not left out.
                    self._write(defuse(text))
                case Media():
                    self._write_media(part, self._take())
                case Mark():
                    self._write_mark(part)
                case Record():
                    self._write_record(part)

    def _take(self) -> Found | None:
        found = self.found[self._next] if self._next < len(self.found) else MediaProblem.NOT_FETCHED
        self._next += 1
        return found

    def _write_media(self, media: Media, found: Found | None) -> None:
        if is_picture(media):
            self._write_picture(media, found)
        elif isinstance(found, FileText):
            self._has_substance = True
            fenced = FencedFile(media.name, found)
            self._break_line()
            # Without the prefix of a quote: with "> " before each row a table is none, and the fence says whose it is.
            self._text.append(fenced.write() + "\n")
            self._history.append(fenced.write_short() + "\n")
            if not found.is_whole:
                self._tell(texts.FILE_SHORTENED[self.language].format(name=clean_name(media.name)))
        elif media.kind is MediaKind.AUDIO:
            # Its words, or the mark that there are none, come along with it.
            return
        elif media.kind is MediaKind.VIDEO:
            length = texts.SECONDS[self.language].format(seconds=f"{media.seconds:g}") if media.seconds else ""
            name = clean_name(media.name)
            self._write_marked(texts.VIDEO_MARK[self.language].format(about=" ".join(filter(None, (name, length)))))
            self._hint(texts.VIDEO_HINT)
        else:
            name = clean_name(media.name) or texts.FILE[self.language]
            problem = found if isinstance(found, MediaProblem) else MediaProblem.UNSUPPORTED
            cause = texts.PROBLEM_CAUSES[problem][self.language]
            self._write_marked(texts.FILE_MISSING_MARK[self.language].format(name=name, cause=cause))
            self._tell(texts.FILE_MISSING[self.language].format(name=name, cause=self._cure(problem)))

    def _write_picture(self, media: Media, found: Found | None) -> None:
        self._pictures.written += 1
        number, total = self._pictures.written, self._pictures.total
        of = f" {number}/{total}" if total > 1 else ""
        if isinstance(found, Picture):
            self._has_substance = True
            if of:
                self._text.append(f"[{texts.PICTURE[self.language]}{of}]")
            self._flush()
            self._content.append({"type": "image_url", "image_url": {"url": found.url}})
            # The code, and not the picture: it is fetched again, if it is asked about and not in the cache.
            self._kept.append(media)
            self._history.append(f" [{texts.PICTURE[self.language]}{of}] ")
            return
        if found is None:
            cause = texts.BLIND_CAUSE[self.language]
            self._write_marked(texts.PICTURE_MISSING_MARK[self.language].format(of=of, cause=cause))
            self._hint(texts.BLIND_HINT)
            self._is_blind = True
            return
        problem = found if isinstance(found, MediaProblem) else MediaProblem.NO_PICTURE
        cause = texts.PROBLEM_CAUSES[problem][self.language]
        self._write_marked(texts.PICTURE_MISSING_MARK[self.language].format(of=of, cause=cause))
        which = (
            texts.PICTURE_OF[self.language].format(number=number, total=total) if of else texts.PICTURE[self.language]
        )
        self._tell(texts.PICTURE_MISSING[self.language].format(which=which, cause=self._cure(problem)))

    def _cure(self, problem: MediaProblem) -> str:
        return texts.PROBLEM_CURES[problem][self.language]

    def _write_mark(self, mark: Mark) -> None:
        detail = clean_name(mark.detail)
        self._write_marked(texts.MARKS[mark.kind][self.language].format(detail=detail).replace("「」", ""))
        if mark.kind in texts.MARK_HINTS:
            self._hint(texts.MARK_HINTS[mark.kind])

    def _write_record(self, record: Record) -> None:
        title = clean_name(record.title)
        self._break_line()
        self._write(
            texts.RECORD_BEGINS[self.language].format(title=title).replace("「」", "").replace(" :", ":") + "\n"
        )
        for entry in record.entries:
            self._write_entry(entry)
        self._write(texts.RECORD_ENDS[self.language] + "\n")

    def _write_entry(self, entry: Entry) -> None:
        self._write(f"{clean_name(entry.speaker)}: " if entry.speaker else "")
        # Indented, so that no line of what somebody said can pose as another speaker's.
        self._prefix, before = self._prefix + "  ", self._prefix
        self._write_parts(entry.parts)
        self._prefix = before
        self._break_line()

    # --- quotes ----------------------------------------------------------------------------------------------------

    def _write_quote(self, quote: Quote, depth: int) -> None:
        # The oldest first, as it was said.
        if quote.quote is not None and depth < QUOTES_MAX:
            self._write_quote(quote.quote, depth + 1)
        if not quote.parts:
            self._write_marked(texts.QUOTE_LOST_MARK[self.language])
            self._break_line()
            self._tell(texts.QUOTE_LOST[self.language])
            return
        head = texts.QUOTE[self.language]
        if quote.by_robot:
            head = texts.QUOTE_OF_ROBOT[self.language]
        elif quote.speaker:
            head = texts.QUOTE_OF[self.language].format(name=clean_name(quote.speaker))
        self._write(head + "\n")
        # As Markdown quotes: models know who said which part by it.
        self._prefix, before = self._prefix + "> ", self._prefix
        self._write_parts(quote.parts)
        self._break_line()
        self._prefix = before
        self._write("\n")

    # --- text ------------------------------------------------------------------------------------------------------

    def _write(self, text: str) -> None:
        if not text:
            return
        # What follows the last line break begins its line when it is written.
        lines = text[:-1].replace("\n", f"\n{self._prefix}") + text[-1]
        for pieces in (self._text, self._history):
            is_new_line = not pieces or pieces[-1].endswith("\n")
            pieces.append((self._prefix if is_new_line else "") + lines)

    def _write_marked(self, mark: str) -> None:
        """Write a mark of ours, apart from the words around it."""
        for pieces in (self._text, self._history):
            if pieces and not pieces[-1].endswith((" ", "\n")):
                pieces.append(" ")
        self._write(f"{mark} ")

    def _break_line(self) -> None:
        for pieces in (self._text, self._history):
            if pieces and not pieces[-1].endswith("\n"):
                pieces.append("\n")

    def _flush(self) -> None:
        text = "".join(self._text).strip() if not self._content else "".join(self._text).strip(" \n")
        if text:
            self._content.append({"type": "text", "text": text})
        self._text.clear()

    def _tell(self, notice: str) -> None:
        # A dict for a set in order: nine pictures that failed for one cause are one sentence each, not twice.
        self._notices[notice] = None

    def _hint(self, hint: Text) -> None:
        self._hints.append(hint[self.language])
