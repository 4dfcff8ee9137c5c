"""Who is @-ed in a message, and the robot's own name in what was said (docs/protocol.md sections 5.1 and 10a).

Most clients strip the mention of the robot from the words; some leave it there as text, before or after them, or as a
fragment of its own. One rule for all: where the message @-s the robot, a leading or trailing mention of it is no part
of what was said. Order of events: `read_people` reads `atUsers`; `strip` takes out the items that name the robot by
its id, gives names to the people who are @-ed by an item, lists the mentions with which the words begin, and takes
away those that are the robot's: by a name that is known, else the first of them. Then the same at the end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from claw.parts import Part, Person, Words
from claw.stream.lenient import text_of

MENTIONED_MAX: Final = 50
"""People of a message."""
NAMES_MAX: Final = 8
"""Names of a robot that are remembered: it has one for each language, and may be renamed."""
ROBOTS_MAX: Final = 64
RUN_MAX: Final = 10
"""Mentions that are looked at, at each end."""
NAME_MAX_CHARS: Final = 64
"""Characters of a name in the words."""
TIE: Final = "\u2005"
"""The blank that clients put behind a mention, and nobody types: a name before it may have blanks of its own."""

_BLANKS: Final = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\u200b\u200c\u200e\u200f\u2060\ufeff"
_SEPARATORS: Final = _BLANKS + ",，:：、"
_NAME: Final = f"[^{re.escape(_BLANKS)}@＠/／,，:：、。!！?？;；]{{1,{NAME_MAX_CHARS}}}"
_WORD: Final = re.compile(f"[@＠]({_NAME})(?=[{re.escape(_BLANKS)}/／,，:：、。!！?？;；]|$|[@＠]\\1)")
_TIED: Final = re.compile(f"[@＠]([^@＠/／\\n{TIE}]{{1,{NAME_MAX_CHARS}}}){TIE}")
_LAST_WORD: Final = re.compile(f"[@＠]({_NAME})\\Z")
_LAST_TIED: Final = re.compile(f"[@＠]([^@＠/／\\n{TIE}]{{1,{NAME_MAX_CHARS}}})\\Z")
_IN_A_WORD: Final = re.compile(r"[A-Za-z0-9_]|[.-][A-Za-z0-9_]")
_ADDRESS: Final = re.compile(r"[A-Za-z0-9._%+-]")
_BARE_COMMAND: Final = re.compile(r"[/／][A-Za-z\u4e00-\u9fff]{1,24}")
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][\w.]*([(\[<'\"].*)?\Z")


@dataclass(frozen=True, slots=True)
class AtItem:
    """A mention as an item of a rich text: of whom, where that is told, and how it was written."""

    who: str
    name: str
    written: str = ""


@dataclass(frozen=True, slots=True)
class Mentions:
    """What `atUsers` says. `robot` is whether the robot is @-ed, and may stand in the words."""

    people: tuple[Person, ...]
    robot: bool


def read_people(at_users: Any, robot_id: str, *, in_at_list: bool) -> Mentions:
    """Read who is @-ed: all but the robot. `in_at_list`: the message says of itself that the robot is."""
    users = [user for user in at_users if isinstance(user, dict)] if isinstance(at_users, list) else []
    people: dict[str, Person] = {}
    robot = in_at_list
    for user in users:
        person = Person(text_of(user.get("dingtalkId")), text_of(user.get("staffId")), text_of(user.get("nick")))
        if robot_id and person.id == robot_id:
            robot = True
        elif not robot_id and not person.staff_id:
            # Where the robot's id is not told, an entry without a staff id may be the robot.
            robot = True
        elif person.key and len(people) < MENTIONED_MAX:
            people.setdefault(person.key, person)
    return Mentions(tuple(people.values()), robot)


class RobotNames:
    """Names by which robots were called, as items of rich texts told: of use where a client writes them as text."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, None]] = {}

    def of(self, robot_id: str) -> tuple[str, ...]:
        """Return the names of a robot, the longest first."""
        return tuple(sorted(self._names.get(robot_id, ()), key=len, reverse=True))

    def learn(self, robot_id: str, name: str) -> None:
        """Remember a name. The one that was not heard of for longest makes room."""
        if not name or len(name) > NAME_MAX_CHARS:
            return
        names = self._names.pop(robot_id, {})
        self._names[robot_id] = names
        names.pop(name, None)
        names[name] = None
        while len(names) > NAMES_MAX:
            del names[next(iter(names))]
        while len(self._names) > ROBOTS_MAX:
            del self._names[next(iter(self._names))]


Items = list[Part | AtItem]


@dataclass(frozen=True, slots=True)
class _Span:
    """A mention at an end of what was said: a whole item, or the words from `start` to `end`."""

    index: int
    name: str
    start: int = 0
    stop: int = 0
    """Where the name ends."""
    end: int = 0
    """Where what follows begins; 0 for a whole item."""


