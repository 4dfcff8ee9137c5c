"""Settings: the environment read once, at start, into frozen values.

Order of events: `environment()` lays a `.env` file below the process's own variables (outside containers);
`load()` reads every variable of the table below, takes secrets from `NAME_FILE` where that is set, and either
returns `Settings` or raises one SettingsError that names every fault. The fields' `variable()` is the only place
where a variable's name, default and meaning are written: README, `.env.example` and the chart are made from it.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo

from dotenv import dotenv_values

from claw.errors import SettingsError
from claw.language import Language
from claw.policy import DirectPolicy, GroupPolicy, GroupSession, Pairing
from claw.secret import Secret

TABLE_BEGIN: Final = "<!-- settings -->"
TABLE_END: Final = "<!-- /settings -->"
"""Marks between which README holds the table of variables."""
EXIT_BAD_SETTINGS: Final = 78
"""Exit code, `EX_CONFIG` of sysexits.h."""
SECRET_FILE_MAX: Final = 64 * 1024
"""Bytes read of a `_FILE` secret at most; a larger file is not a secret."""

_UNREADABLE: Final = "\0"
"""Stands for a secret whose file is at fault, which has been reported already."""
_UNITS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*(ms|s|m|h|d)?")
_SECTION_TITLES: Final = {
    "dingtalk": "DingTalk",
    "model": "The model",
    "conversation": "Conversations",
    "access": "Who may talk",
    "stream": "The connection",
    "inbox": "Work",
    "store": "Store",
    "http": "HTTP surface",
    "logs": "Language and logs",
}


class Variable(NamedTuple):
    """What a reader must know of one environment variable."""

    name: str
    meaning: str
    parse: Callable[[str], Any]
    aliases: tuple[str, ...] = ()
    secret: bool = False
    from_file: bool = False
    required: bool = False
    default_text: str = ""


def variable(
    name: str,
    parse: Callable[[str], Any],
    meaning: str,
    *,
    default: Any = MISSING,
    default_text: str | None = None,
    aliases: tuple[str, ...] = (),
    secret: bool = False,
    from_file: bool = False,
    required: bool = False,
) -> Any:
    """Declare a settings field that is read from the environment; no default and not required: None."""
    shown = default_text if default_text is not None else ("" if default in (MISSING, None) else str(default))
    info = Variable(name, meaning, parse, aliases, secret, from_file or secret, required, shown)
    return field(default=None if default is MISSING else default, metadata={"variable": info})


# --- parsers: text -> value, or ValueError with what would be right ------------------------------------------


def text(value: str) -> str:
    return value


def secret(value: str) -> Secret:
    if re.search(r"\s", value):
        raise ValueError("a secret without blanks or line breaks inside")
    return Secret(value)


def identifier(value: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        raise ValueError("an id of visible ASCII characters, as the developer console shows it")
    return value


def url(value: str) -> str:
    right = "an http:// or https:// address, for example https://api.example.com"
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError(right) from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0 or re.search(r"\s", value):
        raise ValueError(right)
    if parts.username or parts.password:
        raise ValueError("an address without user and password in it")
    return value.rstrip("/")


def duration(low: float, high: float, *, off: bool = False) -> Callable[[str], float]:
    """Make a parser of seconds; a unit (ms, s, m, h, d) may follow. `off`: 0 is allowed as well."""
    right = f"a duration from {low:g} to {high:g} seconds, such as {max(low, min(high, 60)):g} or 5m"
    right += ", or 0 to switch it off" if off else ""

    def parse(value: str) -> float:
        match = _DURATION.fullmatch(value.lower())
        if not match:
            raise ValueError(right)
        seconds = float(match[1]) * _UNITS[match[2] or ""]
        if off and seconds == 0:
            return 0.0
        if not math.isfinite(seconds) or not low <= seconds <= high:
            raise ValueError(right)
        return seconds

    return parse


def whole(low: int, high: int) -> Callable[[str], int]:
    """Make a parser of whole numbers from `low` to `high`."""

    def parse(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", value) or not low <= int(value) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(value)

    return parse


def choice(*allowed: str) -> Callable[[str], str]:
    """Make a parser of one word out of `allowed`, in any case."""

    def parse(value: str) -> str:
        if value.lower() not in allowed:
            near = difflib.get_close_matches(value.lower(), allowed, 1)
            raise ValueError(f"one of {', '.join(allowed)}" + (f" (did you mean {near[0]}?)" if near else ""))
        return value.lower()

    return parse


def language(value: str) -> Language:
    return Language(choice("zh", "en")(value))


E = TypeVar("E", bound=StrEnum)


def one_of(kind: type[E]) -> Callable[[str], E]:
    """Make a parser of one of an Enum's words, in any case."""
    parse = choice(*(each.value for each in kind))
    return lambda value: kind(parse(value))


