"""Plots as SVG text, for a report that needs no network, no script and no plotting library.

Colours are CSS variables of the page (``--ink``, ``--grid``, ``--series-N``), so that a plot
follows the reader's light or dark theme. All coordinates are in the plot's own pixels.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 34, 46
SERIES_COLOURS = 7

#: What a page with plots adds to the style of ``page.py``.
PLOT_STYLE = """
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr));
  gap: 16px; }
.plots figure { margin: 0; padding: 12px 12px 8px; background: var(--card); border-radius: 8px; }
figcaption { color: var(--soft); font-size: 13px; padding: 2px 6px 4px; }
svg.plot { width: 100%; height: auto; display: block; }
svg text { fill: var(--ink); font: 12px system-ui, "DejaVu Sans", sans-serif; }
svg .title { font-size: 14px; font-weight: 600; } svg .tick, svg .note { font-size: 11px; }
svg .tick, svg .label { fill: var(--soft); } .middle { text-anchor: middle; }
.end { text-anchor: end; } .grid { stroke: var(--grid); } .axis { stroke: var(--soft); }
.void { fill: none; stroke: var(--grid); stroke-dasharray: 5 5; }
.line { fill: none; stroke-width: 2; } .spread { stroke-width: 1.5; opacity: .55; }
.s0 { --own: var(--c0); } .s1 { --own: var(--c1); } .s2 { --own: var(--c2); }
.s3 { --own: var(--c3); } .s4 { --own: var(--c4); } .s5 { --own: var(--c5); }
.s6 { --own: var(--c6); }
.line, .spread { stroke: var(--own); } .bar { fill: var(--own); }
.mark.solid { fill: var(--own); stroke: var(--card); }
.mark.hollow { fill: var(--card); stroke: var(--own); stroke-width: 2; stroke-dasharray: 2 2; }
"""


@dataclass(frozen=True)
class Mark:
    """One point; ``spread`` is a thin line to a second y, ``hollow`` marks a doubtful one."""

    x: float
    y: float
    label: str = ""
    hollow: bool = False
    spread: float | None = None
    tip: str = ""


@dataclass(frozen=True)
class Series:
    """Marks that belong together, joined by a line in order of x unless ``joined`` is false."""

    name: str
    marks: Sequence[Mark] = field(default_factory=tuple)
    joined: bool = True


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) that enclose an interval."""
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("ticks need a finite interval")
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-3):
        high = low + (abs(low) or 1.0)  # nothing to tell apart
    rough = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= rough * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _number(value: float) -> str:
    if value != 0 and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return f"{value:.2g}"
    return f"{value:.4g}"


class _Frame:
    """Axes, and where data lie between them."""

    def __init__(self, xs: Sequence[float], ys: Sequence[float], from_zero: bool) -> None:
        low = 0.0 if from_zero else min(ys)
        self.x_ticks = nice_ticks(min(xs), max(xs))
        self.y_ticks = nice_ticks(low, max(ys))

    def x(self, value: float) -> float:
        low, high = self.x_ticks[0], self.x_ticks[-1]
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def draw(self, x_label: str, y_label: str) -> list[str]:
        parts = []
        for tick in self.y_ticks:
            y = self.y(tick)
            parts.append(_line("grid", (LEFT, y), (WIDTH - RIGHT, y)))
            parts.append(_text(LEFT - 7, y + 4, _number(tick), "tick end"))
        for tick in self.x_ticks:
            x = self.x(tick)
            parts.append(_line("axis", (x, HEIGHT - BOTTOM), (x, HEIGHT - BOTTOM + 4)))
            parts.append(_text(x, HEIGHT - BOTTOM + 17, _number(tick), "tick middle"))
        parts.append(_line("axis", (LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, HEIGHT - BOTTOM)))
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(_text(middle, HEIGHT - 8, x_label, "label middle"))
        centre = (TOP + HEIGHT - BOTTOM) / 2
        parts.append(
            f'<text class="label middle" transform="translate(14 {centre:.0f}) rotate(-90)">'
            f"{escape(y_label)}</text>"
        )
        return parts


