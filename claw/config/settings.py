"""Settings: every variable that an operator can set, with its default and meaning.

Each section is a frozen dataclass whose fields are declared by `variable()`: the only place where a variable's name,
default and meaning are written. docs/settings.md, `.env.example` and the chart are made from it (`config/docs.py`);
`config/reader.py` reads an environment into `Settings`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, NamedTuple, get_type_hints
from urllib.parse import unquote, urlsplit

from claw.config import weak_tokens
from claw.config.answers import ReplySettings
from claw.config.files import read_secret_file
from claw.config.log_settings import LogSettings
from claw.config.parsers import (
    Duration,
    Identifier,
    Integer,
    Names,
    OneOf,
    PlainText,
    SecretText,
    StaffIds,
    StoreUrl,
    TimeZone,
    Url,
)
from claw.config.variables import Variable, section, variable
from claw.policy import BusyMode, DirectPolicy, GroupPolicy, GroupSession, ModelApi, Pairing, Switch, Vision
from claw.secret import Secret

EXIT_BAD_SETTINGS: Final = 78
"""Exit code, `EX_CONFIG` of sysexits.h."""


_ANY_SECRET: Final = SecretText()
_ADMIN_TOKEN: Final = SecretText(chars_min=weak_tokens.CHARS_MIN)
_last_good: Final[dict[Path, Secret]] = {}
"""What was last read of each followed file: one that is emptied or replaced must not bring an older one back."""


def reread(file: Path | None, secret: Secret, parser: SecretText = _ANY_SECRET) -> Secret:
    """Return the secret that stands in `file` now; else what was last read of it; else `secret`. Blocks."""
    if file is None:
        return secret
    try:
        found = parser.parse(read_secret_file(file))
    except (OSError, ValueError):
        found = None
    if found:
        _last_good[file] = found
    return _last_good.get(file, secret)


class Credentials(NamedTuple):
    """What the robot's app proves itself with."""

    client_id: str
    client_secret: Secret


@dataclass(frozen=True)
class DingTalkSettings:
    """The robot's app at DingTalk."""

    client_id: str = variable(
        "DINGTALK_CLIENT_ID",
        Identifier(),
        "Client ID (AppKey) of the app, from its page 凭证与基础信息",
        aliases=("DINGTALK_APP_KEY",),
        required=True,
        from_file=True,
    )
    client_secret: Secret = variable(
        "DINGTALK_CLIENT_SECRET",
        SecretText(),
        "Client Secret (AppSecret) of the app",
        aliases=("DINGTALK_APP_SECRET",),
        secret=True,
        required=True,
    )
    openapi_endpoint: str = variable(
        "DINGTALK_OPENAPI_ENDPOINT", Url(), "DingTalk's new API", default="https://api.dingtalk.com"
    )
    oapi_endpoint: str = variable(
        "DINGTALK_OAPI_ENDPOINT", Url(), "DingTalk's old API", default="https://oapi.dingtalk.com"
    )
    secret_file: Path | None = field(default=None, compare=False)
    """The file that the secret came from, which may be changed while we run."""

    def credentials(self) -> Credentials:
        """Return the credentials as they are now: a secret that came from a file is read again."""
        return Credentials(self.client_id, reread(self.secret_file, self.client_secret))


@dataclass(frozen=True)
class ModelSettings:
    """The Claw instance: any OpenAI-compatible server."""

    api_key: Secret = variable(
        "OPENAI_API_KEY",
        SecretText(),
        "Key or bearer token of the model's server; needed unless OPENAI_BASE_URL names a server without keys",
        default=Secret(""),
        default_text="",
        secret=True,
    )
    base_url: str = variable(
        "OPENAI_BASE_URL", Url(), "Where the model's server is, `/v1` included", default="https://api.openai.com/v1"
    )
    name: str = variable(
        "OPENAI_MODEL", PlainText(), "Name of the model (at an OpenClaw gateway: `openclaw`)", default="gpt-5-mini"
    )
    api: ModelApi = variable(
        "CLAW_MODEL_API",
        OneOf(ModelApi),
        "How the server is asked: `chat` (chat completions) or `responses` (`/responses`, of OpenAI and OpenClaw)",
        default=ModelApi.CHAT,
        default_text="chat",
    )
    others: tuple[str, ...] = variable(
        "CLAW_MODELS",
        Names(),
        "Further models that the owner may choose for a chat, with commas between several (at an OpenClaw gateway:"
        " `openclaw/<agent>`)",
        default=(),
        default_text="",
    )
    turn_timeout: float = variable(
        "CLAW_TURN_TIMEOUT",
        Duration(1, 3600),
        "Seconds that the model may work on an answer, all tries together",
        default=300.0,
        default_text="300",
    )
    max_tokens: int = variable(
        "CLAW_MODEL_MAX_TOKENS",
        Integer(0, 1_000_000),
        "Tokens that an answer may have, as the server is told (`max_tokens`); 0: the server's own limit",
        default=0,
    )
    patience: float = variable(
        "CLAW_MODEL_PATIENCE",
        Duration(1, 86400, off=True),
        "Seconds for which a model's server that cannot be reached, starts or drains is waited for; 0: not at all",
        default=600.0,
        default_text="600",
    )
    secret_file: Path | None = field(default=None, compare=False)
    """The file that the key came from, which may be changed while we run."""

    def read_api_key(self) -> Secret:
        """Return the key as it is now. Blocks."""
        return reread(self.secret_file, self.api_key)


