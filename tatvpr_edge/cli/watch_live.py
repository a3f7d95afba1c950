"""``watch`` on a terminal: the last answer, its figures, and what the source says."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tatvpr_edge.cli.power import sparkline
from tatvpr_edge.runtime import answers
from tatvpr_edge.spec.text import printable

if TYPE_CHECKING:
    from tatvpr_edge.cli.watched import Answer
    from tatvpr_edge.runtime import Stream

_REFRESH_HZ = 8
#: Scores that the line of bars shows.
_BARS = 48


class View:
    """A context manager to call with each answer; it draws a few times a second by itself."""

    def __init__(self, shown: Console, frames: Stream) -> None:
        self._frames = frames
        self._lock = threading.Lock()
        self._answer: Answer | None = None
        self._scores: list[float | None] = []
        self._live = Live(get_renderable=self._drawn, console=shown, refresh_per_second=_REFRESH_HZ)

    def __enter__(self) -> View:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def __call__(self, answer: Answer) -> None:
        with self._lock:
            self._answer = answer
            self._scores = [*self._scores[1 - _BARS :], max(0.0, answer.match.score)]

    def _drawn(self) -> RenderableType:
        with self._lock:
            answer, scores = self._answer, self._scores
        trouble = self._frames.trouble
        state = f"waiting: {trouble}" if trouble else "Ctrl-C ends"
        footer = Text(printable(f"{self._frames.name}; {state}"), style="dim")
        if answer is None:
            return footer
        table = Table(box=None, pad_edge=False, show_header=False)
        for name, value in _rows(answer):
            table.add_row(name, Text(printable(value)))
        return Group(table, Text(sparkline(scores)), footer)


def _rows(answer: Answer) -> list[tuple[str, str]]:
    match = answer.match
    columns, rows = answers.table([(answer.frame.name or str(answer.frame.index), match)])
    found = list(zip(columns, rows[0], strict=True))
    if match.reason is not None:
        found.append(("reason", match.reason))
    if answer.power_w is not None:
        found.append(("W", f"{answer.power_w:.2f}"))
    if answer.rate_hz is not None:
        found.append(("a second", f"{answer.rate_hz:.1f}"))
    return [*found, ("dropped", str(answer.dropped))]
