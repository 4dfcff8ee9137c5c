"""`claw auth`, as a person at a terminal and as a script use it, against the local DingTalk."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from claw.cli import env_file
from claw.cli.auth import TRIES_MAX, _list_caveats
from claw.cli.prompt import Prompt
from claw.config import files
from claw.credentials import ID, NAMES, SECRET
from claw.emulator import Emulator
from claw.language import Language
from tests.cli.screen import Screen
from tests.service import KEPT

CLIENT_ID = "dingfakeclient"
GOOD = "not-a-real-secret"


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator() as started:
        yield started


def environment(emulator: Emulator, **more: str) -> dict[str, str]:
    base = {name: os.environ[name] for name in KEPT if name in os.environ}
    base |= {"DINGTALK_OPENAPI_ENDPOINT": emulator.url, "CLAW_LANG": "en", "PYTHONPATH": str(Path(__file__).parents[2])}
    return base | more


def names(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


COMMAND = (sys.executable, "-m", "claw", "auth")


async def run(
    environ: Mapping[str, str], folder: Path, *arguments: str, stdin: bytes | None = None
) -> tuple[int, str, str]:
    """`claw auth` as a script runs it: exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        env=dict(environ),
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(stdin), 30)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
def screens() -> Iterator[list[Screen]]:
    opened: list[Screen] = []
    yield opened
    for screen in opened:
        screen.close()


def opened(screens: list[Screen], environ: Mapping[str, str], folder: Path, *arguments: str) -> Screen:
    screen = Screen(environ, folder, "auth", *arguments)
    screens.append(screen)
    return screen


# --- at a terminal ---------------------------------------------------------------------------------------------


async def test_a_person_enters_and_it_is_written(emulator: Emulator, tmp_path: Path, screens: list[Screen]) -> None:
    """Two answers, pasted with blanks around them, end in a checked `.env` that only its owner can read."""
    screen = opened(screens, environment(emulator), tmp_path)
    await screen.see(r"Client ID \(AppKey\): ")
    screen.type(f"  {CLIENT_ID} \n")
    await screen.see(r"Client Secret \(AppSecret, not shown\): ")
    screen.type(f"\u00a0 {GOOD}\t \n")
    await screen.see(r"Written to \.env")
    await screen.see(r"Number \(Enter: later\): ")
    screen.type("\n")
    assert await screen.ended() == 0
    assert dotenv_values(tmp_path / ".env", interpolate=False) == {ID: CLIENT_ID, SECRET: GOOD}
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert "claw doctor" in screen.text
    assert GOOD not in screen.text
    assert screen.command_lines
    assert not [line for line in screen.command_lines if GOOD.encode() in line]
    assert names(tmp_path) == [".env"]
    assert not emulator.violations


async def test_a_wrong_secret_is_told_and_nothing_is_written(
    emulator: Emulator, tmp_path: Path, screens: list[Screen]
) -> None:
    """DingTalk's refusal is told in words, in the language asked for, and without the secret."""
    screen = opened(screens, environment(emulator), tmp_path, "--lang", "zh")
    await screen.see("Client ID（AppKey）: ")
    screen.type(f"{CLIENT_ID}\n")
    await screen.see("输入不显示）: ")
    screen.type("another-secret-of-mine\n")
    await screen.see("Client ID 或 Client Secret 不对")
    await screen.see("什么也没有写")
    assert await screen.ended() == 1
    assert "another-secret-of-mine" not in screen.text
    assert not (tmp_path / ".env").exists()


