"""DingTalk's new API: the access token, sends of the robot, addresses of files.

Order of events of a call: a token that is cached, or fetched once for all who wait for it; the call; where the token
was refused, a fresh one and the call once more. `classify` says what an answer means, by code before status, since
403 stands for too many calls as well as for a missing permission (PROTOCOL sections 6.2, 6.3 and 6.6).

Robot sends have no idempotency key. One that was not answered may have been delivered, and is still worth another
try: a message must not be lost. Its error says `maybe_delivered`, so that the worker can bound how often it is seen.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple

import aiohttp
from yarl import URL

from claw.clock import Clock
from claw.config.settings import Credentials
from claw.dingtalk.client import (
    CALL_TIMEOUT,
    THROTTLE_WAIT,
    Api,
    CallCounter,
    DingTalkClient,
    ErrorRule,
    Json,
    encode,
    number,
    rule_of_status,
)
from claw.errors import DingTalkError
from claw.observe.redact import register
from claw.secret import Secret

TOKEN_EARLY: Final = 300.0
"""Seconds before its end at which a token is replaced (PROTOCOL section 6.2)."""
TOKEN_LIFE: Final = 7200.0
"""Seconds of a token where the answer tells none that makes sense (PROTOCOL section 6.2)."""
TOKEN_LIFE_MAX: Final = 30 * 24 * 3600
PARAM_MAX: Final = 15_000
"""Bytes of `msgParam` (KB 0716: of group sends; kept for direct ones too)."""
CREDENTIALS_WAIT: Final = 30.0
"""Seconds before credentials that were refused are tried again, as for the stream (DESIGN section 3)."""
QPM_WAIT: Final = 60.0
"""Seconds to wait after too many calls in a minute (PROTOCOL section 6.6)."""

_TOKEN_HEADER: Final = "x-acs-dingtalk-access-token"  # noqa: S105 - a header's name
_TOKEN_TEXT: Final = re.compile(r"[\x21-\x7e]{1,4096}")
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,119}")

_QPS: Final = ErrorRule("too many calls a second", retryable=True, retry_after=THROTTLE_WAIT)
_QPM: Final = ErrorRule("too many calls a minute", retryable=True, retry_after=QPM_WAIT)
_MONTH: Final = ErrorRule(
    "the organisation's API calls of this month are used up: buy an add-on pack, or wait for the next month"
)
_TOKEN: Final = ErrorRule("the access token was refused", retryable=True)
_SCOPE: Final = ErrorRule("the app lacks a permission: grant it in the developer console")
_ADDRESS: Final = ErrorRule("this machine's address is not on the app's list of IP addresses")
_CREDENTIALS: Final = ErrorRule(
    "Client ID or Client Secret is wrong: compare them with the developer console",
    retryable=True,  # A secret is rotated under a running claw: the answer waits for the new one, as the stream does.
    retry_after=CREDENTIALS_WAIT,
)
_BUSY: Final = ErrorRule("DingTalk is in trouble", retryable=True)

_BY_CODE: Final[tuple[tuple[str, ErrorRule], ...]] = (
    ("qpslimit", _QPS),
    ("qpmlimit", _QPM),
    ("apicountlimit", _MONTH),
    ("accesstokenpermissiondenied", _SCOPE),
    ("whitelist", _ADDRESS),
    ("invalidauthentication", _TOKEN),
    ("invalidparameter.token.invalid", _TOKEN),
    ("invalidclientidorsecret", _CREDENTIALS),
    ("send.too.fast", _QPS),
    ("send.bytoken.toofast", _QPS),
    (
        "unknown.send.result",
        ErrorRule("DingTalk does not know whether it was sent", retryable=True, maybe_delivered=True),
    ),
    ("send.forbidden", ErrorRule("the robot may not send here")),
    ("contain.notallowed", ErrorRule("DingTalk refused the content")),
    ("msgparam.toolong", ErrorRule("the message is too long")),
    ("robot.oto.notexist", ErrorRule("the robot does not exist, or may not write to people: publish the app")),
    ("staffid.notexisted", ErrorRule("the person does not exist in the organisation")),
    ("openconversationid", ErrorRule("the group does not exist, or the robot is not in it")),
    ("group.disbanded", ErrorRule("the group was dissolved")),
    ("bot.stopped", ErrorRule("the robot is switched off")),
    ("template.stopped", ErrorRule("the message template is switched off")),
    ("robotcode.downloadcode", ErrorRule("the download code is wrong or has expired")),
    ("invalidparameter.robotcode", ErrorRule("the robot code is wrong, or not this app's")),
    ("system.err", _BUSY),
)
"""Parts of the new API's `code` in lower case; the first that occurs decides (PROTOCOL sections 6.2 to 6.6)."""

