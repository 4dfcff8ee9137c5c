"""Questions to a model server of servers.py, for the tests of the model's client."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from claw.config import settings
from claw.errors import ModelError
from claw.policy import ModelApi
from claw.secret import Secret, hash_id
from claw.turn.model.chat import Completion
from claw.turn.model.client import ModelClient
from claw.turn.model.transport import AiohttpTransport
from tests.clock import FakeClock
from tests.turn.servers import (
    ModelServer,
)

ID = "chatcmpl-7"
"""What servers.py calls each answer."""
KEY = "sk-0123456789abcdef"
USER = hash_id("robot:conversation#1")
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


class QuickClock(FakeClock):
    """Waits take no time, and are remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._now += seconds
        await asyncio.sleep(0)


@asynccontextmanager
async def model_at(
    base_url: str,
    *,
    key: str = KEY,
    elsewhere: bool = False,
    timeout: float = 30.0,
    name: str = "openclaw",
    clock: FakeClock | None = None,
    max_tokens: int = 0,
    api: ModelApi = ModelApi.CHAT,
) -> AsyncIterator[ModelClient]:
    """Give a client that is closed in the end, with no task of it left."""
    chosen = settings.ModelSettings(
        api_key=Secret(key), base_url=base_url, name=name, turn_timeout=timeout, max_tokens=max_tokens, api=api
    )
    before = asyncio.all_tasks()
    model = ModelClient(chosen, history_kept_elsewhere=elsewhere, clock=clock or QuickClock())
    try:
        yield model
    finally:
        await model.close()
        gc.collect()
        await asyncio.sleep(0)
        assert [task for task in asyncio.all_tasks() - before if "aclose" in repr(task)] == []


async def ask(server: ModelServer, **options: Any) -> Completion:
    names = ("key", "elsewhere", "timeout", "name", "clock", "max_tokens", "api")
    model_options = {name: options.pop(name) for name in names if name in options}
    async with model_at(server.base_url, **model_options) as model:
        return await model.ask(options.pop("messages", QUESTION), user=USER, **options)


async def fault(server: ModelServer, **options: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await ask(server, **options)
    return caught.value


def open_connections(model: ModelClient) -> int:
    """How many connections the model's client holds, in use or kept alive."""
    client = model._endpoint._client
    assert client is not None
    transport = client._client._transport
    assert isinstance(transport, AiohttpTransport)
    assert transport._session is not None
    connector = transport._session.connector
    assert connector is not None
    return len(connector._acquired) + sum(len(kept) for kept in connector._conns.values())
