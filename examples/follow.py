"""A robot drives through a map and is followed: frame after frame, where it is and how sure.

    python examples/follow.py ARTIFACT MAP FRAMES [METRES]

MAP was made by ``tatvpr-edge map build`` and calibrated by ``map calibrate``; FRAMES are pictures
of a drive in the order of their names, a ROS bag or a video, METRES apart where that is given
(odometry).
"""

from __future__ import annotations

import argparse
import sys

from tatvpr_edge.mapping import frames_of
from tatvpr_edge.runtime import Localizer
from tatvpr_edge.spec.errors import DataError, TatvprError


def main(artifact: str, place_map: str, frames: str, metres: float | None) -> None:
    """Print a line a frame."""
    with Localizer(artifact, place_map, sequence=5) as localizer:
        for file in frames_of(frames):
            try:
                frame = file.read()
            except DataError as error:  # it is passed over, as a robot would
                print(f"left out: {error}", file=sys.stderr)
                continue
            match = localizer.query(frame, odometry=metres)
            sure = "" if match.confidence is None else f", {100 * match.confidence:.0f} % sure"
            taken = "accepted" if match.accepted else "not accepted"
            print(f"{file.name}: {match.tag} ({match.state}{sure}, {taken})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name in ("artifact", "map", "frames"):
        parser.add_argument(name)
    parser.add_argument("metres", type=float, nargs="?")
    given = parser.parse_args()
    try:
        main(given.artifact, given.map, given.frames, given.metres)
    except TatvprError as error:
        sys.exit(f"error: {error}")