async def test_it_asks_before_it_overwrites(emulator: Emulator, tmp_path: Path, screens: list[Screen]) -> None:
    """A different value stays unless the person says yes; everything else in the file stays either way."""
    before = (
        f"# mine\nexport {ID}=dingold  # the old one\n\nOPENAI_MODEL=gpt-5-mini\nDINGTALK_APP_SECRET='old secret'\n"
    )
    (tmp_path / ".env").write_text(before)
    for answer, code in (("n", 78), ("y", 0)):
        screen = opened(screens, environment(emulator), tmp_path)
        await screen.see(r"Client ID .*: ")
        screen.type(f"{CLIENT_ID}\n")
        await screen.see(r"not shown\): ")
        screen.type(f"{GOOD}\n")
        await screen.see(r"Overwrite\? \[y/N\]: ")
        screen.type(f"{answer}\n")
        if answer == "y":
            await screen.see(r"Number \(Enter: later\): ")
            screen.type("\n")
        assert await screen.ended() == code
        assert ((tmp_path / ".env").read_text() == before) is (answer == "n")
    assert (tmp_path / ".env").read_text() == (
        f"# mine\nexport {ID}={CLIENT_ID}  # the old one\n\nOPENAI_MODEL=gpt-5-mini\nDINGTALK_APP_SECRET={GOOD}\n"
    )


async def test_enter_keeps_what_is_there(emulator: Emulator, tmp_path: Path, screens: list[Screen]) -> None:
    """Whoever only looks again presses Enter twice; the secret of the file is used and not shown."""
    (tmp_path / ".env").write_text(f"{ID}={CLIENT_ID}\n{SECRET}={GOOD}\n")
    screen = opened(screens, environment(emulator), tmp_path)
    await screen.see(rf"Client ID \(AppKey\) \[{CLIENT_ID}, .*\]: ")
    screen.type("\n")
    await screen.see(r"not shown\) \[.*\]: ")
    screen.type("\n")
    await screen.see("holds these values already")
    assert await screen.ended() == 0
    assert GOOD not in screen.text


async def test_what_cannot_be_right_is_asked_for_again(
    emulator: Emulator, tmp_path: Path, screens: list[Screen]
) -> None:
    """A value with a blank inside is refused at once, without being shown, three times at most."""
    screen = opened(screens, environment(emulator), tmp_path, "--client-id", CLIENT_ID)
    for _ in range(TRIES_MAX):
        await screen.see(r"not shown\): ")
        screen.type("half of-it\n")
        await screen.see("cannot be used")
    assert await screen.ended() == 78
    assert "half of-it" not in screen.text


@pytest.mark.parametrize("moment", ["id", "secret", "check"])
async def test_ctrl_c_leaves_at_once(emulator: Emulator, tmp_path: Path, screens: list[Screen], moment: str) -> None:
    """Ctrl-C ends with 130 at each step, without a traceback, with nothing written."""
    emulator.faults.gateway_hang = True
    screen = opened(screens, environment(emulator), tmp_path, "--timeout", "30")
    await screen.see(r"Client ID .*: ")
    if moment != "id":
        screen.type(f"{CLIENT_ID}\n")
        await screen.see(r"not shown\): ")
    if moment == "check":
        screen.type(f"{GOOD}\n")
        async with asyncio.timeout(20):
            while not emulator.registrations:
                screen._read()
                await asyncio.sleep(0.01)
    screen.type("\x03")
    assert await screen.ended() == 130
    assert "Traceback" not in screen.text
    assert not (tmp_path / ".env").exists()


# --- in a script -----------------------------------------------------------------------------------------------


async def test_without_a_terminal_nothing_is_asked(emulator: Emulator, tmp_path: Path) -> None:
    """Where nobody can answer, it says how to give the values, and ends with 78."""
    code, out, err = await run(environment(emulator), tmp_path)
    assert (code, out) == (78, "")
    assert "--client-secret-file" in err
    assert not emulator.registrations


@pytest.mark.parametrize("source", ["stdin", "file", "environment"])
async def test_a_script_gives_the_secret(emulator: Emulator, tmp_path: Path, source: str) -> None:
    """Standard input, a file or a variable: the JSON answer says what was done, and never the secret."""
    (tmp_path / "secret").write_text(f"\ufeff{GOOD}\n")
    arguments = {
        "stdin": ["--client-id", CLIENT_ID, "--client-secret-file", "-"],
        "file": ["--client-id", CLIENT_ID, "--client-secret-file", "secret"],
        "environment": [],
    }[source]
    more = {"DINGTALK_APP_KEY": CLIENT_ID, SECRET: f" {GOOD} "} if source == "environment" else {}
    stdin = f" {GOOD}\r\n".encode() if source == "stdin" else None
    code, out, err = await run(environment(emulator, **more), tmp_path, *arguments, "--json", stdin=stdin)
    answer = json.loads(out)
    assert (code, err) == (0, "")
    assert (answer["ok"], answer["written"]) == (True, ".env")
    assert GOOD not in out
    assert dotenv_values(tmp_path / ".env", interpolate=False) == {ID: CLIENT_ID, SECRET: GOOD}


