"""`claw doctor` with a store in Redis: what is wrong with it, and what may lose messages, over real servers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from claw.cli.doctor.command import TABLE, diagnose
from claw.cli.doctor.runner import CheckStatus, Result
from claw.dingtalk.quota import month_of
from claw.language import Language
from claw.secret import Secret
from claw.store.redis.store import RedisStore
from claw.turn.access import OWNER, Owner
from tests.cli.sentences import says
from tests.redis_server import RedisServer, free_port, running
from tests.service import environment

EN, ZH = Language.EN, Language.ZH
OK, WARNING, FAULT, SKIPPED = CheckStatus.OK, CheckStatus.WARNING, CheckStatus.FAULT, CheckStatus.SKIPPED
KEEPS = {"appendonly": "yes", "requirepass": "s3cret-of-redis"}


@contextlib.asynccontextmanager
async def _opened(server: RedisServer) -> AsyncIterator[RedisStore]:
    """The store of the robot that `environment` names."""
    store = RedisStore(Secret(server.url()), "dingfakeclient")
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def look(url: str, folder: Path, name: str, *, language: Language = EN, offline: bool = False) -> Result:
    environ = environment("http://127.0.0.1:9", folder, CLAW_STORE_URL=url, CLAW_OWNER="", CLAW_OWNER_PAIRING="off")
    checks = [check for check in TABLE if check.name == name]
    (result,), _ = await diagnose(environ, language, checks=checks, offline=offline)
    assert "s3cret" not in result.message + result.remedy
    return result


@pytest.mark.parametrize("language", [EN, ZH])
@pytest.mark.parametrize(
    ("options", "status", "key"),
    [
        (KEEPS, OK, "redis.ok"),
        (KEEPS | {"appendonly": "no"}, WARNING, "redis.forgets"),
        (KEEPS | {"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}, FAULT, "redis.evicts"),
        (KEEPS | {"maxmemory": "1"}, FAULT, "redis.failing"),
        (KEEPS | {"min-replicas-to-write": "1"}, FAULT, "redis.failing"),
    ],
)
async def test_store(
    tmp_path: Path, options: Mapping[str, str], status: CheckStatus, key: str, language: Language
) -> None:
    """A Redis that works, that would lose messages, and that takes none: each has its sentence."""
    with running(tmp_path / "redis", **options) as server:
        result = await look(server.url(), tmp_path, "store", language=language)
    assert (result.status, says(key, language, result.message)) == (status, True), result
    assert bool(result.remedy) == (status is not OK)


async def test_wrong_password(tmp_path: Path) -> None:
    """A password that is refused is told as such."""
    with running(tmp_path / "redis", **KEEPS) as server:
        result = await look(server.url().replace("s3cret", "wrong"), tmp_path, "store")
    assert (result.status, says("redis.refused", EN, result.message)) == (FAULT, True), result
    assert "password" in result.message
    assert "wrong" not in result.message


async def test_newer_store(tmp_path: Path) -> None:
    """What a later claw has written is left alone."""
    with running(tmp_path / "redis", **KEEPS) as server:
        async with _opened(server):
            pass
        (key,) = (key for key in server.held() if key.endswith(":schema"))
        server.command("SET", key, "99")
        result = await look(server.url(), tmp_path, "store")
    assert (result.status, says("store.newer", EN, result.message)) == (FAULT, True), result


async def test_no_redis_there(tmp_path: Path) -> None:
    """An address at which nobody listens is told with its cause; --offline does not even try."""
    url = f"redis://:s3cret-of-redis@127.0.0.1:{free_port()}/0"
    result = await look(url, tmp_path, "store")
    assert (result.status, says("redis.failing", EN, result.message)) == (FAULT, True), result
    assert "cannot be reached" in result.message
    assert (await look(url, tmp_path, "store", offline=True)).status is SKIPPED
    for name in ("access", "quota"):
        assert (await look(url, tmp_path, name)).status in {OK, WARNING, SKIPPED}


async def test_what_redis_holds_is_read(tmp_path: Path) -> None:
    """Owner and counts come out of Redis, beside the claws that use it."""
    with running(tmp_path / "redis", **KEEPS) as server:
        async with _opened(server) as store:
            await store.set(OWNER, Owner("u-1").to_json())
            await store.add_calls(month_of(time.time()), {"webhook": 2_900})
            access = await look(server.url(), tmp_path, "access")
            quota = await look(server.url(), tmp_path, "quota")
    assert says("access.ok", EN, access.message), access
    assert "Owners: 1" in access.message
    assert (quota.status, says("quota.near", EN, quota.message)) == (WARNING, True), quota
