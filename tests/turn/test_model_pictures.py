"""Pictures on their way to the model: written while they are sent, and given up as soon as the server has them."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import TYPE_CHECKING, Any, cast

import pytest
from aiohttp import web

from claw.config.settings import ConversationSettings
from claw.errors import ModelError, ModelErrorKind
from claw.parts import Media, MediaKind
from claw.secret import Secret
from claw.store.sqlite.store import SqliteStore
from claw.turn.model.upload import PART_BYTES, Upload
from tests.messages import inbound
from tests.turn.asking import fault, model_at
from tests.turn.harness import TurnHarness
from tests.turn.servers import ModelServer, answer, event, refuses, sends
from tests.turn.test_model_floods import LAG_MAX_S, watch_lag

if TYPE_CHECKING:
    from claw.turn.model.chat import ChatModel

LARGE = 12 * 1_048_576


def ask_about(*urls: str, said: str = "what 是 this?\ud83d") -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": said}]
    return [{"role": "user", "content": parts + [{"type": "image_url", "image_url": {"url": url}} for url in urls]}]


async def test_a_body_is_what_json_would_be() -> None:
    """What is written piece by piece is the body, its length told before."""
    upload = Upload({"model": "m", "messages": ask_about("data:a", "data:" + "b" * 200_000), "stream": True})
    parts = [part async for part in upload]
    body = b"".join(parts).decode()
    assert upload.size == len(body.encode())
    assert max(map(len, parts)) <= PART_BYTES
    assert body.startswith('{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"what 是 this?')
    assert body.endswith('bbb"}}]}],"stream":true}')


async def test_large_pictures_are_not_held_twice(server: ModelServer) -> None:
    """Four pictures of 12 MB are sent without a copy of them, with a length, and the loop goes on meanwhile."""
    sizes: list[int] = []
    lengths: list[str | None] = []

    async def read(request: web.Request) -> web.StreamResponse:
        lengths.append(request.headers.get("content-length"))
        sizes.append(sum([len(part) async for part in request.content.iter_any()]))
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(answer("seen"))
        return response

    app = web.Application(client_max_size=2**30)
    app.router.add_post("/v1/chat/completions", read)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    messages = ask_about(*("data:image/png;base64," + "A" * LARGE for _ in range(4)))
    try:
        async with model_at(f"http://127.0.0.1:{runner.addresses[0][1]}/v1") as model:
            await model.warm()
            async with watch_lag() as worst:
                assert (await model.ask(messages, user="u")).text == "seen"
            tracemalloc.start()
            await model.ask(messages, user="u")
            peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        await runner.cleanup()
    assert lengths == [str(size) for size in sizes]
    assert sizes[0] > 4 * LARGE
    assert peak < LARGE / 2
    assert worst[0] < LAG_MAX_S


async def test_a_field_less_is_sent_with_the_pictures(server: ModelServer) -> None:
    """Where a server refuses a field, the pictures are sent once more; they were not given up yet."""
    server.behaviours = [
        refuses(400, {"error": {"message": "Unknown parameter: stream_options"}}),
        sends(answer("seen")),
    ]
    given_up = []

    async def give_up() -> None:
        given_up.append(len(server.asked))

    async with model_at(server.base_url) as model:
        await model.ask(ask_about("data:image/png;base64,AAAA", said="?"), user="u", on_sent=give_up)
    assert server.asked[1]["messages"] == ask_about("data:image/png;base64,AAAA", said="?")
    assert given_up == [2]


async def test_no_other_question_without_its_pictures(server: ModelServer) -> None:
    """After the pictures were given up nothing is asked again here: the next try of the turn fetches them."""

    async def give_up() -> None:
        pass

    server.behaviours = [sends(event({"error": {"message": "internal error", "type": "api_error"}}))]
    error = await fault(server, messages=ask_about("data:image/png;base64,AAAA"), on_sent=give_up)
    assert error.retryable
    assert len(server.asked) == 1


async def test_the_room_is_given_back_when_the_pictures_are_sent(store: SqliteStore) -> None:
    """While the server thinks, the bytes are gone and their room is others'; a failure gives it back, too."""
    turn = TurnHarness(store, ConversationSettings())
    asked: list[Any] = []
    thinking, goes_on = asyncio.Event(), asyncio.Event()

    class SlowModel:
        async def ask(self, messages: Any, *, on_sent: Any, **_: Any) -> Any:
            asked.append(messages)
            assert turn.held == 1
            await on_sent()
            thinking.set()
            await goes_on.wait()
            return turn.model.completion

    turn.handler._model = cast("ChatModel", SlowModel())
    message = inbound("?", msgtype="richText", media=(Media(MediaKind.PICTURE, Secret("dc")),))
    answering = asyncio.create_task(turn.handle(message), name="tests.answering")
    await thinking.wait()
    assert turn.held == 0
    assert asked[0][-1]["content"][-1]["image_url"]["url"] == ""
    goes_on.set()
    assert (await answering).exchange is not None


async def test_a_failure_gives_the_room_back(store: SqliteStore) -> None:
    """A server that cannot be reached has nothing of the pictures, whose room is free again."""
    turn = TurnHarness(store, ConversationSettings())
    turn.model.error = ModelError(ModelErrorKind.UNREACHABLE, "no")
    with pytest.raises(ModelError):
        await turn.handle(inbound("?", media=(Media(MediaKind.PICTURE, Secret("dc")),)))
    assert turn.held == 0
