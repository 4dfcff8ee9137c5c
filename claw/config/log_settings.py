"""Settings of what is written: to people, in their language, and to the log."""

from __future__ import annotations

from dataclasses import dataclass

from claw.config.parsers import Choice, OneOf
from claw.config.variables import variable
from claw.language import Language


@dataclass(frozen=True)
class LogSettings:
    """What the operator and the people read."""

    language: Language = variable(
        "CLAW_LANG",
        OneOf(Language),
        "Language where a message shows none: `zh` or `en`",
        default=Language.ZH,
        default_text="zh",
    )
    level: str = variable(
        "CLAW_LOG_LEVEL",
        Choice(("debug", "info", "warning", "error")),
        "`debug`, `info`, `warning` or `error`",
        default="info",
    )
    format: str = variable(
        "CLAW_LOG_FORMAT",
        Choice(("json", "text")),
        "`json` or `text`",
        default="",
        default_text="json; text on a terminal",
    )
