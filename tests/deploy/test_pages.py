"""The pages about deployment: what they quote exists, and their examples work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from claw import settings
from tests.deploy.chart import LEAST, SETS, files, manifests
from tests.deploy.pod_security import offences

ROOT = Path(__file__).parents[2]
PAGES = ("docs/kubernetes.md", "docs/cloud-run.md", "docs/docker.md", "SECURITY.md", "helm/claw/README.md")
KNOWN = {name for _, each in settings.variables() for name in (each.name, *each.aliases)} | {
    f"{each.name}_FILE" for _, each in settings.variables() if each.from_file
}


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def examples(page: str) -> dict[str, Any]:
    """The YAML blocks of a page, by the name in their first comment or their place."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", text(page), re.MULTILINE | re.DOTALL)
    return {
        (re.match(r"# (\S+\.yaml)", block) or ["", str(n)])[1]: yaml.safe_load(block) for n, block in enumerate(blocks)
    }


@pytest.mark.parametrize("page", PAGES)
def test_variables_exist(page: str) -> None:
    """Every variable that a page names is one of claw's."""
    named = set(re.findall(r"\b(?:CLAW|DINGTALK|OPENAI)_[A-Z_]+\b", text(page)))
    assert named - KNOWN <= {"CLAW_PORT"}, "CLAW_PORT is what Kubernetes would make of a Service"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Every link within the repository has its file, and its heading."""
    for link in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}, (
            link
        )


def test_kubernetes_examples_render() -> None:
    """The page's values make a release, alone or with its least values, whose pods are restricted."""
    found = examples("docs/kubernetes.md")
    assert "values.yaml" in found
    for values in found.values():
        whole = values if "config" in values else {**LEAST, **values}
        for each in manifests(whole):
            if each["kind"] == "Deployment":
                assert list(offences(each["spec"]["template"]["spec"])) == []


def test_helms_null_takes_the_user_out() -> None:
    """On OpenShift the pod says no user at all."""
    values = {**LEAST, "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}}
    deployment = yaml.safe_load(files(values)["deployment.yaml"])
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(deployment["spec"]["template"]["spec"]["securityContext"])


def test_compose_example() -> None:
    """The compose file runs one restricted claw with its volume, and its collector's configuration is in the page."""
    found = examples("docs/docker.md")
    claw = found["compose.yaml"]["services"]["claw"]
    assert claw["read_only"] is True
    assert claw["cap_drop"] == ["ALL"]
    assert "claw-data:/data" in claw["volumes"]
    assert set(claw["environment"]) - {"OTEL_EXPORTER_OTLP_ENDPOINT"} <= KNOWN
    assert set(claw["secrets"]) == set(found["compose.yaml"]["secrets"])
    assert {f"/run/secrets/{each}" for each in claw["secrets"]} == {
        value for name, value in claw["environment"].items() if name.endswith("_FILE")
    }
    port = claw["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"].rpartition(":")[2]
    collector = found["collector.yaml"]
    assert collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"].endswith(f":{port}")
    assert {"traces", "metrics"} == set(collector["service"]["pipelines"])


def test_probe_numbers_are_the_charts() -> None:
    """The page's table of probes tells the chart's numbers."""
    (claw,) = yaml.safe_load(files(SETS["least"])["deployment.yaml"])["spec"]["template"]["spec"]["containers"]
    rows = dict(re.findall(r"^\| (\w+) \| `(/\w+)` \| every ", text("docs/kubernetes.md"), re.MULTILINE))
    for name, path in rows.items():
        probe = claw[f"{name}Probe"]
        assert path == probe["httpGet"]["path"]
        told = f"| {name} | `{path}` | every {probe['periodSeconds']} s, {probe['failureThreshold']} times"
        assert told in text("docs/kubernetes.md")
    assert set(rows) == {"startup", "liveness", "readiness"}
