"""Seeded mutations of what others send us, and the parsers that must survive them.

Order of events: an official vector (a frame, an answer of the gateway, the webhook, the OpenAPI, a model) is mutated as
bytes or as JSON, a few times over; its parser gets the result. A parser may raise the errors that it declares, and
nothing else, must come back soon, and must give what it promises.
"""

from __future__ import annotations

import copy
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from claw.config.settings import Credentials
from claw.dingtalk.client import parse_json_object
from claw.dingtalk.codes import classify
from claw.dingtalk.quota import Api
from claw.errors import DingTalkError, FrameError, GatewayError
from claw.messages import Inbound
from claw.secret import Secret
from claw.stream import frames, gateway
from claw.stream.inbound import to_inbound
from claw.turn.model import sse
from tests.stream import vectors

SLOW_S: Final = 1.0
"""Seconds beyond which a parser hangs, whatever it was given."""
WHOLE_MAX: Final = 400_000
"""Characters of an input; mutations that double their size end here."""
CREDENTIALS: Final = Credentials("dingfakeclient", Secret("not-a-real-secret"))

ODD: Final[tuple[Any, ...]] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    200,
    10**30,
    -(10**4000),
    1.5,
    1e308,
    "",
    "0",
    " ",
    "\ud800",
    "\x00",
    "\u202e",
    "😀",
    "[]",
    "{}",
    '{"content":"x"}',
    '[{"text":1}]',
    "null",
    "x" * 5000,
    [],
    {},
    [[]],
    [None],
    {"": None},
    {"content": []},
    [{"type": "picture", "downloadCode": 5}],
)
"""Values that stand where another type is expected."""
BITS: Final = (
    b"\x00",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\r",
    b"\n\n",
    b"{",
    b"}",
    b"[" * 2000,
    b'"',
    b"\\",
    b"\\ud800",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"9" * 5000,
    b"data: ",
    b"event: error\n",
    b"data: [DONE]\n\n",
    b"<html>",
    b":",
)
NAMES: Final = (
    "type",
    "headers",
    "data",
    "msgtype",
    "content",
    "text",
    "richText",
    "errcode",
    "sub_code",
    "code",
    "choices",
    "delta",
    "message",
    "usage",
    "error",
    "index",
    "finish_reason",
    "repliedMsg",
    "atUsers",
)


class BrokenPromiseError(AssertionError):
    """A parser gave what it may not give."""


@dataclass(frozen=True, slots=True)
class Target:
    """A parser, what it is given, and what it may raise."""

    name: str
    seeds: tuple[bytes, ...]
    parse: Callable[[bytes, random.Random], None]
    declared: tuple[type[Exception], ...] = ()


@dataclass
class Outcome:
    """What came of many inputs."""

    tried: int = 0
    by_target: Counter[str] = field(default_factory=Counter)
    """Inputs that were taken, as `name: taken`, and that were refused as declared, as `name: refused`."""
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0
    """Seconds."""


# --- mutations -----------------------------------------------------------------------------------------------------


def mutated(seed: bytes, draw: random.Random) -> bytes:
    """One to four mutations, each of the bytes or of the JSON in them."""
    for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 4))):
        changed = _of_json(seed, draw) if draw.random() < 0.6 else None
        seed = (changed if changed is not None else _of_bytes(seed, draw))[:WHOLE_MAX]
    return seed


def _of_bytes(seed: bytes, draw: random.Random) -> bytes:
    at, to = sorted((draw.randint(0, len(seed)), draw.randint(0, len(seed))))
    match draw.randrange(6):
        case 0:
            return seed[:at] + draw.choice(BITS) + seed[at:]
        case 1:
            return seed[:at] + seed[to:]
        case 2:
            return seed[:to] + seed[at:to] + seed[to:]
        case 3:
            return seed[:at] + draw.randbytes(draw.randint(1, 8)) + seed[at + 1 :]
        case 4:
            return seed[:at]
        case _:
            return seed[:at] + bytes(byte ^ (1 << draw.randrange(8)) for byte in seed[at : at + 3]) + seed[at + 3 :]


