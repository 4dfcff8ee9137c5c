"""Who may talk: the full matrix of policies, pairing, limits, and what those who are denied are told."""

from __future__ import annotations

import asyncio
import itertools
import logging
from pathlib import Path

import pytest

from claw.config.settings import AccessSettings, ConversationSettings
from claw.language import Language
from claw.messages import ChatKind, Outcome, Sender
from claw.parts import Media, MediaKind
from claw.policy import DirectPolicy, GroupPolicy, GroupSession, Pairing
from claw.secret import Secret, hash_id
from claw.store.sqlite.store import SqliteStore
from claw.turn import texts
from claw.turn.access import (
    ALLOWED_PREFIX,
    DENIED_PREFIX,
    GROUP_POLICY,
    OTHER_OWNER,
    OWNER,
    STORE_LOST,
    Decision,
    Role,
    Rules,
    decide,
    resolve_rules,
)
from claw.turn.pace import PEOPLE_MAX, AnswerPace
from tests.clock import FakeClock
from tests.turn.harness import TurnHarness, message

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
    """Every policy, kind of chat and role: each policy holds for its own kind of chat and for no other."""
    in_force = rules(group, direct)
    for kind, welcome in ((ChatKind.GROUP, GROUP_IN[group]), (ChatKind.DIRECT, DIRECT_IN[direct])):
        decision = decide(in_force, kind, in_force.find_role(Sender("$:LWCP_v1:$x", PEOPLE[person]), kind))
        assert (decision is Decision.ALLOWED) == (person in welcome)


@pytest.mark.parametrize("near", ["U-OWNER", "u-owner ", "u-owne", "u-owner2", "u-owner\x00"])
def test_ids_are_compared_whole(near: str) -> None:
    """An id that only resembles the owner's has no role."""
    in_force = rules(GroupPolicy.ALLOWLIST, DirectPolicy.OWNER)
    assert in_force.find_role(Sender("$:LWCP_v1:$x", near), ChatKind.DIRECT) is Role.OTHER


def test_lists_are_per_kind_of_chat() -> None:
    """A person on the group list is not on the direct one; who was allowed at run time is on both."""
    settings = AccessSettings(owner=("o",), group_allowed=("g",), direct_allowed=("d",))
    in_force = resolve_rules(settings, {f"{ALLOWED_PREFIX}r": "1"})
    assert in_force.group_listed == {"g", "r"}
    assert in_force.direct_listed == {"d", "r"}


def test_run_time_wins_over_environment() -> None:
    """What was settled at run time stands over the defaults; what cannot be read leaves the default in force."""
    settings = AccessSettings(owner=("o",), group_policy=GroupPolicy.ALLOWLIST)
    assert resolve_rules(settings, {GROUP_POLICY: "disabled"}).group_policy is GroupPolicy.DISABLED
    assert resolve_rules(settings, {GROUP_POLICY: "??"}).group_policy is GroupPolicy.ALLOWLIST
    assert resolve_rules(AccessSettings(), {OWNER: '{"staff_id": "new"}'}).owners == {"new"}
    assert resolve_rules(settings, {OWNER: "not json"}).owners == {"o"}
    assert resolve_rules(settings, {f"{DENIED_PREFIX}x": "1"}).denied == {"x"}


