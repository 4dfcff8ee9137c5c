"""What an operator does by the HTTP API of a real process: dead letters, sends, chats, policies, usage, alerts."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from claw.emulator import Emulator
from tests.roundtrip.conftest import Claw
from tests.service import ADMIN_TOKEN, Service

pytestmark = pytest.mark.timeout(110)

FAST = {"model_chunk_delay": 0.0}
OWNED = {"CLAW_OWNER": "u-1001"}


async def letters(service: Service, count: int = 1, seconds: float = 30) -> list[dict[str, Any]]:
    """Wait for so many dead letters, and return them."""
    async with asyncio.timeout(seconds):
        while True:
            status, body = await service.call("GET", "/api/dead")
            assert status == 200
            if body["total"] == count:
                found: list[dict[str, Any]] = body["letters"]
                return found
            await asyncio.sleep(0.05)


async def sent(service: Service, send_id: str, state: str = "sent", seconds: float = 30) -> dict[str, Any]:
    """Wait until a text has that state, and return its receipt."""
    async with asyncio.timeout(seconds):
        while True:
            status, receipt = await service.call("GET", f"/send/{send_id}")
            assert status == 200
            if receipt["state"] == state:
                found: dict[str, Any] = receipt
                return found
            await asyncio.sleep(0.02)


async def said_by_robot(emulator: Emulator, words: str, count: int = 1, seconds: float = 30) -> list[str]:
    """Wait until the robot said something with these words so often; return the chats."""
    async with asyncio.timeout(seconds):
        while True:
            found = [reply.chat for reply in emulator.replies if words in reply.text]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.02)


# --- dead letters ------------------------------------------------------------------------------------------------


async def test_a_dead_letter_is_asked_again(emulator: Emulator, claw: Claw) -> None:
    """What the model refused is listed with its cause, and answered when it is tried again; the letter is gone then."""
    emulator.faults.update({**FAST, "model_status": 400})
    async with claw() as service:
        await emulator.wait_reply_to(await emulator.say("什么是 <b>队列</b>？", person="u-1002", chat="g-team"))
        (letter,) = await letters(service)
        assert (letter["question"], letter["has_answer"], letter["kind"]) == ("什么是 <b>队列</b>？", False, "message")
        assert letter["chat"]["title"] == "产品研发群"
        assert letter["person"]["id"] == "u-1002"
        emulator.faults.update({"model_status": 0, "model_fixed_reply": "先进先出"})
        assert await service.call("POST", f"/api/dead/{letter['id']}/retry") == (
            202,
            {"status": "accepted", "how": "ask"},
        )
        assert await said_by_robot(emulator, "先进先出") == ["g-team"]
        assert await letters(service, 0) == []
        assert (await service.call("POST", f"/api/dead/{letter['id']}/retry"))[0] == 404
        entries = (await service.call("GET", "/api/audit"))[1]["entries"]
        assert [(each["actor"], each["action"], each["detail"]) for each in entries] == [("api", "dead.retry", "ask")]


async def test_an_answer_that_was_paid_for_is_sent_again(emulator: Emulator, claw: Claw) -> None:
    """What could not be delivered is only delivered again: the model is not asked, and its words are the same."""
    emulator.faults.update({**FAST, "webhook_errcode": 40035})
    async with claw(CLAW_ALERTS="off") as service:
        await emulator.say("哪年成立的？", person="u-1002")
        # Written off at once: DingTalk calls the text itself bad. The person is told of it.
        await said_by_robot(emulator, "没能送达")
        (letter,) = await letters(service)
        assert letter["has_answer"]
        asked = emulator.model.count
        emulator.faults.update({"webhook_errcode": 0})
        assert (await service.call("POST", f"/api/dead/{letter['id']}/retry"))[1]["how"] == "send"
        await said_by_robot(emulator, "哪年成立的")
        assert emulator.model.count == asked


async def test_the_owner_retries_in_chat(emulator: Emulator, claw: Claw) -> None:
    """/dead tells the owner what failed, in the direct chat alone, and /retry puts it back; nobody else may."""
    emulator.faults.update({**FAST, "model_status": 400})
    async with claw(**OWNED) as service:
        await emulator.wait_reply_to(await emulator.say("机密问题", person="u-1002"))
        (letter,) = await letters(service)
        assert "机密问题" in (await emulator.wait_reply_to(await emulator.say("/dead"))).text
        assert "机密问题" not in (await emulator.wait_reply_to(await emulator.say("/失败消息", chat="g-team"))).text
        refused = await emulator.wait_reply_to(await emulator.say("/retry all", person="u-1002"))
        assert "主人" in refused.text
        emulator.faults.update({"model_status": 0, "model_fixed_reply": "终于答上了"})
        assert "1" in (await emulator.wait_reply_to(await emulator.say(f"/retry {letter['id']}"))).text
        await said_by_robot(emulator, "终于答上了")
        assert "没有" in (await emulator.wait_reply_to(await emulator.say("/dead"))).text


async def test_a_dead_letter_is_dropped(emulator: Emulator, claw: Claw) -> None:
    """What is dropped is gone for good."""
    emulator.faults.update({**FAST, "model_status": 400})
    async with claw() as service:
        await emulator.wait_reply_to(await emulator.say("weg damit"))
        (letter,) = await letters(service)
        assert await service.call("DELETE", f"/api/dead/{letter['id']}") == (200, {"status": "dropped"})
        assert (await service.call("DELETE", f"/api/dead/{letter['id']}"))[0] == 404
        assert await letters(service, 0) == []


# --- sending -----------------------------------------------------------------------------------------------------


async def test_a_program_sends(emulator: Emulator, claw: Claw) -> None:
    """A text reaches a person and a group, with DingTalk's receipt; the same key sends nothing twice."""
    async with claw() as service:
        body = {"to": {"user": "u-1002"}, "markdown": "**备份完成**", "idempotency_key": "backup-1"}
        status, receipt = await service.call("POST", "/send", body)
        assert status == 202
        done = await sent(service, receipt["id"])
        assert len(done["process_query_keys"]) == 1
        again = await service.call("POST", "/send", body)
        assert (again[0], again[1]["state"]) == (202, "sent")
        other = await service.call("POST", "/send", body | {"markdown": "anders"})
        assert (other[0], other[1]["error"]["code"]) == (409, "idempotency_conflict")
        # An id of a group is what `/id` tells there.
        shown = (await emulator.wait_reply_to(await emulator.say("/id", chat="g-team"))).text
        group = shown.rpartition("：")[2].strip()
        told = {"to": {"conversation": group}, "markdown": "大家好", "at": ["u-1002"]}
        await sent(service, (await service.call("POST", "/send", told))[1]["id"])
        assert await said_by_robot(emulator, "备份完成") == ["direct:u-1002"]
        assert await said_by_robot(emulator, "大家好") == ["g-team"]
        assert next(reply.text for reply in emulator.replies if "大家好" in reply.text).startswith("@u-1002")


