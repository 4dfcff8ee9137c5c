"""The Responses API: a chat completion's request as `POST /responses` takes it, and its typed events as they come.

Order of events: `to_request` turns the fields of a chat completion, which the rest of this room speaks, into those of
`/responses` (system messages become `instructions`, the others `input`). `ResponsesParser` reads what comes back: each
event names itself by `type`; text comes by `response.output_text.delta`, what the agent does by items that are added,
and the end by `response.completed`, `.incomplete` or `.failed`. Whatever else an event is called, it is passed over.

Facts: OpenAI's reference of streaming responses; docs/openclaw.md for the gateway's endpoint. Conversations are kept
by `user` there, so that no `previous_response_id` is sent, which would have to outlive restarts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from claw.draft import Activity, ActivityKind
from claw.turn.model.activity import clean_name
from claw.turn.model.finish import FinishReason
from claw.turn.model.sse import EventError, StreamParser, clip_text, parse_usage

PATH: Final = "/responses"
MAX_OUTPUT_TOKENS_MIN: Final = 16
"""OpenAI refuses a lower limit."""
USAGE_NAMES: Final = ("input_tokens", "output_tokens")
_DROPPED: Final = frozenset({"messages", "stream_options", "max_completion_tokens", "max_tokens"})
_TEXT_EVENTS: Final = frozenset({"response.output_text.delta", "response.refusal.delta"})
_PARAGRAPH: Final = "\n\n"
"""Between two messages of one response, as an agent says something, runs a tool, and says more."""


def to_request(fields: Mapping[str, Any], *, is_gateway: bool = False) -> dict[str, Any]:
    """Return the body of `POST /responses` for the fields of a chat completion; an OpenClaw gateway's differs."""
    messages: Sequence[Mapping[str, Any]] = fields["messages"]
    body = {name: value for name, value in fields.items() if name not in _DROPPED}
    instructions = [str(each["content"]) for each in messages if each.get("role") == "system"]
    if instructions:
        body["instructions"] = _PARAGRAPH.join(instructions)
    body["input"] = [_to_item(each, is_gateway=is_gateway) for each in messages if each.get("role") != "system"]
    limit = fields.get("max_completion_tokens") or fields.get("max_tokens")
    if limit:
        body["max_output_tokens"] = max(MAX_OUTPUT_TOKENS_MIN, int(limit))
    # OpenAI keeps every response for a month unless it is told not to: what colleagues say is nobody's to keep.
    body["store"] = False
    return body


def _to_item(message: Mapping[str, Any], *, is_gateway: bool) -> dict[str, Any]:
    role, content = message.get("role"), message.get("content")
    # What the model said itself is an output, wherever it stands.
    kind = "output_text" if role == "assistant" else "input_text"
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    content = [_to_part(part, kind, is_gateway=is_gateway) for part in parts]
    # The type may be left out at OpenAI, and may not at a gateway.
    return {"type": "message", "role": role, "content": content}


def _to_part(part: Mapping[str, Any], kind: str, *, is_gateway: bool) -> dict[str, Any]:
    if part.get("type") == "image_url":
        url = part["image_url"]["url"]
        if not is_gateway:
            return {"type": "input_image", "image_url": url}
        # A gateway takes the parts of a `data:` URL, each by its name.
        head, _, data = url.partition(",")
        media_type = head.removeprefix("data:").partition(";")[0]
        return {"type": "input_image", "source": {"type": "base64", "media_type": media_type, "data": data}}
    return {"type": kind, "text": part.get("text") or ""}


class ResponsesParser(StreamParser):
    """Parses one response, as its base does with a chat completion."""

    _item: object = None
    """Which of the response's messages the last text was of."""

    def _dispatch(self, name: bytes, chunk: dict[str, Any]) -> str:
        kind = clip_text(chunk.get("type")) or name.decode("ascii", "replace")
        response = chunk.get("response")
        if isinstance(response, dict):
            self.model = self.model or clip_text(response.get("model"))
            self.id = self.id or clip_text(response.get("id"))
        if kind in {"error", "response.error"} or (chunk.get("error") and not kind.startswith("response.")):
            raise EventError(chunk)
        if kind in _TEXT_EVENTS:
            return self._take_delta(chunk)
        if kind in {"response.completed", "response.incomplete", "response.failed", "response.cancelled"}:
            return self._take_end(kind, response if isinstance(response, dict) else {})
        self._note_activity(kind, chunk)
        return ""

    def _take_body(self, data: bytes) -> str:
        # A server that ignored `stream` answers with the response itself.
        body = self._decode_body(data)
        if body.get("object") != "response":
            raise EventError(body)
        self.model, self.id = clip_text(body.get("model")), clip_text(body.get("id"))
        return self._take_end(f"response.{clip_text(body.get('status')) or 'completed'}", body)

    def _take_delta(self, chunk: Mapping[str, Any]) -> str:
        delta = chunk.get("delta")
        if not isinstance(delta, str) or not delta:
            return ""
        item = chunk.get("item_id") or chunk.get("output_index")
        is_next = self.has_text and item != self._item
        self._item = item
        return self._append(_PARAGRAPH + delta if is_next else delta)

    def _take_end(self, kind: str, response: Mapping[str, Any]) -> str:
        self.usage = parse_usage(response.get("usage"), USAGE_NAMES) or self.usage
        if kind == "response.failed":
            # Under `error`, where the table of errors looks; a status that says nothing would be a word of its own.
            raise EventError({"error": response.get("error") or {"message": "the response failed"}})
        # Some servers send no pieces: then the whole is in the last event, and only there.
        text = self._append(_read_output(response)) if not self.has_text else ""
        self.finish_reason = _read_finish(kind, response)
        self.done = True
        return text

    def _note_activity(self, kind: str, chunk: Mapping[str, Any]) -> None:
        if kind.startswith("response.reasoning"):
            self._note(Activity(ActivityKind.THINKING))
        elif kind == "response.output_item.added" and isinstance(item := chunk.get("item"), dict):
            what = clip_text(item.get("type"))
            if what == "reasoning":
                self._note(Activity(ActivityKind.THINKING))
            elif what.endswith("_call"):
                # `function_call` names its function; `web_search_call` and its kind are named by themselves.
                called = clip_text(item.get("name")) or what.removesuffix("_call")
                self._note(Activity(ActivityKind.TOOL, clean_name(called)))


def _read_finish(kind: str, response: Mapping[str, Any]) -> str:
    """Return the end in the words of a chat completion, which finish.py knows."""
    if kind == "response.cancelled":
        return "cancelled"
    if kind != "response.incomplete":
        return FinishReason.STOP.value
    details = response.get("incomplete_details")
    reason = clip_text(details.get("reason")) if isinstance(details, dict) else ""
    return reason or FinishReason.LENGTH.value


def _read_output(response: Mapping[str, Any]) -> str:
    """Return what all messages of a whole response say."""
    output = response.get("output")
    texts = []
    for item in output if isinstance(output, list) else []:
        parts = item.get("content") if isinstance(item, dict) and item.get("type") == "message" else None
        said = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
        words = (part.get("text") or part.get("refusal") for part in said)
        texts.append("".join(word for word in words if isinstance(word, str)))
    return _PARAGRAPH.join(filter(None, texts))