@dataclass(frozen=True)
class ConversationSettings:
    """How the model is told of a conversation."""

    system_prompt: str = variable(
        "CLAW_SYSTEM_PROMPT", PlainText(), "What the model is told first; empty: nothing", default="", default_text=""
    )
    history_turns: int = variable(
        "CLAW_HISTORY_TURNS",
        Integer(0, 100),
        "Earlier exchanges that the model is told of; 0 where the Claw gateway keeps the session",
        default=20,
    )
    group_session: GroupSession = variable(
        "CLAW_GROUP_SESSION",
        OneOf(GroupSession),
        "Whose conversation a group is: `shared` by all, or one `per_user`",
        default=GroupSession.SHARED,
        default_text="shared",
    )
    context: Switch = variable(
        "CLAW_CONTEXT",
        OneOf(Switch),
        "Whether the model is told who speaks, when, and in which chat: `on` or `off`",
        default=Switch.ON,
        default_text="on",
    )
    vision: Vision = variable(
        "CLAW_VISION",
        OneOf(Vision),
        "Whether the model gets pictures: `on`, `off`, or `auto` (until it refuses one)",
        default=Vision.AUTO,
        default_text="auto",
    )
    file_max_mb: int = variable(
        "CLAW_FILE_MAX_MB", Integer(0, 100), "Megabytes of a file that is read for the model; 0: none are", default=20
    )
    idle_reset: float = variable(
        "CLAW_IDLE_RESET",
        Duration(60, 31_536_000, off=True),
        "Seconds of silence after which a conversation begins anew; 0: never",
        default=0.0,
        default_text="0",
    )


@dataclass(frozen=True)
class AccessSettings:
    """Who may talk to the robot, and how much."""

    owner: tuple[str, ...] = variable(
        "CLAW_OWNER",
        StaffIds(),
        "Staff ids of the owner, with commas between several; empty: see CLAW_OWNER_PAIRING",
        default=(),
        default_text="",
    )
    pairing: Pairing = variable(
        "CLAW_OWNER_PAIRING",
        OneOf(Pairing),
        "Who becomes owner: the `first` who may talk and writes directly, who sends the `code` in the log, or `off`",
        default=Pairing.FIRST,
        default_text="first",
    )
    group_policy: GroupPolicy = variable(
        "CLAW_GROUP_POLICY",
        OneOf(GroupPolicy),
        "Who may talk in groups: `open`, `allowlist` or `disabled`",
        default=GroupPolicy.OPEN,
        default_text="open",
    )
    group_allowed: tuple[str, ...] = variable(
        "CLAW_GROUP_ALLOWED_USERS", StaffIds(), "Staff ids for the group allowlist", default=(), default_text=""
    )
    direct_policy: DirectPolicy = variable(
        "CLAW_DIRECT_POLICY",
        OneOf(DirectPolicy),
        "Who may talk in direct chats: `open`, `allowlist` or `owner`",
        default=DirectPolicy.OPEN,
        default_text="open",
    )
    direct_allowed: tuple[str, ...] = variable(
        "CLAW_DIRECT_ALLOWED_USERS", StaffIds(), "Staff ids for the direct allowlist", default=(), default_text=""
    )
    alerts: Switch = variable(
        "CLAW_ALERTS",
        OneOf(Switch),
        "Whether the owner is told of trouble in DingTalk (answers that were lost, a model that refuses, the budget,"
        " credentials, unclean stops, the store): `on` or `off`",
        default=Switch.ON,
        default_text="on",
    )
    daily_limit: int = variable(
        "CLAW_USER_DAILY_LIMIT",
        Integer(0, 1_000_000),
        "Questions that a person may ask in a day; 0: no limit",
        default=0,
    )
    timezone: str = variable(
        "CLAW_TIMEZONE",
        TimeZone(),
        "Time zone of that day, and of the times that the model is told",
        default="Asia/Shanghai",
    )


