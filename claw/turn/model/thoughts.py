"""Thoughts: what a model says to itself before and between what it says to people, recognised while it streams.

Order of events: `add` takes pieces of text as they come, cut anywhere. Outside of thoughts it looks for the first mark
of any spelling; what comes before it is `text`, visible at once. Within a thought everything is dropped until its end.
What may still become a mark is held back. `end` says that nothing more comes: a thought without its end stays unseen.

Spellings, by the models that use them:

    <think>, <thinking>, <thought>, <reasoning>, <seed:think> and their like   DeepSeek, Qwen, Seed and most others
    [THINK] [/THINK]                                                           Mistral
    ◁think▷ ◁/think▷                                                           Kimi
    <|begin_of_thought|> <|end_of_thought|>, and the same of a solution        Sky-T1, Skywork
    <|channel|>analysis<|message|> ... <|end|>                                 gpt-oss (harmony)
    <|channel>thought ... <channel|>                                           Gemma

An end without a beginning says that all before it was a thought, for chat templates often write the beginning
themselves: `text` becomes shorter then. Within code, spans as well as fences, no mark counts: an answer may be about
them. A backtick that nothing closes begins no code, which only the end of its paragraph tells; until then it is held.

Each piece is looked at once, whatever came before: a model may say anything, megabytes of it.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from functools import lru_cache
from typing import Final

_NAMES: Final = r"(?:seed:|antml:|mm:)?(?:think(?:ing)?|thoughts?|reasoning|reflection)"
_TAG_MAX_CHARS: Final = 200
"""Characters of a tag with its attributes; a longer one is none."""
_SPAN_MAX_CHARS: Final = 1_024
"""Characters in which a code span has to end: what is held back is bounded."""

_MARK: Final = re.compile(
    rf"<(?P<close>/?){_NAMES}(?:\s[^<>\n]{{0,{_TAG_MAX_CHARS}}})?(?P<empty>/?)>"
    r"|(?-i:\[(?P<close2>/?)THINK\])"
    r"|◁(?P<close3>/?)think▷"
    r"|<\|(?P<edge>begin|end)_of_(?P<what>thought|solution)\|>"
    r"|<\|(?P<harmony>start|channel|message|end|return|call)\|>"
    r"|(?P<gemma><\|channel>|<channel\|>)"
    r"|(?P<ticks>`+)|(?P<tildes>~{3,})",
    re.IGNORECASE,
)
_PLAIN_STARTS: Final = ("[THINK]", "[/THINK]", "◁think▷", "◁/think▷")
_TOKEN_STARTS: Final = (
    *(f"<|{edge}_of_{what}|>" for edge in ("begin", "end") for what in ("thought", "solution")),
    *(f"<|{name}|>" for name in ("start", "channel", "message", "end", "return", "call")),
    "<|channel>",
    "<channel|>",
)
_TAG_NAMES: Final = tuple(
    f"{prefix}{name}"
    for prefix in ("", "seed:", "antml:", "mm:")
    for name in ("think", "thinking", "thought", "thoughts", "reasoning", "reflection")
)
_PARTIAL_TAG: Final = re.compile(rf"</?(?:{_NAMES}(?:\s[^<>\n]{{0,{_TAG_MAX_CHARS}}})?/?)?", re.IGNORECASE)
_BLANK_LINE: Final = re.compile(r"\n[ \t]*\n")
_LINE_START: Final = re.compile(r"[ \t>]*(?:[-*+][ \t]+|[0-9]{1,9}[.)][ \t]+)?[ \t]*")
"""What may stand before a fence in its line."""
_CUT_MARK_MIN_CHARS: Final = 3
"""Characters from which on the beginning of a mark at the very end is one that was cut off, and no sign of its own."""
FENCE_MIN_CHARS: Final = 3
_HEADER_MAX_CHARS: Final = 100
"""Characters of a channel's name; a longer one is text."""
_MESSAGE_TOKEN: Final = "<|message|>"  # noqa: S105 - no secret
_GEMMA_END: Final = re.compile(r"<channel\|>", re.IGNORECASE)
_CHANNEL_END: Final = re.compile(r"<\|(?:message|end|start|channel|return|call)\|>", re.IGNORECASE)


