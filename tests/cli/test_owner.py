"""`claw owner`, as an operator uses it after a takeover: what it shows, what it removes, and when it refuses."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from claw.cli.doctor.texts import TEXTS
from claw.cli.owner import RESET
from claw.clock import Clock
from claw.config.reader import load
from claw.config.settings import StoreSettings
from claw.emulator import Emulator
from claw.language import Language
from claw.secret import Secret
from claw.store.open import inspect, open_store
from claw.store.ports import Store
from claw.turn.access import (
    CODE_PREFIX,
    DENIED_PREFIX,
    GROUP_POLICY,
    HANDOVER,
    OWNER,
    AccessControl,
    Owner,
    resolve_rules,
)
from tests import service
from tests.cli.screen import Screen
from tests.redis_server import free_port, running

ROBOT = "dingfakeclient"
MALLORY = Owner("mallory", "Mallory \x1b[31m\n", "dingfakeclient:msg1").to_json()
KEEPS = {"appendonly": "yes", "requirepass": "s3cret-of-redis"}


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """The address of each kind of store."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/claw.db"
        return
    with running(tmp_path / "redis", **KEEPS) as server:
        yield server.url()


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    store = open_store(StoreSettings(url=Secret(url)), ROBOT, Clock())
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def fill(url: str, **more: str) -> None:
    """A store after a takeover: mallory owns the robot, has denied boss, and is about to hand it over."""
    entries = {
        OWNER: MALLORY,
        HANDOVER: '{"to": "friend"}',
        f"{CODE_PREFIX}.abc": "abc 9e9",
        f"{DENIED_PREFIX}boss": "1",
    }
    async with opened(url) as store:
        for name, value in (entries | more).items():
            await store.set(name, value)


async def items(url: str) -> dict[str, str]:
    async with inspect(StoreSettings(url=Secret(url)), ROBOT, Clock()) as inspection:
        return await inspection.items()


def environment(url: str, **more: str) -> dict[str, str]:
    base = service.environment("http://127.0.0.1:9", Path("unused"), CLAW_STORE_URL=url, CLAW_LANG="en", CLAW_OWNER="")
    return base | {"PYTHONPATH": str(Path(__file__).parents[2])} | more


async def run(environ: Mapping[str, str], folder: Path, *arguments: str) -> tuple[int, str, str]:
    """`claw owner` as a script runs it: exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "claw", "owner", *arguments, env=dict(environ), cwd=folder,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    assert "s3cret" not in (out + err).decode()
    return process.returncode, out.decode(), err.decode()


async def show(environ: Mapping[str, str], folder: Path) -> dict[str, Any]:
    code, out, err = await run(environ, folder, "show", "--json")
    assert (code, err) == (0, ""), (out, err)
    return dict(json.loads(out))


# --- show --------------------------------------------------------------------------------------------------------


async def test_show_puts_both_sources_side_by_side(url: str, tmp_path: Path) -> None:
    """Stored and environment's owner, who is obeyed by the rules in force, and what was set in chat."""
    await fill(url, **{GROUP_POLICY: "disabled"})
    environ = environment(url, CLAW_OWNER="boss, deputy")
    told = await show(environ, tmp_path)
    assert told["stored"] == {"staff_id": "mallory", "nick": "Mallory \x1b[31m\n"}
    assert (told["environment"], told["differs"], told["pairing"]) == (["boss", "deputy"], True, "first")
    assert (told["handover"], told["denied"], told["reset_at"]) == (True, 1, None)
    settings = load(environ)
    assert told["owners"] == sorted(resolve_rules(settings.access, await items(url)).owners)
    code, out, _ = await run(environ, tmp_path, "show")
    assert code == 0
    assert "CLAW_OWNER, in the environment: boss, deputy." in out
    assert "Owner in the store: mallory (Mallory [31m), paired or handed over in chat." in out
    assert "\x1b" not in out
    assert TEXTS["owner.differs"].message.en in out
    assert "1 denied, groups disabled, direct chats open" in out


