"""The one table of DingTalk's codes: what an answer means, whether to try again, and what helps.

Order of events: `classify` looks for success (each api has a field, or a number, that proves it), then for the code,
then for the HTTP status. Codes come first since DingTalk puts one status on unlike things: 403 is too many calls as
well as a missing permission, and webhooks refuse with 200 (docs/protocol.md sections 6.1 to 6.6).

Only a code of DingTalk's own is final. An answer without one, whatever its status, is a proxy's or a firewall's word,
which may be gone in a minute. A code that is not in the tables is DingTalk's word, but may be of the moment: it is
worth UNKNOWN_TRIES_MAX tries and not an hour of them, since each is billed.

DingTalk has two dialects: words such as `Forbidden.AccessDenied.QpsLimitForApi` at api.dingtalk.com, and numbers, the
`errcode` of webhooks and of the old API, which the new one sometimes passes on. Both tables give the same reasons.
Nothing of an answer is repeated in an error but its code and the names of missing permissions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from claw.dingtalk.quota import SENDS, Api
from claw.errors import DingTalkError
from claw.errors import DingTalkReason as Reason

QPS_WAIT_S: Final = 2.0
"""Seconds to wait after too many calls a second (the window is 1 s, docs/protocol.md section 6.6)."""
QPM_WAIT_S: Final = 60.0
"""Seconds to wait after too many calls a minute. A webhook takes 20 messages a minute; its throttle itself may last
10 minutes (docs/protocol.md section 6.1)."""
CREDENTIALS_WAIT_S: Final = 30.0
"""Seconds before credentials that were refused are tried again, as for the stream (docs/architecture.md)."""
UNKNOWN_TRIES_MAX: Final = 4
"""Tries of a call that DingTalk refuses by a code that is in no table."""
SCOPES_MAX: Final = 10
"""Missing permissions that an error names."""

_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,119}")
_NUMBER_MIN_DIGITS: Final = 4
"""Digits of a number in the place of a word; with fewer it is a proxy's HTTP status."""
_TOKEN_TEXT: Final = re.compile(r"[\x21-\x7e]{1,4096}")
_WRAPPER: Final = 88
"""The errcode of the old API's gateway; the true number is in `sub_code` (docs/protocol.md section 6.6)."""

Json = dict[str, Any]


class ErrorRule(NamedTuple):
    """What a code or status of DingTalk means. What an operator can do about it, doctor says by `reason`."""

    reason: Reason
    detail: str
    """A sentence for logs and dead letters."""
    retryable: bool = False
    retry_after: float | None = None
    """Seconds to wait before another try."""
    maybe_delivered: bool = False
    """The call may have done its work all the same."""
    tries_max: int | None = None
    """Tries in all that it is worth; None: as many as there is time for."""


NO_CONNECTION: Final = ErrorRule(Reason.CONNECT, "no connection", retryable=True)
NO_TUNNEL: Final = ErrorRule(Reason.NOT_DINGTALK, "the proxy opened no way to DingTalk", retryable=True)
TIMED_OUT: Final = ErrorRule(Reason.TIMEOUT, "no answer in time", retryable=True, maybe_delivered=True)
BROKEN_OFF: Final = ErrorRule(Reason.BROKEN_OFF, "the exchange broke off", retryable=True, maybe_delivered=True)
"""The four ways in which no answer comes. Nothing was sent in the first two."""

