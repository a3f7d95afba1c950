"""Compiling for a microcontroller: the static library, its sizes, and the arena it will need."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tatvpr_edge.boards.board import Board
from tatvpr_edge.boards.loader import load as load_board
from tatvpr_edge.compilers.core_sources import NUMERIC_FLAGS, Source, core_include, core_sources
from tatvpr_edge.compilers.mcu.flags import (
    HEADERS,
    OPTIMISATION,
    WARNINGS,
    extra_flags,
    has_no_libc,
)
from tatvpr_edge.compilers.mcu.generated import (
    Own,
    core_mark,
    kernels_source,
    model_source,
    weights_source,
)
from tatvpr_edge.compilers.mcu.variants import PLAIN, Variant, variant_of
from tatvpr_edge.compilers.objects import Compiler, compile_object
from tatvpr_edge.compilers.toolchains import find_compiler
from tatvpr_edge.compilers.tvm.lower import Lowered
from tatvpr_edge.spec.atomic import temporary_folder
from tatvpr_edge.spec.errors import ToolError
from tatvpr_edge.spec.mounts import noexec_mount

MODEL_FLAGS = (*NUMERIC_FLAGS, "-DTATVPR_MCU")

#: Prints the arena of every tile (its arguments), then the look-up tables where they lie apart.
_SIZES_C = """\
#include <stdio.h>
#include <stdlib.h>
#include "tatvpr_ops.h"
int main(int argc, char **argv) {
    tatvpr_program program = *tatvpr_program_get();
    const tatvpr_model model = {&program, NULL, NULL, NULL, NULL};
    for (int i = 1; i < argc; i++) {
        program.tile_tokens = atoi(argv[i]);
        printf("%zu ", tatvpr_arena_bytes(&model, 1));
    }
    printf("%zu", tatvpr_tables_bytes(&model, 1));
    return 0;
}
"""


@dataclass(frozen=True)
class Section:
    """Bytes of one static library by kind."""

    code: int  # instructions and constants, without the weights
    writable: int  # .data and .bss: none


@dataclass(frozen=True)
class Needs:
    """Bytes of RAM that the caller has to give.

    Attributes:
        arenas: by tokens of a tile.
        tables: look-up tables beside the arena; 0: they lie in it.
    """

    arenas: dict[int, int]
    tables: int = 0


def library_sources(
    lowered: Lowered, variant: Variant, folder: Path, own: Own, mark: str | None = None
) -> list[Source]:
    """All sources of the library; generated ones are written to ``folder``.

    ``mark`` is the name of the core (:func:`~tatvpr_edge.compilers.mcu.generated.core_mark`); it
    has none where it is only asked for sizes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    named = (f"-DTATVPR_CORE_ID={mark}",) if mark is not None else ()
    (folder / "model.c").write_text(model_source(lowered, own))
    (folder / "weights.bin").write_bytes(lowered.blob)
    (folder / "weights.S").write_text(weights_source(lowered, own, str(folder / "weights.bin")))
    sources = [
        *(Source(s.path, (*s.flags, *named)) for s in core_sources("mcu", variant.name)),
        Source(folder / "model.c", (*MODEL_FLAGS, *named)),
        Source(folder / "weights.S", ()),
    ]
    kernels = kernels_source(lowered, own)
    if kernels:
        (folder / "kernels.c").write_text(kernels)
        sources.append(Source(folder / "kernels.c", MODEL_FLAGS))
    return sources


def build_static_library(
    board: Board, lowered: Lowered, own: Own, folder: Path
) -> tuple[Path, Compiler]:
    """``libtatvpr_model.a`` of the core, the governor, the model and its weights.

    Raises:
        ToolError: no compiler, or a file that does not compile without a warning.
    """
    compiler = find_compiler(board)
    made = []
    sources = library_sources(lowered, variant_of(board), folder, own, core_mark(board))
    for index, source in enumerate(sources):
        flags = [
            *OPTIMISATION, *WARNINGS, *extra_flags(board), *source.flags, f"-I{core_include()}",
        ]  # fmt: skip
        name = f"{index:02d}_{source.path.stem}.o"
        made.append(compile_object(compiler, source.path, flags, folder / name))
    library = folder / Path(own.library).name
    _answer(board, "ar", "rcsD", str(library), *map(str, made))
    return library, compiler