def staff_ids(value: str) -> tuple[str, ...]:
    ids = tuple(dict.fromkeys(each for each in re.split(r"[\s,;，；]+", value) if each))
    if not all(re.fullmatch(r"[^\x00-\x20@:*\x7f]{1,64}", each) for each in ids):
        raise ValueError("staff ids (userId in the admin console) with commas between them, for example u-1001,u-1002")
    return ids


def time_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError.
        raise ValueError("a time zone by its IANA name, for example Asia/Shanghai") from None
    return value


def store_url(value: str) -> Secret:
    """Checked as far as can be without a connection; in Redis' address a password may stand."""
    if re.match(r"rediss?://", value):
        right = (
            "redis://host:6379/0 or, with a password, redis://:password@host:6379/0 (its / ? # @ % as %2F and so on)"
        )
        try:
            parts = urlsplit(value)
            usable = bool(parts.hostname) and parts.port != 0
        except ValueError:
            raise ValueError(right) from None
        if not usable or not re.fullmatch(r"/?|/[0-9]{1,4}", parts.path) or re.search(r"[?#\s]", value):
            raise ValueError(right)
    elif not re.match(r"sqlite:///.+", value) or re.search(r"[?#]", value):
        raise ValueError("sqlite:///relative/path, sqlite:////absolute/path, or redis://host:6379/0")
    return Secret(value)


# --- the table -----------------------------------------------------------------------------------------------


class Credentials(NamedTuple):
    """What the robot's app proves itself with."""

    client_id: str
    client_secret: Secret


@dataclass(frozen=True)
class DingTalkSettings:
    """The robot's app at DingTalk."""

    client_id: str = variable(
        "DINGTALK_CLIENT_ID",
        identifier,
        "Client ID (AppKey) of the app, from its page 凭证与基础信息",
        aliases=("DINGTALK_APP_KEY",),
        required=True,
        from_file=True,
    )
    client_secret: Secret = variable(
        "DINGTALK_CLIENT_SECRET",
        secret,
        "Client Secret (AppSecret) of the app",
        aliases=("DINGTALK_APP_SECRET",),
        secret=True,
        required=True,
    )
    openapi_endpoint: str = variable(
        "DINGTALK_OPENAPI_ENDPOINT", url, "DingTalk's new API", default="https://api.dingtalk.com"
    )
    oapi_endpoint: str = variable(
        "DINGTALK_OAPI_ENDPOINT", url, "DingTalk's old API", default="https://oapi.dingtalk.com"
    )
    secret_file: Path | None = None
    """The file that the secret came from, which may be changed while we run."""

    def credentials(self) -> Credentials:
        """The credentials as they are now: a secret that came from a file is read again."""
        if self.secret_file is not None:
            try:
                value = read_secret_file(self.secret_file)
            except (OSError, ValueError):
                value = ""
            if value:
                return Credentials(self.client_id, Secret(value))
        return Credentials(self.client_id, self.client_secret)


@dataclass(frozen=True)
class ModelSettings:
    """The Claw instance: any OpenAI-compatible server."""

    api_key: Secret = variable(
        "OPENAI_API_KEY",
        secret,
        "Key or bearer token of the model's server; needed unless OPENAI_BASE_URL names a server without keys",
        default=Secret(""),
        default_text="",
        secret=True,
    )
    base_url: str = variable(
        "OPENAI_BASE_URL", url, "Where the model's server is, `/v1` included", default="https://api.openai.com/v1"
    )
    name: str = variable(
        "OPENAI_MODEL", text, "Name of the model (at an OpenClaw gateway: `openclaw`)", default="gpt-5-mini"
    )
    turn_timeout: float = variable(
        "CLAW_TURN_TIMEOUT",
        duration(1, 3600),
        "Seconds that an answer may take in all",
        default=300.0,
        default_text="300",
    )