_BY_ERRCODE: Final[Mapping[int, ErrorRule]] = {
    -1: _BUSY,
    90018: _QPS,
    90002: _QPS,
    90020: _MONTH,
    40014: _TOKEN,
    42001: _TOKEN,
    60020: _ADDRESS,
    60011: _SCOPE,
}
"""Numbers of the old API, some of which the new one passes on (PROTOCOL section 6.6)."""

_MARK: Final[Mapping[str, str]] = {
    Api.TOKEN: "accessToken",
    Api.DIRECT: "processQueryKey",
    Api.GROUP: "processQueryKey",
    Api.DOWNLOAD: "downloadUrl",
}
"""The field without which a 200 is no success."""


class TokenRefusedError(DingTalkError):
    """The access token has expired before its time, or was withdrawn: a fresh one may be taken."""


def classify(api: str, status: int, body: object) -> DingTalkError | None:
    """What an answer means; None: success. `body` is its JSON, or None where it has none that can be read.

    Nothing of the body is repeated in the error but its code and the names of missing permissions.
    """
    fields = body if isinstance(body, dict) else {}
    code = _word(fields.get("code"))
    errcode = number(fields.get("errcode"))
    if errcode == 88:  # A wrapper of the old API's gateway: the true number is inside.
        errcode = number(fields.get("sub_code")) or errcode
    if 200 <= status < 300:
        held_back = _lists(api, status, fields)
        if held_back is not None:
            return held_back
        mark = fields.get(_MARK.get(api, "processQueryKey"))
        if isinstance(mark, str) and mark and (api != Api.TOKEN or _TOKEN_TEXT.fullmatch(mark)):
            return None
    rule = _rule(api, status, code.lower(), errcode)
    reason = rule.reason
    if rule is _SCOPE and (scopes := _scopes(fields)):
        reason += f" ({', '.join(scopes)})"
    if code and code.lower() not in reason.lower():
        reason += f" [{code}]"
    kind = TokenRefusedError if rule is _TOKEN else DingTalkError
    return kind(
        api,
        reason,
        status=status,
        errcode=errcode,
        code=code,
        retryable=rule.retryable,
        retry_after=rule.retry_after,
        maybe_delivered=rule.maybe_delivered,
    )


def _lists(api: str, status: int, fields: Json) -> DingTalkError | None:
    """HTTP 200 does not say that the person gets it: two lists do (PROTOCOL section 6.3)."""
    if api != Api.DIRECT:
        return None
    if fields.get("flowControlledStaffIdList"):
        reason = "DingTalk holds back messages to this person for a moment"
        return DingTalkError(
            api, reason, status=status, code="flowControlled", retryable=True, retry_after=THROTTLE_WAIT
        )
    if fields.get("invalidStaffIdList"):
        return DingTalkError(api, "the robot cannot write to this person", status=status, code="invalidStaffId")
    return None


def _rule(api: str, status: int, code: str, errcode: int | None) -> ErrorRule:
    for part, rule in _BY_CODE:
        if part in code:
            return rule
    if errcode is not None and errcode in _BY_ERRCODE:
        return _BY_ERRCODE[errcode]
    return _TOKEN if status == 401 and api != Api.TOKEN else rule_of_status(status)


def _word(value: object) -> str:
    """A code that is one; anything else may be somebody's text and is left out."""
    return value if isinstance(value, str) and _WORD.fullmatch(value) else ""


def _scopes(fields: Json) -> list[str]:
    """The permissions that `AccessDeniedDetail.requiredScopes` names, in whatever case it is written."""
    detail = _field(fields, "accessdenieddetail")
    scopes = _field(detail, "requiredscopes") if isinstance(detail, dict) else None
    if isinstance(scopes, str):
        scopes = [scopes]
    return [word for each in (scopes if isinstance(scopes, list) else [])[:10] if (word := _word(each))]


def _field(fields: Json, name: str) -> object:
    return next((value for key, value in fields.items() if key.lower() == name), None)


# --- token ---------------------------------------------------------------------------------------------------------


class _Flight(NamedTuple):
    """A token on its way, and who waits for it."""

    task: asyncio.Task[str]
    waiting: set[object]


