"""The Dockerfile's rules, read off its text; the two scripts that run in the build are run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from claw import __version__
from claw.cli.health import TIMEOUT_S
from claw.config import reader

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "deploy" / "image"

Instruction = tuple[str, str]


def instructions() -> list[Instruction]:
    """The Dockerfile's instructions in order, with continued lines joined and comments left out."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    whole = re.sub(r"\\\n\s*", " ", lines)
    found = [line.split(None, 1) for line in whole.splitlines() if line.strip()]
    return [(name, rest.strip()) for name, rest in found]


def stages() -> dict[str, list[Instruction]]:
    """The instructions of each stage; the last one is called `image`."""
    found: dict[str, list[Instruction]] = {"": []}
    for name, rest in instructions():
        if name == "FROM":
            found[(re.search(r" AS (\S+)", rest) or ["", "image"])[1]] = [(name, rest)]
        else:
            found[list(found)[-1]].append((name, rest))
    return found


def of(stage: str, name: str) -> list[str]:
    return [rest for each, rest in stages()[stage] if each == name]


def test_stages() -> None:
    """Build, bill of materials, image: the last is what `docker build` gives, and both bases are BASE_IMAGE."""
    assert list(stages()) == ["", "build", "sbom", "image"]
    assert stages()[""] == [("ARG", "BASE_IMAGE=python:3.12-slim")]
    assert of("build", "FROM") == ["${BASE_IMAGE} AS build"]
    assert of("image", "FROM") == ["${BASE_IMAGE}"]


def test_no_buildkit_is_needed() -> None:
    """Any builder will do, also one whose network opens TLS: no mounts, heredocs or frontends of a registry."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert not re.search(r"^# *(syntax|escape) *=", text, re.MULTILINE)
    for name, rest in instructions():
        assert not re.match(r"--(mount|link|chmod|exclude|security|network)", rest), (name, rest)
        assert "<<" not in rest
        assert name != "ADD"


def test_dependencies_are_locked_wheels() -> None:
    """pip installs what the lock names by hash, wheels only, and into an environment that has no pip."""
    (install,) = (rest for rest in of("build", "RUN") if "requirements.lock" in rest)
    for option in ("--require-hashes", "-r requirements.lock", "--only-binary :all:", "--no-cache-dir", "--no-compile"):
        assert option in install
    assert "-m venv --without-pip /opt/claw" in install
    assert "--python /opt/claw/bin/python" in install
    assert not re.search(r"--(index-url|extra-index-url|trusted-host|cert|isolated)|PIP_", install)


def test_image_has_no_tools() -> None:
    """The last stage takes /opt/claw alone, installs certificates at most, and removes the base's pip."""
    assert of("image", "COPY") == ["--from=build /opt/claw /opt/claw"]
    (run,) = of("image", "RUN")
    assert re.findall(r"install .*?--no-install-recommends (\S+)", run) == ["ca-certificates"]
    assert "rm -rf /var/lib/apt/lists/*" in run
    for place in (
        "/usr/local/bin/pip*",
        "/usr/local/lib/python3*/site-packages/*",
        "/usr/lib/python3/dist-packages/pip*",
    ):
        assert place in run
    assert run.count("ensurepip") == 2


def test_emulator_stays_out() -> None:
    """Emulator, its page, `claw dev` and packages' tests are not in the image."""
    (run,) = (rest for rest in of("build", "RUN") if "cp -r claw" in rest)
    assert 'rm -rf "$site/claw/emulator" "$site/claw/cli/dev.py"' in run
    assert "-name tests" in run


def test_nothing_but_claw_dev_imports_the_emulator() -> None:
    """What the image lacks is imported by `claw dev` alone."""
    for path in (ROOT / "claw").rglob("*.py"):
        if "emulator" not in path.parts and path.name != "dev.py":
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"^\s*(from|import) claw\.emulator", text, re.MULTILINE), path


def test_user_is_a_number_that_owns_only_data() -> None:
    """A numeric user that is not root; /data is its own, and the only place where anything is written."""
    (user,) = of("image", "USER")
    uid, gid = user.split(":")
    assert int(uid) >= 10000
    assert int(gid) >= 10000
    (run,) = of("image", "RUN")
    assert f"mkdir -m 0750 /data && chown {user} /data" in re.sub(r"\s+", " ", run)
    assert of("image", "VOLUME") == ["/data"]
    environment = dict(each.split("=", 1) for each in shlex.split(of("image", "ENV")[0]))
    assert environment["HOME"] == environment["TMPDIR"] == "/data"
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert environment["PATH"].startswith("/opt/claw/bin:")


