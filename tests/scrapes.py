"""What Prometheus gets and asks: the samples of a scrape, and the names and labels in an expression of PromQL."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from claw.http.metrics import CONTENT_TYPE
from tests.service import Service

GIVEN: Final = {"job", "instance", "pod", "namespace"}
"""Labels that Prometheus lays on every sample."""
WORDS: Final = frozenset(
    re.findall(
        r"\w+",
        """absent and avg avg_over_time by changes clamp_min delta group_left histogram_quantile ignoring increase
        label_values max max_over_time min offset on or rate sum time unless vector without
        """,
    )
)
"""Functions and keywords of PromQL that our expressions use; `label_values` is Grafana's."""
_GROUPING: Final = re.compile(r"\b(?:by|on|without|ignoring|group_left)\s*\(([^)]*)\)")
_SELECTOR: Final = re.compile(r"\b([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
_MATCHER: Final = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"((?:[^\"\\]|\\.)*)\"")


@dataclass(frozen=True)
class Selector:
    """One metric in an expression, with the values that its labels are compared with."""

    metric: str
    matchers: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Expression:
    """All that an expression asks for by name."""

    selectors: list[Selector]
    groupings: set[str]
    unknown: set[str]
    """Words that are neither a metric with its braces nor a word of PromQL."""


def parse_expression(text: str) -> Expression:
    """Read an expression as far as names go; every metric must have its braces."""
    selectors = [Selector(name, tuple(_MATCHER.findall(inside))) for name, inside in _SELECTOR.findall(text)]
    groupings = {each.strip() for inside in _GROUPING.findall(text) for each in inside.split(",")} - {""}
    rest = re.sub(r"\[[^\]]*\]|\"[^\"]*\"", " ", _GROUPING.sub(" ", _SELECTOR.sub(" ", text)))
    words = set(re.findall(r"(?<![\w.])[a-zA-Z_]\w*", re.sub(r"\b\d+(?:ms|[smhdwy])\b", " ", rest)))
    return Expression(selectors, groupings, words - WORDS)


def parse_scrape(text: str) -> dict[str, set[str]]:
    """Return the names of all samples with the labels that they have."""
    found: dict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] |= set(sample.labels)
    return dict(found)


def find_value(text: str, name: str, **labels: str) -> float:
    """Return the sum of the samples of that name whose labels are as said."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def find_faults(text: str, scraped: dict[str, set[str]]) -> list[str]:
    """Return what an expression asks for that no scrape has."""
    expression = parse_expression(text)
    faults = [f"unknown word {each}" for each in sorted(expression.unknown)]
    known = set(GIVEN)
    for selector in expression.selectors:
        if selector.metric not in scraped:
            faults.append(f"no metric {selector.metric}")
            continue
        labels = scraped[selector.metric] | GIVEN
        known |= labels
        faults += [f"{selector.metric} has no label {name}" for name, _ in selector.matchers if name not in labels]
    return faults + [f"grouped by {each}, which nothing has" for each in sorted(expression.groupings - known)]


async def scrape(service: Service) -> str:
    """Return what Prometheus would get."""
    async with aiohttp.ClientSession() as http, http.get(f"{service.url}/metrics") as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == CONTENT_TYPE
        return await response.text()


async def wait_value(service: Service, value: float, name: str, **labels: str) -> str:
    """Scrape until a value is there, which the turn notes a moment after its answer; return the scrape."""
    async with asyncio.timeout(30):
        while find_value(text := await scrape(service), name, **labels) != value:
            await asyncio.sleep(0.1)
        return text
