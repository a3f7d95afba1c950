"""One HTML page of a profile: tables and plots, no script, no network, any theme."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tatvpr_edge.profile.page import html_page
from tatvpr_edge.profile.plots import PLOT_STYLE, Mark, Series, line_plot, stacked_bars

Point = Mapping[str, Any]


def to_html(document: Mapping[str, Any]) -> str:
    """The report of a profile document."""
    artifact, device = document["artifact"], document["device"]
    title = f"{artifact['model']} on {artifact['board']}"
    machine = str(device.get("machine", ""))
    processor = str(device.get("processor", ""))
    where = machine if processor in ("", machine) else f"{machine}, {processor}"
    return html_page(
        f"{title}: profile",
        [
            f"<h1>{escape(title)}</h1>",
            f'<p class="soft">Measured on {escape(where)}. {escape(document["method"]["what"])}; '
            f"{document['method']['warmup']} queries of warm-up.</p>",
            *_warnings(document),
            "<h2>Settings</h2>",
            _table(document["points"]),
            "<h2>Plots</h2>",
            '<div class="plots">',
            *(
                f"<figure>{svg}<figcaption>{escape(text)}</figcaption></figure>"
                for svg, text in _plots(document)
            ),
            "</div>",
            "<h2>Conditions</h2>",
            _conditions(document),
        ],
        PLOT_STYLE,
    )


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of (cost, value) pairs that no other beats: none is cheaper and at least as good."""
    return [
        i
        for i, (cost, value) in enumerate(points)
        if not any(
            (c <= cost and v >= value) and (c < cost or v > value)
            for j, (c, v) in enumerate(points)
            if j != i
        )
    ]


def _warnings(document: Mapping[str, Any]) -> list[str]:
    lines = []
    for key in ("power_note", "idle_note"):
        if document["device"].get(key):
            lines.append(_sentence(str(document["device"][key])))
    bad = [point for point in document["points"] if not point["valid"]]
    if bad:
        said = "; ".join(f"{setting_of(point)} ({point.get('invalid', '')})" for point in bad)
        lines.append(f"Not valid: {said}.")
    if bad:
        lines.append(
            "Points that are not valid are drawn hollow; the governor does not use their figures."
        )
    if "recall" in document:
        lines.append(f"Recall@1 of {document['recall']['what']}.")
    return [f'<p class="warn">{escape(line)}</p>' for line in lines]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def setting_of(point: Point) -> str:
    """Its k and tokens, for people."""
    tokens = "" if point["tokens"] == 1.0 else f", tokens={point['tokens']:g}"
    return f"k={point['k']:g}{tokens}"


def _cell(value: float | None, digits: int = 2, scale: float = 1.0) -> str:
    return "–" if value is None else f"{value * scale:,.{digits}f}"


