"""Bar charts as SVG, of our own few lines, for a README in light and in dark.

Order of events: `write_plots` takes the medians from the results, lays them out as `Panel`s of grouped bars, and writes
one file for each chart. Each file carries its own ground and both sets of colours, and follows the reader's scheme: a
page that is darker or lighter than it does not make the text illegible. A thin line spans least to most (for acks: up
to the 99th percentile); what did not come about within its bound runs to the edge, striped, with the word for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

from bench import load
from bench.faults import FAULTS
from bench.peers import PEERS
from bench.results import Results, finite, median

WIDTH: Final = 860
LABELS: Final = 220
"""Pixels left of the bars, for what the groups are called."""
RIGHT: Final = 104
"""Pixels right of them, for the value of a bar that reaches the edge."""
BAR: Final = 11
GAP: Final = 12
HEAD: Final = 44
FOOT: Final = 34
LEGEND: Final = 34
LETTER: Final = 5.9
"""Pixels of a letter on average, at the legend's size."""
COLOURS: Final = {
    "claw": ("#0969da", "#58a6ff"),
    "sdk": ("#bc4c00", "#f0883e"),
    "sdk-beta": ("#bf8700", "#e3b341"),
    "open-stream": ("#8250df", "#bc8cff"),
    "node": ("#1a7f37", "#3fb950"),
    "node-alive": ("#0a7f86", "#39c5cf"),
}
"""By peer: on light and on dark, from the palette that the page around it uses."""


@dataclass(frozen=True, slots=True)
class Bar:
    peer: str
    value: float
    """Infinite: it did not come about."""
    low: float
    high: float
    text: str


@dataclass(frozen=True, slots=True)
class Group:
    label: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Scale:
    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def at(self, value: float) -> float:
        """0 to 1 along the axis; what lies outside stays at its edge."""
        if self.log:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, share))


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    axis: str
    scale: Scale
    groups: tuple[Group, ...]

    @property
    def height(self) -> float:
        return HEAD + FOOT + sum(len(group.bars) * BAR + GAP for group in self.groups)


def linear(most: float) -> Scale:
    """From 0 to a round number above `most`, with about five ticks."""
    step = 10.0 ** math.floor(math.log10(max(most, 1e-9)))
    step *= next(factor for factor in (0.2, 0.5, 1.0, 2.0) if most / (step * factor) <= 6)
    count = max(1, math.ceil(most / step))
    return Scale(0.0, step * count, tuple(step * number for number in range(count + 1)))


def decades(low: float, high: float) -> Scale:
    """Logarithmic, with a tick at each power of ten; both ends are powers of ten."""
    first, last = round(math.log10(low)), round(math.log10(high))
    return Scale(low, high, tuple(10.0**power for power in range(first, last + 1)), log=True)


def svg(title: str, panels: Sequence[Panel], labels: dict[str, str]) -> str:
    """Return the chart; `labels` names the peers that the legend shows."""
    height = LEGEND + sum(panel.height for panel in panels)
    size = f'width="{WIDTH}" height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
        _style(),
        f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:.0f}" rx="6"/>',
    ]
    x = 16.0
    for name, label in labels.items():
        parts.append(f'<rect class="{name}" x="{x:.0f}" y="13" width="11" height="11" rx="2"/>')
        parts.append(f'<text x="{x + 16:.0f}" y="22.5">{escape(label)}</text>')
        x += 32 + LETTER * len(label)
    top = float(LEGEND)
    for panel in panels:
        parts += _panel(panel, top)
        top += panel.height
    return "\n".join([*parts, "</svg>", ""])


def _style() -> str:
    def sheet(number: int, ground: str, line: str, text: str, faint: str) -> str:
        bars = "".join(
            f".{name}{{fill:{pair[number]}}}.{name}.whisker{{stroke:{pair[number]}}}" for name, pair in COLOURS.items()
        )
        frame = f".ground{{fill:{ground};stroke:{line}}}.grid{{stroke:{line}}}"
        return f"{frame}text{{fill:{text}}}.faint{{fill:{faint}}}.stripe{{stroke:{ground}}}{bars}"

    font = 'text{font:12px -apple-system,"Segoe UI","Noto Sans",Helvetica,Arial,sans-serif}'
    sizes = ".value{font-size:10.5px}.title{font-size:13px;font-weight:600}.whisker{stroke-opacity:.55}"
    light = sheet(0, "#ffffff", "#d1d9e0", "#1f2328", "#59636e")
    dark = sheet(1, "#0d1117", "#30363d", "#e6edf3", "#9198a1")
    stripes = (
        '<defs><pattern id="never" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<line class="stripe" x1="0" y1="0" x2="0" y2="6" stroke-width="5"/></pattern></defs>'
    )
    return f"<style>{font}{light}{sizes}@media(prefers-color-scheme:dark){{{dark}}}</style>{stripes}"


