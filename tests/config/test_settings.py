"""Settings: every fault at once and by name, secrets never shown, and tables that cannot go stale."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from claw.config import files
from claw.config.docs import dotenv_example, markdown_table
from claw.config.files import CONTAINER_MARKS, environment
from claw.config.reader import load
from claw.config.settings import Settings, variables
from claw.errors import SettingsError
from claw.language import Language
from claw.secret import Secret

ROOT = Path(__file__).parents[2]
LEAST = {"DINGTALK_CLIENT_ID": "dingclient", "DINGTALK_CLIENT_SECRET": "ding-secret", "OPENAI_API_KEY": "sk-key"}


def problems(**changed: str) -> tuple[str, ...]:
    """What `load` says about the least environment with changes."""
    with pytest.raises(SettingsError) as caught:
        load(LEAST | changed)
    return caught.value.problems


# --- values ------------------------------------------------------------------------------------------------------


def test_the_least_environment() -> None:
    """Client id, client secret and a key are enough; all else has the default of the contract."""
    settings = load(LEAST)
    assert settings.dingtalk.credentials() == ("dingclient", Secret("ding-secret"))
    assert settings.dingtalk.openapi_endpoint == "https://api.dingtalk.com"
    assert settings.dingtalk.oapi_endpoint == "https://oapi.dingtalk.com"
    assert settings.model.base_url == "https://api.openai.com/v1"
    assert settings.model.turn_timeout == 300
    assert settings.conversation.history_turns == 20
    assert (settings.stream.heartbeat, settings.stream.rotate, settings.stream.connections) == (5, 3600, 2)
    assert (settings.inbox.max_concurrency, settings.inbox.max_attempts, settings.inbox.drain_timeout) == (32, 3, 8)
    assert settings.store.path == Path("data/claw.db")
    assert (settings.http.host, settings.http.port, bool(settings.http.admin_token)) == ("0.0.0.0", 8080, False)
    assert (settings.logs.language, settings.logs.level) == (Language.ZH, "info")
    assert settings.warnings == ()


@pytest.mark.parametrize(
    ("name", "text", "read", "value"),
    [
        ("CLAW_TURN_TIMEOUT", "90", lambda s: s.model.turn_timeout, 90.0),
        ("CLAW_TURN_TIMEOUT", " 5m ", lambda s: s.model.turn_timeout, 300.0),
        ("CLAW_TURN_TIMEOUT", "1.5 S", lambda s: s.model.turn_timeout, 1.5),
        ("CLAW_STREAM_HEARTBEAT", "500ms", lambda s: s.stream.heartbeat, 0.5),
        ("CLAW_STREAM_ROTATE", "1d", lambda s: s.stream.rotate, 86400.0),
        ("CLAW_STREAM_ROTATE", "0", lambda s: s.stream.rotate, 0.0),
        ("CLAW_DRAIN_TIMEOUT", "0", lambda s: s.inbox.drain_timeout, 0.0),
        ("CLAW_HISTORY_TURNS", "0", lambda s: s.conversation.history_turns, 0),
        ("CLAW_LANG", "EN", lambda s: s.logs.language, Language.EN),
        ("CLAW_LOG_LEVEL", "Debug", lambda s: s.logs.level, "debug"),
        ("CLAW_LOG_FORMAT", "text", lambda s: s.logs.format, "text"),
        ("CLAW_STORE_URL", "sqlite:////var/claw.db", lambda s: s.store.path, Path("/var/claw.db")),
        ("CLAW_SYSTEM_PROMPT", "你是\n助手", lambda s: s.conversation.system_prompt, "你是\n助手"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:18789/v1/", lambda s: s.model.base_url, "http://127.0.0.1:18789/v1"),
        ("HOST", "::1", lambda s: s.http.host, "::1"),
        ("PORT", "0", lambda s: s.http.port, 0),
    ],
)
def test_values(name: str, text: str, read: Callable[[Settings], Any], value: object) -> None:
    """Each kind of value is read from its usual spellings."""
    assert read(load(LEAST | {name: text})) == value


@pytest.mark.parametrize("empty", ["", " ", "\t\n"])
@pytest.mark.parametrize("name", [info.name for _, info in variables() if not info.required])
def test_empty_counts_as_unset(name: str, empty: str) -> None:
    """An empty or blank value is the same as none."""
    if name == "OPENAI_API_KEY":
        assert problems(**{name: empty})[0].startswith(name)
        return
    assert load(LEAST | {name: empty}) == load(LEAST)


def test_a_model_server_may_be_without_keys() -> None:
    """OPENAI_BASE_URL makes the key optional; with neither, the key is asked for."""
    without = {name: value for name, value in LEAST.items() if name != "OPENAI_API_KEY"}
    assert not load(without | {"OPENAI_BASE_URL": "http://llama:8080/v1"}).model.api_key
    with pytest.raises(SettingsError, match="OPENAI_API_KEY: is not set"):
        load(without)


# --- faults ------------------------------------------------------------------------------------------------------


def test_all_faults_are_told_at_once() -> None:
    """Every fault has its own sentence, which begins with the variable's name."""
    with pytest.raises(SettingsError) as caught:
        load(
            {
                "DINGTALK_CLIENT_ID": "with blank",
                "PORT": "eighty",
                "CLAW_LANG": "fr",
                "CLAW_TURN_TIMEOUT": "soon",
                "CLAW_STORE_URL": "mysql://x",
                "CLAW_ADMIN_TOKEN_FILE": "/nowhere/token",
            }
        )
    assert {problem.partition(":")[0] for problem in caught.value.problems} == {
        "DINGTALK_CLIENT_ID",
        "DINGTALK_CLIENT_SECRET (or DINGTALK_APP_SECRET)",
        "OPENAI_API_KEY",
        "PORT",
        "CLAW_LANG",
        "CLAW_TURN_TIMEOUT",
        "CLAW_STORE_URL",
        "CLAW_ADMIN_TOKEN_FILE",
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "8080.0"),
        ("PORT", "９"),
        ("PORT", "9" * 5000),
        ("CLAW_TURN_TIMEOUT", "0"),
        ("CLAW_TURN_TIMEOUT", "-5"),
        ("CLAW_TURN_TIMEOUT", "2h"),
        ("CLAW_TURN_TIMEOUT", "inf"),
        ("CLAW_TURN_TIMEOUT", "nan"),
        ("CLAW_TURN_TIMEOUT", "9" * 5000),
        ("CLAW_TURN_TIMEOUT", "5 minutes"),
        ("CLAW_STREAM_HEARTBEAT", "0"),
        ("CLAW_MAX_ATTEMPTS", "0"),
        ("CLAW_HISTORY_TURNS", "many"),
        ("CLAW_LOG_LEVEL", "verbose"),
        ("CLAW_LOG_FORMAT", "xml"),
        ("CLAW_STORE_URL", "sqlite:///"),
        ("CLAW_STORE_URL", "data/claw.db"),
        ("CLAW_STORE_URL", "redis://"),
        ("CLAW_STORE_URL", "redis:///0"),
        ("CLAW_STORE_URL", "redis://["),
        ("CLAW_STORE_URL", "redis://x:0"),
        ("CLAW_STORE_URL", "redis://x:99999"),
        ("CLAW_STORE_URL", "redis://x/main"),
        ("CLAW_STORE_URL", "redis://x/0?ssl_cert_reqs=none"),
        ("CLAW_STORE_URL", "redis://:a/b@x/0"),
        ("CLAW_STORE_URL", "unix:///run/redis.sock"),
        ("CLAW_STORE_URL", "sqlite:///x?mode=ro"),
        ("OPENAI_BASE_URL", "api.example.com"),
        ("OPENAI_BASE_URL", "ftp://x"),
        ("OPENAI_BASE_URL", "http://"),
        ("OPENAI_BASE_URL", "http://["),
        ("OPENAI_BASE_URL", "http://x:0"),
        ("OPENAI_BASE_URL", "http://x:99999"),
        ("OPENAI_BASE_URL", "http://a b"),
        ("DINGTALK_CLIENT_ID", "钉钉"),
    ],
)
def test_bad_values_are_named_with_what_is_right(name: str, text: str) -> None:
    """A value that cannot be used gives one sentence: the variable's name, and what would be right."""
    (problem,) = problems(**{name: text})
    assert problem.startswith(f"{name}: ")
    assert "right would be " in problem
    assert len(problem) < 300
    assert "Invalid IPv6" not in problem