@pytest.mark.parametrize("pairing", ["first", "code", "off"])
async def test_show_without_any_owner(pairing: str, tmp_path: Path) -> None:
    """Where nobody owns the robot the way to become it is told; a store that is not there is none, and is not made."""
    url = f"sqlite:///{tmp_path}/none/claw.db"
    environ = environment(url, CLAW_OWNER_PAIRING=pairing)
    told = await show(environ, tmp_path)
    assert (told["owners"], told["environment"], told["stored"], told["differs"]) == ([], [], None, False)
    assert told["notes"][-1] == TEXTS[f"owner.pairing_{pairing}"].message.en
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("language", [Language.EN, Language.ZH])
async def test_show_speaks_both_languages(language: Language, tmp_path: Path) -> None:
    """The language is CLAW_LANG's, or the one that is asked for."""
    url = f"sqlite:///{tmp_path}/claw.db"
    for environ, arguments in (
        (environment(url, CLAW_LANG=language.value), ()),
        (environment(url), ("--lang", language.value)),
    ):
        _, out, _ = await run(environ, tmp_path, "show", *arguments)
        assert out.splitlines()[0] == TEXTS["owner.no_environment"].message[language]


async def test_show_beside_a_claw_that_runs(url: str, tmp_path: Path) -> None:
    """A claw that holds the store is no hindrance to looking."""
    await fill(url)
    async with opened(url):
        assert (await show(environment(url), tmp_path))["stored"]["staff_id"] == "mallory"


# --- reset -------------------------------------------------------------------------------------------------------


async def test_reset_lets_pairing_begin_afresh(url: str, tmp_path: Path) -> None:
    """Owner, handover and codes are gone, everything else stays, and the moment is kept."""
    await fill(url)
    code, out, err = await run(environment(url), tmp_path, "reset", "--yes")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == TEXTS["owner.removed"].message.en
    assert TEXTS["owner.pairing_first"].message.en in out
    assert "1 denied" in out
    left = await items(url)
    assert set(left) == {f"{DENIED_PREFIX}boss", RESET}
    told = await show(environment(url), tmp_path)
    assert (told["stored"], told["reset_at"]) == (None, left[RESET])
    # A second one finds nothing, and that is no fault.
    code, out, _ = await run(environment(url), tmp_path, "reset", "--yes", "--json")
    assert (code, json.loads(out)["removed"], json.loads(out)["entries"]) == (0, None, 0)


async def test_replicas_see_a_reset(tmp_path: Path) -> None:
    """With Redis nothing has to be stopped: a claw that runs has no owner from its next look on."""
    with running(tmp_path / "redis", **KEEPS) as server:
        await fill(server.url())
        async with opened(server.url()) as replica:
            assert OWNER in await replica.items()
            environ = environment(server.url())
            assert (await run(environ, tmp_path, "reset", "--yes"))[0] == 0
            access = AccessControl(load(environ).access, replica, replica, Clock())
            assert (await access.read_rules()).owners == frozenset()


async def test_settings_that_are_gone_are_begun_anew(tmp_path: Path) -> None:
    """Where Redis has thrown the settings away, which is no first start, a reset is the way to begin anew."""
    with running(tmp_path / "redis", **KEEPS) as server:
        await fill(server.url())
        (key,) = (key for key in server.held() if key.endswith(":entries"))
        server.command("DEL", key)
        assert (await run(environment(server.url()), tmp_path, "reset", "--yes"))[0] == 0
        assert set(await items(server.url())) == {RESET}


async def test_a_running_claw_holds_its_file(tmp_path: Path) -> None:
    """While a claw runs on the file nothing is removed, and the way is named; after its end it is."""
    async with Emulator() as emulator:
        environ = service.environment(
            emulator.url, tmp_path / "claw.db", CLAW_LANG="en", CLAW_OWNER="", HOME=str(tmp_path)
        )
        url = environ["CLAW_STORE_URL"]
        await fill(url)
        async with service.running(environ, tmp_path) as claw:
            code, out, err = await run(environ, tmp_path, "reset", "--yes")
            assert (code, out) == (1, "")
            assert "Stop it, run `claw owner reset`, and start it again" in err
            assert (await show(environ, tmp_path))["stored"]["staff_id"] == "mallory"
            await claw.terminate()
        assert (await run(environ, tmp_path, "reset", "--yes"))[0] == 0
        assert OWNER not in await items(url)