class TokenCache:
    """The app's access token: fetched when it is asked for, once for all who ask at the same time.

    The fetch belongs to all its waiters together: it outlives the one that began it, and ends with the last.
    """

    def __init__(
        self, caller: DingTalkClient, endpoint: str, credentials: Callable[[], Credentials], clock: Clock
    ) -> None:
        self._caller = caller
        self._url = URL(f"{endpoint}/v1.0/oauth2/accessToken")
        self._credentials = credentials
        self._clock = clock
        self._token = Secret("")
        self._good_until = 0.0
        self._flight: _Flight | None = None

    async def get(self) -> str:
        """A token that is good for some minutes. Raises DingTalkError."""
        if self._token and self._clock.monotonic() < self._good_until:
            return self._token.reveal()
        if self._flight is None or self._flight.task.done():
            self._flight = _Flight(asyncio.create_task(self._fetch(), name="dingtalk-token"), set())
        flight = self._flight
        me = object()
        flight.waiting.add(me)
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting.discard(me)
            if not flight.waiting:
                flight.task.cancel()
                self._flight = None if self._flight is flight else self._flight

    def forget(self, token: str) -> None:
        """Do not give out `token` any more; another one that came meanwhile stays."""
        if self._token == Secret(token):
            self._token = Secret("")

    async def _fetch(self) -> str:
        credentials = self._credentials()
        secret = credentials.client_secret.reveal()
        payload = {"appKey": credentials.client_id, "appSecret": secret}
        judge = partial(classify, Api.TOKEN)
        body = await self._caller.post(Api.TOKEN, self._url, payload, judge, hidden=secret)
        token: str = body["accessToken"]
        told = number(body.get("expireIn")) or 0
        life = told if 0 < told <= TOKEN_LIFE_MAX else TOKEN_LIFE
        self._good_until = self._clock.monotonic() + max(life - TOKEN_EARLY, life / 2)
        self._token = Secret(token)
        register(self._token)
        return token


# --- calls ---------------------------------------------------------------------------------------------------------


class OpenApiClient:
    """The calls of the new API that answers need. `endpoint` is DINGTALK_OPENAPI_ENDPOINT."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        endpoint: str,
        credentials: Callable[[], Credentials],
        clock: Clock,
        calls: CallCounter,
        *,
        timeout: float = CALL_TIMEOUT,
    ) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._caller = DingTalkClient(http, calls, timeout=timeout)
        self.tokens = TokenCache(self._caller, self._endpoint, credentials, clock)

    async def send_direct(self, robot_code: str, staff_id: str, title: str, text: str) -> None:
        """Send markdown to one person. Raises DingTalkError."""
        payload = {"robotCode": robot_code, "userIds": [staff_id], **_markdown(Api.DIRECT, title, text)}
        await self._call(Api.DIRECT, "/v1.0/robot/oToMessages/batchSend", payload, traced=True)

    async def send_group(self, robot_code: str, conversation_id: str, title: str, text: str) -> None:
        """Send markdown to a group, where nobody can be mentioned. Raises DingTalkError as `send_direct` does."""
        payload = {
            "robotCode": robot_code,
            "openConversationId": conversation_id,
            **_markdown(Api.GROUP, title, text),
        }
        await self._call(Api.GROUP, "/v1.0/robot/groupMessages/send", payload, traced=True)

    async def download_url(self, robot_code: str, code: Secret) -> Secret:
        """Where the file of a download code can be fetched for a short time, by anybody. Raises DingTalkError."""
        payload = {"downloadCode": code.reveal(), "robotCode": robot_code}
        body = await self._call(Api.DOWNLOAD, "/v1.0/robot/messageFiles/download", payload)
        return Secret(body["downloadUrl"])

    async def _call(self, api: Api, path: str, payload: Mapping[str, object], *, traced: bool = False) -> Json:
        url = URL(f"{self._endpoint}{path}")

        async def post(token: str) -> Json:
            judge = partial(classify, api)
            return await self._caller.post(
                api, url, payload, judge, headers={_TOKEN_HEADER: token}, hidden=token, traced=traced
            )

        token = await self.tokens.get()
        try:
            return await post(token)
        except TokenRefusedError:
            self.tokens.forget(token)
        return await post(await self.tokens.get())


def _markdown(api: Api, title: str, text: str) -> dict[str, str]:
    param = encode({"title": title, "text": text})
    if len(param) > PARAM_MAX:
        raise DingTalkError(api, "the message is too long", code="msgParam.tooLong")
    return {"msgKey": "sampleMarkdown", "msgParam": param.decode()}
