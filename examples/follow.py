"""A robot drives through a map and is followed: frame after frame, where it is and how sure.

    python examples/follow.py ARTIFACT MAP FRAMES [METRES]

MAP was made by ``tatvpr-edge map build`` and calibrated by ``map calibrate``; FRAMES are pictures
of a drive in the order of their names, METRES apart where that is given (odometry).
"""

from __future__ import annotations

import sys

from tatvpr_edge.mapping import frame_files, read_frame
from tatvpr_edge.runtime import Localizer


def main(artifact: str, place_map: str, frames: str, metres: str | None = None) -> None:
    """Print a line a frame."""
    moved = None if metres is None else float(metres)
    with Localizer(artifact, place_map, sequence=5) as localizer:
        for file in frame_files(frames):
            match = localizer.query(read_frame(file.path), odometry=moved)
            sure = "" if match.confidence is None else f", {100 * match.confidence:.0f} % sure"
            taken = "accepted" if match.accepted else "not accepted"
            print(f"{file.name}: {match.tag} ({match.state}{sure}, {taken})")


if __name__ == "__main__":
    if not 4 <= len(sys.argv) <= 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