_QPS: Final = ErrorRule(Reason.QPS, "too many calls a second", retryable=True, retry_after=QPS_WAIT_S)
_QPM: Final = ErrorRule(Reason.QPM, "too many calls a minute", retryable=True, retry_after=QPM_WAIT_S)
_MONTH: Final = ErrorRule(
    Reason.QUOTA_EXHAUSTED,
    "the organisation's API calls of this month are used up: buy an add-on pack, or wait for the next month",
)
_CAP: Final = ErrorRule(
    Reason.QUOTA_EXHAUSTED,
    "the webhooks are over their limit: an administrator's cap on this robot (用量管控), or the month's quota",
)
_TOKEN: Final = ErrorRule(Reason.TOKEN_INVALID, "the access token was refused", retryable=True)
_SCOPE: Final = ErrorRule(Reason.NO_PERMISSION, "the app lacks a permission: grant it in the developer console")
_ADDRESS: Final = ErrorRule(Reason.IP_NOT_ALLOWED, "this machine's address is not on the app's list of IP addresses")
_CREDENTIALS: Final = ErrorRule(
    Reason.CREDENTIALS,
    "Client ID or Client Secret is wrong: compare them with the developer console",
    # A secret is rotated under a running claw: the answer waits for the new one, as the stream does.
    retryable=True,
    retry_after=CREDENTIALS_WAIT_S,
)
_BUSY: Final = ErrorRule(Reason.SERVER_BUSY, "DingTalk is in trouble", retryable=True)
_TOO_LONG: Final = ErrorRule(Reason.TOO_LONG, "the message is too long")
_GROUP: Final = ErrorRule(Reason.GROUP_GONE, "the group was dissolved")
_STOPPED: Final = ErrorRule(Reason.ROBOT_STOPPED, "the robot is switched off")
_SESSION: Final = ErrorRule(Reason.WEBHOOK_EXPIRED, "the session webhook has expired or is unknown")
_TEMPLATE: Final = ErrorRule(
    Reason.CARD_TEMPLATE, "the card's template does not exist, is not published, or not authorised for this app"
)
_UNKNOWN: Final = ErrorRule(Reason.UNKNOWN, "refused", retryable=True, tries_max=UNKNOWN_TRIES_MAX)

_BY_CODE: Final[tuple[tuple[str, ErrorRule], ...]] = (
    # Order matters: the limits' codes hold other parts, such as `Appkey`.
    ("qpslimit", _QPS),
    ("qpmlimit", _QPM),
    ("apicountlimit", _MONTH),
    ("too.fast", _QPS),
    ("toofast", _QPS),
    ("throttl", _QPS),
    ("permissiondenied", _SCOPE),
    ("whitelist", _ADDRESS),
    ("invalidauthentication", _TOKEN),
    ("invalidparameter.token.invalid", _TOKEN),
    ("invalidclientidorsecret", _CREDENTIALS),
    # No idempotency key tells whether it went out; the worker bounds how often people may see it again.
    (
        "unknown.send.result",
        ErrorRule(
            Reason.SEND_UNKNOWN, "DingTalk does not know whether it was sent", retryable=True, maybe_delivered=True
        ),
    ),
    ("send.forbidden", ErrorRule(Reason.SEND_FORBIDDEN, "the robot may not send here")),
    ("contain.notallowed", ErrorRule(Reason.CONTENT_REFUSED, "DingTalk refused the content")),
    ("msgparam.toolong", _TOO_LONG),
    (
        "robot.oto.notexist",
        ErrorRule(Reason.ROBOT_INVALID, "the robot does not exist, or may not write to people: publish the app"),
    ),
    ("staffid.notexisted", ErrorRule(Reason.USER_INVALID, "the person does not exist in the organisation")),
    ("openconversationid", ErrorRule(Reason.GROUP_GONE, "the group does not exist, or the robot is not in it")),
    ("group.disbanded", _GROUP),
    ("bot.stopped", _STOPPED),
    ("template.stopped", ErrorRule(Reason.BAD_REQUEST, "the message template is switched off")),
    ("robotcode.downloadcode", ErrorRule(Reason.DOWNLOAD_CODE, "the download code is wrong or has expired")),
    ("robotcode", ErrorRule(Reason.ROBOT_INVALID, "the robot code is wrong, or not this app's")),
    ("templatenotexist", _TEMPLATE),
    ("templateunpublished", _TEMPLATE),
    ("cardtemplate", _TEMPLATE),
    ("cardalreadyexist", ErrorRule(Reason.CARD_EXISTS, "there is a card of this id already")),
    ("cardnotexist", ErrorRule(Reason.CARD_GONE, "there is no such card")),
    ("stream.outtrackid", ErrorRule(Reason.CARD_GONE, "there is no such card")),
    ("contentunsafe", ErrorRule(Reason.CONTENT_REFUSED, "DingTalk refused the content")),
    # 200092, `content is too large`: after the other names that begin like it.
    ("stream.contentempty", ErrorRule(Reason.BAD_REQUEST, "DingTalk does not take a field of the call")),
    ("stream.content", _TOO_LONG),
    ("carddatainvalid", _TOO_LONG),
    ("param.userid", ErrorRule(Reason.USER_INVALID, "the person does not exist in the organisation")),
    ("spaceid", ErrorRule(Reason.CARD_NOT_SHOWN, "DingTalk does not take the chat for a card")),
    ("opendelivermodel", ErrorRule(Reason.CARD_NOT_SHOWN, "DingTalk does not take the chat for a card")),
    ("system.err", _BUSY),
    ("system.busy", _BUSY),
    ("invalidparameter", ErrorRule(Reason.BAD_REQUEST, "DingTalk does not take a field of the call")),
)
"""Parts of the new API's `code` in lower case; the first that occurs decides."""

