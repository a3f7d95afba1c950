"""``python -m tatvpr_edge.runtime query FRAME...``: where is this? On a board, without click.

Frames are files as :mod:`tatvpr_edge.runtime.pixels` reads them. ``tatvpr-edge query`` is the same
on a host.
"""

from __future__ import annotations

import json
import sys

from tatvpr_edge.runtime import answers
from tatvpr_edge.runtime.commandline import Parser
from tatvpr_edge.runtime.localizer import Localizer
from tatvpr_edge.runtime.pixels import read_pixels
from tatvpr_edge.runtime.serve import k_from_text
from tatvpr_edge.spec.lines import aligned
from tatvpr_edge.spec.text import printable, without_nan


def main(argv: list[str]) -> int:
    """Exit status 0; raises what is refused, and wrong usage exits with 2."""
    parser = Parser("python -m tatvpr_edge.runtime query")
    parser.add_argument("frames", nargs="+", metavar="FRAME")
    parser.add_argument("--artifact", help="folder (default: the deployed release's)")
    parser.add_argument("--map", help="place map (default: the deployed release's)")
    parser.add_argument("--k", help="fraction kept, or auto (default: the artifact's)")
    parser.add_argument("--tokens", type=float, help="patch tokens kept (default: the artifact's)")
    parser.add_argument("--budget", help="with --k auto: 5W, 0.2J, 40ms, 70C or battery:2h")
    parser.add_argument("--preset", help="with --k auto: turbo or battery-saver")
    parser.add_argument("--top", type=int, default=1, help="candidates (default: 1)")
    parser.add_argument(
        "--sequence",
        type=int,
        default=1,
        help="frames that an answer rests on; the FRAMEs are then one camera's, in order",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args(argv)
    governing = {"budget": arguments.budget, "preset": arguments.preset}
    sequence = arguments.sequence
    k = k_from_text(arguments.k)
    with Localizer(
        arguments.artifact, arguments.map, k, arguments.tokens, sequence=sequence, **governing
    ) as localizer:
        found = [
            (name, localizer.query(read_pixels(name), top=arguments.top))
            for name in arguments.frames
        ]
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
