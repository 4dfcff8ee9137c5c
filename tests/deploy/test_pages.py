"""The pages about deployment: what they quote exists, and their examples work."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml

from claw.config import settings
from claw.errors import StoreSchemaError
from claw.store.sqlite.schema import MIGRATIONS, migrate
from tests.deploy.chart import LEAST, SETS, files, manifests
from tests.deploy.pod_security import offences

ROOT = Path(__file__).parents[2]
PAGES = (
    *("docs/kubernetes.md", "docs/cloud-run.md", "docs/docker.md", "SECURITY.md", "helm/claw/README.md"),
    *("deploy/card/README.md", "deploy/card/README.zh-CN.md", "docs/observability.md"),
)
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
    assert {"values.yaml", "redis.yaml"} <= set(found)
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


@pytest.mark.parametrize("page", ["docs/docker.md", "docs/kubernetes.md"])
def test_refusal_of_a_newer_store_is_quoted(page: str, tmp_path: Path) -> None:
    """What the pages quote of going back is what an older claw says of a newer store."""
    connection = sqlite3.connect(tmp_path / "claw.db")
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    with pytest.raises(StoreSchemaError) as refused:
        migrate(connection, MIGRATIONS[:1])
    connection.close()
    assert f"`{refused.value}; start the newer version`" in text(page)


def test_files_in_commands_exist() -> None:
    """Every file of the repository that a page's command names is there."""
    for page in PAGES:
        for block in re.findall(r"^```sh\n(.*?)^```$", text(page), re.MULTILINE | re.DOTALL):
            for path in re.findall(r"\bdeploy/\S+\.yaml", block):
                assert (ROOT / path).is_file(), (page, path)


def test_make_targets_exist() -> None:
    """Every `make` command that a page names is a target."""
    targets = set(re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE))
    for page in (*PAGES, "CONTRIBUTING.md", "README.md"):
        assert set(re.findall(r"`make ([a-z-]+)", text(page))) <= targets, page
