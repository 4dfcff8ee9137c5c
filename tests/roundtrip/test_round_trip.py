"""From a DingTalk message to a visible answer, by a real process over real sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from claw.emulator import Emulator
from claw.language import Language
from claw.messages import Answer, ChatKind, Conversation, Inbound, Outcome, Route, Sender
from claw.store.sqlite.store import SqliteStore
from claw.store.values import Row, RowKind
from claw.turn import texts
from tests.collector import Collector
from tests.roundtrip.conftest import Claw
from tests.service import API_KEY, CLIENT_SECRET

pytestmark = pytest.mark.timeout(90)


async def test_question_is_answered(emulator: Emulator, claw: Claw) -> None:
    """A person's message is acked on its socket and answered once in its chat."""
    async with claw():
        said = await emulator.say("你好")
        reply = await emulator.wait_reply_to(said)
        assert "你好" in reply.text
        assert said.push is not None
        assert said.push.acked.is_set()
        assert not emulator.violations
        await asyncio.sleep(0.2)
        assert len(emulator.replies.log) == 1


async def test_asker_is_mentioned_in_a_group(emulator: Emulator, claw: Claw) -> None:
    """In a group the answer @-s the person who asked, so that they see it."""
    async with claw():
        group = "g-team"
        reply = await emulator.wait_reply_to(await emulator.say("hello", chat=group))
        assert reply.at == ["u-1001"]
        assert "@u-1001" in reply.text


async def test_duplicate_is_answered_once(emulator: Emulator, claw: Claw) -> None:
    """The same message pushed again (new messageId, same msgId), also after a restart, is acked and not answered."""
    data = emulator.robot_data("once")
    async with claw() as service:
        first = emulator.push(data)
        await emulator.wait_reply_to(first)
        second = emulator.push(data)
        await asyncio.wait_for(second.acked.wait(), 10)
        assert await service.terminate() == 0
    async with claw():
        third = emulator.push(data)
        await asyncio.wait_for(third.acked.wait(), 10)
        await emulator.wait_reply_to(await emulator.say("after"))
    assert [reply.text.count("once") > 0 for reply in emulator.replies.log] == [True, False]


async def test_memory_and_new(emulator: Emulator, claw: Claw) -> None:
    """The model is told the earlier exchange, also after a restart, until /new."""
    async with claw():
        await emulator.wait_reply_to(await emulator.say("first question"))
    async with claw():
        await emulator.wait_reply_to(await emulator.say("second question"))
        assert "first question" in str(emulator.model.requests[-1].body)
        assert texts.FORGOTTEN[Language.EN] in (await emulator.wait_reply_to(await emulator.say("/new"))).text
        await emulator.wait_reply_to(await emulator.say("third question"))
        assert "first question" not in str(emulator.model.requests[-1].body)


async def test_stop_interrupts_the_model(emulator: Emulator, claw: Claw) -> None:
    """/stop overtakes the turn that runs: it is answered at once, the model's stream is closed, the turn is silent."""
    async with claw():
        emulator.faults.update({"model_hang": True})
        slow = await emulator.say("tell me everything")
        async with asyncio.timeout(10):
            while not emulator.model.requests:
                await asyncio.sleep(0.01)
        assert texts.STOPPED[Language.EN] in (await emulator.wait_reply_to(await emulator.say("/stop"))).text
        emulator.faults.reset()
        await emulator.wait_reply_to(await emulator.say("next"))
        with pytest.raises(TimeoutError):
            await emulator.wait_reply_to(slow, timeout=0.2)


async def test_failure_is_told_with_its_trace(emulator: Emulator, claw: Claw) -> None:
    """When the model refuses us, the person is told in their language with the trace's id, and the operator why."""
    async with claw() as service:
        emulator.faults.update({"model_status": 401})
        reply = await emulator.wait_reply_to(await emulator.say("你好"))
        failed = await service.wait_log("turn failed")
        assert failed["trace_id"] in reply.text
        assert "管理员" in reply.text
        assert "OPENAI_API_KEY" in failed["remedy"]


async def test_expired_webhook_falls_back_to_openapi(emulator: Emulator, claw: Claw) -> None:
    """When DingTalk no longer knows the session webhook, the answer goes out by the OpenAPI."""
    async with claw():
        emulator.faults.update({"webhook_errcode": 300001})
        await emulator.say("hello there")
        reply = await emulator.wait_reply(contains="hello there")
        assert reply.via == "openapi"


async def test_long_answer_is_split(emulator: Emulator, claw: Claw) -> None:
    """An answer over DingTalk's limit arrives in parts, in order and whole."""
    text = "\n\n".join(f"第{n}段：" + "内容" * 120 for n in range(60))
    async with claw():
        emulator.faults.update({"model_fixed_reply": text})
        said = await emulator.say("long")
        await emulator.wait_reply_to(said, timeout=20)
        await emulator.wait_reply(contains="第59段", timeout=20)
    whole = "".join("".join(reply.text.split()) for reply in emulator.replies.log)
    assert whole == "".join(text.split())
    assert len(emulator.replies.log) > 1


