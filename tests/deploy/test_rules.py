"""Alerts: Prometheus' own tool reads them, each fires in its trouble, and says what to do."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.chart import CHART, LEAST, NAMESPACE, files
from tests.deploy.promtool import promtool, run

RULES = CHART / "files" / "rules.yaml"
PLAYED = Path(__file__).parent / "rules_test.yaml"


def rules(text: str) -> list[dict[str, Any]]:
    """All alerts of a rules file."""
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def played() -> list[dict[str, Any]]:
    """All checks of the file that promtool plays."""
    tests = yaml.safe_load(PLAYED.read_text(encoding="utf-8"))["tests"]
    return [check for test in tests for check in test["alert_rule_test"]]


ALL = rules(RULES.read_text(encoding="utf-8"))


@promtool
def test_prometheus_reads_the_rules() -> None:
    """`promtool check rules` finds no fault, in expressions and in the templates of words."""
    assert f"SUCCESS: {len(ALL)} rules found" in run("check", "rules", str(RULES))


@promtool
def test_prometheus_reads_what_the_chart_renders(tmp_path: Path) -> None:
    """The PrometheusRule's spec is a rules file with the same alerts, which watch the release's own pods alone."""
    values = {**LEAST, "metrics": {"enabled": True, "prometheusRule": {"enabled": True}}}
    spec = yaml.safe_load(files(values)["prometheusrule.yaml"])["spec"]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    assert f"SUCCESS: {len(ALL)} rules found" in run("check", "rules", str(path))
    for rule in rules(path.read_text(encoding="utf-8")):
        jobs = re.findall(r"job[=~!]+\"[^\"]*\"", rule["expr"])
        assert set(jobs) == {f'job="{NAMESPACE}/claw"'}


@promtool
def test_alerts_fire_in_their_trouble(tmp_path: Path) -> None:
    """`promtool test rules` plays good and bad days: each alert fires in its own, after its time, and not in others."""
    silent = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    for group in silent["groups"]:
        for rule in group["rules"]:
            del rule["annotations"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(silent), encoding="utf-8")
    shutil.copy(PLAYED, tmp_path)
    assert "SUCCESS" in run("test", "rules", str(tmp_path / PLAYED.name))


@pytest.mark.parametrize("name", [rule["alert"] for rule in ALL])
def test_each_alert_is_played(name: str) -> None:
    """Each alert is seen to fire, and seen not to."""
    fires = {bool(check["exp_alerts"]) for check in played() if check["alertname"] == name}
    assert fires == {True, False}


@pytest.mark.parametrize("rule", ALL, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    """An alert waits, has a severity, a summary in one line and a description; its words name labels that it has."""
    assert re.fullmatch(r"[1-9]\d*m", rule["for"])
    assert rule["labels"]["severity"] in {"warning", "critical"}
    summary, description = rule["annotations"]["summary"], rule["annotations"]["description"]
    assert summary.endswith(".")
    assert len(summary) <= 120
    assert len(description) > len(summary)
    (fired, *_) = (check["exp_alerts"][0] for check in played() if check["exp_alerts"] and _is_of(check, rule))
    named = set(re.findall(r"\$labels\.(\w+)", summary + description))
    assert named <= set(fired["exp_labels"])


def _is_of(check: dict[str, Any], rule: dict[str, Any]) -> bool:
    return bool(check["alertname"] == rule["alert"])
