"""The pod that the chart renders, run without a cluster: podman plays it, and the test asks its probes as a kubelet.

`podman kube play` knows a part of Kubernetes. What it has to be told otherwise stands in LEFT_OUT and `playable`, each
with its reason; the rest is played as it is rendered.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import itertools
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
import yaml

from claw.emulator import DEFAULT_CLIENT_SECRET, Emulator
from tests.container.conftest import LIMITS, PODMAN, Image, building, ran
from tests.container.test_container import PATIENCE_S, podman
from tests.deploy.chart import NAMESPACE, Manifest, Values, manifests, only

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]

RELEASE = "claw-kube"
SECRET = f"{RELEASE}-secret"
OURS = f"label=app.kubernetes.io/instance={RELEASE}"
INFRA = "localhost/claw-infra:under-test"
PORT = 18081
PLAYED = ("Secret", "PersistentVolumeClaim", "Deployment")
LEFT_OUT = {
    "NetworkPolicy": "podman has none: a cluster's network plugin enforces it",
    "Service": "podman has none: what it selects is read in the documents",
    "ServiceAccount": "podman has no API that an account could ask",
    "Pod": "a hook that Helm runs; its `claw health` is run in the pod itself",
}
"""Kinds of the chart's objects that are not played, and why."""
FIELDS = {"metadata.namespace": NAMESPACE, "spec.nodeName": "node"}
"""What a kubelet would fill in and podman refuses to: it knows neither namespaces nor nodes."""
STARTUP, LIVENESS, READINESS = PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
ROUNDS = 5
"""Times that the liveness of a pod is asked at least."""


def values(url: str) -> Values:
    """Values of a release whose DingTalk and model are the emulator at `url`."""
    return {
        "image": {"repository": "localhost/claw", "tag": "under-test", "pullPolicy": "Never"},
        "config": {
            "DINGTALK_CLIENT_ID": "dingfakeclient",
            "DINGTALK_OPENAPI_ENDPOINT": url,
            "DINGTALK_OAPI_ENDPOINT": url,
            "OPENAI_BASE_URL": f"{url}/v1",
            "HOST": "::",
        },
        "secret": {"DINGTALK_CLIENT_SECRET": DEFAULT_CLIENT_SECRET, "OPENAI_API_KEY": "sk-not-a-real-key"},
        "port": PORT,
        "drainSeconds": 2,
        # More often than by default: a pod of this test does not live long.
        "probes": {kind: {"periodSeconds": 1} for kind in ("startup", "liveness", "readiness")},
    }


def playable(found: list[Manifest], *, limited: bool) -> list[Manifest]:
    """What podman is given of a release; `limited`: this machine's control groups hold a limit of memory."""
    assert {each["kind"] for each in found} == {*PLAYED, *LEFT_OUT}
    secret, claim, deployment = (copy.deepcopy(only(found, kind)) for kind in PLAYED)
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (mounted,) = (each["secret"] for each in pod["volumes"] if "secret" in each)
    # It makes a volume of a Secret as of a claim, by the name, which in the chart is the same for both.
    secret["metadata"]["name"] = SECRET
    # It knows no fsGroup, whose members alone could read the files; and before 4.4 it crashes where the default of
    # `optional` is left unsaid.
    mounted.update(secretName=SECRET, defaultMode=0o444, optional=False)
    for each in container["env"]:
        path = each.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        if path in FIELDS:
            del each["valueFrom"]
            each["value"] = FIELDS[path]
    # It asks by `curl` within the container, which the image does not have: where systemd keeps its timers, a claw that
    # is well would be started again and again. Kubelet, below, asks instead.
    for probe in PROBES:
        del container[probe]
    # Older ones publish every port, and refuse to in the host's network, where there is nothing to publish.
    del container["ports"]
    if not limited:
        del container["resources"]["limits"]
    return [secret, claim, deployment]


def as_mounted(value: str) -> str:
    """A value of a Secret as podman puts it into the file: before 4.4 it forgets to undo the manifest's base64."""
    version = ran(*PODMAN, "version", "--format", "{{.Client.Version}}")
    major, minor = (int(part) for part in version.split(".")[:2])
    return value if (major, minor) >= (4, 4) else base64.b64encode(value.encode()).decode()


