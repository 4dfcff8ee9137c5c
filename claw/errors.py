"""The error tree: every failure that claw knows, with what is needed to act on it.

    ClawError
    ├── SettingsError            the environment cannot be used
    ├── GatewayError             DingTalk gave us no ticket: `reason`
    ├── HandshakeError           the endpoint refused the WebSocket upgrade
    ├── SessionLostError         a connection that served has ended
    ├── FrameError               a frame that is not DingTalk's protocol
    ├── StoreError               the store did not do what it was asked
    │   ├── StoreBusyError       another process holds it
    │   ├── StoreRefusedError    it does not serve us as we are set up
    │   ├── StoreSchemaError     a newer claw wrote it
    │   └── LeaseLostError       the message is another holder's now
    ├── ModelError               the model gave no answer: `kind`
    ├── DingTalkError            DingTalk refused a call, or did not answer it: `reason`
    └── MediaError               a picture or file could not be fetched

Each error says by itself whether another try can help (`retryable`) and how long the other side asked us to wait
(`retry_after`, seconds); causes are Enums, nothing is recovered from a sentence. Who tries again is decided where the
error arrives: `claw.retry.verdict` for connections, `inbox/turns.py` for turns. Errors that never leave their module
are defined there. No message here may hold a secret: addresses are named by host only.
"""

from __future__ import annotations

from enum import StrEnum


class ClawError(Exception):
    """The root of the tree."""

    retryable: bool = False
    retry_after: float | None = None
    """Seconds the other side asked us to wait, where it did."""


class SettingsError(ClawError):
    """The environment cannot be used; `problems` holds a sentence for each fault."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


# --- stream -----------------------------------------------------------------------------------------------


class GatewayReason(StrEnum):
    """Why DingTalk's gateway gave us no ticket, as far as anybody can act on it (docs/protocol.md section 1.3)."""

    UNAUTHORIZED = "unauthorized"
    """Client ID or secret are wrong."""
    NOT_STREAM_APP = "not_stream_app"
    """HTTP 400: the app's version is not published, or its robot does not receive in Stream mode."""
    IP_NOT_ALLOWED = "ip_not_allowed"
    QUOTA_EXHAUSTED = "quota_exhausted"
    """The month's API calls are used up."""
    FORBIDDEN = "forbidden"
    BANNED = "banned"
    """Too many requests from this address; DingTalk lifts the ban by itself."""
    THROTTLED = "throttled"
    BUSY = "busy"
    NOT_DINGTALK = "not_dingtalk"
    """A web page: a proxy or firewall answered in DingTalk's place."""
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    BAD_ANSWER = "bad_answer"

    @property
    def is_rejection(self) -> bool:
        """Whether credentials or the app's settings are at fault: no early try can help, only a person."""
        return self in {
            GatewayReason.UNAUTHORIZED,
            GatewayReason.NOT_STREAM_APP,
            GatewayReason.IP_NOT_ALLOWED,
            GatewayReason.QUOTA_EXHAUSTED,
            GatewayReason.FORBIDDEN,
        }