async def test_a_program_sends_a_file_and_a_picture(emulator: Emulator, claw: Claw) -> None:
    """A file in base64 and a picture as data are uploaded, and arrive as such."""
    png = (
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9Q"
        "DwADhgGAWjR9awAAAABJRU5ErkJggg=="
    )
    async with claw() as service:
        file = {"name": "notes.txt", "data": "aGVsbG8gd29ybGQ="}
        first = await service.call("POST", "/send", {"to": {"user": "u-1002"}, "file": file})
        second = await service.call("POST", "/send", {"to": {"user": "u-1002"}, "image": png})
        for status, receipt in (first, second):
            assert status == 202
            await sent(service, receipt["id"])
        kinds = [reply.body.get("msgKey") for reply in emulator.replies]
        assert "sampleFile" in kinds
        assert any("![" in reply.text for reply in emulator.replies)


async def test_a_text_for_nobody_fails(emulator: Emulator, claw: Claw) -> None:
    """An invalid user ends in `failed` with the cause, and the text is a dead letter that can be sent again."""
    emulator.faults.update({"invalid_staff": True})
    async with claw(CLAW_ALERTS="off") as service:
        body = {"to": {"user": "u-1002"}, "markdown": "hörst du?"}
        receipt = await sent(service, (await service.call("POST", "/send", body))[1]["id"], "failed")
        assert receipt["error"]
        (letter,) = await letters(service)
        assert (letter["kind"], letter["has_answer"]) == ("send", True)
        emulator.faults.update({"invalid_staff": False})
        assert (await service.call("POST", f"/api/dead/{letter['id']}/retry"))[1]["how"] == "send"
        done = await sent(service, receipt["id"])
        assert done["process_query_keys"]


