"""`claw doctor`: each fault of DingTalk, the network, the model and this machine has its sentence and its remedy."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from email.utils import formatdate
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from claw import __main__
from claw.cli.doctor import command as doctor
from claw.cli.doctor import dingtalk, host, network
from claw.cli.doctor.command import CONNECTION, TABLE, diagnose, explain_symptoms, to_json
from claw.cli.doctor.runner import (
    CheckSpec,
    CheckStatus,
    Context,
    Finding,
    Result,
    find_worst,
    good,
    load_tolerant,
    run_checks,
)
from claw.cli.doctor.texts import SYMPTOMS, TEXTS, Symptom
from claw.config import reader
from claw.dingtalk.quota import month_of
from claw.emulator import Emulator, gateway
from claw.emulator.model import MODEL_NAME
from claw.http_client import http_session
from claw.language import Language
from claw.store.ports import Store
from claw.store.sqlite.store import SqliteStore
from claw.turn.access import OWNER, Owner
from tests.certificates import certificate
from tests.cli.screen import Screen
from tests.cli.sentences import says
from tests.service import API_KEY, CLIENT_SECRET, environment, running

EN, ZH = Language.EN, Language.ZH
OK, WARNING, FAULT, SKIPPED = CheckStatus.OK, CheckStatus.WARNING, CheckStatus.FAULT, CheckStatus.SKIPPED
DENIED = "Forbidden.AccessDenied.AccessTokenPermissionDenied"
MONTH = "Forbidden.AccessDenied.ApiCountLimitForOrg"
SHORT = 2.0
"""Seconds for an answer that never comes."""
LONG = 15.0
"""Seconds for one that does: a busy machine may take its time."""
SILENT = {"gateway_hang", "hang_upgrade", "never_pong", "zombie", "openapi_hang", "model_hang"}
"""Faults that are known by nothing but time."""


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator() as started:
        yield started


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


async def look(
    emulator: Emulator, folder: Path, *names: str, language: Language = EN, timeout: float = LONG, **variables: str
) -> dict[str, Result]:
    """Run the named checks (none: all) against the emulator; their results by name."""
    environ = environment(emulator.url, folder / "claw.db", PORT=free_port()) | variables
    chosen = [check for check in TABLE if check.name in names] if names else TABLE
    results, _ = await diagnose(environ, language, checks=chosen, timeout=timeout)
    return {result.name: result for result in results}


STREAM = tuple(check.name for check in CONNECTION)
PERMISSIONS = ("network.openapi", "credentials", "permission.send", "quota")
MODEL = ("network.model", "model")


@pytest.mark.parametrize(
    ("faults", "checks", "name", "status", "key"),
    [
        ({"gateway_status": 401}, STREAM, "stream.registration", FAULT, "registration.credentials"),
        ({"gateway_status": 400}, STREAM, "stream.registration", FAULT, "registration.app"),
        ({"gateway_status": 403}, STREAM, "stream.registration", WARNING, "dingtalk.throttled"),
        ({"gateway_status": 429}, STREAM, "stream.registration", WARNING, "dingtalk.throttled"),
        ({"gateway_status": 503}, STREAM, "stream.registration", FAULT, "dingtalk.trouble"),
        ({"gateway_html": True}, STREAM, "stream.registration", FAULT, "registration.page"),
        ({"gateway_hang": True}, STREAM, "stream.registration", FAULT, "dingtalk.unanswered"),
        ({"gateway_wrong_endpoint": True}, STREAM, "stream.network", FAULT, "network.refused"),
        ({"gateway_wrong_endpoint": True}, STREAM, "stream.session", SKIPPED, "skip.after"),
        ({"refuse_upgrade": 403}, STREAM, "stream.session", FAULT, "session.refused"),
        ({"hang_upgrade": True}, STREAM, "stream.network", FAULT, "network.timeout"),
        ({"close_after_accept": "clean"}, STREAM, "stream.session", FAULT, "session.closed"),
        ({"close_after_accept": "reset"}, STREAM, "stream.session", FAULT, "session.closed"),
        ({"never_pong": True}, STREAM, "stream.session", FAULT, "session.mute"),
        ({"zombie": True}, STREAM, "stream.session", WARNING, "session.quiet"),
        ({"token_status": 401}, STREAM, "credentials", FAULT, "credentials.refused"),
        ({"token_status": 500}, STREAM, "credentials", FAULT, "dingtalk.trouble"),
        ({"token_status": 403}, STREAM, "credentials", WARNING, "dingtalk.throttled"),
        ({"token_status": 500}, PERMISSIONS, "permission.send", SKIPPED, "skip.after"),
        ({"openapi_status": 403, "openapi_code": DENIED}, PERMISSIONS, "permission.send", FAULT, "permission.missing"),
        ({"openapi_status": 403, "openapi_code": MONTH}, PERMISSIONS, "permission.send", FAULT, "dingtalk.month"),
        ({"openapi_status": 403, "openapi_code": MONTH}, PERMISSIONS, "quota", FAULT, "quota.used_up"),
        (
            {"openapi_status": 403, "openapi_code": "Forbidden.AccessDenied.IpNotInWhiteList"},
            PERMISSIONS,
            "permission.send",
            FAULT,
            "dingtalk.address",
        ),
        ({"openapi_status": 429}, PERMISSIONS, "permission.send", WARNING, "dingtalk.throttled"),
        ({"openapi_status": 503}, PERMISSIONS, "permission.send", FAULT, "dingtalk.trouble"),
        ({"openapi_status": 404}, PERMISSIONS, "permission.send", WARNING, "permission.unknown"),
        ({"openapi_hang": True}, PERMISSIONS, "permission.send", FAULT, "dingtalk.unanswered"),
        ({"model_status": 401}, MODEL, "model", FAULT, "model.unauthorized"),
        ({"model_status": 404}, MODEL, "model", FAULT, "model.not_found"),
        ({"model_status": 400}, MODEL, "model", FAULT, "model.refused"),
        ({"model_status": 429}, MODEL, "model", WARNING, "model.busy"),
        ({"model_status": 500}, MODEL, "model", FAULT, "model.server"),
        ({"model_empty": True}, MODEL, "model", FAULT, "model.server"),
        ({"model_hang": True}, MODEL, "model", FAULT, "model.timeout"),
    ],
)
async def test_each_fault_has_its_sentence(
    emulator: Emulator,
    tmp_path: Path,
    faults: dict[str, Any],
    checks: tuple[str, ...],
    name: str,
    status: CheckStatus,
    key: str,
) -> None:
    """What is wrong at DingTalk or the model is told by the check that can tell it, with what helps."""
    emulator.faults.update(faults)
    timeout = SHORT if SILENT & faults.keys() else LONG
    result = (await look(emulator, tmp_path, *checks, timeout=timeout))[name]
    assert (result.status, says(key, EN, result.message)) == (status, True), result
    assert bool(result.remedy) is bool(TEXTS[key].remedy[EN])
    assert CLIENT_SECRET not in str(result)


async def test_a_sound_world_is_ok(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With everything in order no line is a warning or fault; the calls that DingTalk bills are counted."""
    monkeypatch.setattr(host, "filesystem_of", lambda _: "ext4")
    environ = environment(emulator.url, tmp_path / "claw.db", PORT=free_port(), CLAW_OWNER="u-1001")
    results, context = await diagnose(environ, ZH, timeout=LONG)
    assert not [result for result in results if result.status in {WARNING, FAULT}]
    assert context.billable == 1
    assert sum(emulator.openapi.calls.values()) == 1
    assert not emulator.violations
    assert not names(tmp_path)
    async with asyncio.timeout(5):
        while emulator.connections:
            await asyncio.sleep(0.01)


