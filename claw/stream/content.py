"""What one message says, by its msgtype: its parts in order (docs/protocol.md section 5.2).

Order of events: `read_parts` looks at the msgtype, then where that type keeps its content; each piece becomes words, a
file that can be fetched, a forwarded chat, or a mark for what cannot be carried. Nothing is left out without a mark,
and everything is bounded: by the number of parts, by the characters of all of them, and by the depth of chats within
chats.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from claw.parts import Entry, Mark, MarkKind, Media, MediaKind, Part, Record, Words
from claw.secret import Secret
from claw.stream.lenient import NODES_MAX, TEXT_MAX_CHARS, as_list, first_text, maybe_json, text_of
from claw.stream.mentions import AtItem

PARTS_MAX: Final = 200
"""Parts of a message, those of the chats that it forwards included."""
MENTIONS_MAX: Final = 50
"""Fragments of a rich text that are looked at as mentions; more are words."""
DEPTH_MAX: Final = 3
"""Forwarded chats within forwarded chats."""
NAME_MAX_CHARS: Final = 255
"""Characters of a file's name, as file systems have it."""
SECONDS_MAX: Final = 24 * 3600.0
"""Longest duration that is believed; a larger number is one of milliseconds."""
MILLISECONDS_MIN: Final = 1_000.0
"""A video's duration comes in seconds or in milliseconds, by the client: no robot gets one of 17 minutes."""

_TEXT: Final = ("text", "content")
_CODES: Final = ("downloadCode", "pictureDownloadCode")
_NICKS: Final = ("senderNick", "senderName", "nick", "name")
_URL_MAX_CHARS: Final = 4096
"""Characters of an address that are looked at."""
_LINK: Final = "dingtalk://"
KINDS_OF_FILES: Final = {
    "picture": MediaKind.PICTURE,
    "image": MediaKind.PICTURE,
    "audio": MediaKind.AUDIO,
    "voice": MediaKind.AUDIO,
    "video": MediaKind.VIDEO,
    "file": MediaKind.FILE,
}
_FRAGMENT: Final = re.compile(r"\s*[@＠]([^@＠/／\n\s](?:[^@＠/／\n]{0,62}[^@＠/／\n\s])?)[\s\u200b\u2060\ufeff]*")
_RECORDS: Final = ("chatRecord", "records", "messages")
_COMPARED_CHARS: Final = 500
"""Characters by which an entry and a line of a summary are found to be the same."""
_SPEAKER_LINE: Final = re.compile(r"([^:：\n]{1,64})[:：](.*)", re.DOTALL)