def line_plot(
    name: str,
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[Series],
    missing: str = "",
    from_zero: bool = True,
) -> str:
    """A plot of one or more series; without a mark, an empty frame that says ``missing``."""
    marks = [mark for one in series for mark in one.marks]
    if not marks:
        return _svg(name, title, [*_empty(missing or "not measured")])
    ys = [mark.y for mark in marks]
    ys += [mark.spread for mark in marks if mark.spread is not None]
    frame = _Frame([mark.x for mark in marks], ys, from_zero)
    parts = frame.draw(x_label, y_label)
    for n, one in enumerate(series):
        parts += _draw_series(frame, one, n % SERIES_COLOURS)
    parts += _labels(frame, marks)
    if len([one for one in series if one.name]) > 1:
        parts += _legend([one.name for one in series if one.marks])
    return _svg(name, title, parts)


def _draw_series(frame: _Frame, series: Series, colour: int) -> list[str]:
    parts = []
    ordered = sorted(series.marks, key=lambda mark: mark.x)
    if series.joined and len(ordered) > 1:
        path = " ".join(f"{frame.x(m.x):.1f},{frame.y(m.y):.1f}" for m in ordered)
        parts.append(f'<polyline class="line s{colour}" points="{path}"/>')
    for mark in ordered:
        x, y = frame.x(mark.x), frame.y(mark.y)
        if mark.spread is not None:
            parts.append(_line(f"spread s{colour}", (x, y), (x, frame.y(mark.spread))))
        kind = "hollow" if mark.hollow else "solid"
        tip = f"<title>{escape(mark.tip)}</title>" if mark.tip else ""
        parts.append(
            f'<circle class="mark {kind} s{colour}" cx="{x:.1f}" cy="{y:.1f}" r="4.5">'
            f"{tip}</circle>"
        )
    return parts


def _labels(frame: _Frame, marks: Sequence[Mark]) -> list[str]:
    """Every label beside its mark, where it covers no mark and no other label, if it can."""
    taken = [
        (frame.x(m.x) - 5, frame.y(m.y) - 5, frame.x(m.x) + 5, frame.y(m.y) + 5) for m in marks
    ]
    parts = []
    for mark in marks:
        if not mark.label:
            continue
        x, y, wide = frame.x(mark.x), frame.y(mark.y), 6.2 * len(mark.label)
        best, least = None, math.inf
        for side, drop in ((1, 16), (-1, -7), (1, -7), (-1, 16), (1, 30), (-1, -21)):
            left = x + 7 if side > 0 else x - 7 - wide
            box = (left, y + drop - 11, left + wide, y + drop + 2)
            outside = max(0.0, LEFT - box[0]) + max(0.0, box[2] - WIDTH + RIGHT)
            outside += max(0.0, TOP - box[1]) + max(0.0, box[3] - HEIGHT + BOTTOM)
            cost = 1000.0 * outside + sum(_overlap(box, other) for other in taken)
            if cost < least:
                best, least = (side, drop, box), cost
        assert best is not None
        side, drop, box = best
        taken.append(box)
        classes = "note" if side > 0 else "note end"
        parts.append(_text(x + 7 * side, y + drop, mark.label, classes))
    return parts


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    return wide * high if wide > 0 and high > 0 else 0.0


