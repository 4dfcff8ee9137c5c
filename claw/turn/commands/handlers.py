"""What commands do: each is answered in one short message, in the language of the person.

Order of events: `CommandHandlers.obey` is called for somebody who may talk here; a command of the owner's by anybody
else gets a short no that tells nothing. What is changed here is kept in the registry, wins over the environment's
defaults until `/policy reset`, and shows in `/status`.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from claw.clock import Clock
from claw.language import Language
from claw.messages import Inbound
from claw.policy import DirectPolicy, GroupPolicy
from claw.secret import hash_id
from claw.store.ports import ChatDirectory, ConfigStore, History
from claw.turn import texts
from claw.turn.access import (
    ALLOWED,
    DENIED,
    DIRECT_POLICY,
    GROUP_POLICY,
    HANDOVER,
    OWNER,
    AccessControl,
    Owner,
    Rules,
    owner_of,
)
from claw.turn.commands.parser import OWNERS, Command, Order

log: Final = logging.getLogger(__name__)

HANDOVER_LIFE_S: Final = 300.0
"""Seconds in which a handing over must be confirmed."""
LISTED_MAX: Final = 2_000
"""People on all lists together: they are looked at with every message. A larger circle wants an open policy."""
CHATS_SHOWN: Final = 15
TITLE_SHOWN: Final = 24
"""Characters of a chat's title in `/chats`."""
_STAFF_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CONFIRM: Final = frozenset({"confirm", "确认", "yes", "是"})
_POLICY_WORDS: Final = {
    "开放": "open",
    "白名单": "allowlist",
    "关闭": "disabled",
    "主人": "owner",
    "群": "group",
    "群聊": "group",
    "单聊": "direct",
    "重置": "reset",
}


@dataclass(frozen=True)
class AdminActions:
    """What commands can do to the rest of the house; handed in by `app`.

    `stop` ends the running turn of a session and says whether there was one; `restart` takes `stream` or `process`
    and says whether it was begun; `status` gives the service's figures by the names in texts.STATUS.
    """

    stop: Callable[[str], Awaitable[bool]]
    restart: Callable[[str], bool]
    status: Callable[[], Awaitable[dict[str, object]]]
    model: str


class AdminStore(ConfigStore, ChatDirectory, Protocol):
    """What the commands of owners ask of the store."""


