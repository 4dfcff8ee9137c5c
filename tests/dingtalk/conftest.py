"""A small DingTalk on loopback that answers what each test asks for, and the parts that talk to it."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from claw.clock import Clock
from claw.config.settings import Credentials
from claw.dingtalk.client import CALL_TIMEOUT_S, DingTalkClient
from claw.dingtalk.openapi import OpenApiClient
from claw.dingtalk.pace import CallPace
from claw.dingtalk.quota import CallCounter
from claw.dingtalk.webhook import WebhookClient
from claw.http_client import http_session
from claw.messages import ChatKind, Conversation, Inbound, Sender
from claw.observe import telemetry
from claw.parts import Media
from claw.secret import Secret
from tests.clock import FakeClock

CLIENT_SECRET = "fake-client-secret-7731"
TOKEN = "fake-access-token-9942"
SESSION = "fakesession00ff"

TOKEN_PATH = "/v1.0/oauth2/accessToken"
DIRECT_PATH = "/v1.0/robot/oToMessages/batchSend"
GROUP_PATH = "/v1.0/robot/groupMessages/send"
DOWNLOAD_PATH = "/v1.0/robot/messageFiles/download"
WEBHOOK_PATH = "/robot/sendBySession"
UPLOAD_PATH = "/media/upload"
CREATE_PATH = "/v1.0/card/instances/createAndDeliver"
STREAM_PATH = "/v1.0/card/streaming"
UPDATE_PATH = "/v1.0/card/instances"
REACT_PATH = "/v1.0/robot/emotion/reply"
RECALL_PATH = "/v1.0/robot/emotion/recall"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def json(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.raw)
        return body


@dataclass
class FakeDingTalk:
    """Answers well, unless `script` holds another answer for the path: (status, JSON) or a handler of its own."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    script: dict[str, deque[tuple[int, object] | Handler]] = field(default_factory=dict)
    token: str = TOKEN

    def will(self, path: str, *answers: tuple[int, object] | Handler) -> None:
        self.script.setdefault(path, deque()).extend(answers)

    def to(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path == path]

    @property
    def webhook(self) -> str:
        return f"{self.url}{WEBHOOK_PATH}?session={SESSION}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        self.requests.append(Request(request.path, dict(request.headers), raw))
        scripted = self.script.get(request.path)
        if scripted:
            answer = scripted.popleft()
            if callable(answer):
                return await answer(request)
            return web.json_response(answer[1], status=answer[0])
        return web.json_response(
            {
                TOKEN_PATH: {"accessToken": self.token, "expireIn": 7200},
                DIRECT_PATH: {
                    "processQueryKey": "pqkFake0001",
                    "invalidStaffIdList": [],
                    "flowControlledStaffIdList": [],
                },
                GROUP_PATH: {"processQueryKey": "pqkFake0002"},
                DOWNLOAD_PATH: {"downloadUrl": f"{self.url}/files/one"},
                WEBHOOK_PATH: {"errcode": 0, "errmsg": "ok"},
                CREATE_PATH: {
                    "success": True,
                    "result": {"deliverResults": [{"success": True, "carrierId": "carFake1"}]},
                },
                STREAM_PATH: {"success": True, "result": True},
                UPDATE_PATH: {"success": True, "result": True},
                UPLOAD_PATH: {"errcode": 0, "media_id": f"@lADfake{len(self.to(UPLOAD_PATH))}"},
            }.get(request.path, {})
        )


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def calls(clock: FakeClock) -> CallCounter:
    return CallCounter(clock)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with http_session() as session:
        yield session


@pytest.fixture
async def dingtalk() -> AsyncIterator[FakeDingTalk]:
    fake = FakeDingTalk()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    async with TestServer(app) as server:
        fake.url = str(server.make_url("")).rstrip("/")
        yield fake


def credentials() -> Credentials:
    return Credentials("dingfakeclient", Secret(CLIENT_SECRET))


MakeClient = Callable[[float], DingTalkClient]
"""Makes a client with a timeout of so many seconds."""


@pytest.fixture
def make_client(http: aiohttp.ClientSession, calls: CallCounter, clock: FakeClock) -> MakeClient:
    return lambda timeout_s: DingTalkClient(http, calls, clock, timeout_s=timeout_s)


@pytest.fixture
def client(make_client: MakeClient) -> DingTalkClient:
    return make_client(CALL_TIMEOUT_S)


@pytest.fixture
def openapi(client: DingTalkClient, dingtalk: FakeDingTalk, clock: FakeClock) -> OpenApiClient:
    # The pace by the real clock: the fake one would let nobody go on.
    return OpenApiClient(client, dingtalk.url, credentials, clock, pace=CallPace(Clock(), lambda: 1))


@pytest.fixture
def webhook(client: DingTalkClient, dingtalk: FakeDingTalk) -> WebhookClient:
    return WebhookClient(client, [dingtalk.url])


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[ReadableSpan]]]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "tracer", provider.get_tracer("tests"))
    yield lambda: list(exporter.get_finished_spans())
    provider.shutdown()


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], dict[tuple[str, str], int]]]:
    """What `claw.dingtalk.calls` counted, by api and outcome."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr(telemetry, "dingtalk_calls", provider.get_meter("tests").create_counter("calls"))

    def read() -> dict[tuple[str, str], int]:
        data = reader.get_metrics_data()
        if data is None:
            return {}
        points = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
        return {(str(p.attributes["api"]), str(p.attributes["outcome"])): p.value for p in points}  # type: ignore[index, union-attr, misc]

    yield read
    provider.shutdown()


def inbound(
    *,
    kind: ChatKind = ChatKind.DIRECT,
    webhook: str = "",
    expires: float = 4e9,
    staff_id: str = "u-1001",
    media: tuple[Media, ...] = (),
) -> Inbound:
    return Inbound(
        robot_code="dingfakeclient",
        msg_id="msgFakeOne000==",
        conversation=Conversation("cidFakeGroup00==", kind),
        sender=Sender("$:LWCP_v1:$FakeAnn", staff_id, "Ann"),
        msgtype="text",
        text="hello",
        parts=media,
        webhook=Secret(webhook),
        webhook_expires=expires if webhook else 0.0,
    )


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    raise AssertionError("the client waited for a minute")


async def html(_: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>gateway</html>", content_type="text/html")


async def cut(request: web.Request) -> web.StreamResponse:
    """End the connection without an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