async def test_flow_control_is_waited_for(emulator: Emulator, claw: Claw) -> None:
    """A person whom DingTalk holds back gets the text when it lets go; until then it is pending."""
    emulator.faults.update({"flow_controlled": True})
    async with claw() as service:
        body = {"to": {"user": "u-1002"}, "markdown": "later"}
        send_id = (await service.call("POST", "/send", body))[1]["id"]
        await service.wait_log("answer not delivered")
        assert (await service.call("GET", f"/send/{send_id}"))[1]["state"] == "pending"
        emulator.faults.update({"flow_controlled": False})
        await sent(service, send_id)


async def test_sends_survive_a_kill(emulator: Emulator, claw: Claw) -> None:
    """Texts that were accepted before a kill arrive in order; twice only what DingTalk had and claw did not know."""
    count = 60
    async with claw() as service:
        ids = []
        for number in range(count):
            body = {"to": {"user": "u-1002"}, "markdown": f"({number:03d})", "idempotency_key": f"k{number}"}
            status, receipt = await service.call("POST", "/send", body)
            assert status == 202
            ids.append(receipt["id"])
            if number == count // 2:
                await service.kill()
                service = Service(service.environ, service.cwd)  # noqa: PLW2901 - the same claw, started again
                await service.start()
                await service.until_ready()
        try:
            for each in ids:
                await sent(service, each, seconds=60)
        finally:
            await service.kill()
    arrived = [reply.text.strip()[:5] for reply in emulator.replies if reply.text.startswith("(")]
    assert list(dict.fromkeys(arrived)) == [f"({number:03d})" for number in range(count)]
    assert len(arrived) <= count + 2


