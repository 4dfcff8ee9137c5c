"""The Lua files: each is a script, each compiles, and each is in what is built of claw."""

from __future__ import annotations

from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from claw.store.redis import scripts
from tests.redis_server import RedisServer

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "claw/store/redis/scripts").glob("*.lua"))


def test_every_file_is_a_script() -> None:
    """No file is forgotten, and no script is loaded twice."""
    assert len(scripts.ALL) == len({script.sha for script in scripts.ALL}) == len(FILES) - 1, "all but the prelude"


@pytest.mark.parametrize("path", [path for path in FILES if path.stem != "prelude"], ids=lambda path: path.stem)
def test_a_script_compiles(server: RedisServer, path: Path) -> None:
    """Redis takes it, and knows it by the hash that we count."""
    script = scripts.load(path.stem)
    assert server.command("SCRIPT", "LOAD", script.text).decode() == script.sha


def test_the_wheel_has_them() -> None:
    """A claw that was installed finds its scripts."""
    built = {Path(file.path) for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert set(FILES) <= built