def binutil(board: Board, name: str) -> str:
    """Name of a program that comes with the board's GCC ("PREFIXgcc", or of one version,
    "PREFIXgcc-13.2.1"): "ar", "size", "nm".

    Raises:
        ToolError: the board's compiler is no GCC.
    """
    gcc = board.toolchain.gcc
    driver = re.fullmatch(r"(.*)gcc(-[0-9.]+)?", gcc)
    if driver is None:
        raise ToolError(f"board {board.name}: {gcc} is no GCC, which has its {name} beside it")
    return f"{driver[1]}{name}"


def _answer(board: Board, name: str, *words: str) -> str:
    """What a program that comes with the board's GCC says.

    Raises:
        ToolError: it does not run, or fails.
    """
    command = [binutil(board, name), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ToolError(
            f"{command[0]} cannot be started ({error.strerror}): apt-get install "
            f"{' '.join(board.toolchain.gcc_packages)}"
        ) from None
    if done.returncode != 0:
        raise ToolError(f"{command[0]} failed: {done.stderr.strip()[:200]}")
    return done.stdout


def section_sizes(board: Board, library: Path, weight_bytes: int) -> Section:
    """What the library takes of flash and of RAM.

    Raises:
        ToolError: ``size`` of the toolchain does not run.
    """
    said = _answer(board, "size", "--format=berkeley", "--totals", str(library))
    match = re.search(r"^\s*(\d+)\s+(\d+)\s+(\d+)\s.*\(TOTALS\)", said, re.MULTILINE)
    if match is None:
        raise ToolError(f"{binutil(board, 'size')} gave no totals: {said.strip()[:200]}")
    text, data, bss = (int(part) for part in match.groups())
    return Section(text - weight_bytes, data + bss)


def functions_to_bring(board: Board, library: Path) -> list[str]:
    """Functions of the C library's mathematics that the library calls, where the board's toolchain
    brings none: the firmware has to, or it does not link.

    Raises:
        ToolError: ``nm`` of the toolchain does not run.
    """
    if not has_no_libc(board):
        return []
    said = _answer(board, "nm", "--undefined-only", str(library))
    declared = set(re.findall(r"\b(\w+)\(", (HEADERS / "math.h").read_text()))
    return sorted(declared & set(re.findall(r"\bU (\w+)$", said, re.MULTILINE)))


def memory_needs(board: Board, lowered: Lowered, of: Sequence[int], tables_apart: bool) -> Needs:
    """Bytes of RAM for each number of tokens in a tile, asked of the core itself on this machine.

    Raises:
        ToolError: this machine has no C compiler.
    """
    compiler = find_compiler(load_board("host"))
    # This machine has none of the board's instructions: plain C with the sizes of its variant.
    align = (PLAIN.define, f"-DTATVPR_ROW_ALIGN={variant_of(board).row_align}")
    with temporary_folder("arena") as scratch:
        folder = Path(scratch)
        sources = library_sources(lowered, PLAIN, folder, Own(tables_apart=tables_apart))
        (folder / "sizes.c").write_text(_SIZES_C)
        sources.append(Source(folder / "sizes.c", ("-std=c99",)))
        objects = []
        for index, source in enumerate(s for s in sources if s.path.suffix == ".c"):
            flags = ["-O1", *source.flags, *align, f"-I{core_include()}"]
            objects.append(compile_object(compiler, source.path, flags, folder / f"{index}.o"))
        program = folder / "sizes"
        parts = [str(path) for path in objects]
        compiler.run([*parts, "-lm", "-o", str(program)], "linking sizes.c")
        said = _said_by(program, *(str(tile) for tile in of))
        *arenas, tables = (int(word) for word in said.split())
    return Needs(dict(zip(of, arenas, strict=True)), tables)


def _said_by(program: Path, *words: str) -> str:
    """What a program that was just compiled prints.

    Raises:
        ToolError: it may not be started, or it fails.
    """
    try:
        command = [str(program), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except OSError as error:
        mount = noexec_mount(str(program.parent))
        remedy = (
            f"{mount} is mounted noexec: set TMPDIR to a folder elsewhere"
            if mount is not None
            else "set TMPDIR to another folder"
        )
        raise ToolError(f"{program} cannot be started ({error.strerror}): {remedy}") from None
    except subprocess.CalledProcessError as error:
        raise ToolError(f"{program} ended with exit status {error.returncode}") from None
