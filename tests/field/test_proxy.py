"""One way out for all: registration, socket, answers, model and telemetry take the proxy that is set, or none."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest

from claw.emulator import Emulator
from tests.certificates import certificate
from tests.collector import Collector
from tests.field.proxy import Proxy, TlsEnd
from tests.service import ADMIN_TOKEN, Service, environment, running

pytestmark = pytest.mark.timeout(90)

PATHS = (
    "/v1.0/gateway/connections/open",
    "/connect",
    "/robot/sendBySession",
    "/v1/chat/completions",
    "/v1/traces",
)
"""Registration, socket, answer, model, telemetry."""
PASSWORD = "p@ss:w0rd/of+the%proxy"
"""As hostile as one gets: it stands in the variable percent-encoded, and is sent as it is."""
LOGIN = f"robot:{quote(PASSWORD, safe='')}"
WRONG = "wr0ng@password%of"


class Network:
    """DingTalk, the model's server and a collector behind ends of their own, and a proxy."""

    def __init__(self, folder: Path, *, tls: bool) -> None:
        self.folder = folder
        # As a company's own CA: no system knows it.
        self.ca = certificate(folder, "127.0.0.1") if tls else None
        self.dingtalk, self.model, self.telemetry = self.ends = tuple(TlsEnd(self.ca) for _ in range(3))
        self.proxy = Proxy(f"robot:{PASSWORD}")
        self.collector = Collector()

    @contextlib.asynccontextmanager
    async def up(self) -> AsyncIterator[Emulator]:
        async with contextlib.AsyncExitStack() as stack:
            for each in (self.proxy, *self.ends):
                await each.start()
                stack.push_async_callback(each.stop)
            emulator = Emulator(rate_limits=False, public_url=self.dingtalk.url)
            await stack.enter_async_context(self.collector)
            await stack.enter_async_context(emulator)
            self.dingtalk.target = self.model.target = emulator.port
            self.telemetry.target = int(self.collector.url.rpartition(":")[2])
            yield emulator

    def environ(self, **variables: str) -> dict[str, str]:
        base = {
            "OPENAI_BASE_URL": f"{self.model.url}/v1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.telemetry.url,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "2",
        }
        if self.ca is not None:
            base["SSL_CERT_FILE"] = str(self.ca.cert)
        return environment(self.dingtalk.url, self.folder / "claw.db", **base | variables)

    def seen(self) -> list[tuple[str, int]]:
        return [each for end in self.ends for each in end.seen]


@pytest.mark.parametrize(
    ("variable", "bypass", "tls", "through"),
    [
        ("HTTPS_PROXY", "", True, True),
        ("ALL_PROXY", "", True, True),
        ("HTTP_PROXY", "10.0.0.0/8,.example.com", False, True),
        ("HTTPS_PROXY", "10.0.0.0/8,127.0.0.0/8", True, False),
    ],
)
async def test_everything_takes_the_same_way(
    tmp_path: Path, variable: str, bypass: str, tls: bool, through: bool
) -> None:
    """Whoever sets a proxy gets all five connections through it, and none where NO_PROXY names the network."""
    network = Network(tmp_path, tls=tls)
    async with network.up() as emulator:
        environ = network.environ(**{variable: network.proxy.url(LOGIN), "NO_PROXY": bypass})
        async with running(environ, tmp_path) as service:
            await emulator.wait_reply_to(await emulator.say("hello"), timeout=20)
            async with asyncio.timeout(20):
                while not network.collector.spans:
                    await asyncio.sleep(0.05)
            assert await service.terminate() == 0
        assert {path for path, _ in network.seen()} >= set(PATHS)
        strays = [path for path, port in network.seen() if (port in network.proxy.ports) is not through]
        assert not strays
        assert not network.proxy.refused
        assert PASSWORD not in "\n".join(service.lines)


async def told(service: Service) -> str:
    """Everything that a person can read of a claw."""
    shown = [await service.get(path, ADMIN_TOKEN) for path in ("/ready", "/status", "/health")]
    return "\n".join([*service.lines, *(str(body) for _, body in shown)])


def assert_no_password(text: str) -> None:
    """The password of the proxy in no spelling."""
    assert WRONG not in text
    assert quote(WRONG, safe="") not in text
    assert base64.b64encode(f"robot:{WRONG}".encode()).decode() not in text


async def test_a_wrong_password_keeps_us_from_dingtalk(tmp_path: Path) -> None:
    """Not ready, with a reason that names the proxy's answer; alive; the password is nowhere."""
    network = Network(tmp_path, tls=True)
    async with network.up():
        service = Service(network.environ(HTTPS_PROXY=network.proxy.url(f"robot:{quote(WRONG, safe='')}")), tmp_path)
        try:
            await service.start()
            async with asyncio.timeout(20):
                while "407" not in (reason := (await service.get("/ready"))[1]["checks"]["stream"]["reason"]):
                    await asyncio.sleep(0.05)
            assert "proxy" in reason.lower()
            assert (await service.get("/health"))[0] == 200
            assert_no_password(await told(service))
            assert await service.terminate() == 0
            assert_no_password("\n".join(service.lines))
            assert network.proxy.refused
            assert not network.seen()
        finally:
            await service.kill()


async def test_a_wrong_password_keeps_us_from_the_model(tmp_path: Path) -> None:
    """With DingTalk reached directly: log and person are told that the model was not reached; the password nowhere."""
    network = Network(tmp_path, tls=True)
    async with network.up() as emulator:
        environ = network.environ(
            HTTPS_PROXY=network.proxy.url(f"robot:{quote(WRONG, safe='')}"),
            NO_PROXY=f"127.0.0.1:{network.dingtalk.port}",
            CLAW_MODEL_PATIENCE="1",
            CLAW_MAX_ATTEMPTS="1",
        )
        async with running(environ, tmp_path) as service:
            reply = await emulator.wait_reply_to(await emulator.say("hello"), timeout=30)

            def lines(about: str) -> str:
                return "\n".join(
                    str(entry)
                    for entry in service.logs
                    if about in entry["message"] and entry["severity"] in {"WARNING", "ERROR"}
                )

            async with asyncio.timeout(20):
                # Lines gather for a moment before they are written, and a batch of spans is tried more than once.
                while not (lines("turn") and lines("telemetry")):
                    await asyncio.sleep(0.05)
            assert "407" in lines("turn")
            assert "HTTPS_PROXY" in lines("turn")
            assert "407" in lines("telemetry")
            assert_no_password(await told(service))
            assert_no_password(reply.text)
            assert not emulator.model.requests