async def test_a_wrong_secret_is_told_once(emulator: Emulator, tmp_path: Path) -> None:
    """The root is told; what cannot work because of it is skipped and says so."""
    results = await look(emulator, tmp_path, *STREAM, "permission.send", DINGTALK_CLIENT_SECRET="wrong")
    assert says("credentials.refused", EN, results["credentials"].message)
    for name in ("stream.registration", "permission.send"):
        assert results[name].status is SKIPPED
        assert says("skip.after", EN, results[name].message)
        assert "credentials" in results[name].message
    assert not emulator.registrations


async def test_a_robot_that_is_not_there_is_told(emulator: Emulator, tmp_path: Path) -> None:
    """Permission granted, but no robot in the app: that is what people forget."""
    emulator.chats.robot_code = "another"
    result = (await look(emulator, tmp_path, *PERMISSIONS))["permission.send"]
    assert says("permission.robot", EN, result.message)
    assert result.status is WARNING


async def test_a_message_that_comes_meanwhile_is_left_to_claw(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A push that reaches the doctor's session is not acked, so that DingTalk repeats it; the line says so."""
    monkeypatch.setattr(gateway, "FIRST_PING_DELAY_S", 60.0)  # The message comes first, however busy the machine is.
    looking = asyncio.create_task(look(emulator, tmp_path, *STREAM))
    await emulator.wait_connections(1)
    said = await emulator.say("hello")
    result = (await looking)["stream.session"]
    assert said.push is not None
    assert not said.push.acked.is_set()
    assert says("session.met", EN, result.message)


async def test_offline_touches_no_network(emulator: Emulator, tmp_path: Path) -> None:
    """`--offline` looks at this machine only; `--free` leaves out what is billed."""
    environ = environment(emulator.url, tmp_path / "claw.db", PORT=free_port())
    offline, _ = await diagnose(environ, EN, offline=True)
    by_name = {result.name: result for result in offline}
    assert says("skip.offline", EN, by_name["credentials"].message)
    assert by_name["settings"].status is OK
    assert not emulator.registrations
    assert not emulator.tokens.fetched
    free, context = await diagnose(environ, EN, free=True, timeout=LONG)
    assert context.billable == 0
    assert not emulator.openapi.calls
    assert says("skip.free", EN, {result.name: result for result in free}["permission.send"].message)


# --- what no switch of the emulator does -------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def server(
    status: int, body: str, headers: Mapping[str, str], context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Answers everything alike; its port."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body, headers=dict(headers))

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "body", "name", "key"),
    [
        (403, '{"code":"Forbidden.AccessDenied.IpNotInWhiteList"}', "stream.registration", "dingtalk.address"),
        (403, '{"code":"Forbidden.AccessDenied.Something"}', "stream.registration", "registration.forbidden"),
        (403, f'{{"code":"{MONTH}"}}', "stream.registration", "dingtalk.month"),
        (200, '{"status":1111,"wait":5,"punish":"deny"}', "stream.registration", "registration.banned"),
        (200, '{"endpoint":"wss://x"}', "stream.registration", "registration.odd"),
        (200, '{"accessToken":7}', "credentials", "credentials.odd"),
        (400, '{"code":"invalidClientIdOrSecret"}', "credentials", "credentials.refused"),
    ],
)
async def test_rarer_refusals(emulator: Emulator, tmp_path: Path, status: int, body: str, name: str, key: str) -> None:
    """The white list, a ban and answers that make no sense have words of their own."""
    async with server(status, body, {"Content-Type": "application/json"}) as port:
        url = f"http://127.0.0.1:{port}"
        results = await look(emulator, tmp_path, "network.openapi", name, DINGTALK_OPENAPI_ENDPOINT=url)
    assert says(key, EN, results[name].message), results[name]
    assert results[name].status is FAULT


