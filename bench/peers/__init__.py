"""Who is measured: claw, and the smallest bot on each SDK that people use today.

Order of events: `ready` makes the peer's own environment on demand, under `bench/.peers/`, from its lock with hashes,
once for each content of the lock; then it says with which command the bot starts. What cannot be had here raises
UnavailableError with the reason, which the tables show instead of figures.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from claw import __version__

HERE: Final = Path(__file__).parent
CACHE: Final = HERE.parent / ".peers"
INSTALL_TIMEOUT_S: Final = 600.0
NEWER_PYTHONS: Final = ("python3.12", "python3.13", "python3.14")
"""Tried in this order where a peer needs more than the Python that claw runs on."""


class UnavailableError(Exception):
    """The peer cannot run on this machine; the text says why, for the tables."""


class Runtime(Enum):
    CLAW = "claw"
    PYTHON = "python"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Peer:
    name: str
    """On the command line and in results.json."""
    label: str
    """In tables and plots."""
    runtime: Runtime
    package: str
    """What its users install, with the version."""
    ack: str
    """When the bot acks, in the words of the table."""
    script: str = ""
    lock: str = ""
    python: tuple[int, int] = (3, 11)
    """The least Python that it runs on."""
    environ: tuple[tuple[str, str], ...] = ()
    """What its bot finds in the environment beside what all bots find."""
    parts: tuple[str, ...] = ()
    """The only parts that it is measured at; empty: all."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A peer that can be started."""

    peer: Peer
    command: tuple[str, ...]
    version: str
    """Of the interpreter, for the table."""


CLAW: Final = Peer("claw", "claw", Runtime.CLAW, f"claw {__version__}", "when the message is on disk")
PEERS: Final[tuple[Peer, ...]] = (
    CLAW,
    Peer(
        "sdk",
        "Python SDK 0.24.3",
        Runtime.PYTHON,
        "dingtalk-stream 0.24.3 (PyPI)",
        "when the handler has answered",
        script="sdk_bot.py",
        lock="sdk.txt",
    ),
    Peer(
        "sdk-beta",
        "Python SDK 0.24.4b1",
        Runtime.PYTHON,
        "dingtalk-stream 0.24.4b1 (PyPI)",
        "when the handler has answered",
        script="sdk_bot.py",
        lock="sdk_beta.txt",
    ),
    Peer(
        "open-stream",
        "dingtalk-open-stream 0.1.6",
        Runtime.PYTHON,
        "dingtalk-open-stream 0.1.6 (PyPI)",
        "at once, before the work",
        script="open_stream_bot.py",
        lock="open_stream.txt",
        python=(3, 12),
    ),
    Peer(
        "node",
        "Node SDK 2.1.5",
        Runtime.NODE,
        "dingtalk-stream 2.1.5 (npm)",
        "when the handler has answered",
        script="node/bot.mjs",
        lock="node/package-lock.json",
    ),
    # Off by default, and in the SDK's example; it matters to nothing but a connection that nobody ends.
    Peer(
        "node-alive",
        "Node SDK 2.1.5, keepAlive",
        Runtime.NODE,
        "dingtalk-stream 2.1.5 (npm)",
        "when the handler has answered",
        script="node/bot.mjs",
        lock="node/package-lock.json",
        environ=(("BENCH_KEEP_ALIVE", "1"),),
        parts=("recovery/freeze",),
    ),
)
BY_NAME: Final = {peer.name: peer for peer in PEERS}


def ready(peer: Peer) -> Ready:
    """Install what is missing and say how to start it. Raises UnavailableError."""
    match peer.runtime:
        case Runtime.CLAW:
            return Ready(peer, (sys.executable, "-m", "claw", "run"), f"Python {_python_version(sys.executable)}")
        case Runtime.PYTHON:
            return _python(peer)
        case Runtime.NODE:
            return _node(peer)


def _python(peer: Peer) -> Ready:
    base = _interpreter(peer.python)
    version = _python_version(base)
    folder = CACHE / f"{peer.name}-{_digest(peer)}-{version}"
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run((base, "-m", "venv", str(folder)), CACHE, "its environment could not be made")
        pip = (str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--require-hashes")
        _run((*pip, "-r", str(HERE / peer.lock)), CACHE, "pip could not install it")
        (folder / "installed").touch()
    return Ready(peer, (str(python), str(HERE / peer.script)), f"Python {version}")


def _node(peer: Peer) -> Ready:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise UnavailableError("node and npm are not installed")
    folder = CACHE / f"node-{_digest(peer)}"
    if not (folder / "installed").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / "node" / name, folder)
        quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
        _run((npm, "ci", *quiet), folder, "npm could not install it")
        (folder / "installed").touch()
    # Node looks for packages beside the file that asks for them.
    shutil.copy(HERE / peer.script, folder / "bot.mjs")
    version = _run((node, "--version"), folder, "node does not run").strip().removeprefix("v")
    return Ready(peer, (node, str(folder / "bot.mjs")), f"Node {version}")


def _digest(peer: Peer) -> str:
    return hashlib.sha256((HERE / peer.lock).read_bytes()).hexdigest()[:12]


def _interpreter(least: tuple[int, int]) -> str:
    """Return a Python of at least that version: ours, one on the PATH, or one of pyenv's. Raises UnavailableError."""
    if sys.version_info[:2] >= least:
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for name in NEWER_PYTHONS:
        found = shutil.which(name)
        candidates = ([found] if found else []) + [str(each) for each in sorted(pyenv.glob(f"*/bin/{name}"))]
        for candidate in candidates:
            # A shim of pyenv is there for every version, and runs only those that are switched on.
            if subprocess.run((candidate, "--version"), capture_output=True, check=False).returncode == 0:
                return candidate
    raise UnavailableError(f"needs Python {least[0]}.{least[1]} or later, and there is none here")


def _python_version(python: str) -> str:
    return _run(
        (python, "-c", "import platform; print(platform.python_version())"), HERE, "Python does not run"
    ).strip()


def _run(command: tuple[str, ...], cwd: Path, problem: str) -> str:
    """Its output. Raises UnavailableError with `problem` alone: what an installer prints may name its registry."""
    cwd.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            command, cwd=cwd, stdout=subprocess.PIPE, text=True, check=True, timeout=INSTALL_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UnavailableError(problem) from error
    return done.stdout
