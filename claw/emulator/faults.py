"""Every fault of the emulator as a switch, so that a test, a bench or a person on the page can turn it on.

Order of events: a handler reaches the place where DingTalk could fail and asks `take(name)`; it gets the value that
the switch has now. A switch with a budget counts that use, and goes back to its default after the last one. Every
change is told to the listeners (the gateway arms its timers anew, the page shows the new position).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final

Value = bool | int | float | str | dict[str, int] | None


STATUSES: Final = (0, 400, 401, 403, 404, 408, 409, 413, 429, 500, 502, 503, 504)
"""HTTP statuses that a switch takes; 0 is off."""


class FaultError(ValueError):
    """A switch that does not exist, or a value that it cannot take."""


def _switch(
    default: Any,
    group: str,
    zh: str,
    en: str,
    *,
    choices: tuple[Any, ...] = (),
    low: float | None = 0,
    high: float | None = None,
) -> Any:
    return dataclasses.field(
        default=default,
        metadata={"group": group, "zh": zh, "en": en, "choices": choices, "low": low, "high": high},
    )


def _flag(group: str, zh: str, en: str) -> Any:
    return _switch(False, group, zh, en)  # noqa: FBT003 - a default, not a mode


@dataclasses.dataclass
class Faults:
    """The switches. A default is what the real DingTalk does (docs/protocol.md section 10); times are in seconds."""

    # The gateway: POST /v1.0/gateway/connections/open
    gateway_status: int = _switch(
        0, "gateway", "注册接口返回此 HTTP 状态", "registration answers this HTTP status", choices=STATUSES
    )
    gateway_retry_after: float = _switch(
        0.0, "gateway", "429/503 附带 Retry-After（秒，0 为无）", "Retry-After sent with 429 and 503 (s, 0: none)"
    )
    gateway_hang: bool = _flag("gateway", "注册接口永不应答", "registration accepts and never answers")
    gateway_html: bool = _flag("gateway", "注册接口返回 HTML", "registration answers an HTML page")
    gateway_delay: float = _switch(0.0, "gateway", "注册接口延迟（秒）", "registration is delayed (s)")
    gateway_wrong_endpoint: bool = _flag(
        "gateway", "返回连不上的 endpoint", "the answer names an endpoint nobody listens on"
    )

    # The WebSocket
    refuse_upgrade: int = _switch(
        0, "websocket", "拒绝 WebSocket 升级（状态码）", "the upgrade is refused with this status", choices=STATUSES
    )
    bad_ticket_status: int = _switch(
        401, "websocket", "票据无效时的状态码", "status of an upgrade with a bad ticket", choices=STATUSES[1:]
    )
    hang_upgrade: bool = _flag("websocket", "升级请求永不应答", "the upgrade is never answered")
    close_after_accept: str = _switch(
        "", "websocket", "接受后立刻断开", "accepts, then ends at once", choices=("", "clean", "reset")
    )
    never_pong: bool = _flag("websocket", "从不回 pong", "WebSocket pings are never answered")
    zombie: bool = _flag("websocket", "僵尸连接：有 pong，不推送", "zombie: pongs flow, no frame is ever delivered")
    connection_ttl: float = _switch(
        7200.0,
        "websocket",
        "连接寿命，到期发 disconnect（秒，0 不限）",
        "age at which disconnect is sent (s, 0: never)",
    )
    disconnect_close_after: float | None = _switch(
        10.0,
        "websocket",
        "disconnect 后多久断 TCP（秒，空为永不）",
        "from disconnect to the end of the TCP (s, empty: never)",
    )
    no_message_id_on_disconnect: bool = _flag(
        "websocket", "disconnect 帧无 messageId", "the disconnect frame has no messageId"
    )
    connection_limit: int = _switch(50, "websocket", "连接数上限，超出则拒绝", "connections above this are refused")
    ping_interval: float = _switch(
        600.0, "websocket", "SYSTEM ping 间隔（秒）", "time between SYSTEM pings (s)", low=0.01
    )

    # Pushes
    repush_after: float = _switch(
        60.0, "push", "未确认多久后重推（秒）", "an unacked message is pushed again after (s)"
    )
    repush_times: int = _switch(1, "push", "最多重推次数", "how often it is pushed again at most")
    event_deadline: float = _switch(3.0, "push", "事件确认期限（秒）", "deadline of an event's ack (s)")
    event_first_retry: float = _switch(10.0, "push", "事件首次重推间隔（秒）", "first repeat of an event after (s)")
    event_second_retry: float = _switch(30.0, "push", "事件再次重推间隔（秒）", "second repeat of an event after (s)")
    duplicate_frames: bool = _flag("push", "每帧发送两次", "every push is sent twice")
    drop_frames: float = _switch(0.0, "push", "丢帧概率（0 到 1）", "probability that a push is lost (0 to 1)", high=1)
    reorder_frames: bool = _flag("push", "相邻两帧颠倒", "two neighbouring pushes change places")
    header_spelled_header: bool = _flag("push", "headers 写成 header", "headers is spelled header")
    numeric_time: bool = _flag("push", "time 为数字", "time is a number")
    stream_month_limit: int = _switch(
        0,
        "push",
        "每月 Webhook 与 Stream 额度（0 不限），用完则消息无内容",
        "monthly Stream quota (0: none); then empty messages",
    )

    # The session webhook
    webhook_status: int = _switch(
        0, "webhook", "Webhook 返回此状态", "the webhook answers this status", choices=STATUSES
    )
    webhook_errcode: int = _switch(
        0, "webhook", "Webhook 返回此 errcode（0 关闭）", "the webhook answers this errcode (0: off)", low=None
    )
    webhook_timeout_after_delivery: bool = _flag(
        "webhook", "送达后不应答", "delivers, then never answers: was it sent or not?"
    )
    webhook_delay: float = _switch(0.0, "webhook", "Webhook 延迟（秒）", "the webhook is delayed (s)")
    webhook_html: bool = _flag("webhook", "Webhook 返回 HTML", "the webhook answers an HTML page")

    # Tokens and the OpenAPI
    token_status: int = _switch(
        0, "openapi", "取令牌返回此状态", "the token call answers this status", choices=STATUSES
    )
    openapi_status: int = _switch(
        0, "openapi", "OpenAPI 返回此状态", "OpenAPI calls answer this status", choices=STATUSES
    )
    openapi_code: str = _switch("", "openapi", "出错时的 code", "the code of that answer (empty: by status)")
    openapi_delay: float = _switch(0.0, "openapi", "OpenAPI 延迟（秒）", "OpenAPI calls are delayed (s)")
    openapi_hang: bool = _flag("openapi", "OpenAPI 永不应答", "OpenAPI calls are never answered")
    openapi_month_limit: int = _switch(0, "openapi", "每月 OpenAPI 额度（0 不限）", "monthly OpenAPI quota (0: none)")
    flow_controlled: bool = _flag("openapi", "单聊发送被流控", "single sends: every user is flow-controlled")
    invalid_staff: bool = _flag("openapi", "单聊发送用户无效", "single sends: every user is invalid")
    emotion_status: int = _switch(
        0, "openapi", "表情接口返回此状态", "the emotion calls answer this status", choices=STATUSES
    )

    # Cards
    card_inner_failure: bool = _flag("card", "投放外层成功、内层失败", "delivery: outer success, inner failure")
    card_streaming_status: int = _switch(
        0, "card", "流式更新返回此状态", "streaming updates answer this status", choices=STATUSES
    )
    card_delay: float = _switch(0.0, "card", "卡片接口延迟（秒）", "card calls are delayed (s)")
    card_content_limit: int = _switch(
        20_000, "card", "卡片内容上限（字节）", "content of a card above this is too large (bytes)"
    )

    # The built-in model
    model_delay: float = _switch(0.0, "model", "首字延迟（秒）", "time before the first content (s)")
    model_chunk_delay: float = _switch(0.02, "model", "每块间隔（秒）", "time between two chunks (s)")
    model_status: int = _switch(0, "model", "模型返回此状态", "the model answers this status", choices=STATUSES)
    model_retry_after: float = _switch(0.0, "model", "附带 Retry-After（秒）", "Retry-After sent with it (s)")
    model_hang: bool = _flag("model", "模型永不应答", "the model never answers")
    model_cut: bool = _flag("model", "流到一半断开", "the stream is cut in the middle")
    model_error_in_stream: bool = _flag("model", "流中途报错", "an error arrives inside the stream")
    model_empty: bool = _flag("model", "回答为空", "the answer is empty")
    model_fixed_reply: str = _switch("", "model", "固定回答", "always this answer (empty: off)")

    fault_budget: dict[str, int] = dataclasses.field(default_factory=dict)
    """Uses left by switch; after the last one the switch goes back to its default."""

    def __post_init__(self) -> None:
        self._listeners: list[Callable[[str], None]] = []

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if not name.startswith("_"):
            for listener in self.__dict__.get("_listeners", ()):
                listener(name)

    def listen(self, listener: Callable[[str], None]) -> None:
        """Call `listener(name)` after every change of a switch."""
        self._listeners.append(listener)

    def take(self, name: str) -> Any:
        """Read the switch's value, counting one use of its budget if it is on."""
        value = getattr(self, name)
        left = self.fault_budget.get(name)
        if left is None or value == DEFAULTS[name]:
            return value
        if left <= 0:  # A budget of nothing: the switch was never meant to act.
            self._switch_off(name)
            return DEFAULTS[name]
        if left == 1:
            self._switch_off(name)
        else:
            self.fault_budget[name] = left - 1
        return value

    def _switch_off(self, name: str) -> None:
        self.fault_budget.pop(name, None)
        setattr(self, name, DEFAULTS[name])

    def update(self, values: Mapping[str, Value]) -> None:
        """Set the given switches, all or none. Raises FaultError naming the first that is wrong."""
        checked = {name: _check_value(name, value) for name, value in values.items()}
        for name, value in checked.items():
            setattr(self, name, value)

    def reset(self) -> None:
        """Put every switch back to its default."""
        self.fault_budget = {}
        for name, default in DEFAULTS.items():
            if getattr(self, name) != default:
                setattr(self, name, default)

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in DEFAULTS} | {"fault_budget": dict(self.fault_budget)}

    def active(self) -> dict[str, Any]:
        """List the switches that are not at their default."""
        return {name: value for name, value in self.to_dict().items() if name in DEFAULTS and value != DEFAULTS[name]}

    @staticmethod
    def describe() -> list[dict[str, Any]]:
        """Describe the switches as the page draws them."""
        return [
            {
                "name": field.name,
                "type": _KINDS[field.name].removesuffix(" | None"),
                "default": field.default,
                "group": field.metadata["group"],
                "choices": list(field.metadata["choices"]),
                "zh": field.metadata["zh"],
                "en": field.metadata["en"],
            }
            for field in dataclasses.fields(Faults)
            if field.name in DEFAULTS
        ]


