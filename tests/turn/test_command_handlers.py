"""Commands: what each does, that the owner's are only the owner's, and that hostile words do nothing but answer."""

from __future__ import annotations

import random
import string

import pytest

from claw.config.settings import AccessSettings, ConversationSettings
from claw.errors import ModelError, ModelErrorKind
from claw.language import Language, Text
from claw.policy import DirectPolicy, GroupPolicy, GroupSession
from claw.store.sqlite.store import SqliteStore
from claw.store.values import Interrupted
from claw.turn import texts
from claw.turn.model.health import ModelHealth
from tests.turn.harness import TurnHarness, message

ZH = Language.ZH
OWNER = "u-owner"


@pytest.fixture
def turn(store: SqliteStore) -> TurnHarness:
    return TurnHarness(store)


@pytest.fixture
async def paired(store: SqliteStore) -> TurnHarness:
    """Return a robot whose owner was paired, and not named by CLAW_OWNER."""
    turn = TurnHarness(store, access=AccessSettings())
    await turn.tell(OWNER, "你好")
    return turn


OWNERS_COMMANDS = (
    "/status",
    "/chats",
    "/policy",
    "/policy group disabled",
    "/allow u-9",
    "/deny u-9",
    "/owner u-9",
    "/owner confirm",
    "/restart",
    "/策略 群 关闭",
)


@pytest.mark.parametrize("text", OWNERS_COMMANDS)
@pytest.mark.parametrize("person", ["u-1", ""])
async def test_owner_only(turn: TurnHarness, text: str, person: str) -> None:
    """Anybody else gets a short no that tells nothing, and nothing is changed."""
    before = await turn.store.items()
    assert await turn.tell(person, text) == texts.OWNER_ONLY[ZH]
    assert (await turn.store.items(), turn.restarted) == (before, [])


@pytest.mark.parametrize("text", ["/help", "/new", "/stop", "/model", "/id"])
async def test_for_everyone(turn: TurnHarness, text: str) -> None:
    """These are answered to anybody who may talk, without a model call."""
    assert await turn.tell("u-1", text)
    assert turn.model.asked == []


async def test_id(turn: TurnHarness) -> None:
    """/id tells the own staff id and the conversation's id, and somebody from outside that they have none."""
    told = await turn.tell("u-1", "/id", group="cidG==")
    assert "u-1" in told
    assert "cidG==" in told
    assert texts.NO_STAFF_ID[ZH] in await turn.tell("", "/id")


async def test_help_tells_the_owner_more(turn: TurnHarness) -> None:
    """Only the owner is told of the owner's commands."""
    assert "/policy" in await turn.tell(OWNER, "/help")
    assert "/policy" not in await turn.tell("u-1", "/help")


async def test_policy(turn: TurnHarness) -> None:
    """A policy set in chat holds at once, shows as changed, and falls back to the default with reset."""
    assert "allowlist" in await turn.tell(OWNER, "/policy group allowlist")
    assert (await turn.access.read_rules()).group_policy is GroupPolicy.ALLOWLIST
    await turn.tell(OWNER, "/策略 单聊 主人")
    assert (await turn.access.read_rules()).direct_policy is DirectPolicy.OWNER
    assert texts.CHANGED[ZH] in await turn.tell(OWNER, "/status")
    await turn.tell(OWNER, "/policy reset")
    in_force = await turn.access.read_rules()
    assert (in_force.group_policy, in_force.direct_policy, in_force.overrides) == (
        GroupPolicy.OPEN,
        DirectPolicy.OPEN,
        frozenset(),
    )


@pytest.mark.parametrize("words", ["x", "group", "group owner", "direct disabled", "group open now", "reset all"])
async def test_policy_usage(turn: TurnHarness, words: str) -> None:
    """Words that make no policy are answered with the usage, and change nothing."""
    assert await turn.tell(OWNER, f"/policy {words}") == texts.POLICY_USAGE[ZH]
    assert await turn.store.items() == {}