class CommandHandlers:
    """Obeys commands."""

    def __init__(
        self, door: AccessControl, history: History, registry: AdminStore, levers: AdminActions, clock: Clock
    ) -> None:
        self._door = door
        self._history = history
        self._registry = registry
        self._levers = levers
        self._clock = clock

    async def obey(self, order: Order, inbound: Inbound, session: str, rules: Rules, language: Language) -> str:
        """Do it, and return what the person is told. `session` is the conversation's key. Raises StoreError."""
        is_owner = bool(inbound.sender.staff_id) and inbound.sender.staff_id in rules.owners
        if order.command in OWNERS and not is_owner:
            return texts.OWNER_ONLY[language]
        match order.command:
            case Command.NEW:
                await self._history.forget(session)
                return texts.FORGOTTEN[language]
            case Command.STOP:
                return (texts.STOPPED if await self._levers.stop(session) else texts.NOTHING_TO_STOP)[language]
            case Command.HELP:
                return texts.HELP[language] + (texts.HELP_OWNER[language] if is_owner else "")
            case Command.MODEL:
                return texts.MODEL[language].format(model=self._levers.model)
            case Command.ID:
                return identity(inbound, language)
            case Command.STATUS:
                return await self._status(rules, language)
            case Command.CHATS:
                return await self._chats(language)
            case Command.POLICY:
                return await self._policy(order.words, rules, language)
            case Command.ALLOW | Command.DENY:
                return await self._list(order, inbound, rules, language)
            case Command.OWNER:
                return await self._hand_over(order.words, inbound, rules, language)
            case Command.RESTART:
                return self._restart(order.words, language)

    async def _status(self, rules: Rules, language: Language) -> str:
        figures = await self._levers.status()
        return texts.STATUS[language].format(**figures, policies=policies(rules, language))

    async def _chats(self, language: Language) -> str:
        chats = await self._registry.chats(CHATS_SHOWN + 1)
        lines = [
            texts.CHAT[language].format(
                kind=texts.KINDS[chat.kind][language],
                title=_plain(chat.title) or "-",
                id=chat.id,
                messages=chat.messages,
            )
            for chat in chats[:CHATS_SHOWN]
        ]
        if len(chats) > CHATS_SHOWN:
            lines.append(texts.MORE_CHATS[language])
        return "\n".join(lines) or texts.NO_CHATS[language]

    async def _policy(self, words: tuple[str, ...], rules: Rules, language: Language) -> str:
        match [_POLICY_WORDS.get(word, word.lower()) for word in words]:
            case []:
                return policies(rules, language)
            case ["reset"]:
                entries = await self._registry.items()
                lists = [name for name in entries if name.startswith((ALLOWED, DENIED))]
                await self._registry.delete(GROUP_POLICY, DIRECT_POLICY, *lists)
            case ["group", word] if word in set(GroupPolicy):
                await self._registry.set(GROUP_POLICY, word)
            case ["direct", word] if word in set(DirectPolicy):
                await self._registry.set(DIRECT_POLICY, word)
            case _:
                return texts.POLICY_USAGE[language]
        log.info("policy changed by the owner", extra={"words": " ".join(words)[:40]})
        return texts.DONE[language] + policies(await self._door.rules(), language)

    async def _list(self, order: Order, inbound: Inbound, rules: Rules, language: Language) -> str:
        people = targets(order.words, inbound)
        if not people:
            return texts.WHOM[language].format(command=order.command.value)
        if order.command is Command.DENY and set(people) & rules.owners:
            return texts.OWNER_STAYS[language]
        if len(rules.group_listed | rules.direct_listed) + len(rules.denied) + len(people) > LISTED_MAX:
            return texts.LIST_FULL[language]
        for person in people:
            if order.command is Command.ALLOW:
                await self._registry.delete(f"{DENIED}{person}")
                await self._registry.set(f"{ALLOWED}{person}", "1")
            else:
                await self._registry.delete(f"{ALLOWED}{person}")
                await self._registry.set(f"{DENIED}{person}", "1")
        log.info("list changed by the owner", extra={"command": order.command.value, "people": len(people)})
        done = texts.ALLOWED if order.command is Command.ALLOW else texts.DENIED
        return done[language].format(people=", ".join(people))

    async def _hand_over(self, words: tuple[str, ...], inbound: Inbound, rules: Rules, language: Language) -> str:
        if words and words[0].lower() in _CONFIRM:
            return await self._confirm(inbound, language)
        people = targets(words, inbound)
        if not people:
            return texts.OWNERS[language].format(owners=", ".join(sorted(rules.owners)))
        if len(people) > 1:
            return texts.ONE_OWNER[language]
        wish = {
            "to": people[0],
            "by": inbound.sender.staff_id,
            "ends": self._clock.wall() + HANDOVER_LIFE_S,
            "message": inbound.key,
        }
        await self._registry.set(HANDOVER, json.dumps(wish))
        return texts.CONFIRM_OWNER[language].format(person=people[0], minutes=int(HANDOVER_LIFE_S // 60))

    async def _confirm(self, inbound: Inbound, language: Language) -> str:
        entries = await self._registry.items()
        present = owner_of(entries)
        if present is not None and present.message == inbound.key:
            return texts.HANDED_OVER[language].format(person=present.staff_id)  # Another try of this very message.
        try:
            wish = json.loads(entries.get(HANDOVER, ""))
            good = wish["by"] == inbound.sender.staff_id and self._clock.wall() < wish["ends"]
            person = str(wish["to"])
        except (ValueError, LookupError, TypeError):
            good, person = False, ""
        if not good:
            return texts.NOTHING_TO_CONFIRM[language]
        await self._registry.set(OWNER, Owner(person, message=inbound.key).to_json())
        await self._registry.delete(HANDOVER, f"{DENIED}{person}")
        log.warning("the robot was handed to another owner", extra={"owner": hash_id(person)})
        return texts.HANDED_OVER[language].format(person=person)

    def _restart(self, words: tuple[str, ...], language: Language) -> str:
        scope = words[0].lower() if words else "stream"
        if len(words) > 1 or scope not in {"stream", "process"}:
            return texts.RESTART_USAGE[language]
        return (texts.RESTARTING if self._levers.restart(scope) else texts.RESTART_BUSY)[language]


def targets(words: tuple[str, ...], inbound: Inbound) -> tuple[str, ...]:
    """Whom a command names: those @-ed, or staff ids in words."""
    named = [word for word in re.split(r"[,，\s]+", " ".join(words)) if _STAFF_ID.fullmatch(word)]
    return tuple(dict.fromkeys([*inbound.mentioned, *named]))[:20]


def identity(inbound: Inbound, language: Language) -> str:
    """Who somebody is to DingTalk, for an operator's lists."""
    return texts.IDENTITY[language].format(
        staff=inbound.sender.staff_id or texts.NO_STAFF_ID[language], conversation=inbound.conversation.id
    )


def policies(rules: Rules, language: Language) -> str:
    """The policies in force, in one line; what was changed at run time is marked."""
    mark = texts.CHANGED[language]
    return texts.POLICIES[language].format(
        group=rules.group_policy.value + (mark if "group" in rules.changed else ""),
        direct=rules.direct_policy.value + (mark if "direct" in rules.changed else ""),
        listed=len(rules.group_listed | rules.direct_listed),
        denied=len(rules.denied),
        lists=mark if "lists" in rules.changed else "",
    )


def _plain(title: str) -> str:
    """A title that cannot break the list it stands in: somebody else chose it."""
    return re.sub(r"[`*_\[\]()<>#|~\\\s]+", " ", title)[:TITLE_SHOWN].strip()
