"""The demo's drive: a robot that maps while it drives, and notices that it has been here before."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tatvpr_edge.cli.sheet import GAP, INK, PAPER, RIGHT, TITLE, WRONG, save_picture
from tatvpr_edge.mapping import (
    FrameFile,
    build_map,
    calibrate_map,
    find_poses,
    frame_files,
    open_rgb,
    read_frame,
)
from tatvpr_edge.runtime import Localizer, LoopCloser, MapWriter

#: The robot of the shipped drive goes a metre a second, and takes a frame every 0.8 m.
FRAME_S = 0.8
#: A closure is right within so many metres.
RIGHT_M = 3.0
SIDE = 480
FRAME = (240, 180)
PATH, TRUTH = (230, 120, 20), (150, 150, 150)
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Loop:
    """One loop that was closed: numbers of frames, metres that odometry believes them apart, and
    metres that they are."""

    now: int
    then: int
    drift_m: float
    apart_m: float

    @property
    def right(self) -> bool:
        return self.apart_m <= RIGHT_M


@dataclass(frozen=True)
class Driven:
    """What a drive gave. Positions are float64 [N, 2], metres."""

    files: Sequence[FrameFile]
    odometry: F64
    truth: F64
    loops: Sequence[Loop]

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "frames": len(self.files),
            "loops": [vars(loop) for loop in self.loops],
            "right": sum(loop.right for loop in self.loops),
        }

    def line(self) -> str:
        """What there is to say."""
        if not self.loops:
            return f"{len(self.files)} frames, no loop found"
        right, first = sum(loop.right for loop in self.loops), self.loops[0]
        return (
            f"{len(self.files)} frames, {len(self.loops)} loops closed, {right} of them right "
            f"within {RIGHT_M:g} m; the first at frame {first.now}, where odometry was "
            f"{first.drift_m:.1f} m off"
        )


def drive(
    artifact: str, places: Path, folder: Path, scratch: Path, step: Callable[[int], None]
) -> Driven:
    """Drive along the frames of ``folder``, with its odometry, from an empty map.

    Args:
        places: has ``gallery`` and ``queries``: other places, by which answers are judged.
        scratch: an own folder for the maps.
        step: told after every frame, with 1.
    """
    files = frame_files(folder)
    odometry = find_poses(folder, files, folder / "odometry.csv").values
    truth = find_poses(folder, files).positions
    loops = []
    with Localizer(artifact, k=1.0) as localizer:
        judged, grown = scratch / "judged.placemap", scratch / "drive.placemap"
        # Single views, as the drive's own map has them: their scores are judged alike.
        build_map(localizer, places / "gallery", judged, bands=[(1.0, 1.0)], views=False)
        calibrate_map(localizer, judged, places / "queries", ks=(1.0,))
        MapWriter(grown, localizer, like=judged).close()
        localizer.map = grown
        closer = LoopCloser(localizer)
        for now, file in enumerate(files):
            made = closer.step(
                read_frame(file.path), odometry[now], str(now), time_s=1e9 + FRAME_S * now
            )
            if made.closure is not None:
                then = int(made.closure.tag)
                apart = math.dist(truth[now], truth[then])
                loops.append(Loop(now, then, made.closure.drift_m, apart))
            step(1)
    return Driven(files, odometry[:, :2], truth, loops)


def write_drive(path: Path, driven: Driven) -> None:
    """Write the PNG: the path as odometry believes it, the true one, a line for each loop, and the
    two frames of the first.

    Raises:
        DataError: it cannot be written; nothing is left behind.
    """
    size = (SIDE + 3 * GAP + FRAME[0], TITLE + SIDE + 2 * GAP)
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text(
        (GAP, GAP),
        "A lap and a half. Orange: where odometry believes the robot was. Gray: where it was. "
        "Green: been here before.",
        fill=INK,
    )
    both = np.concatenate([driven.odometry, driven.truth])
    low, span = both.min(0), float((both.max(0) - both.min(0)).max()) or 1.0

    def at(point: F64) -> tuple[float, float]:
        x, y = (point - low) / span * (SIDE - 2 * GAP)
        return float(2 * GAP + x), float(TITLE + SIDE - GAP - y)

    pen.line([at(p) for p in driven.truth], fill=TRUTH, width=1)
    for loop in driven.loops:
        ends = [at(driven.odometry[number]) for number in (loop.then, loop.now)]
        pen.line(ends, fill=RIGHT if loop.right else WRONG, width=1)
    pen.line([at(p) for p in driven.odometry], fill=PATH, width=2)
    if driven.loops:
        first = driven.loops[0]
        for row, number in enumerate((first.then, first.now)):
            corner = (SIDE + 2 * GAP, TITLE + GAP + row * (FRAME[1] + 2 * GAP + TITLE))
            sheet.paste(open_rgb(driven.files[number].path).resize(FRAME), corner)
            said = f"frame {number}" + (", and here again" if row else "")
            pen.text((corner[0], corner[1] + FRAME[1] + 2), said, fill=INK)
    save_picture(sheet, path)
