"""A match in words, for every command that prints one."""

from __future__ import annotations

import math
import re

from tatvpr_edge.runtime.found import Candidate
from tatvpr_edge.runtime.match import Match

COLUMNS = ["frame", "place", "score", "position", "sure", "accepted", "state", "k", "ms"]
#: Those that are set to the right.
RIGHT = ("score", "sure", "k", "ms")
#: Frames that one reason is said of by their names.
MOST_NAMED = 3


def table(answers: list[tuple[str, Match]]) -> tuple[list[str], list[list[str]]]:
    """(columns, rows) of (frame, match) pairs, one row a candidate; columns of which the map says
    nothing are left out."""
    nowhere = Candidate(-1, -1.0, "", None)
    rows = []
    for name, match in answers:
        for rank, candidate in enumerate(match.candidates or (nowhere,)):
            first = rank == 0
            rows.append(
                [
                    name if first else "",
                    _place(candidate),
                    f"{candidate.score:.4f}",
                    _position(candidate.pose),
                    _sureness(match) if first else "",
                    _verdict(match) if first else "",
                    (match.state or "") if first else "",
                    f"{match.k:g}" if first else "",
                    f"{match.latency_ms:.1f}" if first else "",
                ]
            )
    # A map that is not calibrated has nothing to say in these.
    empty = {
        "sure": all(match.confidence is None for _, match in answers),
        "accepted": all(match.accepted is None for _, match in answers),
        "state": all(match.state is None for _, match in answers),
    }
    shown = [index for index, column in enumerate(COLUMNS) if not empty.get(column, False)]
    return [COLUMNS[index] for index in shown], [[row[index] for index in shown] for row in rows]


def reasons(answers: list[tuple[str, Match]]) -> list[str]:
    """Lines that say why answers are not accepted: one a frame, and one for all frames of a reason
    that more than ``MOST_NAMED`` share (the table says which are accepted)."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for name, match in answers:
        if match.reason is not None:
            # What was measured of one frame stands in brackets.
            kind = re.sub(r" \([^)]*\)", "", match.reason)
            kinds.setdefault(kind, []).append((name, match.reason))
    lines = []
    for kind, frames in kinds.items():
        if len(frames) > MOST_NAMED:
            frames = [(f"{len(frames)} frames from {frames[0][0]} on", kind)]
        lines += [f"{name}: not accepted: {reason}" for name, reason in frames]
    return lines


def _place(candidate: Candidate) -> str:
    return candidate.tag or (str(candidate.place) if candidate.place >= 0 else "none")


def _position(pose: tuple[float, ...] | None) -> str:
    if pose is None:
        return "unknown"
    return " ".join(f"{value:.2f}" for value in pose[:3] if not math.isnan(value))


def _sureness(match: Match) -> str:
    return "" if match.confidence is None else f"{100 * match.confidence:.0f} %"


def _verdict(match: Match) -> str:
    return "" if match.accepted is None else ("yes" if match.accepted else "no")
