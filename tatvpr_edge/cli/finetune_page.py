"""The report of ``finetune``: recall before and after as a table and as a picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from tatvpr_edge.profile.page import html_page
from tatvpr_edge.profile.plots import PLOT_STYLE, Mark, Series, line_plot
from tatvpr_edge.spec.lines import MOST_NAMED

if TYPE_CHECKING:
    from tatvpr_edge.mapping import Skipped
    from tatvpr_edge.models.train.finetune import Judgement


def page(
    frames: str,
    start: str,
    said: str,
    judged: Sequence[Judgement],
    kept: bool,
    skipped: Sequence[Skipped],
    curves: Path,
) -> str:
    """One HTML file, no script and no network.

    Args:
        frames, start: the folder and the weights, as they were given.
        said: how the folder was divided.
        curves: the training's ``curves.csv``.
    """
    title = f"{start} on {frames}"
    body = [f"<h1>{escape(title)}</h1>", f'<p class="soft">{escape(said)}.</p>']
    if not kept:
        body.append(
            '<p class="warn">The frames held out are not found better: nothing was exported.</p>'
        )
    for part in judged:
        body += _part(part)
    plots = [_recall_plot(part) for part in judged]
    losses = _losses(curves)
    if losses:
        plots.append(line_plot("loss", "training", "step", "loss", losses))
    body += ["<h2>Plots</h2>", '<div class="plots">']
    body += [*(f"<figure>{plot}</figure>" for plot in plots), "</div>"]
    if skipped:
        body.append(f"<h2>Frames left out: {len(skipped)}</h2><ul>")
        body += [f"<li>{escape(frame.reason)}</li>" for frame in skipped[:MOST_NAMED]]
        body.append("</ul>")
    return html_page(title, body, PLOT_STYLE)


def _part(part: Judgement) -> Iterator[str]:
    gain = part.gain
    yield f"<h2>{escape(part.name[:1].upper() + part.name[1:])}</h2>"
    yield (
        f"<p>{part.queries} queries over {part.places} places; Recall@1 changed by "
        f"{gain.mean:+.1f} points (95 % interval {gain.low:+.1f} to {gain.high:+.1f}).</p>"
    )
    yield '<div class="scroll"><table><tr><th>k</th><th>before %</th><th>after %</th>'
    yield "<th>points</th></tr>"
    for k, before in part.before.items():
        after = part.after[k]
        cells = f"<td>{before:.1f}</td><td>{after:.1f}</td><td>{after - before:+.1f}</td>"
        yield f"<tr><td>{k:g}</td>{cells}</tr>"
    yield "</table></div>"


def _recall_plot(part: Judgement) -> str:
    series = [
        Series(name, [Mark(k, value) for k, value in values.items()])
        for name, values in (("before", part.before), ("after", part.after))
    ]
    name = "-".join(part.name.split()[:2])
    return line_plot(name, part.name, "k", "Recall@1 %", series)


def _losses(curves: Path) -> list[Series]:
    from tatvpr_edge.models.train.loop import read_curves

    parts: dict[str, list[Mark]] = defaultdict(list)
    for row in read_curves(curves):
        parts[row["part"]].append(Mark(float(row["step"]), float(row["value"])))
    return [Series(name, marks) for name, marks in parts.items()]