class _Place(Enum):
    """Where in an answer a text stands."""

    OUTSIDE = auto()
    CODE = auto()
    """In a fence."""
    THOUGHT = auto()
    HEADER = auto()
    """In the name of a channel, or of who speaks."""


class ThoughtFilter:
    """Tells what a model says to people from what it says to itself."""

    def __init__(self) -> None:
        self._shown: list[str] = []
        self._text: str | None = ""
        """What they are together; None: not put together yet."""
        self._rest = ""
        """What is not decided yet, from `_at` on."""
        self._at = 0
        self._place = _Place.OUTSIDE
        self._fence = _make_fence_end("`", FENCE_MIN_CHARS)
        """The line that ends the present code."""
        self._end_of_thought = _MARK
        """What the present thought may end with."""
        self._began_at = 0
        """How many pieces were shown when the last thought began."""
        self._line = ""
        """The head of the present line, as far as it was shown."""
        self._is_over = False

    @property
    def text(self) -> str:
        """What may be shown of what has come."""
        if self._text is None:
            self._text = "".join(self._shown)
            if self._is_over:
                self._text = self._text.strip()
        return self._text

    @property
    def is_thinking(self) -> bool:
        """Whether what comes now is a thought."""
        return self._place in {_Place.THOUGHT, _Place.HEADER}

    def add(self, piece: str) -> None:
        """Take the next piece."""
        self._rest += piece
        self._decide()

    def end(self) -> None:
        """Take what is left: nothing more comes."""
        self._is_over = True
        self._decide()
        self._text = None

    def _decide(self) -> None:
        steps = {
            _Place.OUTSIDE: self._pass_text,
            _Place.CODE: self._pass_code,
            _Place.THOUGHT: self._pass_thought,
            _Place.HEADER: self._pass_header,
        }
        # Each step takes something off the rest, or waits for more.
        while self._at < len(self._rest) and steps[self._place]():
            pass
        # Once for a piece, and not for each mark in it: there may be a hundred thousand of them.
        self._rest, self._at = self._rest[self._at :], 0

    # --- outside ---------------------------------------------------------------------------------------------------

    def _pass_text(self) -> bool:
        """Show text up to the next mark, and go where it leads; return whether anything may be left to do."""
        found = _MARK.search(self._rest, self._at)
        if found is None:
            held = _count_held(self._rest, self._at, is_over=self._is_over)
            if not held and not self._is_over:
                # Three tildes begin a fence; backticks are marks from the first one on.
                held = len(self._rest) - max(self._at, len(self._rest.rstrip("~")))
            self._show(len(self._rest) - held)
            self._at = len(self._rest) if self._is_over else self._at
            return False
        self._show(found.start())
        if found["ticks"] or found["tildes"]:
            return self._pass_ticks(found[0])
        self._at = found.end()
        self._follow(found)
        return True

    def _pass_ticks(self, run: str) -> bool:
        """Go past code, or a run of characters that begins none; wait where that is not known yet."""
        after = self._at + len(run)
        if after == len(self._rest) and not self._is_over:
            return False  # The run may go on.
        if len(run) >= FENCE_MIN_CHARS and _LINE_START.fullmatch(self._line):
            line_end = self._rest.find("\n", after, after + _SPAN_MAX_CHARS)
            is_known = line_end >= 0 or self._is_over or len(self._rest) - after >= _SPAN_MAX_CHARS
            if not is_known:
                return False
            # A line of backticks with more of them in it is a span.
            if run[0] == "~" or self._rest.find("`", after, line_end if line_end >= 0 else len(self._rest)) < 0:
                self._show(line_end + 1 if line_end >= 0 else len(self._rest))
                self._fence, self._place = _make_fence_end(run[0], len(run)), _Place.CODE
                return True
        if run[0] == "~":
            self._show(after)
            return True
        return self._pass_span(run, after)

    def _pass_span(self, run: str, after: int) -> bool:
        """Go past a code span, or past the run alone where none begins with it."""
        limit = after + _SPAN_MAX_CHARS
        paragraph_end = _BLANK_LINE.search(self._rest, after, limit)
        end = paragraph_end.start() if paragraph_end is not None else min(limit, len(self._rest))
        position = self._find_run(run, after, end)
        # A run at the very end may still grow, and close nothing then.
        grows = position >= 0 and position + len(run) == len(self._rest) and not self._is_over
        if position >= 0 and not grows:
            self._show(position + len(run))
        elif paragraph_end is not None or self._is_over or len(self._rest) >= limit:
            self._show(after)
        else:
            return False
        return True

    def _find_run(self, run: str, start: int, end: int) -> int:
        """Find a run of exactly as many backticks; -1 if there is none."""
        position = start
        while (position := self._rest.find(run, position, end)) >= 0:
            stop = position
            while stop < end and self._rest[stop] == "`":
                stop += 1
            if stop - position == len(run):
                return position
            position = stop
        return -1

    def _follow(self, found: re.Match[str]) -> None:
        """Go where a mark leads."""
        gemma, harmony, what = found["gemma"], found["harmony"], found["what"]
        if harmony:
            # A message without a channel is the answer; the other tokens only end one.
            if harmony.lower() in {"start", "channel"}:
                self._begin(_Place.HEADER, _CHANNEL_END)
        elif gemma == "<|channel>":
            self._begin(_Place.HEADER, _GEMMA_END)
        elif gemma or (found["close"] or found["close2"] or found["close3"]):
            self._drop_before()
        elif what:
            # The marks around a solution are dropped, and nothing with them.
            if what.lower() == "thought" and found["edge"].lower() == "end":
                self._drop_before()
            elif what.lower() == "thought":
                self._begin(_Place.THOUGHT, _MARK)
        elif not found["empty"]:
            self._begin(_Place.THOUGHT, _MARK)

    def _begin(self, place: _Place, end: re.Pattern[str]) -> None:
        self._place, self._end_of_thought = place, end
        self._began_at = len(self._shown)

    def _drop_before(self) -> None:
        """Take back what was shown: an end came that has no beginning, so that all before it was a thought."""
        # After a thought that had both, only what came since is in doubt: thoughts within thoughts look like that.
        # Pieces and not characters: what is taken back begins where a piece does.
        del self._shown[self._began_at :]
        self._text, self._line = None, ""

    # --- code, thoughts, headers -----------------------------------------------------------------------------------

    def _pass_code(self) -> bool:
        """Show code up to the end of its fence."""
        line_end = self._rest.rfind("\n")
        if line_end < self._at:
            # The last line may be the one that ends it.
            if self._is_over or len(self._rest) - self._at >= _SPAN_MAX_CHARS:
                self._show(len(self._rest))
            return False
        if self._line:
            # In the middle of a line, which is too long to be an end.
            self._show(self._rest.find("\n", self._at) + 1)
            return True
        # All lines at once, and not one by one: there may be a hundred thousand of them.
        if (closing := self._fence.search(self._rest, self._at, line_end + 1)) is None:
            self._show(line_end + 1)
            return True
        self._show(self._rest.find("\n", closing.start()) + 1)
        self._place = _Place.OUTSIDE
        return True

    def _pass_thought(self) -> bool:
        """Drop a thought up to its end."""
        position = self._at
        while (found := self._end_of_thought.search(self._rest, position)) is not None:
            if self._end_of_thought is not _MARK:
                # A token is looked at anew: it may begin the next channel.
                self._at = found.start() if self._end_of_thought is _CHANNEL_END else found.end()
                self._place = _Place.OUTSIDE
                return True
            closes = found["close"] or found["close2"] or found["close3"] or (found["edge"] or "").lower() == "end"
            is_quoted = closes and self._is_quoted(found)
            if is_quoted is None:
                self._at = found.start() - 1
                return False  # The character behind it tells.
            if closes and not is_quoted:
                self._at, self._place = found.end(), _Place.OUTSIDE
                return True
            position = found.end()
        # One character more than what may become a mark: whether that is quoted, the one before it tells.
        held = _count_held(self._rest, position, is_over=False)
        self._at = len(self._rest) if self._is_over else max(self._at, len(self._rest) - held - 1)
        return False

    def _is_quoted(self, found: re.Match[str]) -> bool | None:
        """Whether a mark stands in backticks: a thought may be about its own marks. None: not known yet."""
        if found.start() == 0 or self._rest[found.start() - 1] != "`":
            return False
        if found.end() == len(self._rest) and not self._is_over:
            return None
        return self._rest[found.end() : found.end() + 1] == "`"

    def _pass_header(self) -> bool:
        """Read the name of a channel, which says whether what follows is for people."""
        if self._end_of_thought is _GEMMA_END:
            line_end = self._rest.find("\n", self._at)
            if line_end >= 0 or len(self._rest) - self._at > _HEADER_MAX_CHARS:
                self._at, self._place = max(self._at, line_end + 1), _Place.THOUGHT
                return True
        elif (found := _CHANNEL_END.search(self._rest, self._at)) is not None:
            name, token = self._rest[self._at : found.start()].strip().lower(), found[0].lower()
            self._at = found.end()
            if token == _MESSAGE_TOKEN:
                self._place = _Place.OUTSIDE if name.startswith(("final", "assistant")) else _Place.THOUGHT
            elif token not in {"<|channel|>", "<|start|>"}:
                self._place = _Place.OUTSIDE
            return True
        elif len(self._rest) - self._at > _HEADER_MAX_CHARS:
            # No name is that long: whatever it is, nobody meant people to read it.
            self._place = _Place.THOUGHT
            return True
        if self._is_over:
            self._at = len(self._rest)
        return False

    def _show(self, until: int) -> None:
        """Show the rest up to a position."""
        shown, self._at = self._rest[self._at : until], until
        # Blanks between a thought and the answer are no part of either.
        if not self._shown:
            shown = shown.lstrip()
        if not shown:
            return
        self._shown.append(shown)
        self._text = None
        newline = shown.rfind("\n")
        # Only its beginning tells whether a fence may stand in it.
        self._line = (self._line + shown if newline < 0 else shown[newline + 1 :])[:_TAG_MAX_CHARS]


