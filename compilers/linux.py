"""A lowered model to the shared library of a Linux board; this machine is one of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tatvpr_edge.boards.board import NATIVE, Board
from tatvpr_edge.compilers.packing import Layout
from tatvpr_edge.compilers.toolchains import build_library
from tatvpr_edge.runtime.library import Library

if TYPE_CHECKING:
    from tatvpr_edge.compilers.tvm.lower import Lowered

LIBRARY = "lib/libtatvpr_model.so"
WEIGHTS = "weights.bin"
#: Five trits a byte: the smallest file; the core rewrites it for its kernels when it is loaded.
LINUX_LAYOUT = Layout.TRIT5

HOST = "host"


def compile_linux(
    lowered: Lowered, board: Board, folder: Path, defines: tuple[str, ...] = ()
) -> Path:
    """The shared library of a lowered model for a Linux board, made in ``folder`` (a new one).

    Raises:
        ToolError: no compiler, or it failed.
    """
    folder.mkdir(parents=True)
    model_c = folder / "model.c"
    model_c.write_text(lowered.model_c)
    kernels = folder / "kernels.o"
    objects = [kernels] if lowered.kernels_object(llvm_target(board), kernels) else []
    library = folder / Path(LIBRARY).name
    build_library(board, model_c, objects, library, defines)
    return library


def open_library(library: Path, lowered: Lowered) -> Library:
    """The library with its weights, which are written beside it."""
    weights = library.with_suffix(".weights")
    weights.write_bytes(lowered.blob)
    return Library(library, weights)


def llvm_target(board: Board) -> dict[str, object]:
    """TVM's target for the kernels that it compiles for a board."""
    if board.cpu.triple == NATIVE:
        return {"kind": "llvm"}
    # The architecture's baseline, not the board's processor: one library runs on every CPU of the
    # architecture, and the core asks the CPU before it takes a variant.
    return {"kind": "llvm", "mtriple": board.cpu.triple, "mcpu": "generic"}
