"""Who may talk to the robot: the owner, the policies, the lists and the daily limit.

Order of events for a message: `rules` puts what was settled at run time over the environment's defaults; `decide`, a
pure function, says whether the sender may talk here; a first direct message may make its sender the owner
(`Pairing`). Staff ids are compared whole. People from outside of the organisation have none: only an open policy
lets them in, and no list or ownership can name them.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from claw.clock import Clock
from claw.config.settings import AccessSettings
from claw.messages import ChatKind, Inbound
from claw.policy import DirectPolicy, GroupPolicy, Pairing
from claw.secret import hash_id
from claw.store.ports import ConfigStore, QuotaStore

log: Final = logging.getLogger(__name__)

CODE_LIFE_S: Final = 600.0
"""Seconds for which a pairing code is good."""
CODE_LETTERS: Final = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"
"""Without those that are taken for one another."""
CODE_LENGTH: Final = 8

OWNER: Final = "owner"
"""The entry of the owner: JSON of `staff_id`, `nick`, `message` (the key of the message that made it so)."""
CODE: Final = "pairing.code"
"""What the entries of pairing codes begin with: each holds a code's hash and when it ends. Every claw that was started
prints one of its own, and each is good: of several replicas nobody knows whose log is read."""
GROUP_POLICY: Final = "policy.group"
DIRECT_POLICY: Final = "policy.direct"
ALLOWED: Final = "allowed."
DENIED: Final = "denied."
HANDOVER: Final = "handover"


class Verdict(StrEnum):
    """Whether somebody may talk."""

    ALLOWED = "allowed"
    KEPT_OUT = "kept_out"


class Standing(StrEnum):
    """What somebody is here, as far as policies are concerned."""

    OWNER = "owner"
    LISTED = "listed"
    """On the list of this kind of chat, or allowed at run time."""
    DENIED = "denied"
    """Kept out by name, whatever the policy."""
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Rules:
    """The policies in force, and who made them so. `owners` are staff ids."""

    owners: frozenset[str]
    group_policy: GroupPolicy
    direct_policy: DirectPolicy
    group_listed: frozenset[str]
    direct_listed: frozenset[str]
    denied: frozenset[str]
    owner_nick: str = ""
    changed: frozenset[str] = frozenset()
    """Names of what was changed at run time: `owner`, `group`, `direct`, `lists`."""

    def standing(self, staff_id: str, kind: ChatKind) -> Standing:
        if not staff_id:
            return Standing.OTHER
        if staff_id in self.owners:
            return Standing.OWNER
        if staff_id in self.denied:
            return Standing.DENIED
        listed = self.group_listed if kind is ChatKind.GROUP else self.direct_listed
        return Standing.LISTED if staff_id in listed else Standing.OTHER


def decide(rules: Rules, kind: ChatKind, standing: Standing) -> Verdict:
    """Whether somebody of this standing may talk in this kind of chat (the matrix is in tests/turn/test_access.py).

    A disabled group policy holds for the owner too: in groups the robot is then as if it were not there.
    """
    if kind is ChatKind.GROUP and rules.group_policy is GroupPolicy.DISABLED:
        return Verdict.KEPT_OUT
    if standing is Standing.OWNER:
        return Verdict.ALLOWED
    if standing is Standing.DENIED:
        return Verdict.KEPT_OUT
    if kind is ChatKind.GROUP:
        welcome = rules.group_policy is GroupPolicy.OPEN or standing is Standing.LISTED
    else:
        by_list = rules.direct_policy is DirectPolicy.ALLOWLIST and standing is Standing.LISTED
        welcome = rules.direct_policy is DirectPolicy.OPEN or by_list
    return Verdict.ALLOWED if welcome else Verdict.KEPT_OUT


def rules_of(settings: AccessSettings, entries: Mapping[str, str]) -> Rules:
    """The environment's defaults, with what was settled at run time over them.

    An entry that this version does not understand is passed over on the safe side: the default holds.
    """
    changed = set()
    owners, nick = frozenset(settings.owner), ""
    owner = owner_of(entries)
    if owner is not None:
        owners, nick = frozenset({owner.staff_id}), owner.nick
        changed.add("owner")
    group, direct = settings.group_policy, settings.direct_policy
    if entries.get(GROUP_POLICY) in set(GroupPolicy):
        group = GroupPolicy(entries[GROUP_POLICY])
        changed.add("group")
    if entries.get(DIRECT_POLICY) in set(DirectPolicy):
        direct = DirectPolicy(entries[DIRECT_POLICY])
        changed.add("direct")
    allowed = frozenset(name.removeprefix(ALLOWED) for name in entries if name.startswith(ALLOWED))
    denied = frozenset(name.removeprefix(DENIED) for name in entries if name.startswith(DENIED))
    if allowed or denied:
        changed.add("lists")
    return Rules(
        owners,
        group,
        direct,
        frozenset(settings.group_allowed) | allowed,
        frozenset(settings.direct_allowed) | allowed,
        denied,
        nick,
        frozenset(changed),
    )


@dataclass(frozen=True, slots=True)
class Owner:
    """Whoever was paired, or was handed the robot."""

    staff_id: str
    nick: str = ""
    message: str = ""

    def to_json(self) -> str:
        return json.dumps({"staff_id": self.staff_id, "nick": self.nick, "message": self.message}, ensure_ascii=False)


def owner_of(entries: Mapping[str, str]) -> Owner | None:
    """The owner in the registry, if there is one."""
    if OWNER not in entries:
        return None
    try:
        fields = json.loads(entries[OWNER])
        return Owner(str(fields["staff_id"]), str(fields.get("nick", "")), str(fields.get("message", "")))
    except (ValueError, LookupError, TypeError, AttributeError):
        log.error("the owner's entry cannot be read: the robot has no owner until it is paired again")
        return None


class AccessStore(ConfigStore, QuotaStore, Protocol):
    """What access control asks of the store."""


class AccessControl:
    """Lets people in or keeps them out, and pairs the owner."""

    def __init__(self, settings: AccessSettings, registry: AccessStore, clock: Clock) -> None:
        self._settings = settings
        self._registry = registry
        self._clock = clock

    @property
    def by_code(self) -> bool:
        """Whether the owner is paired by a code."""
        return self._settings.pairing is Pairing.CODE

    @property
    def daily_limit(self) -> int:
        return self._settings.daily_limit

    async def rules(self) -> Rules:
        return rules_of(self._settings, await self._registry.items())

    async def report(self) -> dict[str, object]:
        """Owner and policies for `/status`; staff ids are hashed, as everywhere."""
        rules = await self.rules()
        return {
            "owner": sorted(hash_id(owner) for owner in rules.owners),
            "warning": "" if rules.owners else f"no owner yet, pairing is: {self._settings.pairing.value}",
            "group_policy": rules.group_policy.value,
            "direct_policy": rules.direct_policy.value,
            "listed": len(rules.group_listed | rules.direct_listed),
            "denied": len(rules.denied),
            "changed_at_run_time": sorted(rules.changed),
        }

    async def begin(self) -> None:
        """At the start: say loudly who can become the owner, and print the code where one is wanted."""
        if (await self.rules()).owners:
            return
        match self._settings.pairing:
            case Pairing.FIRST:
                log.warning(
                    "no owner yet: the first person who writes to the robot in a direct chat becomes it",
                    extra={"remedy": "set CLAW_OWNER, or CLAW_OWNER_PAIRING=code, unless this is a first start"},
                )
            case Pairing.CODE:
                await self._print_code()
            case Pairing.OFF:
                log.warning("no owner, and pairing is off: nobody can use the owner's commands")

    async def pair(self, inbound: Inbound) -> bool:
        """Whether this very message makes, or made, its sender the owner. A group message never does."""
        if inbound.conversation.kind is not ChatKind.DIRECT or not inbound.sender.staff_id:
            return False
        entries = await self._registry.items()
        owner = owner_of(entries)
        if owner is not None:
            return owner.message == inbound.key
        if self._settings.owner or self._settings.pairing is Pairing.OFF:
            return False
        codes = {name: value for name, value in entries.items() if name.startswith(CODE)}
        if self.by_code and not await self._code_is_right(codes.values(), inbound.text):
            return False
        mine = Owner(inbound.sender.staff_id, inbound.sender.nick, inbound.key).to_json()
        # Two at the same moment, in two replicas too: what stands there afterwards is the owner.
        if await self._registry.set_if_absent(OWNER, mine) != mine:
            return False
        await self._registry.delete(*codes)
        log.warning("the robot has an owner now", extra={"pairing": self._settings.pairing.value})
        return True

    async def _code_is_right(self, codes: Iterable[str], said: str) -> bool:
        good = [code.partition(" ")[0] for code in codes if not self._is_over(code)]
        if not good:
            await self._print_code()
            return False
        return any(hmac.compare_digest(_hash_of_code(said), digest) for digest in good)

    def _is_over(self, code: str) -> bool:
        try:
            return self._clock.wall() >= float(code.partition(" ")[2])
        except ValueError:
            return True

    async def _print_code(self) -> None:
        code = "".join(secrets.choice(CODE_LETTERS) for _ in range(CODE_LENGTH))
        digest = _hash_of_code(code)
        await self._registry.delete(
            *(name for name, value in (await self._registry.items(CODE)).items() if self._is_over(value))
        )
        await self._registry.set(f"{CODE}.{digest[:8]}", f"{digest} {self._clock.wall() + CODE_LIFE_S}")
        log.warning(
            "no owner yet: whoever sends this code to the robot in a direct chat becomes it",
            extra={"pairing": code, "minutes": int(CODE_LIFE_S // 60)},
        )

    async def has_budget(self, inbound: Inbound) -> bool:
        """Whether the sender may still ask today; this message is counted."""
        limit = self._settings.daily_limit
        if not limit:
            return True
        day = datetime.fromtimestamp(self._clock.wall(), ZoneInfo(self._settings.timezone)).date().isoformat()
        person = f"{inbound.robot_code}:{inbound.sender.key}"
        return await self._registry.consume_quota(person, day, inbound.key, limit)

    async def is_first_word(self, inbound: Inbound, what: str, seconds: float) -> bool:
        """Whether the sender was not told `what` in this conversation within the last `seconds`."""
        return await self._registry.once_per(f"{what}:{inbound.chat_key}:{inbound.sender.key}", seconds)


def _hash_of_code(code: str) -> str:
    return hashlib.sha256(code.strip().upper().encode("utf-8", "surrogatepass")).hexdigest()
