"""Who may talk to the robot: the owner, the policies, the lists and the daily limit.

Order of events for a message: a first direct message may make its sender the owner (`pair`), if they may talk.
`resolve_rules` puts what was settled at run time over the environment's defaults, but for the owner: CLAW_OWNER wins.
`Rules.find_role` finds what the sender is here, and `decide`, a pure function, says whether somebody of this role may
talk. `consume_quota` counts a question to its sender's day.

Ids are compared whole. People from outside of the organisation have no staff id: lists name them by DingTalk's id of
the sender (`Sender.key`), and none of them is ever the owner.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

from claw.chat_settings import CHAT_PREFIX, ChatSettings
from claw.clock import Clock
from claw.config.settings import AccessSettings
from claw.language import Bilingual
from claw.messages import ChatKind, Inbound, Sender
from claw.policy import DirectPolicy, GroupPolicy, Pairing
from claw.secret import hash_id
from claw.store.ports import ConfigStore, QuotaStore
from claw.turn.pace import AnswerPace

SET_OWNER: Final = Bilingual(
    "set CLAW_OWNER, or CLAW_OWNER_PAIRING=code", "设置 CLAW_OWNER，或 CLAW_OWNER_PAIRING=code"
)

log: Final = logging.getLogger(__name__)

CODE_TTL_S: Final = 600.0
"""Seconds for which a pairing code is good."""
CODE_ALPHABET: Final = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"
"""Without those that are taken for one another."""
CODE_LENGTH: Final = 8

OWNER: Final = "owner"
"""The entry of the owner: JSON of `staff_id`, `nick`, `message` (the key of the message that made it so)."""
CODE_PREFIX: Final = "pairing.code"
"""Entries of pairing codes: each holds a code's hash and when it ends. Every replica that was started prints a code of
its own, and each is valid, since nobody knows whose log is read."""
GROUP_POLICY: Final = "policy.group"
DIRECT_POLICY: Final = "policy.direct"
ALLOWED_PREFIX: Final = "allowed."
DENIED_PREFIX: Final = "denied."
"""Entries of the lists: one for each person, so that two changes at the same moment do not overwrite each other."""
HANDOVER: Final = "handover"
"""The entry of a handover that waits for its confirmation."""
OTHER_OWNER: Final = "the store holds another owner than CLAW_OWNER names, who has no say"
STORE_LOST: Final = "the store lost what it held, the owner perhaps: the first who writes is not paired"


class Decision(StrEnum):
    """Whether somebody may talk."""

    ALLOWED = "allowed"
    DENIED = "denied"


class Role(StrEnum):
    """What somebody is here, as far as policies are concerned."""

    OWNER = "owner"
    LISTED = "listed"
    """On the list of this kind of chat, or allowed at run time."""
    DENIED = "denied"
    """Denied by name, whatever the policy."""
    OTHER = "other"


class Override(StrEnum):
    """What was changed at run time."""

    OWNER = "owner"
    GROUP = "group"
    DIRECT = "direct"
    LISTS = "lists"


@dataclass(frozen=True, slots=True)
class Rules:
    """The policies in force, and who made them so. `owners` are staff ids."""

    owners: frozenset[str]
    group_policy: GroupPolicy
    direct_policy: DirectPolicy
    group_listed: frozenset[str]
    direct_listed: frozenset[str]
    denied: frozenset[str]
    overrides: frozenset[Override] = frozenset()

    def is_owner(self, staff_id: str) -> bool:
        """Whether somebody is the owner; an empty id, of somebody from outside, never is."""
        return bool(staff_id) and staff_id in self.owners

    def find_role(self, sender: Sender, kind: ChatKind) -> Role:
        """Return what somebody is in this kind of chat."""
        # The owner first: whoever is on a list as well must not lose the robot by it.
        if self.is_owner(sender.staff_id):
            return Role.OWNER
        if sender.key in self.denied:
            return Role.DENIED
        listed = self.group_listed if kind is ChatKind.GROUP else self.direct_listed
        return Role.LISTED if sender.key in listed else Role.OTHER


def decide(rules: Rules, kind: ChatKind, role: Role) -> Decision:
    """Say whether somebody of this role may talk in this kind of chat (the matrix is in tests/turn/test_access.py).

    A disabled group policy holds for the owner too: in groups the robot is then as if it were not there.
    """
    if kind is ChatKind.GROUP and rules.group_policy is GroupPolicy.DISABLED:
        return Decision.DENIED
    if role is Role.OWNER:
        return Decision.ALLOWED
    if role is Role.DENIED:
        return Decision.DENIED
    # Each policy for its own kind of chat: an open group says nothing about direct chats.
    if kind is ChatKind.GROUP:
        welcome = rules.group_policy is GroupPolicy.OPEN or role is Role.LISTED
    else:
        by_list = rules.direct_policy is DirectPolicy.ALLOWLIST and role is Role.LISTED
        welcome = rules.direct_policy is DirectPolicy.OPEN or by_list
    return Decision.ALLOWED if welcome else Decision.DENIED


def resolve_rules(settings: AccessSettings, entries: Mapping[str, str], chat_id: str = "") -> Rules:
    """Put what was settled at run time over the environment's defaults; `chat_id`: as they are in one chat.

    An entry that this version does not understand is passed over on the safe side: the default holds.
    """
    overrides = set()
    # CLAW_OWNER wins over what is stored: it is the way back after a stranger was paired, or took the robot over.
    owners = frozenset(settings.owner)
    owner = parse_owner(entries)
    if owner is not None and not owners:
        owners = frozenset({owner.staff_id})
        overrides.add(Override.OWNER)
    group, direct = settings.group_policy, settings.direct_policy
    if entries.get(GROUP_POLICY) in set(GroupPolicy):
        group = GroupPolicy(entries[GROUP_POLICY])
        overrides.add(Override.GROUP)
    if entries.get(DIRECT_POLICY) in set(DirectPolicy):
        direct = DirectPolicy(entries[DIRECT_POLICY])
        overrides.add(Override.DIRECT)
    # Of one chat, whatever holds everywhere else.
    own = ChatSettings.from_json(entries.get(f"{CHAT_PREFIX}{chat_id}", "{}")).policy if chat_id else ""
    group = GroupPolicy(own) if own in set(GroupPolicy) else group
    direct = DirectPolicy(own) if own in set(DirectPolicy) else direct
    # Lists add up: those of the environment are an operator's, and a command in chat must not empty them.
    allowed = frozenset(name.removeprefix(ALLOWED_PREFIX) for name in entries if name.startswith(ALLOWED_PREFIX))
    denied = frozenset(name.removeprefix(DENIED_PREFIX) for name in entries if name.startswith(DENIED_PREFIX))
    if allowed or denied:
        overrides.add(Override.LISTS)
    return Rules(
        owners,
        group,
        direct,
        frozenset(settings.group_allowed) | allowed,
        frozenset(settings.direct_allowed) | allowed,
        denied,
        frozenset(overrides),
    )


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner's entry. `message` is the key of the message that paired them, or that handed the robot to them."""

    staff_id: str
    nick: str = ""
    message: str = ""

    def to_json(self) -> str:
        return json.dumps({"staff_id": self.staff_id, "nick": self.nick, "message": self.message}, ensure_ascii=False)


