"""The table of codes: what every answer of DingTalk means."""

from __future__ import annotations

import pytest

from claw.dingtalk.codes import UNKNOWN_TRIES_MAX, classify, find_rule, find_rule_of_code
from claw.dingtalk.quota import SENDS, Api
from claw.errors import DingTalkReason as Reason

DENIED = "Forbidden.AccessDenied."


@pytest.mark.parametrize(
    ("api", "status", "body", "reason", "retryable", "retry_after"),
    [
        ("webhook", 200, {"errcode": -1, "errmsg": "busy"}, Reason.SERVER_BUSY, True, None),
        ("webhook", 200, {"errcode": "-1"}, Reason.SERVER_BUSY, True, None),
        ("webhook", 200, {"errcode": 130101}, Reason.QPM, True, 60.0),
        ("webhook", 200, {"errcode": 410100}, Reason.QPM, True, 60.0),
        ("webhook", 200, {"errcode": 90018}, Reason.QPS, True, 2.0),
        ("webhook", 200, {"errcode": 88, "sub_code": 90018}, Reason.QPS, True, 2.0),
        ("webhook", 200, {"errcode": 88, "sub_code": "90018"}, Reason.QPS, True, 2.0),
        ("webhook", 200, {"errcode": 90020}, Reason.QUOTA_EXHAUSTED, False, None),
        ("webhook", 200, {"errcode": 310000}, Reason.SEND_FORBIDDEN, False, None),
        ("webhook", 200, {"errcode": 400013}, Reason.GROUP_GONE, False, None),
        ("webhook", 200, {"errcode": 400101}, Reason.WEBHOOK_EXPIRED, False, None),
        ("webhook", 200, {"errcode": 400102}, Reason.ROBOT_STOPPED, False, None),
        ("webhook", 200, {"errcode": 400105}, Reason.BAD_REQUEST, False, None),
        ("webhook", 200, {"errcode": 400106}, Reason.ROBOT_INVALID, False, None),
        ("webhook", 200, {"errcode": 40035}, Reason.BAD_REQUEST, False, None),
        ("webhook", 200, {"errcode": 43004}, Reason.BAD_REQUEST, False, None),
        ("webhook", 200, {"errcode": 430101}, Reason.CONTENT_REFUSED, False, None),
        ("webhook", 200, {"errcode": 430102}, Reason.CONTENT_REFUSED, False, None),
        ("webhook", 200, {"errcode": 430103}, Reason.CONTENT_REFUSED, False, None),
        ("webhook", 200, {"errcode": 430104}, Reason.CONTENT_REFUSED, False, None),
        ("webhook", 200, {"errcode": 460101}, Reason.TOO_LONG, False, None),
        ("webhook", 200, {"errcode": 777777}, Reason.UNKNOWN, True, None),
        ("webhook", 200, {"errcode": True}, Reason.NOT_DINGTALK, True, None),
        ("webhook", 200, {"errcode": None}, Reason.NOT_DINGTALK, True, None),
        ("webhook", 200, {"errcode": [0]}, Reason.NOT_DINGTALK, True, None),
        ("webhook", 200, {}, Reason.NOT_DINGTALK, True, None),
        ("webhook", 200, None, Reason.NOT_DINGTALK, True, None),
        ("webhook", 200, [], Reason.NOT_DINGTALK, True, None),
        ("webhook", 302, None, Reason.NOT_DINGTALK, True, None),
        ("webhook", 400, None, Reason.NOT_DINGTALK, True, None),
        ("webhook", 404, {"errcode": 0}, Reason.NOT_DINGTALK, True, None),
        ("webhook", 408, None, Reason.SERVER_BUSY, True, None),
        ("webhook", 429, None, Reason.QPS, True, 2.0),
        ("webhook", 500, {"errcode": 0}, Reason.SERVER_BUSY, True, None),
        ("webhook", 502, None, Reason.SERVER_BUSY, True, None),
        ("webhook", 503, {"errcode": 130101}, Reason.QPM, True, 60.0),
        ("group", 403, {"code": DENIED + "QpsLimitForAppkeyAndApi"}, Reason.QPS, True, 2.0),
        ("group", 403, {"code": DENIED + "QpsLimitForApi"}, Reason.QPS, True, 2.0),
        ("group", 403, {"code": DENIED + "QpsLimitForSuitekeyAndOrgAndApi"}, Reason.QPS, True, 2.0),
        ("group", 403, {"code": DENIED + "QpmLimitForAppkeyAndApi"}, Reason.QPM, True, 60.0),
        ("group", 403, {"code": DENIED + "ApiCountLimitForOrg"}, Reason.QUOTA_EXHAUSTED, False, None),
        ("group", 403, {"code": DENIED + "AccessTokenPermissionDenied"}, Reason.NO_PERMISSION, False, None),
        ("group", 403, {"code": DENIED + "IpNotInWhiteList"}, Reason.IP_NOT_ALLOWED, False, None),
        ("group", 403, None, Reason.NOT_DINGTALK, True, None),
        ("group", 400, {"code": "send.too.fast"}, Reason.QPS, True, 2.0),
        ("group", 400, {"code": "send.byToken.tooFast"}, Reason.QPS, True, 2.0),
        ("group", 400, {"code": "send.forbidden"}, Reason.SEND_FORBIDDEN, False, None),
        ("group", 400, {"code": "unknown.send.result"}, Reason.SEND_UNKNOWN, True, None),
        ("group", 400, {"code": "contain.notAllowed.content"}, Reason.CONTENT_REFUSED, False, None),
        ("group", 400, {"code": "invalidParameter.msgParam.tooLong"}, Reason.TOO_LONG, False, None),
        ("group", 400, {"code": "invalidParameter.msgParam.invalid"}, Reason.BAD_REQUEST, False, None),
        ("group", 400, {"code": "invalidParameter.robotCode.empty"}, Reason.ROBOT_INVALID, False, None),
        ("group", 400, {"code": "miss.openConversationId"}, Reason.GROUP_GONE, False, None),
        ("group", 400, {"code": "invalid.openConversationId"}, Reason.GROUP_GONE, False, None),
        ("group", 400, {"code": "group.disbanded"}, Reason.GROUP_GONE, False, None),
        ("group", 400, {"code": "bot.stopped"}, Reason.ROBOT_STOPPED, False, None),
        ("group", 400, {"code": "template.stopped"}, Reason.BAD_REQUEST, False, None),
        ("group", 500, {"code": "system.error"}, Reason.SERVER_BUSY, True, None),
        ("group", 400, {"code": "system.err"}, Reason.SERVER_BUSY, True, None),
        ("direct", 400, {"code": "robot.oto.notExist"}, Reason.ROBOT_INVALID, False, None),
        ("direct", 400, {"code": "staffId.notExisted"}, Reason.USER_INVALID, False, None),
        ("direct", 400, {"code": "invalidParameter.userIds.empty"}, Reason.BAD_REQUEST, False, None),
        ("direct", 200, {"processQueryKey": "p", "invalidStaffIdList": ["u-1"]}, Reason.USER_INVALID, False, None),
        (
            "direct",
            200,
            {"processQueryKey": "p", "flowControlledStaffIdList": ["u-1"]},
            Reason.FLOW_CONTROLLED,
            True,
            2.0,
        ),
        (
            "direct",
            200,
            {"invalidStaffIdList": ["u-1"], "flowControlledStaffIdList": ["u-1"]},
            Reason.FLOW_CONTROLLED,
            True,
            2.0,
        ),
        ("download", 400, {"code": "invalidParameter.robotCode.downloadCode"}, Reason.DOWNLOAD_CODE, False, None),
        ("download", 200, {"downloadUrl": 7}, Reason.NOT_DINGTALK, True, None),
        ("token", 400, {"code": "invalidClientIdOrSecret"}, Reason.CREDENTIALS, True, 30.0),
        ("token", 401, None, Reason.CREDENTIALS, True, 30.0),
        ("token", 200, {"accessToken": ""}, Reason.NOT_DINGTALK, True, None),
        ("token", 200, {"accessToken": "two\r\nlines"}, Reason.NOT_DINGTALK, True, None),
        ("token", 200, {"accessToken": ["x"]}, Reason.NOT_DINGTALK, True, None),
        ("group", 200, {"errcode": 90018}, Reason.QPS, True, 2.0),
        ("group", 200, {"errcode": 88, "sub_code": "90018"}, Reason.QPS, True, 2.0),
        ("group", 200, {"errcode": 90002}, Reason.QPS, True, 2.0),
        ("group", 200, {"errcode": 90020}, Reason.QUOTA_EXHAUSTED, False, None),
        ("group", 200, {"errcode": 60020}, Reason.IP_NOT_ALLOWED, False, None),
        ("group", 200, {"errcode": 60011}, Reason.NO_PERMISSION, False, None),
        ("group", 200, {"errcode": -1}, Reason.SERVER_BUSY, True, None),
        ("group", 200, {}, Reason.NOT_DINGTALK, True, None),
        ("group", 200, None, Reason.NOT_DINGTALK, True, None),
        ("group", 200, [], Reason.NOT_DINGTALK, True, None),
        ("group", 200, {"code": ["x"], "errcode": {}}, Reason.NOT_DINGTALK, True, None),
        ("group", 302, None, Reason.NOT_DINGTALK, True, None),
        ("group", 404, None, Reason.NOT_DINGTALK, True, None),
        ("group", 408, None, Reason.SERVER_BUSY, True, None),
        ("group", 429, None, Reason.QPS, True, 2.0),
        ("group", 500, None, Reason.SERVER_BUSY, True, None),
        ("group", 504, None, Reason.SERVER_BUSY, True, None),
        ("token", 401, {"code": "unauthorized.client"}, Reason.CREDENTIALS, True, 30.0),
        ("token", 400, {"code": "invalid.client"}, Reason.CREDENTIALS, True, 30.0),
        ("token", 503, {"code": "auth.unavailable"}, Reason.SERVER_BUSY, True, None),
        ("token", 429, {"code": "client.limit"}, Reason.QPS, True, 2.0),
        ("token", 400, {"code": "unsupported.grant.type"}, Reason.UNKNOWN, True, None),
        ("token", 200, {"errcode": 40089}, Reason.CREDENTIALS, True, 30.0),
        ("token", 403, {"code": DENIED + "QpsLimitForAppkeyAndApi"}, Reason.QPS, True, 2.0),
        ("group", 401, {"code": "InvalidAuthentication"}, Reason.TOKEN_INVALID, True, None),
        ("group", 401, None, Reason.TOKEN_INVALID, True, None),
        ("group", 400, {"code": "invalidParameter.token.invalid"}, Reason.TOKEN_INVALID, True, None),
        ("group", 200, {"errcode": 40014}, Reason.TOKEN_INVALID, True, None),
        ("group", 200, {"errcode": "42001"}, Reason.TOKEN_INVALID, True, None),
        ("webhook", 200, {"errcode": 300001, "errmsg": "session 不存在"}, Reason.WEBHOOK_EXPIRED, False, None),
        ("webhook", 400, {"errcode": 300001}, Reason.WEBHOOK_EXPIRED, False, None),
        ("webhook", 200, {"errcode": 300005, "errmsg": "token is not exist"}, Reason.WEBHOOK_EXPIRED, False, None),
        # A webhook takes no token: its session is meant.
        ("webhook", 200, {"errcode": 40014}, Reason.WEBHOOK_EXPIRED, False, None),
        ("webhook", 400, {"errcode": 777777}, Reason.UNKNOWN, True, None),
        ("webhook", 500, {"errcode": 777777}, Reason.SERVER_BUSY, True, None),
        ("group", 400, {"code": "some.new.word"}, Reason.UNKNOWN, True, None),
        ("group", 403, {"code": DENIED + "SomethingNew"}, Reason.UNKNOWN, True, None),
        ("group", 500, {"code": "some.new.word"}, Reason.SERVER_BUSY, True, None),
        ("group", 200, {"errcode": 777777}, Reason.UNKNOWN, True, None),
        ("group", 200, {"errcode": 0}, Reason.NOT_DINGTALK, True, None),
        ("group", 400, {"code": "90018"}, Reason.QPS, True, 2.0),
        ("group", 400, {"code": "777777"}, Reason.UNKNOWN, True, None),
        ("webhook", 401, None, Reason.NOT_DINGTALK, True, None),
    ],
)
def test_what_an_answer_means(
    api: str, status: int, body: object, reason: Reason, retryable: bool, retry_after: float | None
) -> None:
    """The tables of docs/protocol.md sections 6.1, 6.2, 6.3 and 6.6, row by row: the code before the status."""
    error = classify(api, status, body)
    assert error is not None
    assert (error.reason, error.retryable, error.retry_after) == (reason, retryable, retry_after)
    assert (error.api, error.status) == (api, status)