def _of_json(seed: bytes, draw: random.Random) -> bytes | None:
    """Change one node of the JSON, also of JSON inside of its texts; None where there is none."""
    try:
        value = json.loads(seed)
    except (ValueError, RecursionError):
        return _of_event(seed, draw)
    try:
        return json.dumps(_changed(value, draw, 0), ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return None


def _of_event(seed: bytes, draw: random.Random) -> bytes | None:
    """Change the JSON of one line of an event stream."""
    lines = seed.split(b"\n")
    chosen = [number for number, line in enumerate(lines) if line.startswith(b"data: {")]
    if not chosen:
        return None
    number = draw.choice(chosen)
    inner = _of_json(lines[number].removeprefix(b"data: "), draw) if len(lines) > 1 else None
    if inner is None:
        return None
    lines[number] = b"data: " + inner
    return b"\n".join(lines)


def _changed(value: Any, draw: random.Random, depth: int) -> Any:
    if depth > 20 or draw.random() < 0.15:
        return copy.deepcopy(draw.choice(ODD))
    if isinstance(value, dict) and value:
        name = draw.choice(list(value))
        match draw.randrange(6):
            case 0:
                return {key: each for key, each in value.items() if key != name}
            case 1:
                return value | {draw.choice(NAMES): copy.deepcopy(draw.choice(ODD))}
            case _:
                return value | {name: _changed(value[name], draw, depth + 1)}
    if isinstance(value, list) and value:
        number = draw.randrange(len(value))
        if draw.random() < 0.2:
            return value * 2
        return [*value[:number], _changed(value[number], draw, depth + 1), *value[number + 1 :]]
    if isinstance(value, str) and value[:1] in {"{", "["}:
        try:
            return json.dumps(_changed(json.loads(value), draw, depth + 1))
        except (ValueError, RecursionError):
            return value[: draw.randint(0, len(value))]
    if isinstance(value, str) and draw.random() < 0.5:
        at = draw.randint(0, len(value))
        return value[:at] + draw.choice(("", "\ud83d", "\x00", "é", "{", "@", ":", " ", value)) + value[at + 1 :]
    return copy.deepcopy(draw.choice(ODD))


# --- parsers -------------------------------------------------------------------------------------------------------


def _promise(kept: object, what: str) -> None:
    if not kept:
        raise BrokenPromiseError(what)


def _frame(data: bytes, _: random.Random) -> None:
    """A text frame, as aiohttp gives it: UTF-8 that was checked."""
    text = data.decode("utf-8", "replace")
    frame = frames.parse(text)
    frames.ack(frame.message_id, 200, "{}").encode()
    frames.disconnect_reason(frame).encode()
    if frame.kind is frames.FrameKind.ROBOT:
        inbound = to_inbound(frame, "dingfakeclient")
        _promise(isinstance(inbound, Inbound) and inbound.msg_id, "a message without an id")
        _promise(inbound.conversation.id and inbound.robot_code, "a message that nobody can be answered for")
        for text in (inbound.text, inbound.to_json(), inbound.sender.nick, inbound.conversation.title, inbound.msg_id):
            text.encode()


def _gateway(data: bytes, draw: random.Random) -> None:
    status = draw.choice((200, 200, 200, 200, 200, 200, 201, 301, 400, 401, 403, 429, 500, 503))
    wait = draw.choice(("", "5", "99999999999", "-1", "nan", "Wed, 21 Oct 2026 07:28:00 GMT", "٣", "1e9", "soon"))
    headers = {"Retry-After": wait, "Content-Type": draw.choice(("application/json", "text/html", ""))}
    try:
        registration = gateway.parse_registration(status, headers, data, CREDENTIALS, now=1.8e9)
    except GatewayError as error:
        gateway.rejection_text(error).encode()
        _promise(error.retry_after is None or 0 <= error.retry_after <= 3600, "a wait that is none")
        _promise("not-a-real-secret" not in str(error), "the secret in an error")
        raise
    _promise(registration.host and registration.url.reveal().startswith(("ws", "WS")), "an endpoint that is none")


def _answer(data: bytes, api: Api, draw: random.Random) -> None:
    body = parse_json_object(data)
    status = draw.choice((200, 200, 200, 204, 302, 400, 401, 403, 404, 408, 429, 500, 502, 503, 504))
    error = classify(api, status, body)
    _promise(error is None or isinstance(error, DingTalkError), "neither good nor an error")
    if error is None:
        _promise(200 <= status < 300 and body, "success without an answer")
    else:
        str(error).encode("utf-8", "surrogatepass")
        _promise(len(str(error)) < 2000, "an error that quotes the answer")
        _promise(error.retry_after is None or 0 <= error.retry_after <= 3600, "a wait that is none")


def _webhook(data: bytes, draw: random.Random) -> None:
    _answer(data, Api.WEBHOOK, draw)


def _openapi(data: bytes, draw: random.Random) -> None:
    _answer(data, draw.choice((Api.TOKEN, Api.DIRECT, Api.GROUP, Api.DOWNLOAD)), draw)


def _model(data: bytes, draw: random.Random) -> None:
    """A model's answer in pieces of any size: the same text, however it was cut."""
    whole, cut = sse.StreamParser(), sse.StreamParser()
    told = [_read(whole, [data]), _read(cut, list(_pieces(data, draw)))]
    _promise(told[0] == told[1], f"another answer by other cuts: {told[0]!s:.80} {told[1]!s:.80}")
    for reading in (whole, cut):
        _promise(len(reading.text) <= sse.TEXT_MAX_CHARS, "more text than there may be")
        reading.text.encode()
        for word in (reading.model, reading.id, reading.finish_reason):
            _promise(len(word) <= sse.FIELD_MAX_CHARS, "a word that is too long")
    if isinstance(told[0], Exception):
        raise told[0]


def _read(reading: sse.StreamParser, pieces: list[bytes]) -> object:
    """What came of it; an error by its type and words."""
    out = []
    try:
        for piece in pieces:
            out.append(reading.feed(piece))
            if reading.finished:
                break
        out.append(reading.end())
    except sse.UnreadableError as error:
        return _Told(type(error), str(error))
    except sse.EventError as error:
        return _Told(type(error), repr(error.body)[:500])
    _promise("".join(out) == reading.text, "pieces that are not the whole")
    return "".join(out)


class _Told(Exception):  # noqa: N818 - carries an error to compare it
    def __init__(self, kind: type[Exception], words: str) -> None:
        super().__init__(kind.__name__, words)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Told) and self.args == other.args

    def __hash__(self) -> int:
        return hash(self.args)


