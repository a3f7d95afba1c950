"""What a calibration is worth on floors that it never saw: the tables of docs/placemap-log.md.

    python tools/calibration_figures.py --data FOLDER --artifact ARTIFACT [--precision .8]
    python tools/calibration_figures.py --data FOLDER --artifact ARTIFACT --sequence 5

How: :mod:`tatvpr_edge.models.evaluate.calibrated`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from given import as_json, one_line, real, tool_parser, whole

from tatvpr_edge.mapping.calibrate import KS
from tatvpr_edge.models.evaluate.calibrated import (
    Tower,
    describe,
    judge,
    judge_sequences,
    on_a_line,
)
from tatvpr_edge.runtime import Localizer
from tatvpr_edge.spec.maptypes import KINDS


@one_line
def main() -> None:
    """Measure, and print one JSON document."""
    parser = tool_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--trials", type=whole(1), default=5)
    parser.add_argument("--precision", type=real(0, 1), default=0.95)
    parser.add_argument("--kinds", default=",".join(KINDS), help="of the map")
    parser.add_argument(
        "--sequence", type=whole(1, 1000), default=1, help="frames; 1: each by itself"
    )
    parser.add_argument("--floors", default="", help="these training floors, not validation")
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"--kinds: {', '.join(sorted(unknown))}: there are {', '.join(KINDS)}")
    floors = [floor for floor in options.floors.split(",") if floor] or None
    gallery, queries = on_a_line(options.data, floors)
    document = {}
    with Localizer(options.artifact) as localizer:
        described = describe(localizer, options.data, KS, options.trials, floors)
        for kind in kinds:
            tower = Tower(localizer, kind, gallery, queries, described)
            if options.sequence > 1:
                document[kind] = judge_sequences(tower, options.sequence, options.precision)
            else:
                document[kind] = judge(tower, options.precision)
    print(as_json(document))


if __name__ == "__main__":
    sys.exit(main())
