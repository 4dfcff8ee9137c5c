"""A message becomes an answer: what the model is told, what history keeps, and what claw answers by itself."""

from __future__ import annotations

import pytest

from claw.config.settings import ConversationSettings
from claw.errors import MediaError, ModelError, ModelErrorKind
from claw.language import Language
from claw.messages import Answer, Exchange, Inbound, Media, MediaKind, Outcome
from claw.secret import Secret
from claw.store.sqlite.store import SqliteStore
from claw.turn import texts
from claw.turn.handler import strip_reasoning
from claw.turn.model.chat import Completion
from tests.messages import inbound
from tests.turn.harness import TurnHarness


async def test_history_and_prompt_reach_the_model(store: SqliteStore) -> None:
    """The model is told the system prompt, then the earlier turns in order, then the message."""
    turn = TurnHarness(store, ConversationSettings(system_prompt="be brief"))
    await turn.say(inbound("one"))
    answer = await turn.say(inbound("two"))
    assert answer == Answer.of("fine", Outcome.ANSWERED, exchange=Exchange("dingfakeclient:cidA", "two", "fine"))
    assert turn.model.asked[-1] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "fine"},
        {"role": "user", "content": "two"},
    ]


async def test_window_is_bounded(store: SqliteStore) -> None:
    """No more than CLAW_HISTORY_TURNS earlier turns are told, the newest ones."""
    turn = TurnHarness(store, ConversationSettings(history_turns=2))
    for text in ("a", "b", "c", "d"):
        await turn.say(inbound(text))
    assert [m["content"] for m in turn.model.asked[-1] if m["role"] == "user"] == ["b", "c", "d"]


async def test_gateway_keeps_the_session(store: SqliteStore) -> None:
    """With CLAW_HISTORY_TURNS=0 the model gets the system prompt and the newest message (docs/openclaw.md: history)."""
    turn = TurnHarness(store, ConversationSettings(system_prompt="p", history_turns=0))
    await turn.say(inbound("one"))
    await turn.say(inbound("two"))
    assert [m["content"] for m in turn.model.asked[-1]] == ["p", "two"]


async def test_conversations_do_not_mix(store: SqliteStore) -> None:
    """What was said in one conversation is never told in another, and their `user` differs."""
    turn = TurnHarness(store, ConversationSettings())
    await turn.say(inbound("secret of A", chat="cidA"))
    await turn.say(inbound("hello", chat="cida"))
    assert [m["content"] for m in turn.model.asked[-1]] == ["hello"]
    assert len(set(turn.model.users)) == 2


async def test_user_is_a_stable_hash_until_new(store: SqliteStore) -> None:
    """`user` is lower-case hex, the same over turns, and another after /new, which also empties the history."""
    turn = TurnHarness(store, ConversationSettings())
    await turn.say(inbound("one"))
    await turn.say(inbound("two"))
    assert (await turn.say(inbound("/new"))).outcome is Outcome.COMMAND
    await turn.say(inbound("three"))
    first, second, third = turn.model.users
    assert first == second != third
    assert all(c in "0123456789abcdef" for c in first + third)
    assert [m["content"] for m in turn.model.asked[-1]] == ["three"]


async def test_shortened_keeps_the_newest(store: SqliteStore) -> None:
    """When the context overflows, the newest quarter of the turns is kept, and the message itself always."""
    turn = TurnHarness(store, ConversationSettings(history_turns=8))
    for number in range(9):
        await turn.say(inbound(str(number)))
    assert turn.model.shortened is not None
    assert [m["content"] for m in turn.model.shortened if m["role"] == "user"] == ["6", "7", "8"]


async def test_nothing_to_shorten(store: SqliteStore) -> None:
    """A first message that is too long cannot be shortened."""
    turn = TurnHarness(store, ConversationSettings())
    await turn.say(inbound("long"))
    assert turn.model.shortened is None


