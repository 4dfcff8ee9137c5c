"""The ways into a store: the right adapter by its address, and the look from outside, the same over both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from claw.clock import Clock
from claw.config.settings import StoreSettings
from claw.errors import StoreBusyError, StoreError, StoreSchemaError
from claw.secret import Secret
from claw.store.open import file_of, inspect, open_store
from claw.store.ports import Inspection, Store
from claw.store.redis.store import RedisStore
from claw.store.sqlite.store import SqliteStore
from tests.redis_server import RedisServer
from tests.store.contract import ROOM, claim, put, write

ROBOT = "dingfakeclient"


@pytest.fixture(params=["sqlite", "redis"])
def settings(request: pytest.FixtureRequest, server: RedisServer, tmp_path: Path) -> StoreSettings:
    """An address at which there is nothing yet."""
    server.command("FLUSHALL")
    url = f"sqlite:///{tmp_path / 'claw.db'}" if request.param == "sqlite" else server.url()
    return StoreSettings(url=Secret(url))


@pytest_asyncio.fixture
async def store(settings: StoreSettings) -> AsyncIterator[Store]:
    """What a running claw has opened there."""
    opened = open_store(settings, ROBOT, Clock())
    await opened.open()
    yield opened
    await opened.close()


async def test_the_adapter_goes_by_the_address(settings: StoreSettings, store: Store) -> None:
    """A path is a file, and `redis://` is Redis."""
    file = file_of(settings)
    assert isinstance(store, RedisStore if file is None else SqliteStore)
    assert file is None or file.exists()


async def test_a_look_shows_what_a_running_claw_has(settings: StoreSettings, store: Store) -> None:
    """Settings of the chat, chats, counts and letters are read beside the claw that uses them."""
    await store.set("owner", "ann")
    await store.set("policy", "open")
    await store.add_calls("2026-11", {"webhook": 3})
    await write(store, 1, ROOM)
    await store.bury(await claim(store), "cause")
    await put(store, 2)
    await claim(store)
    async with inspect(settings, ROBOT, Clock()) as inspection:
        assert await inspection.items() == {"owner": "ann", "policy": "open"}
        assert await inspection.items("own") == {"owner": "ann"}
        assert await inspection.calls("2026-11") == {"webhook": 3}
        assert await inspection.calls("2026-12") == {}
        assert await inspection.chats() == await store.chats()
        assert await inspection.dead() == await store.dead()
        depth = await inspection.depth()
        assert (depth.pending, depth.dead) == (1, 1)
        assert depth.oldest_age < 60


async def test_a_look_changes_nothing(settings: StoreSettings, server: RedisServer) -> None:
    """Where there is no store yet there is none afterwards either."""

    async def look(inspection: Inspection) -> None:
        assert await inspection.items() == {}
        assert (await inspection.depth()).pending == 0

    file = file_of(settings)
    if file is None:
        async with inspect(settings, ROBOT, Clock()) as inspection:
            await look(inspection)
        assert server.held() == []
    else:
        with pytest.raises(StoreError, match="unable to open"):
            async with inspect(settings, ROBOT, Clock()) as inspection:
                await look(inspection)
        assert list(file.parent.iterdir()) == []


async def test_a_check_tells_who_holds_it(settings: StoreSettings, store: Store) -> None:
    """A file that a running claw holds is busy, and free once it was closed; Redis is for all."""
    async with inspect(settings, ROBOT, Clock()) as inspection:
        if file_of(settings) is not None:
            with pytest.raises(StoreBusyError):
                await inspection.check()
        await store.close()
        await inspection.check()


async def test_what_a_newer_claw_wrote_is_told(settings: StoreSettings, store: Store, server: RedisServer) -> None:
    """A newer schema is an error of its own kind, which doctor has a sentence for."""
    if isinstance(store, SqliteStore):
        await store._writer.submit(lambda connection: connection.execute("PRAGMA user_version = 99"))
    else:
        (key,) = (key for key in server.held() if key.endswith(":schema"))
        server.command("SET", key, "99")
    with pytest.raises(StoreSchemaError, match="schema 99"):
        async with inspect(settings, ROBOT, Clock()):
            pass


async def test_a_file_that_is_no_store_is_told(tmp_path: Path) -> None:
    """A file of something else is a StoreError that names it."""
    (tmp_path / "claw.db").write_text("no database " * 100)
    with pytest.raises(StoreError, match=r"claw\.db: file is not a database"):
        async with inspect(StoreSettings(url=Secret(f"sqlite:///{tmp_path / 'claw.db'}")), ROBOT, Clock()):
            pass