class GatewayError(ClawError):
    """DingTalk's gateway did not give us an endpoint and a ticket.

    `detail` is for the operator; `status` the HTTP status (None: no answer at all), `code` DingTalk's own word such
    as `authFailed`.
    """

    def __init__(
        self,
        reason: GatewayReason,
        detail: str,
        *,
        status: int | None = None,
        code: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.status = status
        self.code = code
        self.retry_after = retry_after
        self.retryable = not reason.is_rejection


class HandshakeError(ClawError):
    """The endpoint refused or missed the WebSocket upgrade; `status` is None where there was no answer."""

    retryable = True

    def __init__(self, reason: str, *, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class SessionLostError(ClawError):
    """A connection that served has ended without our wish; `lived` is for how many seconds it served.

    `kind` is the word for its end in metrics, such as `lost` or `pongs_missed`.
    """

    retryable = True

    def __init__(self, kind: str, *, lived: float) -> None:
        super().__init__(f"the connection ended: {kind}")
        self.kind = kind
        self.lived = lived


class FrameError(ClawError):
    """A frame that is not DingTalk's protocol; `size` is its length, since its text may be private."""

    def __init__(self, reason: str, *, size: int, message_id: str = "") -> None:
        super().__init__(f"{reason} ({size} characters)")
        self.reason = reason
        self.size = size
        self.message_id = message_id


# --- store ------------------------------------------------------------------------------------------------


class StoreError(ClawError):
    """The store did not do what it was asked; nothing of the operation is kept."""

    retryable = True


class StoreBusyError(StoreError):
    """Another process holds the store."""

    retryable = False


class StoreRefusedError(StoreError):
    """The store does not serve us as we are set up: a wrong password, too old a server. Only a person can cure it."""

    retryable = False


class StoreSchemaError(StoreError):
    """The store was written by a newer claw than this one."""

    retryable = False


class LeaseLostError(StoreError):
    """The lease ran out, or somebody else holds the message now: stop working on it, write nothing.

    With `gone` nobody else does: the store does not know the message at all, neither waiting nor as seen. It lost data
    (a failover, a restart without persistence), and the holder may put the message back.
    """

    retryable = False

    def __init__(self, reason: str, *, gone: bool = False) -> None:
        super().__init__(reason)
        self.gone = gone


# --- turn -------------------------------------------------------------------------------------------------


class ModelErrorKind(StrEnum):
    """What went wrong at the model, as far as a person or an operator can act on it."""

    UNREACHABLE = "unreachable"
    UNAVAILABLE = "unavailable"
    """It, or a gateway in front of it, says that it takes no work yet, or no more."""
    TIMEOUT = "timeout"
    BUSY = "busy"
    UNAUTHORIZED = "unauthorized"
    QUOTA = "quota"
    """The account at the provider has no money or allowance left."""
    BAD_REQUEST = "bad_request"
    REDIRECTED = "redirected"
    """It points to another address, which is never followed: the conversation would go there."""
    FILTERED = "filtered"
    """A content policy refused what was said, or was about to be said."""
    TOO_LONG = "too_long"
    """The context overflowed."""
    TOO_LARGE = "too_large"
    """The request has too many bytes, as with a large picture."""
    BROKEN_OFF = "broken_off"
    EMPTY = "empty"
    SERVER = "server"


class ModelError(ClawError):
    """The model gave no answer.

    `reason` is for the operator (cause, never content of messages); `began` says that part of an answer had
    come before it broke, so that another try may run an agent's tools twice; `partial` is that part. `waits` says that
    the server could not be reached or takes no work yet: nothing was begun, and the worker waits for it.
    """

    def __init__(
        self,
        kind: ModelErrorKind,
        reason: str,
        *,
        status: int | None = None,
        code: str = "",
        began: bool = False,
        partial: str = "",
        retryable: bool = False,
        waits: bool = False,
        retry_after: float | None = None,
        about_pictures: bool = False,
    ) -> None:
        super().__init__(f"{kind.value}: {reason}")
        self.kind = kind
        self.reason = reason
        self.status = status
        self.code = code
        self.began = began
        self.partial = partial
        self.retryable = retryable
        self.waits = waits
        self.retry_after = retry_after
        self.about_pictures = about_pictures
        """The server's words are about pictures, which were sent with the question."""


# --- reply ------------------------------------------------------------------------------------------------


class DingTalkReason(StrEnum):
    """Why a call of DingTalk failed, as far as somebody can act on it; claw/dingtalk/codes.py has the codes."""

    # No answer came.
    CONNECT = "connect"
    """Nothing was sent: there was no connection."""
    TIMEOUT = "timeout"
    BROKEN_OFF = "broken_off"
    # Something else answered, or DingTalk was in trouble.
    NOT_DINGTALK = "not_dingtalk"
    """A proxy or firewall answered in DingTalk's place: there is no code of DingTalk's in it."""
    SERVER_BUSY = "server_busy"
    SEND_UNKNOWN = "send_unknown"
    """DingTalk does not know itself whether it was sent."""
    # Too many calls.
    QPS = "qps"
    """In a second."""
    QPM = "qpm"
    """In a minute."""
    FLOW_CONTROLLED = "flow_controlled"
    """To one person."""
    QUOTA_EXHAUSTED = "quota_exhausted"
    """In a month."""
    # Who asks, and from where.
    CREDENTIALS = "credentials"
    TOKEN_INVALID = "token_invalid"  # noqa: S105 - a reason's name
    """A fresh token cures it."""
    NO_PERMISSION = "no_permission"
    IP_NOT_ALLOWED = "ip_not_allowed"
    ROBOT_INVALID = "robot_invalid"
    ROBOT_STOPPED = "robot_stopped"
    # Where to.
    WEBHOOK_EXPIRED = "webhook_expired"
    """Send by OpenAPI instead."""
    WEBHOOK_HOST = "webhook_host"
    """The webhook's address is not DingTalk's."""
    GROUP_GONE = "group_gone"
    USER_INVALID = "user_invalid"
    DOWNLOAD_CODE = "download_code"
    CARD_EXISTS = "card_exists"
    """There is a card of this id already."""
    CARD_GONE = "card_gone"
    """There is no such card."""
    CARD_TEMPLATE = "card_template"
    """The card's template does not exist, is not published, or not for this app."""
    CARD_NOT_SHOWN = "card_not_shown"
    """The card was made, but could not be put into the chat."""
    # What.
    SEND_FORBIDDEN = "send_forbidden"
    CONTENT_REFUSED = "content_refused"
    TOO_LONG = "too_long"
    BAD_REQUEST = "bad_request"
    # What nobody has a name for.
    UNKNOWN = "unknown"
    """DingTalk itself refused, by a code that claw does not know."""


class DingTalkError(ClawError):
    """DingTalk refused a call, or did not answer it.

    `api` is the call's short name, `detail` a sentence for the operator, `status` the HTTP status (None: no answer),
    `errcode` the number of the old API and of webhooks, `code` the word of the new API.

    `retryable` is False only where DingTalk's own code is final, or where nothing was sent since nothing could be.
    """

    def __init__(
        self,
        api: str,
        detail: str,
        *,
        reason: DingTalkReason = DingTalkReason.UNKNOWN,
        status: int | None = None,
        errcode: int | None = None,
        code: str = "",
        retryable: bool = False,
        retry_after: float | None = None,
        maybe_delivered: bool = False,
        tries_max: int | None = None,
    ) -> None:
        super().__init__(f"{api}: {detail}")
        self.api = api
        self.detail = detail
        self.reason = reason
        self.status = status
        self.errcode = errcode
        self.code = code
        self.retryable = retryable
        self.retry_after = retry_after
        self.maybe_delivered = maybe_delivered
        """The call was sent and DingTalk's answer never came: people may see what it was to send all the same."""
        self.tries_max = tries_max
        """Tries in all, the first one included, that the call is worth; None: as many as its time allows. A refusal
        that nobody knows may pass, but each try of it is billed."""


class MediaProblem(StrEnum):
    """Why a picture or file could not be had, as far as a person or an operator can act on it."""

    EXPIRED = "expired"
    """DingTalk knows no such download code any more: sending it again helps."""
    NOT_FETCHED = "not_fetched"
    """DingTalk or its storage did not give it, also when asked again."""
    NOT_ALLOWED = "not_allowed"
    """Its address leads where nothing may be fetched from."""
    TOO_LARGE = "too_large"
    NO_PICTURE = "no_picture"
    """Not a picture, or none of a kind that can be read."""
    UNSUPPORTED = "unsupported"
    """A file of a kind that is not read."""
    ENCRYPTED = "encrypted"
    """A password is needed."""
    DAMAGED = "damaged"
    NO_TEXT = "no_text"
    """There are no words in it: a scanned document, for example."""
    TOO_SLOW = "too_slow"
    """Reading it took longer than it may."""
    TOO_COSTLY = "too_costly"
    """Reading it takes more memory than it may: as archives that unpack to gigabytes do."""
    BUSY = "busy"
    """Too many others wait to be read."""
    OFF = "off"
    """The operator does not want it read."""
    TOO_MANY = "too_many"
    """Beyond the number that one message may have."""


class MediaError(ClawError):
    """A picture or file could not be had; `reason` is for the operator, and names no URL."""

    def __init__(self, reason: str, problem: MediaProblem = MediaProblem.NOT_FETCHED) -> None:
        super().__init__(reason)
        self.reason = reason
        self.problem = problem