@dataclass(frozen=True)
class ConversationSettings:
    """How the model is told of a conversation."""

    system_prompt: str = variable(
        "CLAW_SYSTEM_PROMPT", text, "What the model is told first; empty: nothing", default="", default_text=""
    )
    history_turns: int = variable(
        "CLAW_HISTORY_TURNS",
        whole(0, 100),
        "Earlier exchanges that the model is told of; 0 where the Claw gateway keeps the session",
        default=20,
    )
    group_session: GroupSession = variable(
        "CLAW_GROUP_SESSION",
        one_of(GroupSession),
        "Whose conversation a group is: `shared` by all, or one `per_user`",
        default=GroupSession.SHARED,
        default_text="shared",
    )


@dataclass(frozen=True)
class AccessSettings:
    """Who may talk to the robot, and how much."""

    owner: tuple[str, ...] = variable(
        "CLAW_OWNER",
        staff_ids,
        "Staff ids of the owner, with commas between several; empty: see CLAW_OWNER_PAIRING",
        default=(),
        default_text="",
    )
    pairing: Pairing = variable(
        "CLAW_OWNER_PAIRING",
        one_of(Pairing),
        "Who becomes the owner: the `first` who writes in a direct chat, whoever sends the `code` in the log, or `off`",
        default=Pairing.FIRST,
        default_text="first",
    )
    group_policy: GroupPolicy = variable(
        "CLAW_GROUP_POLICY",
        one_of(GroupPolicy),
        "Who may talk in groups: `open`, `allowlist` or `disabled`",
        default=GroupPolicy.OPEN,
        default_text="open",
    )
    group_allowed: tuple[str, ...] = variable(
        "CLAW_GROUP_ALLOWED_USERS", staff_ids, "Staff ids for the group allowlist", default=(), default_text=""
    )
    direct_policy: DirectPolicy = variable(
        "CLAW_DIRECT_POLICY",
        one_of(DirectPolicy),
        "Who may talk in direct chats: `open`, `allowlist` or `owner`",
        default=DirectPolicy.OPEN,
        default_text="open",
    )
    direct_allowed: tuple[str, ...] = variable(
        "CLAW_DIRECT_ALLOWED_USERS", staff_ids, "Staff ids for the direct allowlist", default=(), default_text=""
    )
    daily_limit: int = variable(
        "CLAW_USER_DAILY_LIMIT", whole(0, 1_000_000), "Questions that a person may ask in a day; 0: no limit", default=0
    )
    timezone: str = variable("CLAW_TIMEZONE", time_zone, "Where that day begins and ends", default="Asia/Shanghai")


@dataclass(frozen=True)
class StreamSettings:
    """DingTalk's socket."""

    heartbeat: float = variable(
        "CLAW_STREAM_HEARTBEAT",
        duration(0.1, 60),
        "Seconds between our pings; two without answer are a dead connection",
        default=5.0,
        default_text="5",
    )
    rotate: float = variable(
        "CLAW_STREAM_ROTATE",
        duration(1, 86400, off=True),
        "Seconds after which a connection is replaced without a gap (±10 %); 0: never",
        default=3600.0,
        default_text="3600",
    )
    connections: int = variable(
        "CLAW_STREAM_CONNECTIONS",
        whole(1, 10),
        "Connections held at the same time, so that the loss of one leaves no gap",
        default=2,
    )


@dataclass(frozen=True)
class InboxSettings:
    """How much is done at once, and how often it is tried."""

    max_concurrency: int = variable(
        "CLAW_MAX_CONCURRENCY", whole(1, 1000), "Conversations that are answered at the same time", default=32
    )
    max_attempts: int = variable(
        "CLAW_MAX_ATTEMPTS", whole(1, 20), "Tries before a message is given up and the person told", default=3
    )
    drain_timeout: float = variable(
        "CLAW_DRAIN_TIMEOUT",
        duration(0, 3600),
        "Seconds that running answers get after SIGTERM (Cloud Run kills after 10)",
        default=8.0,
        default_text="8",
    )


