"""Who may talk: the full matrix of policies, pairing, limits, and what those who are kept out are told."""

from __future__ import annotations

import asyncio
import itertools
import logging
from pathlib import Path

import pytest

from claw.config.settings import AccessSettings, ConversationSettings
from claw.language import Language
from claw.messages import ChatKind, Outcome
from claw.policy import DirectPolicy, GroupPolicy, GroupSession, Pairing
from claw.store.sqlite.store import SqliteStore
from claw.turn import texts
from claw.turn.access import ALLOWED, DENIED, GROUP_POLICY, OWNER, Rules, Standing, Verdict, decide, rules_of
from tests.turn.harness import House, message

ZH = Language.ZH
PEOPLE = {"owner": "u-owner", "listed": "u-listed", "denied": "u-denied", "other": "u-other", "outside": ""}


def rules(group: GroupPolicy, direct: DirectPolicy) -> Rules:
    return Rules(
        owners=frozenset({"u-owner"}),
        group_policy=group,
        direct_policy=direct,
        group_listed=frozenset({"u-listed", "u-denied"}),
        direct_listed=frozenset({"u-listed", "u-denied"}),
        denied=frozenset({"u-denied"}),
    )


GROUP_IN: dict[GroupPolicy, set[str]] = {
    GroupPolicy.OPEN: {"owner", "listed", "other", "outside"},
    GroupPolicy.ALLOWLIST: {"owner", "listed"},
    GroupPolicy.DISABLED: set(),
}
DIRECT_IN: dict[DirectPolicy, set[str]] = {
    DirectPolicy.OPEN: {"owner", "listed", "other", "outside"},
    DirectPolicy.ALLOWLIST: {"owner", "listed"},
    DirectPolicy.OWNER: {"owner"},
}


@pytest.mark.parametrize(("group", "direct", "person"), list(itertools.product(GroupPolicy, DirectPolicy, PEOPLE)))
def test_matrix(group: GroupPolicy, direct: DirectPolicy, person: str) -> None:
    """Every policy, kind of chat and standing: each policy holds for its own kind of chat and for no other."""
    in_force = rules(group, direct)
    for kind, welcome in ((ChatKind.GROUP, GROUP_IN[group]), (ChatKind.DIRECT, DIRECT_IN[direct])):
        verdict = decide(in_force, kind, in_force.standing(PEOPLE[person], kind))
        assert (verdict is Verdict.ALLOWED) == (person in welcome)


@pytest.mark.parametrize("near", ["U-OWNER", "u-owner ", "u-owne", "u-owner2", "u-owner\x00"])
def test_ids_are_compared_whole(near: str) -> None:
    """An id that only resembles the owner's has no standing."""
    in_force = rules(GroupPolicy.ALLOWLIST, DirectPolicy.OWNER)
    assert in_force.standing(near, ChatKind.DIRECT) is Standing.OTHER


def test_lists_are_per_kind_of_chat() -> None:
    """A person on the group list is not on the direct one; who was allowed at run time is on both."""
    settings = AccessSettings(owner=("o",), group_allowed=("g",), direct_allowed=("d",))
    in_force = rules_of(settings, {f"{ALLOWED}r": "1"})
    assert in_force.group_listed == {"g", "r"}
    assert in_force.direct_listed == {"d", "r"}


def test_run_time_wins_over_environment() -> None:
    """What was settled at run time stands over the defaults; what cannot be read leaves the default in force."""
    settings = AccessSettings(owner=("o",), group_policy=GroupPolicy.ALLOWLIST)
    assert rules_of(settings, {GROUP_POLICY: "disabled"}).group_policy is GroupPolicy.DISABLED
    assert rules_of(settings, {GROUP_POLICY: "??"}).group_policy is GroupPolicy.ALLOWLIST
    assert rules_of(settings, {OWNER: '{"staff_id": "new"}'}).owners == {"new"}
    assert rules_of(settings, {OWNER: "not json"}).owners == {"o"}
    assert rules_of(settings, {f"{DENIED}x": "1"}).denied == {"x"}


