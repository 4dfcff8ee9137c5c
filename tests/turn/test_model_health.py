"""How the model does is known from the questions of people, and holds nothing that was said."""

from __future__ import annotations

import json

import pytest

from claw.errors import ModelError, ModelErrorKind
from claw.turn.model.health import ModelHealth
from tests.clock import FakeClock
from tests.turn.asking import QUESTION, USER, model_at
from tests.turn.servers import ModelServer, answer, refuses, sends


async def test_last_success_and_last_error(server: ModelServer) -> None:
    """Both are told with their times, the error with its cause and what helps."""
    clock = FakeClock()
    server.behaviours = [sends(answer("Hi")), refuses(401, {"error": {"message": "bad key"}}), sends(answer("Hi"))]
    async with model_at(server.base_url, clock=clock) as model:
        assert model.health.snapshot() == {"up": True, "last_success": None, "last_error": None}
        await model.ask(QUESTION, user=USER)
        await clock.advance(60)
        with pytest.raises(ModelError):
            await model.ask(QUESTION, user=USER)
        told = model.health.snapshot()
        assert (told["up"], model.health.read_up()) == (False, 0.0)
        assert told["last_success"] < told["last_error"]["at"]
        assert (told["last_error"]["kind"], told["last_error"]["reason"]) == ("unauthorized", "HTTP 401: bad key")
        assert "OPENAI_API_KEY" in told["last_error"]["remedy"]
        json.dumps(told)
        await model.ask(QUESTION, user=USER)
        assert model.health.is_up
        assert model.health.snapshot()["last_error"], "still of interest"


@pytest.mark.parametrize(
    ("kind", "up"),
    [
        (ModelErrorKind.UNREACHABLE, False),
        (ModelErrorKind.QUOTA, False),
        (ModelErrorKind.FILTERED, True),
        (ModelErrorKind.TOO_LONG, True),
    ],
)
def test_what_a_question_is_to_blame_for(kind: ModelErrorKind, up: bool) -> None:
    """A server that refuses one question is there."""
    health = ModelHealth(FakeClock())
    health.note_error(ModelError(kind, "reason", partial="private"))
    assert health.is_up is up
    assert "private" not in json.dumps(health.snapshot())