async def test_pictures_are_data_urls(store: SqliteStore) -> None:
    """A picture reaches the model as a data URL, and history keeps a mark in its place (docs/openclaw.md: images)."""
    turn = TurnHarness(store, ConversationSettings())
    message = inbound("what is it?", msgtype="richText", media=(Media(MediaKind.PICTURE, Secret("dc1")),))
    answer = await turn.say(message)
    assert turn.model.asked[-1][-1]["content"] == [
        {"type": "text", "text": "what is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]
    assert answer.exchange == Exchange("dingfakeclient:cidA", "what is it? [picture]", "fine")


async def test_lost_picture_is_told(store: SqliteStore) -> None:
    """A picture that cannot be fetched costs no model call, and the person is asked to send it again."""
    turn = TurnHarness(store, ConversationSettings())
    turn.pictures = MediaError("expired")
    answer = await turn.say(inbound("", msgtype="picture", media=(Media(MediaKind.PICTURE, Secret("dc1")),)))
    assert answer.text == texts.PICTURE_LOST[Language.ZH]
    assert turn.model.asked == []


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (inbound(""), texts.NO_TEXT),
        (inbound("", msgtype="unknownMsgType"), texts.UNREADABLE),
        (inbound("", msgtype="video", media=(Media(MediaKind.VIDEO, Secret("dc")),)), texts.UNREADABLE),
        (inbound("", quota_exhausted=True), texts.QUOTA_EXHAUSTED),
    ],
)
async def test_empty_text_is_never_sent(store: SqliteStore, message: Inbound, text: dict[Language, str]) -> None:
    """A message without words gets a hint, and no model call: empty text is a 400 (docs/openclaw.md)."""
    turn = TurnHarness(store, ConversationSettings())
    assert (await turn.say(message)).text == text[Language.ZH]
    assert turn.model.asked == []


async def test_file_is_named(store: SqliteStore) -> None:
    """The model is told the name of a file that it cannot read."""
    turn = TurnHarness(store, ConversationSettings())
    await turn.say(inbound("", msgtype="file", media=(Media(MediaKind.FILE, Secret("dc"), "report v2.pdf"),)))
    assert "report v2.pdf" in turn.model.asked[-1][-1]["content"]


async def test_quoted_text_is_told(store: SqliteStore) -> None:
    """What a message replies to is told with it, marked as a quote."""
    turn = TurnHarness(store, ConversationSettings())
    await turn.say(inbound("what does this mean?", quoted="E = mc2\nso it goes"))
    said = turn.model.asked[-1][-1]["content"]
    assert "> E = mc2\n> so it goes" in said
    assert said.endswith("what does this mean?")


async def test_cut_answer_is_told(store: SqliteStore) -> None:
    """finish_reason length is told to the person, and not kept as the model's words."""
    turn = TurnHarness(store, ConversationSettings())
    turn.model.completion = Completion(text="half", finish_reason="length", usage=None, model="m", cut=True)
    answer = await turn.say(inbound("你好"))
    assert answer.text == "half\n\n" + texts.CUT[Language.ZH]
    assert answer.exchange is not None
    assert answer.exchange.assistant == "half"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<think>\nhm\n</think>\n\n42", "42"),
        ("  <think></think>42", "42"),
        ("<think>never closed", "<think>never closed"),
        ("use the <think></think> tag", "use the <think></think> tag"),
        ("plain", "plain"),
    ],
)
def test_thoughts_are_not_answers(text: str, said: str) -> None:
    """What a model thinks aloud before its answer is neither sent nor remembered."""
    assert strip_reasoning(text) == said


async def test_stop_interrupts_its_own_conversation(store: SqliteStore) -> None:
    """/stop names the lane of its conversation, and says whether something was running there."""
    running = TurnHarness(store, ConversationSettings(), stoppable=True)
    assert (await running.say(inbound("/stop"))).text == texts.STOPPED[Language.ZH]
    assert running.stopped == ["dingfakeclient:cidA"]
    assert (await TurnHarness(store, ConversationSettings()).say(inbound("/stop"))).text == texts.NOTHING_TO_STOP[
        Language.ZH
    ]


@pytest.mark.parametrize(
    ("said", "language"), [("hello there", Language.EN), ("你好", Language.ZH), ("42", Language.ZH)]
)
async def test_apology_in_the_language_of_the_person(store: SqliteStore, said: str, language: Language) -> None:
    """A person is told of a failure in the language that they write, in a text that fits the fault."""
    turn = TurnHarness(store, ConversationSettings())
    apology = turn.handler.failure_reply(inbound(said), ModelError(ModelErrorKind.BUSY, "429 from the server"))
    assert apology.text.startswith(texts.FAILURES[ModelErrorKind.BUSY][language])
    assert apology.outcome is Outcome.FAILED
    assert "429 from the server" in apology.error


@pytest.mark.parametrize(("said", "ending"), [("hello there", ". (reference {trace})"), ("你好", "。（编号 {trace}）")])
async def test_apology_ends_with_the_trace(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, said: str, ending: str
) -> None:
    """The trace's id follows the sentence, after a blank where the language has one."""
    monkeypatch.setattr("claw.observe.telemetry.trace_id", lambda: "ab" * 16)
    apology = TurnHarness(store, ConversationSettings()).handler.failure_reply(
        inbound(said), ModelError(ModelErrorKind.UNREACHABLE, "refused")
    )
    assert apology.text.endswith(ending.format(trace="ab" * 16))