def parse_owner(entries: Mapping[str, str]) -> Owner | None:
    """Return the owner that was paired or handed the robot, if there is one."""
    if OWNER not in entries:
        return None
    try:
        fields = json.loads(entries[OWNER])
        return Owner(str(fields["staff_id"]), str(fields.get("nick", "")), str(fields.get("message", "")))
    except (ValueError, LookupError, TypeError, AttributeError):
        # Not raised: nobody could talk to the robot then, the owner who might cure it included.
        log.error("the owner's entry cannot be read: the robot has no owner until it is paired again")
        return None


class AccessControl:
    """Lets people in or denies them, pairs the owner, and counts questions. Every method raises StoreError."""

    def __init__(
        self,
        settings: AccessSettings,
        config: ConfigStore,
        quotas: QuotaStore,
        clock: Clock,
        *,
        store_lost: Callable[[], bool] = lambda: False,
    ) -> None:
        """`store_lost`: whether the store lost what it had held, the owner perhaps (`Store.lost`, known once open)."""
        self._settings = settings
        self._config = config
        self._quotas = quotas
        self._clock = clock
        self._pace = AnswerPace(clock)
        self._is_store_lost = store_lost

    @property
    def pairs_by_code(self) -> bool:
        """Whether the owner is paired by a code."""
        return self._settings.pairing is Pairing.CODE

    @property
    def is_owner_set(self) -> bool:
        """Whether CLAW_OWNER names the owner, which nothing in chat can change then."""
        return bool(self._settings.owner)

    @property
    def timezone(self) -> str:
        """The operator's time zone, by its IANA name."""
        return self._settings.timezone

    @property
    def daily_limit(self) -> int:
        return self._settings.daily_limit

    async def find_owners(self) -> frozenset[str]:
        """Return the staff ids of the owners. Raises StoreError."""
        return (await self.read_rules()).owners

    async def read_rules(self, chat_id: str = "") -> Rules:
        """Return the rules in force now, in one chat where it is named."""
        return resolve_rules(self._settings, await self._config.items(), chat_id)

    async def report(self) -> dict[str, object]:
        """Report owner and policies for `/status`; staff ids are hashed, as everywhere."""
        entries = await self._config.items()
        rules = resolve_rules(self._settings, entries)
        other = self._find_other_owner(entries)
        warning = "" if rules.owners else f"no owner yet, pairing is: {self._settings.pairing.value}"
        if not rules.owners and self._settings.pairing is Pairing.FIRST and self._is_store_lost():
            warning = STORE_LOST
        return {
            "owner": sorted(hash_id(owner) for owner in rules.owners),
            "stored_owner_ignored": hash_id(other.staff_id) if other else "",
            "warning": OTHER_OWNER if other else warning,
            "group_policy": rules.group_policy.value,
            "direct_policy": rules.direct_policy.value,
            "listed": len(rules.group_listed | rules.direct_listed),
            "denied": len(rules.denied),
            "changed_at_run_time": sorted(rules.overrides),
        }

    async def announce_pairing(self) -> None:
        """Say loudly at the start who can become the owner, and print the code where one is wanted."""
        entries = await self._config.items()
        rules = resolve_rules(self._settings, entries)
        if other := self._find_other_owner(entries):
            log.warning(
                OTHER_OWNER,
                extra={
                    "stored": hash_id(other.staff_id),
                    "remedy": Bilingual(
                        "if you do not know them: `claw owner reset`, and look at `/policy` and the lists",
                        "如果不认识此人：运行 `claw owner reset`，并检查 `/policy` 和名单",
                    ),
                },
            )
        if rules.owners:
            return
        match self._settings.pairing:
            case Pairing.FIRST if self._is_store_lost():
                log.warning(
                    STORE_LOST,
                    extra={
                        "remedy": Bilingual(
                            "`claw owner` shows what is left; set CLAW_OWNER, and restart",
                            "`claw owner` 显示还剩什么；设置 CLAW_OWNER 后重启",
                        )
                    },
                )
            case Pairing.FIRST if rules.direct_policy is DirectPolicy.OWNER:
                log.warning(
                    "no owner, and only an owner may talk: no first message makes one",
                    extra={"remedy": SET_OWNER},
                )
            case Pairing.FIRST:
                who = "person" if rules.direct_policy is DirectPolicy.OPEN else "person on the direct list"
                log.warning(
                    "no owner yet: the first %s who writes to the robot in a direct chat becomes it",
                    who,
                    extra={
                        "remedy": Bilingual(
                            f"{SET_OWNER}, unless this is a first start", f"{SET_OWNER.zh}；首次启动则无需处理"
                        )
                    },
                )
            case Pairing.CODE:
                await self._issue_code()
            case Pairing.OFF:
                log.warning("no owner, and pairing is off: nobody can use the owner's commands")

    def _find_other_owner(self, entries: Mapping[str, str]) -> Owner | None:
        """Return the stored owner where CLAW_OWNER names others: they have no say, and may have had one."""
        owner = parse_owner(entries)
        return owner if owner is not None and self.is_owner_set and owner.staff_id not in self._settings.owner else None

    async def pair(self, inbound: Inbound) -> bool:
        """Make the sender the owner if this message may; True if this very message makes, or made, them so.

        A group message never does: whoever is first in a group is not who set the robot up.
        """
        # Without a staff id nobody could be recognised as the owner later.
        if inbound.conversation.kind is not ChatKind.DIRECT or not inbound.sender.staff_id:
            return False
        if self.is_owner_set or self._settings.pairing is Pairing.OFF:
            return False
        entries = await self._config.items()
        owner = parse_owner(entries)
        if owner is not None:
            # Another try of the pairing message, after a crash, tells its sender so once more. By the person, too: the
            # message that handed the robot over made somebody else the owner than who wrote it.
            return owner.message == inbound.key and owner.staff_id == inbound.sender.staff_id
        if not self._may_be_paired(resolve_rules(self._settings, entries), inbound):
            return False
        codes = {name: value for name, value in entries.items() if name.startswith(CODE_PREFIX)}
        if self.pairs_by_code and not await self._match_code(codes.values(), inbound.text):
            return False
        mine = Owner(inbound.sender.staff_id, inbound.sender.nick, inbound.key).to_json()
        # The race: two people write at the same moment, perhaps to two replicas, and both have found no owner above.
        # The store lets one write win; whoever finds another entry than their own has lost.
        if await self._config.set_if_absent(OWNER, mine) != mine:
            return False
        await self._config.delete(*codes)
        log.warning("the robot has an owner now", extra={"pairing": self._settings.pairing.value})
        return True

    def _may_be_paired(self, rules: Rules, inbound: Inbound) -> bool:
        """Whether the sender may talk here; whoever is kept out must not get in as the owner."""
        if self._is_store_lost() and not self.pairs_by_code:
            # It had an owner, perhaps, and then whoever writes first is not who set the robot up.
            return False
        role = rules.find_role(inbound.sender, ChatKind.DIRECT)
        # Where only the owner may talk, nobody may before there is one: the code of the log is the proof then.
        if self.pairs_by_code and rules.direct_policy is DirectPolicy.OWNER:
            return role is not Role.DENIED
        return decide(rules, ChatKind.DIRECT, role) is Decision.ALLOWED

    async def _match_code(self, codes: Iterable[str], said: str) -> bool:
        valid = [code.partition(" ")[0] for code in codes if not self._is_expired(code)]
        if not valid:
            # Nobody waits at the log all day: a new code is printed when somebody writes, for them to try again.
            await self._issue_code()
            return False
        # Hashes, compared in constant time: the store may be read by others, and a code is short.
        return any(hmac.compare_digest(_hash_code(said), digest) for digest in valid)

    def _is_expired(self, code: str) -> bool:
        try:
            return self._clock.wall() >= float(code.partition(" ")[2])
        except ValueError:
            return True

    async def _issue_code(self) -> None:
        code = "".join(secrets.choice(CODE_ALPHABET) for _ in range(CODE_LENGTH))
        digest = _hash_code(code)
        entries = await self._config.items(CODE_PREFIX)
        await self._config.delete(*(name for name, value in entries.items() if self._is_expired(value)))
        # Under a name of its own: another replica that starts at the same moment must not void this one.
        await self._config.set(f"{CODE_PREFIX}.{digest[:8]}", f"{digest} {self._clock.wall() + CODE_TTL_S}")
        log.warning(
            "no owner yet: whoever sends this code to the robot in a direct chat becomes it",
            extra={"pairing": code, "minutes": int(CODE_TTL_S // 60)},
        )

    async def consume_quota(self, inbound: Inbound) -> bool:
        """Count this message to its sender's day; False beyond the daily limit."""
        limit = self._settings.daily_limit
        if not limit:
            return True
        # The operator's day, not UTC's: people are told to come back tomorrow.
        day = datetime.fromtimestamp(self._clock.wall(), ZoneInfo(self._settings.timezone)).date().isoformat()
        person = f"{inbound.robot_code}:{inbound.sender.key}"
        # By the message's key: another try of it, after a crash or a fault of the model, is not another question.
        return await self._quotas.consume_quota(person, day, inbound.key, limit)

    def allow_answer(self, inbound: Inbound) -> bool:
        """Whether the sender may have one more answer that costs no question; if so, it counts."""
        return self._pace.allow(f"{inbound.robot_code}:{inbound.sender.key}")

    async def once_per(self, inbound: Inbound, notice: str, interval_s: float) -> bool:
        """Whether the sender got no such notice within the interval, in any chat; if so, it counts as given now."""
        return await self._quotas.once_per(f"{notice}:{inbound.robot_code}:{inbound.sender.key}", interval_s)


def _hash_code(code: str) -> str:
    return hashlib.sha256(code.strip().upper().encode("utf-8", "surrogatepass")).hexdigest()
