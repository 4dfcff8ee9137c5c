"""claw as an orchestrator runs it: a read-only root, no capability, no root user, and only environment variables."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from claw import __version__
from claw.emulator import DEFAULT_CLIENT_SECRET, Emulator
from tests.container.conftest import COMMIT, LIMITS, MEMORY, PODMAN, ROOT, Image, building, ran
from tests.redis_server import running

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]

NAME = "claw-under-test"
VOLUME = "claw-under-test"
PORT = "18080"
SBOM = "localhost/claw-sbom:under-test"
PATIENCE_S = 60
"""Seconds for a container to do what it must; a test that waits longer has failed."""


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(rate_limits=False) as started:
        yield started


@pytest.fixture
def volume(image: Image) -> Iterator[str]:
    subprocess.run([*PODMAN, "volume", "rm", "-f", VOLUME], check=False, capture_output=True)
    yield VOLUME
    subprocess.run([*PODMAN, "rm", "-f", NAME], check=False, capture_output=True)
    subprocess.run([*PODMAN, "volume", "rm", "-f", VOLUME], check=False, capture_output=True)


async def podman(*command: str) -> str:
    return await asyncio.to_thread(ran, *PODMAN, *command)


async def run(image: Image, emulator: Emulator, volume: str, *options: str, **more: str) -> None:
    """Start claw in its container, `more` being variables; an empty value takes a variable out, or the volume."""
    settings = {
        "DINGTALK_CLIENT_ID": "dingfakeclient",
        "DINGTALK_CLIENT_SECRET": DEFAULT_CLIENT_SECRET,
        "DINGTALK_OPENAPI_ENDPOINT": emulator.url,
        "DINGTALK_OAPI_ENDPOINT": emulator.url,
        "OPENAI_API_KEY": "sk-not-a-real-key",
        "OPENAI_BASE_URL": f"{emulator.url}/v1",
        "PORT": PORT,
        **more,
    }
    given = [f"--env={name}={value}" for name, value in settings.items() if value]
    await podman(
        *("run", "--detach", f"--name={NAME}", *LIMITS, "--network=host", "--read-only", "--cap-drop=all"),
        *("--security-opt=no-new-privileges", f"--volume={volume}:/data" if volume else "--tmpfs=/data"),
        *(*options, *given, image.name),
    )


async def started(image: Image, emulator: Emulator, volume: str, *options: str, **more: str) -> float:
    """Start claw in its container; returns the seconds until DingTalk can push to it."""
    began = time.monotonic()
    await run(image, emulator, volume, *options, **more)
    await emulator.wait_connections(timeout=PATIENCE_S)
    return time.monotonic() - began


async def asked(route: str) -> tuple[int, dict[str, Any]]:
    """The answer of a route; status 0 where nobody listens yet."""
    try:
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://127.0.0.1:{PORT}{route}", timeout=aiohttp.ClientTimeout(10)) as answer,
        ):
            return answer.status, await answer.json()
    except aiohttp.ClientConnectionError:
        return 0, {}


async def becomes(route: str, right: Callable[[int, dict[str, Any]], bool]) -> dict[str, Any]:
    """Ask a route until the answer is right; returns that answer."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            status, body = await asked(route)
            if right(status, body):
                return body
            await asyncio.sleep(0.1)