@pytest.mark.parametrize(
    ("off", "status", "key"),
    [(0, OK, "clock.ok"), (60, WARNING, "clock.off"), (-60, WARNING, "clock.off"), (3600, FAULT, "clock.off")],
)
async def test_clock(emulator: Emulator, tmp_path: Path, off: int, status: CheckStatus, key: str) -> None:
    """DingTalk's own time tells whether this machine's clock is off."""
    async with server(404, "", {"Date": formatdate(time.time() + off, usegmt=True)}) as port:
        url = f"http://127.0.0.1:{port}"
        result = (await look(emulator, tmp_path, "network.openapi", "clock", DINGTALK_OPENAPI_ENDPOINT=url))["clock"]
    assert (result.status, says(key, EN, result.message)) == (status, True), result


@pytest.mark.parametrize(
    ("date", "before", "after", "expected"),
    [
        ("Thu, 01 Jan 1970 00:01:40 GMT", 100.2, 100.9, 0.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 99.0, 100.5, 0.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0, 91.0, 9.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 111.0, 112.0, -10.0),
        ("", 1.0, 2.0, None),
        ("yesterday", 1.0, 2.0, None),
    ],
)
def test_skew(date: str, before: float, after: float, expected: float | None) -> None:
    """Only what is sure counts: whole seconds, and the time of the exchange, are given to the clocks."""
    assert network.measure_skew(date, before, after) == expected


async def test_certificate(emulator: Emulator, tmp_path: Path) -> None:
    """A certificate that nobody vouches for, and a port that speaks no TLS, are told apart."""
    context = certificate(tmp_path, "localhost").context()
    async with server(200, "", {}, context) as port:
        url = f"https://127.0.0.1:{port}"
        results = await look(emulator, tmp_path, "network.oapi", DINGTALK_OAPI_ENDPOINT=url)
    assert says("network.tls", EN, results["network.oapi"].message), results
    assert "self-signed" in results["network.oapi"].message
    plain = emulator.url.replace("http:", "https:")
    results = await look(emulator, tmp_path, "network.oapi", DINGTALK_OAPI_ENDPOINT=plain)
    assert says("network.no_tls", EN, results["network.oapi"].message), results


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://nowhere.invalid", "network.dns"),
        ("http://127.0.0.1:9", "network.refused"),
    ],
)
async def test_ways_that_lead_nowhere(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, key: str
) -> None:
    """A name without address and a port without listener are told apart; the variable at fault is named."""
    ask = socket.getaddrinfo

    def no_address(host: str, *args: Any, **more: Any) -> Any:
        if host == "nowhere.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return ask(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", no_address)
    results = await look(emulator, tmp_path, *MODEL, OPENAI_BASE_URL=f"{url}/v1", timeout=LONG)
    assert says(key, EN, results["network.model"].message), results
    assert "OPENAI_BASE_URL" in results["network.model"].remedy
    assert says("skip.after", EN, results["model"].message)


