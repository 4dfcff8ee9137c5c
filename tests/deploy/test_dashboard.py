"""The Grafana dashboard: it can be imported, and Prometheus reads what it asks."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from tests.deploy.chart import ROOT
from tests.deploy.promtool import promtool, run

DASHBOARD = ROOT / "deploy" / "grafana" / "claw.json"


@promtool
def test_prometheus_reads_the_dashboard(tmp_path: Path) -> None:
    """Each expression of the dashboard is PromQL, once Grafana has filled its variables in."""
    found = []
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "5m").replace("$job", "bots/claw")
            assert "$" not in expression
            found.append({"record": f"panel:{panel['id']}:{target['refId']}", "expr": expression})
    path = tmp_path / "dashboard.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": found}]}), encoding="utf-8")
    assert f"SUCCESS: {len(found)} rules found" in run("check", "rules", str(path))


def test_the_dashboard_can_be_imported() -> None:
    """Its data source is a variable, ids are unique, panels lie beside one another, and each says what it shows."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    assert dashboard["id"] is None
    assert dashboard["schemaVersion"] >= 39
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["description"]
        assert panel["targets"]
        for source in (panel["datasource"], *(target["datasource"] for target in panel["targets"])):
            assert source == {"type": "prometheus", "uid": "${datasource}"}