async def memory_of(name: str) -> dict[str, int]:
    """Bytes of claw's memory by the kernel's word: VmRSS now, VmHWM at most."""
    lines = await podman("exec", name, "cat", "/proc/1/status")
    return {key: int(size) * 1024 for key, size in re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", lines, re.MULTILINE)}


async def stopped() -> tuple[int, float]:
    """Stop it as an orchestrator does; returns the exit code, and the seconds that it took."""
    began = time.monotonic()
    await podman("stop", "--time=10", NAME)
    took = time.monotonic() - began
    code = int(await podman("inspect", NAME, "--format", "{{.State.ExitCode}}"))
    await podman("rm", NAME)
    return code, took


async def test_life_of_a_container(
    image: Image, emulator: Emulator, volume: str, memory: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Within 128 MiB it answers, is healthy by its own word and stops with 0; it keeps owner and waiting messages."""
    ready = await started(image, emulator, volume, *memory)
    answer = await emulator.wait_reply_to(await emulator.say("你好"), timeout=30)
    assert "owner" in answer.text
    await podman("exec", NAME, "claw", "health")
    assert (await podman("exec", NAME, "id", "-u")) == "10001"
    emulator.faults.update({"model_hang": True})
    waiting = await emulator.say("一会儿再答")
    assert waiting.push is not None
    await asyncio.wait_for(waiting.push.acked.wait(), 30)
    with contextlib.suppress(TimeoutError):
        await emulator.wait_reply_to(waiting, timeout=0.5)
    used = await memory_of(NAME)
    assert (await podman("inspect", NAME, "--format", "{{.State.OOMKilled}} {{.RestartCount}}")) == "false 0"
    code, took = await stopped()
    assert code == 0
    emulator.faults.reset()
    await started(image, emulator, volume, *memory)
    await emulator.wait_reply_to(waiting, timeout=30)
    assert "allowlist" in (await emulator.wait_reply_to(await emulator.say("/policy group allowlist"), timeout=30)).text
    assert (await stopped())[0] == 0
    assert used["VmHWM"] < MEMORY
    held = f"held by a limit of {MEMORY >> 20} MiB" if memory else "measured; this machine holds no limit"
    with capsys.disabled():
        sys.stdout.write(
            f"\nimage: {(image.size - image.base_size) / 1e6:.0f} MB over its base; start to ready: {ready:.2f} s; "
            f"memory: {used['VmRSS'] >> 20} MiB, at most {used['VmHWM'] >> 20} MiB ({held}); "
            f"stop with a turn under way: {took:.1f} s "
        )


async def test_with_redis_nothing_is_in_the_container(
    image: Image, emulator: Emulator, volume: str, memory: tuple[str, ...], tmp_path: Path
) -> None:
    """With Redis a second container without any volume knows the owner and answers what the first one left."""
    with running(tmp_path / "redis", appendonly="yes") as redis:
        given = {"CLAW_STORE_URL": redis.url()}
        await started(image, emulator, "", *memory, **given)
        assert "owner" in (await emulator.wait_reply_to(await emulator.say("你好"), timeout=PATIENCE_S)).text
        emulator.faults.update({"model_hang": True})
        waiting = await emulator.say("一会儿再答")
        assert waiting.push is not None
        await asyncio.wait_for(waiting.push.acked.wait(), PATIENCE_S)
        assert (await stopped())[0] == 0
        emulator.faults.reset()
        await started(image, emulator, "", *memory, **given)
        await emulator.wait_reply_to(waiting, timeout=PATIENCE_S)
        told = await emulator.wait_reply_to(await emulator.say("/policy group allowlist"), timeout=PATIENCE_S)
        assert "allowlist" in told.text
        used = await memory_of(NAME)
        assert (await stopped())[0] == 0
    assert used["VmHWM"] < MEMORY


async def test_wrong_secret(image: Image, emulator: Emulator, volume: str, tmp_path: Path) -> None:
    """A wrong secret ends nothing: alive, not ready with the reason, `claw health` says no; the right one needs no
    restart, and neither is ever in the log.
    """
    secret = tmp_path / "secret"
    secret.write_text("wrong-not-a-real-one", encoding="utf-8")
    secret.chmod(0o444)
    mounted = f"--volume={secret}:/etc/claw/secret:ro"
    given = {"DINGTALK_CLIENT_SECRET": "", "DINGTALK_CLIENT_SECRET_FILE": "/etc/claw/secret"}
    await run(image, emulator, volume, mounted, **given)
    told = await becomes(
        "/ready",
        lambda status, body: status == 503 and body["checks"]["stream"].get("state") == "REJECTED",
    )
    assert told["status"] == "not ready"
    assert "check DINGTALK_CLIENT_ID and DINGTALK_CLIENT_SECRET" in told["checks"]["stream"]["reason"]
    assert (await asked("/health"))[0] == 200
    command = [*PODMAN, "exec", NAME, "claw", "health"]
    health = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert health.returncode == 1
    assert "REJECTED" in health.stderr
    # Podman takes the image's own HEALTHCHECK, without the timer that systemd would give it.
    checked = [*PODMAN, "healthcheck", "run", NAME]
    assert (await asyncio.to_thread(subprocess.run, checked, capture_output=True, check=False)).returncode == 1
    secret.write_text(DEFAULT_CLIENT_SECRET, encoding="utf-8")
    await becomes("/ready", lambda status, _: status == 200)
    assert (await asyncio.to_thread(subprocess.run, checked, capture_output=True, check=False)).returncode == 0
    assert (await podman("inspect", NAME, "--format", "{{.State.Status}} {{.RestartCount}}")) == "running 0"
    done = await asyncio.to_thread(subprocess.run, [*PODMAN, "logs", NAME], capture_output=True, text=True, check=True)
    assert "refuses the connection" in done.stdout + done.stderr
    assert not re.search(f"wrong-not-a-real-one|{DEFAULT_CLIENT_SECRET}", done.stdout + done.stderr)
    assert (await stopped())[0] == 0


async def test_it_tells_its_commit(image: Image) -> None:
    """`claw --version` in the image tells the version and the commit that were built."""
    told = await podman("run", "--rm", *LIMITS, "--network=none", "--read-only", image.name, "claw", "--version")
    assert told == f"claw {__version__} (commit {COMMIT[:7]})"


async def test_bill_of_materials(image: Image, tmp_path: Path) -> None:
    """The sbom stage gives CycloneDX with every locked package at its version, and every package of the base."""
    out = ("--target=sbom", f"--output=type=local,dest={tmp_path}", f"--tag={SBOM}")
    await asyncio.to_thread(ran, *building(image.base), *out, ".")
    await podman("rmi", SBOM)
    bill = json.loads((tmp_path / "sbom.cdx.json").read_text(encoding="utf-8"))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    found = {each["purl"] for each in bill["components"]}
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked = re.findall(r"^([a-z0-9-]+)==(\S+)(.*)", lock, re.MULTILINE)
    assert len(locked) > 20
    for name, version, marker in locked:
        assert f"pkg:pypi/{name}@{version}" in found or ";" in marker, name
    assert not [each for each in found if each.startswith("pkg:pypi/pip@")]
    program = "dpkg-query -W -f '${Package} ${Version} ${db:Status-Status}\\n'"
    shown = await podman("run", "--rm", *LIMITS, "--network=none", image.name, "sh", "-c", program)
    debian = {(name, version) for name, version, _ in re.findall(r"^(\S+) (\S+) (installed)$", shown, re.MULTILINE)}
    listed = {(each["name"], each["version"]) for each in bill["components"] if each["purl"].startswith("pkg:deb/")}
    assert debian
    assert debian <= listed


async def test_image_holds_only_what_runs(image: Image, volume: str) -> None:
    """No pip, no compiler, no emulator and no tests are in the image, which adds less than 115 MB to its base."""
    program = (
        "import importlib.util as u, json, shutil; "
        "print(json.dumps([bool(u.find_spec(n)) for n in ('pip', 'claw.emulator', 'tests', 'pytest')]"
        " + [bool(shutil.which(n)) for n in ('pip', 'pip3', 'gcc', 'make')]))"
    )
    found = await podman("run", "--rm", *LIMITS, "--network=none", "--read-only", image.name, "python", "-c", program)
    assert not any(json.loads(found))
    # Half of it reads files and pictures.
    assert image.size - image.base_size < 115e6


async def test_bad_settings_end_it(image: Image, volume: str) -> None:
    """Without settings it ends with 78 and names each, on a read-only root and without any volume."""
    command = [*PODMAN, "run", "--rm", *LIMITS, "--network=none", "--read-only", image.name]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert done.returncode == 78
    assert "DINGTALK_CLIENT_ID" in done.stderr
    assert "Traceback" not in done.stderr


async def test_labels_and_signals(image: Image) -> None:
    """What orchestrators read of an image: user, signal, health check, command and labels."""
    told = json.loads(await podman("image", "inspect", image.name))[0]
    config = told["Config"]
    assert (config["User"], config["StopSignal"], config["Cmd"]) == ("10001:10001", "SIGTERM", ["claw", "run"])
    assert told["HealthCheck" if "HealthCheck" in told else "Healthcheck"]["Test"] == ["CMD", "claw", "health"]
    assert config["Labels"]["org.opencontainers.image.revision"] == COMMIT
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