async def test_proxies(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that is not there, and one that lets nobody through, are named without user and password."""
    monkeypatch.setenv("http_proxy", "http://me:pass-word-9@127.0.0.1:9")
    result = (await look(emulator, tmp_path, "network.oapi"))["network.oapi"]
    assert says("network.proxy", EN, result.message), result
    assert "pass-word-9" not in str(result)

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    proxy = await asyncio.start_server(refuse, "127.0.0.1", 0)
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
    url = "https://api.example.com"
    result = (await look(emulator, tmp_path, "network.oapi", DINGTALK_OAPI_ENDPOINT=url))["network.oapi"]
    proxy.close()
    await proxy.wait_closed()
    assert says("network.proxy_refused", EN, result.message), result
    assert "HTTP 407" in result.message


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("Could not finish the message because max_tokens or model output limit was reached.", "model.ok"),
        ("Unsupported parameter: max_completion_tokens", "model.ok"),
        ("no such model", "model.refused"),
    ],
)
async def test_a_model_that_minds_so_short_an_answer(emulator: Emulator, tmp_path: Path, words: str, key: str) -> None:
    """A server that refuses only the limit of one token can be asked, and is not called faulty."""
    asked: list[dict[str, Any]] = []

    async def answer(request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.Response()
        asked.append(await request.json())
        if "max_completion_tokens" in asked[-1]:
            return web.json_response({"error": {"message": words, "type": "invalid_request_error"}}, status=400)
        return web.Response(text='data: {"choices":[{"delta":{"content":"hi"}}]}\n\n', content_type="text/event-stream")

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        results = await look(emulator, tmp_path, *MODEL, OPENAI_BASE_URL=url, timeout=LONG)
    finally:
        await runner.cleanup()
    assert says(key, EN, results["model"].message), results
    assert len(asked) == (2 if "Unsupported" in words else 1)
    assert asked[0]["messages"] == [{"role": "user", "content": "ping"}]


# --- this machine ------------------------------------------------------------------------------------------------


async def store_line(folder: Path, url: str) -> Result:
    environ = environment("http://127.0.0.1:9", folder / "claw.db") | {"CLAW_STORE_URL": url}
    results, _ = await diagnose(environ, EN, checks=[check for check in TABLE if check.name == "store"])
    return results[0]


def _newer(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(
    ("make", "where", "kind", "status", "key"),
    [
        (lambda _: None, "claw.db", "ext4", OK, "store.ok"),
        (lambda _: None, "data/deep/claw.db", "ext4", OK, "store.ok"),
        (lambda _: None, "claw.db", "overlay", WARNING, "store.fleeting"),
        (lambda folder: (folder / "file").write_text(""), "file/claw.db", "ext4", FAULT, "store.unwritable"),
        (lambda folder: (folder / "claw.db").write_text("no database" * 99), "claw.db", "ext4", FAULT, "store.broken"),
        (lambda folder: _newer(folder / "claw.db"), "claw.db", "ext4", FAULT, "store.newer"),
    ],
)
async def test_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, where: str, kind: str, status: CheckStatus, key: str
) -> None:
    """A store that cannot be written, is lost with the container, or is not ours, is told; nothing is left behind."""
    monkeypatch.setattr(host, "filesystem_of", lambda _: kind)
    make(tmp_path)
    before = names(tmp_path)
    result = await store_line(tmp_path, f"sqlite:///{tmp_path / where}")
    assert (result.status, says(key, EN, result.message)) == (status, True), result
    assert names(tmp_path) - before <= {"claw.db.lock"}


async def test_memory_file_system(tmp_path: Path) -> None:
    """A store in memory is told as what it is, by the system's own list of mounts."""
    if host.filesystem_of(Path("/dev/shm")) != "tmpfs":
        pytest.skip("/dev/shm is no tmpfs here")
    result = await store_line(tmp_path, "sqlite:////dev/shm/claw-doctor-test/claw.db")
    assert says("store.fleeting", EN, result.message)
    assert "tmpfs" in result.message


async def test_read_only_store(tmp_path: Path) -> None:
    """Where nothing can be written, not even by root, the store is at fault."""
    result = await store_line(tmp_path, "sqlite:////proc/claw.db")
    assert says("store.unwritable", EN, result.message), result


async def test_held_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that a running claw holds is in order."""
    monkeypatch.setattr(host, "filesystem_of", lambda _: "ext4")
    held: Store = SqliteStore(tmp_path / "claw.db")
    await held.open()
    try:
        result = await store_line(tmp_path, f"sqlite:///{tmp_path / 'claw.db'}")
    finally:
        await held.close()
    assert says("store.held", EN, result.message), result


def test_mounts(tmp_path: Path) -> None:
    """The longest mount point wins, of equals the last; a blank in its name is understood."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 0:1 / / rw - overlay overlay rw\n"
        "2 1 0:2 / /data rw shared:1 - ext4 /dev/a rw\n"
        "3 1 0:3 / /my\\040data rw - tmpfs none rw\n"
        "4 1 0:4 / /data rw - xfs /dev/b rw\n"
        "nonsense\n"
    )
    found = [host.filesystem_of(Path(path), mounts) for path in ("/etc", "/data/x", "/my data/y", "/database")]
    assert found == ["overlay", "xfs", "tmpfs", "overlay"]
    assert host.filesystem_of(tmp_path, tmp_path / "missing") == ""


async def test_a_cap_on_webhooks_is_known_from_the_running_claw(emulator: Emulator, tmp_path: Path) -> None:
    """An administrator's cap is heard of by who sends: the doctor asks the claw that does, and makes no call for it."""
    emulator.faults.update({"webhook_month_cap": 1})
    port = str(free_port())
    environ = environment(emulator.url, tmp_path / "claw.db", PORT=port)
    chosen = [check for check in TABLE if check.name in {"instance", "instance.model", "quota"}]
    async with running(environ, tmp_path) as service:
        for text in ("one", "two", "three"):
            await emulator.say(text)
        async with asyncio.timeout(20):
            while not (await service.call("GET", "/status"))[1]["budget"]["refused"]:
                await asyncio.sleep(0.1)
        results, _ = await diagnose(environ, EN, checks=chosen)
    assert says("quota.capped", EN, results[-1].message), results


@pytest.mark.parametrize(
    ("calls", "status", "key"),
    [({"webhook": 10, "direct": 1, "token": 9_000}, OK, "quota.ok"), ({"webhook": 2_500}, WARNING, "quota.near")],
)
async def test_quota(tmp_path: Path, calls: dict[str, int], status: CheckStatus, key: str) -> None:
    """This month's calls are read from the store, also beside a running claw; a quota that is nearly used is told."""
    month = month_of(time.time())
    held = SqliteStore(tmp_path / "claw.db")
    await held.open()
    try:
        await held.add_calls(month, calls)
        environ = environment("http://127.0.0.1:9", tmp_path / "claw.db")
        results, _ = await diagnose(environ, EN, checks=[check for check in TABLE if check.name == "quota"])
    finally:
        await held.close()
    assert (results[0].status, says(key, EN, results[0].message)) == (status, True), results


