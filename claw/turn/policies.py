"""Policies and lists as an operator's page sees and changes them; the owner's commands are in commands/handlers.py."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from claw.chat_settings import ChatSettingError
from claw.config.settings import AccessSettings
from claw.policy import DirectPolicy, GroupPolicy
from claw.store.ports import ConfigStore
from claw.turn.access import ALLOWED_PREFIX, DENIED_PREFIX, DIRECT_POLICY, GROUP_POLICY, parse_owner, resolve_rules

LISTED_MAX: Final = 2_000
"""People on one list: lists are looked at with every message."""
_PERSON: Final = re.compile(r"[!-~]{1,160}")
"""A staff id, or DingTalk's id of somebody without one."""
_POLICIES: Final = {
    "group_policy": (GROUP_POLICY, tuple(GroupPolicy)),
    "direct_policy": (DIRECT_POLICY, tuple(DirectPolicy)),
}
_LISTS: Final = {"allowed": ALLOWED_PREFIX, "denied": DENIED_PREFIX}


@dataclass(frozen=True)
class PolicyDesk:
    """Reports and changes policies and lists. Methods raise StoreError."""

    settings: AccessSettings
    config: ConfigStore

    async def report(self) -> dict[str, Any]:
        """Return what is in force, and what was changed at run time."""
        entries = await self.config.items()
        rules = resolve_rules(self.settings, entries)
        stored = parse_owner(entries)
        source = "environment" if self.settings.owner else "store" if stored else "none"
        return {
            "owner": sorted(rules.owners),
            "owner_from": source,
            "group_policy": rules.group_policy.value,
            "direct_policy": rules.direct_policy.value,
            "group_policies": [each.value for each in GroupPolicy],
            "direct_policies": [each.value for each in DirectPolicy],
            **{name: _list(entries, prefix) for name, prefix in _LISTS.items()},
            "listed_by_environment": {
                "group": list(self.settings.group_allowed),
                "direct": list(self.settings.direct_allowed),
            },
            "changed_at_run_time": sorted(rules.overrides),
        }

    async def change(self, changes: Mapping[str, Any]) -> None:
        """Change what is named; null resets a policy. Raises ChatSettingError before anything is changed."""
        checked = {name: _check(name, value) for name, value in changes.items()}
        if not checked:
            raise ChatSettingError("group_policy", "nothing to change")
        entries = await self.config.items()
        owners = resolve_rules(self.settings, entries).owners
        allowed, denied = (checked.get(name, set(_list(entries, prefix))) for name, prefix in _LISTS.items())
        if both := sorted(set(allowed) & set(denied)):
            raise ChatSettingError("denied", f"{both[0]} cannot be both allowed and denied")
        if both := sorted(owners & set(denied)):
            raise ChatSettingError("denied", f"the owner {both[0]} cannot be denied")
        # Checked as a whole first. A crash between two of the writes leaves some of them, and the page shows which.
        for name, value in checked.items():
            if name in _LISTS:
                await self._replace(_LISTS[name], set(_list(entries, _LISTS[name])), value)
            elif value:
                await self.config.set(_POLICIES[name][0], value)
            else:
                await self.config.delete(_POLICIES[name][0])

    async def _replace(self, prefix: str, before: set[str], after: set[str]) -> None:
        if gone := before - after:
            await self.config.delete(*(f"{prefix}{each}" for each in gone))
        for each in sorted(after - before):
            await self.config.set(f"{prefix}{each}", "1")


def _list(entries: Mapping[str, str], prefix: str) -> list[str]:
    return sorted(name.removeprefix(prefix) for name in entries if name.startswith(prefix))


def _check(name: str, value: Any) -> Any:
    """Return a value as it is kept: a word or nothing for a policy, ids for a list. Raises ChatSettingError."""
    if name in _POLICIES:
        words = _POLICIES[name][1]
        if value not in (None, "", *words):
            raise ChatSettingError(name, f"must be null or one of: {', '.join(words)}")
        return value or ""
    if name not in _LISTS:
        raise ChatSettingError(name, f"unknown; must be one of: {', '.join((*_POLICIES, *_LISTS))}")
    if not isinstance(value, list) or not all(isinstance(each, str) and _PERSON.fullmatch(each) for each in value):
        raise ChatSettingError(name, "must be a list of ids of people")
    if len(value) > LISTED_MAX:
        raise ChatSettingError(name, f"may have {LISTED_MAX} people at most")
    return set(value)
