"""How an answer ended, by the server's own word for it: `finish_reason`, which everybody spells in their own way.

A word that nobody knows is `UNKNOWN`: the answer is shown, and the word is told in the log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Final


class FinishReason(StrEnum):
    """What a person or an operator has to know about an answer's end."""

    NONE = "none"
    """The server did not say. Where it ended the body in good order, that is an end as well."""
    STOP = "stop"
    """The model had said all."""
    LENGTH = "length"
    """It reached a limit of tokens, or ours."""
    CONTENT_FILTER = "content_filter"
    """A policy cut it off."""
    TOOL_CALLS = "tool_calls"
    """The model wants a tool called. An agent runs it by itself, and goes on; nobody else offered one."""
    ABORTED = "aborted"
    """The server broke it off by itself."""
    UNKNOWN = "unknown"

    @classmethod
    def parse(cls, word: str) -> FinishReason:
        """Return the reason that a server's word stands for, in any case and with any separators."""
        return _WORDS.get(_SEPARATORS.sub("_", word.strip().lower()), cls.UNKNOWN)

    @property
    def is_whole(self) -> bool:
        """Whether what came is all that the model would say. A tool call without its result is no half answer."""
        return self not in {FinishReason.LENGTH, FinishReason.CONTENT_FILTER, FinishReason.ABORTED}


_SEPARATORS: Final = re.compile(r"[\s.:-]+")
_SPELLINGS: Final = {
    # Some servers write the absence out.
    FinishReason.NONE: "null none nil undefined finish_reason_unspecified",
    # Hugging Face TGI, Anthropic, Gemini, Cohere and the proxies that pass their words on.
    FinishReason.STOP: "stop eos eos_token end_turn end_of_turn stop_sequence stopped end complete completed finish"
    " finished done eog",
    FinishReason.LENGTH: "length max_tokens max_output_tokens max_length model_length token_limit"
    " model_context_window_exceeded context_length_exceeded",
    # `sensitive` is Zhipu's; `refusal` Anthropic's; the last line Gemini's and Bedrock's.
    FinishReason.CONTENT_FILTER: "content_filter content_filtered sensitive refusal moderation data_inspection_failed"
    " safety blocklist prohibited_content recitation spii guardrail_intervened error_toxic",
    FinishReason.TOOL_CALLS: "tool_calls tool_call tool_use function_call function_calls",
    # `network_error` is Zhipu's, `insufficient_system_resource` DeepSeek's, `abort` vLLM's, `error` OpenRouter's.
    FinishReason.ABORTED: "abort aborted error cancelled canceled network_error insufficient_system_resource timeout",
}


def _pairs() -> Iterator[tuple[str, FinishReason]]:
    for reason, words in _SPELLINGS.items():
        yield from ((word, reason) for word in words.split())


_WORDS: Final = {"": FinishReason.NONE, **dict(_pairs())}