_CREDENTIAL_PARTS: Final = ("client", "auth", "appkey", "secret")
"""Parts of codes by which the token's own call refuses who asks (docs/protocol.md section 6.2)."""

_CONTENT: Final = "DingTalk refused the content: "
_BY_ERRCODE: Final[Mapping[int, ErrorRule]] = {
    -1: _BUSY,
    # Calls, at webhooks and at the OpenAPI.
    90018: _QPS,
    90002: _QPS,
    90020: _MONTH,
    90030: _CAP,
    410100: _QPM,
    130101: _QPM,
    40001: _CREDENTIALS,
    40089: _CREDENTIALS,
    40096: _CREDENTIALS,
    40014: _TOKEN,
    42001: _TOKEN,
    60020: _ADDRESS,
    60011: _SCOPE,
    50002: _SCOPE,
    # Robots, at webhooks.
    300001: _SESSION,
    300005: _SESSION,
    310000: ErrorRule(Reason.SEND_FORBIDDEN, "the robot's security settings refused the message"),
    400013: _GROUP,
    400101: _SESSION,
    400102: _STOPPED,
    400105: ErrorRule(Reason.BAD_REQUEST, "the message type is not supported"),
    400106: ErrorRule(Reason.ROBOT_INVALID, "the robot does not exist"),
    40035: ErrorRule(Reason.BAD_REQUEST, "the body is missing"),
    43004: ErrorRule(Reason.BAD_REQUEST, "the content type is wrong"),
    430101: ErrorRule(Reason.CONTENT_REFUSED, f"{_CONTENT}an unsafe link"),
    430102: ErrorRule(Reason.CONTENT_REFUSED, f"{_CONTENT}its text"),
    430103: ErrorRule(Reason.CONTENT_REFUSED, f"{_CONTENT}a picture"),
    430104: ErrorRule(Reason.CONTENT_REFUSED, f"{_CONTENT}unsuitable"),
    460101: _TOO_LONG,
}
"""Numbers of webhooks and of the old API, some of which the new one passes on."""

_SUCCESS_FIELD: Final[Mapping[str, str]] = {
    Api.TOKEN: "accessToken",
    Api.DIRECT: "processQueryKey",
    Api.GROUP: "processQueryKey",
    Api.DOWNLOAD: "downloadUrl",
    Api.UPLOAD: "media_id",
}
"""The field without which a 200 is no success (docs/protocol.md sections 6.2 to 6.4)."""


_BY_SUCCESS: Final = frozenset({Api.REACTION, Api.CARD_CREATE, Api.CARD_STREAM, Api.CARD_UPDATE})
"""Calls whose answer says `success` (docs/protocol.md sections 6.5 and 7)."""


# --- rules ---------------------------------------------------------------------------------------------------------


