"""The compose file: Docker Compose itself reads it, and what it promises is there; its Redis is started for real."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from claw import __version__
from claw.config import reader, settings

FOLDER = Path(__file__).parents[2] / "deploy" / "compose"
FILE = FOLDER / "compose.yaml"
SERVICES = ("claw", "redis", "collector")
COMPOSE = Path(sys.executable).with_name("docker-compose")
GIVEN = {"DINGTALK_CLIENT_ID": "dingfake", "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}


def composed(**environ: str) -> subprocess.CompletedProcess[str]:
    """What `docker compose config` makes of the file: no daemon is asked."""
    command = [str(COMPOSE), "--env-file", os.devnull, "--file", str(FILE), "config", "--format", "json"]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """The project as Docker Compose understands it."""
    done = composed(**GIVEN)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return dict(json.loads(done.stdout))


def test_client_id_is_asked_for() -> None:
    """Without DINGTALK_CLIENT_ID nothing is started, and the sentence names it."""
    done = composed(**{name: value for name, value in GIVEN.items() if name != "DINGTALK_CLIENT_ID"})
    assert done.returncode != 0
    assert "DINGTALK_CLIENT_ID is missing a value" in done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_services_are_restricted(project: dict[str, Any], name: str) -> None:
    """Images are pinned by a tag, roots read-only and without capabilities, users numbers that are not root."""
    assert set(project["services"]) == set(SERVICES)
    service = project["services"][name]
    assert re.fullmatch(r"[a-z/-]+:\d+\.\d+\.\d+(-alpine)?", service["image"])
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(int(each) > 0 for each in service["user"].split(":"))
    assert not {"privileged", "cap_add", "pid", "ipc", "network_mode", "devices", "ports"} & set(service)
    assert service["restart"] == "unless-stopped"


def test_it_is_this_claw(project: dict[str, Any]) -> None:
    """The image that is built here has this very version's number."""
    assert project["services"]["claw"]["image"] == f"claw:{__version__}"
    build = project["services"]["claw"]["build"]
    assert Path(build["context"]) == FOLDER.parents[1]
    assert set(build["args"]) == {"COMMIT"}


def test_no_secret_is_in_it(project: dict[str, Any]) -> None:
    """Secrets are files beside it, which git leaves alone, named to claw by NAME_FILE; none is a variable."""
    claw = project["services"]["claw"]
    named = {name: value for name, value in claw["environment"].items() if name.endswith("_FILE")}
    assert set(named) == {"DINGTALK_CLIENT_SECRET_FILE", "OPENAI_API_KEY_FILE"}
    assert set(named.values()) == {each["target"] for each in claw["secrets"]}
    secret = {name for _, each in settings.variables() if each.secret for name in (each.name, *each.aliases)}
    assert secret & set(claw["environment"]) <= {"CLAW_STORE_URL"}
    assert "@" not in claw["environment"]["CLAW_STORE_URL"]
    ignored = (FOLDER / ".gitignore").read_text(encoding="utf-8")
    for each in project["secrets"].values():
        assert f"/{Path(each['file']).parent.relative_to(FOLDER)}/" in ignored.splitlines()


def test_claw_reads_it(project: dict[str, Any], tmp_path: Path) -> None:
    """claw's settings load from it without a fault or a warning, and its store is this Redis."""
    environ = dict(project["services"]["claw"]["environment"])
    secret = tmp_path / "secret"
    secret.write_text("not-a-real-secret\n", encoding="utf-8")
    for name in environ:
        if name.endswith("_FILE"):
            environ[name] = str(secret)
    loaded = reader.load(environ)
    assert loaded.warnings == ()
    assert loaded.store.in_redis


def test_claw_is_stopped_in_time(project: dict[str, Any]) -> None:
    """Running answers end before Docker kills, and nothing is written but to a small temporary /data of claw's user."""
    claw = project["services"]["claw"]
    assert claw["stop_grace_period"] == "20s"
    assert claw["tmpfs"] == [f"/data:uid={claw['user'].split(':')[0]},gid=10001,mode=0750,size=64m"]
    assert "volumes" not in claw


def test_redis_is_claws_alone(project: dict[str, Any]) -> None:
    """Redis is on a network that leads nowhere and only claw shares, its data on a volume; claw waits for it."""
    services = project["services"]
    assert project["networks"]["store"]["internal"] is True
    assert list(services["redis"]["networks"]) == ["store"]
    assert [name for name in SERVICES if "store" in services[name].get("networks", {})] == ["claw", "redis"]
    assert [(each["type"], each["target"]) for each in services["redis"]["volumes"]] == [("volume", "/data")]
    assert services["claw"]["depends_on"]["redis"]["condition"] == "service_healthy"
    host = services["claw"]["environment"]["CLAW_STORE_URL"].removeprefix("redis://").partition(":")[0]
    assert host == "redis"


def test_collector_listens_where_claw_sends(project: dict[str, Any]) -> None:
    """The collector's configuration is mounted, takes OTLP over HTTP at claw's endpoint, and exports what it takes."""
    collector, claw = project["services"]["collector"], project["services"]["claw"]
    (mount,) = collector["volumes"]
    assert collector["command"] == [f"--config={mount['target']}"]
    assert mount["read_only"] is True
    configured = yaml.safe_load(Path(mount["source"]).read_text(encoding="utf-8"))
    port = configured["receivers"]["otlp"]["protocols"]["http"]["endpoint"].rpartition(":")[2]
    assert claw["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == f"http://collector:{port}"
    assert set(configured["service"]["pipelines"]) == {"traces", "metrics"}
    for pipeline in configured["service"]["pipelines"].values():
        assert set(pipeline["receivers"]) <= set(configured["receivers"])
        assert set(pipeline["exporters"]) <= set(configured["exporters"])


# --- Redis, for real -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def redis(command: list[str], folder: Path) -> Iterator[str]:
    """The file's own Redis command, run here on a free loopback port; gives the port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    server = subprocess.Popen(
        [*command, "--bind", "127.0.0.1", "--port", port],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    try:
        yield port
    finally:
        server.terminate()
        server.wait(30)


def test_redis_keeps_what_it_was_given(project: dict[str, Any], tmp_path: Path) -> None:
    """The command is one that a real Redis takes: writes are on the disk before the answer, nothing is evicted; the
    health check passes, and what was written is there after a restart.
    """
    service = project["services"]["redis"]
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server")
    command = [*service["entrypoint"], *service["command"]]
    assert service["healthcheck"]["test"][0] == "CMD"
    health = service["healthcheck"]["test"][1:]

    def ask(port: str, *words: str) -> str:
        return subprocess.run(["redis-cli", "-p", port, *words], capture_output=True, text=True, check=True).stdout

    def wait(port: str) -> None:
        checked = [health[0], "-p", port, *health[1:]]
        until = time.monotonic() + 30
        while subprocess.run(checked, capture_output=True, check=False).returncode != 0:
            assert time.monotonic() < until, "Redis does not become healthy"
            time.sleep(0.05)

    with redis(command, tmp_path) as port:
        wait(port)
        for name, value in (("appendonly", "yes"), ("appendfsync", "always"), ("maxmemory-policy", "noeviction")):
            assert ask(port, "CONFIG", "GET", name).split() == [name, value]
        assert ask(port, "SET", "kept", "1").strip() == "OK"
    with redis(command, tmp_path) as port:
        wait(port)
        assert ask(port, "GET", "kept").strip() == "1"