def _table(points: Sequence[Point]) -> str:
    heads = ["setting", "p50 ms", "p95 ms", "p99 ms", "queries", "energy mJ", "with idle mJ"]
    heads += ["power W", "million MACs", "Recall@1 %", "valid"]
    rows = []
    for point in points:
        latency = point["latency_ms"]
        cells = [
            escape(setting_of(point)),
            *(_cell(latency[name]) for name in ("p50", "p95", "p99")),
            str(latency["count"]),
            _cell(point["energy_mj"], 1),
            _cell(point.get("energy_gross_mj"), 1),
            _cell(point.get("power_mw"), 2, 1e-3),
            _cell(point["macs"], 1, 1e-6),
            _cell(point.get("recall"), 1, 100.0),
            "yes" if point["valid"] else '<span class="warn">no</span>',
        ]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _plots(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    points = document["points"]
    no_energy = next(
        (p["energy_note"] for p in points if p.get("energy_note")),
        "energy was not measured",
    )
    no_energy = document["device"].get("power_note") or no_energy
    no_recall = "recall was not measured with this profile: give --recall"
    latency = _over_k(points, lambda p: p["latency_ms"]["p50"], lambda p: p["latency_ms"]["p95"])
    energy = _over_k(points, lambda p: p["energy_mj"])
    macs = _over_k(points, lambda p: scaled(p["macs"], 1e-6), timed=False)
    recall = _over_k(points, lambda p: scaled(p.get("recall"), 100.0), timed=False)
    k_label = "k (fraction of activations kept)"
    return [
        (
            line_plot("latency", "Latency", k_label, "ms a query", latency),
            "Points: median. Thin lines: up to the 95th percentile.",
        ),
        (
            line_plot("energy", "Energy", k_label, "mJ a query", energy, no_energy),
            "Integrated over the run, the idle board subtracted.",
        ),
        (
            line_plot("macs", "Compute", k_label, "million MACs a query", macs, "not stated"),
            "Multiply-accumulates that remain, counted from the graph.",
        ),
        (
            line_plot("recall", "Recall@1", k_label, "%", recall, no_recall, from_zero=False),
            "Measured at exactly these settings.",
        ),
        (
            _pareto(
                "pareto-latency",
                "Recall against latency",
                points,
                "ms a query",
                lambda p: p["latency_ms"]["p50"],
                no_recall,
            ),
            "Joined: the Pareto front. Up and to the left is better.",
        ),
        (
            _pareto(
                "pareto-energy",
                "Recall against energy",
                points,
                "mJ a query",
                lambda p: p["energy_mj"],
                no_energy,
            ),
            "Joined: the Pareto front. Up and to the left is better.",
        ),
        (
            stacked_bars(
                "layers",
                "Where the time goes",
                "ms a query",
                _layer_rows(points),
                "this backend tells no layers",
            ),
            "Median of five traced queries; tracing adds a little to every layer.",
        ),
    ]


def scaled(value: float | None, by: float) -> float | None:
    """``value`` times ``by``; None stays None."""
    return None if value is None else value * by


def _over_k(
    points: Sequence[Point], value: Any, spread: Any = None, timed: bool = True
) -> list[Series]:
    """One series for each tokens; what does not depend on time is valid in a throttled run too."""
    series = []
    for tokens in sorted({point["tokens"] for point in points}, reverse=True):
        marks = [
            Mark(
                point["k"],
                float(value(point)),
                hollow=timed and not point["valid"],
                spread=None if spread is None else float(spread(point)),
                tip=f"{setting_of(point)}: {value(point):.4g}",
            )
            for point in points
            if point["tokens"] == tokens and value(point) is not None
        ]
        series.append(Series(f"tokens = {tokens:g}", marks))
    return series


def _pareto(
    name: str, title: str, points: Sequence[Point], x_label: str, cost: Any, missing: str
) -> str:
    known = [p for p in points if cost(p) is not None and p.get("recall") is not None]
    pairs = [(float(cost(point)), point["recall"] * 100.0) for point in known]
    best = set(pareto_front(pairs))
    marks = [
        Mark(
            x,
            y,
            setting_of(point),
            not point["valid"],
            tip=f"{setting_of(point)}: {y:.1f} % at {x:.4g}",
        )
        for point, (x, y) in zip(known, pairs, strict=True)
    ]
    front = Series("front", [mark for i, mark in enumerate(marks) if i in best])
    rest = Series("beaten", [m for i, m in enumerate(marks) if i not in best], joined=False)
    return line_plot(name, title, x_label, "Recall@1, %", [front, rest], missing, from_zero=False)


_GROUPS = (
    (re.compile(r"qkv"), "qkv"),
    (re.compile(r"attn|attention"), "attention"),
    (re.compile(r"out\b|proj\b(?<!head\.proj)"), "attention output"),
    (re.compile(r"mlp|fc1|fc2|ffn|up\b|down\b"), "MLP"),
    (re.compile(r"frame|patch_embed|embed"), "frame and patches"),
    (re.compile(r"head|descriptor"), "head"),
)


def _layer_rows(points: Sequence[Point]) -> list[tuple[str, list[tuple[str, float]]]]:
    rows = []
    for point in points:
        sums: dict[str, float] = {}
        for layer in point["layers"]:
            group = next((g for pattern, g in _GROUPS if pattern.search(layer["name"])), "other")
            if layer["name"].startswith("head"):
                group = "head"
            sums[group] = sums.get(group, 0.0) + layer["ms"]
        if sums:
            names = [*dict.fromkeys(name for _, name in _GROUPS), "other"]
            rows.append((setting_of(point), [(n, sums[n]) for n in names if n in sums]))
    return rows


def _conditions(document: Mapping[str, Any]) -> str:
    device, artifact = document["device"], document["artifact"]
    clocks = device.get("clock_mhz") or []
    facts = {
        "model": f"{artifact['model']} {artifact['model_hash'][:12]}",
        "backend": " ".join(filter(None, (artifact.get("backend"), artifact.get("kernels")))),
        "power mode": device.get("power_mode"),
        "clock governor": device.get("scaling_governor"),
        "clocks": ", ".join(f"{mhz:.0f}" for mhz in clocks) + " MHz" if clocks else None,
        "power source": device.get("power_source"),
        "which covers": device.get("power_covers"),
        "idle power": _watts(device.get("idle_mw")),
        "frames": ", ".join("x".join(map(str, shape)) for shape in document["method"]["frames"]),
    }
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
        for name, value in facts.items()
        if value not in (None, "")
    )
    return f"<dl>{rows}</dl>"


def _watts(milliwatts: float | None) -> str | None:
    return None if milliwatts is None else f"{milliwatts / 1000:.3f} W"