def find_rule(api: str, status: int, code: str = "", errcode: int | None = None) -> ErrorRule:
    """Say what a refusal means: by its code, else by its number, else by its HTTP status.

    `api` is an Api, or another call's name; `code` the new API's word, `errcode` a number other than 0.
    """
    rule = find_rule_of_code(code)
    if rule is None and errcode is not None:
        rule = _BY_ERRCODE.get(errcode)
    if rule is None and status == 401 and api != Api.WEBHOOK:
        rule = _TOKEN
    if api == Api.TOKEN and (rule is _TOKEN or (rule is None and _names_credentials(status, code))):
        # The call that asks for a token sends none: what is refused are the credentials.
        return _CREDENTIALS
    if api == Api.WEBHOOK and rule is _TOKEN:
        # A webhook takes no token either: what is refused is the session in its address.
        return _SESSION
    if rule is None and _is_refusal(status, code, errcode):
        return _UNKNOWN._replace(detail=f"errcode {errcode}" if errcode is not None else f"HTTP {status}: refused")
    return rule or classify_status(status)


def find_rule_of_code(code: str) -> ErrorRule | None:
    """Say what a word means that any call of api.dingtalk.com may answer with; None where it is not known."""
    word = code.lower()
    return next((rule for part, rule in _BY_CODE if part in word), None)


def classify_status(status: int) -> ErrorRule:
    """Say what an HTTP status means where DingTalk gave no code that is known: never anything final."""
    if status == 429:
        return _QPS._replace(detail="too many calls")
    if status == 408 or status >= 500:
        # A gateway's 502 and 504, and what proxies made up beyond the registered ones (up to 511), tell of their own
        # wait, not of what the server behind them has done.
        detail = f"HTTP {status}: DingTalk is in trouble"
        return _BUSY._replace(detail=detail, maybe_delivered=status in {502, 504} or status > 511)
    # A good status may be DingTalk's, whose answer was replaced on its way; any other one stood before DingTalk.
    good = 200 <= status < 300
    detail = "an answer that is not DingTalk's" if good else f"HTTP {status} by something that is not DingTalk"
    return ErrorRule(Reason.NOT_DINGTALK, detail, retryable=True, maybe_delivered=good)


def _is_refusal(status: int, code: str, errcode: int | None) -> bool:
    """Whether a code that is not known says that nothing was done: numbers always, words with their 4xx."""
    # With 5xx the status says enough: DingTalk, or what stands before it, is in trouble.
    if status >= 500 or status in {408, 429}:
        return False
    return errcode is not None or (bool(code) and status >= 400)


def _names_credentials(status: int, code: str) -> bool:
    # A service for authorization that is down, or that has too much to do, refuses nobody.
    word = code.lower()
    return status < 500 and status != 429 and any(part in word for part in _CREDENTIAL_PARTS)


# --- answers -------------------------------------------------------------------------------------------------------


def classify(api: str, status: int, body: object) -> DingTalkError | None:
    """Say what an answer means; None: success. `body` is its JSON, or None where it has none that can be read."""
    fields = body if isinstance(body, dict) else {}
    errcode = _find_errcode(fields)
    good = 200 <= status < 300
    if api == Api.WEBHOOK:
        if errcode == 0:
            # Success with a status that denies it: something on the way spoke, and it may be out.
            rule = classify_status(status)._replace(maybe_delivered=True)
            return None if good else make_error(api, rule, status=status, errcode=errcode)
        return make_error(api, find_rule(api, status, errcode=errcode), status=status, errcode=errcode)
    if good:
        # Before success: a 200 with a key does not say that the person gets it.
        if api == Api.REACTION and body == {}:
            # What reactions answer is not documented (docs/protocol.md section 6.5): an object that says nothing else.
            return None
        held_back = _check_receivers(api, status, fields) or _check_card(api, status, fields)
        if held_back is not None or _is_success(api, fields):
            return held_back
    code = _parse_word(fields.get("code"))
    # 0 is no refusal: DingTalk would have sent what proves success along with it.
    rule = find_rule(api, status, code, errcode or None)
    if rule.reason is Reason.NO_PERMISSION and (scopes := _find_scopes(fields)):
        rule = rule._replace(detail=f"{rule.detail} ({', '.join(scopes)})")
    if code and code.lower() not in rule.detail.lower():
        rule = rule._replace(detail=f"{rule.detail} [{code}]")
    return make_error(api, rule, status=status, errcode=errcode, code=code)