class ContentReader:
    """Collects the parts of one message. `parts` holds mentions as AtItem until `mentions.strip` has seen them."""

    def __init__(self) -> None:
        self.parts: list[Part | AtItem] = []
        self._left_parts = PARTS_MAX
        self._left_mentions = MENTIONS_MAX
        self._left_chars = TEXT_MAX_CHARS
        self._left_out = 0

    def finish(self) -> list[Part | AtItem]:
        """Return the parts, with a mark at the end for what was beyond the bounds."""
        if self._left_out:
            self.parts.append(Mark(MarkKind.LEFT_OUT, str(self._left_out)))
            self._left_out = 0
        return self.parts

    # --- adding ----------------------------------------------------------------------------------------------------

    def add(self, part: Part | AtItem) -> None:
        """Add a part, if there is room for it."""
        if isinstance(part, Words):
            self._add_words(part.text)
        elif self._left_parts > 0:
            self._left_parts -= 1
            self.parts.append(part)
        else:
            self._left_out += 1

    def _add_words(self, text: str) -> None:
        if not text:
            return
        kept = text[: self._left_chars]
        self._left_chars -= len(kept)
        if len(kept) < len(text):
            self._left_out += 1
        if not kept:
            return
        # Adjacent pieces are one: a rich text of a thousand letters is no thousand parts. A mention's own fragment is
        # told apart before that (`_read_item`).
        last = self.parts[-1] if self.parts else None
        if isinstance(last, Words):
            self.parts[-1] = Words(last.text + kept)
        elif self._left_parts > 0:
            self._left_parts -= 1
            self.parts.append(Words(kept))
        else:
            self._left_out += 1

    # --- by msgtype ------------------------------------------------------------------------------------------------

    def read(self, msgtype: str, body: Mapping[str, Any], depth: int = 0) -> None:
        """Read the content of a message of this type."""
        content = maybe_json(body.get("content"))
        match msgtype:
            case "richText":
                self._read_rich_text(content or maybe_json(body.get("richText")))
            case "picture" | "image" | "audio" | "voice" | "video" | "file":
                self._read_file(KINDS_OF_FILES[msgtype], content)
            case "chatRecord":
                self._add_record(content or body, depth)
            case "interactiveCard":
                self._read_card(content)
            case "unknownMsgType" if isinstance(content, dict) and first_text(content, *_CODES):
                self._read_file(MediaKind.FILE, content)
            case "unknownMsgType":
                self.add(Mark(MarkKind.UNKNOWN, first_text(content, "unknownMsgType", *_TEXT)[:NAME_MAX_CHARS]))
            case _:
                self._read_text(msgtype, body, content)

    def _read_text(self, msgtype: str, body: Mapping[str, Any], content: Any) -> None:
        """Read text, markdown, and what DingTalk may invent: look where text has been seen."""
        for place in (maybe_json(body.get("text")), content, maybe_json(body.get("markdown"))):
            if found := first_text(place, "content", "text"):
                self._add_document_or_words(found)
                return
        for written in (body.get("text"), body.get("content")):
            # Somebody's words may be JSON themselves.
            if msgtype in {"text", "markdown"} and isinstance(written, str) and written.strip():
                self._add_words(text_of(written))
                return
        if msgtype not in {"text", "markdown"} and (content or msgtype):
            self.add(Mark(MarkKind.UNKNOWN, msgtype[:NAME_MAX_CHARS]))

    def _read_file(self, kind: MediaKind, content: Any) -> None:
        fields = content if isinstance(content, dict) else {}
        name = first_text(fields, "fileName", "name", "title")[:NAME_MAX_CHARS] if fields else ""
        if isinstance(content, str) and kind is MediaKind.AUDIO:
            # Speech that is nothing but text can only be what was recognised.
            fields = {"recognition": content}
        elif isinstance(content, str) and kind is MediaKind.FILE:
            # A text in a file's place is its name, never its words.
            name = text_of(content).strip()[:NAME_MAX_CHARS]
        if code := first_text(fields, *_CODES):
            self.add(Media(kind, Secret(code), name, _read_seconds(kind, fields.get("duration"))))
        elif kind is not MediaKind.AUDIO:
            self.add(Mark(MarkKind.NO_CODE, name or kind.value))
        if kind is MediaKind.AUDIO:
            # DingTalk's own speech recognition: the words count, the sound comes along.
            if words := text_of(fields.get("recognition")).strip():
                self._add_words(words)
            else:
                self.add(Mark(MarkKind.NO_SPEECH))

    def _read_rich_text(self, content: Any) -> None:
        items = content
        # `{richText: [...]}` today; `{richTextList: [...]}`, also inside of richText, in old layouts.
        for _ in range(3):
            if isinstance(items, dict):
                items = maybe_json(items.get("richText") or items.get("richTextList"))
        if isinstance(items, str):
            self._add_words(text_of(items))
        elif not items and isinstance(content, dict):
            self._add_words(first_text(content, *_TEXT))
        for item in as_list(items):
            if isinstance(item, dict):
                self._read_item(item)
            else:
                self._add_words(text_of(item))
        if isinstance(items, list) and len(items) > NODES_MAX:
            self._left_out += len(items) - NODES_MAX

    def _read_item(self, item: Mapping[str, Any]) -> None:
        kind = text_of(item.get("type")) or text_of(item.get("msgType"))
        if kind == "at":
            who = first_text(item, "atUserId", "dingtalkId", "userId", "staffId")
            name = first_text(item, "atName", "text", "content", "name").lstrip("@＠").strip()
            self.add(AtItem(who, name[:NAME_MAX_CHARS]))
            return
        # Quoted items keep their code in `content` at times.
        inner = maybe_json(item.get("content"))
        code = first_text(item, *_CODES) or (first_text(inner, *_CODES) if isinstance(inner, dict) else "")
        if code or kind in KINDS_OF_FILES:
            media = KINDS_OF_FILES.get(kind, MediaKind.PICTURE)
            name = text_of(item.get("fileName"))[:NAME_MAX_CHARS]
            if code:
                self.add(Media(media, Secret(code), name, _read_seconds(media, item.get("duration"))))
            else:
                self.add(Mark(MarkKind.NO_CODE, name or media.value))
            if media is not MediaKind.PICTURE:
                self._add_words(first_text(item, "recognition", *_TEXT))
            return
        self._read_item_words(kind, item)

    def _read_item_words(self, kind: str, item: Mapping[str, Any]) -> None:
        text = first_text(item, *_TEXT, "name", "emoji", "emojiName", "title", "recognition")
        if text:
            # The client of HarmonyOS sends a mention as a fragment of text of its own (docs/protocol.md section 10a).
            fragment = _FRAGMENT.fullmatch(text) if len(text) <= NAME_MAX_CHARS else None
            if fragment and self._left_mentions > 0:
                self._left_mentions -= 1
                self.add(AtItem("", fragment[1], written=text))
            else:
                self._add_words(text)
        elif item.get("pictureUrl"):
            # An old layout, without a code: DingTalk gives such a picture to nobody.
            self.add(Mark(MarkKind.NO_CODE, MediaKind.PICTURE.value))
        elif kind not in {"", "text"} or not any(item.get(name) == "" for name in _TEXT):
            self.add(Mark(MarkKind.UNKNOWN, kind[:NAME_MAX_CHARS]))

    def _read_card(self, content: Any) -> None:
        """Read the words on a shared card, in reading order; a shared document is told as such, never as words."""
        if not isinstance(content, dict):
            self._add_card_words(text_of(content))
            return
        lines = _walk_card(content.get("cardContent"))
        title = first_text(content, "title", "fileName", "name") or next((e for e in lines if not _is_link(e)), "")
        urls = (text_of(value) for name, value in content.items() if name.lower().endswith("url"))
        if any(_is_document(each) for each in (*urls, *filter(_is_link, lines), first_text(content, *_TEXT))):
            self.add(Mark(MarkKind.DOCUMENT, title[:NAME_MAX_CHARS]))
            return
        words = "\n".join(each for each in lines if not _is_link(each))
        self._add_card_words(words or first_text(content, *_TEXT) or title)

    def _add_card_words(self, words: str) -> None:
        if words and (_is_document(words) or not _is_link(words)):
            self._add_document_or_words(words)
        else:
            self.add(Mark(MarkKind.CARD))

    def _add_document_or_words(self, words: str) -> None:
        # A link to a document and nothing else is a document that was shared.
        if _is_link(words) and _is_document(words) and len(words.split()) == 1:
            self.add(Mark(MarkKind.DOCUMENT))
        else:
            self._add_words(words)

    # --- forwarded chats -------------------------------------------------------------------------------------------

    def _add_record(self, content: Any, depth: int) -> None:
        # Its own place first: what it holds may take all the others.
        if self._left_parts <= 0:
            self._left_out += 1
            return
        self._left_parts -= 1
        self.parts.append(self._read_record(content, depth))

    def _read_record(self, content: Any, depth: int) -> Part:
        """Read a forwarded chat: who said what, names found in its summary where entries tell none."""
        fields = content if isinstance(content, dict) else {"chatRecord": content}
        if isinstance(content, str):
            fields = {"summary": content}
        title = text_of(fields.get("title"))[:NAME_MAX_CHARS]
        lines = _read_summary(fields.get("summary"))
        records = [record for name in _RECORDS for record in _read_records(fields.get(name))]
        if not records:
            # What only the summary tells is cut by DingTalk: the mark says that it is not all.
            told: list[Mapping[str, Any]] = [{"senderNick": name, "content": words} for name, words in lines]
            if not told and not title:
                return Mark(MarkKind.EMPTY_RECORD)
            return Record(title, (*self._read_entries(told, lines, depth), Entry("", (Mark(MarkKind.EMPTY_RECORD),))))
        if depth >= DEPTH_MAX:
            return Record(title, (Entry("", (Mark(MarkKind.LEFT_OUT, str(len(records))),)),))
        return Record(title, tuple(self._read_entries(records, lines, depth)))

    def _read_entries(
        self, records: Sequence[Mapping[str, Any]], lines: list[tuple[str, str]], depth: int
    ) -> Iterator[Entry]:
        speakers = SpeakerNames(lines, len(records))
        for index, record in enumerate(records):
            if self._left_parts <= 0 or self._left_chars <= 0:
                yield Entry("", (Mark(MarkKind.LEFT_OUT, str(len(records) - index)),))
                return
            parts = self._read_entry(record, depth)
            yield Entry(speakers.find(record, parts, index), parts)

    def _read_entry(self, record: Mapping[str, Any], depth: int) -> tuple[Part, ...]:
        # A reader of its own, which shares what is left of the bounds.
        reader = ContentReader()
        # Somebody may forward a chat that holds a thousand: each counts against the message that brings them.
        reader._left_parts, reader._left_chars = self._left_parts, self._left_chars
        msgtype = text_of(record.get("msgType")) or text_of(record.get("msgtype")) or "text"
        content = record.get("content") or record.get("text") or message_fields(record)
        reader.read(msgtype, {"content": content, "text": record.get("text")}, depth + 1)
        parts = to_parts(reader.finish())
        # An entry that says nothing takes a place as well.
        self._left_parts = min(reader._left_parts, self._left_parts - 1)
        self._left_chars = reader._left_chars
        return tuple(parts) or (Mark(MarkKind.UNKNOWN, msgtype[:NAME_MAX_CHARS]),)


