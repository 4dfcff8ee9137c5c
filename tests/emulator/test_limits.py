"""Permissions, quotas of the month and calls a second, by docs/protocol.md section 6.6, 7.1 and 10a."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from claw.dingtalk import codes
from claw.dingtalk.quota import Api
from claw.emulator import CAP_ERRCODE, QUOTA_ERRCODE, Emulator
from claw.emulator.bounds import RatePeaks
from claw.errors import DingTalkReason

from .calls import CREATE, REACTION, SEND, STREAMING, UPDATE, card, reaction, single, stream, update
from .client import FakeRobot

DENIED = "Forbidden.AccessDenied.AccessTokenPermissionDenied"


@pytest.mark.parametrize(
    ("switch", "scope", "refused"),
    [
        ("no_card_instance_write", "Card.Instance.Write", {"create", "update"}),
        ("no_card_streaming_write", "Card.Streaming.Write", {"stream"}),
        # A robot that delivers a card sends it.
        ("no_robot_sendmsg", "qyapi_robot_sendmsg", {"send", "create"}),
        ("no_emotion", "qyapi_robot_sendmsg", {"react"}),
    ],
)
async def test_permission_is_missing(
    emu: Emulator, robot: FakeRobot, switch: str, scope: str, refused: set[str]
) -> None:
    """Without a permission just its calls get 403, which names it, and nothing of the month is used up."""
    await robot.api("POST", CREATE, card())
    await emu.say("hello")
    said = reaction(await robot.message())
    before = emu.month.openapi
    emu.faults.update({switch: True})
    calls = {
        "create": ("POST", CREATE, card(outTrackId="trk-0002")),
        "update": ("PUT", UPDATE, update("x")),
        "stream": ("PUT", STREAMING, stream("x")),
        "send": ("POST", SEND, single()),
        "react": ("POST", REACTION, said),
    }
    answers = {name: await robot.api(*call) for name, call in calls.items()}
    assert {name for name, (status, _) in answers.items() if status == 403} == refused
    for name in refused:
        assert answers[name][1]["code"] == DENIED
        assert answers[name][1]["accessdenieddetail"] == {"requiredScopes": [scope]}
    assert emu.month.openapi == before + len(calls) - len(refused)


async def test_the_month_can_be_set(emu: Emulator, robot: FakeRobot) -> None:
    """The counts are read and set, so that a test is at once at a month's end, and at the next one's beginning."""
    emu.faults.openapi_month_limit = 5000
    await robot.control("POST", "month", {"openapi": 4999})
    assert [(await robot.api("POST", SEND, single()))[0] for _ in range(2)] == [200, 403]
    _, month = await robot.control("GET", "month")
    assert (month["openapi"], month["openapi_month_limit"]) == (5000, 5000)
    await robot.control("POST", "month", {"openapi": 0})
    assert (await robot.api("POST", SEND, single()))[0] == 200
    for wrong in ({"openapi": -1}, {"webhook": True}, {"calls": 1}):
        assert (await robot.control("POST", "month", {"pushed": 7} | wrong))[0] == 400
    assert emu.month.pushed == 0


async def test_webhooks_and_pushes_share_a_quota(emu: Emulator, robot: FakeRobot) -> None:
    """When it is used up messages arrive empty with 20001, and webhook calls are refused as the quota's."""
    await emu.say("first")
    first = await robot.message()
    emu.faults.stream_month_limit = 3000
    emu.month.set({"webhook": 1499, "pushed": 1500})
    assert (await robot.reply(first, "the last one"))["errcode"] == 0
    await emu.say("second")
    second = await robot.message()
    assert (second["errCode"], "text" in second) == ("20001", False)
    answer = await robot.reply(first, "no more")
    assert answer == {"errcode": QUOTA_ERRCODE, "errmsg": "api count limit"}
    assert emu.webhook.calls == {"ok": 1, str(QUOTA_ERRCODE): 1}
    error = codes.classify(Api.WEBHOOK, 200, answer)
    assert error is not None
    assert error.reason is DingTalkReason.QUOTA_EXHAUSTED


async def test_webhooks_are_capped(emu: Emulator, robot: FakeRobot) -> None:
    """Over the administrator's cap webhooks alone are refused: messages arrive whole, the OpenAPI sends."""
    emu.faults.webhook_month_cap = 1
    for text in ("first", "second"):
        await emu.say(text)
    first, second = await robot.message(), await robot.message()
    assert "errCode" not in second
    answers = [await robot.reply(first, "one"), await robot.reply(second, "two")]
    assert answers == [{"errcode": 0, "errmsg": "ok"}, {"errcode": CAP_ERRCODE, "errmsg": "webhook over limit"}]
    assert (await robot.api("POST", SEND, single()))[0] == 200
    assert [reply.text for reply in emu.replies] == ["one", "**done**"]
    emu.reset()
    assert emu.month.webhook == 0


async def test_the_most_calls_of_a_second(emu: Emulator, robot: FakeRobot) -> None:
    """The most calls of an API within any second are told for each API, refused ones included."""
    token = await robot.token()
    emu.faults.openapi_qps = 5

    async def call(method: str, path: str, body: dict[str, Any]) -> int:
        return (await robot.api(method, path, body, token=token))[0]

    await call("POST", CREATE, card())
    statuses = await asyncio.gather(*(call("POST", SEND, single()) for _ in range(8)))
    assert sorted(statuses) == [200] * 5 + [403] * 3
    _, state = await robot.control("GET", "state")
    assert state["openapi"]["peaks"] == {f"POST {CREATE}": 1, f"POST {SEND}": 8}


def test_peaks_forget_what_is_older_than_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """The window slides: calls just over a second apart do not add up."""
    now = [0.0]
    monkeypatch.setattr("claw.emulator.bounds.time.monotonic", lambda: now[0])
    peaks = RatePeaks(1.0, keep=10)
    for at in (0.0, 0.4, 0.9, 1.0, 1.39, 2.5):
        now[0] = at
        peaks.count("api")
    assert peaks.peaks == {"api": 4}
