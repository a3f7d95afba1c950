"""What ``evaluate MAP QUERIES`` writes: a page with pictures, a table, descriptors."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.cli.output import write_file
from tatvpr_edge.mapping import FrameFile
from tatvpr_edge.profile.page import html_page

if TYPE_CHECKING:
    from tatvpr_edge.models.evaluate.folders import Answers, Comparison

#: Queries shown on a page: a picture is about 5 kB, and a browser should open the page at once.
MOST_SHOWN = 200
_SIDE_PX = 160
_STYLE = """
h1 { overflow-wrap: anywhere; }
.query { display: flex; gap: 10px; overflow-x: auto; padding: 8px 0;
  border-bottom: 1px solid var(--grid); }
.query figure { margin: 0; flex: none; width: 160px; }
.query figure:first-child { margin-right: 14px; }
.query img { width: 160px; height: 120px; object-fit: cover; border-radius: 4px; display: block;
  border: 3px solid transparent; box-sizing: border-box; }
.query .right img { border-color: #2f855a; } .query .wrong img { border-color: #c2410c; }
figcaption { color: var(--soft); font-size: 12px; overflow-wrap: anywhere; padding-top: 2px; }
"""


def write_page(path: Path, made: Comparison, map_name: str, query_name: str) -> None:
    """One HTML file, pictures inside: recall for every k, and the answers at the first of them,
    wrong ones first.

    Raises:
        DataError: it cannot be written.
    """
    answers = made.answers[0]
    order = sorted(range(len(made.queries.files)), key=lambda q: (_is_right(answers, q), q))
    shown = order[:MOST_SHOWN]
    body = [
        f"<h1>{escape(query_name)} in {escape(map_name)}</h1>",
        f'<p class="soft">{len(made.map.files)} places, {len(made.queries.files)} queries.</p>',
        *_summary(made),
        f"<h2>Answers at k = {answers.k:g}</h2>",
        f'<p class="soft">{_legend(made, len(shown))}</p>',
        *(_query_row(made, answers, query) for query in shown),
    ]
    write_file(path, html_page(f"{query_name} in {map_name}", body, _STYLE))


def _is_right(answers: Answers, query: int) -> int:
    """0 wrong, 1 without a right answer, 2 right: the order in which a reader wants them."""
    if answers.ranks is None:
        return 0
    rank = int(answers.ranks[query])
    return 1 if rank < 0 else (2 if rank == 0 else 0)


def _legend(made: Comparison, shown: int) -> str:
    total = len(made.queries.files)
    which = f"{shown} of {total} queries" if shown < total else f"All {total} queries"
    if made.counted is None:
        return f"{which}. Left: the query; then its places, best first."
    return (
        f"{which}, wrong ones first. Left: the query; then its places, best first: green within "
        f"{made.within_m:g} m, red further off."
    )


def _summary(made: Comparison) -> Iterator[str]:
    if made.counted is None:
        yield f'<p class="warn">No recall: {escape(made.why_no_recall)}.</p>'
        return
    yield (
        f"<p>{made.counted} of {len(made.queries.files)} queries lie within {made.within_m:g} m of "
        "a place of the map and count.</p>"
    )
    yield '<div class="scroll"><table><tr><th>k</th>'
    yield "<th>Recall@1 %</th><th>Recall@5 %</th><th>Recall@10 %</th></tr>"
    for answers in made.answers:
        cells = "".join(f"<td>{answers.recall(at):.1f}</td>" for at in (1, 5, 10))
        yield f"<tr><td>{answers.k:g}</td>{cells}</tr>"
    yield "</table></div>"


def _query_row(made: Comparison, answers: Answers, query: int) -> str:
    parts = [_figure(made.queries.files[query], "", "")]
    for rank, place in enumerate(answers.places[query]):
        if place < 0:
            continue
        text, verdict = f"{answers.scores[query, rank]:.3f}", ""
        metres = math.nan if answers.metres is None else float(answers.metres[query, rank])
        if not math.isnan(metres):
            text += f", {metres:.1f} m"
            verdict = "right" if metres <= made.within_m else "wrong"
        parts.append(_figure(made.map.files[int(place)], text, verdict))
    return f'<div class="query">{"".join(parts)}</div>'


def _figure(frame: FrameFile, text: str, verdict: str) -> str:
    image = frame.picture()
    image.thumbnail((2 * _SIDE_PX, 2 * _SIDE_PX))
    image.thumbnail((_SIDE_PX, _SIDE_PX))
    sink = io.BytesIO()
    image.save(sink, format="JPEG", quality=70)
    data = base64.b64encode(sink.getvalue()).decode()
    said = f"{escape(text)}<br>" if text else ""
    return (
        f'<figure class="{verdict}"><img alt="{escape(frame.name)}" '
        f'src="data:image/jpeg;base64,{data}"><figcaption>{said}{escape(frame.name)}</figcaption>'
        "</figure>"
    )


def write_csv(path: Path, made: Comparison) -> None:
    """One line an answer: k, query, rank (from 1), place, score, metres, right.

    Raises:
        DataError: it cannot be written.
    """
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(["k", "query", "rank", "place", "score", "metres", "right"])
    for answers in made.answers:
        for query, frame in enumerate(made.queries.files):
            for rank, place in enumerate(answers.places[query]):
                if place < 0:
                    continue
                metres = None if answers.metres is None else float(answers.metres[query, rank])
                known = metres is not None and not math.isnan(metres)
                writer.writerow(
                    [
                        *(f"{answers.k:g}", frame.name, rank + 1, made.map.files[place].name),
                        f"{answers.scores[query, rank]:.6f}",
                        f"{metres:.3f}" if known else "",
                        str(metres is not None and metres <= made.within_m).lower()
                        if known
                        else "",
                    ]
                )
    write_file(path, sink.getvalue())


def write_descriptors(
    path: Path, descriptors: NDArray[np.float32], names: Sequence[str], model_hash: str, k: float
) -> None:
    """``path`` as float32 [N, D] (NumPy's format), and beside it ``.json`` with the frames' names.

    Raises:
        DataError: one cannot be written.
    """
    sink = io.BytesIO()
    np.save(sink, descriptors)
    write_file(path, sink.getvalue())
    about = {"frames": list(names), "model_hash": model_hash, "k": k}
    write_file(path.with_suffix(".json"), json.dumps(about, indent=1) + "\n")
