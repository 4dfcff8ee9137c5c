"""Attacks on what goes out: proxies that answer in DingTalk's place, refusals for ever, answers without a measure."""

from __future__ import annotations

import asyncio
import signal
from typing import Final

from bench.attacks.arena import Arena, until
from bench.attacks.registry import Outcome, attack

PARTS_MAX: Final = 8
"""Calls that one answer may cost: five parts, and a file with the rest."""
REFUSED_S: Final = 720.0
PAGE: Final = b"<html><body><h1>This page was blocked</h1></body></html>"
STATUSES: Final = ("403 Forbidden", "404 Not Found", "302 Found", "407 Proxy Authentication Required")
STATUSES_MORE: Final = ("413 Payload Too Large", "200 OK")


def _page(status: str) -> bytes:
    more = "Location: http://127.0.0.1:9/login\r\n" if status.startswith("302") else ""
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(PAGE)}\r\n{more}Connection: close"
    return head.encode() + b"\r\n\r\n" + PAGE


@attack("F4", "a proxy answers in DingTalk's place for 5 s: 403, 404, 302, 407, 413, 200 with a page")
async def proxies(place: Arena) -> Outcome:
    relay = await place.relay(place.emulator.port)
    await place.start(DINGTALK_OPENAPI_ENDPOINT=relay.url, DINGTALK_OAPI_ENDPOINT=relay.url)
    statuses = [*STATUSES, *STATUSES_MORE]
    people = place.people(18)
    asked = []
    for number, status in enumerate(statuses):
        await relay.pretend(_page(status))
        asked += [await place.ask(person=person) for person in people[3 * number : 3 * number + 3]]
        await asyncio.sleep(1.5)
    relay.heal()
    await place.settle(asked, 120)
    left = [each for each in asked if each.mark not in place.answered()]
    return Outcome(f"{len(left)} of {len(asked)} answers never came, {relay.refused} calls met it", held=not left)


@attack("F8", "one chat's webhook refuses with errcode 400018 for ever", long=True)
async def refusal(place: Arena) -> Outcome:
    """Ask twice: the first answer is refused, and the second one shows whether the chat goes on."""
    claw = await place.start()
    (person,) = place.people(1)
    place.emulator.faults.update({"webhook_errcode": 400018})
    before = place.calls
    asked = await place.ask(person=person)
    await until(lambda: bool(place.model.asked), 10)
    second = await place.ask(person=person)

    def over() -> bool:
        return second.mark in place.model.asked

    went_on = await until(over, REFUSED_S)
    calls = place.calls - before
    told = any(reply.via == "openapi" for reply in place.emulator.replies)
    pending = (await claw.status())["inbox"]["pending"]
    figure = (
        f"{calls} billed calls in {REFUSED_S:.0f} s at most; the chat {'went on' if went_on else 'is blocked'}; "
        f"told by the other way: {'yes' if told else 'no'}; {pending} pending"
    )
    return Outcome(figure, held=went_on and calls <= 20 and asked.acked)


async def _cost(place: Arena, text: str) -> tuple[int, float]:
    """Let the model answer with `text`; return the calls that this cost."""
    place.model.answer = lambda _mark: text
    claw = place.claws[0]
    claw.watch.forget()
    before = place.calls
    await place.ask()
    count = -1
    # A loop that stands still calls nobody: the first call is waited for.
    await until(lambda: place.calls > before, 40)
    while place.calls != count:
        count = place.calls
        await asyncio.sleep(3)
    return place.calls - before, claw.watch.worst_s


@attack("F9", "an answer of 1 MB: text, then fences")
async def endless(place: Arena) -> Outcome:
    await place.start()
    text, _ = await _cost(place, "一个很长的回答，没有尽头。" * 27_000)
    fences, _ = await _cost(place, "```\nx\n```\n" * 100_000)
    held = text <= PARTS_MAX and fences <= PARTS_MAX
    return Outcome(f"{text} calls for text, {fences} for fences", held=held)


@attack("F13", "the process is stopped for 12 s while answers are being sent")
async def stopped(place: Arena) -> Outcome:
    claw = await place.start()
    place.emulator.faults.update({"webhook_delay": 1.0})
    asked = [await place.ask(person=person) for person in place.people(120)]
    await until(lambda: len(place.emulator.replies) >= 20, 20)
    # Into the middle of the next calls.
    await asyncio.sleep(0.5)
    claw.signal(signal.SIGSTOP)
    await asyncio.sleep(12)
    claw.signal(signal.SIGCONT)
    left = await place.settle(asked, 25)
    await asyncio.sleep(3)
    heard = place.heard()
    twice = sum(len(heard.get(each.mark, ())) > 1 for each in asked)
    return Outcome(f"{twice} of {len(asked)} twice, {len(left)} not answered", held=not twice and not left)


@attack("F20a", "a frame above 8 MiB, which DingTalk repeats")
async def huge_frame(place: Arena) -> Outcome:
    await place.start()
    place.emulator.faults.update({"repush_after": 3.0})
    before = len(place.emulator.registrations)
    asked = await place.say("长" * 3_000_000)
    await asyncio.sleep(8)
    sessions = len(place.emulator.registrations) - before
    told = bool(await place.settle([asked], 1)) is False
    figure = f"{sessions} sessions cut, acked: {'yes' if asked.acked else 'no'}, told: {'yes' if told else 'no'}"
    return Outcome(figure, held=asked.acked and told)


@attack("F20b", "the model writes @all, dingtalk:// and javascript: links")
async def hostile_links(place: Arena) -> Outcome:
    await place.start()
    wild = "see [a](dingtalk://dingtalkclient/action/open?x=1) and [b](javascript:alert(1)), @all please"
    place.model.answer = lambda mark: f"{mark} {wild}"
    asked = await place.ask(chat="g-team")
    await place.settle([asked], 10)
    out = [reply for reply in place.emulator.replies if asked.mark in reply.text]
    text = out[0].text if out else ""
    went = [word for word in ("](dingtalk://", "](javascript:", "@all") if word in text]
    everybody = any("*" in reply.at for reply in out)
    figure = f"as written: {', '.join(word.strip('](') for word in went) or 'nothing'}"
    return Outcome(figure, held=bool(out) and not went and not everybody)