def strip(
    items: Sequence[Part | AtItem], mentions: Mentions, robot_id: str, names: RobotNames
) -> tuple[Items, tuple[Person, ...]]:
    """Take the robot's mentions out; return what is left, and the people with the names that items tell."""
    left, people, taken = _take_items(items, mentions, robot_id, names)
    if not mentions.robot:
        return left, people
    known = names.of(robot_id)
    # Before the ends are looked at: a name that a client cut into fragments is one mention.
    left = _fold(left, known)
    ends = _Ends(left, people, {*known, *taken}, was_called=bool(taken))
    told = (*ends.strip_leading(), *ends.strip_trailing())
    if not people and len(items) > 1:
        # A fragment of its own, and nobody else is @-ed: its name is the robot's.
        for name in told:
            names.learn(robot_id, name)
    return left, people


def _take_items(
    items: Sequence[Part | AtItem], mentions: Mentions, robot_id: str, names: RobotNames
) -> tuple[Items, tuple[Person, ...], list[str]]:
    """Take out the items that name the robot by its id, wherever they stand; return its names as well."""
    people = {person.key: person for person in mentions.people}
    by_id = {each: key for key, person in people.items() for each in (person.id, person.staff_id) if each}
    left: Items = []
    taken: list[str] = []
    for item in items:
        if isinstance(item, AtItem) and item.who in by_id:
            person = people[by_id[item.who]]
            people[by_id[item.who]] = replace(person, name=person.name or item.name)
            # Its place in the sentence says who is meant, by the staff id if by no name.
            left.append(replace(item, name=item.name or person.staff_id))
        elif isinstance(item, AtItem) and item.who == robot_id != "":
            names.learn(robot_id, item.name)
            taken.append(item.name)
        else:
            left.append(item)
    return left, tuple(people.values()), taken


def _fold(items: Items, known: Sequence[str]) -> Items:
    """Turn fragments that are more, or less, than a mention into the words that they are; join words."""
    folded: Items = []
    for index, item in enumerate(items):
        part = item
        if isinstance(item, AtItem) and item.written:
            following = items[index + 1] if index + 1 < len(items) else None
            if not _is_whole(item, following, known):
                part = Words(item.written)
        last = folded[-1] if folded else None
        if isinstance(part, Words) and isinstance(last, Words):
            folded[-1] = Words(last.text + part.text)
        else:
            folded.append(part)
    return folded


def _is_whole(item: AtItem, following: Part | AtItem | None, known: Sequence[str]) -> bool:
    """Whether a fragment of text is a mention and nothing else."""
    if item.name in known:
        return True
    after = following.text if isinstance(following, Words) else ""
    # A name and words in one fragment, or a name over several.
    if any(_begins_with(item.name + after, name) for name in known):
        return False
    if not any(blank in item.name for blank in _BLANKS):
        return True
    return TIE in item.written or after.lstrip(_BLANKS)[:1] in {"/", "／"}


def _begins_with(text: str, name: str, start: int = 0) -> bool:
    """Whether a name stands there, and does not go on as another: `claw` is not in `clawback`."""
    if not text.startswith(name, start):
        return False
    end = start + len(name)
    return not (name[-1].isascii() and name[-1].isalnum() and _IN_A_WORD.match(text, end))