@pytest.mark.parametrize(
    ("variables", "status", "key"),
    [
        ({"CLAW_OWNER": "u-1"}, OK, "access.ok"),
        ({"CLAW_OWNER": "u-1", "OPENAI_MODEL": "openclaw/main"}, WARNING, "access.open_agent"),
        ({"CLAW_OWNER": "u-1", "CLAW_HISTORY_TURNS": "0"}, WARNING, "access.open_agent"),
        (
            {"CLAW_OWNER": "u-1", "OPENAI_MODEL": "openclaw", "CLAW_GROUP_POLICY": "disabled"}
            | {"CLAW_DIRECT_POLICY": "owner"},
            OK,
            "access.ok",
        ),
        ({"CLAW_OWNER": ""}, OK, "access.first_come"),
        ({"CLAW_OWNER": "", "CLAW_OWNER_PAIRING": "code"}, OK, "access.ok"),
        ({"CLAW_OWNER": "u-1", "CLAW_DIRECT_POLICY": "allowlist"}, WARNING, "access.nobody"),
        ({"CLAW_OWNER": "u-1", "CLAW_GROUP_POLICY": "allowlist"}, WARNING, "access.nobody"),
        (
            {"CLAW_OWNER": "u-1", "CLAW_GROUP_POLICY": "allowlist", "CLAW_GROUP_ALLOWED_USERS": "u-2"},
            OK,
            "access.ok",
        ),
    ],
)
async def test_access(tmp_path: Path, variables: dict[str, str], status: CheckStatus, key: str) -> None:
    """An agent with tools that anybody may command, a robot without owner and an empty list are told."""
    environ = environment("http://127.0.0.1:9", tmp_path / "claw.db") | variables
    results, _ = await diagnose(environ, EN, checks=[check for check in TABLE if check.name == "access"])
    assert (results[0].status, says(key, EN, results[0].message)) == (status, True), results


@pytest.mark.parametrize(
    ("variables", "key"),
    [
        ({"OPENAI_MODEL": "openclaw"}, "concurrency.agent"),
        ({"OPENAI_MODEL": "OpenClaw/sales", "CLAW_MAX_CONCURRENCY": "9"}, "concurrency.agent"),
        ({"OPENAI_MODEL": "openclaw", "CLAW_MAX_CONCURRENCY": "8"}, "concurrency.ok"),
        ({"OPENAI_MODEL": "gpt-5-mini", "CLAW_MAX_CONCURRENCY": "100"}, "concurrency.ok"),
    ],
)
async def test_concurrency(tmp_path: Path, variables: dict[str, str], key: str) -> None:
    """More conversations at once than an agent gateway runs are a warning with the cause; of plain models none is."""
    environ = environment("http://127.0.0.1:9", tmp_path / "claw.db", **variables)
    checks = [check for check in TABLE if check.name == "concurrency"]
    ((result,), _) = await diagnose(environ, EN, checks=checks, offline=True)
    assert says(key, EN, result.message), result
    assert (result.status is WARNING) is (key == "concurrency.agent")
    assert bool(result.remedy) is (key == "concurrency.agent")


async def test_an_owner_who_was_paired_is_known(tmp_path: Path) -> None:
    """What was settled at run time counts: it is read from the store, beside a running claw."""
    held = SqliteStore(tmp_path / "claw.db")
    await held.open()
    try:
        await held.set(OWNER, Owner("u-7").to_json())
        environ = environment("http://127.0.0.1:9", tmp_path / "claw.db", CLAW_OWNER="")
        results, _ = await diagnose(environ, EN, checks=[check for check in TABLE if check.name == "access"])
    finally:
        await held.close()
    assert says("access.ok", EN, results[0].message), results


async def test_a_running_claw_is_asked(emulator: Emulator, tmp_path: Path) -> None:
    """Beside a running claw no second session is opened, its store is left alone, and its answer is quoted."""
    environ = environment(emulator.url, tmp_path / "claw.db")
    async with running(environ, tmp_path) as service:
        connections = emulator.gateway.connection_count
        results, _ = await diagnose(environ | {"PORT": str(service.port)}, EN, timeout=LONG)
        assert emulator.gateway.connection_count == connections
        assert (await service.get("/ready"))[0] == 200
    found = {result.name: result for result in results}
    assert says("session.held", EN, found["stream.session"].message), found
    assert says("instance.running", EN, found["instance"].message), found
    assert "running claw" in found["store"].message or "is lost when" in found["store"].message


async def test_a_claw_that_is_not_ready_is_quoted(tmp_path: Path) -> None:
    """Its failing checks are named."""
    body = {"status": "not ready", "checks": {"stream": {"ok": False, "state": "REJECTED"}}}
    async with server(503, json.dumps(body), {}) as port:
        environ = environment("http://127.0.0.1:9", tmp_path / "claw.db", PORT=str(port))
        results, _ = await diagnose(environ, EN, checks=[check for check in TABLE if check.name == "instance"])
    assert says("instance.unready", EN, results[0].message)
    assert "stream REJECTED" in results[0].message


