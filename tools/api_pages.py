"""Pages of the public API, from the docstrings: `make docs`.

python tools/api_pages.py build/api
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pdoc

import tatvpr_edge
import tatvpr_edge.mapping

#: Modules whose public names have a page; pdoc takes a name with ! and all below it out.
MODULES = (
    "tatvpr_edge",
    r"!tatvpr_edge\..*",
    "tatvpr_edge.runtime",
    "tatvpr_edge.mapping",
    "tatvpr_edge.ros",
    "tatvpr_edge.spec.errors",
)


def main(folder: Path) -> None:
    """Write the pages to ``folder``."""
    for lazy in (tatvpr_edge, tatvpr_edge.mapping):
        for name in lazy.__all__:
            getattr(lazy, name)  # pdoc sees what was asked for once
    pdoc.render.configure(docformat="google")
    pdoc.pdoc(*MODULES, output_directory=folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="made if missing")
    main(parser.parse_args().folder)
