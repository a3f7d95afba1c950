"""``python -m tatvpr_edge.runtime map-add MAP FRAME...``: places added on a board, without click.

Each frame is on the disk before the next is read. MAP is made where there is none. What
cannot be read, is no frame of a place (black, blank, a covered lens), or was added before (by a
command that was cut, say), is named and left out.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import sys

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.commandline import Parser
from tatvpr_edge.runtime.default import default_artifact
from tatvpr_edge.runtime.frame import check_frame
from tatvpr_edge.runtime.growing import contents, standing
from tatvpr_edge.runtime.localizer import Localizer
from tatvpr_edge.runtime.mapjournal import read_map
from tatvpr_edge.runtime.mapwriter import MapWriter, check_shows, described, full_pose
from tatvpr_edge.runtime.pixels import each_frame
from tatvpr_edge.spec.errors import FrameError, UsageError
from tatvpr_edge.spec.lines import left_out
from tatvpr_edge.spec.maptypes import make_places
from tatvpr_edge.spec.text import printable


def main(argv: list[str]) -> int:
    """Exit status 0; raises what is refused, and wrong usage exits with 2."""
    parser = Parser("python -m tatvpr_edge.runtime map-add")
    parser.add_argument("map", metavar="MAP")
    parser.add_argument("frames", nargs="+", metavar="FRAME")
    parser.add_argument("--artifact", help="folder (default: the deployed release's)")
    parser.add_argument("--pose", help="of one frame: x,y or x,y,z or x,y,z,qx,qy,qz,qw")
    parser.add_argument("--tag", help="of one frame (default: the file's name)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args(argv)
    added, skipped = _add(arguments)
    if arguments.json:
        print(json.dumps({"map": arguments.map, "added": added, "skipped": skipped}))
    else:
        for line in left_out([left["reason"] for left in skipped], len(arguments.frames)):
            print(printable(line), file=sys.stderr)
        what = "nothing"  # as where a command that was done is given again
        if added:
            first, last = added[0], added[-1]
            what = f"place {first}" if first == last else f"places {first} to {last}"
        print(f"{printable(arguments.map)}: {what} added")
    return 0


def _add(arguments: argparse.Namespace) -> tuple[list[int], list[dict[str, str]]]:
    """The places' numbers; the frames left out, each with its name and the reason."""
    if len(arguments.frames) > 1 and (arguments.pose or arguments.tag):
        raise UsageError("--pose and --tag are of one frame: add frames one by one with them")
    tags = {arguments.tag or os.path.basename(name) for name in arguments.frames}
    pose = full_pose(None if arguments.pose is None else _numbers(arguments.pose))
    artifact = arguments.artifact or default_artifact()[0]
    known: list[str] = []
    with Localizer(artifact) as localizer, contextlib.ExitStack() as stack:

        @functools.cache
        def writer() -> tuple[MapWriter, set[bytes]]:  # no map before there is a frame for it
            made = stack.enter_context(MapWriter(arguments.map, localizer))
            stored = read_map(arguments.map)
            return made, standing([stored.base.places(), stored.added], tags)

        def add(name: str, pixels: NDArray[np.uint8]) -> int:
            frame = check_frame(pixels)
            check_shows(localizer.engine, frame)
            (to, there), tag = writer(), arguments.tag or os.path.basename(name)
            rows = described(localizer, to.info, frame)
            place = make_places(to.info, [row[None] for row in rows], pose[None], [tag])
            (holds,) = contents(place)
            if holds in there:
                known.append(name)
                raise FrameError("it stands in the map already")
            number = to.add(rows, pose, tag)
            there.add(holds)  # FRAME may name it twice
            return number

        added, skipped = each_frame(arguments.frames, add)
    if not added and not known:
        raise FrameError(f"nothing was added: {skipped[0]['reason']}")
    return added, skipped


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise UsageError(f"--pose is {text!r}: numbers with commas, such as 1.5,2") from None
