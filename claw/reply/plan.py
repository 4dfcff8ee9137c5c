"""Plans the messages that an answer is sent in: how many there may be, and what is in each.

Order of events: each piece of content is made harmless (sanitize.py), as much of it as can be sent at all; it is made
visible (markdown.py) and cut into parts. When the parts that an answer may cost are used up, the last of them tells the
person how much was left out, or that it is in a file behind it. Each file takes a part, and they come last; at least
one part is left for words. The same content gives the same messages, whenever and wherever it is planned.

Texts that take more than a moment are planned in a thread: one for all, since threads share the interpreter with the
loop, and not one of the pool, in which name servers that hang are waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from claw.language import Language, Text, detect_language
from claw.messages import Answer, CardText, Content, FileRole, Inbound, Markdown, SentFile, UnknownContent
from claw.reply.characters import clean, measure_json
from claw.reply.cutting import Head, split_head
from claw.reply.markdown import format_for_dingtalk
from claw.reply.sanitize import sanitize
from claw.reply.titles import make_title

PART_MAX_BYTES: Final = 14_000
"""Bytes of a part inside JSON. It has to fit, with its title, into the OpenAPI's `msgParam` (15 000 bytes) and, with
a mention, into a webhook's body (20 000). Few large parts rather than many small ones: each call is paid for
(docs/protocol.md sections 6.6 and 6.7)."""
ANSWER_MAX_CHARS: Final = 1_000_000
"""Characters of a text that are looked at."""
INLINE_MAX_CHARS: Final = 1024
"""Characters that are planned at once: some 3 ms for the worst of texts, and all slots may have an answer at a time."""
SHORT_MAX_CHARS: Final = PART_MAX_BYTES // 8
"""Characters that surely fit into one message, whatever is done to make them visible."""
UNKNOWN_MARK: Final = (
    "（这里的内容由另一个版本的 claw 生成，当前版本无法发送。）\n\n"
    "(Something here was made by another version of claw; this version cannot send it.)"
)
"""What stands in the place of content of an unknown kind. In both languages: which one the person speaks, an answer
does not tell."""
LEFT_OUT: Final = Text(
    "（回答太长，后面约 {count} 个字没有发送。）",
    "(The answer is too long: some {count} characters after this were left out.)",
)


IN_FILE: Final = Text(
    "（回答太长，后面约 {count} 个字在下面的文件里，文件中有完整回答。）",
    "(The answer is too long for messages: the file below has all of it, with the {count} characters after this.)",
)


class PlannedDelivery(NamedTuple):
    """One message of DingTalk's, as the conversation gets it."""

    title: str
    text: str


class AnswerPlan(NamedTuple):
    """The messages of an answer; not `complete` where its words do not fit into them."""

    deliveries: list[PlannedDelivery | SentFile]
    complete: bool


class Planner:
    """Plans answers of at most `max_parts` messages; `language` is of people who do not show theirs."""

    def __init__(self, language: Language, max_parts: int) -> None:
        self._language = language
        self._max_parts = max_parts
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="claw.reply.plan")

    @property
    def max_parts(self) -> int:
        """How many messages an answer may cost."""
        return self._max_parts

    def detect(self, inbound: Inbound) -> Language:
        """Return the language of our own words in the answer to a message."""
        # By what the person wrote, which is stored with the answer: a restart finds the same language.
        return detect_language(inbound.text[:ANSWER_MAX_CHARS], self._language)

    async def plan(self, inbound: Inbound, answer: Answer) -> list[PlannedDelivery | SentFile]:
        """Plan the messages of an answer, once for all of them."""
        return (await self._plan(inbound, answer)).deliveries

    async def is_cut(self, inbound: Inbound, answer: Answer) -> bool:
        """Whether words of an answer are left out, since it is too long for its messages."""
        if sum(map(_count, answer.content)) <= SHORT_MAX_CHARS and len(answer.content) <= self._max_parts:
            return False
        return not (await self._plan(inbound, answer)).complete

    async def _plan(self, inbound: Inbound, answer: Answer) -> AnswerPlan:
        language = self.detect(inbound)
        if sum(map(_count, answer.content)) <= INLINE_MAX_CHARS:
            return plan_answer(answer.content, language, self._max_parts)
        # The answer is a frozen value: the thread reads nothing that the loop could change meanwhile.
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, plan_answer, answer.content, language, self._max_parts)


def plan_answer(content: Sequence[Content], language: Language, max_parts: int) -> AnswerPlan:
    """Plan the messages in which content is sent: the same for the same content, `max_parts` at most.

    `language` is of our own words among it, and of the title of a text that has none, such as one that is only a
    picture.
    """
    # Files last, wherever they stand: a person reads first what they are.
    words = [each for each in content if not isinstance(each, SentFile)]
    files = [each for each in content if isinstance(each, SentFile)]
    # What a card shows is no message. Counted as one it could leave none for the rest that the card promises.
    cards = sum(isinstance(each, CardText) for each in words)
    # Another replica may allow for more messages than this one.
    files = files[: max_parts - 1] if len(words) > cards else files[:max_parts]
    notice = IN_FILE if any(each.role is FileRole.WHOLE for each in files) else LEFT_OUT
    deliveries: list[PlannedDelivery | SentFile] = []
    complete, room = True, max_parts - len(files) + cards
    for index, each in enumerate(words):
        if isinstance(each, CardText):
            # It is out, and stands here so that those behind it keep their numbers.
            deliveries.append(PlannedDelivery("", each.text))
            continue
        later = sum(map(_count, words[index + 1 :]))
        title, head = _plan_text(_read(each), language, room - len(deliveries), later, notice)
        deliveries += (PlannedDelivery(title, part) for part in head.parts)
        complete = head.complete and (len(deliveries) < room or not later)
        if not complete or len(deliveries) == room:
            break
    return AnswerPlan([*deliveries, *files], complete)


def _plan_text(text: str, language: Language, max_parts: int, later: int, notice: Text) -> tuple[str, Head]:
    """Return the title of a text and its first parts; `later` characters of other texts come after it."""

    def make_notice(count: int) -> str:
        return notice[language].format(count=f"{count:,}")

    # First of all: nothing below looks at more, whatever a model said.
    dropped = max(len(text) - ANSWER_MAX_CHARS, 0)
    cleaned = _strip(clean(text[:ANSWER_MAX_CHARS]))
    # A byte for each character: no more can be in the parts, so that no more is worth any work.
    harmless = sanitize(cleaned, language, max_parts * PART_MAX_BYTES)
    head = split_head(
        format_for_dingtalk(harmless.text),
        PART_MAX_BYTES,
        max_parts,
        make_notice,
        dropped=dropped + harmless.dropped,
        later=later,
        measure=measure_json,
    )
    return make_title(harmless.text, language), head


def _read(content: Markdown | CardText | UnknownContent) -> str:
    # A kind that this version does not know counts as one delivery, as any kind but text does. So `Answer.sent`
    # means the same to the replicas of both versions during a rolling update.
    return content.text if isinstance(content, Markdown | CardText) else UNKNOWN_MARK


def _count(content: Content) -> int:
    """Count the characters that have to be told of where they are left out."""
    if isinstance(content, SentFile):
        return 0
    text = _read(content)
    return 0 if text.isspace() else len(text)


def _strip(text: str) -> str:
    """Strip blank lines at both ends; the indentation of the first line counts."""
    text = text.rstrip()
    first = len(text) - len(text.lstrip())
    return text[text.rfind("\n", 0, first) + 1 :]
