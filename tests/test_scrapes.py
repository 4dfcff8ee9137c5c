"""The reader of scrapes and expressions sees what it is there to see."""

from __future__ import annotations

import pytest

from tests.scrapes import find_faults, find_value, parse_scrape

TEXT = """\
# TYPE claw_depth gauge
claw_depth 3.0
# TYPE claw_calls counter
claw_calls_total{api="webhook",outcome="ok"} 2.0
claw_calls_total{api="group",outcome="ok"} 1.0
"""


@pytest.mark.parametrize(
    ("expression", "faults"),
    [
        ('sum by (api) (rate(claw_calls_total{job=~"a b", outcome!="ok"}[5m])) / 2 > 0.1', []),
        ('max_over_time(claw_depth{job="x"}[10m] offset 5m) > 1', []),
        ('claw_depht{job="x"}', ["no metric claw_depht"]),
        ('claw_calls_total{outcme="ok"}', ["claw_calls_total has no label outcme"]),
        ('sum by (quota) (claw_depth{job="x"})', ["grouped by quota, which nothing has"]),
        ("claw_depth > 1", ["unknown word claw_depth"]),
        ('rat(claw_depth{job="x"}[5m])', ["unknown word rat"]),
    ],
)
def test_faults(expression: str, faults: list[str]) -> None:
    """A name, a label or a grouping that no sample has is told, and so is a metric without braces."""
    assert find_faults(expression, parse_scrape(TEXT)) == faults


def test_values() -> None:
    """Samples are added up over the labels that are not said."""
    assert find_value(TEXT, "claw_calls_total", outcome="ok") == 3
    assert find_value(TEXT, "claw_calls_total", api="group") == 1
    assert find_value(TEXT, "claw_depth") == 3