async def test_a_script_overwrites_only_with_yes(emulator: Emulator, tmp_path: Path) -> None:
    """A different value is kept, with 78, until `--yes` is given."""
    (tmp_path / ".env").write_text(f"{ID}=dingold\n")
    environ = environment(emulator, **{ID: CLIENT_ID, SECRET: GOOD})
    code, out, err = await run(environ, tmp_path)
    assert code == 78
    assert "--yes" in out + err
    assert (tmp_path / ".env").read_text() == f"{ID}=dingold\n"
    assert (await run(environ, tmp_path, "--yes"))[0] == 0
    assert dotenv_values(tmp_path / ".env") == {ID: CLIENT_ID, SECRET: GOOD}


async def test_check_writes_nothing(emulator: Emulator, tmp_path: Path) -> None:
    """`--check` takes what is set, asks DingTalk, and leaves no file."""
    code, out, _ = await run(environment(emulator, **{ID: CLIENT_ID, SECRET: GOOD}), tmp_path, "--check")
    assert code == 0
    assert "The credentials are right" in out
    assert not names(tmp_path)


@pytest.mark.parametrize(
    ("switch", "value", "sentence"),
    [
        ("gateway_status", 400, "no version is published, or the robot is not in Stream mode"),
        ("gateway_status", 401, "refuses the credentials"),
        ("gateway_status", 503, "DingTalk is in trouble"),
        ("gateway_html", True, "A web page came"),
        ("gateway_hang", True, "did not answer"),
        ("gateway_wrong_endpoint", True, "No connection to 127.0.0.1:9"),
        ("refuse_upgrade", 403, "refuses the WebSocket upgrade"),
        ("token_status", 500, "DingTalk is in trouble"),
    ],
)
async def test_each_refusal_has_its_words(
    emulator: Emulator, tmp_path: Path, switch: str, value: object, sentence: str
) -> None:
    """What DingTalk refuses is told in words, ends with 1, and writes nothing."""
    setattr(emulator.faults, switch, value)
    patience = "2" if "hang" in switch else "15"
    environ = environment(emulator, **{ID: CLIENT_ID, SECRET: GOOD})
    code, out, _ = await run(environ, tmp_path, "--timeout", patience)
    assert code == 1
    assert sentence in out
    assert not names(tmp_path)


async def test_an_unreachable_dingtalk_is_told(emulator: Emulator, tmp_path: Path) -> None:
    """A proxy that is not there is named as the cause; its password is not shown."""
    environ = environment(emulator, **{ID: CLIENT_ID, SECRET: GOOD}, http_proxy="http://me:pass-word-9@127.0.0.1:9")
    code, out, err = await run(environ, tmp_path, "--check")
    assert code == 1
    assert "The proxy 127.0.0.1:9 cannot be reached" in out
    assert "pass-word-9" not in out + err


@pytest.mark.parametrize("argument", ["--client-secret", "--client-secret=", "--client-secret-file"])
async def test_a_secret_is_no_argument(emulator: Emulator, tmp_path: Path, argument: str) -> None:
    """Whoever gives the secret itself is told how to give it, and does not see it again."""
    secret = "a-secret-of-mine"
    arguments = [argument + secret] if argument.endswith("=") else [argument, secret]
    code, out, err = await run(environment(emulator), tmp_path, "--client-id", CLIENT_ID, *arguments)
    assert code == 78
    assert "--client-secret-file" in err
    assert secret not in out + err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--client-id", "dïng", "--client-secret-file", "-"],
        ["--client-id", CLIENT_ID, "--client-secret-file", "nowhere"],
        ["--client-id", CLIENT_ID, "--client-secret-file", "."],
        ["--client-id", CLIENT_ID, "--client-secret-file", "-"],
    ],
)
async def test_what_cannot_be_used_is_no_refusal(emulator: Emulator, tmp_path: Path, arguments: list[str]) -> None:
    """A value of the wrong shape, a missing file and an empty input end with 78, before DingTalk is asked."""
    code, _, err = await run(environment(emulator), tmp_path, *arguments, stdin=b"")
    assert code == 78
    assert err
    assert "Traceback" not in err
    assert not emulator.registrations