def _pieces(data: bytes, draw: random.Random) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        size = draw.choice((1, 2, 3, 7, 64, 1000)) if len(data) < 20_000 else 5000
        yield data[at : at + size]
        at += size


# --- vectors -------------------------------------------------------------------------------------------------------


def _dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _messages() -> Iterator[bytes]:
    """Robot messages of every type (docs/protocol.md sections 5.2 and 5.3)."""
    bodies: list[dict[str, Any]] = [
        {"msgtype": "text", "text": {"content": "hello"}},
        {"msgtype": "picture", "content": {"downloadCode": "c", "pictureDownloadCode": "p"}},
        {"msgtype": "audio", "content": {"duration": 1, "downloadCode": "c", "recognition": "said"}},
        {"msgtype": "file", "content": {"downloadCode": "c", "fileName": "a.txt"}},
        {
            "msgtype": "richText",
            "content": {"richText": [{"text": "a"}, {"type": "picture", "downloadCode": "c"}, {"type": "at"}]},
        },
        {"msgtype": "chatRecord", "content": {"title": "t", "chatRecord": '[{"senderNick":"A","content":"x"}]'}},
        {"msgtype": "interactiveCard", "content": {"cardContent": '[{"value":"v","children":[{"value":"w"}]}]'}},
        {
            "msgtype": "text",
            "text": {
                "content": "why?",
                "isReplyMsg": True,
                "repliedMsg": {"msgType": "richText", "content": {"richText": [{"text": "because"}]}},
            },
        },
        {"msgtype": "text", "errCode": "20001"},
    ]
    for body in bodies:
        yield vectors.frame(vectors.DIRECT | body).encode()


