"""claw as an orchestrator runs it: a read-only root, no capability, no root user, and only environment variables."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from claw.emulator import Emulator
from tests.container.conftest import PODMAN, Image, ran

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]

NAME = "claw-under-test"
VOLUME = "claw-under-test"
LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
PORT = "18080"


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


async def started(image: Image, emulator: Emulator, volume: str) -> float:
    """Start claw in its container; returns the seconds until DingTalk can push to it."""
    settings = {
        "DINGTALK_CLIENT_ID": "dingfakeclient",
        "DINGTALK_CLIENT_SECRET": "not-a-real-secret",
        "DINGTALK_OPENAPI_ENDPOINT": emulator.url,
        "DINGTALK_OAPI_ENDPOINT": emulator.url,
        "OPENAI_API_KEY": "sk-not-a-real-key",
        "OPENAI_BASE_URL": f"{emulator.url}/v1",
        "PORT": PORT,
    }
    given = [f"--env={name}={value}" for name, value in settings.items()]
    began = time.monotonic()
    await podman(
        *("run", "--detach", f"--name={NAME}", *LIMITS, "--network=host", "--read-only", "--cap-drop=all"),
        *("--security-opt=no-new-privileges", f"--volume={volume}:/data", *given, image.name),
    )
    await emulator.wait_connections(timeout=60)
    return time.monotonic() - began


async def stopped() -> tuple[int, float]:
    """Stop it as an orchestrator does; returns the exit code, and the seconds that it took."""
    began = time.monotonic()
    await podman("stop", "--time=10", NAME)
    took = time.monotonic() - began
    code = int(await podman("inspect", NAME, "--format", "{{.State.ExitCode}}"))
    await podman("rm", NAME)
    return code, took


async def test_life_of_a_container(
    image: Image, emulator: Emulator, volume: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It answers, is healthy by its own word, stops with 0, and keeps owner and unanswered messages over a restart."""
    ready = await started(image, emulator, volume)
    answer = await emulator.wait_reply_to(await emulator.say("你好"), timeout=30)
    assert "owner" in answer.text
    await podman("exec", NAME, "claw", "health")
    assert (await podman("exec", NAME, "id", "-u")) == "10001"
    memory = next(
        int(line.split()[1])
        for line in (await podman("exec", NAME, "cat", "/proc/1/status")).splitlines()
        if line.startswith("VmRSS")
    )
    emulator.faults.update({"model_hang": True})
    waiting = await emulator.say("一会儿再答")
    assert waiting.push is not None
    await asyncio.wait_for(waiting.push.acked.wait(), 30)
    with contextlib.suppress(TimeoutError):
        await emulator.wait_reply_to(waiting, timeout=0.5)
    code, took = await stopped()
    assert code == 0
    emulator.faults.reset()
    await started(image, emulator, volume)
    await emulator.wait_reply_to(waiting, timeout=30)
    assert "allowlist" in (await emulator.wait_reply_to(await emulator.say("/policy group allowlist"), timeout=30)).text
    assert (await stopped())[0] == 0
    assert memory < 128 * 1024
    with capsys.disabled():
        sys.stdout.write(
            f"\nimage: {(image.size - image.base_size) / 1e6:.0f} MB over its base; start to ready: {ready:.2f} s; "
            f"memory: {memory / 1024:.0f} MiB; stop with a turn under way: {took:.1f} s "
        )


async def test_image_holds_only_what_runs(image: Image, volume: str) -> None:
    """No pip, no compiler, no emulator and no tests are in the image, which adds less than 70 MB to its base."""
    program = (
        "import importlib.util as u, json, shutil; "
        "print(json.dumps([bool(u.find_spec(n)) for n in ('pip', 'claw.emulator', 'tests', 'pytest')]"
        " + [bool(shutil.which(n)) for n in ('pip', 'pip3', 'gcc', 'make')]))"
    )
    found = await podman("run", "--rm", *LIMITS, "--network=none", "--read-only", image.name, "python", "-c", program)
    assert not any(json.loads(found))
    assert image.size - image.base_size < 70e6


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
    assert config["Labels"]["org.opencontainers.image.revision"] == "under-test"