BAD: list[tuple[Any, str | None]] = [
    ([], None),
    ("text", None),
    ({}, "to"),
    ({"to": "u-1002", "markdown": "x"}, "to"),
    ({"to": [], "markdown": "x"}, "to"),
    ({"to": {}, "markdown": "x"}, "to"),
    ({"to": {"user": "u-1", "conversation": "cid1234"}, "markdown": "x"}, "to"),
    ({"to": {"email": "a@b"}, "markdown": "x"}, "to.email"),
    ({"to": {"user": ""}, "markdown": "x"}, "to.user"),
    ({"to": {"user": 7}, "markdown": "x"}, "to.user"),
    ({"to": {"user": "a b"}, "markdown": "x"}, "to.user"),
    ({"to": {"user": "x" * 65}, "markdown": "x"}, "to.user"),
    ({"to": {"user": "张三"}, "markdown": "x"}, "to.user"),
    ({"to": {"conversation": "../x"}, "markdown": "x"}, "to.conversation"),
    ({"to": {"conversation": None}, "markdown": "x"}, "to.conversation"),
    ({"to": {"user": "u-1"}}, "markdown"),
    ({"to": {"user": "u-1"}, "markdown": ""}, "markdown"),
    ({"to": {"user": "u-1"}, "markdown": "  \n"}, "markdown"),
    ({"to": {"user": "u-1"}, "markdown": 5}, "markdown"),
    ({"to": {"user": "u-1"}, "markdown": "x" * 100_001}, "markdown"),
    ({"to": {"user": "u-1"}, "markdown": "x", "image": "https://h/a.png"}, "markdown"),
    ({"to": {"user": "u-1"}, "image": "http://h/a.png"}, "image"),
    ({"to": {"user": "u-1"}, "image": "file:///etc/passwd"}, "image"),
    ({"to": {"user": "u-1"}, "image": "data:text/html;base64,PGI+"}, "image"),
    ({"to": {"user": "u-1"}, "file": "a.pdf"}, "file"),
    ({"to": {"user": "u-1"}, "file": {"name": "a.pdf"}}, "file"),
    ({"to": {"user": "u-1"}, "file": {"name": "../a.pdf", "data": "aGk="}}, "file.name"),
    ({"to": {"user": "u-1"}, "file": {"name": "a.pdf", "data": "***"}}, "file.data"),
    ({"to": {"user": "u-1"}, "file": {"name": "a.pdf", "data": ""}}, "file.data"),
    ({"to": {"user": "u-1"}, "file": {"name": "a.pdf", "url": "ftp://h/a"}}, "file.url"),
    ({"to": {"user": "u-1"}, "markdown": "x", "at": "u-1"}, "at"),
    ({"to": {"user": "u-1"}, "markdown": "x", "at": ["a b"]}, "at"),
    ({"to": {"user": "u-1"}, "markdown": "x", "at": ["u"] * 51}, "at"),
    ({"to": {"user": "u-1"}, "markdown": "x", "idempotency_key": ""}, "idempotency_key"),
    ({"to": {"user": "u-1"}, "markdown": "x", "idempotency_key": 5}, "idempotency_key"),
    ({"to": {"user": "u-1"}, "markdown": "x", "idempotency_key": "a\nb"}, "idempotency_key"),
    ({"to": {"user": "u-1"}, "markdown": "x", "idempotency_key": "k" * 201}, "idempotency_key"),
    ({"to": {"user": "u-1"}, "markdown": "x", "titel": "y"}, "titel"),
]


async def test_bad_sends_name_the_field(emulator: Emulator, claw: Claw) -> None:
    """What cannot be sent is answered with 400 and the field at fault, and nothing is kept of it."""
    async with claw() as service:
        for body, field in BAD:
            status, told = await service.call("POST", "/send", body)
            assert (status, told["error"]["field"]) == (400, field), body
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}) as http,
            http.post(f"{service.url}/send", data=b"{not json") as response,
        ):
            assert response.status == 400
        assert (await service.call("GET", "/send/unknown"))[0] == 404
        assert (await service.get("/status", ADMIN_TOKEN))[1]["inbox"]["pending"] == 0
        assert not list(emulator.replies)


# --- chats and policies --------------------------------------------------------------------------------------------


async def test_a_group_has_its_own_agent(emulator: Emulator, claw: Claw) -> None:
    """Another model begins another conversation, with its own prompt; the first goes on when it is chosen again."""
    emulator.faults.update(FAST)
    async with claw(CLAW_MODELS="openclaw/research,qwen-plus", CLAW_CONTEXT="off") as service:

        async def ask(text: str) -> dict[str, Any]:
            await emulator.wait_reply_to(await emulator.say(text, chat="g-team"))
            body: dict[str, Any] = emulator.model.requests[-1].body
            return body

        first = await ask("我叫小明")
        assert first["model"] == "claw-test"
        chat = next(each for each in (await service.call("GET", "/api/chats"))[1]["chats"] if each["kind"] == "group")
        path = f"/api/chats/{quote(chat['id'], safe='')}"
        changed = await service.call("PUT", path, {"model": "openclaw/research", "prompt": "你是研究员"})
        assert changed[1]["settings"]["model"] == "openclaw/research"
        second = await ask("我是谁？")
        assert (second["model"], second["messages"][0]) == (
            "openclaw/research",
            {"role": "system", "content": "你是研究员"},
        )
        assert "小明" not in json.dumps(second["messages"], ensure_ascii=False)
        assert second["user"] != first["user"]
        assert (await service.call("PUT", path, {"model": None, "prompt": None}))[1]["settings"]["model"] is None
        third = await ask("那我呢？")
        assert (third["model"], third["user"]) == ("claw-test", first["user"])
        said = json.dumps(third["messages"], ensure_ascii=False)
        assert "小明" in said
        assert "我是谁" not in said


