"""The OpenAPI's front: what every call of api.dingtalk.com passes before it is handled.

Order of events: fault switches, the token, the month's quota, 20 calls a second and API, the JSON body; then the call
itself in `robot`, `cards` or `files`. Every call is counted under its API and outcome (docs/protocol.md section 6.6).
"""

from __future__ import annotations

import collections
import time
from typing import TYPE_CHECKING, Any, Final

from claw.emulator.responses import Hangs, read_json, reply_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    from claw.emulator.cards import FakeCardApi
    from claw.emulator.faults import Faults
    from claw.emulator.files import Files
    from claw.emulator.robot import FakeRobotApi
    from claw.emulator.tokens import Tokens

    Call = Callable[[dict[str, Any]], Awaitable[web.Response]]
    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

CALLS_PER_SECOND_MAX: Final = 20
"""Calls a second, app and API (docs/protocol.md section 6.6)."""
TOKEN_HEADER: Final = "x-acs-dingtalk-access-token"  # noqa: S105 - the name of a header


class FakeOpenApi:
    def __init__(
        self,
        *,
        tokens: Tokens,
        robot: FakeRobotApi,
        cards: FakeCardApi,
        files: Files,
        faults: Faults,
        hangs: Hangs,
        base_url: Callable[[], str],
        rate_limits: bool,
    ) -> None:
        self.calls: collections.Counter[str] = collections.Counter()
        """By `<method> <path>`."""
        self.outcomes: collections.Counter[str] = collections.Counter()
        """By `<method> <path> <status>`."""
        self.month = 0
        self._tokens = tokens
        self._robot = robot
        self._cards = cards
        self._files = files
        self._faults = faults
        self._hangs = hangs
        self._base_url = base_url
        self._rate_limits = rate_limits
        self._recent: dict[str, collections.deque[float]] = {}

    def routes(self) -> list[tuple[str, str, Handler]]:
        robot, cards = self._robot, self._cards

        async def react(body: dict[str, Any]) -> web.Response:
            return await robot.set_emotion(body, on=True)

        async def take_back(body: dict[str, Any]) -> web.Response:
            return await robot.set_emotion(body, on=False)

        async def download(body: dict[str, Any]) -> web.Response:
            return await self._files.download(body, self._base_url())

        table: list[tuple[str, str, Call]] = [
            ("POST", "/v1.0/robot/oToMessages/batchSend", robot.batch_send),
            ("POST", "/v1.0/robot/groupMessages/send", robot.group_send),
            ("POST", "/v1.0/robot/otoMessages/batchRecall", robot.recall_messages),
            ("POST", "/v1.0/robot/groupMessages/recall", robot.recall_messages),
            ("POST", "/v1.0/robot/messageFiles/download", download),
            ("POST", "/v1.0/robot/groups/robots/query", robot.list_robots),
            ("POST", "/v1.0/robot/emotion/reply", react),
            ("POST", "/v1.0/robot/emotion/recall", take_back),
            ("POST", "/v1.0/card/instances", cards.create),
            ("POST", "/v1.0/card/instances/deliver", cards.deliver),
            ("POST", "/v1.0/card/instances/createAndDeliver", cards.create_and_deliver),
            ("PUT", "/v1.0/card/instances", cards.update),
            ("PUT", "/v1.0/card/streaming", cards.stream_update),
        ]
        return [(method, path, self._guard(f"{method} {path}", call)) for method, path, call in table]

    def _guard(self, api: str, call: Call) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            self.calls[api] += 1
            answer = await self._handle(api, call, request)
            self.outcomes[f"{api} {answer.status}"] += 1
            return answer

        return handle

    async def _handle(self, api: str, call: Call, request: web.Request) -> web.StreamResponse:
        take = self._faults.take
        body = await read_json(request)
        if take("openapi_hang"):
            return await self._hangs.hang(request)
        if "/card/" in api:
            return await self._handle_card(api, call, request, body)
        await self._hangs.sleep(take("openapi_delay"))
        return self._refuse(api, request, body) or await call(body or {})

    async def _handle_card(
        self, api: str, call: Call, request: web.Request, body: dict[str, Any] | None
    ) -> web.StreamResponse:
        card = self._cards.cards.get(str((body or {}).get("outTrackId")))
        if card is not None:
            card.in_flight += 1
            card.in_flight_max = max(card.in_flight_max, card.in_flight)
        try:
            await self._hangs.sleep(self._faults.take("openapi_delay") + self._faults.take("card_delay"))
            refused = self._refuse(api, request, body)
            if refused is None and api.endswith("/streaming"):
                status = self._faults.take("card_streaming_status")
                if status:
                    refused = reply_error(status, self._faults.openapi_code)
            return refused or await call(body or {})
        finally:
            if card is not None:
                card.in_flight -= 1

    def _refuse(self, api: str, request: web.Request, body: dict[str, Any] | None) -> web.Response | None:
        faults = self._faults
        status = faults.take("openapi_status")
        if status:
            return reply_error(status, faults.openapi_code)
        if not self._tokens.is_valid(request.headers.get(TOKEN_HEADER, "")):
            return reply_error(401)
        if faults.openapi_month_limit and self.month >= faults.openapi_month_limit:
            return reply_error(403, "Forbidden.AccessDenied.ApiCountLimitForOrg", "api count limit")
        if self._rate_limits and self._too_fast(api):
            return reply_error(403)
        self.month += 1
        if body is None:
            return reply_error(400, "invalidParameter", "the body is not a JSON object")
        return None

    def _too_fast(self, api: str) -> bool:
        now = time.monotonic()
        recent = self._recent.setdefault(api, collections.deque(maxlen=CALLS_PER_SECOND_MAX))
        if len(recent) == CALLS_PER_SECOND_MAX and recent[0] > now - 1.0:
            return True
        recent.append(now)
        return False

    def forget(self) -> None:
        self.calls.clear()
        self.outcomes.clear()
        self._recent.clear()
        self.month = 0
