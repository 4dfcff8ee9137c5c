"""Attacks from the other side: a model's server or a gateway that is not what it says, and output that takes time."""

from __future__ import annotations

import asyncio
import gzip

from aiohttp import web

from bench.attacks.arena import HEALTH_MAX_S, Arena, until
from bench.attacks.model import event
from bench.attacks.registry import Outcome, attack


@attack("F10a", "32 answers of 1 MB of fence lines at the same time")
async def fence_lines(place: Arena) -> Outcome:
    claw = await place.start()
    text = "```a\n" * 200_000
    place.model.answer = lambda _mark: text
    place.model.gate.clear()
    asked = [await place.ask(person=person) for person in place.people(32)]
    await until(lambda: place.model.in_flight >= len(asked), 10)
    claw.watch.forget()
    place.model.gate.set()
    await place.settle(asked, 30)
    worst = claw.watch.worst_s
    return Outcome(f"`/health` {worst:.1f} s", held=worst < HEALTH_MAX_S)


@attack("F10b", "an HTTP 400 of 600 characters to 24 long conversations")
async def error_texts(place: Arena) -> Outcome:
    """Fail with words in which claw has to look for what people said, so that no log shows it."""
    claw = await place.start()
    people = place.people(24)
    for _ in range(10):
        asked = [await place.ask("一二三四五六七八九十 " * 3_000, person=person) for person in people]
        await place.settle(asked, 30)

    async def refuse(_request: web.Request, _mark: str) -> web.StreamResponse:
        return web.json_response({"error": {"message": "十一二三四五六七八九" * 60, "type": "bad"}}, status=400)

    place.model.respond = refuse
    claw.watch.forget()
    asked = [await place.ask("now", person=person) for person in people]
    await place.settle(asked, 20)
    worst = claw.watch.worst_s
    return Outcome(f"`/health` {worst:.1f} s", held=worst < HEALTH_MAX_S)


@attack("F10c", "200 KB of gzip that unpack to 200 MB of comments")
async def gzip_bomb(place: Arena) -> Outcome:
    claw = await place.start()
    comments = gzip.compress(b": wait\n" * (200_000_000 // 7), 9)
    tail = gzip.compress(event({"content": "42"}) + event({}, "stop") + b"data: [DONE]\n\n")

    async def respond(request: web.Request, _mark: str) -> web.StreamResponse:
        headers = {"Content-Type": "text/event-stream", "Content-Encoding": "gzip"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await response.write(comments + tail)
        return response

    place.model.respond = respond
    claw.watch.forget()
    asked = await place.ask()
    await place.settle([asked], 30)
    worst, peak = claw.watch.worst_s, place.peak_mb
    return Outcome(f"`/health` {worst:.1f} s, peak {peak:.0f} MB", held=worst < HEALTH_MAX_S and peak < 300)


@attack("F17a", "the model's server answers 307 to another host")
async def redirected_talk(place: Arena) -> Outcome:
    caught: list[str] = []

    async def other(request: web.Request) -> web.StreamResponse:
        caught.append((await request.read()).decode(errors="replace"))
        return web.json_response({"choices": [{"message": {"role": "assistant", "content": "mine now"}}]})

    elsewhere = await place.serve(other)

    async def respond(_request: web.Request, _mark: str) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": f"{elsewhere}/v1/chat/completions"})

    place.model.respond = respond
    await place.start()
    await place.settle([await place.ask("the secret of the house")], 8)
    gone = sum("the secret of the house" in body for body in caught)
    return Outcome(f"the conversation was sent elsewhere {gone} times", held=not gone)


@attack("F17b", "the gateway names an endpoint inside, or its upgrade answers 302")
async def redirected_session(place: Arena) -> Outcome:
    """`0.0.0.0` stands for an address inside that is no loopback; here it leads to this machine."""
    seen: dict[str, int] = {"dialled": 0, "followed": 0}
    targets: list[str] = []

    def count(name: str) -> web.Response:
        seen[name] += 1
        return web.Response(status=403)

    async def inside(_request: web.Request) -> web.StreamResponse:
        return count("dialled")

    async def elsewhere(_request: web.Request) -> web.StreamResponse:
        return count("followed")

    dialled = (await place.serve(inside, "0.0.0.0")).replace("http", "ws")
    followed = await place.serve(elsewhere)

    async def gateway(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/connections/open"):
            return web.json_response({"endpoint": targets[0], "ticket": "t"})
        if request.path.startswith("/connect"):
            return web.Response(status=302, headers={"Location": f"{followed}/connect"})
        return web.json_response({}, status=404)

    url = await place.serve(gateway)
    for target in (f"{dialled}/connect", f"{url.replace('http', 'ws')}/connect"):
        targets[:] = [target]
        claw = await place.launch(DINGTALK_OPENAPI_ENDPOINT=url, DINGTALK_OAPI_ENDPOINT=url)
        await asyncio.sleep(3)
        await claw.kill()
    figure = f"dialled {seen['dialled']} times, redirects followed {seen['followed']} times"
    return Outcome(figure, held=not any(seen.values()))
