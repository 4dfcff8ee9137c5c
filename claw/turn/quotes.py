"""Quotes: what a message replies to, found again where it came without its words.

Order of events: a quote that came with something to read is taken as it is. Otherwise the store is asked, by DingTalk's
ids; a message of the robot's own that went by a webhook has none, and is found by its time. What is not found stays a
quote without parts: the model and the person are told that it could not be read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from claw.parts import Mark, Quote
from claw.store.ports import MessageIndex

SENT_WITHIN_S: Final = 10.0
"""Seconds by which DingTalk's time of a message of ours, and the time at which we were done with it, may differ."""


async def resolve_quote(index: MessageIndex, chat_key: str, quote: Quote) -> Quote:
    """Return the quote with its parts, as far as they can be had. Raises StoreError."""
    if any(not isinstance(part, Mark) for part in quote.parts):
        return quote
    # Both names: which of them a quote tells depends on how the quoted message was sent.
    ids = [each for each in (quote.message_id, quote.process_query_key) if each]
    found = await index.find_message(chat_key, ids) if ids else None
    if found is None and quote.by_robot and quote.created_at:
        found = await index.find_sent(chat_key, quote.created_at, SENT_WITHIN_S)
    if found is None:
        return quote
    return replace(
        quote, parts=found.parts, speaker=quote.speaker or found.speaker, by_robot=quote.by_robot or found.by_robot
    )