@pytest.mark.parametrize(
    ("text", "shown", "password"),
    [
        ("sqlite:///data/claw.db", "sqlite:///data/claw.db", ""),
        ("redis://host", "redis://host:6379/0", ""),
        ("redis://host:7000/3", "redis://host:7000/3", ""),
        ("rediss://user:pass%2Fword@[::1]:6380/2", "rediss://[::1]:6380/2", "pass/word"),
        ("redis://:p%40ss@host/", "redis://host:6379/0", "p@ss"),
    ],
)
def test_a_store_is_shown_without_its_password(text: str, shown: str, password: str) -> None:
    """What may be shown of the store's address, and what of it must not be shown anywhere."""
    store = load(LEAST | {"CLAW_STORE_URL": text}).store
    assert (store.shown, store.password.reveal()) == (shown, password)
    assert store.in_redis == text.startswith("redis")
    assert store.url == Secret(text)


def test_a_near_word_is_proposed() -> None:
    """A misspelt choice is answered with the nearest one."""
    assert "did you mean warning?" in problems(CLAW_LOG_LEVEL="warnign")[0]


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alias", ["DINGTALK_APP_KEY", "DINGTALK_APP_SECRET"])
def test_aliases(alias: str) -> None:
    """An alias serves for its variable; both may be set to the same, not to different things."""
    name = {"DINGTALK_APP_KEY": "DINGTALK_CLIENT_ID", "DINGTALK_APP_SECRET": "DINGTALK_CLIENT_SECRET"}[alias]
    renamed = {alias if key == name else key: value for key, value in LEAST.items()}
    assert load(renamed).dingtalk.credentials() == load(LEAST).dingtalk.credentials()
    assert load(LEAST | {alias: LEAST[name]}).warnings == ()
    (problem,) = problems(**{alias: "other"})
    assert problem == f"{name} and {alias}: say different things; set only one of them"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("CLAW_HISTRY_TURNS", "CLAW_HISTORY_TURNS"),
        ("DINGTALK_APPSECRET", "DINGTALK_APP_SECRET"),
        ("CLAW_ADMIN_TOKEN_FIEL", "CLAW_ADMIN_TOKEN_FILE"),
        ("CLAW_ZZZZZZZZ", None),
    ],
)
def test_unknown_names_are_warned_of(name: str, near: str | None) -> None:
    """A name of ours that no setting has is a warning with the nearest one, without its value; an empty one is none."""
    (warning,) = load(LEAST | {name: "hidden-value"}).warnings
    assert warning.startswith(f"{name} is not a setting")
    assert warning.endswith(f"did you mean {near}?") if near else "did you mean" not in warning
    assert "hidden-value" not in warning
    assert load(LEAST | {name: " "}).warnings == ()