def _events(*chunks: object) -> bytes:
    return b"".join(b"data: " + _dump(chunk) + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


def _chunk(delta: object, finish: str | None = None, **more: object) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]} | more


TARGETS: Final = (
    Target(
        "frame",
        (
            *(
                each.encode()
                for each in (vectors.PING, vectors.DISCONNECT, vectors.EVENT, vectors.ROBOT, vectors.robot())
            ),
            vectors.frame(vectors.CARD_DATA, topic=vectors.CARD_TOPIC).encode(),
            *_messages(),
        ),
        _frame,
        (FrameError,),
    ),
    Target(
        "gateway",
        (
            *[vectors.GATEWAY_OK.encode()] * 4,
            vectors.GATEWAY_401.encode(),
            b'{"code":"x.not-a-real-secret","message":"not-a-real-secret"}',
            b'{"punish":"deny","wait":5}',
            b"<html></html>",
        ),
        _gateway,
        (GatewayError,),
    ),
    Target(
        "webhook",
        (
            b'{"errcode":0,"errmsg":"ok"}',
            b'{"errcode":300001,"errmsg":"session"}',
            b'{"errcode":88,"sub_code":"90018","errmsg":"wrapped"}',
            b'{"errcode":"-1"}',
        ),
        _webhook,
    ),
    Target(
        "openapi",
        (
            b'{"accessToken":"0123456789abcdef0123456789abcdef","expireIn":7200}',
            b'{"processQueryKey":"pqk","invalidStaffIdList":[],"flowControlledStaffIdList":[]}',
            b'{"processQueryKey":"pqk","invalidStaffIdList":["u"],"flowControlledStaffIdList":["u"]}',
            b'{"downloadUrl":"https://down.dingtalk.com/x?y=z"}',
            _dump(
                {
                    "code": "Forbidden.AccessDenied.AccessTokenPermissionDenied",
                    "requestid": "R",
                    "message": "m",
                    "accessdenieddetail": {"requiredScopes": ["qyapi_robot_sendmsg"]},
                }
            ),
            b'{"errcode":88,"sub_code":40014,"code":"InvalidAuthentication"}',
        ),
        _openapi,
    ),
    Target(
        "model",
        (
            _events(
                _chunk({"role": "assistant", "content": ""}),
                _chunk({"content": "Hel"}),
                _chunk({"content": "lo 😀"}),
                _chunk({}, "stop"),
                {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
            ),
            b": keepalive\r\n\r\nevent: message\r\ndata: "
            + json.dumps(_chunk({"content": "\ud83d"})).encode()
            + b"\r\n\r\ndata: "
            + json.dumps(_chunk({"content": "\ude00"}, "length")).encode()
            + b"\r\n\r\n",
            b'event: error\ndata: {"error":{"message":"overloaded","code":529}}\n\n',
            b'data: {"error":"bad"}\n\n',
            _dump({"choices": [{"message": {"content": "whole"}, "finish_reason": "stop"}], "model": "m"}),
            _dump({"choices": [{"message": {"content": [{"type": "text", "text": "part"}]}}]}),
            b"<html>502</html>",
        ),
        _model,
        (_Told,),
    ),
)


def fuzz(seed: int, count: int, targets: Sequence[Target] = TARGETS) -> Outcome:
    """Give `count` mutations, in turn, to every parser; nothing is raised, faults are listed with their input."""
    outcome = Outcome()
    for number in range(count):
        target = targets[number % len(targets)]
        draw = random.Random(f"{seed}/{number}")
        data = mutated(draw.choice(target.seeds), draw)
        began = time.perf_counter()
        try:
            target.parse(data, draw)
            outcome.by_target[f"{target.name}: taken"] += 1
        except target.declared:
            outcome.by_target[f"{target.name}: refused"] += 1
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            outcome.faults.append(f"{target.name} #{number}: {type(error).__name__}: {error!s:.200} on {data[:500]!r}")
        took = time.perf_counter() - began
        if took > SLOW_S:
            outcome.faults.append(f"{target.name} #{number}: {took:.1f} s for {len(data)} bytes")
        outcome.slowest = max(outcome.slowest, took)
        outcome.tried += 1
    return outcome