READY = {"status": "ready", "checks": {"stream": {"ok": True, "state": "OPEN"}}}
FAILED = {"at": "2027-01-15T08:00:00.000Z", "kind": "unreachable", "reason": "Connection refused", "remedy": "start it"}


@pytest.mark.parametrize(
    ("status", "status_of_check", "key"),
    [
        ({"model": {"up": True, "last_success": FAILED["at"], "last_error": None}}, OK, "serving.ok"),
        ({"model": {"up": True, "last_success": FAILED["at"], "last_error": FAILED}}, OK, "serving.ok"),
        ({"model": {"up": False, "last_success": FAILED["at"], "last_error": FAILED}}, WARNING, "serving.failing"),
        ({"model": {"up": True, "last_success": None, "last_error": None}}, SKIPPED, "serving.unasked"),
        ({"model": {"error": "no answer within 2 s"}}, SKIPPED, "serving.unknown"),
        ({}, SKIPPED, "serving.unknown"),
        # Longer than what comes at once.
        (
            {"dead_letters": ["x" * 100_000], "model": {"up": False, "last_success": None, "last_error": FAILED}},
            WARNING,
            "serving.failing",
        ),
        ({"dead_letters": ["x" * host.ANSWER_MAX_BYTES]}, SKIPPED, "skip.after"),
    ],
)
async def test_a_running_claw_tells_how_its_model_does(
    tmp_path: Path, status: dict[str, Any], status_of_check: CheckStatus, key: str
) -> None:
    """What people's questions met at the model is told with cause and remedy; an older claw is no fault."""
    checks = [check for check in TABLE if check.name in {"instance", "instance.model"}]
    async with server(200, json.dumps(READY | status), {}) as port:
        environ = environment("http://127.0.0.1:9", tmp_path / "claw.db", PORT=str(port))
        results, _ = await diagnose(environ, EN, checks=checks)
        without, _ = await diagnose(environ | {"CLAW_ADMIN_TOKEN": ""}, EN, checks=checks)
    assert (results[1].status, says(key, EN, results[1].message)) == (status_of_check, True), results
    if key == "serving.failing":
        assert "Connection refused" in results[1].message
        assert "start it" in results[1].remedy
    assert without[1].status is SKIPPED


# --- faulty settings -----------------------------------------------------------------------------------------------


async def test_it_comes_also_when_the_settings_are_faulty(emulator: Emulator, tmp_path: Path) -> None:
    """Every problem is told, and what does not depend on them is looked at all the same."""
    environ = {
        "DINGTALK_APP_SECRET": "x y",
        "DINGTALK_OAPI_ENDPOINT": emulator.url,
        "DINGTALK_OPENAPI_ENDPOINT": emulator.url,
        "CLAW_STREAM_HEARTBEAT": "never",
        "CLAW_STORE_URL": f"sqlite:///{tmp_path / 'claw.db'}",
        "PORT": free_port(),
    }
    results, context = await diagnose(environ, EN, timeout=LONG)
    found = {result.name: result for result in results}
    assert found["settings"].status is FAULT
    for name in ("DINGTALK_CLIENT_ID", "DINGTALK_CLIENT_SECRET", "OPENAI_API_KEY", "CLAW_STREAM_HEARTBEAT"):
        assert name in found["settings"].message
    assert says("skip.settings", EN, found["credentials"].message)
    assert found["network.openapi"].status is OK
    assert found["network.oapi"].status is OK
    assert found["store"].status in {OK, WARNING}
    assert context.billable == 0
    assert not emulator.tokens.fetched


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"DINGTALK_CLIENT_ID": "a", "DINGTALK_APP_KEY": "b"},
        {"DINGTALK_CLIENT_SECRET_FILE": "/nowhere", "OPENAI_BASE_URL": "what", "PORT": "x", "CLAW_LANG": "fr"},
        {"CLAW_STORE_URL": "redis://x/y", "OPENAI_API_KEY": "k"},
    ],
)
def test_load_tolerant(environ: dict[str, str]) -> None:
    """Whatever the environment holds, there are settings, and each faulty variable is named."""
    settings, problems, faulty = load_tolerant(environ)
    assert settings.http.port == 8080
    assert problems
    assert "DINGTALK_CLIENT_ID" in faulty or environ.get("DINGTALK_CLIENT_ID") == "a"
    assert "DINGTALK_CLIENT_SECRET" in faulty


# --- what is shown ---------------------------------------------------------------------------------------------------


async def test_a_broken_or_slow_check_is_a_line(tmp_path: Path) -> None:
    """A check that fails by itself, or hangs, is told and keeps no other from being told."""

    async def breaks(_: Context) -> Finding:
        raise KeyError("secret")

    async def hangs(_: Context) -> Finding:
        await asyncio.sleep(3600)
        raise AssertionError("nobody waits for so long")

    async def works(_: Context) -> Finding:
        return good("settings.ok")

    checks = [
        CheckSpec("breaks", breaks),
        CheckSpec("hangs", hangs),
        CheckSpec("works", works, after=("breaks",)),
        CheckSpec("blocked", works, needs=("breaks",)),
    ]
    settings, _, _ = load_tolerant({})
    async with http_session() as http:
        results = await run_checks(checks, Context(settings, http, timeout=-4.9), EN)
    assert [result.status for result in results] == [FAULT, FAULT, OK, SKIPPED]
    assert says("check.failed", EN, results[0].message)
    assert says("check.timeout", EN, results[1].message)
    assert find_worst(results) is FAULT