def test_foreign_names_are_no_concern() -> None:
    """Variables that are not ours are left alone, whatever they hold."""
    assert load(LEAST | {"PATH": "\0", "OPENAI_ORG": "x", "OTEL_SERVICE_NAME": "x", "": ""}) == load(LEAST)


# --- secrets -----------------------------------------------------------------------------------------------------


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    """Neither repr nor any problem shows a secret, also where it is at fault or stands in an address."""
    file = tmp_path / "secret"
    file.write_text("hidden 4")
    more = {"CLAW_ADMIN_TOKEN": "hidden-token", "CLAW_STORE_URL": "redis://:hidden-password@host/0"}
    settings = load({name: f"hidden-{name}" for name in LEAST} | more)
    for shown in (repr(settings), str(settings), f"{settings}", str(vars(settings.dingtalk))):
        assert not re.search("hidden-(?!DINGTALK_CLIENT_ID)", shown)
    told = problems(
        DINGTALK_CLIENT_SECRET="hidden 1",
        OPENAI_API_KEY="hidden\n2",
        OPENAI_BASE_URL="https://user:hidden3@host/v1",
        CLAW_STORE_URL="redis://:hidden5@host/main",
        CLAW_ADMIN_TOKEN_FILE=str(file),
    )
    assert len(told) == 5
    assert "hidden" not in "".join(told)