class SpeakerNames:
    """Finds who spoke in a forwarded chat: by the entry, by the summary's line for it, by an earlier entry."""

    def __init__(self, lines: list[tuple[str, str]], count: int) -> None:
        self._lines = lines
        # One line for each entry: whatever they say, they tell of the same messages.
        self._is_aligned = len(lines) == count and all(name for name, _ in lines)
        self._next = 0
        self._by_id: dict[str, str] = {}

    def find(self, record: Mapping[str, Any], parts: Sequence[Part], index: int) -> str:
        """Return a name; where none is told, DingTalk's id, which at least tells people apart."""
        who = first_text(record, "senderId", "senderStaffId", "sender")[:NAME_MAX_CHARS]
        # Taken in any case, so that the next entry does not get it.
        line = self._lines[index][0] if self._is_aligned else self._take_line(parts)
        name = first_text(record, *_NICKS)[:NAME_MAX_CHARS] or self._by_id.get(who, "") or line
        if name and who:
            self._by_id.setdefault(who, name)
        return name or who

    def _take_line(self, parts: Sequence[Part]) -> str:
        """Take the summary's next line, if it tells of this entry: it holds its words, perhaps cut."""
        words = " ".join(each.text for each in parts if isinstance(each, Words)).strip()[:_COMPARED_CHARS]
        is_words_only = all(isinstance(each, Words) for each in parts)
        for index in range(self._next, min(len(self._lines), self._next + PARTS_MAX)):
            name, said = self._lines[index]
            said = said[:_COMPARED_CHARS].rstrip("….")
            # A picture stands in the summary as `[图片]`, and so on.
            is_sign = not is_words_only and (not said or said.startswith("["))
            if is_sign or (words and said and (said.startswith(words) or words.startswith(said))):
                self._next = index + 1
                return name
        return ""


