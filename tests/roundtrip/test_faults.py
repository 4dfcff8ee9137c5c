"""What the house promises when something breaks: nothing lost, nothing said twice, the truth told."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from pathlib import Path

import pytest

from claw.emulator import Emulator
from tests.roundtrip.conftest import Claw
from tests.service import Service, environment

pytestmark = pytest.mark.timeout(110)


async def wait_open(emulator: Emulator, not_in: set[str]) -> None:
    """Until a connection is there that is none of `not_in`."""
    async with asyncio.timeout(30):
        while not any(connection.id not in not_in for connection in emulator.connections):
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("fault", ["reset", "close", "disconnect"])
async def test_next_session_after(emulator: Emulator, claw: Claw, fault: str) -> None:
    """However a session ends, another one serves, and the next message is answered."""
    async with claw():
        await emulator.wait_connections()
        before = {connection.id for connection in emulator.connections}
        emulator.act(fault)
        await wait_open(emulator, before)
        await emulator.wait_reply_to(await emulator.say("still there?"))
        assert len(emulator.registrations) <= 4


async def test_nothing_undeliverable_at_disconnect(emulator: Emulator, claw: Claw) -> None:
    """With two slots and pushes all the time, no `disconnect` leaves a moment without a session that takes them."""
    emulator.faults.update({"model_chunk_delay": 0.0})
    async with claw(CLAW_STREAM_CONNECTIONS="2"):
        await emulator.wait_connections(2)
        said = []
        for number in range(300):
            said.append(await emulator.say(f"n{number}", person="u-1001" if number % 2 else "u-1002"))
            if number in {50, 150}:
                emulator.act("disconnect", connection=emulator.connections[0].id)
            await asyncio.sleep(0.005)
        for each in said:
            await emulator.wait_reply_to(each, timeout=30)
        assert not emulator.undeliverable
        assert not emulator.violations


async def test_nothing_lost_on_the_old_socket(emulator: Emulator, claw: Claw) -> None:
    """What was pushed just before a `disconnect` is acked on the socket that it came from, and answered."""
    async with claw():
        await emulator.wait_connections()
        said = [await emulator.say(f"n{number}") for number in range(5)]
        emulator.act("disconnect")
        for each in said:
            await emulator.wait_reply_to(each)
        assert not emulator.violations


async def test_frozen_peer_is_noticed(emulator: Emulator, claw: Claw) -> None:
    """A peer that answers no ping is left for a new session; the old socket is not waited for."""
    async with claw(CLAW_STREAM_HEARTBEAT="0.5"):
        await emulator.wait_connections()
        before = {connection.id for connection in emulator.connections}
        emulator.act("freeze", routed=False)
        await wait_open(emulator, before)
        await emulator.wait_reply_to(await emulator.say("still there?"))


async def test_restart_of_the_stream_has_no_gap(emulator: Emulator, claw: Claw) -> None:
    """POST /restart replaces the connection, new before old, and refuses a second one meanwhile."""
    async with claw() as service:
        await emulator.wait_connections()
        before = {connection.id for connection in emulator.connections}
        assert (await service.post("/restart"))[0] == 202
        await wait_open(emulator, before)
        assert (await service.get("/ready"))[0] == 200
        await emulator.wait_reply_to(await emulator.say("still there?"))
        assert not emulator.undeliverable


async def test_rejected_credentials_are_told(emulator: Emulator, claw: Claw, tmp_path: Path) -> None:
    """A refused secret: alive, not ready with the reason, few tries; and at once ready when the file is mended."""
    secret = tmp_path / "secret"
    secret.write_text("wrong-secret-value\n")
    environ = environment(emulator.url, tmp_path / "claw.db", DINGTALK_CLIENT_SECRET_FILE=str(secret))
    del environ["DINGTALK_CLIENT_SECRET"]
    service = Service(environ, tmp_path)
    try:
        await service.start()
        async with asyncio.timeout(20):
            while True:
                status, body = await service.get("/ready")
                if body["checks"]["stream"]["state"] == "REJECTED":
                    break
                await asyncio.sleep(0.05)
        assert status == 503
        assert "DINGTALK_CLIENT_SECRET" in body["checks"]["stream"]["reason"]
        assert (await service.get("/health"))[0] == 200
        # A negative: a second try within this moment would be one too many.
        await asyncio.sleep(2.0)
        assert len(emulator.registrations) == 2, "one of each slot"
        secret.write_text("not-a-real-secret\n")
        await service.until_ready(10)
        await emulator.wait_reply_to(await emulator.say("hello"))
        assert "wrong-secret-value" not in "\n".join(service.lines)
    finally:
        await service.kill()


async def test_registrations_are_bounded(emulator: Emulator, claw: Claw) -> None:
    """A gateway whose upgrade is refused sees no more than two registrations in any second."""
    async with claw() as service:
        await emulator.wait_connections()
        emulator.faults.update({"refuse_upgrade": 503})
        emulator.act("reset")
        await service.until_ready(ready=False)
        async with asyncio.timeout(30):
            while len(emulator.registrations) < 5:
                await asyncio.sleep(0.05)
        stamps = list(emulator.registrations)
        # Lower bounds only: a slow machine widens the gaps.
        assert all(later - earlier > 0.99 for earlier, later in zip(stamps, stamps[2:], strict=False))
        emulator.faults.reset()
        await service.until_ready()


async def test_outage_is_told_and_overcome(emulator: Emulator, claw: Claw) -> None:
    """While DingTalk is away: alive, and not ready with state and reason; when it is back: ready by itself."""
    async with claw() as service:
        await emulator.stop()
        body = await service.until_ready(ready=False)
        assert body["status"] == "not ready"
        assert body["checks"]["stream"]["state"] in {"BACKOFF", "CONNECTING"}
        assert body["checks"]["stream"]["reason"]
        assert body["checks"]["store"]["ok"] is True
        assert (await service.get("/health"))[0] == 200
        await emulator.start()
        await service.until_ready(20)
        await emulator.wait_reply_to(await emulator.say("back again"))


async def test_hostile_frames(emulator: Emulator, claw: Claw) -> None:
    """Thousands of broken frames change nothing: same session, no flood of log lines, the next message is answered."""
    draw = random.Random(20261121)
    good = '{"type":"CALLBACK","headers":{"messageId":"m%d","topic":"/v1.0/im/bot/messages/get"},"data":%s}'
    bodies = [
        "null",
        "1",
        "[]",
        '"x"',
        '"{}"',
        '"[1]"',
        '"{\\"msgtype\\":5}"',
        '"{\\"text\\":null,\\"msgtype\\":\\"text\\"}"',
    ]
    async with claw() as service:
        await emulator.wait_connections()
        before = {connection.id for connection in emulator.connections}
        for number in range(3000):
            match number % 6:
                case 0:
                    emulator.push_raw("{" * draw.randrange(1, 50))
                case 1:
                    emulator.push_raw(draw.randbytes(draw.randrange(0, 300)))
                case 2:
                    emulator.push_raw(good % (number, draw.choice(bodies)))
                case 3:
                    emulator.push_raw("[" * 100_000 if number % 600 == 3 else "[]")
                case 4:
                    emulator.push_raw('{"type":"SYSTEM","headers":{"topic":"?"}}')
                case _:
                    emulator.push_raw('{"headers":[],"type":{},"data":1e999}')
            if number % 100 == 0:
                await asyncio.sleep(0.01)
        emulator.push_raw("x" * 4_000_000)
        await emulator.wait_reply_to(await emulator.say("still there?"), timeout=30)
        assert {connection.id for connection in emulator.connections} == before
        assert len(service.lines) < 500


async def test_kill_at_random_points(emulator: Emulator, claw: Claw) -> None:
    """Killed again and again under load: all that was acked is answered, in order; twice only what was being sent.

    One connection: what a busy process reads from two of them at once, within 50 ms, has no order.
    """
    draw = random.Random(20261121)
    people = ["u-1001", "u-1002", "u-1003"]
    emulator.faults.update({"model_delay": 0.02, "model_chunk_delay": 0.005, "repush_after": 1.0})
    said: dict[str, list[str]] = {person: [] for person in people}
    kills = 0
    number = 0
    while kills < 5:
        async with claw(CLAW_STREAM_CONNECTIONS="1") as service:
            await emulator.wait_connections()
            until = time.monotonic() + draw.uniform(0.2, 1.2)
            while time.monotonic() < until:
                person = draw.choice(people)
                number += 1
                pushed = await emulator.say(f"<{number}>", person=person)
                assert pushed.push is not None
                said[person].append(pushed.msg_id)
                await asyncio.sleep(0.01)
            await service.kill()
            kills += 1
    async with claw() as service:
        async with asyncio.timeout(60):
            while True:
                depth = (await service.get("/status", "admin-token-of-the-test"))[1]["inbox"]
                if depth["pending"] == 0 and depth["leased"] == 0:
                    break
                await asyncio.sleep(0.1)
    flat = [reply.in_reply_to for reply in emulator.replies.log if reply.in_reply_to]
    acked = {push.msg_id for push in emulator.pushes if push.acked.is_set()}
    assert acked
    assert acked <= set(flat)
    assert len(flat) - len(set(flat)) <= kills * len(people)
    # The order of acks is that of arrival, except for what came again: it may have been kept before its ack got lost.
    certain = {push.msg_id for push in emulator.pushes if push.acked.is_set() and not push.repushed}
    arrived = [ack.push.msg_id for ack in emulator.acks if ack.push is not None and ack.push.msg_id in certain]
    for ids in said.values():
        mine = certain.intersection(ids)
        assert [each for each in dict.fromkeys(flat) if each in mine] == [each for each in arrived if each in mine]


async def test_sigterm_drains(emulator: Emulator, claw: Claw) -> None:
    """SIGTERM: not ready at once, the running turn is finished, sockets closed with 1000, exit code 0."""
    async with claw() as service:
        emulator.faults.update({"model_delay": 1.0})
        said = await emulator.say("one moment")
        async with asyncio.timeout(10):
            while not emulator.model.requests:
                await asyncio.sleep(0.01)
        service.signal(signal.SIGTERM)
        status, body = await service.get("/ready")
        assert status == 503
        assert body["checks"]["drain"]["ok"] is False
        assert await service.ended() == 0
        await emulator.wait_reply_to(said, timeout=1)


async def test_what_outlasts_the_drain_is_kept(emulator: Emulator, claw: Claw) -> None:
    """A turn that does not end within CLAW_DRAIN_TIMEOUT is answered by the next process, once."""
    emulator.faults.update({"model_hang": True})
    async with claw(CLAW_DRAIN_TIMEOUT="0.5") as service:
        said = await emulator.say("hello")
        assert said.push is not None
        await asyncio.wait_for(said.push.acked.wait(), 10)
        service.signal(signal.SIGTERM)
        # Less than a turn's own timeout, which is what it would take if the drain did not cut it short.
        assert await service.ended(8) == 0
    emulator.faults.reset()
    async with claw():
        await emulator.wait_reply_to(said, timeout=20)


async def test_process_restart_exits_75(emulator: Emulator, claw: Claw) -> None:
    """POST /restart?scope=process drains and leaves with 75, so that an orchestrator starts a fresh one."""
    async with claw() as service:
        assert (await service.post("/restart?scope=process"))[0] == 202
        assert await service.ended() == 75


async def test_bad_settings_exit_78(tmp_path: Path) -> None:
    """Every fault of the environment is told at once, by name, without a traceback, with exit code 78."""
    environ = environment("http://127.0.0.1:1", tmp_path / "claw.db", PORT="http", CLAW_TURN_TIMEOUT="soon")
    del environ["DINGTALK_CLIENT_SECRET"]
    service = Service(environ, tmp_path)
    with pytest.raises(AssertionError, match="does not serve"):
        await service.start()
    assert await service.ended() == 78
    output = "\n".join(service.lines)
    for name in ("PORT", "CLAW_TURN_TIMEOUT", "DINGTALK_CLIENT_SECRET"):
        assert name in output
    assert "Traceback" not in output


async def test_two_processes_cannot_share_a_store(emulator: Emulator, claw: Claw, tmp_path: Path) -> None:
    """A second claw on the same file waits for the first to end, and then serves."""
    async with claw() as first:
        second = Service(environment(emulator.url, tmp_path / "claw.db"), tmp_path)
        start = asyncio.create_task(second.start())
        try:
            async with asyncio.timeout(20):
                while not any(entry["message"].startswith("another claw") for entry in second.logs):
                    await asyncio.sleep(0.05)
            assert await first.terminate() == 0
            await start
            await second.until_ready()
        finally:
            start.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await start
            await second.kill()