class _Ends:
    """Both ends of what was said. `robot_names` grows by the name that is taken for the robot's."""

    def __init__(self, items: Items, people: Sequence[Person], robot_names: set[str], *, was_called: bool) -> None:
        self._items = items
        self._people = people
        self._ids = {each for person in people for each in (person.id, person.staff_id) if each}
        self._others = {person.name for person in people if person.name}
        self._names = robot_names
        # Where the robot's mention was found, another name is somebody else's.
        self._was_called = was_called
        first = next((item for item in items if isinstance(item, Words)), None)
        # A client that strips mentions leaves a blank at their place.
        self._was_stripped = first is not None and first.text[:1] in _BLANKS and bool(first.text)

    def strip_leading(self) -> list[str]:
        """Take mentions of the robot off the beginning; return the names of those that are items."""
        spans = self._find_leading()
        own = self._choose(spans)
        if not own and spans and not self._was_called and not self._is_doubtful(spans[0]):
            own = [span for span in spans if span.name == spans[0].name]
        return self._remove(own)

    def strip_trailing(self) -> list[str]:
        """Take them off the end; return the names of those that are items."""
        spans = self._find_trailing()
        own = self._choose(spans)
        # With others @-ed, the last may be theirs, unless there are more mentions than people.
        if not own and len(spans) > len(self._people) and not self._was_called:
            last = spans[0]
            if not last.end or not self._was_stripped:
                own = [span for span in spans if span.name == last.name]
        return self._remove(own)

    def _choose(self, spans: Sequence[_Span]) -> list[_Span]:
        return [span for span in spans if span.name in self._names]

    def _is_doubtful(self, span: _Span) -> bool:
        """Whether the client took the robot's mention off already, so that this one, like `@property`, was said."""
        if not span.end or not self._was_stripped:
            return False
        words = self._words(span.index)[span.stop :]
        rest = words.strip(_BLANKS)
        if words[:1] in _BLANKS and rest[:1] in {"/", "／"}:
            return False
        return not _BARE_COMMAND.fullmatch(rest) and bool(self._people or _IDENTIFIER.match(span.name))

    def _words(self, index: int) -> str:
        item = self._items[index]
        return item.text if isinstance(item, Words) else ""

    def _is_candidate(self, item: AtItem) -> bool:
        return item.who not in self._ids and item.name not in self._others

    # --- finding ---------------------------------------------------------------------------------------------------

    def _find_leading(self) -> list[_Span]:
        """List the mentions before the first word; pictures may stand among them."""
        spans: list[_Span] = []
        for index, item in enumerate(self._items):
            if isinstance(item, AtItem) and self._is_candidate(item):
                spans.append(_Span(index, item.name))
            if not isinstance(item, Words):
                continue
            start = _skip(item.text, 0, _BLANKS)
            while len(spans) < RUN_MAX and (span := self._match(index, item.text, start)):
                if span.name not in self._others:
                    spans.append(span)
                start = span.end
            if start < len(item.text):
                break
        return spans[:RUN_MAX]

    def _match(self, index: int, text: str, start: int) -> _Span | None:
        if text[start : start + 1] not in {"@", "＠"}:
            return None
        name = next((name for name in self._sorted_names() if _begins_with(text, name, start + 1)), "")
        stop = start + 1 + len(name)
        if not name:
            match = _TIED.match(text, start) or _WORD.match(text, start)
            if match is None:
                return None
            name, stop = match[1].strip(_BLANKS), match.end(1)
        return _Span(index, name, start, stop, _skip(text, stop, _SEPARATORS))

    def _find_trailing(self) -> list[_Span]:
        """List the mentions behind the last word, the last one first."""
        spans: list[_Span] = []
        for index in range(len(self._items) - 1, -1, -1):
            item = self._items[index]
            if isinstance(item, AtItem) and self._is_candidate(item):
                spans.append(_Span(index, item.name))
            if not isinstance(item, Words):
                continue
            text, span = item.text, self._match_last(index, item.text)
            while len(spans) < RUN_MAX and span is not None:
                if span.name not in self._others:
                    spans.append(span)
                text = text[: span.start]
                span = self._match_last(index, text)
            if text.strip(_BLANKS):
                break
        return spans[:RUN_MAX]

    def _match_last(self, index: int, text: str) -> _Span | None:
        bare = text.rstrip(_BLANKS)
        # Far more than a name takes, and little to look at.
        tail = bare[-4 * NAME_MAX_CHARS :]
        name = next((name for name in self._sorted_names() if tail.endswith((f"@{name}", f"＠{name}"))), "")
        if not name:
            match = (_LAST_TIED if TIE in text[len(bare) :] else _LAST_WORD).search(tail)
            name = match[1] if match else ""
        start = len(bare) - len(name) - 1
        if not name or not _may_mention(bare, start):
            return None
        return _Span(index, name, start, len(bare), len(text))

    def _sorted_names(self) -> list[str]:
        return sorted(filter(None, self._names), key=len, reverse=True)

    # --- taking out ------------------------------------------------------------------------------------------------

    def _remove(self, spans: Sequence[_Span]) -> list[str]:
        told = []
        for span in sorted(spans, key=lambda each: (each.index, each.start), reverse=True):
            self._names.add(span.name)
            self._was_called = True
            text = self._words(span.index)
            left = text[: span.start] + text[span.end :] if span.end else ""
            if left:
                self._items[span.index] = Words(left)
                continue
            del self._items[span.index]
            if not span.end:
                told.append(span.name)
                if rest := self._words(span.index) if span.index < len(self._items) else "":
                    self._items[span.index] = Words(rest.lstrip(_SEPARATORS))
        return told


def _skip(text: str, start: int, what: str) -> int:
    while start < len(text) and text[start] in what:
        start += 1
    return start


def _may_mention(text: str, start: int) -> bool:
    """Whether an @ there begins a mention: behind a letter it is an address, unless no address has such a name."""
    before = text[start - 1 : start]
    if not _ADDRESS.match(before) or not text[start + 1].isascii():
        return True
    return bool(_BARE_COMMAND.fullmatch(text, 0, start))