# --- the file ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"{ID}=a\n{SECRET}=b\n"),
        ("A=1", f"A=1\n{ID}=a\n{SECRET}=b\n"),
        (f"{ID}=\n{SECRET}=\n", f"{ID}=a\n{SECRET}=b\n"),
        (f"{ID}= # fill in\n{SECRET}='x' # old\n", f"{ID}=a # fill in\n{SECRET}=b # old\n"),
        (f"A=1\r\n{SECRET}=x\r\n# end\r\n", f"A=1\r\n{SECRET}=b\r\n# end\r\n{ID}=a\r\n"),
        (f"\ufeff{ID}=x\n", f"\ufeff{ID}=a\n{SECRET}=b\n"),
        (f'{SECRET}="two\nlines"\nB="x\ny"\n', f'{SECRET}=b\nB="x\ny"\n{ID}=a\n'),
        (f"{SECRET}_FILE=/run/s\n#{ID}=no\n", f"# {SECRET}_FILE=/run/s\n#{ID}=no\n{ID}=a\n{SECRET}=b\n"),
        (f"\n{ID}='a#b'\n  export {SECRET} = \"q\"\n", f"\n{ID}=a\n  export {SECRET}=b\n"),
        (f"B='x\n{ID}=inside'\n{SECRET}=don't # it's\n", f"B='x\n{ID}=inside'\n{SECRET}=b # it's\n{ID}=a\n"),
        (f"{ID}# broken\n", f"{ID}# broken\n{ID}=a\n{SECRET}=b\n"),
        (f"not a line =\n{ID}\n", f"not a line =\n{ID}=a\n{SECRET}=b\n"),
    ],
)
def test_only_two_lines_change(before: str, after: str) -> None:
    """Each name is set where it stands, or appended; every other line and its line end stay."""
    assert env_file.change(before, {ID: "a", SECRET: "b"}, NAMES) == after


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1))
def test_any_value_comes_back(value: str) -> None:
    """Whatever visible ASCII a secret holds, python-dotenv reads it back as it was."""
    assert env_file.values(env_file.change("X='y'\n", {SECRET: value}, NAMES)) == {"X": "y", SECRET: value}


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """The file behind a link is replaced, and becomes private; a failed write leaves it as it was."""
    real = tmp_path / "real"
    real.mkdir()
    (real / "env").write_text("old")
    (real / "env").chmod(0o644)
    (tmp_path / ".env").symlink_to(real / "env")
    files.write_private(tmp_path / ".env", "new")
    assert (tmp_path / ".env").is_symlink()
    assert (real / "env").read_text() == "new"
    assert stat.S_IMODE((real / "env").stat().st_mode) == 0o600
    with pytest.raises(OSError, match="Not a directory"):
        files.write_private(real / "env" / "below", "x")
    assert names(real) == ["env"]


@pytest.mark.parametrize(
    ("environ", "there", "container", "says"),
    [
        ({}, {}, False, ""),
        ({ID: "a", SECRET: "old"}, {SECRET: "old"}, False, ""),
        ({"DINGTALK_APP_KEY": "other"}, {}, False, "DINGTALK_APP_KEY in this environment says something else"),
        ({"DINGTALK_APP_KEY": "other"}, {}, True, "In a container claw does not read .env"),
    ],
)
def test_what_wins_over_the_file_is_told(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], there: dict[str, str], container: bool, says: str
) -> None:
    """A variable of the shell that says something else, or a container, makes the file useless: that is told."""
    monkeypatch.setattr(files, "in_container", lambda _: container)
    notes = _list_caveats(Path(".env"), {ID: "a", SECRET: "b"}, environ, there, Prompt(Language.EN))
    assert bool(notes) is bool(says)
    assert not notes or says in notes[0]