async def test_bad_settings_of_chats_name_the_field(emulator: Emulator, claw: Claw) -> None:
    """A setting that cannot be is answered with 400 and its name, and changes nothing."""
    async with claw() as service:
        await emulator.wait_reply_to(await emulator.say("hallo"))
        (chat,) = (await service.call("GET", "/api/chats"))[1]["chats"]
        path = f"/api/chats/{quote(chat['id'], safe='')}"
        bad: list[tuple[dict[str, Any], str | None]] = [
            ({"model": "nobody"}, "model"),
            ({"policy": "disabled"}, "policy"),
            ({"session": "shared"}, "session"),
            ({"reply_mode": "film"}, "reply_mode"),
            ({"prompt": "x" * 4001}, "prompt"),
            ({"prompt": 5}, "prompt"),
            ({"colour": "red"}, "colour"),
            ({}, None),
        ]
        for body, field in bad:
            status, told = await service.call("PUT", path, body)
            assert (status, told["error"]["field"]) == (400, field), body
        assert (await service.call("PUT", "/api/chats/unknown", {"model": None}))[0] == 404
        assert all(
            value is None for value in (await service.call("GET", "/api/chats"))[1]["chats"][0]["settings"].values()
        )


async def test_a_chat_has_its_own_policy_and_mode(emulator: Emulator, claw: Claw) -> None:
    """One group may be open where all others are shut, and be answered in cards where others are not."""
    emulator.faults.update(FAST)
    async with claw(CLAW_GROUP_POLICY="disabled", **OWNED) as service:
        await emulator.say("hört mich wer?", person="u-1002", chat="g-team")
        async with asyncio.timeout(20):
            while not (trips := (await service.call("GET", "/status"))[1]["round_trips"]):
                await asyncio.sleep(0.05)
        assert [trip["outcome"] for trip in trips] == ["denied"]
        chats = (await service.call("GET", "/api/chats"))[1]["chats"]
        path = f"/api/chats/{quote(chats[0]['id'], safe='')}"
        assert (await service.call("PUT", path, {"policy": "open", "reply_mode": "card"}))[0] == 200
        await emulator.say("jetzt?", person="u-1002", chat="g-team")
        await said_by_robot(emulator, "jetzt?")
        assert [reply.via for reply in emulator.replies] == ["card"]


async def test_the_owner_sets_up_a_chat_in_it(emulator: Emulator, claw: Claw) -> None:
    """/chat shows and changes the settings of the chat it is given in, for the owner alone."""
    async with claw(CLAW_MODELS="other", **OWNED):
        assert "other" in (await emulator.wait_reply_to(await emulator.say("/chat model other"))).text
        assert "other" in (await emulator.wait_reply_to(await emulator.say("/model"))).text
        await emulator.wait_reply_to(await emulator.say("hallo"))
        assert emulator.model.requests[-1].body["model"] == "other"
        refused = await emulator.wait_reply_to(await emulator.say("/会话设置 模型 nobody"))
        assert "`claw-test`, `other`" in refused.text
        await emulator.wait_reply_to(await emulator.say("/chat prompt Sei kurz.\nSehr kurz."))
        await emulator.wait_reply_to(await emulator.say("los"))
        assert emulator.model.requests[-1].body["messages"][0]["content"].startswith("Sei kurz.\nSehr kurz.")
        await emulator.wait_reply_to(await emulator.say("/chat reset"))
        await emulator.wait_reply_to(await emulator.say("und jetzt?"))
        assert emulator.model.requests[-1].body["model"] == "claw-test"
        assert "主人" in (await emulator.wait_reply_to(await emulator.say("/chat reset", person="u-1002"))).text