@pytest.mark.parametrize("name", [info.name for _, info in variables() if info.from_file])
def test_a_secret_may_come_from_a_file(name: str, tmp_path: Path) -> None:
    """NAME_FILE reads the value from a file, without the line end that editors add."""
    value = "sqlite:///other.db" if name == "CLAW_STORE_URL" else "value-from-the-file"
    file = tmp_path / "secret"
    file.write_text(f"{value}\r\n")
    rest = {key: text for key, text in LEAST.items() if key != name}
    assert load(rest | {f"{name}_FILE": str(file)}).warnings == ()
    ours = load(rest | {f"{name}_FILE": str(file)})
    direct = load(rest | {name: value})
    assert ours.dingtalk.credentials() == direct.dingtalk.credentials()
    assert (ours.model, ours.store, ours.http) == (direct.model, direct.store, direct.http)
    assert f"{name} and {name}_FILE: say different things" in problems(**{name: "x", f"{name}_FILE": str(file)})[0]


def test_a_files_wrong_value_is_told_by_the_files_variable(tmp_path: Path) -> None:
    """What is wrong in a file is told by the name that the operator set, without the value."""
    (tmp_path / "url").write_text("redis:/pass-word-7")
    (problem,) = problems(CLAW_STORE_URL_FILE=str(tmp_path / "url"))
    assert problem.startswith("CLAW_STORE_URL_FILE: its value is not usable")
    assert "pass-word-7" not in problem


def test_an_alias_has_a_file_too(tmp_path: Path) -> None:
    """DINGTALK_APP_SECRET_FILE works as DINGTALK_CLIENT_SECRET_FILE does, and its changes are followed."""
    file = tmp_path / "secret"
    file.write_text("first")
    settings = load({"DINGTALK_APP_KEY": "id", "DINGTALK_APP_SECRET_FILE": str(file), "OPENAI_API_KEY": "k"})
    assert settings.dingtalk.credentials() == ("id", Secret("first"))
    file.write_text("second\n")
    assert settings.dingtalk.credentials() == ("id", Secret("second"))
    for gone in (lambda: file.write_text(" "), lambda: file.write_bytes(b"\xff"), file.unlink):
        gone()
        assert settings.dingtalk.credentials() == ("id", Secret("second")), "the newest that was good"


def test_files_that_are_no_secrets_are_told(tmp_path: Path) -> None:
    """A file that is missing, empty, too large, binary, a folder or a pipe is one sentence, never a wait."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "large").write_bytes(b"x" * (files.SECRET_FILE_BYTES_MAX + 1))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    os.mkfifo(tmp_path / "pipe")
    for name, cause in (
        ("missing", "cannot be read (No such file or directory)"),
        ("empty", "is empty"),
        ("large", "is too large to be a secret"),
        ("binary", "is not text"),
        ("pipe", "is not a regular file"),
        (".", "is not a regular file"),
        ("a\0b", "embedded null"),
    ):
        (problem,) = problems(CLAW_ADMIN_TOKEN_FILE=f"{tmp_path}/{name}")
        assert problem.startswith(f"CLAW_ADMIN_TOKEN_FILE: {tmp_path}/{name} ")
        assert cause in problem


# --- .env --------------------------------------------------------------------------------------------------------


@pytest.fixture
def dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An .env in the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".env"


def test_the_process_wins_over_dotenv(dotenv: Path) -> None:
    """`.env` fills what the process leaves unset or empty, and overrides nothing."""
    dotenv.write_text("PORT=1\nHOST=from-file\nCLAW_LANG=en\n# comment\nBARE\n")
    assert environment({"PORT": "2", "HOST": " ", "X": ""}) == {
        "PORT": "2",
        "HOST": "from-file",
        "CLAW_LANG": "en",
        "X": "",
    }


def test_dotenv_values_stand_as_they_are(dotenv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dollar sign in a secret is no reference, and a byte order mark is no part of the first name."""
    monkeypatch.setenv("HOME", "/home/x")
    dotenv.write_bytes("\ufeffCLAW_ADMIN_TOKEN=a${HOME}b$c\n".encode())
    assert environment({}) == {"CLAW_ADMIN_TOKEN": "a${HOME}b$c"}