def filter_thoughts(text: str) -> str:
    """Return what a whole text says to people; empty where all of it is a thought."""
    thoughts = ThoughtFilter()
    thoughts.add(text)
    thoughts.end()
    return thoughts.text


@lru_cache(64)
def _make_fence_end(character: str, count: int) -> re.Pattern[str]:
    """Return the pattern of a line that ends code which so many of a character began."""
    return re.compile(rf"^[ \t>]*{character}{{{count},}}[ \t\r]*$", re.MULTILINE)


def _count_held(text: str, start: int, *, is_over: bool) -> int:
    """Count the characters at the end of a text that may become a mark, or that were one before it was cut off."""
    tail = text[max(start, len(text) - _TAG_MAX_CHARS - 40) :]
    begin = max(tail.rfind("<"), tail.rfind("["), tail.rfind("◁"))
    if begin >= 0 and _may_become_mark(tail[begin:]) and (not is_over or len(tail) - begin >= _CUT_MARK_MIN_CHARS):
        return len(tail) - begin
    return 0


def _may_become_mark(tail: str) -> bool:
    lower = tail.lower()
    if any(mark.startswith(tail) for mark in _PLAIN_STARTS) or any(mark.startswith(lower) for mark in _TOKEN_STARTS):
        return True
    name = lower.removeprefix("</") if lower.startswith("</") else lower.removeprefix("<")
    if not lower.startswith("<"):
        return False
    return any(each.startswith(name) for each in _TAG_NAMES) or bool(_PARTIAL_TAG.fullmatch(tail))