# --- pairing -------------------------------------------------------------------------------------------------


async def test_first_in_a_direct_chat_is_the_owner(store: SqliteStore) -> None:
    """The first who writes directly becomes the owner, is told so in one line, and gets the answer to that message."""
    house = House(store, access=AccessSettings())
    told = await house.by("u-1", "你好")
    assert told == f"{texts.PAIRED[ZH]}\n\nfine"
    assert await house.by("u-1", "再问") == "fine"
    assert await house.by("u-2", "你好") == "fine"
    assert (await house.door.rules()).owners == {"u-1"}


async def test_groups_and_outsiders_never_pair(store: SqliteStore) -> None:
    """Neither a group message nor somebody without a staff id makes an owner."""
    house = House(store, access=AccessSettings())
    await house.by("u-1", "你好", group="cidG")
    await house.by("", "hello")
    assert (await house.door.rules()).owners == frozenset()


async def test_another_try_of_the_pairing_message(store: SqliteStore) -> None:
    """A message that paired its sender and is tried again (a crash) still tells so."""
    house = House(store, access=AccessSettings())
    first = message("u-1", "你好")
    assert (await house.talk.answer(first)).text == (await house.talk.answer(first)).text


async def test_race_of_first_messages(store: SqliteStore) -> None:
    """Of 50 people who write at the same moment exactly one becomes the owner, and only that one is told so."""
    house = House(store, access=AccessSettings())
    answers = await asyncio.gather(*(house.talk.answer(message(f"u-{n}", "你好")) for n in range(50)))
    assert sum(texts.PAIRED[ZH] in answer.text for answer in answers) == 1
    assert len((await house.door.rules()).owners) == 1


@pytest.mark.parametrize("access", [AccessSettings(owner=("u-o",)), AccessSettings(pairing=Pairing.OFF)])
async def test_nobody_is_paired(store: SqliteStore, access: AccessSettings) -> None:
    """With CLAW_OWNER set, or pairing off, writing first makes nobody the owner."""
    house = House(store, access=access)
    assert await house.by("u-1", "你好") == "fine"
    assert "u-1" not in (await house.door.rules()).owners


async def test_owner_survives_restart(tmp_path: Path) -> None:
    """Owner and policies are there after a restart."""
    store = SqliteStore(tmp_path / "x.db")
    await store.open()
    house = House(store, access=AccessSettings())
    await house.by("u-1", "你好")
    await house.by("u-1", "/policy group allowlist")
    await store.close()
    again = SqliteStore(tmp_path / "x.db")
    await again.open()
    in_force = await House(again, access=AccessSettings()).door.rules()
    await again.close()
    assert in_force.owners == {"u-1"}
    assert in_force.group_policy is GroupPolicy.ALLOWLIST


