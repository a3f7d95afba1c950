"""Whether a frame's answer may be taken for right, why not, and how a map comes to judge it."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.deployed import release_of
from tatvpr_edge.runtime.found import Found
from tatvpr_edge.runtime.frame import CameraFrame
from tatvpr_edge.runtime.placemap import PlaceMap
from tatvpr_edge.runtime.search import NoDescriptionError
from tatvpr_edge.runtime.structure import without_structure
from tatvpr_edge.runtime.tracking import calibrated_frames
from tatvpr_edge.spec.calibration import Calibration, SequenceCalibration

_log = logging.getLogger("tatvpr_edge")


def look(
    place_map: PlaceMap,
    frame: CameraFrame,
    descriptor: NDArray[np.float32],
    k: float,
    tokens: float,
    top: int,
    looked: dict[str, Any],
) -> tuple[Found, str | None]:
    """What one frame by itself finds, and why it shows nothing, if it does."""
    try:
        found = place_map.search(descriptor, k, tokens, top, **looked)
    except NoDescriptionError as error:
        return Found((), place_map.info.bands[0], False), str(error)
    # A map that accepts nothing need not pay for it.
    if found.accepted is None:
        return found, None
    return found, without_structure(place_map.engine, frame)


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
    judged: Calibration | SequenceCalibration | None = found.band.calibration
    if found.tracked is not None and found.band.calibration and found.band.calibration.sequence:
        judged = found.band.calibration.sequence
    if judged is None or not judged.precision:
        return "its score is below the map's threshold"
    if found.margin is None:
        return "the map holds too few places elsewhere to compare it with"
    precision = f"the map's precision of {100 * judged.precision:g} %"
    if not judged.recall:
        return f"nothing reaches {precision}: calibrate it from a longer drive, or for a lower one"
    return f"too unsure for {precision}"


def say_uncalibrated(path: Path, frames: int = 1, calibrated_frames: int = 0) -> None:
    """Logs how ``accepted`` and ``confidence`` are had.

    Args:
        frames: of the sequence that was asked with.
        calibrated_frames: of the sequences that the map judges; 0: none.
    """
    if frames == 1:
        _log.warning(
            "map %s is not calibrated, so that accepted is None: %s", path, calibrating(path)
        )
        return
    _log.warning(
        "map %s is not calibrated for sequences of %d frames%s, so that accepted is None: %s",
        path,
        frames,
        f" (it is for {calibrated_frames})" if calibrated_frames else "",
        calibrating_sequences(path, frames),
    )


def calibrating(path: str | Path, options: str = "", of_what: str = "") -> str:
    """What calibrates the map at ``path``. A deployed one is calibrated where it was made: a board
    has no such command, and the next deploy of that map would lose what it learned."""
    if release_of(path) is None:
        return f"run `tatvpr-edge map calibrate {shlex.quote(str(path))}{options}`{of_what}"
    return (
        f"run `tatvpr-edge map calibrate MAP{options}`{of_what} on the host that has it, and "
        "deploy it again"
    )


def calibrating_sequences(path: str | Path, frames: int) -> str:
    """The same for sequences of so many frames."""
    return calibrating(path, f" DRIVE --sequence {frames}", " with a drive through its places")


class UncalibratedNote:
    """Tells, once a map and length of sequence, that nothing was judged."""

    def __init__(self) -> None:
        self._told: set[tuple[Path, int]] = set()

    def __call__(self, path: Path, frames: int, found: Found) -> None:
        """Look at what the map at ``path`` answered to a sequence of ``frames``."""
        if found.accepted is None and (path, frames) not in self._told:
            self._told.add((path, frames))
            say_uncalibrated(path, frames, calibrated_frames(found.band))