async def test_allow_and_deny(store: SqliteStore) -> None:
    """/allow lets somebody in whom the policy keeps out; /deny keeps somebody out whatever the policy."""
    turn = TurnHarness(store, access=AccessSettings(owner=(OWNER,), direct_policy=DirectPolicy.ALLOWLIST))
    await turn.tell(OWNER, "/allow @王大伟", group="cidG", mentioned=("u-2",))
    assert await turn.tell("u-2", "hello") == "fine"
    await turn.tell(OWNER, "/deny u-2")
    assert await turn.tell("u-2", "hello") != "fine"
    assert await turn.tell("u-2", "hello", group="cidG") == ""
    await turn.tell(OWNER, "/allow u-2")
    assert await turn.tell("u-2", "hello") == "fine"


async def test_owner_cannot_be_denied(turn: TurnHarness) -> None:
    """The owner cannot lock themselves out."""
    assert await turn.tell(OWNER, f"/deny {OWNER}") == texts.OWNER_STAYS[ZH]
    assert await turn.tell(OWNER, "/deny") == texts.WHOM[ZH].format(command="deny")


async def test_no_handing_over_of_what_the_environment_settles(turn: TurnHarness) -> None:
    """With CLAW_OWNER the owner is told where to change it, and nothing in chat does."""
    told = await turn.tell(OWNER, "/owner u-2")
    assert told == texts.OWNERS_SET[ZH].format(owners=OWNER)
    assert await turn.tell(OWNER, "/owner confirm") == told
    assert await turn.store.items() == {}


async def test_handing_over(paired: TurnHarness) -> None:
    """The robot is handed over after a confirmation; then the old owner may no longer command it."""
    assert "u-2" in await paired.tell(OWNER, "/owner @王大伟", group="cidG", mentioned=("u-2",))
    assert (await paired.access.read_rules()).owners == {OWNER}
    assert await paired.tell("u-2", "/owner confirm") == texts.OWNER_ONLY[ZH]
    assert await paired.tell(OWNER, "/owner confirm") == texts.HANDED_OVER[ZH].format(person="u-2")
    assert (await paired.access.read_rules()).owners == {"u-2"}
    assert await paired.tell(OWNER, "/status") == texts.OWNER_ONLY[ZH]
    assert await paired.tell("u-2", "/owner confirm") == texts.NOTHING_TO_CONFIRM[ZH]


GUEST = "$:LWCP_v1:$outside"
"""The harness's id of somebody without a staff id."""


@pytest.mark.parametrize(
    ("text", "mentioned", "name"),
    [
        ("/{command} @Bob evil123", ("u-bob",), "u-bob"),
        ("/{command} @Bob evil123\u2005@Guest boss02", ("u-bob", GUEST), f"u-bob, {GUEST}"),
        ("/{command} evil123", (), ""),
        ("/{command} @Guest boss02", (), ""),
    ],
)
@pytest.mark.parametrize("command", ["allow", "deny"])
async def test_in_a_group_only_who_is_mentioned_counts(
    turn: TurnHarness, command: str, text: str, mentioned: tuple[str, ...], name: str
) -> None:
    """Words of a group's command are nicks, which anybody may choose: none of them is taken for an id."""
    told = await turn.tell(OWNER, text.format(command=command), group="cidG", mentioned=mentioned)
    assert (name in told) if name else (told == texts.WHOM[ZH].format(command=command))
    in_force = await turn.access.read_rules()
    assert in_force.denied | in_force.group_listed == set(mentioned)


@pytest.mark.parametrize("text", ["u-2 @Guest boss02", "u-2 王大伟", "u-2, *", "u-2 $:no", "@u-2", "u-2 @u-3"])
@pytest.mark.parametrize("command", ["allow", "deny", "owner"])
async def test_ids_by_hand_are_all_or_nothing(paired: TurnHarness, command: str, text: str) -> None:
    """A word that is no id leaves everything as it was, and is named."""
    before = await paired.store.items()
    told = await paired.tell(OWNER, f"/{command} {text}")
    assert told.startswith(texts.NO_ID[ZH].split("“")[0])
    assert await paired.store.items() == before