def addresses() -> list[str]:
    """The loopback's, for a kubelet asks the pod's first address, of whichever family; IPv4 alone where IPv6 is off."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return ["127.0.0.1", "[::1]"]
    return ["127.0.0.1"]


class Kubelet:
    """Asks a container's probes, each at its times and at its named port, over every address."""

    def __init__(self, container: Manifest) -> None:
        self.container = container
        self.addresses = addresses()
        self.seen: dict[str, list[bool]] = {name: [] for name in PROBES}
        self.ready = asyncio.Event()

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def losses(self, name: str) -> int:
        """How often a probe failed as many times in a row as counts; a pod may take its time to become ready."""
        first = self.seen[name].index(True) if name == READINESS else 0
        failures = [len(list(run)) for right, run in itertools.groupby(self.seen[name][first:]) if not right]
        return sum(each >= self.container[name]["failureThreshold"] for each in failures)

    async def _watch(self) -> None:
        while not await self._ask(STARTUP):
            assert len(self.seen[STARTUP]) < self.container[STARTUP]["failureThreshold"], "it did not start"
            await asyncio.sleep(self.container[STARTUP]["periodSeconds"])
        async with asyncio.TaskGroup() as group:
            for name in (LIVENESS, READINESS):
                group.create_task(self._repeat(name))

    async def _repeat(self, name: str) -> None:
        while True:
            if await self._ask(name) and name == READINESS:
                self.ready.set()
            await asyncio.sleep(self.container[name]["periodSeconds"])

    async def _ask(self, name: str) -> bool:
        probe = self.container[name]
        ports = {each["name"]: each["containerPort"] for each in self.container["ports"]}
        route = f"{ports[probe['httpGet']['port']]}{probe['httpGet']['path']}"
        patience = aiohttp.ClientTimeout(probe["timeoutSeconds"])
        right = True
        try:
            async with aiohttp.ClientSession(timeout=patience) as http:
                for address in self.addresses:
                    async with http.get(f"http://{address}:{route}") as answer:
                        right = right and answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            right = False
        self.seen[name].append(right)
        return right


class Played:
    """A release, played from a file; how long its container lives is up to the test."""

    def __init__(self, folder: Path, found: list[Manifest], *, limited: bool) -> None:
        self.file = folder / "claw.yaml"
        self.documents = playable(found, limited=limited)
        self.spec = only(found, "Deployment")["spec"]["template"]["spec"]
        self.claim = only(found, "PersistentVolumeClaim")["metadata"]["name"]

    async def play(self, *, again: bool = False) -> str:
        """Play it; returns the container's name. `again`: without the claim, since one that exists may be refused."""
        documents = [each for each in self.documents if not again or each["kind"] != "PersistentVolumeClaim"]
        self.file.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
        await podman("kube", "play", "--network=host", str(self.file))
        return await podman("ps", "--all", f"--filter={OURS}", "--format={{.Names}}")

    async def stop(self, name: str) -> tuple[int, float]:
        """Stop it within the grace that the pod asks for; returns its exit code, and the seconds that it took."""
        pod = await podman("pod", "ps", f"--filter={OURS}", "--format={{.Name}}")
        began = time.monotonic()
        await podman("pod", "stop", f"--time={self.spec['terminationGracePeriodSeconds']}", pod)
        took = time.monotonic() - began
        code = int(await podman("inspect", name, "--format", "{{.State.ExitCode}}"))
        await podman("kube", "down", str(self.file))
        return code, took


@pytest.fixture
async def emulator(image: Image) -> AsyncIterator[Emulator]:
    async with Emulator(rate_limits=False, client_secret=as_mounted(DEFAULT_CLIENT_SECRET)) as started:
        yield started