async def test_code_pairing(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    """Only the code from the log pairs, within 10 minutes; it is not kept in clear, and is not asked of the model."""
    house = House(store, access=AccessSettings(pairing=Pairing.CODE))
    with caplog.at_level(logging.WARNING, "claw.turn.access"):
        await house.door.begin()
    code = caplog.records[-1].pairing  # type: ignore[attr-defined]
    assert code not in str(await store.items())
    assert await house.by("u-1", "first!") == "fine"
    assert await house.by("u-2", f" {code.lower()} ") == texts.PAIRED[ZH]
    assert (await house.door.rules()).owners == {"u-2"}
    assert all(code not in str(messages) for messages in house.model.asked)
    assert await house.by("u-3", code) == "fine"


async def test_each_replica_has_its_code(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    """The code of each claw that was started is good, until one of them is used; those that ran out are not kept."""
    houses = [House(store, access=AccessSettings(pairing=Pairing.CODE)) for _ in range(3)]
    with caplog.at_level(logging.WARNING, "claw.turn.access"):
        await houses[0].door.begin()
        for house in houses:
            await house.clock.advance(601)
        await houses[1].door.begin()
        await houses[2].door.begin()
    old, first, second = (record.pairing for record in caplog.records)  # type: ignore[attr-defined]
    assert len(await store.items("pairing.code")) == 2
    assert await houses[2].by("u-1", old) == "fine"
    assert await houses[2].by("u-1", first) == texts.PAIRED[ZH]
    assert await store.items("pairing.code") == {}
    assert await houses[1].by("u-2", second) == "fine"


async def test_code_runs_out(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    """An old code pairs nobody; a new one is in the log when somebody writes."""
    house = House(store, access=AccessSettings(pairing=Pairing.CODE))
    with caplog.at_level(logging.WARNING, "claw.turn.access"):
        await house.door.begin()
        code = caplog.records[-1].pairing  # type: ignore[attr-defined]
        await house.clock.advance(601)
        await house.by("u-1", code)
    assert (await house.door.rules()).owners == frozenset()
    assert caplog.records[-1].pairing != code  # type: ignore[attr-defined]


async def test_start_without_owner_is_told(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    """A start with an empty registry and no CLAW_OWNER says so at WARNING and in /status."""
    house = House(store, access=AccessSettings())
    with caplog.at_level(logging.WARNING, "claw.turn.access"):
        await house.door.begin()
    assert "no owner yet" in caplog.text
    assert (await house.door.report())["warning"] == "no owner yet, pairing is: first"


# --- kept out ------------------------------------------------------------------------------------------------


async def test_kept_out_costs_nothing(store: SqliteStore) -> None:
    """Who is kept out costs no model call; in a direct chat they are told once an hour, in a group never."""
    house = House(
        store,
        access=AccessSettings(owner=("o",), group_policy=GroupPolicy.ALLOWLIST, direct_policy=DirectPolicy.ALLOWLIST),
    )
    first = await house.say(message("u-1", "你好"))
    assert (first.outcome, "u-1" in first.text) == (Outcome.DENIED, True)
    assert await house.by("u-1", "再问") == ""
    assert await house.by("u-1", "/help") == ""
    assert await house.by("u-1", "你好", group="cidG") == ""
    assert house.model.asked == []


async def test_daily_limit(store: SqliteStore) -> None:
    """CLAW_USER_DAILY_LIMIT is per person and day; commands and other people are not counted."""
    house = House(store, access=AccessSettings(owner=("o",), daily_limit=2))
    assert [await house.by("u-1", "你好") for _ in range(2)] == ["fine", "fine"]
    assert await house.by("u-1", "/id") != ""
    assert "2" in await house.by("u-1", "你好")
    assert await house.by("u-1", "你好") == ""
    assert await house.by("u-2", "你好") == "fine"
    await house.clock.advance(24 * 3600)
    assert await house.by("u-1", "你好") == "fine"


async def test_same_message_is_counted_once(store: SqliteStore) -> None:
    """Another try of a message does not use up another question."""
    house = House(store, access=AccessSettings(owner=("o",), daily_limit=1))
    again = message("u-1", "你好")
    assert [(await house.talk.answer(again)).text for _ in range(3)] == ["fine"] * 3


@pytest.mark.parametrize(("groups", "shared"), [(GroupSession.SHARED, True), (GroupSession.PER_USER, False)])
async def test_group_session(store: SqliteStore, groups: GroupSession, shared: bool) -> None:
    """A group is one conversation, or one for each person in it; a direct chat is always its own."""
    house = House(store, ConversationSettings(group_session=groups))
    await house.by("u-1", "my secret", group="cidG")
    await house.by("u-2", "hello", group="cidG")
    assert ("my secret" in str(house.model.asked[-1])) is shared
    assert (house.model.users[0] == house.model.users[1]) is shared
    await house.by("u-1", "direct")
    assert "my secret" not in str(house.model.asked[-1])
