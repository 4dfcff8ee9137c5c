"""Notices: what a person or an owner is told when an answer is given up."""

from __future__ import annotations

from typing import Final

from claw.errors import DingTalkError
from claw.language import Language, detect_language
from claw.messages import Answer, ChatKind, Inbound, Outcome
from claw.turn import texts
from claw.turn.commands.handlers import strip_markup

UNNAMED: Final = "-"


class Notices:
    """Words notices; `language` is the operator's, and of people whose language does not show."""

    def __init__(self, language: Language) -> None:
        self._language = language

    def undelivered_notice(self, inbound: Inbound) -> Answer:
        """Tell the person, in their direct chat, that the answer to `inbound` did not get through."""
        language = self._language_of(inbound)
        text = texts.UNDELIVERED[language].format(
            chat=self._name_chat(inbound, language), question=strip_markup(inbound.text) or UNNAMED
        )
        return Answer.of(text, Outcome.ANSWERED)

    def undelivered_alert(self, inbound: Inbound, error: Exception) -> Answer:
        """Tell an owner that the answer to `inbound` was given up, and why."""
        cause = error.detail if isinstance(error, DingTalkError) else type(error).__name__
        text = texts.UNDELIVERED_ALERT[self._language].format(
            chat=self._name_chat(inbound, self._language),
            person=strip_markup(inbound.sender.nick) or inbound.sender.staff_id or UNNAMED,
            cause=cause,
        )
        return Answer.of(text, Outcome.ANSWERED)

    def _language_of(self, inbound: Inbound) -> Language:
        return detect_language(inbound.text, self._language)

    def _name_chat(self, inbound: Inbound, language: Language) -> str:
        if inbound.conversation.kind is ChatKind.DIRECT:
            return texts.IN_DIRECT_CHAT[language]
        return texts.IN_GROUP[language].format(title=strip_markup(inbound.conversation.title) or UNNAMED)
