"""docs/observability.md tells what the code has: every metric, every alert, and log lines that exist."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from tests.deploy.chart import LEAST, manifests

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "claw").rglob("*.py")))


def column(begin: str, end: str) -> list[str]:
    """The code spans in the first column of the table between two marks."""
    table = PAGE.partition(begin)[2].partition(end)[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return [each for cell in cells for each in re.findall(r"`([^`]+)`", cell)]


def test_every_metric_is_told() -> None:
    """The table has each instrument of the code, and no other."""
    made = r"(?:_seconds|create_\w+|telemetry\.gauge)\(\s*\"((?:claw|gen_ai)\.[a-z_.]+)\""
    told = column("<!-- metrics -->", "<!-- /metrics -->")
    assert len(told) == len(set(told))
    assert set(told) == set(re.findall(made, SOURCES))


def test_every_alert_is_told() -> None:
    """The table has each alert of the rules with its severity, and no other."""
    text = (ROOT / "helm" / "claw" / "files" / "rules.yaml").read_text(encoding="utf-8")
    alerts = {
        rule["alert"]: rule["labels"]["severity"] for group in yaml.safe_load(text)["groups"] for rule in group["rules"]
    }
    assert dict(re.findall(r"^\| `(Claw\w+)` \| (\w+) \|", PAGE, re.MULTILINE)) == alerts


def test_log_lines_exist() -> None:
    """Each message that the page names is written somewhere."""
    for message in column("<!-- logs -->", "<!-- /logs -->"):
        assert f'"{message}' in SOURCES, message


def test_the_charts_example_renders() -> None:
    """The page's values make a PodMonitor and a PrometheusRule."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (values,) = (yaml.safe_load(block) for block in blocks if block.startswith("# metrics.yaml"))
    assert {"PodMonitor", "PrometheusRule"} <= {each["kind"] for each in manifests({**LEAST, **values})}