async def test_more_people_than_fit(turn: TurnHarness) -> None:
    """A command that names too many changes nothing, rather than the first of them."""
    told = await turn.tell(OWNER, "/allow " + " ".join(f"u{n}" for n in range(21)))
    assert told == texts.TOO_MANY[ZH].format(most=20)
    assert await turn.store.items() == {}


async def test_a_guest_can_be_denied(turn: TurnHarness) -> None:
    """Somebody without a staff id is denied by the id that DingTalk gives them, and let in by it again."""
    assert await turn.tell("", "hello") == "fine"
    await turn.tell(OWNER, "/deny @Guest boss02", group="cidG", mentioned=(GUEST,))
    assert await turn.tell("", "hello") != "fine"
    assert await turn.tell("boss02", "hello") == "fine"
    await turn.tell(OWNER, f"/allow {GUEST}")
    assert await turn.tell("", "hello") == "fine"


async def test_a_guest_is_never_the_owner(paired: TurnHarness) -> None:
    """A robot is not handed to a guest, nor to whom the guest's nick names."""
    told = await paired.tell(OWNER, "/owner @Guest mallory", group="cidG", mentioned=(GUEST,))
    assert told == texts.NO_MEMBER[ZH]
    assert await paired.tell(OWNER, "/owner confirm") == texts.NOTHING_TO_CONFIRM[ZH]


async def test_handing_over_shows_name_and_id(paired: TurnHarness) -> None:
    """Before it asks, `/owner` shows the name as it was written and the id that counts; a nick confirms nothing."""
    await paired.tell(OWNER, "/owner u-9")
    told = await paired.tell(OWNER, "/owner @Bob confirm", group="cidG", mentioned=("u-bob",))
    assert "@Bob confirm (u-bob)" in told
    await paired.tell(OWNER, "/owner confirm")
    assert (await paired.access.read_rules()).owners == {"u-bob"}


async def test_another_try_of_the_confirmation(paired: TurnHarness) -> None:
    """The message that handed the robot over, tried again after a crash, still says so to who was its owner."""
    await paired.tell(OWNER, "/owner u-2")
    confirmation = message(OWNER, "/owner confirm")
    told = [(await paired.handle(confirmation)).text for _ in range(2)]
    assert told == [texts.HANDED_OVER[ZH].format(person="u-2")] * 2
    assert await paired.tell(OWNER, "/owner confirm") == texts.OWNER_ONLY[ZH]


async def test_handing_over_too_late(paired: TurnHarness) -> None:
    """A confirmation after 5 minutes changes nothing."""
    await paired.tell(OWNER, "/owner u-2")
    await paired.clock.advance(301)
    assert await paired.tell(OWNER, "/owner confirm") == texts.NOTHING_TO_CONFIRM[ZH]
    assert (await paired.access.read_rules()).owners == {OWNER}


async def test_chats(turn: TurnHarness) -> None:
    """/chats lists where the robot was written to, titles that somebody else chose cannot break the list."""
    await turn.tell("u-1", "hi", group="cidG")
    told = await turn.tell(OWNER, "/chats")
    assert "cidG" in told
    assert "nick of u-1" not in told
    assert "direct-u-owner" in told


@pytest.mark.parametrize(("text", "scope"), [("/restart", "stream"), ("/restart process", "process")])
async def test_restart(turn: TurnHarness, text: str, scope: str) -> None:
    """/restart replaces the connection, with `process` all of it."""
    assert await turn.tell(OWNER, text) == texts.RESTARTING[ZH]
    assert turn.restarted == [scope]


async def test_english(turn: TurnHarness) -> None:
    """A Chinese command is answered in Chinese whatever the default; a Latin one in the default language."""
    assert await turn.tell("u-1", "/模型") == texts.MODEL[ZH].format(model="scripted-1")


