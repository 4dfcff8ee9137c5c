"""Settings of answers: how they are shown, and what they may cost."""

from __future__ import annotations

from dataclasses import dataclass

from claw.config.parsers import Duration, Integer, OneOf, PlainText
from claw.config.variables import variable
from claw.policy import ReactionMode, ReplyMode


@dataclass(frozen=True)
class ReplySettings:
    """How an answer is shown, and what it may cost."""

    mode: ReplyMode = variable(
        "CLAW_REPLY_MODE",
        OneOf(ReplyMode),
        "How answers are shown: `markdown` (messages, once whole), `card` (AI cards that grow, with a stop button;"
        " messages where a card cannot be had), `auto` (cards while the month's budget lasts)",
        default=ReplyMode.MARKDOWN,
        default_text="markdown",
    )
    card_template: str = variable(
        "CLAW_CARD_TEMPLATE_ID",
        PlainText(),
        "Template of the cards; our own is in `deploy/card/`",
        # docs/protocol.md section 7.5: the official demo, which needs no template of one's own.
        default="8aebdfb9-28f4-4a98-98f5-396c3dde41a0.schema",
    )
    card_key: str = variable(
        "CLAW_CARD_KEY", PlainText(), "The variable of that template that shows the text", default="content"
    )
    card_max_chars: int = variable(
        "CLAW_CARD_MAX_CHARS",
        Integer(200, 20_000),
        "Characters that a card of that template shows; the rest of an answer follows as messages",
        # docs/protocol.md sections 7.3 and 10a: some templates show nothing beyond about 3,000.
        default=3000,
    )
    reaction: ReactionMode = variable(
        "CLAW_REACTION",
        OneOf(ReactionMode),
        "A reaction on a person's message as the sign that it arrived: `on`, `off`, `auto` (where nothing else shows"
        " after 2 s, while the month's budget lasts)",
        default=ReactionMode.AUTO,
        default_text="auto",
    )
    patience: float = variable(
        "CLAW_PATIENCE",
        Duration(1, 3600, off=True),
        'Seconds after which one "still working" message is sent where answers are messages; 0: never',
        default=20.0,
        default_text="20",
    )
    monthly_api_calls: int = variable(
        "CLAW_MONTHLY_API_CALLS",
        Integer(0, 1_000_000_000),
        "OpenAPI calls that the organisation has a month; 0: unlimited",
        default=5000,
    )
    monthly_webhook_calls: int = variable(
        "CLAW_MONTHLY_WEBHOOK_CALLS",
        Integer(0, 1_000_000_000),
        "Webhook and Stream calls that the organisation has a month; 0: unlimited",
        default=3000,
    )
    max_parts: int = variable(
        "CLAW_ANSWER_MAX_PARTS",
        Integer(1, 100),
        "Messages that one answer may cost; what is beyond is sent as a file, or told to the person",
        default=5,
    )