def test_default_store_is_on_the_volume() -> None:
    """The store's default is relative: from the image's working directory it is on /data."""
    (workdir,) = of("image", "WORKDIR")
    default = reader.load({"DINGTALK_CLIENT_ID": "d", "DINGTALK_CLIENT_SECRET": "s", "OPENAI_API_KEY": "k"}).store.path
    assert (Path(workdir) / default).is_relative_to("/data")


def test_commands_are_in_exec_form() -> None:
    """No shell stands between the runtime and claw: SIGTERM reaches it, and HEALTHCHECK is `claw health`."""
    assert json.loads(of("image", "CMD")[0]) == ["claw", "run"]
    assert of("image", "ENTRYPOINT") == []
    assert of("image", "STOPSIGNAL") == ["SIGTERM"]
    (health,) = of("image", "HEALTHCHECK")
    options, _, command = health.partition(" CMD ")
    assert json.loads(command) == ["claw", "health"]
    timeout = re.search(r"--timeout=(\d+)s", options)
    assert timeout
    assert int(timeout[1]) > TIMEOUT_S
    assert of("image", "EXPOSE") == ["8080"]


def test_bytecode_is_where_python_looks_for_it() -> None:
    """The build writes bytecode to the place that the image names."""
    environment = dict(each.split("=", 1) for each in shlex.split(of("image", "ENV")[0]))
    (run,) = (rest for rest in of("build", "RUN") if "bytecode.py" in rest)
    assert f"PYTHONPYCACHEPREFIX={environment['PYTHONPYCACHEPREFIX']} " in run
    assert environment["PYTHONPYCACHEPREFIX"].startswith("/opt/claw/")


def test_labels() -> None:
    """OCI labels, with this version's number."""
    (labels,) = of("image", "LABEL")
    for name in ("title", "description", "licenses", "version", "revision", "created"):
        assert f"org.opencontainers.image.{name}=" in labels
    assert f"VERSION={__version__}" in of("image", "ARG")
    assert 'revision="${COMMIT}"' in labels


def test_commit_is_told_to_claw() -> None:
    """One build argument is the label's revision, and the file beside claw's code that `claw --version` reads."""
    assert "COMMIT=" in of("image", "ARG")
    assert "COMMIT=" in of("build", "ARG")
    (run,) = (rest for rest in of("build", "RUN") if "cp -r claw" in rest)
    assert """printf '%s' "$COMMIT" > "$site/claw/COMMIT\"""" in run


def test_context_has_what_is_copied() -> None:
    """.dockerignore lets in all that is copied, and neither tests nor secrets."""
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").split() if line.startswith("!")
    }
    copied = {source for rest in of("build", "COPY") for source in rest.split()[:-1]}
    assert copied <= allowed
    assert all((ROOT / source).exists() for source in copied)
    assert not allowed & {"tests", ".env", ".git", "bench", "docs"}


# --- the scripts ---------------------------------------------------------------------------------------------


def ran(script: str, **environ: str) -> str:
    """What the script prints, run as in the build, with claw to be found."""
    environment = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}}
    code = "import runpy, sys; sys.path.insert(0, sys.argv[1]); runpy.run_path(sys.argv[2], run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, str(ROOT), str(IMAGE / script)],
        env=environment | environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    return done.stdout


def test_bytecode(tmp_path: Path) -> None:
    """All of claw, and all that it imports, has bytecode that is never checked against its source."""
    import asyncio  # noqa: PLC0415 - any module of the standard library

    import claw.app  # noqa: PLC0415

    ran("bytecode.py", PYTHONPYCACHEPREFIX=str(tmp_path))
    for source in (claw.app.__file__, claw.app.__file__.replace("app.py", "turn/model/client.py"), asyncio.__file__):
        usual = Path(cache_from_source(source))
        found = tmp_path / usual.parent.parent.relative_to("/") / usual.name
        flags = int.from_bytes(found.read_bytes()[4:8], "little")
        assert flags == 0b01, "hash-based, and unchecked"


def test_bytecode_needs_its_place() -> None:
    """Without a place for bytecode the script fails, instead of writing beside the sources."""
    with pytest.raises(subprocess.CalledProcessError):
        ran("bytecode.py")


def test_bill_of_materials() -> None:
    """The bill is CycloneDX, names each locked package by its package URL once, and claw as its subject."""
    bill = json.loads(ran("sbom.py"))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["version"] == __version__
    urls = [each["purl"] for each in bill["components"]]
    assert len(urls) == len(set(urls))
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    for name, version, marker in re.findall(r"^([a-z0-9-]+)==(\S+)(.*)", lock, re.MULTILINE):
        # A marker: for another Python only, such as a browser's.
        assert f"pkg:pypi/{name}@{version}" in urls or ";" in marker