_FIELDS: Final = {field.name: field for field in dataclasses.fields(Faults)}
_KINDS: Final = {name: str(field.type) for name, field in _FIELDS.items()}
DEFAULTS: Final[dict[str, Any]] = {name: field.default for name, field in _FIELDS.items() if field.metadata}


def _check_value(name: str, value: Value) -> Value:
    if name == "fault_budget":
        return _check_budget(value)
    if name not in DEFAULTS:
        raise FaultError(f"unknown fault {name!r}; known: {', '.join(DEFAULTS)}")
    kind = _KINDS[name]
    if value is None and kind.endswith("| None"):
        return None
    value = _check_type(name, kind.removesuffix(" | None"), value)
    limits = _FIELDS[name].metadata
    if limits["choices"] and value not in limits["choices"]:
        raise FaultError(f"{name}: {value!r} is not one of {list(limits['choices'])}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = limits["low"], limits["high"]
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            raise FaultError(f"{name}: {value!r} is out of range")
    return value


def _check_type(name: str, kind: str, value: Value) -> bool | int | float | str:
    if kind == "float" and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind == "int" and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "str" and isinstance(value, str):
        return value
    raise FaultError(f"{name}: expected {kind}, got {type(value).__name__}")


def _check_budget(value: Value) -> dict[str, int]:
    if not isinstance(value, dict):
        raise FaultError("fault_budget: expected an object of fault name to number of uses")
    for name, uses in value.items():
        if name not in DEFAULTS:
            raise FaultError(f"fault_budget: unknown fault {name!r}")
        if isinstance(uses, bool) or not isinstance(uses, int) or uses < 1:
            raise FaultError(f"fault_budget: {name}: expected a number of uses of at least 1")
    return dict(value)
