"""claw's image, really built: from BASE_IMAGE, or from a small Debian that is bootstrapped here.

Only `-m container` collects this folder (make test-container): it wants root, buildah, podman, runc and debootstrap,
and some minutes. A network that opens TLS is met with the host's certificates and pip configuration, mounted for
the build only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("buildah", "podman", "runc", "debootstrap")
OWN_BASE = "localhost/claw-base:bookworm"
IMAGE = "localhost/claw:under-test"
FROM_HOST = ("/etc/ssl/certs", "/etc/pip.conf")
PODMAN = ("podman", "--cgroup-manager=cgroupfs", "--runtime=runc")
"""Without systemd, as in CI, podman must be told who keeps its control groups."""
COMMIT = "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567"
"""What the image under test is told that it was built from."""
LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
MEMORY = 128 * 1024 * 1024
"""Bytes that a container may have."""


class Image(NamedTuple):
    """The image under test; sizes in bytes."""

    name: str
    size: int
    base_size: int
    base: str


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """The ordinary run leaves this folder alone."""
    return None if "container" in config.getoption("markexpr") else True


def ran(*command: str, timeout: float = 900.0) -> str:
    """What a command printed. Raises AssertionError with its output where it failed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=ROOT, check=False)
    assert done.returncode == 0, f"{' '.join(command[:4])}: {done.stdout[-2000:]}{done.stderr[-3000:]}"
    return done.stdout.strip()


def size_of(image: str) -> int:
    return int(ran(*PODMAN, "image", "inspect", image, "--format", "{{.Size}}"))


def building(base: str) -> list[str]:
    """The beginning of a `buildah build` command."""
    mounts = [part for path in FROM_HOST if Path(path).exists() for part in ("-v", f"{path}:{path}:ro")]
    arguments = ("--build-arg", f"BASE_IMAGE={base}", "--build-arg", f"COMMIT={COMMIT}")
    return ["buildah", "build", "--format=docker", "--isolation=chroot", *mounts, *arguments]


def bootstrapped(folder: Path) -> str:
    """A Debian with Python, as small as it gets, imported as an image; kept for the next run."""
    if subprocess.run([*PODMAN, "image", "exists", OWN_BASE], check=False).returncode == 0:
        return OWN_BASE
    root = folder / "root"
    packages = "python3,python3-venv,ca-certificates"
    ran("debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(root))
    for leftover in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(root / leftover)
        (root / leftover / "partial").mkdir(parents=True)
    tarball = folder / "root.tar"
    ran("tar", "-C", str(root), "-cf", str(tarball), ".")
    ran(*PODMAN, "import", str(tarball), OWN_BASE)
    return OWN_BASE


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and {', '.join(missing or TOOLS)}")
    base = os.environ.get("BASE_IMAGE") or bootstrapped(tmp_path_factory.mktemp("base"))
    ran(*building(base), "-t", IMAGE, ".")
    yield Image(IMAGE, size_of(IMAGE), size_of(base), base)
    subprocess.run([*PODMAN, "rmi", "-f", IMAGE], check=False, capture_output=True)


@pytest.fixture(scope="session")
def memory(image: Image) -> tuple[str, ...]:
    """The option that limits a container's memory; none where this machine's control groups do not hold it."""
    option = f"--memory={MEMORY}"
    program = (
        "import pathlib\n"
        "for name in ('memory/memory.limit_in_bytes', 'memory.max'):\n"
        "    path = pathlib.Path('/sys/fs/cgroup', name)\n"
        "    print(path.read_text().strip() if path.exists() else '')"
    )
    command = [*PODMAN, "run", "--rm", *LIMITS, "--network=none", option, image.name, "python", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return (option,) if str(MEMORY) in done.stdout.split() else ()
