"""The OpenAPI's front: what every call of api.dingtalk.com passes before it is handled.

Order of events: fault switches, the token, permissions, the month's quota, 20 calls a second and API, the JSON body;
then the call itself in `robot`, `cards` or `files`. Every call is counted under its API and outcome (docs/protocol.md
section 6.6).
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from claw.emulator.bounds import RatePeaks, RateWindow
from claw.emulator.cards import FakeCardApi
from claw.emulator.faults import DEFAULTS, Faults
from claw.emulator.files import Files
from claw.emulator.month import FakeMonth
from claw.emulator.responses import NO_OBJECT, Hangs, RefusedError, as_text, read_json, reply_json
from claw.emulator.robot import FakeRobotApi
from claw.emulator.tokens import Tokens

Call = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


RATE_WINDOW_S: Final = 1.0
APIS_MAX: Final = 100
"""Far more than there are routes."""
PERMISSIONS: Final = {
    "no_robot_sendmsg": "qyapi_robot_sendmsg",
    "no_card_instance_write": "Card.Instance.Write",
    "no_card_streaming_write": "Card.Streaming.Write",
    # Which one the emotion calls want stands nowhere (docs/protocol.md section 6.5).
    "no_emotion": "qyapi_robot_sendmsg",
}
"""The switch, and the permission that is missing then."""
NEEDS: Final[dict[str, tuple[str, ...]]] = {
    "/robot/oToMessages/batchSend": ("no_robot_sendmsg",),
    "/robot/groupMessages/send": ("no_robot_sendmsg",),
    "/robot/otoMessages/batchRecall": ("no_robot_sendmsg",),
    "/robot/groupMessages/recall": ("no_robot_sendmsg",),
    "/robot/emotion/reply": ("no_emotion",),
    "/robot/emotion/recall": ("no_emotion",),
    "/card/instances": ("no_card_instance_write",),
    # A robot that delivers a card sends it (docs/protocol.md section 7.1).
    "/card/instances/deliver": ("no_card_instance_write", "no_robot_sendmsg"),
    "/card/instances/createAndDeliver": ("no_card_instance_write", "no_robot_sendmsg"),
    "/card/streaming": ("no_card_streaming_write",),
}
"""By path, the switches of the permissions that a call needs (docs/protocol.md section 6.3 and 7.1)."""
TOKEN_HEADER: Final = "x-acs-dingtalk-access-token"  # noqa: S105 - the name of a header


class FakeOpenApi:
    def __init__(
        self,
        *,
        tokens: Tokens,
        robot: FakeRobotApi,
        cards: FakeCardApi,
        files: Files,
        month: FakeMonth,
        faults: Faults,
        hangs: Hangs,
        rate_limits: bool,
    ) -> None:
        self.calls: collections.Counter[str] = collections.Counter()
        """By `<method> <path>`."""
        self.outcomes: collections.Counter[str] = collections.Counter()
        """By `<method> <path> <status>`."""
        self.peaks = RatePeaks(RATE_WINDOW_S, keep=APIS_MAX)
        """The most calls of an API within any second, by `<method> <path>`."""
        self._month = month
        self._tokens = tokens
        self._robot = robot
        self._cards = cards
        self._files = files
        self._faults = faults
        self._hangs = hangs
        self._rate_limits = rate_limits
        self._rate = RateWindow(RATE_WINDOW_S, keep=APIS_MAX)

    def list_routes(self) -> list[tuple[str, str, Handler]]:
        robot, cards = self._robot, self._cards
        table: list[tuple[str, str, Call]] = [
            # Sends are spelled oTo, recalls oto: that is how the real paths are.
            ("POST", "/v1.0/robot/oToMessages/batchSend", robot.batch_send),
            ("POST", "/v1.0/robot/groupMessages/send", robot.group_send),
            ("POST", "/v1.0/robot/otoMessages/batchRecall", robot.recall_messages),
            ("POST", "/v1.0/robot/groupMessages/recall", robot.recall_messages),
            ("POST", "/v1.0/robot/messageFiles/download", self._files.download),
            ("POST", "/v1.0/robot/groups/robots/query", robot.list_robots),
            ("POST", "/v1.0/robot/emotion/reply", functools.partial(robot.set_emotion, on=True)),
            ("POST", "/v1.0/robot/emotion/recall", functools.partial(robot.set_emotion, on=False)),
            ("POST", "/v1.0/card/instances", cards.create),
            ("POST", "/v1.0/card/instances/deliver", cards.deliver),
            ("POST", "/v1.0/card/instances/createAndDeliver", cards.create_and_deliver),
            ("PUT", "/v1.0/card/instances", cards.update),
            ("PUT", "/v1.0/card/streaming", cards.stream_update),
        ]
        return [
            (method, path, functools.partial(self._handle, f"{method} {path}", call)) for method, path, call in table
        ]

    async def _handle(self, api: str, call: Call, request: web.Request) -> web.StreamResponse:
        self.calls[api] += 1
        self.peaks.count(api)
        # Read before the faults: a request that is never answered has been received all the same.
        body = await read_json(request)
        if self._faults.take("openapi_hang"):
            return await self._hangs.hang(request)
        try:
            respond = self._respond_card if "/card/" in api else self._respond
            response = reply_json(await respond(api, call, request, body))
        except RefusedError as error:
            response = error.reply()
        self.outcomes[f"{api} {response.status}"] += 1
        return response

    async def _respond(self, api: str, call: Call, request: web.Request, body: dict[str, Any] | None) -> dict[str, Any]:
        await self._hangs.sleep(self._faults.take("openapi_delay"))
        return await call(self._check(api, request, body))

    async def _respond_card(
        self, api: str, call: Call, request: web.Request, body: dict[str, Any] | None
    ) -> dict[str, Any]:
        # Counted from the arrival, delays included: whether a client sends its next update before this one is answered
        # shows only while an answer takes its time.
        card = self._cards.cards.get(as_text((body or {}).get("outTrackId")))
        if card is not None:
            card.in_flight += 1
            card.in_flight_max = max(card.in_flight_max, card.in_flight)
        try:
            is_step = api.endswith("/streaming")
            delay = self._faults.take("openapi_delay") + self._faults.take("card_delay")
            await self._hangs.sleep(delay + (self._cards.take_streaming_delay() if is_step else 0))
            fields = self._check(api, request, body)
            if is_step:
                # Creating still works, so that a client has a card which it cannot finish.
                self._fail("card_streaming_status")
            return await call(fields)
        finally:
            if card is not None:
                card.in_flight -= 1

    def _fail(self, fault: str) -> None:
        status = self._faults.take(fault)
        if status:
            raise RefusedError(status, self._faults.openapi_code)

    def _check(self, api: str, request: web.Request, body: dict[str, Any] | None) -> dict[str, Any]:
        self._fail("openapi_status")
        if not self._tokens.is_valid(request.headers.get(TOKEN_HEADER, "")):
            raise RefusedError(401)
        # What is not permitted is no use of the app, and costs it nothing.
        self._check_permissions(api)
        # Before the rate, so that what is over the quota uses up nothing of the rate.
        if self._month.is_openapi_used_up:
            raise RefusedError(403, "Forbidden.AccessDenied.ApiCountLimitForOrg", "api count limit")
        # Whoever sets another limit than DingTalk's means it, also where no other rates are kept.
        limit = self._faults.openapi_qps
        if (self._rate_limits or limit != DEFAULTS["openapi_qps"]) and not self._rate.admit(api, limit):
            # 403 as well, and no missing permission: a client has to look at the code.
            raise RefusedError(403)
        # What was refused up to here costs nothing; a wrong body does (docs/protocol.md section 6.6).
        self._month.openapi += 1
        if body is None:
            raise RefusedError(400, "invalidParameter", NO_OBJECT)
        return body

    def _check_permissions(self, api: str) -> None:
        needs = NEEDS.get(api.partition("/v1.0")[2], ())
        # All at once, as the console's link for them is: a client that tells one of them would be asked again.
        missing = [PERMISSIONS[switch] for switch in needs if self._faults.take(switch)]
        if missing:
            code = "Forbidden.AccessDenied.AccessTokenPermissionDenied"
            message = f"应用尚未开通所需的权限：[{', '.join(missing)}]"
            raise RefusedError(403, code, message, detail={"accessdenieddetail": {"requiredScopes": missing}})

    def forget(self) -> None:
        self.calls.clear()
        self.outcomes.clear()
        self.peaks.forget()
        self._rate.forget()

    def to_dict(self) -> dict[str, Any]:
        return {"calls": dict(self.calls), "outcomes": dict(self.outcomes), "peaks": dict(self.peaks.peaks)}