async def test_hostile_commands(turn: TurnHarness) -> None:
    """A thousand hostile command strings change nothing and are each answered in one short message."""
    draw = random.Random(20261121)
    alphabet = string.printable + "／群策略允许主人重启\u0000\u202e\ud83d\u2028" + "'\";--${}%n\\`|"
    commands = ["/status", "/policy", "/allow", "/deny", "/owner", "/restart", "/chats", "/id", "/new", "/model", "/"]
    for _ in range(1000):
        await turn.clock.advance(10)
        text = draw.choice(commands) + " " + "".join(draw.choice(alphabet) for _ in range(draw.randrange(0, 60)))
        told = await turn.tell(draw.choice(["u-1", ""]), text)
        assert 0 < len(told) < 1000
    assert (await turn.store.items(), turn.restarted) == ({}, [])
    assert (await turn.access.read_rules()).owners == {OWNER}


async def test_new_ends_the_running_turn_first(store: SqliteStore) -> None:
    """`/new` does not wait for the answer in progress, which belongs to what is to be forgotten: it ends it."""
    turn = TurnHarness(store, stoppable=Interrupted.STOPPED)
    assert await turn.tell("u-1001", "/new") == texts.FORGOTTEN[Language.ZH]
    assert turn.stopped == ["dingfakeclient:direct-u-1001"]


async def test_status_tells_how_the_model_does(store: SqliteStore) -> None:
    """`/status` shows the model's last success, and its last error with what helps; nothing before there is one."""
    turn = TurnHarness(store)
    assert "OPENAI" not in await turn.tell("u-owner", "/status")
    health = ModelHealth(turn.clock)
    health.note_success()
    health.note_error(ModelError(ModelErrorKind.UNAUTHORIZED, "HTTP 401: bad `key`"))
    turn.model_health = health.snapshot()
    told = await turn.tell("u-owner", "/status")
    assert "2027-01-15T08:00:00.000Z" in told
    assert "HTTP 401: bad key" in told
    assert "检查 OPENAI_API_KEY" in told


# --- somebody else's turn, and a group's memory -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "group", "sender"),
    [("u-22", "cidG", "u-22"), (OWNER, "cidG", None), ("u-22", "", None)],
)
async def test_whose_turn_is_stopped(store: SqliteStore, who: str, group: str, sender: str | None) -> None:
    """In a shared group one's own turn only, the owner's word ends any; in a direct chat there is one person."""
    turn = TurnHarness(store, access=AccessSettings(owner=(OWNER,)), stoppable=Interrupted.STOPPED)
    assert await turn.tell(who, "/stop", group=group) == texts.STOPPED[Language.ZH]
    await turn.tell(who, "/new", group=group)
    assert turn.stopped_for == [sender, sender]


async def test_somebody_elses_turn_is_named_so(store: SqliteStore) -> None:
    """Who may not stop it is told that it is not theirs."""
    turn = TurnHarness(store, stoppable=Interrupted.OTHERS)
    assert await turn.tell("u-22", "/stop", group="cidG") == texts.NOT_YOURS_TO_STOP[Language.ZH]


async def test_a_group_is_told_who_began_anew(store: SqliteStore) -> None:
    """What all share is not forgotten in silence; a person's own memory is nobody else's business."""
    turn = TurnHarness(store)
    told = await turn.tell("u-22", "/new", group="cidG")
    assert told == texts.FORGOTTEN_FOR_ALL[Language.ZH].format(name="nick of u-22")
    per_user = TurnHarness(store, ConversationSettings(group_session=GroupSession.PER_USER))
    assert await per_user.tell("u-22", "/new", group="cidG") == texts.FORGOTTEN[Language.ZH]


# --- slips --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("word", "near"), [("newv", "new"), ("hlep", "help"), ("stpo", "stop"), ("帮住", "帮助")])
async def test_a_slip_gets_the_nearest_command(store: SqliteStore, word: str, near: str) -> None:
    """And no model call, and no question of the day."""
    turn = TurnHarness(store, access=AccessSettings(owner=(OWNER,), daily_limit=1))
    for _ in range(3):
        assert f"`/{near}`" in await turn.tell("u-1", f"/{word}")
    assert turn.model.asked == []
    assert await turn.tell("u-1", "真的问题") == "fine"


async def test_a_word_that_is_near_nothing(store: SqliteStore) -> None:
    """Then the list of commands is named, and how the model gets it."""
    turn = TurnHarness(store)
    told = await turn.tell("u-1", "/xyzzyq")
    assert told == texts.UNKNOWN_COMMAND[Language.ZH].format(word="xyzzyq")


