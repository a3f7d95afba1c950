"""The half of a build that every kind of board shares: the model on this machine.

Whatever board the artifact is for, its golden vectors, its drift and its proof against ONNX Runtime
come from the same model compiled for the machine that builds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tatvpr_edge.boards.loader import load as load_board
from tatvpr_edge.compilers import golden
from tatvpr_edge.compilers.job import Job, is_exact, make_manifest, model_drift
from tatvpr_edge.compilers.linux import HOST, compile_linux, open_library
from tatvpr_edge.compilers.proof import prove
from tatvpr_edge.runtime.library import Library
from tatvpr_edge.spec.manifest import Golden, Manifest

if TYPE_CHECKING:
    from tatvpr_edge.compilers.tvm.lower import Lowered


@dataclass(frozen=True)
class Here:
    """A job's model as this machine runs it, and what that says of every build of it."""

    lowered: Lowered
    library: Path
    core: Library
    golden: Golden
    vectors: dict[str, bytes]  # files that ``golden`` names

    def manifest(self, job: Job, library: Path) -> Manifest:
        """The manifest of the job's artifact, whose code is ``library``."""
        return make_manifest(job, self.lowered, self.core, self.golden, library)


def built_here(job: Job, lowered: Lowered, folder: Path) -> Here:
    """Compile for this machine, measure drift, compare with ONNX Runtime, make golden vectors.

    Args:
        lowered: in the layout of Linux boards.
        folder: for what is made on the way.

    Raises:
        ToolError: no compiler, or it failed; ONNX Runtime is missing.
        ModelError: the build differs from ONNX Runtime.
    """
    job.progress("compiling for this machine", 0, 1)
    library = compile_linux(lowered, load_board(HOST), folder / "host")
    core = open_library(library, lowered)
    drift = model_drift(lowered, job, core, folder)
    prove(job, lowered.matched, core, drift)
    job.progress("golden vectors", 0, 1)
    size = lowered.matched.image_size
    entry, vectors = golden.make_golden(core, size, drift, exact=is_exact(lowered))
    return Here(lowered, library, core, entry, vectors)