def make_error(
    api: str, rule: ErrorRule, *, status: int | None = None, errcode: int | None = None, code: str = ""
) -> DingTalkError:
    """Make the error of a call by its rule; `status` is None where no answer came."""
    # A token or an address that was perhaps given out shows nothing to people: asking again harms nobody.
    maybe_delivered = rule.maybe_delivered and api in SENDS
    return DingTalkError(
        api,
        f"{rule.detail}; it may have been delivered all the same" if maybe_delivered else rule.detail,
        reason=rule.reason,
        status=status,
        errcode=errcode,
        code=code,
        retryable=rule.retryable,
        retry_after=rule.retry_after,
        maybe_delivered=maybe_delivered,
        tries_max=rule.tries_max,
    )


def _find_errcode(fields: Json) -> int | None:
    """Find the number of an answer, where it has one: in `errcode`, or as digits in the place of the new API's word."""
    errcode = parse_number(fields.get("errcode"))
    if errcode == _WRAPPER:
        return parse_number(fields.get("sub_code")) or errcode
    code = fields.get("code")
    if errcode is None and isinstance(code, str) and len(code) >= _NUMBER_MIN_DIGITS:
        return parse_number(code)
    return errcode


def _is_success(api: str, fields: Json) -> bool:
    if api in _BY_SUCCESS:
        return fields.get("success") is True
    proof = fields.get(_SUCCESS_FIELD.get(api, "processQueryKey"))
    # A token goes into a header: one with blanks or line breaks would break the next request.
    return isinstance(proof, str) and bool(proof) and (api != Api.TOKEN or bool(_TOKEN_TEXT.fullmatch(proof)))


def _check_receivers(api: str, status: int, fields: Json) -> DingTalkError | None:
    """Look into the two lists that say who does not get a direct message (docs/protocol.md section 6.3)."""
    if api != Api.DIRECT:
        return None
    if fields.get("flowControlledStaffIdList"):
        detail = "DingTalk holds back messages to this person for a moment"
        rule = ErrorRule(Reason.FLOW_CONTROLLED, detail, retryable=True, retry_after=QPS_WAIT_S)
        return make_error(api, rule, status=status, code="flowControlled")
    if fields.get("invalidStaffIdList"):
        rule = ErrorRule(Reason.USER_INVALID, "the robot cannot write to this person")
        return make_error(api, rule, status=status, code="invalidStaffId")
    return None


def _check_card(api: str, status: int, fields: Json) -> DingTalkError | None:
    """Look at the deliveries of a card that was made: the outer success tells nothing of them (section 7.2)."""
    result = fields.get("result")
    if api != Api.CARD_CREATE or fields.get("success") is not True or not isinstance(result, dict):
        return None
    deliveries = result.get("deliverResults")
    shown = [each for each in deliveries if isinstance(each, dict)] if isinstance(deliveries, list) else []
    if not shown or any(each.get("success") is True for each in shown):
        return None
    rule = ErrorRule(Reason.CARD_NOT_SHOWN, "the card could not be put into the chat")
    return make_error(api, rule, status=status, code="deliverFailed")


def parse_number(value: object) -> int | None:
    """Read a code that may come as a number or as its digits; None for anything else."""
    # The length first: int() of a million digits takes for ever.
    if isinstance(value, str) and len(value) <= 9 and value.isascii() and value.removeprefix("-").isdigit():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**9 else None


def _parse_word(value: object) -> str:
    """Read a code that is one; anything else may be somebody's text and is left out of errors."""
    return value if isinstance(value, str) and _CODE.fullmatch(value) else ""


def _find_scopes(fields: Json) -> list[str]:
    """Find the permissions that `AccessDeniedDetail.requiredScopes` names, in whatever case it is written."""
    detail = _get_any_case(fields, "accessdenieddetail")
    scopes = _get_any_case(detail, "requiredscopes") if isinstance(detail, dict) else None
    if isinstance(scopes, str):
        scopes = [scopes]
    return [word for each in (scopes if isinstance(scopes, list) else [])[:SCOPES_MAX] if (word := _parse_word(each))]


def _get_any_case(fields: Json, name: str) -> object:
    return next((value for key, value in fields.items() if key.lower() == name), None)
