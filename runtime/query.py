"""``python -m tatvpr_edge.runtime query FRAME...``: where is this? On a board, without click.

Frames are files as :mod:`tatvpr_edge.runtime.pixels` reads them; what cannot be read of several is
named and left out. ``tatvpr-edge query`` is the same on a host.
"""

from __future__ import annotations

import json
import sys

from tatvpr_edge.runtime import answers
from tatvpr_edge.runtime.commandline import Parser
from tatvpr_edge.runtime.localizer import Localizer
from tatvpr_edge.runtime.pixels import each_frame
from tatvpr_edge.runtime.serve import settings
from tatvpr_edge.spec.errors import FrameError
from tatvpr_edge.spec.lines import aligned, left_out
from tatvpr_edge.spec.text import printable, without_nan


def main(argv: list[str]) -> int:
    """Exit status 0; raises what is refused, and wrong usage exits with 2."""
    parser = Parser("python -m tatvpr_edge.runtime query")
    parser.add_argument("frames", nargs="+", metavar="FRAME")
    parser.add_argument("--artifact", help="folder (default: the deployed release's)")
    parser.add_argument("--map", help="place map (default: the deployed release's)")
    parser.add_settings()
    parser.add_argument("--top", type=int, default=1, help="candidates (default: 1)")
    parser.add_argument(
        "--sequence",
        type=int,
        default=1,
        help="frames that an answer rests on; the FRAMEs are then one camera's, in order",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args(argv)
    given = {**settings(arguments), "sequence": arguments.sequence}
    with Localizer(arguments.artifact, arguments.map, **given) as localizer:
        found, skipped = each_frame(
            arguments.frames,
            lambda name, pixels: (name, localizer.query(pixels, top=arguments.top)),
        )
    reasons, count = [left["reason"] for left in skipped], len(arguments.frames)
    if not found:
        many = f"not one of {count} frames can be used: " if count > 1 else ""
        raise FrameError(f"{many}{reasons[0]}")
    for line in [f"left out: {r}" for r in reasons] if arguments.json else left_out(reasons, count):
        print(printable(line), file=sys.stderr)
    if arguments.json:
        made = [{"frame": name, **match.plain()} for name, match in found]
        print(json.dumps(without_nan(made), allow_nan=False))
        return 0
    columns, rows = answers.table(found)
    right = frozenset(index for index, name in enumerate(columns) if name in answers.RIGHT)
    for line in aligned([columns, *rows], right):
        print(line)
    for line in answers.reasons(found):
        print(printable(line), file=sys.stderr)
    return 0
