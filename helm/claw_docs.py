"""The chart's tables: what of values.yaml, the schema and README is made from claw/config/settings.py.

Order of events: every variable of `claw.config.settings.variables()` becomes a key under `config` or `secret`, unless
a value of the chart's own stands for it (MANAGED); the schema of a key is that of the variable's parser; then the
marked regions of the three files are written anew. README's table of all other values is made from the schema, which
has each value's description and default. Run by `make docs`; a test fails where a file is stale.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from claw.config import settings
from claw.config.variables import Variable

CHART: Final = Path(__file__).parent / "claw"
MANAGED: Final = {"PORT": "port", "CLAW_DRAIN_TIMEOUT": "drainSeconds", "CLAW_METRICS": "metrics"}
"""Variables that follow from a value of the chart: said in two places, they could disagree."""
STORE: Final = "CLAW_STORE_URL"
"""Follows from `store` for SQLite; for Redis it is a secret, since it may hold a password."""
STORE_MEANING: Final = (
    "Address of Redis, `redis://:password@host:6379/0` (`rediss://`: with TLS); for `store.type=redis`"
)
WIDTH: Final = 118
"""Characters of a comment's line."""

Schema = dict[str, Any]


def config() -> Iterator[tuple[str, Variable]]:
    """Return the variables under `config`, with their section's title."""
    hidden = {*MANAGED, *(each.name for _, each in secrets())}
    return ((title, each) for title, each in settings.variables() if each.name not in hidden)


def secrets() -> Iterator[tuple[str, Variable]]:
    """Return the variables under `secret`, with their section's title."""
    for title, each in settings.variables():
        if each.name == STORE:
            yield title, each._replace(meaning=STORE_MEANING, default_text="")
        elif each.secret:
            yield title, each


def keys() -> Iterator[Variable]:
    """Return the variables that a file of an existing Secret can hold."""
    return (each for _, each in settings.variables() if each.from_file and each.name not in MANAGED)


# --- values.schema.json --------------------------------------------------------------------------------------


def schema_of(info: Variable) -> Schema:
    """Return the schema of one variable's value, by its parser."""
    return {"description": info.meaning, **info.parser.json_schema(), "default": ""}


def schema(old: str) -> str:
    """Return the text of values.schema.json: the hand-written `old`, with the variables' parts made anew."""
    whole: Schema = json.loads(old)
    properties = whole["properties"]
    properties["config"]["properties"] = {each.name: schema_of(each) for _, each in config()}
    properties["secret"]["properties"] = {each.name: schema_of(each) for _, each in secrets()}
    key = {"type": ["string", "null"], "pattern": "^[-._a-zA-Z0-9]*$"}
    properties["existingSecret"]["properties"]["keys"]["properties"] = {each.name: key for each in keys()}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


# --- values.yaml ---------------------------------------------------------------------------------------------


def _comment(info: Variable) -> list[str]:
    default = "required" if info.required else f"default: {info.default_text}" if info.default_text else ""
    text = info.meaning + (f" ({default})" if default else "")
    return textwrap.wrap(text, WIDTH, initial_indent="  # ", subsequent_indent="  # ", break_on_hyphens=False)


def _values(name: str, table: Iterator[tuple[str, Variable]]) -> str:
    lines, last = [f"{name}:"], ""
    for title, info in table:
        if title != last:
            lines.append(f"  # --- {title} ---")
            last = title
        lines += [*_comment(info), f'  {info.name}: ""']
    return "\n".join(lines) + "\n"


def values(old: str) -> str:
    """Return the text of values.yaml, with `config` and `secret` made anew."""
    old = _region(old, "# <config>\n", "# </config>\n", _values("config", config()))
    return _region(old, "# <secret>\n", "# </secret>\n", _values("secret", secrets()))


# --- README.md -----------------------------------------------------------------------------------------------


def _table(table: Iterator[tuple[str, Variable]], under: str) -> str:
    lines, last = [f"| `{under}.` | claw's default | meaning |", "|---|---|---|"], ""
    for title, info in table:
        if title != last and under == "config":
            lines.append(f"| **{title}** | | |")
            last = title
        default = "**required**" if info.required else f"`{info.default_text}`" if info.default_text else ""
        lines.append(f"| `{info.name}` | {default} | {info.meaning} |")
    return "\n".join(lines) + "\n"


def _rows(properties: Schema, path: str = "") -> Iterator[str]:
    for name, each in properties.items():
        if name == "global":
            continue
        nested = each.get("properties")
        if nested and path + name not in {"config", "secret", "existingSecret.keys"}:
            yield from _rows(nested, f"{path}{name}.")
        else:
            default = each.get("default")
            shown = f"`{json.dumps(default, ensure_ascii=False)}`" if default is not None else ""
            yield f"| `{path}{name}` | {shown} | {each['description']} |"


def readme(old: str, new_schema: str) -> str:
    """Return the text of the chart's README, with its three tables made anew."""
    rows = _rows(json.loads(new_schema)["properties"])
    table = "\n".join(["| value | default | meaning |", "|---|---|---|", *rows]) + "\n"
    old = _region(old, "<!-- values -->\n", "<!-- /values -->\n", table)
    old = _region(old, "<!-- config -->\n", "<!-- /config -->\n", _table(config(), "config"))
    return _region(old, "<!-- secret -->\n", "<!-- /secret -->\n", _table(secrets(), "secret"))


# --- files ---------------------------------------------------------------------------------------------------


def _region(text: str, begin: str, end: str, inside: str) -> str:
    """`text` with what stands between the two marks replaced. Raises ValueError where they are not there once."""
    pattern = re.compile(f"({re.escape(begin)}).*?({re.escape(end)})", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f"{begin.strip()} and {end.strip()} must stand in the text once")
    return pattern.sub(lambda match: f"{match[1]}{inside}{match[2]}", text)


def made(chart: Path = CHART) -> dict[Path, str]:
    """Return what each of the three files should hold."""
    paths = [chart / name for name in ("values.schema.json", "values.yaml", "README.md")]
    old_schema, old_values, old_readme = (path.read_text(encoding="utf-8") for path in paths)
    new_schema = schema(old_schema)
    return dict(zip(paths, (new_schema, values(old_values), readme(old_readme, new_schema)), strict=True))


if __name__ == "__main__":
    for path, text in made().items():
        path.write_text(text, encoding="utf-8")