async def test_one_trace_per_message(emulator: Emulator, claw: Claw) -> None:
    """Four spans make one trace with the right parents, hashed ids and no content; metrics have their names."""
    intervals = {"OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_METRIC_EXPORT_INTERVAL": "500"}
    async with Collector() as collector, claw(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, **intervals) as service:
        await emulator.wait_reply_to(await emulator.say("a very private question"))
        await asyncio.sleep(1.0)
        assert await service.terminate() == 0
    spans = {span.name: span for span in collector.spans}
    process, turn, chat, send = (
        spans[name] for name in ("process dingtalk.robot", "turn", "chat claw-test", "send dingtalk.reply")
    )
    assert len({span.trace_id for span in (process, turn, chat, send)}) == 1
    assert process.parent_id == ""
    assert turn.parent_id == process.span_id
    assert chat.parent_id == send.parent_id == turn.span_id
    assert process.attributes["claw.duplicate"] is False
    assert turn.attributes["claw.outcome"] == "answered"
    assert chat.attributes["gen_ai.usage.output_tokens"] > 0
    assert send.attributes["http.response.status_code"] == 200
    assert process.service == "claw"
    for private in (b"a very private question", b"u-1001", b"session=", CLIENT_SECRET.encode(), API_KEY.encode()):
        assert private not in collector.raw
    assert {"claw.round_trip.duration", "claw.ack.duration", "claw.stream.connected", "claw.inbox.depth"} <= (
        collector.metrics
    )


async def test_trace_goes_on_after_a_crash(emulator: Emulator, claw: Claw) -> None:
    """A message taken up by the next process stays in the trace in which it was accepted."""
    async with Collector() as collector:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        emulator.faults.update({"model_hang": True})
        async with claw(**variables) as service:
            said = await emulator.say("hello")
            assert said.push is not None
            await asyncio.wait_for(said.push.acked.wait(), 10)
            await asyncio.sleep(0.5)
            await service.kill()
        emulator.faults.reset()
        async with claw(**variables) as service:
            await emulator.wait_reply_to(said, timeout=20)
            await service.terminate()
    process = next(span for span in collector.spans if span.name == "process dingtalk.robot")
    # The alert to the owner, that a process ended without a word, is a turn of its own.
    turn = next(
        span for span in collector.spans if span.name == "turn" and span.attributes.get("claw.kind") == "message"
    )
    assert (turn.trace_id, turn.parent_id) == (process.trace_id, process.span_id)


async def test_no_secret_in_any_line(emulator: Emulator, claw: Claw) -> None:
    """A full run at DEBUG, faults included, prints no secret: not ours, not DingTalk's, not what was said."""
    async with claw(CLAW_LOG_LEVEL="debug") as service:
        group = "g-team"
        await emulator.wait_reply_to(await emulator.say("a very private question"))
        await emulator.wait_reply_to(await emulator.say("a very private question", chat=group))
        await emulator.wait_reply_to(await emulator.say("a very private question", msgtype="picture"))
        emulator.faults.update({"webhook_errcode": 300001})
        await emulator.say("openapi please")
        await emulator.wait_reply(contains="openapi please")
        emulator.faults.update({"webhook_errcode": 0, "model_status": 500, "fault_budget": {"model_status": 1}})
        await emulator.wait_reply_to(await emulator.say("model trouble"), timeout=30)
        for name in ("bad_frames", "reset", "disconnect"):
            emulator.act(name)
            await asyncio.sleep(0.3)
        await service.until_ready()
        # Ready is also who still reads on a connection that gets nothing more: DingTalk loses what it cannot push.
        await emulator.wait_connections()
        await emulator.wait_reply_to(await emulator.say("still there?"))
        opened = emulator.connections
        await service.get("/status", "wrong-token-value")
        await service.post("/restart")
        await asyncio.sleep(0.3)
        assert await service.terminate() == 0
    output = "\n".join(service.lines)
    assert output.count("\n") > 10
    secrets = [CLIENT_SECRET, API_KEY, "admin-token-of-the-test", "session=", "ticket=", "very private"]
    secrets += [connection.ticket for connection in opened]
    assert [secret for secret in secrets if secret in output] == []


async def test_what_claw_sends_of_its_own_accord(emulator: Emulator, claw: Claw, tmp_path: Path) -> None:
    """A row that was put with its answer is sent by the OpenAPI, to a group or a person, and asks no model."""
    group = emulator.chats.chat("g-team").conversation_id
    store = SqliteStore(tmp_path / "claw.db")
    await store.open()
    for kind, where, to in (
        (RowKind.SEND, Conversation(group, ChatKind.GROUP), Sender("")),
        (RowKind.ALERT, Conversation("owner", ChatKind.DIRECT), Sender("", "u-1001")),
    ):
        target = Inbound("dingfakeclient", kind.value, where, to, "text", "")
        answer = Answer.of(f"this is a {kind.value}", Outcome.ANSWERED)
        await store.put(Row(target, Route(target.chat_key, target.chat_key), kind=kind, answer=answer))
    await store.close()
    async with claw():
        sent = await emulator.wait_reply(contains="this is a send")
        told = await emulator.wait_reply(contains="this is a alert")
    assert (sent.via, sent.chat, told.via) == ("openapi", "g-team", "openapi")
    assert not emulator.model.requests
