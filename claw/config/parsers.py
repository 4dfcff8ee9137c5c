"""Parsers of settings: text of the environment to a value.

Each parser is a small frozen object. `parse` returns the value, or raises ValueError with what would be right;
`json_schema` says the same to the chart and to whoever edits settings by a form.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Generic, Protocol, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from claw.language import Bilingual
from claw.secret import Secret

Schema = dict[str, Any]
T_co = TypeVar("T_co", covariant=True)
E = TypeVar("E", bound=StrEnum)

_UNIT_S: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*(ms|s|m|h|d)?")
_DURATION_PATTERN: Final = r"^(([0-9]+(\.[0-9]+)?|\.[0-9]+) *(ms|s|m|h|d)?)?$"
_STAFF_ID: Final = re.compile(r"[^\x00-\x20@:*\x7f]{1,64}")
_MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}")
NAMES_MAX: Final = 50
"""Models that one setting may name."""


class Parser(Protocol[T_co]):
    """Makes a value of a variable's text."""

    def parse(self, value: str) -> T_co:
        """Return the value. Raises ValueError with what would be right."""
        ...

    def json_schema(self) -> Schema:
        """Return the JSON schema of the text; empty and null stand for unset."""
        ...


def _text_schema(**rules: Any) -> Schema:
    # Always a text: YAML would read a long numeric id as a float, and lose its last digits.
    return {"type": ["string", "null"], **rules}


@dataclass(frozen=True)
class PlainText:
    """Any text, as it is."""

    def parse(self, value: str) -> str:
        return value

    def json_schema(self) -> Schema:
        return _text_schema()


@dataclass(frozen=True)
class SecretText:
    """A secret: one word, of `chars_min` characters at least."""

    chars_min: int = 1

    def parse(self, value: str) -> Secret:
        right = "a secret of visible ASCII characters, without blanks or line breaks inside"
        zh = "由可见 ASCII 字符组成的密钥，中间没有空格和换行"
        if found := re.search(r"[^\x21-\x7e]", value):
            # The code point says which invisible character a copy from a web page or a chat brought along.
            place, point = found.start() + 1, f"U+{ord(found[0]):04X}"
            raise ValueError(Bilingual(f"{right}; character {place} is {point}", f"{zh}；第 {place} 个字符是 {point}"))
        if len(value) < self.chars_min:
            least = self.chars_min
            raise ValueError(Bilingual(f"{right}, and of at least {least} characters", f"{zh}，至少 {least} 个字符"))
        return Secret(value)

    def json_schema(self) -> Schema:
        return _text_schema(pattern=r"^\S*$" if self.chars_min <= 1 else rf"^(\S{{{self.chars_min},}})?$")


@dataclass(frozen=True)
class Identifier:
    """An id of visible ASCII characters."""

    def parse(self, value: str) -> str:
        if not re.fullmatch(r"[\x21-\x7e]+", value):
            en = "an id of visible ASCII characters, as the developer console shows it"
            raise ValueError(Bilingual(en, "由可见 ASCII 字符组成的标识，与开放平台上显示的一致"))
        return value

    def json_schema(self) -> Schema:
        return _text_schema(pattern=r"^[!-~]*$")


@dataclass(frozen=True)
class Url:
    """An http(s) address without user and password; a slash at its end is dropped."""

    def parse(self, value: str) -> str:
        right = Bilingual(
            "an http:// or https:// address, for example https://api.example.com",
            "http:// 或 https:// 开头的地址，例如 https://api.example.com",
        )
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError:
            raise ValueError(right) from None
        if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0 or re.search(r"\s", value):
            raise ValueError(right)
        if parts.username or parts.password:
            raise ValueError(Bilingual("an address without user and password in it", "不含用户名和密码的地址"))
        return value.rstrip("/")

    def json_schema(self) -> Schema:
        return _text_schema(pattern=r"^(https?://\S+)?$")


@dataclass(frozen=True)
class Duration:
    """Seconds from `low` to `high`; a unit (ms, s, m, h, d) may follow. `off`: 0 is allowed as well."""

    low: float
    high: float
    off: bool = False

    def parse(self, value: str) -> float:
        example = max(self.low, min(self.high, 60))
        right = Bilingual(
            f"a duration from {self.low:g} to {self.high:g} seconds, such as {example:g} or 5m"
            + (", or 0 to switch it off" if self.off else ""),
            f"{self.low:g} 到 {self.high:g} 秒之间的时长，例如 {example:g} 或 5m"
            + ("；0 表示关闭" if self.off else ""),
        )
        match = _DURATION.fullmatch(value.lower())
        if not match:
            raise ValueError(right)
        seconds = float(match[1]) * _UNIT_S[match[2] or ""]
        if self.off and seconds == 0:
            return 0.0
        if not math.isfinite(seconds) or not self.low <= seconds <= self.high:
            raise ValueError(right)
        return seconds

    def json_schema(self) -> Schema:
        bounds = {"minimum": 0 if self.off else self.low, "maximum": self.high}
        return {"type": ["number", "string", "null"], **bounds, "pattern": _DURATION_PATTERN}