def _panel(panel: Panel, top: float) -> list[str]:
    span = WIDTH - LABELS - RIGHT

    def across(value: float) -> float:
        return LABELS + span * panel.scale.at(value)

    bottom = top + panel.height - FOOT
    parts = [f'<text class="title" x="16" y="{top + 20:.1f}">{escape(panel.title)}</text>']
    for tick in panel.scale.ticks:
        x = across(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top + HEAD - 10:.1f}" y2="{bottom:.1f}"/>')
        parts.append(f'<text class="faint" x="{x:.1f}" y="{bottom + 14:.1f}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text class="faint" x="16" y="{bottom + 14:.1f}">{escape(panel.axis)}</text>')
    y = top + HEAD
    for group in panel.groups:
        middle = y + len(group.bars) * BAR / 2 + 4
        parts.append(f'<text x="{LABELS - 12}" y="{middle:.1f}" text-anchor="end">{escape(group.label)}</text>')
        for bar in group.bars:
            parts += _bar(bar, y, LABELS, across)
            y += BAR
        y += GAP
    return parts


def _bar(bar: Bar, y: float, left: float, across: Callable[[float], float]) -> list[str]:
    came = math.isfinite(bar.value)
    end = across(bar.value)
    width, height = max(1.5, end - left), BAR - 2.5
    box = f'x="{left}" y="{y:.1f}" width="{width:.1f}" height="{height}"'
    parts = [f'<rect class="{bar.peer}" {box}/>']
    if not came:
        parts.append(f'<rect fill="url(#never)" fill-opacity=".45" {box}/>')
    elif bar.high > bar.low:
        low, middle = across(bar.low), y + height / 2
        end = max(end, across(bar.high))
        line = f'x1="{low:.1f}" x2="{across(bar.high):.1f}" y1="{middle:.1f}" y2="{middle:.1f}"'
        parts.append(f'<line class="{bar.peer} whisker" {line} stroke-width="2.5"/>')
    parts.append(f'<text class="value" x="{end + 5:.1f}" y="{y + height:.1f}">{escape(bar.text)}</text>')
    return parts


# --- the charts ----------------------------------------------------------------------------------------------------


def write_plots(results: Results, folder: Path) -> None:
    """recovery.svg, ack.svg and throughput.svg, as far as there are figures for them."""
    folder.mkdir(parents=True, exist_ok=True)
    charts = {"recovery": recovery(results), "ack": ack(results), "throughput": throughput(results)}
    for name, panels in charts.items():
        shown = {bar.peer for panel in panels for group in panel.groups for bar in group.bars}
        labels = {peer.name: peer.label for peer in PEERS if peer.name in shown}
        if shown:
            (folder / f"{name}.svg").write_text(svg(panels[0].title, panels, labels), encoding="utf-8")


def recovery(results: Results) -> list[Panel]:
    groups = []
    for fault in FAULTS:
        if not fault.breaks:
            continue
        bars = []
        for peer in PEERS:
            values = results.values(f"recovery/{fault.name}", peer.name, "recovery_s")
            if values:
                never = f"never (> {results.bound(f'recovery/{fault.name}', peer.name):.0f} s)"
                bars.append(_spread(peer.name, values, _seconds, never))
        groups.append(Group(fault.label, tuple(bars)))
    title = "From the fault to the next session (median; thin line: least to most; shorter is better)"
    return [Panel(title, "seconds, logarithmic", decades(0.01, 100.0), _filled(groups))]


def ack(results: Results) -> list[Panel]:
    groups = []
    for rate in load.RATES:
        bars = []
        for peer in PEERS:
            halves = results.values(f"ack/{rate}", peer.name, "p50_ms")
            tails = results.values(f"ack/{rate}", peer.name, "p99_ms")
            if halves:
                half, tail = median(halves), median(tails)
                late = f"> {results.bound(f'ack/{rate}', peer.name, 'bound_ms') / 1000:g} s"
                text = f"{_ms(half)}, p99 {_ms(tail) if math.isfinite(tail) else late}"
                bars.append(Bar(peer.name, half, half, tail, text if math.isfinite(half) else late))
        groups.append(Group(f"{rate} messages/s", tuple(bars)))
    title = "From a message to its ack (median; thin line: up to the 99th percentile; shorter is better)"
    return [Panel(title, "milliseconds, logarithmic", decades(1.0, 10_000.0), _filled(groups))]


def throughput(results: Results) -> list[Panel]:
    panels = []
    for figure, title, axis in (
        ("per_s", "Round trips a second with an instant model (median; longer is better)", "a second"),
        ("cpu_ms", "CPU a message (median; shorter is better)", "milliseconds"),
    ):
        found = [(peer, results.values("throughput", peer.name, figure)) for peer in PEERS]
        groups = [
            Group(peer.label, (_spread(peer.name, values, lambda it: f"{it:.3g}"),)) for peer, values in found if values
        ]
        most = max((each for _, values in found for each in finite(values)), default=1.0)
        panels.append(Panel(title, axis, linear(most), _filled(groups)))
    return panels


def _spread(peer: str, values: Sequence[float], show: Callable[[float], str], never: str = "never") -> Bar:
    middle, came = median(values), finite(values) or [math.inf]
    return Bar(peer, middle, min(came), max(came), show(middle) if math.isfinite(middle) else never)


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value < 0.995 else f"{value:.1f} s" if value < 9.95 else f"{value:.0f} s"


def _ms(value: float) -> str:
    return f"{value:.1f} ms" if value < 9.95 else f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.1f} s"


def _filled(groups: Sequence[Group]) -> tuple[Group, ...]:
    return tuple(group for group in groups if group.bars)