async def test_nobody_is_left_without_an_owner(tmp_path: Path) -> None:
    """Where pairing is off and CLAW_OWNER is unset a reset is refused with a hint; with CLAW_OWNER it is not."""
    url = f"sqlite:///{tmp_path}/claw.db"
    await fill(url)
    code, out, err = await run(environment(url, CLAW_OWNER_PAIRING="off"), tmp_path, "reset", "--yes")
    assert (code, out, err.strip()) == (78, "", TEXTS["owner.nobody"].message.en)
    assert OWNER in await items(url)
    environ = environment(url, CLAW_OWNER_PAIRING="off", CLAW_OWNER="boss")
    code, out, _ = await run(environ, tmp_path, "reset", "--yes")
    assert (code, "The robot obeys: boss." in out) == (0, True)


async def test_reset_asks_a_person(tmp_path: Path) -> None:
    """At a terminal only a clear yes removes; without a terminal --yes is needed."""
    url = f"sqlite:///{tmp_path}/claw.db"
    await fill(url)
    code, _, err = await run(environment(url), tmp_path, "reset")
    assert (code, err.strip()) == (78, TEXTS["owner.needs_yes"].message.en)
    for answer, code, is_left in (("\n", 78, True), ("no\n", 78, True), ("y\n", 0, False)):
        with closing(Screen(environment(url), tmp_path, "owner", "reset")) as screen:
            await screen.see(r"Remove the stored owner mallory (.|\s)*\[y/N\]: ")
            screen.type(answer)
            assert await screen.ended() == code, screen.text
        assert (OWNER in await items(url)) is is_left


async def test_an_entry_that_cannot_be_read_is_removed(tmp_path: Path) -> None:
    """A broken entry is told as such, and a reset takes it away."""
    url = f"sqlite:///{tmp_path}/claw.db"
    await fill(url, **{OWNER: "{broken"})
    _, out, _ = await run(environment(url), tmp_path, "show")
    assert TEXTS["owner.unreadable"].message.en in out
    assert (await run(environment(url), tmp_path, "reset", "--yes"))[0] == 0
    assert OWNER not in await items(url)


async def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """A reset at a wrong path makes no store there."""
    code, out, _ = await run(environment(f"sqlite:///{tmp_path}/none.db"), tmp_path, "reset", "--yes")
    assert (code, "does not exist yet" in out, (tmp_path / "none.db").exists()) == (0, True, False)


@pytest.mark.parametrize("action", ["show", "reset"])
async def test_a_store_that_cannot_be_read(action: str, tmp_path: Path) -> None:
    """A Redis that is away, and a file that is none, are told with their cause: exit code 1."""
    (tmp_path / "claw.db").write_bytes(b"not a database" * 100)
    for url in (f"redis://127.0.0.1:{free_port()}/0", f"sqlite:///{tmp_path}/claw.db"):
        code, out, err = await run(environment(url), tmp_path, action, "--yes")
        assert (code, out, err.startswith("The store ")) == (1, "", True), err


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"CLAW_STORE_URL": "nonsense"}, "CLAW_STORE_URL"), ({"CLAW_OWNER": "a b@c"}, "CLAW_OWNER")],
)
async def test_settings_that_matter_must_be_sound(changed: dict[str, str], named: str, tmp_path: Path) -> None:
    """Another store than the meant one is never changed; a fault of an unrelated variable is no hindrance."""
    url = f"sqlite:///{tmp_path}/claw.db"
    await fill(url)
    code, out, _ = await run(environment(url) | changed, tmp_path, "reset", "--yes", "--json")
    assert (code, json.loads(out)["ok"], named in json.loads(out)["notes"][0]) == (78, False, True)
    assert OWNER in await items(url)
    assert (await run(environment(url, CLAW_TURN_TIMEOUT="x"), tmp_path, "reset", "--yes"))[0] == 0
