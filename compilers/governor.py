"""The governor alone, compiled for this machine: for simulation and tests, which have no artifact.

On a device it is part of the artifact's library. The C files and their flags are the same.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path

from tatvpr_edge.boards.loader import load
from tatvpr_edge.compilers.core_sources import NUMERIC_FLAGS, core_include, governor_sources
from tatvpr_edge.compilers.linux import HOST
from tatvpr_edge.compilers.toolchains import OPTIMISATION, compile_object, find_compiler
from tatvpr_edge.runtime.governor import GovernorCore
from tatvpr_edge.spec.atomic import temporary_folder


@lru_cache(maxsize=1)
def host_governor() -> GovernorCore:
    """The governor of this source tree, as code of this process.

    Raises:
        ToolError: no compiler, or it failed.
    """
    with temporary_folder("governor") as scratch:
        return GovernorCore(ctypes.CDLL(str(build_governor(governor_sources(), Path(scratch)))))


def build_governor(sources: list[Path], folder: Path) -> Path:
    """A shared library of the governor's C files in ``folder``; objects come from the cache.

    Raises:
        ToolError: no compiler, or it failed.
    """
    compiler = find_compiler(load(HOST))
    flags = (*OPTIMISATION, *NUMERIC_FLAGS, "-fvisibility=hidden", "-fPIC")
    include = f"-I{core_include()}"  # their own headers lie beside them
    objects = [
        compile_object(compiler, source, (*flags, include), folder / f"{source.stem}.o")
        for source in sources
    ]
    library = folder / "libtatvpr_governor.so"
    compiler.run(["-shared", "-o", str(library), *map(str, objects)], "linking the governor")
    return library
