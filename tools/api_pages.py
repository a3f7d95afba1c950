"""Pages of the public API, from the docstrings: `make docs`.

python tools/api_pages.py build/api
"""

from __future__ import annotations

import argparse
from pathlib import Path
from types import ModuleType

import pdoc

import tatvpr_edge
import tatvpr_edge.mapping
import tatvpr_edge.ros
import tatvpr_edge.runtime

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
    for module in (tatvpr_edge.mapping, tatvpr_edge.ros, tatvpr_edge.runtime):
        _own(module)
    pdoc.render.configure(docformat="google")
    pdoc.pdoc(*MODULES, output_directory=folder)


def _own(module: ModuleType) -> None:
    """Give the module's public classes what they have of ours that has no page: pdoc says nothing
    of such a base's members."""
    public = [getattr(module, name) for name in module.__all__]
    for cls in (of for of in public if isinstance(of, type)):
        for base in cls.__mro__[1:]:
            if base in public or not base.__module__.startswith("tatvpr_edge."):
                continue
            for name, member in vars(base).items():
                if not name.startswith("_") and name not in vars(cls):
                    setattr(cls, name, member)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="made if missing")
    main(parser.parse_args().folder)
