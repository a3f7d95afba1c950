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
    judged = found.band.calibration
    precision = judged.precision if judged else 0.0
    if judged and judged.sequence and found.tracked is not None:
        precision = judged.sequence.precision
    if not precision:
        return "its score is below the map's threshold"
    if found.margin is None:
        return "the map holds too few places elsewhere to compare it with"
    return f"too unsure for the map's precision of {100 * precision:.0f} %"


def say_uncalibrated(path: Path, frames: int = 1, calibrated_frames: int = 0) -> None:
    """Logs how ``accepted`` and ``confidence`` are had.

    Args:
        frames: of the sequence that was asked with.
        calibrated_frames: of the sequences that the map judges; 0: none.
    """
    if frames == 1:
        _log.warning(
            "map %s is not calibrated, so that accepted is None: run 'tatvpr-edge map calibrate "
            "%s'",
            path,
            path,
        )
        return
    _log.warning(
        "map %s is not calibrated for sequences of %d frames%s, so that accepted is None: run "
        "'tatvpr-edge map calibrate %s --sequence %d'",
        path,
        frames,
        f" (it is for {calibrated_frames})" if calibrated_frames else "",
        path,
        frames,
    )
