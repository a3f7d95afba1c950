"""Loss curves as a picture beside their CSV."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from tatvpr_edge.models.evaluate.plot import save_figure
from tatvpr_edge.models.train.loop import read_curves


def plot_curves(path: Path) -> Path | None:
    """``curves.csv`` as ``curves.png``; None where matplotlib is not installed (the CSV stays).

    One panel for each stage, one line for each part of its loss.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None

    lines: dict[str, dict[str, tuple[list[int], list[float]]]] = defaultdict(dict)
    for row in read_curves(path):
        steps, values = lines[row["stage"]].setdefault(row["part"], ([], []))
        steps.append(int(row["step"]))
        values.append(float(row["value"]))
    if not lines:
        return None
    figure = Figure(figsize=(5 * len(lines), 3.5))
    axes = figure.subplots(1, len(lines), squeeze=False)
    for axis, (stage, parts) in zip(axes[0], lines.items(), strict=True):
        for name, (steps, values) in parts.items():
            axis.plot(steps, values, label=name)
        axis.set_title(stage)
        axis.set_xlabel("step")
        axis.set_ylabel("loss")
        axis.legend()
    figure.tight_layout()
    target = path.with_suffix(".png")
    save_figure(figure, target, dpi=110)
    return target
