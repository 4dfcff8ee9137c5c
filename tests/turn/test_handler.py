"""A message becomes an answer: by the model, by a command, or by claw itself."""

from __future__ import annotations

import pytest

from claw.config.settings import ConversationSettings
from claw.errors import ModelError, ModelErrorKind
from claw.language import Language
from claw.messages import Inbound, Outcome, Route
from claw.parts import Mark, MarkKind, Media, MediaKind
from claw.secret import Secret, hash_id
from claw.store.sqlite.store import SqliteStore
from claw.store.values import Interrupted
from claw.turn import texts
from claw.turn.model.chat import Completion
from claw.turn.model.finish import FinishReason
from tests.messages import inbound
from tests.turn.harness import TurnHarness


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


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (inbound(""), texts.NO_TEXT),
        (inbound("", parts=(Mark(MarkKind.UNKNOWN, "x"),)), texts.MARK_HINTS[MarkKind.UNKNOWN]),
        (inbound("", parts=(Mark(MarkKind.NO_SPEECH),)), texts.MARK_HINTS[MarkKind.NO_SPEECH]),
        (inbound("", parts=(Mark(MarkKind.DOCUMENT, "t"),)), texts.MARK_HINTS[MarkKind.DOCUMENT]),
        (inbound("", parts=(Mark(MarkKind.CARD),)), texts.MARK_HINTS[MarkKind.CARD]),
        (inbound("", parts=(Mark(MarkKind.EMPTY_RECORD),)), texts.MARK_HINTS[MarkKind.EMPTY_RECORD]),
        (inbound("", msgtype="video", media=(Media(MediaKind.VIDEO, Secret("dc")),)), texts.VIDEO_HINT),
        (inbound("", quota_exhausted=True), texts.QUOTA_EXHAUSTED),
    ],
)
async def test_what_is_nothing_to_ask_is_not_asked(
    store: SqliteStore, message: Inbound, text: dict[Language, str]
) -> None:
    """A message without anything that can be asked gets a hint of its own, and no model call."""
    turn = TurnHarness(store, ConversationSettings())
    assert (await turn.say(message)).text == text[Language.ZH]
    assert turn.model.asked == []


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["Par", "is", "."], ["Par", "Paris", "Paris."]),
        (["<", "think>Hm", "m.</think>", "\nPar", "is"], ["Par", "Paris"]),
        (["<think>a</think>", "<", "b>"], ["<b>"]),
        (["<thin", "ker>"], ["<thinker>"]),
        ([" ", "\n", "Hi"], ["Hi"]),
    ],
)
async def test_the_text_so_far_is_shown(store: SqliteStore, pieces: list[str], shown: list[str]) -> None:
    """The draft gets the text so far as it comes, and never a model's thoughts."""
    turn = TurnHarness(store, ConversationSettings())
    turn.model.pieces = pieces
    await turn.say(inbound("capital of France?"))
    assert turn.draft.shown == shown


async def test_the_route_names_the_conversation(store: SqliteStore) -> None:
    """History and `user` go by the route's conversation, whatever queue the message waited in."""
    turn = TurnHarness(store, ConversationSettings())
    answer = await turn.handler.handle(inbound("hi"), Route("robot:elsewhere", "a queue of its own"), turn.draft)
    assert answer.exchange is not None
    assert answer.exchange.history_key == "robot:elsewhere"
    epoch = await store.epoch("robot:elsewhere")
    assert turn.model.users == [hash_id(f"robot:elsewhere:{epoch}")]
    assert answer.exchange.epoch == epoch, "by which the store knows an exchange that was forgotten meanwhile"


async def test_cut_answer_is_told(store: SqliteStore) -> None:
    """finish_reason length is told to the person, and not kept as the model's words."""
    turn = TurnHarness(store, ConversationSettings())
    turn.model.completion = Completion("half", FinishReason.LENGTH, None, "m")
    answer = await turn.say(inbound("你好"))
    assert answer.text == "half\n\n" + texts.CUT[Language.ZH]
    assert answer.exchange is not None
    assert answer.exchange.assistant == "half"


async def test_stop_interrupts_its_own_conversation(store: SqliteStore) -> None:
    """/stop names the key of its conversation, and says whether something was running there."""
    running = TurnHarness(store, ConversationSettings(), stoppable=Interrupted.STOPPED)
    assert (await running.say(inbound("/stop"))).text == texts.STOPPED[Language.ZH]
    assert running.stopped == ["dingfakeclient:cidA"]
    assert (await TurnHarness(store, ConversationSettings()).say(inbound("/stop"))).text == texts.NOTHING_TO_STOP[
        Language.ZH
    ]