async def test_json(emulator: Emulator, tmp_path: Path) -> None:
    """The JSON form has the same fields for each check, and the worst status of all."""
    emulator.faults.gateway_status = 400
    environ = environment(emulator.url, tmp_path / "claw.db", PORT=free_port())
    results, context = await diagnose(environ, EN, timeout=LONG)
    body = json.loads(to_json(results, context))
    assert body["worst"] == "fault"
    assert [set(each) for each in body["checks"]] == [
        {"name", "status", "message", "remedy", "troubles", "ms"} for _ in TABLE
    ]
    registration = next(each for each in body["checks"] if each["name"] == "stream.registration")
    assert registration["troubles"] == ["Stream connection failed", "bot added but not responding"]
    assert "Stream connection failed" in "\n".join(explain_symptoms(results, EN))


def test_each_trouble_has_its_checks() -> None:
    """The troubles that people name are each explained by some check; the command line knows them all."""
    assert {symptom for check in TABLE for symptom in check.symptoms} == set(Symptom)
    assert tuple(Symptom) == __main__.SYMPTOMS
    assert set(SYMPTOMS) == set(Symptom)


def test_no_check_stands_before_one_that_it_needs() -> None:
    """The table's order is one in which it could be run, and every name in it exists."""
    seen: set[str] = set()
    names = {check.name for check in TABLE}
    for check in TABLE:
        assert set(check.needs) <= seen
        assert set(check.after) <= names
        if check.name != "stream.session":
            assert set(check.after) <= seen
        seen.add(check.name)
    assert len(names) == len(TABLE)


def test_both_languages_put_in_the_same_values() -> None:
    """A sentence and its remedy have the same placeholders in Chinese and English, and a remedy has both or none."""
    fields = Formatter()

    def placeholders(text: str) -> set[str]:
        return {name for _, name, _, _ in fields.parse(text) if name}

    for key, sentence in TEXTS.items():
        assert sentence.message[ZH], key
        assert sentence.message[EN], key
        assert placeholders(sentence.message[ZH]) == placeholders(sentence.message[EN]), key
        assert placeholders(sentence.remedy[ZH]) == placeholders(sentence.remedy[EN]), key
        assert bool(sentence.remedy[ZH]) is bool(sentence.remedy[EN]), key


def test_every_key_is_used_and_every_used_key_exists() -> None:
    """What the commands' sources name is in texts.toml, and nothing else is."""
    tables = {key.partition(".")[0] for key in TEXTS}
    names = {check.name for check in TABLE}
    used: set[str] = set()
    for path in Path(doctor.__file__).parents[1].rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                used.update(re.findall(r"^[a-z]+\.[a-z_]+$", node.value))
    used = {key for key in used if key.partition(".")[0] in tables}
    built = {f"registration.{word}" for word in ("credentials", "app", "forbidden")}
    built |= {f"status.{status}" for status in CheckStatus} | {f"symptom.{symptom}" for symptom in Symptom}
    assert set(TEXTS) - used - built == set()
    assert used - set(TEXTS) - names == set()


def test_the_service_loads_no_sentence() -> None:
    """`claw run` and `claw health` start without the doctor and its texts."""
    code = "import sys, claw.app, claw.cli.run, claw.cli.health; print([n for n in sys.modules if 'doctor' in n])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


# --- the command ---------------------------------------------------------------------------------------------------


