"""What an agent does, as its stream tells it: fields with its reasoning, tool calls, events about tools.

Pure functions over chunks that others wrote. Of reasoning only that there is some is read, never its words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from claw.draft import Activity, ActivityKind

NAME_MAX_CHARS: Final = 64
"""Characters of a tool's name that are shown."""
_REASONING_FIELDS: Final = ("reasoning_content", "reasoning", "reasoning_details", "thinking", "reasoning_text")
"""Where DeepSeek, Qwen, vLLM (two names), OpenRouter, Ollama and their like put it."""
_REASONING_TYPES: Final = frozenset({"thinking", "reasoning", "thinking_delta", "reasoning_text", "redacted_thinking"})
"""`type` of content parts that hold it, of Mistral, Anthropic and OpenAI."""
_TOOL_NAME_FIELDS: Final = ("tool_name", "tool", "name", "function")


def read_activity(choice: Mapping[str, Any]) -> Activity | None:
    """Read what a chunk's choice tells; None where that is nothing but text."""
    said = choice.get("delta")
    said = said if isinstance(said, dict) else choice.get("message")
    if not isinstance(said, dict):
        return None
    name = _read_tool_call(said)
    if name is not None:
        return Activity(ActivityKind.TOOL, name)
    # A part of the content may be a thought as well: some servers keep to the order in which both came.
    content = said.get("content")
    parts = content if isinstance(content, list) else [content]
    thinks = any(said.get(field) for field in _REASONING_FIELDS) or any(
        isinstance(part, dict) and isinstance(part.get("type"), str) and part["type"] in _REASONING_TYPES
        for part in parts
    )
    return Activity(ActivityKind.THINKING) if thinks else None


def read_tool_event(name: bytes, chunk: Mapping[str, Any]) -> str | None:
    """Return the tool that an event is about, such as `hermes.tool.progress`; None for any other event."""
    # A chat completion says what it is by `object`, whatever its event is called.
    if b"tool" not in name.lower().split(b".") or isinstance(chunk.get("choices"), list):
        return None
    return _find_name(chunk)


def _read_tool_call(said: Mapping[str, Any]) -> str | None:
    """Return the name of the tool that is called; None where none is, or where a call only goes on."""
    calls = said.get("tool_calls")
    # The name comes with the first piece of a call, the arguments with many later ones.
    for call in [*(calls if isinstance(calls, list) else []), {"function": said.get("function_call")}]:
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict) and isinstance(function.get("name"), str) and function["name"]:
            return clean_name(function["name"])
    return None


def _find_name(fields: Mapping[str, Any]) -> str:
    for field in _TOOL_NAME_FIELDS:
        value = fields.get(field)
        if isinstance(value, dict):
            value = value.get("name")
        if isinstance(value, str) and value.strip():
            return clean_name(value)
    return ""


def clean_name(name: str) -> str:
    """Return a name in one line without control characters, cut to what can be shown."""
    return "".join(each for each in " ".join(name.split()) if each.isprintable())[:NAME_MAX_CHARS]
