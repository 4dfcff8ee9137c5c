"""A robot of a few lines: it registers, reads frames, acks them and can answer; nothing more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp

from claw.emulator import CARD_TOPIC, ROBOT_TOPIC, Emulator

SUBSCRIPTIONS = [
    {"type": "EVENT", "topic": "*"},
    {"type": "CALLBACK", "topic": ROBOT_TOPIC},
    {"type": "CALLBACK", "topic": CARD_TOPIC},
]
CREDENTIALS = {"clientId": "dingfakeclient", "clientSecret": "not-a-real-secret"}
JSON = {"Accept": "application/json"}


class FakeRobot:
    """One connection. `frames` are those of CALLBACK and EVENT, in order; SYSTEM ones are in `system`."""

    def __init__(self, emulator: Emulator, session: aiohttp.ClientSession, *, acks: bool = True) -> None:
        self.emulator = emulator
        self.session = session
        self.acks = acks
        self.answers: dict[str, Any] = {"response": None}
        self.frames: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.system: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.odd: list[str | bytes] = []
        self.ended = asyncio.Event()
        self.ws: aiohttp.ClientWebSocketResponse | None = None
        self._reader: asyncio.Task[None] | None = None

    async def connect(self) -> FakeRobot:
        ticket = await self.register()
        self.ws = await self.session.ws_connect(f"{ticket['endpoint']}?ticket={ticket['ticket']}", autoping=False)
        self._reader = asyncio.create_task(self._read(self.ws))
        return self

    async def register(self, **changes: Any) -> dict[str, Any]:
        body = CREDENTIALS | {"subscriptions": SUBSCRIPTIONS} | changes
        url = f"{self.emulator.url}/v1.0/gateway/connections/open"
        async with self.session.post(url, json=body, headers=JSON) as answer:
            answer.raise_for_status()
            found: dict[str, Any] = await answer.json()
            return found

    async def _read(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        async for message in ws:
            if message.type is aiohttp.WSMsgType.PONG:
                await self.system.put({"pong": bytes(message.data)})
                continue
            try:
                frame = json.loads(message.data)
                kind, headers = frame["type"], frame.get("headers") or frame["header"]
            except (ValueError, KeyError, TypeError):
                self.odd.append(message.data)
                continue
            if kind == "SYSTEM":
                if headers["topic"] == "ping":
                    await self.ack(frame, frame["data"])
                await self.system.put(frame)
                continue
            if self.acks:
                await self.ack(frame, json.dumps(self.answers if kind == "CALLBACK" else {"status": "SUCCESS"}))
            await self.frames.put(frame)
        self.ended.set()

    async def ack(self, frame: dict[str, Any], data: str = "{}", *, code: int = 200) -> None:
        headers = frame.get("headers") or frame["header"]
        answer = {"code": code, "headers": {"messageId": headers.get("messageId")}, "message": "OK", "data": data}
        assert self.ws is not None
        await self.ws.send_str(json.dumps(answer))

    async def frame(self, timeout: float = 10) -> dict[str, Any]:
        """Wait for the next CALLBACK or EVENT frame."""
        return await asyncio.wait_for(self.frames.get(), timeout)

    async def message(self) -> dict[str, Any]:
        """Wait for the next frame and parse its data."""
        data: dict[str, Any] = json.loads((await self.frame())["data"])
        return data

    async def system_frame(self, topic: str) -> dict[str, Any]:
        while True:
            frame = await asyncio.wait_for(self.system.get(), 10)
            if "headers" in frame and frame["headers"]["topic"] == topic:
                return frame

    async def reply(self, message: dict[str, Any], text: str, **more: Any) -> dict[str, Any]:
        body = {"msgtype": "markdown", "markdown": {"title": text[:20], "text": text}} | more
        return await self.post_json(message["sessionWebhook"], body)

    async def post_json(self, url: str, body: Any, **options: Any) -> dict[str, Any]:
        async with self.session.post(url, json=body, **options) as answer:
            found: dict[str, Any] = await answer.json()
            return found

    async def token(self) -> str:
        body = {"appKey": CREDENTIALS["clientId"], "appSecret": CREDENTIALS["clientSecret"]}
        answer = await self.post_json(f"{self.emulator.url}/v1.0/oauth2/accessToken", body)
        return str(answer["accessToken"])

    async def api(self, method: str, path: str, body: Any, *, token: str | None = None) -> tuple[int, dict[str, Any]]:
        headers = {"x-acs-dingtalk-access-token": await self.token() if token is None else token}
        url = f"{self.emulator.url}{path}"
        async with self.session.request(method, url, json=body, headers=headers) as answer:
            return answer.status, await answer.json()

    async def control(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Call the emulator's own API below `/_/`, as its page does."""
        async with self.session.request(method, f"{self.emulator.url}/_/{path}", json=body) as answer:
            return answer.status, await answer.json()

    async def close(self) -> None:
        if self.ws is not None:
            await self.ws.close()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)


async def upload(emu: Emulator, robot: FakeRobot, content: bytes, name: str, kind: str) -> str:
    """Upload as a robot does; return the media id."""
    form = aiohttp.FormData()
    form.add_field("media", content, filename=name, content_type="image/png")
    url = f"{emu.url}/media/upload?access_token={await robot.token()}&type={kind}"
    async with robot.session.post(url, data=form) as answer:
        return str((await answer.json())["media_id"])


async def until(condition: Callable[[], object]) -> None:
    """Wait until the condition holds; for what no event tells."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)