async def test_policies_by_the_api(emulator: Emulator, claw: Claw) -> None:
    """Policies and lists are read and changed; what cannot be is refused with the field, and nothing is changed."""
    async with claw(**OWNED) as service:
        changed = await service.call("PUT", "/api/policy", {"direct_policy": "allowlist", "allowed": ["u-1003"]})
        assert (changed[1]["direct_policy"], changed[1]["allowed"]) == ("allowlist", ["u-1003"])
        denied = await emulator.wait_reply_to(await emulator.say("ich?", person="u-1002"))
        assert "u-1002" in denied.text
        bad: list[tuple[Any, str]] = [
            ({"direct_policy": "disabled"}, "direct_policy"),
            ({"allowed": "u-1"}, "allowed"),
            ({"allowed": ["a b"]}, "allowed"),
            ({"denied": ["u-1001"]}, "denied"),
            ({"denied": ["u-1003"]}, "denied"),
            ({"owner": ["x"]}, "owner"),
        ]
        for body, field in bad:
            status, told = await service.call("PUT", "/api/policy", body)
            assert (status, told["error"]["field"]) == (400, field), body
        back = await service.call("PUT", "/api/policy", {"direct_policy": None, "allowed": []})
        assert (back[1]["direct_policy"], back[1]["allowed"], back[1]["owner"]) == ("open", [], ["u-1001"])


# --- usage, events, alerts -----------------------------------------------------------------------------------------


async def test_usage_is_counted(emulator: Emulator, claw: Claw) -> None:
    """Questions and tokens are counted by person, chat and day, over a restart, and come as a spreadsheet, too."""
    async with claw() as service:
        await emulator.wait_reply_to(await emulator.say("eins", person="u-1002"))
        await emulator.wait_reply_to(await emulator.say("zwei", person="u-1002"))
        await emulator.wait_reply_to(await emulator.say("/model", person="u-1002"))
        (row,) = (await service.call("GET", "/api/usage"))[1]["rows"]
        assert (row["person"], row["questions"]) == ("u-1002", 2)
        assert row["tokens_in"] > 0
        assert row["tokens_out"] > 0
        assert await service.terminate() == 0
    async with claw() as service:
        (row,) = (await service.call("GET", "/api/usage?days=1"))[1]["rows"]
        assert row["questions"] == 2
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}) as http,
            http.get(f"{service.url}/api/usage?format=csv") as response,
        ):
            assert response.content_type == "text/csv"
            lines = (await response.text(encoding="utf-8-sig")).splitlines()
        assert lines[0].startswith("day,person,chat,name,title,questions")
        assert len(lines) == 2
        assert (await service.call("GET", "/api/usage?days=0"))[1]["error"]["field"] == "days"


async def test_the_status_comes_as_events(emulator: Emulator, claw: Claw) -> None:
    """A page hears of each change within seconds, and of the end."""
    async with (
        claw() as service,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}) as http,
        http.get(f"{service.url}/api/events") as response,
    ):
        assert response.content_type == "text/event-stream"

        async def read() -> tuple[str, dict[str, Any]]:
            name = (await response.content.readline()).decode().removeprefix("event: ").strip()
            data = (await response.content.readline()).decode().removeprefix("data: ")
            await response.content.readline()
            return name, json.loads(data)

        async with asyncio.timeout(30):
            name, status = await read()
            assert (name, status["stream"]["state"], status["round_trips"]) == ("status", "OPEN", [])
            assert status["stream"]["history"][0]["state"] == "OPEN"
            await emulator.wait_reply_to(await emulator.say("hallo", chat="g-team"))
            while not status["round_trips"]:
                name, status = await read()
            (trip,) = status["round_trips"]
            assert (trip["outcome"], trip["chat"], len(trip["trace_id"])) == ("answered", "产品研发群", 32)
            assert trip["total_s"] == pytest.approx(trip["queue_s"] + trip["model_s"] + trip["reply_s"], abs=0.01)
            ending = asyncio.create_task(service.terminate())
            while name != "end":
                name, status = await read()
            assert await ending == 0


