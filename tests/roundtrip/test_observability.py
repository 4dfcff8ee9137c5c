"""Dashboard, alerts and documents ask for nothing that a real claw's `/metrics` does not have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from claw.dingtalk.quota import Api
from claw.emulator import Emulator
from claw.inbox.turns import RELEASED, UNDELIVERED
from claw.messages import Outcome
from claw.stream.reason import Reason
from tests.roundtrip.conftest import Claw
from tests.scrapes import find_faults, parse_expression, parse_scrape, scrape, wait_value

pytestmark = pytest.mark.timeout(90)

ROOT = Path(__file__).parents[2]
RULES: Final = ROOT / "helm" / "claw" / "files" / "rules.yaml"
DASHBOARD: Final = ROOT / "deploy" / "grafana" / "claw.json"
PAGE: Final = ROOT / "docs" / "observability.md"

VALUES: Final = {
    "outcome": {*Outcome, RELEASED, UNDELIVERED, "ok", "unanswered", "throttled", "refused", "rejected", "cancelled"},
    "reason": set(Reason),
    "api": {*Api, "gateway.open"},
    "quota": {"openapi", "webhook"},
    "gen_ai_token_type": {"input", "output"},
}
"""The values that labels with few values can have."""


def read_expressions() -> dict[str, str]:
    """Return every expression of the alerts and of the dashboard, by where it stands."""
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    found = {rule["alert"]: rule["expr"] for group in rules["groups"] for rule in group["rules"]}
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            found[f"{panel['title']}/{target['refId']}"] = target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            found[f"${variable['name']}"] = re.sub(r", *\w+\)$", ")", variable["definition"])
    return found


def read_table() -> dict[str, set[str]]:
    """Return the metrics of the page as Prometheus names them, each with its labels."""
    rows = re.findall(r"^\| `[a-z_.]+` \| `(\w+)` \|([^|]*)\|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


async def test_what_is_asked_for_is_there(emulator: Emulator, claw: Claw) -> None:
    """Every name and label of alerts, dashboard and page is in what a claw renders that has seen good and bad days."""
    async with claw(CLAW_METRICS="on", CLAW_MAX_ATTEMPTS="1", CLAW_ALERTS="off") as service:
        await emulator.wait_reply_to(await emulator.say("hello"))
        emulator.act("reset")
        await wait_value(service, 2, "claw_stream_reconnects_total")
        emulator.faults.update({"model_status": 401})
        await emulator.wait_reply_to(await emulator.say("hello again"))
        emulator.faults.reset()
        await wait_value(service, 1, "claw_dead_letters")
        text = await scrape(service)
    scraped = parse_scrape(text)
    faults = {place: found for place, each in read_expressions().items() if (found := find_faults(each, scraped))}
    assert faults == {}
    samples = {re.sub("_(bucket|count|sum)$", "", name): labels - {"le"} for name, labels in scraped.items()}
    ours = {name: labels for name, labels in samples.items() if name.startswith(("claw_", "gen_ai_"))}
    # Votes on cards, of which this claw has sent none.
    table = {name: labels for name, labels in read_table().items() if name != "claw_feedback_total"}
    assert ours == table


@pytest.mark.parametrize("place", read_expressions())
def test_values_of_labels_exist(place: str) -> None:
    """A label that has few values is compared with one of them."""
    for selector in parse_expression(read_expressions()[place]).selectors:
        for label, value in selector.matchers:
            if label in VALUES:
                assert set(value.split("|")) <= VALUES[label], (label, value)