async def command(environ: Mapping[str, str], folder: Path, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "claw", "doctor", *arguments),
        env={**environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_command_exit_code_is_by_the_worst(emulator: Emulator, tmp_path: Path) -> None:
    """2 for a fault, and nothing on stderr; the language is the flag's; no secret is shown."""
    emulator.faults.model_status = 401
    environ = environment(emulator.url, tmp_path / "claw.db", PORT=free_port())
    code, out, err = await command(environ, tmp_path, "--lang", "zh")
    assert (code, err) == (2, "")
    assert "模型服务不接受凭证" in out
    assert "计费调用：1 次。" in out
    assert CLIENT_SECRET not in out
    assert API_KEY not in out
    code, out, _ = await command(environ, tmp_path, "--json", "--free", "--trouble", "permission-denied")
    assert {each["name"] for each in json.loads(out)["checks"]} >= {"permission.send", "visibility"}
    assert code in {0, 1}


async def test_command_at_a_terminal(emulator: Emulator, tmp_path: Path) -> None:
    """A person sees one line for each check, the remedy below it, and no secret."""
    emulator.faults.gateway_status = 400
    environ = environment(emulator.url, tmp_path / "claw.db", PORT=free_port(), CLAW_LANG="en")
    screen = Screen(
        environ | {"PYTHONPATH": str(Path(__file__).parents[2])}, tmp_path, "doctor", "--free", "--timeout", "5"
    )
    try:
        await screen.see(r"fault +stream\.registration +DingTalk's gateway refuses the app")
        await screen.see("-> Set 消息接收模式 to Stream mode")
        await screen.see("Stream connection failed: stream.registration")
        assert await screen.ended() == 2
    finally:
        screen.close()
    assert CLIENT_SECRET not in screen.text
    assert API_KEY not in screen.text


async def test_command_without_any_settings(tmp_path: Path) -> None:
    """A newcomer without settings gets a list and a way out, not a traceback."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    code, out, err = await command(kept | {"CLAW_LANG": "en"}, tmp_path, "--offline")
    assert (code, err) == (2, "")
    assert "claw auth" in out


async def test_command_ends_by_ctrl_c(emulator: Emulator, tmp_path: Path) -> None:
    """Ctrl-C ends it with 130 and without a traceback, also while somebody does not answer."""
    emulator.faults.gateway_hang = True
    environ = environment(emulator.url, tmp_path / "claw.db", PORT=free_port())
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "claw", "doctor", "--timeout", "60"),
        env=environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        while not emulator.registrations:
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
    assert process.returncode == 130
    assert (out, err) == (b"", b"")


def test_permission_calls_touch_nobody() -> None:
    """Each call that finds a permission names nobody, and nothing that exists."""
    loaded = reader.load({**dict.fromkeys(("DINGTALK_CLIENT_ID", "DINGTALK_CLIENT_SECRET", "OPENAI_API_KEY"), "x")})
    for name, probe in dingtalk._PROBES.items():
        body = probe.payload(loaded)
        assert body.get("userIds", []) == []
        # A card that is made stands in no chat before it is delivered, which these calls do not.
        assert "deliver" not in probe.path.lower()
        assert not {"openSpaceId", "openConversationId"} & body.keys()
        assert "claw-doctor" in str(body.get("outTrackId")) or name == dingtalk.SEND


CARDS = ("network.openapi", "credentials", "permission.card", "permission.card_stream")


@pytest.mark.parametrize(
    ("faults", "variables", "name", "status", "key"),
    [
        ({}, {}, "permission.card", SKIPPED, "permission.no_cards"),
        ({}, {"CLAW_REPLY_MODE": "auto"}, "permission.card", OK, "permission.ok"),
        ({}, {"CLAW_REPLY_MODE": "auto"}, "permission.card_stream", OK, "permission.ok"),
        ({"no_card_instance_write": True}, {"CLAW_REPLY_MODE": "card"}, CARDS[2], WARNING, "permission.card_missing"),
        ({"no_card_streaming_write": True}, {"CLAW_REPLY_MODE": "auto"}, CARDS[3], WARNING, "permission.card_missing"),
        ({"card_template_missing": True}, {"CLAW_REPLY_MODE": "auto"}, CARDS[2], WARNING, "permission.template"),
    ],
)
async def test_cards_are_looked_at_where_they_are_used(
    emulator: Emulator,
    tmp_path: Path,
    faults: dict[str, Any],
    variables: dict[str, Any],
    name: str,
    status: CheckStatus,
    key: str,
) -> None:
    """Permissions and template of cards cost a call each, and only where answers may be cards; none is shown."""
    emulator.faults.update(faults)
    result = (await look(emulator, tmp_path, *CARDS, **variables))[name]
    assert (result.status, says(key, EN, result.message)) == (status, True), result
    assert sum(emulator.openapi.calls.values()) == (2 if variables else 0)


@pytest.mark.parametrize(
    ("variables", "status", "key"),
    [
        ({}, SKIPPED, "models.none"),
        ({"CLAW_MODELS": MODEL_NAME}, OK, "models.ok"),
        ({"CLAW_MODELS": f"{MODEL_NAME},no-such-model"}, WARNING, "models.missing"),
    ],
)
async def test_further_models_are_compared_for_nothing(
    emulator: Emulator, tmp_path: Path, variables: dict[str, Any], status: CheckStatus, key: str
) -> None:
    """CLAW_MODELS is compared with what the server lists; no model is asked for it."""
    result = (await look(emulator, tmp_path, "network.model", "models", **variables))["models"]
    assert (result.status, says(key, EN, result.message)) == (status, True), result
    assert not emulator.model.requests


async def test_a_server_at_its_usual_port_is_found(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where this machine refuses the model's port, a usual one that answers is named, with what to set."""
    port = URL(emulator.url).port or 0
    monkeypatch.setattr(network, "USUAL_PORTS", {port: ("Ollama", "/v1")})
    closed = f"http://127.0.0.1:{free_port()}/v1"
    result = (await look(emulator, tmp_path, "network.model", OPENAI_BASE_URL=closed))["network.model"]
    assert (result.status, says("network.elsewhere", EN, result.message)) == (FAULT, True), result
    assert f"http://127.0.0.1:{port}/v1" in result.remedy


async def test_what_works_is_not_explained_away(emulator: Emulator, tmp_path: Path) -> None:
    """A warning explains no trouble where a session opened and the model answered; a fault always does."""
    variables: dict[str, Any] = {"CLAW_NO_SUCH_SETTING": "1"}
    results = list((await look(emulator, tmp_path, "settings", *STREAM, *MODEL, **variables)).values())
    assert WARNING in {result.status for result in results}
    assert explain_symptoms(results, EN) == []
    emulator.faults.update({"model_status": 401})
    results = list((await look(emulator, tmp_path, "settings", *STREAM, *MODEL, **variables)).values())
    assert any("model" in line for line in explain_symptoms(results, EN))
