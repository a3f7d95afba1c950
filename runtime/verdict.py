"""Why a match is not accepted, in words; and, once, how a map comes to be calibrated."""

from __future__ import annotations

import logging
from pathlib import Path

from tatvpr_edge.runtime.placemap import Found

_log = logging.getLogger("tatvpr_edge")


def reason_against(found: Found, nothing: str | None) -> str | None:
    """Why the best place must not be taken for right; None where it is accepted or not judged.

    Args:
        nothing: what is wrong with the frame itself, if anything.
    """
    if nothing is not None:
        return nothing
    if not found.candidates:
        return "every place was left out"
    if found.accepted is not False:
        return None
    precision = found.band.calibration.precision if found.band.calibration else 0.0
    if not precision:
        return "its score is below the map's threshold"
    if found.margin is None:
        return "the map holds too few places elsewhere to compare it with"
    return f"too unsure for the map's precision of {100 * precision:.0f} %"


def say_uncalibrated(path: Path) -> None:
    """Logs how ``accepted`` and ``confidence`` are had."""
    _log.warning(
        "map %s is not calibrated, so that accepted is None: run 'tatvpr-edge map calibrate %s'",
        path,
        path,
    )