@pytest.fixture
def configured(image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """podman's own settings: `kube play` has no options for limits, nor for what holds a pod together.

    That is `catatonit` by default, which podman's packages merely recommend; here a shell that waits does it.
    """
    (tmp_path / "infra").mkdir()
    (tmp_path / "infra" / "Containerfile").write_text(
        'ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nENTRYPOINT ["sh", "-c", "trap exit TERM; sleep infinity & wait"]\n'
    )
    ran(*building(image.base), "-t", INFRA, str(tmp_path / "infra"))
    limits = ", ".join(f'"{each.removeprefix("--ulimit=")}"' for each in LIMITS)
    settings = tmp_path / "containers.conf"
    settings.write_text(f'[containers]\ndefault_ulimits = [{limits}]\n[engine]\ninfra_image = "{INFRA}"\n')
    monkeypatch.setenv("CONTAINERS_CONF", str(settings))
    yield
    ran(*PODMAN, "rmi", "-f", INFRA)


@pytest.fixture
def release(configured: None, emulator: Emulator, memory: tuple[str, ...], tmp_path: Path) -> Iterator[Played]:
    played = Played(tmp_path, manifests(values(emulator.url), release=RELEASE), limited=bool(memory))

    def clean() -> None:
        for pod in ran(*PODMAN, "pod", "ps", "--quiet", f"--filter={OURS}").split():
            ran(*PODMAN, "pod", "rm", "--force", pod)
        for kind, name in (("volume", played.claim), ("volume", SECRET), ("secret", SECRET)):
            if name in ran(*PODMAN, kind, "ls", "--format={{.Name}}").split():
                ran(*PODMAN, kind, "rm", name)

    clean()
    yield played
    clean()


async def restricted(name: str) -> None:
    """Assert, by the kernel's word, that the container has what its security context says."""
    lines = (await podman("exec", name, "cat", "/proc/1/status")).splitlines()
    told = {key: rest.split() for key, _, rest in (line.partition(":") for line in lines)}
    assert set(told["Uid"]) == {"10001"}
    assert int(told["CapEff"][0], 16) == int(told["CapBnd"][0], 16) == 0
    assert told["NoNewPrivs"] == ["1"]
    assert (await podman("inspect", name, "--format", "{{.HostConfig.ReadonlyRootfs}}")) == "true"


async def test_life_of_a_pod(release: Played, emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """The rendered pod gets ready over IPv4 and IPv6, answers, is never restarted and ends with 0 in its grace; played
    again, its claim has kept the owner and the message that was waiting.
    """
    kubelet = Kubelet(release.spec["containers"][0])
    began = time.monotonic()
    name = await release.play()
    async with kubelet.watching():
        await asyncio.wait_for(kubelet.ready.wait(), PATIENCE_S)
        ready = time.monotonic() - began
        assert "owner" in (await emulator.wait_reply_to(await emulator.say("你好"), timeout=PATIENCE_S)).text
        await podman("exec", name, "claw", "health")
        await restricted(name)
        emulator.faults.update({"model_hang": True})
        waiting = await emulator.say("一会儿再答")
        assert waiting.push is not None
        await asyncio.wait_for(waiting.push.acked.wait(), PATIENCE_S)
        async with asyncio.timeout(PATIENCE_S):
            while len(kubelet.seen[LIVENESS]) < ROUNDS:
                await asyncio.sleep(0.1)
    assert {probe: kubelet.losses(probe) for probe in PROBES} == dict.fromkeys(PROBES, 0)
    assert (await podman("inspect", name, "--format", "{{.State.Status}} {{.RestartCount}}")) == "running 0"
    code, took = await release.stop(name)
    assert code == 0
    assert took < release.spec["terminationGracePeriodSeconds"]
    emulator.faults.reset()
    again = Kubelet(release.spec["containers"][0])
    name = await release.play(again=True)
    async with again.watching():
        await asyncio.wait_for(again.ready.wait(), PATIENCE_S)
        await emulator.wait_reply_to(waiting, timeout=PATIENCE_S)
        told = await emulator.wait_reply_to(await emulator.say("/policy group allowlist"), timeout=PATIENCE_S)
        assert "allowlist" in told.text
    assert (await release.stop(name))[0] == 0
    with capsys.disabled():
        sys.stdout.write(
            f"\npod: play to ready {ready:.1f} s, asked at {' and '.join(kubelet.addresses)}; restarts 0 after "
            f"{len(kubelet.seen[LIVENESS])} liveness probes; stop with a turn under way: {took:.1f} s, exit {code} "
        )


def test_service_leads_to_the_pod() -> None:
    """The Service selects the Deployment's pod and not Helm's test, and targets the port on which claw listens."""
    found = manifests(values("http://127.0.0.1:1"), release=RELEASE)
    service, template = only(found, "Service")["spec"], only(found, "Deployment")["spec"]["template"]
    assert service["selector"].items() <= template["metadata"]["labels"].items()
    assert not service["selector"].items() <= only(found, "Pod")["metadata"]["labels"].items()
    (container,) = template["spec"]["containers"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    listens = {each["name"]: each.get("value") for each in container["env"]}["PORT"]
    assert [ports[each["targetPort"]] for each in service["ports"]] == [int(listens or 0)] == [PORT]