@dataclass(frozen=True)
class StoreSettings:
    """Where messages and memory are kept."""

    url: Secret = variable(
        "CLAW_STORE_URL",
        store_url,
        "`sqlite:///` and a path, relative to the working directory (four slashes: absolute); or, for several claws"
        " together, `redis://:password@host:6379/0` (`rediss://`: with TLS)",
        default=Secret("sqlite:///data/claw.db"),
        default_text="sqlite:///data/claw.db",
        secret=True,
    )

    @property
    def in_redis(self) -> bool:
        return self.url.reveal().startswith("redis")

    @property
    def path(self) -> Path:
        """Of the SQLite file."""
        return Path(self.url.reveal().removeprefix("sqlite:///"))

    @property
    def shown(self) -> str:
        """The address without user and password."""
        if not self.in_redis:
            return self.url.reveal()
        parts = urlsplit(self.url.reveal())
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme}://{host}:{parts.port or 6379}/{parts.path.strip('/') or 0}"

    @property
    def password(self) -> Secret:
        """What must never be shown of it, as it is sent; empty where there is none."""
        return Secret(unquote(urlsplit(self.url.reveal()).password or ""))


@dataclass(frozen=True)
class HttpSettings:
    """The surface for orchestrators and operators."""

    admin_token: Secret = variable(
        "CLAW_ADMIN_TOKEN",
        secret,
        "Bearer token of `/restart` and `/status`; unset: these routes do not exist",
        default=Secret(""),
        default_text="",
        secret=True,
    )
    host: str = variable("HOST", text, "Address to listen on", default="0.0.0.0")  # noqa: S104 - a container's probes come from outside of it
    port: int = variable("PORT", whole(0, 65535), "Port to listen on", default=8080)


@dataclass(frozen=True)
class LogSettings:
    """What the operator and the people read."""

    language: Language = variable(
        "CLAW_LANG",
        language,
        "Language where a message shows none: `zh` or `en`",
        default=Language.ZH,
        default_text="zh",
    )
    level: str = variable(
        "CLAW_LOG_LEVEL",
        choice("debug", "info", "warning", "error"),
        "`debug`, `info`, `warning` or `error`",
        default="info",
    )
    format: str = variable(
        "CLAW_LOG_FORMAT",
        choice("json", "text"),
        "`json` or `text`",
        default="",
        default_text="json; text on a terminal",
    )


@dataclass(frozen=True)
class Settings:
    """Everything that claw can be told."""

    dingtalk: DingTalkSettings
    model: ModelSettings
    conversation: ConversationSettings
    access: AccessSettings
    stream: StreamSettings
    inbox: InboxSettings
    store: StoreSettings
    http: HttpSettings
    logs: LogSettings
    warnings: tuple[str, ...] = ()
    """Sentences for the operator about variables that had no effect."""


_SECTIONS: Final[dict[str, type[Any]]] = {
    "dingtalk": DingTalkSettings,
    "model": ModelSettings,
    "conversation": ConversationSettings,
    "access": AccessSettings,
    "stream": StreamSettings,
    "inbox": InboxSettings,
    "store": StoreSettings,
    "http": HttpSettings,
    "logs": LogSettings,
}


def _variables_of(section: type[Any]) -> Iterator[tuple[Field[Any], Variable]]:
    for each in fields(section):
        if "variable" in each.metadata:
            yield each, each.metadata["variable"]


def variables() -> Iterator[tuple[str, Variable]]:
    """Every variable with its section's title, in reading order: the source of all tables."""
    for name, section in _SECTIONS.items():
        for _, info in _variables_of(section):
            yield _SECTION_TITLES[name], info


# --- reading -------------------------------------------------------------------------------------------------


