"""The Cloud Run manifests: the limits that Cloud Run sets, and what one claw without a durable store needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from claw import settings
from claw.ops.health import CHECK_TIMEOUT_S, STALL_S
from claw.telemetry import FLUSH_TIMEOUT_S

FOLDER = Path(__file__).parents[2] / "deploy" / "cloudrun"
FILES = ("service.yaml", "worker-pool.yaml")
STARTUP_MAX_S = 240
"""failureThreshold * periodSeconds of a startup probe, at most (Cloud Run's documentation of health checks)."""
KILL_S = 10
"""Seconds from SIGTERM to SIGKILL."""
REJECTED_RETRY_S = 60
"""Seconds until refused credentials are tried again, at most (README, "How it behaves when things fail")."""


def manifest(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / name).read_text(encoding="utf-8")))


def container(name: str) -> dict[str, Any]:
    (found,) = manifest(name)["spec"]["template"]["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize("name", FILES)
def test_claw_reads_it(name: str, tmp_path: Path) -> None:
    """claw's settings load from the manifest's environment, and claw knows that it is in a container."""
    secret = tmp_path / "secret"
    secret.write_text("not-a-real-secret", encoding="utf-8")
    environ: dict[str, str] = {}
    for each in container(name)["env"]:
        value = each.get("value", "from-secret-manager")
        environ[each["name"]] = str(secret) if each["name"].endswith("_FILE") else value
    loaded = settings.load(environ)
    assert loaded.warnings == ()
    assert loaded.http.port == 8080
    assert loaded.access.owner, "the store is not durable: without an owner the first who writes is it"


@pytest.mark.parametrize("name", FILES)
def test_drain_fits_into_the_limit(name: str) -> None:
    """The drain and the last export end before Cloud Run kills."""
    drain = next(float(each["value"]) for each in container(name)["env"] if each["name"] == "CLAW_DRAIN_TIMEOUT")
    assert drain + FLUSH_TIMEOUT_S + 1 < KILL_S


@pytest.mark.parametrize("name", FILES)
def test_probes(name: str) -> None:
    """Startup asks /ready, within Cloud Run's limit and beyond two retries of credentials; liveness asks /health."""
    startup, alive = container(name)["startupProbe"], container(name)["livenessProbe"]
    budget = startup["periodSeconds"] * startup["failureThreshold"]
    assert startup["httpGet"] == {"path": "/ready", "port": 8080}
    assert alive["httpGet"] == {"path": "/health", "port": 8080}
    assert 2 * REJECTED_RETRY_S < budget <= STARTUP_MAX_S
    assert alive["periodSeconds"] * (alive["failureThreshold"] - 1) + alive["timeoutSeconds"] > STALL_S
    for probe in (startup, alive):
        assert CHECK_TIMEOUT_S < probe["timeoutSeconds"] <= probe["periodSeconds"]


@pytest.mark.parametrize("name", FILES)
def test_secrets_come_from_secret_manager(name: str) -> None:
    """No secret is in the manifest: one comes as a file of a mounted volume, one as a variable."""
    spec = manifest(name)["spec"]["template"]["spec"]
    claw = container(name)
    given = {each["name"]: each for each in claw["env"]}
    assert set(given["OPENAI_API_KEY"]["valueFrom"]) == {"secretKeyRef"}
    path = Path(given["DINGTALK_CLIENT_SECRET_FILE"]["value"])
    (mount,) = claw["volumeMounts"]
    (volume,) = spec["volumes"]
    assert mount["name"] == volume["name"]
    assert path.parent == Path(mount["mountPath"])
    assert [item["path"] for item in volume["secret"]["items"]] == [path.name]


def test_service_has_one_instance_with_its_cpu() -> None:
    """CPU always allocated, min = max = 1, and nothing of it on the internet."""
    service = manifest("service.yaml")
    annotations = service["spec"]["template"]["metadata"]["annotations"]
    assert annotations["run.googleapis.com/cpu-throttling"] == "false"
    assert annotations["autoscaling.knative.dev/minScale"] == annotations["autoscaling.knative.dev/maxScale"] == "1"
    assert service["metadata"]["annotations"]["run.googleapis.com/ingress"] == "internal"


def test_worker_pool_has_one_instance() -> None:
    """Manual scaling to exactly one, and no port, which worker pools do not have."""
    pool = manifest("worker-pool.yaml")
    assert (pool["apiVersion"], pool["kind"]) == ("run.googleapis.com/v1", "WorkerPool")
    assert pool["metadata"]["annotations"]["run.googleapis.com/manualInstanceCount"] == "1"
    assert "ports" not in container("worker-pool.yaml")


def test_both_say_the_same() -> None:
    """Beyond ports and PORT, both run the same container."""
    service, pool = container("service.yaml"), container("worker-pool.yaml")
    service.pop("ports")
    pool["env"] = [each for each in pool["env"] if each["name"] != "PORT"]
    assert service == pool