@pytest.mark.parametrize("mark", CONTAINER_MARKS)
def test_containers_read_no_dotenv(mark: str, dotenv: Path) -> None:
    """Where an orchestrator gave the environment, a stray `.env` adds nothing."""
    dotenv.write_text("PORT=1\n")
    assert environment({mark: "x"}) == {mark: "x"}


def test_no_dotenv_is_no_fault(dotenv: Path) -> None:
    """Without `.env`, or with a folder of that name, the process's variables are all there is."""
    assert environment({"A": "b"}) == {"A": "b"}
    dotenv.mkdir()
    assert environment({"A": "b"}) == {"A": "b"}


def test_a_dotenv_that_is_no_text_is_told(dotenv: Path) -> None:
    """An unreadable `.env` is a fault of the settings that names the file."""
    dotenv.write_bytes(b"PORT=\xff\xfe")
    with pytest.raises(SettingsError, match=r"^\.env: cannot be read"):
        environment({})


# --- anything ----------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(
    [name for _, info in variables() for name in (info.name, f"{info.name}_FILE", *info.aliases)]
) | st.from_regex(r"(CLAW|DINGTALK)_[A-Z_]{0,20}", fullmatch=True)
TEXTS = st.text() | st.sampled_from(
    ["0", "1", "http://x", "sqlite:///x", "zh", "http://[", "http://a@b", "/", "1e9", "٣"]
)


@given(st.dictionaries(NAMES, TEXTS), st.booleans())
@example({"OPENAI_BASE_URL": "http://[::1"}, True)
def test_any_environment_is_read_or_refused(environ: dict[str, str], complete: bool) -> None:
    """Whatever the environment holds, `load` gives settings or a SettingsError with sentences, nothing else."""
    try:
        settings = load((LEAST if complete else {}) | environ)
    except SettingsError as error:
        told = error.problems
    else:
        told = ("NONE",)
        assert 0 <= settings.http.port <= 65535
        assert settings.inbox.max_concurrency >= 1
    assert told
    assert all(re.match(r"[A-Z_]+", problem) for problem in told)


# --- tables ------------------------------------------------------------------------------------------------------


def test_table_is_not_stale() -> None:
    """The table of docs/settings.md is the one made from settings.py."""
    readme = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- settings -->\n+(.*?)\n*<!-- /settings -->", readme, re.DOTALL)
    assert found, "docs/settings.md has no region between <!-- settings --> and <!-- /settings -->"
    assert found[1].strip() == markdown_table().strip()


def test_dotenv_example_is_not_stale() -> None:
    """`.env.example` is the one made from settings.py."""
    assert (ROOT / ".env.example").read_text(encoding="utf-8") == dotenv_example()


def test_dotenv_example_can_be_used(dotenv: Path) -> None:
    """With the required values filled in and every comment mark taken off a variable, `.env.example` loads."""
    text = re.sub(r"^#([A-Z_]+=)", r"\1", dotenv_example(), flags=re.MULTILINE)
    text = re.sub(r"^(DINGTALK_CLIENT_ID|DINGTALK_CLIENT_SECRET|OPENAI_API_KEY)=$", r"\1=x", text, flags=re.MULTILINE)
    dotenv.write_text(text, encoding="utf-8")
    found = load(environment({}))
    assert found.warnings == ()
    assert found.stream == load(LEAST).stream
    assert found.inbox == load(LEAST).inbox


def test_every_variable_is_in_both_tables() -> None:
    """No variable is left out of the tables, and no two have one name."""
    names = [name for _, info in variables() for name in (info.name, *info.aliases)]
    assert len(names) == len(set(names))
    for name in names:
        assert f"`{name}`" in markdown_table()
        assert name in dotenv_example()


def test_settings_are_light() -> None:
    """Reading settings imports none of the heavy packages: `claw` can refuse them at once."""
    heavy = ("aiohttp", "openai", "opentelemetry")
    code = f"import sys, claw.config.settings; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