async def test_two_slashes_reach_the_model_as_one(store: SqliteStore) -> None:
    """A gateway's own commands can be written."""
    turn = TurnHarness(store)
    await turn.tell("u-1", "//compact now")
    assert turn.model.asked[-1][-1]["content"] == "/compact now"


# --- lists --------------------------------------------------------------------------------------------------------


async def test_a_denial_outlives_a_reset(store: SqliteStore) -> None:
    """`/policy reset` says who is still denied, and lists can be seen."""
    turn = TurnHarness(store, access=AccessSettings(owner=(OWNER,), group_allowed=("u-env",)))
    await turn.tell(OWNER, "/deny u-1003")
    await turn.tell(OWNER, "/allow u-1004")
    told = await turn.tell(OWNER, "/policy reset")
    assert texts.STILL_DENIED[Language.ZH].format(count=1) in told
    assert await turn.tell("u-1003", "hello there") != "fine"
    listed = await turn.tell(OWNER, "/名单")
    for line in ("主人：`u-owner`", "允许（群聊，环境变量）：`u-env`", "禁止：`u-1003`", "允许（运行时添加）：（无）"):
        assert line in listed
    group = await turn.tell(OWNER, "/list", group="cidG")
    assert "u-1003" not in group
    assert await turn.tell("u-1", "/list") == texts.OWNER_ONLY[Language.ZH]


@pytest.mark.parametrize(
    ("staff_id", "policy", "text"),
    [
        ("", DirectPolicy.ALLOWLIST, texts.NOT_ALLOWED_GUEST),
        ("", DirectPolicy.OWNER, texts.NOT_ALLOWED_GUEST),
        ("u-1", DirectPolicy.OWNER, texts.NOT_ALLOWED_OWNER_ONLY),
    ],
)
async def test_who_is_kept_out_gets_words_that_fit(
    store: SqliteStore, staff_id: str, policy: DirectPolicy, text: Text
) -> None:
    """Nobody is asked for a staff id that cannot exist, or that would not help."""
    turn = TurnHarness(store, access=AccessSettings(owner=(OWNER,), direct_policy=policy))
    assert await turn.tell(staff_id, "你好，在吗") == text[Language.ZH]


# --- the language of a person -------------------------------------------------------------------------------------


async def test_the_language_that_somebody_last_wrote_in(store: SqliteStore) -> None:
    """A command's Latin name, a word, code and links show none: the person's last one counts, over a restart too."""
    turn = TurnHarness(store)
    assert (await turn.tell("u-1", "/help")).startswith("直接")
    await turn.tell("u-1", "How much is it today?")
    for text in ("/help", "/HELP", "/commands"):
        assert (await turn.tell("u-1", text)).startswith("Just ask")
    again = TurnHarness(store)
    assert await again.tell("u-1", "/stop") == texts.NOTHING_TO_STOP[Language.EN]
    for neutral in ("ok", "42", "print(x)", "https://a.example/some/long/path", "SELECT a FROM b", "ann@example.com"):
        await again.tell("u-1", neutral)
    assert await again.tell("u-1", "/stop") == texts.NOTHING_TO_STOP[Language.EN]
    assert await again.tell("u-1", "/停止") == texts.NOTHING_TO_STOP[Language.ZH]
    await again.tell("u-1", "请用中文")
    assert await again.tell("u-1", "/stop") == texts.NOTHING_TO_STOP[Language.ZH]
    assert await again.tell("u-2", "/stop") == texts.NOTHING_TO_STOP[Language.ZH]


async def test_a_failure_is_told_in_the_persons_language(store: SqliteStore) -> None:
    """Also where the message itself, a picture or a number, shows none."""
    turn = TurnHarness(store)
    await turn.tell("u-1", "What is the meaning of this?")
    reply = await turn.handler.failure_reply(message("u-1", "42"), ModelError(ModelErrorKind.BUSY, "429"))
    assert reply.text.startswith(texts.FAILURES[ModelErrorKind.BUSY][Language.EN])