HTML = None
"""What is left of a page, or of any other body that is no JSON object."""
ENVOY = {"message": "no healthy upstream"}
KONG = {"code": 403, "message": "Forbidden"}
APISIX = {"code": "403", "error_msg": "blocked"}


@pytest.mark.parametrize(
    ("status", "body", "reason", "maybe"),
    [
        # Before it reached DingTalk.
        (301, HTML, Reason.NOT_DINGTALK, False),
        (302, HTML, Reason.NOT_DINGTALK, False),
        (307, HTML, Reason.NOT_DINGTALK, False),
        (400, HTML, Reason.NOT_DINGTALK, False),
        (403, HTML, Reason.NOT_DINGTALK, False),
        (403, ENVOY, Reason.NOT_DINGTALK, False),
        (403, KONG, Reason.NOT_DINGTALK, False),
        (403, APISIX, Reason.NOT_DINGTALK, False),
        (404, HTML, Reason.NOT_DINGTALK, False),
        (405, HTML, Reason.NOT_DINGTALK, False),
        (407, HTML, Reason.NOT_DINGTALK, False),
        (408, HTML, Reason.SERVER_BUSY, False),
        (411, HTML, Reason.NOT_DINGTALK, False),
        (413, HTML, Reason.NOT_DINGTALK, False),
        (418, HTML, Reason.NOT_DINGTALK, False),
        (429, HTML, Reason.QPS, False),
        (451, HTML, Reason.NOT_DINGTALK, False),
        (500, HTML, Reason.SERVER_BUSY, False),
        (503, HTML, Reason.SERVER_BUSY, False),
        (511, HTML, Reason.SERVER_BUSY, False),
        # It may have reached DingTalk.
        (200, HTML, Reason.NOT_DINGTALK, True),
        (200, ENVOY, Reason.NOT_DINGTALK, True),
        (200, KONG, Reason.NOT_DINGTALK, True),
        (200, {"code": "OK"}, Reason.NOT_DINGTALK, True),
        (204, HTML, Reason.NOT_DINGTALK, True),
        (502, HTML, Reason.SERVER_BUSY, True),
        (502, ENVOY, Reason.SERVER_BUSY, True),
        (504, HTML, Reason.SERVER_BUSY, True),
        (520, HTML, Reason.SERVER_BUSY, True),
        (599, HTML, Reason.SERVER_BUSY, True),
    ],
)
@pytest.mark.parametrize("api", list(Api))
def test_what_is_not_dingtalks_word(api: Api, status: int, body: object, reason: Reason, maybe: bool) -> None:
    """Whatever a proxy answers in DingTalk's place is tried again; only sends can have been delivered."""
    error = classify(api, status, body)
    assert error is not None
    assert (error.reason, error.retryable, error.tries_max) == (reason, True, None)
    assert error.maybe_delivered is (maybe and api in SENDS)