async def test_the_owner_hears_of_a_kill(emulator: Emulator, claw: Claw) -> None:
    """After a kill the next start tells the owner; after an ordinary end it does not."""
    async with claw(**OWNED) as service:
        await service.wait_log("claw serves")
        assert await service.terminate() == 0
    async with claw(**OWNED) as service:
        await emulator.wait_reply_to(await emulator.say("hallo"))
        assert not any("⚠️" in reply.text for reply in emulator.replies)
        await service.kill()
    async with claw(**OWNED):
        assert await said_by_robot(emulator, "没有正常退出") == ["direct:u-1001"]


async def test_the_owner_hears_of_a_model_that_refuses(emulator: Emulator, claw: Claw) -> None:
    """A refused key is told to the owner once, with the remedy; with CLAW_ALERTS=off nobody is told."""
    emulator.faults.update({**FAST, "model_status": 401})
    async with claw(**OWNED):
        await emulator.wait_reply_to(await emulator.say("eins", person="u-1002"))
        await emulator.wait_reply_to(await emulator.say("zwei", person="u-1003"))
        assert len(await said_by_robot(emulator, "模型服务拒绝")) == 1
        assert "OPENAI_API_KEY" in next(reply.text for reply in emulator.replies if "模型服务拒绝" in reply.text)


async def test_nobody_hears_where_alerts_are_off(emulator: Emulator, claw: Claw) -> None:
    """CLAW_ALERTS=off: the log tells it, and nobody in DingTalk."""
    emulator.faults.update({**FAST, "model_status": 401})
    async with claw(CLAW_ALERTS="off", **OWNED) as service:
        await emulator.wait_reply_to(await emulator.say("eins", person="u-1002"))
        await letters(service)
        assert not any("⚠️" in reply.text for reply in emulator.replies)


async def test_the_owner_hears_of_rejected_credentials(emulator: Emulator, claw: Claw) -> None:
    """Credentials that DingTalk rejected for a time are told of when it takes them again."""
    async with claw(**OWNED) as service:
        await emulator.wait_connections()
        emulator.faults.update({"gateway_status": 401})
        emulator.act("reset")
        await service.until_ready(ready=False)
        await asyncio.sleep(6)
        emulator.faults.update({"gateway_status": 0})
        await service.until_ready(70)
        assert await said_by_robot(emulator, "不接受应用凭证") == ["direct:u-1001"]


async def test_what_the_owner_changes_in_chat_is_audited(emulator: Emulator, claw: Claw) -> None:
    """Policies, lists and restarts by commands are entries of the audit, by the owner's id; what is refused is none."""
    async with claw(**OWNED) as service:
        for text in ("/policy group allowlist", "/policy nonsense", "/allow u-1002", "/deny u-1003", "/restart"):
            await emulator.wait_reply_to(await emulator.say(text))
        await emulator.wait_reply_to(await emulator.say("/deny u-1001", person="u-1002"))
        entries = (await service.call("GET", "/api/audit"))[1]["entries"]
        assert [(each["actor"], each["action"], each["detail"]) for each in reversed(entries)] == [
            ("u-1001", "policy", "group allowlist"),
            ("u-1001", "allow", "u-1002"),
            ("u-1001", "deny", "u-1003"),
            ("u-1001", "restart", "stream"),
        ]
