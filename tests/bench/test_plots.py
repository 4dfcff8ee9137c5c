"""The charts: well-formed, inside of their frame, and legible on light and on dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.peers import PEERS
from bench.plots import COLOURS, LABELS, LETTER, RIGHT, WIDTH, decades, linear, svg, throughput, write_plots
from bench.results import Results

from .made_up import made_up

SVG = "{http://www.w3.org/2000/svg}"


def drawn(path: Path) -> ET.Element:
    return ET.fromstring(path.read_text(encoding="utf-8"))


def labels(chart: ET.Element) -> list[str]:
    return [each.text or "" for each in chart.iter(f"{SVG}text")]


@pytest.mark.parametrize("name", ["recovery", "ack", "throughput"])
def test_charts_are_whole(name: str, tmp_path: Path) -> None:
    """Each chart is well-formed, names every bot, and draws nothing outside of its frame."""
    write_plots(made_up(), tmp_path)
    chart = drawn(tmp_path / f"{name}.svg")
    assert {peer.label for peer in PEERS if not peer.parts} <= set(labels(chart))
    height = float(chart.attrib["height"])
    for each in chart.iter(f"{SVG}rect"):
        assert float(each.attrib["x"]) + float(each.attrib["width"]) <= WIDTH
        assert float(each.attrib["y"]) + float(each.attrib["height"]) <= height


def test_legend_fits(tmp_path: Path) -> None:
    """Also with every bot in it, the legend stays inside of the frame."""
    results = made_up()
    results.put("recovery/freeze", "node-alive", [{"recovery_s": 12.0}])
    write_plots(results, tmp_path)
    names = [peer.label for peer in PEERS]
    legend = [each for each in drawn(tmp_path / "recovery.svg").iter(f"{SVG}text") if each.text in names]
    assert len(legend) == len(PEERS)
    assert max(float(each.attrib["x"]) + LETTER * len(each.text or "") for each in legend) < WIDTH


def test_never_runs_to_the_edge(tmp_path: Path) -> None:
    """What never came is the longest bar and says so in words, not by its length alone."""
    results = made_up()
    results.put("recovery/reset", "node", [{"recovery_s": None, "bound_s": 60.0}])
    write_plots(results, tmp_path)
    chart = drawn(tmp_path / "recovery.svg")
    assert "never (> 60 s)" in labels(chart)
    striped = [each for each in chart.iter(f"{SVG}rect") if each.attrib.get("fill") == "url(#never)"]
    assert [float(each.attrib["width"]) for each in striped] == [WIDTH - LABELS - RIGHT]


def test_no_figures_no_chart(tmp_path: Path) -> None:
    """An empty chart is not written."""
    write_plots(Results(), tmp_path)
    assert not list(tmp_path.iterdir())


def luminance(colour: str) -> float:
    """Relative luminance by WCAG 2.2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(("ground", "number"), [("#ffffff", 0), ("#0d1117", 1)])
@pytest.mark.parametrize("peer", [peer.name for peer in PEERS])
def test_bars_stand_out_from_their_ground(peer: str, ground: str, number: int) -> None:
    """Every bar has a contrast of 3:1 at least (WCAG 2.2, 1.4.11), on light and on dark."""
    bar, behind = sorted((luminance(COLOURS[peer][number]), luminance(ground)), reverse=True)
    assert (bar + 0.05) / (behind + 0.05) >= 3


def test_both_schemes_are_in_the_file(tmp_path: Path) -> None:
    """The chart brings its own ground, and changes it with the reader's scheme."""
    write_plots(made_up(), tmp_path)
    text = (tmp_path / "recovery.svg").read_text(encoding="utf-8")
    assert "prefers-color-scheme:dark" in text
    assert "#ffffff" in text
    assert "#0d1117" in text


@given(st.floats(0.001, 1e6))
def test_linear_scale_holds_the_most(most: float) -> None:
    """A linear axis begins at 0, ends at or above the most, and has a few even ticks."""
    scale = linear(most)
    assert scale.low == 0.0
    assert scale.high >= most * (1 - 1e-9)
    assert 2 <= len(scale.ticks) <= 8
    assert scale.at(0.0) == 0.0
    assert scale.at(scale.high) == 1.0


@pytest.mark.parametrize(("value", "share"), [(0.001, 0.0), (0.01, 0.0), (1.0, 0.5), (100.0, 1.0), (math.inf, 1.0)])
def test_decades(value: float, share: float) -> None:
    """A logarithmic axis gives each power of ten the same room; what lies outside stays at the edge."""
    scale = decades(0.01, 100.0)
    assert scale.ticks == pytest.approx((0.01, 0.1, 1.0, 10.0, 100.0))
    assert scale.at(value) == pytest.approx(share)


def test_labels_are_escaped() -> None:
    """A label cannot break the file."""
    chart = svg("a < b & c", throughput(made_up()), {"claw": '<claw> & "co"'})
    assert '<claw> & "co"' in labels(ET.fromstring(chart))


def widths(chart: ET.Element, peer: str) -> Sequence[float]:
    found = [each for each in chart.iter(f"{SVG}rect") if each.attrib.get("class") == peer]
    return [float(each.attrib["width"]) for each in found[1:]]  # The first is the legend's.


def test_bars_are_as_long_as_their_figures(tmp_path: Path) -> None:
    """On a linear axis half the figure is half the bar."""
    write_plots(made_up(), tmp_path)
    chart = drawn(tmp_path / "throughput.svg")
    claw, sdk = widths(chart, "claw"), widths(chart, "sdk")
    assert sdk[0] == pytest.approx(claw[0] / 2, abs=0.2)
    assert sdk[1] == pytest.approx(claw[1] * 2, abs=0.2)