@pytest.mark.parametrize(
    ("status", "body", "maybe"),
    [
        (200, {"errcode": -1}, False),
        (200, {"errcode": 130101}, False),
        (200, {"errcode": 777777}, False),
        (404, {"errcode": 0}, True),
        (503, {"errcode": 0}, True),
        (504, {"errcode": 777777}, True),
    ],
)
def test_what_may_have_been_delivered(status: int, body: object, maybe: bool) -> None:
    """An errcode says that it was not, unless it says success, or a gateway has given up."""
    error = classify(Api.WEBHOOK, status, body)
    assert error is not None
    assert error.maybe_delivered is maybe


@pytest.mark.parametrize(
    ("api", "status", "body", "tries_max"),
    [
        ("webhook", 200, {"errcode": 400018}, UNKNOWN_TRIES_MAX),
        ("group", 400, {"code": "some.new.word"}, UNKNOWN_TRIES_MAX),
        ("direct", 200, {"errcode": 88, "sub_code": 60121}, UNKNOWN_TRIES_MAX),
        ("webhook", 200, {"errcode": -1}, None),
        ("webhook", 200, {"errcode": 130101}, None),
        ("group", 500, {"code": "some.new.word"}, None),
        ("group", 400, {"code": "unknown.send.result"}, None),
    ],
)
def test_a_refusal_that_nobody_knows_is_worth_few_tries(
    api: str, status: int, body: object, tries_max: int | None
) -> None:
    """Each try is billed, and the chat waits: not for an hour, as where the code says that it will pass."""
    error = classify(api, status, body)
    assert error is not None
    assert (error.retryable, error.tries_max) == (True, tries_max)


