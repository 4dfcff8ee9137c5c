"""What one answer costs at most, what is told of the rest, and that planning it holds nobody else up."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claw.dingtalk.openapi import OpenApiClient
from claw.dingtalk.webhook import WebhookClient
from claw.language import Language
from claw.messages import Answer, CardText, Content, FileRole, Markdown, Outcome, SentFile, UnknownContent
from claw.reply.cutting import split_head
from claw.reply.plan import IN_FILE, LEFT_OUT, PART_MAX_BYTES, UNKNOWN_MARK, PlannedDelivery, Planner, plan_answer
from claw.reply.sanitize import EMBEDDED
from claw.reply.sender import AnswerSender
from tests.dingtalk.conftest import WEBHOOK_PATH, FakeDingTalk, inbound
from tests.reply.test_markdown import DOCUMENTS, open_fence

NOTICE = re.compile(r"\n\n\(The answer is too long: some ([0-9,]+) characters after this were left out\.\)\Z")
HOSTILE = {
    "fences": "```\n" * 250_000,
    "blocks": "```\na\n```\n\n" * 90_000,
    "tildes": "~~~\n\n\n" * 160_000,
    "lines": "a\n" * 500_000,
    "words": "x " * 500_000,
    "table": "|-|\n" * 250_000,
    "links": "](a:" * 250_000,
    "mentions": "@all " * 200_000,
    "ticks": "` " * 500_000,
    "one word": "字" * 1_000_000,
    "data": "![](data:image/png;base64," + "A" * 900_000,
}


def plan_deliveries(content: Sequence[Content], language: Language, max_parts: int) -> list[PlannedDelivery]:
    """Plan an answer that has no files."""
    deliveries = plan_answer(content, language, max_parts).deliveries
    return [each for each in deliveries if isinstance(each, PlannedDelivery)]


def parts_of(*content: Content | str, max_parts: int = 5) -> list[str]:
    pieces = [Markdown(each) if isinstance(each, str) else each for each in content]
    return [delivery.text for delivery in plan_deliveries(pieces, Language.EN, max_parts)]


def left_out(part: str) -> int:
    """How many characters a part says are left out; 0 where it says nothing."""
    found = NOTICE.search(part)
    return int(found[1].replace(",", "")) if found else 0


@pytest.mark.parametrize(("name", "max_parts"), [*((name, 5) for name in HOSTILE), ("words", 1), ("words", 100)])
def test_an_answer_costs_so_many_messages_at_most(name: str, max_parts: int) -> None:
    """Whatever a model says, and the last one says that something is left out."""
    parts = parts_of(HOSTILE[name], max_parts=max_parts)
    assert 1 <= len(parts) <= max_parts
    assert all(len(json.dumps(part, ensure_ascii=False).encode()) - 2 <= PART_MAX_BYTES for part in parts)
    assert not any(map(left_out, parts[:-1]))
    assert (left_out(parts[-1]) > 0) is (len(parts) == max_parts)


def test_what_is_left_out_is_counted() -> None:
    """All characters are in the parts or in the count."""
    text = "字" * 50_000
    parts = parts_of(text, max_parts=2)
    assert len(parts) == 2
    assert sum(part.count("字") for part in parts) + left_out(parts[1]) == 50_000
    assert parts[0] == "字" * (PART_MAX_BYTES // 3)


def test_what_fits_says_nothing() -> None:
    """Text for exactly so many parts needs no notice."""
    text = "字" * (PART_MAX_BYTES // 3)
    assert parts_of(text, max_parts=1) == [text]
    assert left_out(parts_of(text + "字", max_parts=1)[0]) > 1


def test_code_at_the_end_is_closed_before_the_notice() -> None:
    """The notice is no code."""
    (part,) = parts_of("```python\n" + "print(1)\n" * 9000, max_parts=1)
    assert NOTICE.sub("", part).endswith("\n```")
    assert left_out(part)


def test_the_notice_is_in_the_persons_language() -> None:
    """Chinese for who writes Chinese."""
    ((_, text),) = plan_deliveries([Markdown("字" * 9000)], Language.ZH, 1)
    kept = text.split("\n\n")[0].count("字")
    assert text.endswith(LEFT_OUT[Language.ZH].format(count=f"{9000 - kept:,}"))


async def test_the_language_is_of_the_message() -> None:
    """What the person wrote is stored, so that a restart plans the same; a message without words has our own."""
    answer = Answer.of("x" * 20_000, Outcome.ANSWERED)
    planner = Planner(Language.ZH, 1)
    for said, language in (("hello there", Language.EN), ("你好", Language.ZH), ("", Language.ZH)):
        (delivery,) = await planner.plan(replace(inbound(), text=said), answer)
        assert isinstance(delivery, PlannedDelivery)
        text = delivery.text
        assert text.endswith(LEFT_OUT[language].partition("{count}")[2])


def test_all_content_is_within_the_limit() -> None:
    """Several pieces share the messages; the last says how much of all is left out."""
    long = "字" * 9000
    assert len(parts_of("one", "two", "three", max_parts=3)) == 3
    assert parts_of("one", "two", " ", max_parts=2) == ["one", "two"]
    one, two = parts_of("one", "two", "three", UnknownContent({}), max_parts=2)
    assert (one, left_out(two)) == ("one", len("three") + len(UNKNOWN_MARK))
    first, second, third = parts_of("one", long, long, max_parts=3)
    assert second.count("字") + third.count("字") + left_out(third) == 18_000
    assert first == "one"


def test_files_come_last_and_count() -> None:
    """Each file is one of the messages, and words keep at least one."""
    files = [SentFile(f"@{n}", f"{n}.pdf", "pdf") for n in range(4)]
    plan = plan_answer([files[0], Markdown("字" * 20_000), *files[1:]], Language.EN, 5)
    assert plan.deliveries[1:] == files
    assert not plan.complete
    assert plan_answer([Markdown("one"), *files], Language.EN, 2).deliveries[1:] == files[:1]
    assert plan_answer([Markdown("one"), *files], Language.EN, 1).deliveries == [PlannedDelivery("one", "one")]
    assert plan_answer(files, Language.EN, 3).deliveries == files[:3]
    assert plan_answer([Markdown("one"), *files], Language.EN, 5).complete


def test_an_answer_that_is_a_file_as_a_whole_says_so() -> None:
    """The last words tell that all of it is in the file behind them."""
    whole = SentFile("@1", "answer.zip", "zip", FileRole.WHOLE)
    first, second, file = plan_answer([Markdown("字" * 20_000), whole], Language.EN, 3).deliveries
    assert isinstance(first, PlannedDelivery)
    assert isinstance(second, PlannedDelivery)
    shown = first.text.count("字") + second.text.count("字")
    assert second.text.endswith(IN_FILE[Language.EN].format(count=f"{20_000 - shown:,}"))
    assert file is whole


def test_an_embedded_picture_costs_no_messages() -> None:
    """400 000 characters of base64 were 29 messages."""
    text = f"Here:\n\n![cat](data:image/png;base64,{'A' * 400_000})\n\nNice?"
    assert parts_of(text) == [f"Here:\n\ncat{EMBEDDED[Language.EN]}\n\nNice?"]


def test_harmless_in_title_and_text() -> None:
    """The conversation list shows the title."""
    ((title, text),) = plan_deliveries([Markdown("@all [x](javascript:alert(1))")], Language.EN, 5)
    assert "@all" not in title + text
    assert "javascript:" not in title + text


@pytest.mark.parametrize("text", [" " * 200_000, "\n" * 2_000_000, " \n" * 100_000, "", "\t"])
def test_blank_texts_cost_nothing(text: str) -> None:
    """There is nothing to say, and nothing left out."""
    assert parts_of(text) == []


def test_blank_lines_before_an_answer_do_not_hide_it() -> None:
    """However many; its first line keeps its indentation."""
    assert parts_of("\n" * 200_000 + "    code") == ["    code"]


@given(DOCUMENTS, st.integers(1, 4), st.integers(130, 400), st.sampled_from([0, 5]), st.sampled_from([0, 7]))
@settings(max_examples=400, deadline=None)
def test_heads_of_all_texts(text: str, parts_max: int, limit: int, dropped: int, later: int) -> None:
    """Never too many parts, none too large or with an open fence; complete is what has no notice, and only that."""
    head = split_head(text, limit, parts_max, "({} left out)".format, dropped=dropped, later=later)
    # A line opens a fence if it takes no more than a quarter of a part with a notice.
    room = limit - len(f"\n\n({len(text) + dropped + later} left out)")
    assert len(head.parts) <= parts_max
    for index, part in enumerate(head.parts):
        assert 0 < len(part.encode()) <= limit
        assert open_fence(part, room) == ""
        assert ("left out)" in part) is (index == len(head.parts) - 1 and not head.complete)
    if dropped and head.parts:
        assert not head.complete


# --- while others wait ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def watch_lag() -> AsyncIterator[list[float]]:
    """Measure by how much the loop is late, all the time: what `/health` and heartbeats would see."""
    lags: list[float] = []

    async def watch() -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.005)
            lags.append(time.monotonic() - began - 0.005)

    task = asyncio.create_task(watch())
    await asyncio.sleep(0)
    try:
        yield lags
    finally:
        task.cancel()
        lags.sort()


@pytest.mark.parametrize(("name", "answers"), [("fences", 32), ("links", 4), ("ticks", 4)])
async def test_planning_does_not_hold_the_loop_up(name: str, answers: int) -> None:
    """Answers of a megabyte at once, planned one after another beside the loop."""
    planner = Planner(Language.EN, 5)
    answer = Answer.of(HOSTILE[name], Outcome.ANSWERED)
    began = time.thread_time()
    async with watch_lag() as lags:
        plans = await asyncio.gather(*(planner.plan(inbound(), answer) for _ in range(answers)))
    assert all(plan == plans[0] for plan in plans)
    # The thread and the loop take turns of 5 ms. The rest is for whoever else this machine works for.
    assert lags[len(lags) * 9 // 10] < 0.1
    assert lags[-1] < 3
    assert time.thread_time() - began < 2


@pytest.mark.parametrize("max_parts", [1, 2, 5])
@pytest.mark.parametrize("file", [(), (SentFile("@lADfake", "a.pdf", "pdf"),)], ids=["", "file"])
def test_what_a_card_shows_is_no_message(max_parts: int, file: tuple[SentFile, ...]) -> None:
    """The rest that a card promises has a message, whatever an answer may cost; the card keeps its number."""
    plan = plan_answer((CardText("shown"), Markdown("the rest"), *file), Language.EN, max_parts)
    assert [each.text for each in plan.deliveries if isinstance(each, PlannedDelivery)] == ["shown", "the rest"]
    assert len(plan.deliveries) <= max_parts + 1
    alone = plan_answer((CardText("shown"), *file), Language.EN, max_parts)
    assert alone.deliveries == [PlannedDelivery("", "shown"), *file]


async def test_many_short_answers_do_not_hold_the_loop_up() -> None:
    """What is planned at once is short enough for all slots together."""
    planner = Planner(Language.EN, 5)
    began = time.thread_time()
    for _ in range(32):
        await planner.plan(inbound(), Answer.of("```\n" * 255, Outcome.ANSWERED))
    assert time.thread_time() - began < 0.2


async def test_an_answer_is_planned_once(
    webhook: WebhookClient, openapi: OpenApiClient, dingtalk: FakeDingTalk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For all of its messages together, and in another thread than the loop's."""
    threads: list[int] = []

    def plan(*args: object) -> object:
        threads.append(threading.get_ident())
        return plan_answer(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("claw.reply.plan.plan_answer", plan)
    sender = AnswerSender(webhook, openapi, Language.EN, 3)

    async def persist(_: Answer) -> None:
        pass

    await sender.send(inbound(webhook=dingtalk.webhook), Answer.of(HOSTILE["words"], Outcome.ANSWERED), persist)
    assert len(dingtalk.to(WEBHOOK_PATH)) == 3
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()
