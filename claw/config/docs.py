"""The documents made from the settings: the table of docs/settings.md and `.env.example`. Run by `make docs`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from claw.config.settings import variables
from claw.config.variables import Variable

TABLE_BEGIN: Final = "<!-- settings -->"
TABLE_END: Final = "<!-- /settings -->"
"""Marks between which docs/settings.md holds the table of variables."""


def markdown_table() -> str:
    """Return the table of variables."""
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
    """Return the default where it can be written as a value, and not only be described."""
    try:
        info.parser.parse(info.default_text)
    except ValueError:
        return ""
    return info.default_text


def dotenv_example() -> str:
    """Return the text of `.env.example`."""
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
    """Write the tables that are made from this module: `.env.example`, and docs/settings.md between its markers."""
    (root / ".env.example").write_text(dotenv_example(), encoding="utf-8")
    page = root / "docs" / "settings.md"
    before, begin, rest = page.read_text(encoding="utf-8").partition(TABLE_BEGIN)
    _, end, after = rest.partition(TABLE_END)
    page.write_text(f"{before}{begin}\n{markdown_table()}{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    refresh_documents(Path(__file__).parents[2])
