"""Reading the environment into `Settings`, once, at start.

Order of events: `load` reads every variable of every section by its name, its aliases or the file that `NAME_FILE`
names; each fault is collected under the variable's name; then `load` returns `Settings`, or raises one SettingsError
that names every fault. Values of secrets are never shown, not even in the error that refuses them.
"""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from claw.config import foreign
from claw.config.files import BOM, read_secret_file
from claw.config.parsers import OneOf
from claw.config.settings import Settings, sections, variables, variables_of
from claw.config.variables import Variable
from claw.config.weak_tokens import REMEDY, describe_weakness
from claw.errors import SettingsError
from claw.language import Bilingual, Language, choose
from claw.secret import Secret

_UNREADABLE: Final = "\0"
"""Stands for a secret whose file is at fault, which has been reported already."""
_FOLLOWED: Final = {"dingtalk": "DINGTALK_CLIENT_SECRET", "model": "OPENAI_API_KEY", "http": "CLAW_ADMIN_TOKEN"}
"""Section -> its secret that may change in its file while we run."""
_QUOTES: Final = "\"'"


class _Reader:
    """Collects values and faults out of one environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.given: set[str] = set()
        self.files: dict[str, Path] = {}

    def _raw(self, info: Variable) -> str:
        """Return the variable's text from its name, an alias or a file; empty where none is set."""
        found: dict[str, str] = {}
        for name in (info.name, *info.aliases):
            value = self.environ.get(name, "").strip().strip(BOM).strip()
            if value:
                found[name] = value
            path = self.environ.get(f"{name}_FILE", "").strip() if info.from_file else ""
            if path:
                found[f"{name}_FILE"] = self._from_file(f"{name}_FILE", path)
                self.files[info.name] = Path(path)
        if len(set(found.values())) > 1:
            en = f"{' and '.join(found)}: say different things; set only one of them"
            self.problems.append(Bilingual(en, f"{' 和 '.join(found)}：说法不一；只设其中一个"))
            return next(iter(found.values()))
        return next(iter(found.values()), "")

    def _from_file(self, name: str, path: str) -> str:
        try:
            value = read_secret_file(Path(path))
        except OSError as error:
            why = error.strerror or type(error).__name__
            cause = Bilingual(f"cannot be read ({why})", f"无法读取（{why}）")
        except ValueError as error:
            cause = error.args[0]
        else:
            if value:
                return value
            cause = Bilingual("is empty", "是空的")
        shown = _show_path(path)
        zh = f"{name}：{choose(shown, Language.ZH)} {choose(cause, Language.ZH)}"
        self.problems.append(Bilingual(f"{name}: {shown} {cause}", zh))
        return _UNREADABLE

    def read(self, kind: type[Any]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for each, info in variables_of(kind):
            raw = self._raw(info)
            if not raw:
                if info.required:
                    also = "".join(f" (or {alias})" for alias in info.aliases)
                    en = f"{info.name}{also}: is not set; it must hold: {info.meaning}"
                    zh = "".join(f"（或 {alias}）" for alias in info.aliases)
                    self.problems.append(Bilingual(en, f"{info.name}{zh}：没有设置；{_hint_zh(info.name)}"))
                continue
            self.given.add(info.name)
            if raw == _UNREADABLE:
                continue
            if len(raw) > 1 and raw[0] == raw[-1] and raw[0] in _QUOTES:
                name = f"{info.name}_FILE" if info.name in self.files else info.name
                self.warnings.append(
                    Bilingual(
                        f"{name}: its value begins and ends with {raw[0]}, which `docker --env-file` keeps as a part"
                        " of it",
                        f"{name}：值的首尾是 {raw[0]}，`docker --env-file` 会把它当作值的一部分",
                    )
                )
            try:
                values[each.name] = info.parser.parse(raw)
            except ValueError as error:
                # An address may hold a password in front of its @.
                hidden = info.secret or "@" in raw
                shown = "its value" if hidden else repr(raw if len(raw) <= 60 else raw[:57] + "...")
                name = f"{info.name}_FILE" if info.name in self.files else info.name
                zh = "这个值" if hidden else shown
                self.problems.append(
                    Bilingual(
                        f"{name}: {shown} is not usable; right would be {error}",
                        f"{name}：{zh} 不能用；正确的是：{choose(error.args[0], Language.ZH)}",
                    )
                )
        return values


def _show_path(path: str) -> str:
    """Return what may be shown of a `NAME_FILE`: where it is no path, it may be the very secret, set by mistake."""
    with contextlib.suppress(OSError, ValueError):
        if "/" in path and Path(path).parent.is_dir():
            return path
    return Bilingual(
        "its value (not shown: it may be the secret itself, where the path of a file is wanted)",
        "它的值（不显示：这里要的是文件路径，而它可能就是密钥本身）",
    )


def _hint_zh(name: str) -> str:
    """Say in Chinese where a required value is found."""
    return {
        "DINGTALK_CLIENT_ID": "应填应用的 Client ID（AppKey），见开放平台「凭证与基础信息」；"
        "也可以设 CLAW_ADMIN_TOKEN，在页面上扫码创建应用",
        "DINGTALK_CLIENT_SECRET": "应填应用的 Client Secret（AppSecret）",
    }.get(name, "必须设置")


def _unknown(environ: Mapping[str, str]) -> list[str]:
    known = {name for _, info in variables() for name in (info.name, *info.aliases)}
    known |= {f"{name}_FILE" for _, info in variables() if info.from_file for name in (info.name, *info.aliases)}
    warnings: list[str] = []
    for name in sorted(environ):
        if name.startswith(("CLAW_", "DINGTALK_")) and name not in known and environ[name].strip():
            near = difflib.get_close_matches(name, sorted(known), 1, 0.6)
            hint = f"; did you mean {near[0]}?" if near else ""
            zh = f"；是不是想写 {near[0]}？" if near else ""
            en = f"{name} is not a setting of this version and has no effect{hint}"
            warnings.append(Bilingual(en, f"{name} 不是这个版本的设置，不起作用{zh}"))
    return warnings


def load(environ: Mapping[str, str]) -> Settings:
    """Read all settings. Raises SettingsError with every fault at once."""
    reader = _Reader(environ)
    values = {name: reader.read(kind) for name, _, kind in sections()}
    if not {"OPENAI_API_KEY", "OPENAI_BASE_URL"} & reader.given:
        reader.problems.append(
            Bilingual(
                "OPENAI_API_KEY: is not set; set it, or set OPENAI_BASE_URL to a server that asks for no key",
                "OPENAI_API_KEY：没有设置；请设置它，或把 OPENAI_BASE_URL 设为不需要密钥的服务",
            )
        )
    foreign_problems, foreign_warnings = foreign.check(environ)
    reader.problems += foreign_problems
    if reader.problems:
        raise SettingsError(reader.problems)
    for section, name in (
        ("dingtalk", "DINGTALK_CLIENT_SECRET"),
        ("model", "OPENAI_API_KEY"),
        ("http", "CLAW_ADMIN_TOKEN"),
    ):
        values[section]["secret_file"] = reader.files.get(name)
    if weakness := describe_weakness(values["http"].get("admin_token", Secret(""))):
        zh = f"CLAW_ADMIN_TOKEN：容易猜到（{choose(weakness, Language.ZH)}）；{REMEDY.zh}"
        reader.warnings.append(Bilingual(f"CLAW_ADMIN_TOKEN: it is easy to guess ({weakness}); {REMEDY}", zh))
    values["logs"].setdefault("format", "text" if sys.stderr.isatty() else "json")
    return Settings(
        **{name: kind(**values[name]) for name, _, kind in sections()},
        warnings=(*_unknown(environ), *reader.warnings, *foreign_warnings),
    )


def read_language(environ: Mapping[str, str]) -> Language:
    """Return the operator's language, also where the settings are at fault: `CLAW_LANG`, else the default."""
    try:
        # By itself, and not out of `Settings`: it is wanted where these cannot be made.
        return OneOf(Language).parse(environ.get("CLAW_LANG", "").strip())
    except ValueError:
        return Language.ZH


def print_problems(error: SettingsError, language: Language) -> None:
    """Tell the operator every fault of the environment, in one go and without a traceback."""
    head = {Language.ZH: "claw 无法用这些设置启动：", Language.EN: "claw cannot start with these settings:"}
    print(head[language], file=sys.stderr)  # noqa: T201 - before there is a log
    for problem in error.problems:
        print(f"  - {choose(problem, language)}", file=sys.stderr)  # noqa: T201
