"""Measured recall against measured latency, energy and compute, for every k of every profile.

    python tools/pareto.py profile-micro-host/profile.json --output pareto.png
    python tools/pareto.py A/profile.json B/profile.json --recall evaluation.json

Profiles are what ``tatvpr-edge profile`` writes; recall is in them, or comes from what
``tatvpr-edge evaluate --json`` printed. The points that the TAT-VPR paper published (Pitts30k,
arithmetic FLOPs, no latency and no energy) stand hollow in a panel of their own: they are other
models on another data set.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from given import as_json, one_line, plot, tool_parser

from tatvpr_edge.models.evaluate.plot import save_figure
from tatvpr_edge.profile.document import add_recall, read_document, read_recall
from tatvpr_edge.profile.report import pareto_front, scaled, setting_of
from tatvpr_edge.spec.errors import DataError


@dataclass(frozen=True)
class Panel:
    """One plot of recall against a cost."""

    title: str
    unit: str
    cost: Callable[[dict[str, Any]], float | None]
    absent: Callable[[dict[str, Any]], str]


PANELS = (
    Panel(
        "latency, measured",
        "ms a query (median)",
        lambda point: float(point["latency_ms"]["p50"]),
        lambda document: "",
    ),
    Panel(
        "energy, measured",
        "mJ a query, idle subtracted",
        lambda point: scaled(point["energy_mj"], 1.0),
        lambda document: (
            "energy was not measured:\n"
            + (document["device"].get("power_note") or "no reading").partition(" (")[0]
        ),
    ),
    Panel(
        "compute, counted",
        "GMACs a query",
        lambda point: scaled(point["macs"], 1e-9),
        lambda document: "compute is not stated",
    ),
)


def load(paths: Sequence[Path], recall: Path | None) -> list[dict[str, Any]]:
    """Profile documents, each with the recall of at least one point.

    Raises:
        DataError: no profile, no recall, or recall at other settings than those profiled.
    """
    documents = []
    for path in paths:
        document = read_document(path)
        if recall is not None:
            add_recall(document, *read_recall(recall))
        if all(point.get("recall") is None for point in document["points"]):
            raise DataError(
                f"{path} carries no recall: profile with --recall, or give --recall FILE with the "
                "settings that were profiled"
            )
        documents.append(document)
    return documents


def draw(documents: Sequence[dict[str, Any]], output: Path, published: bool) -> None:
    """The figure."""
    from matplotlib.figure import Figure

    count = len(PANELS) + published
    figure = Figure(figsize=(4.8 * count, 4.8), layout="constrained")
    axes = figure.subplots(1, count)
    for panel, axis in zip(PANELS, axes, strict=False):
        drawn = sum(_draw_one(axis, panel, document) for document in documents)
        if not drawn:
            axis.text(
                0.5, 0.5, panel.absent(documents[0]), ha="center", va="center",
                transform=axis.transAxes, color="#5b6675",
            )  # fmt: skip
            axis.set(xticks=[], yticks=[])
        axis.set(xlabel=panel.unit, title=panel.title)
        axis.grid(color="#e5e7eb")
        axis.set_axisbelow(True)
    axes[0].set_ylabel("Recall@1, %")
    if published:
        _draw_published(axes[-1])
    if axes[0].get_legend_handles_labels()[0]:
        axes[0].legend(fontsize=8, loc="best")
    figure.text(0.01, -0.02, _caption(documents), fontsize=8, color="#5b6675", va="top")
    save_figure(figure, output, dpi=130, bbox_inches="tight")


def _draw_one(axis: Any, panel: Panel, document: dict[str, Any]) -> int:
    points = [
        (float(cost), 100.0 * point["recall"], point)
        for point in document["points"]
        if (cost := panel.cost(point)) is not None and point.get("recall") is not None
    ]
    if not points:
        return 0
    artifact = document["artifact"]
    name = f"{artifact['model']} on {artifact['board']}"
    front = sorted((points[i] for i in pareto_front([(x, y) for x, y, _ in points])),
                   key=lambda point: point[0])  # fmt: skip
    (line,) = axis.plot([x for x, _, _ in front], [y for _, y, _ in front], lw=1.5, alpha=0.6)
    timed = panel is not PANELS[2]
    for valid in (True, False):
        some = [p for p in points if (p[2]["valid"] or not timed) is valid]
        axis.scatter(
            [x for x, _, _ in some], [y for _, y, _ in some], zorder=3, s=38,
            facecolor=line.get_color() if valid else "white", edgecolor=line.get_color(),
            label=(name if valid else f"{name}, run not valid") if some else None,
        )  # fmt: skip
    for x, y, point in points:
        axis.annotate(
            setting_of(point), (x, y), xytext=(5, -11), textcoords="offset points", fontsize=8
        )
    return len(points)


def _draw_published(axis: Any) -> None:
    """Hollow, in a panel of their own: recall on different data sets shares no axis."""
    from tatvpr_edge.models.evaluate.plot import PITTS30K

    for number, point in enumerate(PITTS30K, 1):
        axis.scatter(
            point.gflops, point.recall_at_1, marker="D", facecolor="none", edgecolor="#8a94a3",
            s=34, label=f"{number}  {point.name}",
        )  # fmt: skip
        axis.annotate(
            str(number), (point.gflops, point.recall_at_1), xytext=(6, 3),
            textcoords="offset points", fontsize=8, color="#5b6675",
        )  # fmt: skip
    axis.set(xlabel="GFLOPs (arithmetic)", title="published by others: Pitts30k")
    axis.legend(fontsize=7, loc="lower right", markerscale=0.0, handlelength=0, frameon=False)
    axis.grid(color="#e5e7eb")
    axis.set_axisbelow(True)


def _caption(documents: Sequence[dict[str, Any]]) -> str:
    lines = []
    for document in documents:
        device = document["device"]
        what = document.get("recall", {}).get("what", "recall as stored in the profile")
        lines.append(
            f"{document['artifact']['model']} on {document['artifact']['board']}: measured on "
            f"{device['machine']}, {device['processor']}; recall of {what}"
        )
    lines.append(
        "Hollow diamonds: published for other models and another data set; their compute is "
        "arithmetic, and no latency or energy was published."
    )
    return "\n".join(lines)


@one_line
def main() -> int:
    """Exit status."""
    parser = tool_parser(__doc__)
    parser.add_argument("profiles", nargs="+", type=Path, metavar="PROFILE.json")
    parser.add_argument("--recall", type=Path, help="what 'tatvpr-edge evaluate --json' printed")
    parser.add_argument("--output", type=plot, default="pareto.png")
    parser.add_argument("--no-published", action="store_true", help="leave the paper's points out")
    arguments = parser.parse_args()
    documents = load(arguments.profiles, arguments.recall)
    draw(documents, arguments.output, not arguments.no_published)
    table = [
        {"k": p["k"], "tokens": p["tokens"], "recall": p["recall"], "p50_ms":
         p["latency_ms"]["p50"], "energy_mj": p["energy_mj"], "macs": p["macs"]}
        for document in documents for p in document["points"]
    ]  # fmt: skip
    print(as_json(table))
    print(f"{arguments.output}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
