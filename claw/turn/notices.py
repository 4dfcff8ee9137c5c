"""Notices: what a person or an owner is told when an answer is given up."""

from __future__ import annotations

import re
from typing import Final

from claw.errors import DingTalkError
from claw.language import Language, choose
from claw.messages import Answer, ChatKind, Inbound, Outcome
from claw.observe.redact import redact
from claw.turn import owner_texts, texts
from claw.turn.commands.formatting import strip_markup
from claw.turn.languages import PersonalLanguages

UNNAMED: Final = "-"
_MARKUP: Final = re.compile(r"[`*\[\]()<>#|~\\\s]+")


class Notices:
    """Words notices; `language` is the operator's, people are told in their own."""

    def __init__(self, language: Language, languages: PersonalLanguages) -> None:
        self._language = language
        self._languages = languages

    async def undelivered_notice(self, inbound: Inbound) -> Answer:
        """Tell the person, in their direct chat, that the answer to `inbound` did not get through."""
        language = await self._languages.recall(inbound)
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

    def budget_alert(self, quota: str, used: int, limit: int) -> Answer:
        """Tell an owner that a part of a month's quota (a field of BillableCalls) is used up."""
        text = texts.BUDGET_ALERT[self._language].format(
            quota=texts.QUOTA_NAMES[quota][self._language], used=used, limit=limit, percent=100 * used // limit
        )
        return Answer.of(text, Outcome.ANSWERED)

    def operator_alert(self, kind: str, cause: str, seconds: float) -> Answer:
        """Tell an owner of trouble; `seconds` is how long it lasted."""
        # Names of variables keep their underscores: they are what the owner has to look for.
        told = (
            _MARKUP.sub(" ", redact(choose(cause, self._language)))[: owner_texts.ALERT_CAUSE_MAX_CHARS].strip()
            or UNNAMED
        )
        minutes = max(1, round(seconds / 60))
        text = owner_texts.ALERTS[kind][self._language].format(cause=told, minutes=minutes)
        return Answer.of(text, Outcome.ANSWERED)

    def _name_chat(self, inbound: Inbound, language: Language) -> str:
        if inbound.conversation.kind is ChatKind.DIRECT:
            return texts.IN_DIRECT_CHAT[language]
        return texts.IN_GROUP[language].format(title=strip_markup(inbound.conversation.title) or UNNAMED)
