"""The commands of this repository: `make` tells them all, and what the pages name can be typed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]


def make(*arguments: str, folder: Path = ROOT) -> str:
    done = subprocess.run(
        ["make", "--no-print-directory", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def test_make_alone_is_a_list() -> None:
    """`make` and `make help` list every target, each with one line, and do nothing else."""
    (phony,) = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    listed = make()
    assert listed == make("help")
    assert re.findall(r"^make ([a-z-]+) +\S", listed, re.MULTILINE) == phony.split()
    assert len(listed.splitlines()) == len(phony.split())
    assert max(map(len, listed.splitlines())) <= 100


def test_install_says_how_claw_is_called(tmp_path: Path) -> None:
    """`make install` ends with the command, also where nothing was left to do."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.lock").touch()
    (tmp_path / ".venv").mkdir()
    # Older first: make compares times, and nothing shall be installed here.
    for stamp in (".created", ".installed"):
        (tmp_path / ".venv" / stamp).touch()
    assert ".venv/bin/claw --help" in make("install", folder=tmp_path)


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_ours_can_be_typed(page: str) -> None:
    """A block of commands names claw by its path, where it is not inside of a container, and targets that exist."""
    (phony,) = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    text = (ROOT / page).read_text(encoding="utf-8")
    for block in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            assert not re.match(r"\s*(claw|python3? -m claw)\b", line), line
            assert set(re.findall(r"^make ([a-z-]+)", line)) <= set(phony.split()), line