CONTAINER_MARKS: Final = ("KUBERNETES_SERVICE_HOST", "K_SERVICE", "CLOUD_RUN_JOB", "CLOUD_RUN_WORKER_POOL", "container")
"""Variables that orchestrators set; `container` is podman's and systemd's, and our own image's."""


def in_container(environ: Mapping[str, str]) -> bool:
    """Whether our environment was made for us alone, so that a stray `.env` must not add to it.

    Files such as `/.dockerenv` do not tell that: a developer's shell in a container has them too.
    """
    return any(mark in environ for mark in CONTAINER_MARKS)


def environment(environ: Mapping[str, str] | None = None, dotenv: Path | None = None) -> dict[str, str]:
    """The process's variables over those of `.env` in the working directory, which containers do not read."""
    own = dict(os.environ if environ is None else environ)
    path = dotenv or Path(".env")
    if in_container(own) or not path.is_file():
        return own
    try:
        # As it stands: a `$` in a secret is no reference, and an editor's byte order mark is no part of a name.
        values = dotenv_values(path, interpolate=False, encoding="utf-8-sig")
        found = {name: value for name, value in values.items() if value is not None}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError([f"{path}: cannot be read as UTF-8 text ({type(error).__name__})"]) from None
    return found | {name: value for name, value in own.items() if value.strip() or name not in found}


def read_secret_file(path: Path) -> str:
    """The secret in a file, without the line end that editors add. Raises OSError, or ValueError with the reason."""
    if not stat.S_ISREG(path.stat().st_mode):  # Before opening: that of a FIFO would wait for ever.
        raise ValueError("is not a regular file")
    with path.open("rb") as file:
        raw = file.read(SECRET_FILE_MAX + 1)
    if len(raw) > SECRET_FILE_MAX:
        raise ValueError("is too large to be a secret")
    try:
        return raw.decode().strip()
    except UnicodeDecodeError:
        raise ValueError("is not text") from None


