"""The Cloud Run manifests: the limits that Cloud Run sets, what one claw without a durable store needs, and Redis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from claw.config import reader
from claw.http.health import CHECK_TIMEOUT_S, STALL_S
from claw.observe.telemetry import FLUSH_TIMEOUT_S

FOLDER = Path(__file__).parents[2] / "deploy" / "cloudrun"
ON_REDIS = ("service-redis.yaml", "worker-pool-redis.yaml")
FILES = ("service.yaml", "worker-pool.yaml", *ON_REDIS)
STARTUP_MAX_S = 240
"""failureThreshold * periodSeconds of a startup probe, at most (Cloud Run's documentation of health checks)."""
KILL_S = 10
"""Seconds from SIGTERM to SIGKILL."""
REJECTED_RETRY_S = 60
"""Seconds until refused credentials are tried again, at most (docs/failures.md)."""


def manifest(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / name).read_text(encoding="utf-8")))


def container(name: str) -> dict[str, Any]:
    (found,) = manifest(name)["spec"]["template"]["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize("name", FILES)
def test_claw_reads_it(name: str, tmp_path: Path) -> None:
    """claw's settings load from the manifest's environment, and claw knows that it is in a container."""
    held = {"DINGTALK_CLIENT_SECRET_FILE": "not-a-real-secret", "CLAW_STORE_URL_FILE": "redis://:pw@10.0.0.3:6379/0"}
    environ: dict[str, str] = {}
    for each in container(name)["env"]:
        environ[each["name"]] = each.get("value", "from-secret-manager")
        if each["name"] in held:
            secret = tmp_path / each["name"]
            secret.write_text(held[each["name"]], encoding="utf-8")
            environ[each["name"]] = str(secret)
    loaded = reader.load(environ)
    assert loaded.warnings == ()
    assert loaded.http.port == 8080
    assert loaded.store.in_redis == (name in ON_REDIS)
    assert loaded.access.owner or loaded.store.in_redis, "without a durable store the first who writes is the owner"


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
    """No secret is in the manifest: the model's key comes as a variable, the others as files of mounted volumes."""
    spec = manifest(name)["spec"]["template"]["spec"]
    claw = container(name)
    given = {each["name"]: each for each in claw["env"]}
    assert set(given["OPENAI_API_KEY"]["valueFrom"]) == {"secretKeyRef"}
    named = [Path(each["value"]) for each in claw["env"] if each["name"].endswith("_FILE")]
    assert len(named) == (2 if name in ON_REDIS else 1)
    for path, mount, volume in zip(named, claw["volumeMounts"], spec["volumes"], strict=True):
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


@pytest.mark.parametrize("name", ON_REDIS)
def test_redis_is_reached_by_the_vpc(name: str) -> None:
    """Direct VPC egress, for private addresses only, so that DingTalk needs no NAT of the VPC; several instances."""
    whole = manifest(name)
    annotations = whole["spec"]["template"]["metadata"]["annotations"]
    (interface,) = json.loads(annotations["run.googleapis.com/network-interfaces"])
    assert set(interface) == {"network", "subnetwork"}
    assert annotations["run.googleapis.com/vpc-access-egress"] == "private-ranges-only"
    if whole["kind"] == "Service":
        assert annotations["run.googleapis.com/cpu-throttling"] == "false"
        assert annotations["autoscaling.knative.dev/minScale"] == annotations["autoscaling.knative.dev/maxScale"] == "2"
    else:
        assert whole["metadata"]["annotations"]["run.googleapis.com/manualInstanceCount"] == "2"


@pytest.mark.parametrize("name", ["service", "worker-pool"])
def test_redis_changes_no_more_than_it_must(name: str) -> None:
    """Beside the store's address, its volume and the owner, which Redis keeps, the container is the one without."""
    plain, redis = container(f"{name}.yaml"), container(f"{name}-redis.yaml")
    for each in (plain, redis):
        each["env"] = [one for one in each["env"] if one["name"] not in {"CLAW_OWNER", "CLAW_STORE_URL_FILE"}]
        each["volumeMounts"] = [one for one in each["volumeMounts"] if one["name"] != "redis"]
    assert plain == redis


@pytest.mark.parametrize("more", ["", "-redis"])
def test_both_say_the_same(more: str) -> None:
    """Beyond ports and PORT, both run the same container."""
    service, pool = container(f"service{more}.yaml"), container(f"worker-pool{more}.yaml")
    service.pop("ports")
    pool["env"] = [each for each in pool["env"] if each["name"] != "PORT"]
    assert service == pool