@pytest.mark.parametrize(
    ("api", "body"),
    [
        ("webhook", {"errcode": 0, "errmsg": "ok"}),
        ("webhook", {"errcode": "0"}),
        ("direct", {"processQueryKey": "p", "invalidStaffIdList": [], "flowControlledStaffIdList": None}),
        ("group", {"processQueryKey": "p"}),
        ("token", {"accessToken": "t", "expireIn": 7200}),
        ("download", {"downloadUrl": "http://x"}),
    ],
)
def test_success_has_its_mark(api: str, body: object) -> None:
    """Nothing but the documented number or field, with HTTP 200, is success."""
    assert classify(api, 200, body) is None
    assert classify(api, 404, body) is not None


def test_a_word_means_the_same_for_every_call() -> None:
    """The gateway's answers carry the same words as those of other calls at api.dingtalk.com."""
    rule = find_rule_of_code(DENIED + "IpNotInWhiteList")
    assert rule is not None
    assert rule.reason is Reason.IP_NOT_ALLOWED
    assert find_rule("gateway", 403, DENIED + "QpsLimitForApi").reason is Reason.QPS
    assert find_rule_of_code("authFailed") is None
    assert find_rule_of_code("") is None


def test_a_number_that_nobody_knows_is_named() -> None:
    """A webhook's unknown errcode was no delivery: worth another try, and the number is in the error."""
    assert find_rule(Api.WEBHOOK, 200, errcode=777777).detail == "errcode 777777"


@pytest.mark.parametrize("detail", ["accessdenieddetail", "AccessDeniedDetail", "accessDeniedDetail"])
@pytest.mark.parametrize("scopes", [["qyapi_robot_sendmsg"], "qyapi_robot_sendmsg"])
def test_a_missing_permission_is_named(detail: str, scopes: object) -> None:
    """The remedy names the scope to grant, in whatever case DingTalk writes the field."""
    body = {"code": DENIED + "AccessTokenPermissionDenied", detail: {"requiredScopes": scopes}}
    error = classify("group", 403, body)
    assert error is not None
    assert "qyapi_robot_sendmsg" in error.detail


@pytest.mark.parametrize("scopes", [None, 7, [None, {}, "a b", "x" * 500], {"a": 1}])
def test_odd_permissions_are_left_out(scopes: object) -> None:
    """What is no scope's name does not get into an error."""
    body = {"code": DENIED + "AccessTokenPermissionDenied", "accessdenieddetail": {"requiredScopes": scopes}}
    error = classify("group", 403, body)
    assert error is not None
    assert error.detail.endswith("console [Forbidden.AccessDenied.AccessTokenPermissionDenied]")
