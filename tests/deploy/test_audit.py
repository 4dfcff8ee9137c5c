"""`make audit`: what is not proven is not called safe."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CLEAN = {"name": "aiohttp", "version": "3.14.5", "vulns": []}
WEAK = {
    "name": "h11",
    "version": "0.15.0",
    "vulns": [{"id": "PYSEC-2025-1", "fix_versions": ["0.16.0"], "aliases": [], "description": ""}],
}
UNMENDED = {**WEAK, "vulns": [{"id": "PYSEC-2025-2", "fix_versions": [], "aliases": [], "description": ""}]}
UNKNOWN = {"name": "yarl", "skip_reason": "Dependency not found on PyPI and could not be audited: yarl (1.25.1)"}


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "deploy" / "audit" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["audit"] = module  # NamedTuple looks its module up.
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([CLEAN], 0, "no known weakness in 1 packages"),
        ([CLEAN, WEAK], 1, "h11 0.15.0: PYSEC-2025-1, mended in 0.16.0"),
        ([UNMENDED], 1, "mended in no version"),
        ([CLEAN, UNKNOWN], 69, "does not know them: yarl"),
        ([UNKNOWN, WEAK], 1, "does not know them: yarl"),
        ([UNKNOWN], 69, "not audited: 1 of 1 packages"),
        ([], 69, "not audited: 0 of 0 packages"),
    ],
)
def test_verdict(audit: ModuleType, packages: list[dict[str, Any]], code: int, said: str) -> None:
    """Clean only where every package was looked up; a weakness wins over what could not be."""
    found = audit.verdict(json.dumps({"dependencies": packages, "fixes": []}), "")
    assert int(found.code) == code
    assert said in "\n".join(found.lines)


@pytest.mark.parametrize("report", ["", "No known vulnerabilities found", "[]", "{}", "null"])
def test_no_report(audit: ModuleType, report: str) -> None:
    """Where pip-audit broke off, nothing is proven, and its last line says why."""
    found = audit.verdict(report, "Traceback (most recent call last):\nConnectionError: no route\n")
    assert int(found.code) == 69
    assert found.lines[-1] == "ConnectionError: no route"


def test_without_its_tool_nothing_is_proven() -> None:
    """The script ends with 69 where pip-audit is not there, instead of calling the lock good."""
    script = str(ROOT / "deploy" / "audit" / "audit.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 69
    assert "No module named pip_audit" in done.stdout


def test_tool_is_locked() -> None:
    """pip-audit and all that it needs are locked by hash, apart from claw's own and the developers' packages."""
    lock = (ROOT / "deploy" / "audit" / "requirements.lock").read_text(encoding="utf-8")
    assert re.search(r"^pip-audit==", lock, re.MULTILINE)
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}", lock)) > len(re.findall(r"^\S+==", lock, re.MULTILINE))
    for other in ("requirements.lock", "requirements-dev.lock"):
        assert "pip-audit" not in (ROOT / other).read_text(encoding="utf-8")
