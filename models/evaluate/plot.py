"""Recall against compute: our measured points, and published points of peers marked as such."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tatvpr_edge.spec.atomic import replacing
from tatvpr_edge.spec.errors import ToolError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Published:
    """A point that others report on another data set; their compute is arithmetic."""

    name: str
    recall_at_1: float
    gflops: float


#: TAT-VPR and peers on Pitts30k, as published (recall in percent, GFLOPs computed by the authors).
PITTS30K = (
    Published("TAT-VPR BoQ, s = 0", 91.4, 38.9),
    Published("TAT-VPR BoQ, s = .4", 91.0, 27.9),
    Published("TAT-VPR BoQ, s = .6", 89.9, 22.4),
    Published("TAT-VPR SALAD, s = .4", 90.1, 25.5),
    Published("TAT-VPR MixVPR, s = .4", 89.4, 25.3),
    Published("TAT-VPR CLS, s = .4", 86.7, 25.1),
    Published("DINOv2-BoQ", 92.4, 101.8),
    Published("EigenPlaces R50", 92.5, 42.7),
)


def need_matplotlib() -> None:
    """Raise ToolError where there is nothing that draws: before the work that is to be drawn."""
    try:
        import matplotlib.figure  # noqa: F401, a broken one is found by its spec
    except ImportError as error:
        raise ToolError("plots need matplotlib: pip install 'tatvpr-edge[plot]'") from error


def plot_pareto(results: dict[str, dict[str, Any]], path: Path, protocol: str) -> Path:
    """Write the plot; the peers' points stand hollow in a panel of their own, because recall on
    different data sets cannot share an axis.

    Args:
        results: one protocol of the evaluation's JSON: model -> its values.

    Raises:
        ToolError: matplotlib is not installed.
    """
    need_matplotlib()
    from matplotlib import ticker
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4))
    panels = figure.subplots(1, 2)
    axis, other = panels
    for number, (name, values) in enumerate(results.items()):
        colour = f"C{number}"
        points = [
            (2 * macs / 1e9, values["recall@1"][k], k)
            for k, macs in values["macs"].items()
            if macs > 0
        ]
        if not points:
            recall = values["recall@1"][max(values["recall@1"], key=float)]
            axis.axhline(recall, color=colour, linestyle=":", linewidth=1, label=name)
            continue
        points.sort()
        axis.plot([p[0] for p in points], [p[1] for p in points], "o-", color=colour, label=name)
        for x, y, k in points:
            axis.annotate(f"k={k}", (x, y), textcoords="offset points", xytext=(4, 4), fontsize=7)
    axis.set_xscale("log")
    axis.set_title(f"{protocol}: measured here")
    for point in PITTS30K:
        other.plot([point.gflops], [point.recall_at_1], "o", fillstyle="none", label=point.name)
    other.set_title("Pitts30k: as published")
    other.set_xscale("log")
    for panel in panels:
        # Where an axis spans little more than a decade, matplotlib names so many steps of it that
        # they overlap.
        panel.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        panel.xaxis.set_minor_formatter(ticker.NullFormatter())
        panel.set_xlabel("GFLOP a frame")
        panel.set_ylabel("Recall@1, percent")
        panel.legend(fontsize=7)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, path, dpi=120)
    return path


def save_figure(figure: Figure, path: Path, **options: Any) -> None:
    """``figure`` at ``path``, whole or not at all; ``options`` as of ``savefig``."""
    with replacing(path) as sink:
        figure.savefig(sink, format=path.suffix[1:].lower(), **options)