@dataclass(frozen=True)
class StreamSettings:
    """DingTalk's socket."""

    heartbeat: float = variable(
        "CLAW_STREAM_HEARTBEAT",
        Duration(0.1, 60),
        "Seconds between our pings; two without answer are a dead connection",
        default=5.0,
        default_text="5",
    )
    rotate: float = variable(
        "CLAW_STREAM_ROTATE",
        Duration(1, 86400, off=True),
        "Seconds after which a connection is replaced without a gap (±10 %); 0: never",
        default=3600.0,
        default_text="3600",
    )
    connections: int = variable(
        "CLAW_STREAM_CONNECTIONS",
        Integer(1, 10),
        "Connections held at the same time, so that the loss of one leaves no gap",
        default=2,
    )


@dataclass(frozen=True)
class InboxSettings:
    """How much is done at once, and how often it is tried."""

    max_concurrency: int = variable(
        "CLAW_MAX_CONCURRENCY", Integer(1, 1000), "Conversations that are answered at the same time", default=32
    )
    max_attempts: int = variable(
        "CLAW_MAX_ATTEMPTS", Integer(1, 20), "Tries before a message is given up and the person told", default=3
    )
    drain_timeout: float = variable(
        "CLAW_DRAIN_TIMEOUT",
        Duration(0, 3600),
        "Seconds that running answers get after SIGTERM (Cloud Run kills after 10)",
        default=8.0,
        default_text="8",
    )
    busy_mode: BusyMode = variable(
        "CLAW_BUSY_MODE",
        OneOf(BusyMode),
        "A message while its conversation is being answered: `queue`, `merge` (those that wait are answered together)"
        " or `interrupt` (it ends its sender's turn)",
        default=BusyMode.QUEUE,
        default_text="queue",
    )


@dataclass(frozen=True)
class StoreSettings:
    """Where messages and memory are kept."""

    url: Secret = variable(
        "CLAW_STORE_URL",
        StoreUrl(),
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
        _ADMIN_TOKEN,
        "Bearer token of the operator's page and of all routes but probes and metrics; unset: these do not exist",
        default=Secret(""),
        default_text="",
        secret=True,
    )
    host: str = variable(
        "HOST",
        PlainText(),
        "Address to listen on; `::` is both families, IPv6 and IPv4",
        default="0.0.0.0",  # noqa: S104 - a container's probes come from outside of it
    )
    port: int = variable("PORT", Integer(0, 65535), "Port to listen on", default=8080)
    page: Switch = variable(
        "CLAW_PAGE",
        OneOf(Switch),
        "The operator's page at `/`, where CLAW_ADMIN_TOKEN is set: `on` or `off`",
        default=Switch.ON,
        default_text="on",
    )
    metrics: Switch = variable(
        "CLAW_METRICS",
        OneOf(Switch),
        "`/metrics` for Prometheus, which answers everybody who reaches the port: `on` or `off`",
        default=Switch.OFF,
        default_text="off",
    )
    secret_file: Path | None = field(default=None, compare=False)
    """The file that the token came from, which may be changed while we run."""

    def read_admin_token(self) -> Secret:
        """Return the token as it is now. Blocks."""
        # A file that holds too short a token now is one that went bad: the one before goes on.
        return reread(self.secret_file, self.admin_token, _ADMIN_TOKEN)


@dataclass(frozen=True)
class Settings:
    """Everything that claw can be told. The one list of sections: tables and reader follow its order."""

    dingtalk: DingTalkSettings = section("DingTalk")
    model: ModelSettings = section("The model")
    conversation: ConversationSettings = section("Conversations")
    access: AccessSettings = section("Who may talk")
    stream: StreamSettings = section("The connection")
    inbox: InboxSettings = section("Work")
    reply: ReplySettings = section("Answers")
    store: StoreSettings = section("Store")
    http: HttpSettings = section("HTTP surface")
    logs: LogSettings = section("Language and logs")
    warnings: tuple[str, ...] = ()
    """Sentences for the operator about variables that had no effect."""


def sections() -> Iterator[tuple[str, str, type[Any]]]:
    """Yield each section's field name, title and class, in reading order."""
    types = get_type_hints(Settings)
    return ((each.name, each.metadata["title"], types[each.name]) for each in fields(Settings) if each.metadata)


def variables_of(kind: type[Any]) -> Iterator[tuple[Field[Any], Variable]]:
    """Yield a section's fields with their variables."""
    return ((each, each.metadata["variable"]) for each in fields(kind) if "variable" in each.metadata)


def variables() -> Iterator[tuple[str, Variable]]:
    """Yield every variable with its section's title, in reading order: the source of all tables."""
    return ((title, info) for _, title, kind in sections() for _, info in variables_of(kind))