def to_parts(items: Iterable[Part | AtItem]) -> list[Part]:
    """Return parts alone: mentions become the words that they are, adjacent words one."""
    parts: list[Part] = []
    for item in items:
        part = _to_part(item) if isinstance(item, AtItem) else item
        if isinstance(part, Words) and parts and isinstance(last := parts[-1], Words):
            parts[-1] = Words(last.text + part.text)
        else:
            parts.append(part)
    return parts


def _to_part(item: AtItem) -> Part:
    if item.written or item.name:
        return Words(item.written or f"@{item.name} ")
    # Somebody is meant here, but nothing says who.
    return Mark(MarkKind.UNKNOWN, "at")


def _read_summary(summary: Any) -> list[tuple[str, str]]:
    """Read the lines `name:words` of a summary: a list, such a list as JSON text, or plain lines."""
    opened = maybe_json(summary)
    lines = opened if isinstance(opened, list) else text_of(opened).splitlines()
    split = (_split_line(text_of(line)) for line in lines[:NODES_MAX])
    return [line for line in split if any(line)]


def _split_line(line: str) -> tuple[str, str]:
    line = line.strip()
    match = _SPEAKER_LINE.fullmatch(line)
    return (match[1].strip(), match[2].strip()) if match else ("", line)


def _read_records(value: Any) -> Iterator[Mapping[str, Any]]:
    """Read the entries of a forwarded chat: a list, one as JSON text, or an entry alone."""
    opened = maybe_json(value)
    for record in [opened] if isinstance(opened, dict) else as_list(opened):
        if isinstance(record, dict):
            yield record
        elif isinstance(record, str) and record.strip():
            name, words = _split_line(text_of(record))
            yield {"senderNick": name, "content": words}


def message_fields(message: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return a message itself in place of its content, where its fields stand there."""
    return message if any(message.get(name) for name in (*_CODES, *_RECORDS, "richText", "fileName")) else None


def _is_link(text: str) -> bool:
    return text[:_URL_MAX_CHARS].strip().lower().startswith(_LINK)


def _is_document(url: str) -> bool:
    """Whether an address is that of a document of DingTalk's, which a robot cannot open."""
    start = url[:_URL_MAX_CHARS].lower()
    return (_is_link(start) and "previewdentry" in start) or "alidocs.dingtalk.com" in start


def _read_seconds(kind: MediaKind, duration: Any) -> float:
    """Read a duration: of speech in milliseconds; of a video in seconds or milliseconds (section 5.2)."""
    try:
        value = float(text_of(duration) or 0)
    except (ValueError, OverflowError):
        return 0.0
    if kind is MediaKind.AUDIO or value >= MILLISECONDS_MIN:
        value /= 1000
    return round(value, 1) if 0 < value <= SECONDS_MAX else 0.0


def _walk_card(tree: Any) -> list[str]:
    """Return the words of a card's tree, in reading order."""
    words: list[str] = []
    # A stack and not recursion: how deep the tree is, its sender decides.
    left = [maybe_json(tree)]
    for _ in range(NODES_MAX):
        if not left:
            break
        node = left.pop()
        if isinstance(node, list):
            left.extend(reversed(node[:NODES_MAX]))
        elif isinstance(node, dict):
            words.append(text_of(node.get("value")))
            left.append(node.get("children"))
        else:
            words.append(text_of(node))
    return [each for each in words if each]