@pytest.mark.parametrize(
    ("said", "language"), [("hello there", Language.EN), ("你好", Language.ZH), ("42", Language.ZH)]
)
async def test_failure_reply_in_the_language_of_the_person(store: SqliteStore, said: str, language: Language) -> None:
    """A person is told of a failure in the language that they write, in a text that fits the fault."""
    turn = TurnHarness(store, ConversationSettings())
    reply = await turn.handler.failure_reply(inbound(said), ModelError(ModelErrorKind.BUSY, "429 from the server"))
    assert reply.text.startswith(texts.FAILURES[ModelErrorKind.BUSY][language])
    assert reply.outcome is Outcome.FAILED
    assert "429 from the server" in reply.error


@pytest.mark.parametrize(("said", "ending"), [("hello there", ". (reference {trace})"), ("你好", "。（编号 {trace}）")])
async def test_failure_reply_ends_with_the_trace(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, said: str, ending: str
) -> None:
    """The trace's id follows the sentence, after a blank where the language has one."""
    monkeypatch.setattr("claw.observe.telemetry.trace_id", lambda: "ab" * 16)
    reply = await TurnHarness(store, ConversationSettings()).handler.failure_reply(
        inbound(said), ModelError(ModelErrorKind.UNREACHABLE, "refused")
    )
    assert reply.text.endswith(ending.format(trace="ab" * 16))


async def test_what_came_is_told_with_the_failure(store: SqliteStore) -> None:
    """An answer that broke off is shown as far as it came, marked, and is not kept as an exchange."""
    turn = TurnHarness(store, ConversationSettings())
    error = ModelError(ModelErrorKind.BROKEN_OFF, "reset", began=True, partial="Paris is the")
    reply = await turn.handler.failure_reply(inbound("hello"), error)
    assert reply.text.startswith("Paris is the\n\n" + texts.INCOMPLETE[Language.EN])
    assert texts.FAILURES[ModelErrorKind.BROKEN_OFF][Language.EN] in reply.text
    assert reply.exchange is None
    assert "Paris" not in reply.error


async def test_what_came_in_an_earlier_try_is_told(store: SqliteStore) -> None:
    """The last try may bring nothing: then what an earlier one brought is told, once."""
    turn = TurnHarness(store, ConversationSettings())
    asked = inbound("hello")
    turn.model.pieces = ["Paris ", "is the"]
    turn.model.error = ModelError(ModelErrorKind.BROKEN_OFF, "reset", began=True, partial="Paris is the")
    with pytest.raises(ModelError):
        await turn.handle(asked)
    last = ModelError(ModelErrorKind.UNREACHABLE, "refused")
    assert (await turn.handler.failure_reply(asked, last)).text.startswith("Paris is the\n\n")
    assert "Paris" not in (await turn.handler.failure_reply(asked, last)).text


@pytest.mark.parametrize("partial", ["", "<thi", "<think>The user asks", " \n"])
async def test_a_thought_is_no_part_of_an_answer(store: SqliteStore, partial: str) -> None:
    """Where only thoughts had come, nothing is shown but the failure."""
    error = ModelError(ModelErrorKind.TIMEOUT, "late", began=True, partial=partial)
    reply = await TurnHarness(store, ConversationSettings()).handler.failure_reply(inbound("hello"), error)
    assert reply.text.startswith(texts.FAILURES[ModelErrorKind.TIMEOUT][Language.EN])


async def test_filtered_answer_is_marked(store: SqliteStore) -> None:
    """An answer that a policy broke off is shown with the reason, and not kept: it would be refused again and again."""
    turn = TurnHarness(store, ConversationSettings())
    turn.model.completion = Completion("good ans", FinishReason.CONTENT_FILTER, None, "m")
    answer = await turn.say(inbound("你好"))
    assert answer.text == "good ans\n\n" + texts.FILTERED[Language.ZH]
    assert (answer.outcome, answer.exchange) == (Outcome.ANSWERED, None)


@pytest.mark.parametrize(("said", "language"), [("hello there", Language.EN), ("你好", Language.ZH)])
async def test_waiting_is_told(store: SqliteStore, said: str, language: Language) -> None:
    """A person whose question waits for the model's server is told so in their language."""
    reply = await TurnHarness(store, ConversationSettings()).handler.patience_reply(inbound(said))
    assert (reply.text, reply.exchange) == (texts.PATIENCE[language], None)