class _Reader:
    """Collects values and faults out of one environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.problems: list[str] = []
        self.given: set[str] = set()
        self.files: dict[str, Path] = {}

    def _raw(self, info: Variable) -> str:
        """The variable's text from its name, an alias or a file; empty where none is set."""
        found: dict[str, str] = {}
        for name in (info.name, *info.aliases):
            value = self.environ.get(name, "").strip()
            if value:
                found[name] = value
            path = self.environ.get(f"{name}_FILE", "").strip() if info.from_file else ""
            if path:
                found[f"{name}_FILE"] = self._from_file(f"{name}_FILE", path)
                self.files[info.name] = Path(path)
        if len(set(found.values())) > 1:
            self.problems.append(f"{' and '.join(found)}: say different things; set only one of them")
            return next(iter(found.values()))
        return next(iter(found.values()), "")

    def _from_file(self, name: str, path: str) -> str:
        try:
            value = read_secret_file(Path(path))
        except OSError as error:
            self.problems.append(f"{name}: {path} cannot be read ({error.strerror or type(error).__name__})")
            return _UNREADABLE
        except ValueError as error:
            self.problems.append(f"{name}: {path} {error}")
            return _UNREADABLE
        if not value:
            self.problems.append(f"{name}: {path} is empty")
            return _UNREADABLE
        return value

    def read(self, section: type[Any]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for each, info in _variables_of(section):
            raw = self._raw(info)
            if not raw:
                if info.required:
                    also = "".join(f" (or {alias})" for alias in info.aliases)
                    self.problems.append(f"{info.name}{also}: is not set; it must hold: {info.meaning}")
                continue
            self.given.add(info.name)
            if raw == _UNREADABLE:
                continue
            try:
                values[each.name] = info.parse(raw)
            except ValueError as error:
                # An address may hold a password in front of its @.
                hidden = info.secret or "@" in raw
                shown = "its value" if hidden else repr(raw if len(raw) <= 60 else raw[:57] + "...")
                name = f"{info.name}_FILE" if info.name in self.files else info.name
                self.problems.append(f"{name}: {shown} is not usable; right would be {error}")
        return values


def _unknown(environ: Mapping[str, str]) -> list[str]:
    known = {name for _, info in variables() for name in (info.name, *info.aliases)}
    known |= {f"{name}_FILE" for _, info in variables() if info.from_file for name in (info.name, *info.aliases)}
    warnings = []
    for name in sorted(environ):
        if name.startswith(("CLAW_", "DINGTALK_")) and name not in known and environ[name].strip():
            near = difflib.get_close_matches(name, sorted(known), 1, 0.6)
            hint = f"; did you mean {near[0]}?" if near else ""
            warnings.append(f"{name} is not a setting of this version and has no effect{hint}")
    return warnings


def load(environ: Mapping[str, str]) -> Settings:
    """Read all settings. Raises SettingsError with every fault at once."""
    reader = _Reader(environ)
    values = {name: reader.read(section) for name, section in _SECTIONS.items()}
    model = values["model"]
    if not {"OPENAI_API_KEY", "OPENAI_BASE_URL"} & reader.given:
        reader.problems.append(
            "OPENAI_API_KEY: is not set; set it, or set OPENAI_BASE_URL to a server that asks for no key"
        )
    if reader.problems:
        raise SettingsError(reader.problems)
    dingtalk = DingTalkSettings(**values["dingtalk"], secret_file=reader.files.get("DINGTALK_CLIENT_SECRET"))
    logs = values["logs"]
    logs.setdefault("format", "text" if sys.stderr.isatty() else "json")
    return Settings(
        dingtalk=dingtalk,
        model=ModelSettings(**model),
        conversation=ConversationSettings(**values["conversation"]),
        access=AccessSettings(**values["access"]),
        stream=StreamSettings(**values["stream"]),
        inbox=InboxSettings(**values["inbox"]),
        store=StoreSettings(**values["store"]),
        http=HttpSettings(**values["http"]),
        logs=LogSettings(**logs),
        warnings=tuple(_unknown(environ)),
    )


def complain(error: SettingsError) -> None:
    """Tell the operator every fault of the environment, in one go and without a traceback."""
    print("claw cannot start with these settings:", file=sys.stderr)  # noqa: T201 - before there is a log
    for problem in error.problems:
        print(f"  - {problem}", file=sys.stderr)  # noqa: T201


# --- tables --------------------------------------------------------------------------------------------------


def markdown_table() -> str:
    """The README's table of variables."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    last = ""
    for title, info in variables():
        if title != last:
            lines.append(f"| **{title}** | | |")
            last = title
        names = "<br>".join(f"`{name}`" for name in (info.name, *info.aliases))
        default = "**required**" if info.required else (f"`{info.default_text}`" if info.default_text else "")
        file = f" (or a file named by `{info.name}_FILE`)" if info.from_file else ""
        lines.append(f"| {names} | {default} | {info.meaning}{file} |")
    return "\n".join(lines) + "\n"


def _usable_default(info: Variable) -> str:
    """The default where it can be written as a value, and not only be described."""
    try:
        info.parse(info.default_text)
    except ValueError:
        return ""
    return info.default_text


def dotenv_example() -> str:
    """The text of `.env.example`."""
    lines = [
        "# Copy to .env and fill in. claw reads .env outside of containers; variables of the process win over it.",
        "# An empty value counts as unset. NAME_FILE reads a secret from a file. Made from claw/config/settings.py.",
    ]
    last = ""
    for title, info in variables():
        if title != last:
            lines += ["", f"# --- {title} ---"]
            last = title
        lines.append(f"# {info.meaning}" + (f" (also {', '.join(info.aliases)})" if info.aliases else ""))
        lines.append(f"{info.name}=" if info.required else f"#{info.name}={_usable_default(info)}")
    return "\n".join(lines) + "\n"


def refresh_documents(root: Path) -> None:
    """Write the tables that are made from this module: `.env.example`, and README between its markers."""
    (root / ".env.example").write_text(dotenv_example(), encoding="utf-8")
    readme = root / "README.md"
    before, begin, rest = readme.read_text(encoding="utf-8").partition(TABLE_BEGIN)
    _, end, after = rest.partition(TABLE_END)
    readme.write_text(f"{before}{begin}\n{markdown_table()}{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    refresh_documents(Path(__file__).parents[2])