@dataclass(frozen=True)
class Integer:
    """A whole number from `low` to `high`."""

    low: int
    high: int

    def parse(self, value: str) -> int:
        # At most 12 digits, before `int`: its time grows with the square of a number's length.
        if not re.fullmatch(r"[0-9]{1,12}", value) or not self.low <= int(value) <= self.high:
            low, high = self.low, self.high
            raise ValueError(Bilingual(f"a whole number from {low} to {high}", f"{low} 到 {high} 之间的整数"))
        return int(value)

    def json_schema(self) -> Schema:
        bounds = {"minimum": self.low, "maximum": self.high}
        return {"type": ["integer", "string", "null"], **bounds, "pattern": "^[0-9]*$"}


@dataclass(frozen=True)
class Choice:
    """One word out of `allowed`, in any case."""

    allowed: tuple[str, ...]

    def parse(self, value: str) -> str:
        word = value.lower()
        if word not in self.allowed:
            near = difflib.get_close_matches(word, self.allowed, 1)
            words = ", ".join(self.allowed)
            raise ValueError(
                Bilingual(
                    f"one of {words}" + (f" (did you mean {near[0]}?)" if near else ""),
                    f"其中之一：{words}" + (f"（是不是想写 {near[0]}？）" if near else ""),
                )
            )
        return word

    def json_schema(self) -> Schema:
        return {"enum": [*self.allowed, "", None]}


@dataclass(frozen=True)
class OneOf(Generic[E]):
    """One of an Enum's words, in any case."""

    kind: type[E]

    @property
    def _choice(self) -> Choice:
        return Choice(tuple(each.value for each in self.kind))

    def parse(self, value: str) -> E:
        return self.kind(self._choice.parse(value))

    def json_schema(self) -> Schema:
        return self._choice.json_schema()


@dataclass(frozen=True)
class StaffIds:
    """Staff ids, with commas or blanks between several."""

    def parse(self, value: str) -> tuple[str, ...]:
        ids = tuple(dict.fromkeys(each for each in re.split(r"[\s,;，；]+", value) if each))
        if not all(_STAFF_ID.fullmatch(each) for each in ids):
            raise ValueError(
                Bilingual(
                    "staff ids (userId in the admin console) with commas between them, for example u-1001,u-1002",
                    "员工工号（管理后台里的 userId），用逗号分隔，例如 u-1001,u-1002",
                )
            )
        return ids

    def json_schema(self) -> Schema:
        return _text_schema()


@dataclass(frozen=True)
class Names:
    """Names of models, with commas between several."""

    def parse(self, value: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(each for each in re.split(r"[\s,;，；]+", value) if each))
        if len(names) > NAMES_MAX or not all(_MODEL_NAME.fullmatch(each) for each in names):
            raise ValueError(
                Bilingual(
                    f"up to {NAMES_MAX} names of models with commas between them, for example"
                    " qwen-plus,openclaw/research",
                    f"最多 {NAMES_MAX} 个模型名称，用逗号分隔，例如 qwen-plus,openclaw/research",
                )
            )
        return names

    def json_schema(self) -> Schema:
        return _text_schema()


@dataclass(frozen=True)
class TimeZone:
    """A time zone by its IANA name."""

    def parse(self, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError.
            en = "a time zone by its IANA name, for example Asia/Shanghai"
            raise ValueError(Bilingual(en, "IANA 时区名，例如 Asia/Shanghai")) from None
        return value

    def json_schema(self) -> Schema:
        return _text_schema(pattern=r"^[A-Za-z0-9_+/-]*$")


@dataclass(frozen=True)
class StoreUrl:
    """The store's address, checked as far as can be without a connection; Redis' may hold a password."""

    def parse(self, value: str) -> Secret:
        if re.match(r"rediss?://", value):
            right = Bilingual(
                "redis://host:6379/0 or, with a password, redis://:password@host:6379/0"
                " (its / ? # @ % as %2F and so on)",
                "redis://host:6379/0，有密码时 redis://:password@host:6379/0（密码里的 / ? # @ % 写成 %2F 等）",
            )
            try:
                parts = urlsplit(value)
                usable = bool(parts.hostname) and parts.port != 0
            except ValueError:
                raise ValueError(right) from None
            if not usable or not re.fullmatch(r"/?|/[0-9]{1,4}", parts.path) or re.search(r"[?#\s]", value):
                raise ValueError(right)
        elif not re.match(r"sqlite:///.+", value) or re.search(r"[?#]", value):
            en = "sqlite:///relative/path, sqlite:////absolute/path, or redis://host:6379/0"
            raise ValueError(Bilingual(en, "sqlite:///相对路径、sqlite:////绝对路径，或 redis://host:6379/0"))
        return Secret(value)

    def json_schema(self) -> Schema:
        # The chart takes the address of a Redis only: that of the file follows from its volume.
        return _text_schema(pattern=r"^(rediss?://\S+)?$")