def stacked_bars(
    name: str,
    title: str,
    x_label: str,
    rows: Sequence[tuple[str, Sequence[tuple[str, float]]]],
    missing: str = "",
) -> str:
    """Horizontal bars, one a row, each a sum of named parts; parts keep their colour and order."""
    totals = [sum(value for _, value in parts) for _, parts in rows]
    if not rows or max(totals) <= 0:
        return _svg(name, title, _empty(missing or "not measured"))
    names = list(dict.fromkeys(part for _, parts in rows for part, _ in parts))
    ticks = nice_ticks(0.0, max(totals))
    left = min(220.0, 22 + 6.4 * max(len(label) for label, _ in rows))
    span = WIDTH - left - RIGHT
    legend_height = 16 * math.ceil(len(names) / 3)
    bottom = BOTTOM + legend_height
    height = max(HEIGHT, TOP + 26 * len(rows) + bottom + 10)
    drawn: list[str] = []
    floor = height - bottom
    for tick in ticks:
        x = left + tick / ticks[-1] * span
        drawn.append(_line("grid", (x, TOP), (x, floor)))
        drawn.append(_text(x, floor + 15, _number(tick), "tick middle"))
    drawn.append(_text(left + span / 2, floor + 32, x_label, "label middle"))
    pitch = (floor - TOP) / len(rows)
    for n, (label, parts) in enumerate(rows):
        y, thick = TOP + pitch * (n + 0.18), pitch * 0.64
        drawn.append(_text(left - 8, y + thick / 2 + 4, label, "tick end"))
        cursor = 0.0
        for part, value in parts:
            x = left + cursor / ticks[-1] * span
            wide = value / ticks[-1] * span
            drawn.append(
                f'<rect class="bar s{names.index(part) % SERIES_COLOURS}" x="{x:.1f}" y="{y:.1f}" '
                f'width="{wide:.1f}" height="{thick:.1f}">'
                f"<title>{escape(part)}: {_number(value)}</title></rect>"
            )
            cursor += value
    for n, part in enumerate(names):
        x = 16 + (n % 3) * (WIDTH - 20) / 3
        y = height - legend_height + 16 * (n // 3) + 4
        drawn.append(
            f'<rect class="bar s{n % SERIES_COLOURS}" x="{x:.0f}" y="{y - 9}" width="10" '
            'height="10"/>'
        )
        drawn.append(_text(x + 15, y, part, "note"))
    return _svg(name, title, drawn, height)


def _legend(names: Sequence[str]) -> list[str]:
    """In the line of the title, from the right, where no data can lie."""
    parts: list[str] = []
    right = float(WIDTH - RIGHT)
    for n, name in reversed(list(enumerate(names))):
        right -= 6.0 * len(name) + 6
        parts.append(_text(right, 18, name, "note"))
        right -= 10
        parts.append(
            f'<circle class="mark solid s{n % SERIES_COLOURS}" cx="{right:.0f}" cy="14" r="4"/>'
        )
        right -= 12
    return parts


def _empty(reason: str) -> list[str]:
    """A frame without data, and why: wrapped, because reasons are sentences."""
    lines = textwrap.wrap(reason, 56, break_long_words=False, break_on_hyphens=False)[:8]
    top = (HEIGHT - 18 * len(lines)) / 2 + 20
    box = (
        f'<rect class="void" x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" '
        f'height="{HEIGHT - TOP - BOTTOM}"/>'
    )
    texts = [
        _text((LEFT + WIDTH - RIGHT) / 2, top + 18 * n, line, "note middle")
        for n, line in enumerate(lines)
    ]
    return [box, *texts]


def _line(classes: str, start: tuple[float, float], end: tuple[float, float]) -> str:
    (x1, y1), (x2, y2) = start, end
    return f'<line class="{classes}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, classes: str) -> str:
    return f'<text class="{classes}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _svg(name: str, title: str, parts: Sequence[str], height: float = HEIGHT) -> str:
    body = "\n".join(parts)
    return (
        f'<svg id="plot-{escape(name)}" class="plot" viewBox="0 0 {WIDTH} {height:.0f}" '
        f'role="img" aria-label="{escape(title)}" xmlns="http://www.w3.org/2000/svg">\n'
        f"{_text(LEFT, 18, title, 'title')}\n{body}\n</svg>"
    )