async def test_the_way_back_from_a_takeover(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    """CLAW_OWNER wins over who was paired, and over their denials; both are told, at the start once and in /status."""
    taken = TurnHarness(store, access=AccessSettings())
    await taken.tell("mallory", "你好")
    await taken.tell("mallory", "/deny boss")
    turn = TurnHarness(store, access=AccessSettings(owner=("boss",)))
    assert (await turn.access.read_rules()).owners == {"boss"}
    assert await turn.tell("mallory", "/status") == texts.OWNER_ONLY[ZH]
    assert await turn.tell("mallory", "/deny boss") == texts.OWNER_ONLY[ZH]
    assert texts.POLICIES[ZH][:4] in await turn.tell("boss", "/status")
    with caplog.at_level(logging.WARNING, "claw.turn.access"):
        await turn.access.announce_pairing()
    record = caplog.records[-1]
    assert record.message == OTHER_OWNER
    assert record.stored == hash_id("mallory")  # type: ignore[attr-defined]
    assert "claw owner reset" in record.remedy  # type: ignore[attr-defined]
    report = await turn.access.report()
    assert (report["warning"], report["stored_owner_ignored"]) == (OTHER_OWNER, hash_id("mallory"))


async def test_a_stored_owner_of_the_same_name_is_no_news(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    """Where CLAW_OWNER names who was paired, nothing is warned about."""
    await TurnHarness(store, access=AccessSettings()).tell("boss", "你好")
    turn = TurnHarness(store, access=AccessSettings(owner=("boss", "deputy")))
    caplog.clear()
    await turn.access.announce_pairing()
    assert caplog.records == []
    report = await turn.access.report()
    assert (report["warning"], report["stored_owner_ignored"]) == ("", "")


# --- pairing -------------------------------------------------------------------------------------------------


async def test_first_in_a_direct_chat_is_the_owner(store: SqliteStore) -> None:
    """The first who writes directly becomes the owner, is told so in one line, and gets the answer to that message."""
    turn = TurnHarness(store, access=AccessSettings())
    told = await turn.tell("u-1", "你好")
    assert told == f"{texts.PAIRED[ZH]}\n\nfine"
    assert await turn.tell("u-1", "再问") == "fine"
    assert await turn.tell("u-2", "你好") == "fine"
    assert (await turn.access.read_rules()).owners == {"u-1"}


async def test_groups_and_outsiders_never_pair(store: SqliteStore) -> None:
    """Neither a group message nor somebody without a staff id makes an owner."""
    turn = TurnHarness(store, access=AccessSettings())
    await turn.tell("u-1", "你好", group="cidG")
    await turn.tell("", "hello")
    assert (await turn.access.read_rules()).owners == frozenset()


async def test_another_try_of_the_pairing_message(store: SqliteStore) -> None:
    """A message that paired its sender and is tried again (a crash) still tells so."""
    turn = TurnHarness(store, access=AccessSettings())
    first = message("u-1", "你好")
    assert (await turn.handle(first)).text == (await turn.handle(first)).text


async def test_race_of_first_messages(store: SqliteStore) -> None:
    """Of 50 people who write at the same moment exactly one becomes the owner, and only that one is told so."""
    turn = TurnHarness(store, access=AccessSettings())
    answers = await asyncio.gather(*(turn.handle(message(f"u-{n}", "你好")) for n in range(50)))
    assert sum(texts.PAIRED[ZH] in answer.text for answer in answers) == 1
    assert len((await turn.access.read_rules()).owners) == 1


@pytest.mark.parametrize("access", [AccessSettings(owner=("u-o",)), AccessSettings(pairing=Pairing.OFF)])
async def test_nobody_is_paired(store: SqliteStore, access: AccessSettings) -> None:
    """With CLAW_OWNER set, or pairing off, writing first makes nobody the owner."""
    turn = TurnHarness(store, access=access)
    assert await turn.tell("u-1", "你好") == "fine"
    assert "u-1" not in (await turn.access.read_rules()).owners


BOSS_ONLY = AccessSettings(direct_policy=DirectPolicy.ALLOWLIST, direct_allowed=("boss",))


async def test_who_may_not_talk_is_not_paired(store: SqliteStore) -> None:
    """Whoever the direct policy keeps out does not get in as the owner; the first on the list does."""
    turn = TurnHarness(store, access=BOSS_ONLY)
    await turn.tell("mallory", "你好")
    assert (await turn.access.read_rules()).owners == frozenset()
    assert await turn.tell("boss", "你好") == f"{texts.PAIRED[ZH]}\n\nfine"
    assert (await turn.access.read_rules()).owners == {"boss"}


async def test_who_was_denied_is_not_paired(store: SqliteStore) -> None:
    """Who was denied by name stays out when the robot has no owner any more."""
    await store.set(f"{DENIED_PREFIX}mallory", "1")
    turn = TurnHarness(store, access=AccessSettings())
    await turn.tell("mallory", "你好")
    assert (await turn.access.read_rules()).owners == frozenset()


async def test_no_first_where_only_an_owner_may_talk(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    """With the policy `owner` no first message pairs anybody, and the start says what does."""
    turn = TurnHarness(store, access=AccessSettings(direct_policy=DirectPolicy.OWNER))
    with caplog.at_level(logging.WARNING, "claw.turn.access"):
        await turn.access.announce_pairing()
    assert "CLAW_OWNER_PAIRING=code" in caplog.records[-1].remedy  # type: ignore[attr-defined]
    await turn.tell("mallory", "你好")
    assert (await turn.access.read_rules()).owners == frozenset()


@pytest.mark.parametrize(
    ("policy", "person", "paired"),
    [
        (DirectPolicy.ALLOWLIST, "mallory", False),
        (DirectPolicy.ALLOWLIST, "boss", True),
        (DirectPolicy.OWNER, "anybody", True),
        (DirectPolicy.OWNER, "denied", False),
        (DirectPolicy.OPEN, "denied", False),
    ],
)
async def test_the_code_and_the_policy(
    store: SqliteStore, caplog: pytest.LogCaptureFixture, policy: DirectPolicy, person: str, paired: bool
) -> None:
    """The code is proof enough for who may talk, and for anybody not denied where only the owner may."""
    await store.set(f"{DENIED_PREFIX}denied", "1")
    access = AccessSettings(pairing=Pairing.CODE, direct_policy=policy, direct_allowed=("boss",))
    turn = TurnHarness(store, access=access)
    with caplog.at_level(logging.WARNING, "claw.turn.access"):
        await turn.access.announce_pairing()
    code = caplog.records[-1].pairing  # type: ignore[attr-defined]
    await turn.tell(person, code)
    assert (await turn.access.read_rules()).owners == (frozenset({person}) if paired else frozenset())


async def test_a_store_that_was_lost_pairs_nobody_by_a_first_message(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the store lost what it held, the first who writes is no owner; start and /status say what helps."""
    turn = TurnHarness(store, access=AccessSettings(), store_lost=True)
    with caplog.at_level(logging.WARNING, "claw.turn.access"):
        await turn.access.announce_pairing()
    assert caplog.records[-1].message == STORE_LOST
    assert "claw owner" in caplog.records[-1].remedy  # type: ignore[attr-defined]
    assert (await turn.access.report())["warning"] == STORE_LOST
    assert await turn.tell("mallory", "你好") == "fine"
    assert (await turn.access.read_rules()).owners == frozenset()


async def test_a_store_that_was_lost_pairs_by_code(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    """The code of the log is proof, whatever became of the store."""
    turn = TurnHarness(store, access=AccessSettings(pairing=Pairing.CODE), store_lost=True)
    with caplog.at_level(logging.WARNING, "claw.turn.access"):
        await turn.access.announce_pairing()
    assert await turn.tell("boss", caplog.records[-1].pairing) == texts.PAIRED[ZH]  # type: ignore[attr-defined]


async def test_owner_survives_restart(tmp_path: Path) -> None:
    """Owner and policies are there after a restart."""
    store = SqliteStore(tmp_path / "x.db")
    await store.open()
    turn = TurnHarness(store, access=AccessSettings())
    await turn.tell("u-1", "你好")
    await turn.tell("u-1", "/policy group allowlist")
    await store.close()
    again = SqliteStore(tmp_path / "x.db")
    await again.open()
    in_force = await TurnHarness(again, access=AccessSettings()).access.read_rules()
    await again.close()
    assert in_force.owners == {"u-1"}
    assert in_force.group_policy is GroupPolicy.ALLOWLIST


async def test_code_pairing(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    """Only the code from the log pairs, within 10 minutes; it is not kept in clear, and is not asked of the model."""
    turn = TurnHarness(store, access=AccessSettings(pairing=Pairing.CODE))
    with caplog.at_level(logging.WARNING, "claw.turn.access"):
        await turn.access.announce_pairing()
    code = caplog.records[-1].pairing  # type: ignore[attr-defined]
    assert code not in str(await store.items())
    assert await turn.tell("u-1", "first!") == "fine"
    assert await turn.tell("u-2", f" {code.lower()} ") == texts.PAIRED[ZH]
    assert (await turn.access.read_rules()).owners == {"u-2"}
    assert all(code not in str(messages) for messages in turn.model.asked)
    assert await turn.tell("u-3", code) == "fine"


async def test_each_replica_has_its_code(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    """The code of each claw that was started is good, until one of them is used; those that ran out are not kept."""
    turns = [TurnHarness(store, access=AccessSettings(pairing=Pairing.CODE)) for _ in range(3)]
    with caplog.at_level(logging.WARNING, "claw.turn.access"):
        await turns[0].access.announce_pairing()
        for turn in turns:
            await turn.clock.advance(601)
        await turns[1].access.announce_pairing()
        await turns[2].access.announce_pairing()
    old, first, second = (record.pairing for record in caplog.records)  # type: ignore[attr-defined]
    assert len(await store.items("pairing.code")) == 2
    assert await turns[2].tell("u-1", old) == "fine"
    assert await turns[2].tell("u-1", first) == texts.PAIRED[ZH]
    assert await store.items("pairing.code") == {}
    assert await turns[1].tell("u-2", second) == "fine"


async def test_code_runs_out(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    """An old code pairs nobody; a new one is in the log when somebody writes."""
    turn = TurnHarness(store, access=AccessSettings(pairing=Pairing.CODE))
    with caplog.at_level(logging.WARNING, "claw.turn.access"):
        await turn.access.announce_pairing()
        code = caplog.records[-1].pairing  # type: ignore[attr-defined]
        await turn.clock.advance(601)
        await turn.tell("u-1", code)
    assert (await turn.access.read_rules()).owners == frozenset()
    assert caplog.records[-1].pairing != code  # type: ignore[attr-defined]


async def test_start_without_owner_is_told(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    """A start with an empty registry and no CLAW_OWNER says so at WARNING and in /status."""
    turn = TurnHarness(store, access=AccessSettings())
    with caplog.at_level(logging.WARNING, "claw.turn.access"):
        await turn.access.announce_pairing()
    assert "no owner yet" in caplog.text
    assert (await turn.access.report())["warning"] == "no owner yet, pairing is: first"


# --- denied --------------------------------------------------------------------------------------------------


async def test_denied_costs_nothing(store: SqliteStore) -> None:
    """Whoever is denied costs no model call; in a direct chat they are told once an hour, in a group never."""
    turn = TurnHarness(
        store,
        access=AccessSettings(owner=("o",), group_policy=GroupPolicy.ALLOWLIST, direct_policy=DirectPolicy.ALLOWLIST),
    )
    first = await turn.say(message("u-1", "你好"))
    assert (first.outcome, "u-1" in first.text) == (Outcome.DENIED, True)
    assert await turn.tell("u-1", "再问") == ""
    assert await turn.tell("u-1", "/help") == ""
    assert await turn.tell("u-1", "你好", group="cidG") == ""
    assert turn.model.asked == []


async def test_daily_limit(store: SqliteStore) -> None:
    """CLAW_USER_DAILY_LIMIT is per person and day; commands and other people are not counted."""
    turn = TurnHarness(store, access=AccessSettings(owner=("o",), daily_limit=2))
    assert [await turn.tell("u-1", "你好") for _ in range(2)] == ["fine", "fine"]
    assert await turn.tell("u-1", "/id") != ""
    assert "2" in await turn.tell("u-1", "你好")
    assert await turn.tell("u-1", "你好") == ""
    assert await turn.tell("u-2", "你好") == "fine"
    await turn.clock.advance(24 * 3600)
    assert await turn.tell("u-1", "你好") == "fine"


async def test_same_message_is_counted_once(store: SqliteStore) -> None:
    """Another try of a message does not use up another question."""
    turn = TurnHarness(store, access=AccessSettings(owner=("o",), daily_limit=1))
    again = message("u-1", "你好")
    assert [(await turn.handle(again)).text for _ in range(3)] == ["fine"] * 3


PICTURES = tuple(Media(MediaKind.PICTURE, Secret(f"dc{n}")) for n in range(4))


async def test_the_limit_guards_every_budget(store: SqliteStore) -> None:
    """Beyond the daily limit no picture is fetched, and what cannot be read is not answered; a word is said once."""
    turn = TurnHarness(store, access=AccessSettings(owner=("o",), daily_limit=5))
    for _ in range(5):
        await turn.tell("u-1", "", msgtype="unknownMsgType")
    answers = [await turn.tell("u-1", "看", media=PICTURES, group=f"cid{n}") for n in range(30)]
    answers += [await turn.tell("u-1", "", msgtype="unknownMsgType") for _ in range(50)]
    assert [each for each in answers if each] == [texts.LIMIT_REACHED[ZH].format(limit=5)]
    assert (turn.asked_for, turn.model.asked) == ([], [])


async def test_commands_are_bounded_by_person(store: SqliteStore) -> None:
    """Of 120 commands in 60 groups 30 are answered, and one word says why no more are; a minute later it goes on."""
    turn = TurnHarness(store)
    answers = [await turn.tell("u-1", "/id", group=f"cid{n % 60}") for n in range(120)]
    assert len([each for each in answers if each]) == 31
    assert answers[30] == texts.TOO_FAST[ZH]
    assert await turn.tell("u-2", "/id")
    assert await turn.tell("u-1", "a question") == "fine"
    await turn.clock.advance(61)
    assert await turn.tell("u-1", "/id")


async def test_hints_are_bounded_by_person(store: SqliteStore) -> None:
    """What is answered without the model counts together, also where no daily limit is set."""
    turn = TurnHarness(store)
    answers = [await turn.tell("u-1", "", msgtype="unknownMsgType") for _ in range(40)]
    assert len([each for each in answers if each]) == 31


async def test_no_content_is_told_once(store: SqliteStore) -> None:
    """That the month's quota is used up is told each person once an hour, and nobody whom the policy keeps out."""
    turn = TurnHarness(store, access=AccessSettings(owner=("o",), group_policy=GroupPolicy.ALLOWLIST))
    told = [await turn.tell("u-1", "", quota_exhausted=True) for _ in range(3)]
    assert told == [texts.QUOTA_EXHAUSTED[ZH], "", ""]
    assert await turn.tell("u-1", "", quota_exhausted=True, group="cidG") == ""


def test_the_pace_forgets() -> None:
    """Only so many people are counted at the same time."""
    pace = AnswerPace(FakeClock())
    for number in range(PEOPLE_MAX + 5):
        assert pace.allow(str(number))
    assert len(pace._windows) == PEOPLE_MAX


@pytest.mark.parametrize(("groups", "shared"), [(GroupSession.SHARED, True), (GroupSession.PER_USER, False)])
async def test_group_session(store: SqliteStore, groups: GroupSession, shared: bool) -> None:
    """A group is one conversation, or one for each person in it; a direct chat is always its own."""
    turn = TurnHarness(store, ConversationSettings(group_session=groups))
    await turn.tell("u-1", "my secret", group="cidG")
    await turn.tell("u-2", "hello", group="cidG")
    assert ("my secret" in str(turn.model.asked[-1])) is shared
    assert (turn.model.users[0] == turn.model.users[1]) is shared
    await turn.tell("u-1", "direct")
    assert "my secret" not in str(turn.model.asked[-1])
