"""ONNX to the folder that a firmware engineer drops in; called by ``compilers.build``."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from tatvpr_edge.boards.board import Board
from tatvpr_edge.compilers.core_sources import NUMERIC_FLAGS, core_folder, core_sources
from tatvpr_edge.compilers.graph import Graph
from tatvpr_edge.compilers.mcu import folder as texts
from tatvpr_edge.compilers.mcu.choose import choose_layouts
from tatvpr_edge.compilers.mcu.compile import (
    Section,
    build_static_library,
    functions_to_bring,
    memory_needs,
    section_sizes,
)
from tatvpr_edge.compilers.mcu.fit import Fit, fit, tables_apart
from tatvpr_edge.compilers.mcu.flags import HEADERS, OPTIMISATION, extra_flags, has_no_libc
from tatvpr_edge.compilers.mcu.generated import (
    DEFAULT_PREFIX,
    Own,
    core_mark,
    kernels_source,
    model_source,
    weights_source,
)
from tatvpr_edge.compilers.mcu.project import MAP, example_files, example_map, selftest_files
from tatvpr_edge.compilers.mcu.variants import variant_of
from tatvpr_edge.compilers.report import BuildPlan, Tool, build_plan
from tatvpr_edge.compilers.toolchains import Compiler
from tatvpr_edge.compilers.tvm.lower import Lowered, lower
from tatvpr_edge.spec.artifact import write_artifact
from tatvpr_edge.spec.atomic import temporary_folder
from tatvpr_edge.spec.manifest import Code, Manifest

if TYPE_CHECKING:
    from tatvpr_edge.compilers.job import Job

_log = logging.getLogger("tatvpr_edge")

#: What users include of the governor; its other header is between its own files.
GOVERNOR_HEADER = "tatvpr_governor.h"


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A library that fits its board."""

    lowered: Lowered
    own: Own
    library: Path
    compiler: Compiler
    section: Section
    fit: Fit
    brings: list[str]  # functions of the C library that the firmware has to bring


def compile_microcontroller(job: Job, folder: Path, prefix: str = DEFAULT_PREFIX) -> Compiled:
    """Lower, size and compile; the library lies in ``folder``.

    Raises:
        BoardError: the model does not fit; the text has both figures.
        ToolError: no compiler, or it failed.
    """
    board, apart = job.board, tables_apart(job.board)
    lowered = lower_for(board, job.graph, job.name, job.k_range)
    weights = len(lowered.blob)
    needs = memory_needs(board, lowered, variant_of(board).tiles, apart)
    # what needs no compiler is refused before it is asked for
    tile = fit(board, job.name, weights, 0, needs.arenas, needs.tables).tile
    own = Own(tile, apart, prefix)
    library, compiler = build_static_library(board, lowered, own, folder)
    section = section_sizes(board, library, weights)
    arenas = {tile: needs.arenas[tile]}
    chosen = fit(board, job.name, weights, section.code, arenas, needs.tables)
    brings = functions_to_bring(board, library)
    return Compiled(lowered, own, library, compiler, section, chosen, brings)


def lower_for(board: Board, graph: Graph, name: str, k_range: tuple[float, float]) -> Lowered:
    """The model with weights laid out for this board and these k."""
    variant = variant_of(board)
    return lower(graph, name, variant.layout, choose_layouts(variant, k_range))


def build_microcontroller(job: Job, output: Path, prefix: str = DEFAULT_PREFIX) -> None:
    """Write the artifact of a microcontroller to ``output``, a folder that is not there yet.

    Raises:
        BoardError: the model does not fit; the text has both figures.
        ToolError: no compiler, or it failed.
    """
    from tatvpr_edge.compilers.here import built_here
    from tatvpr_edge.compilers.job import lower_job
    from tatvpr_edge.compilers.linux import LINUX_LAYOUT

    board, progress = job.board, job.progress
    with temporary_folder("mcu") as scratch:
        folder = Path(scratch)
        progress(f"compiling for {board.name}", 0, 1)
        made = compile_microcontroller(job, folder / "board", prefix)
        here = built_here(job, lower_job(job, LINUX_LAYOUT), folder)
        files: dict[str, bytes | str | Path] = {**here.vectors}
        manifest = dataclasses.replace(
            here.manifest(job, made.library),
            code=Code("static-library", made.own.library, board.cpu.triple),
            memory={
                "arena_bytes": made.fit.arena_bytes,
                "tables_bytes": made.fit.tables_bytes,
                "planned_bytes": made.lowered.plan.arena_bytes,
                "weight_bytes": len(made.lowered.blob),
                "code_bytes": made.section.code,
                "writable_bytes": made.section.writable,
                "tile_tokens": made.fit.tile,
            },
        )
        if made.brings:
            _log.warning(
                "the firmware has to bring %s: the compiler of %s has no C library, and without "
                "them it does not link",
                ", ".join(made.brings),
                board.name,
            )
        progress("writing the artifact", 0, 1)
        files |= members(board, made, manifest)
        if board.emulator is not None:
            files[MAP] = example_map(here.core, manifest.defaults)
        write_artifact(output, manifest, files)


def members(board: Board, made: Compiled, manifest: Manifest) -> dict[str, bytes | str | Path]:
    """Everything in the folder but the manifest, the golden vectors and the example's map."""
    lowered, own, variant = made.lowered, made.own, variant_of(board)
    flags = [
        *OPTIMISATION, *NUMERIC_FLAGS, "-DTATVPR_MCU", variant.define,
        f"-DTATVPR_CORE_ID={core_mark(board)}",
    ]  # fmt: skip
    header = texts.build_header(lowered, own, made.fit, manifest.defaults)
    files: dict[str, bytes | str | Path] = {
        own.library: made.library,
        "weights.bin": lowered.blob,
        "src/model.c": model_source(lowered, own).encode(),
        "src/weights.S": weights_source(lowered, own, "weights.bin").encode(),
        f"include/{own.prefix}_build.h": header.encode(),
        **example_files(board, own),
        **selftest_files(manifest.golden, own),
    }
    compiled = ["src/model.c", "src/weights.S"]
    if lowered.compiled_operators:
        files["src/kernels.c"] = kernels_source(lowered, own).encode()
        compiled.append("src/kernels.c")
    if has_no_libc(board):
        flags.append("-ffreestanding")
        files["src/freestanding/math.h"] = HEADERS / "math.h"
    core = core_folder()
    for path in (source.path for source in core_sources("mcu", variant.name)):
        member = f"src/{path.relative_to(core).as_posix()}"
        files[member] = path
        compiled.append(member)
    for path in sorted(core.rglob("*.h")):
        room, *inner = path.relative_to(core).parts[:-1]
        if room == "common" or (room == "mcu" and inner in ([], [variant.name])):
            files[f"src/{path.relative_to(core).as_posix()}"] = path
        elif room == "include":
            files[f"include/{path.name}"] = path
            files[f"src/include/{path.name}"] = path
        elif room == "governor":
            files[f"src/governor/{path.name}"] = path
            if path.name == GOVERNOR_HEADER:
                files[f"include/{path.name}"] = path
    command = [*board.toolchain.gcc_flags, *extra_flags(board), *flags]
    shown = [f for f in dict.fromkeys(command) if not f.startswith("-I")]
    report = texts.memory_report(
        board, lowered.name, made.fit, made.section, made.compiler.name, shown, made.brings
    )
    files["CMakeLists.txt"] = texts.cmake(compiled, flags, own).encode()
    files["zephyr/CMakeLists.txt"] = texts.zephyr_cmake(compiled, flags, own).encode()
    files["zephyr/Kconfig"] = texts.zephyr_kconfig(board, own).encode()
    files["zephyr/module.yml"] = texts.zephyr_module(own).encode()
    files["MEMORY.md"] = report.encode()
    return files


def plan_microcontroller(job: Job) -> BuildPlan:
    """What the build would be, compiled in a temporary folder because flash holds code, too.

    Raises:
        BoardError: the model does not fit; the text has both figures.
        ToolError: no compiler.
    """
    job.progress(f"compiling for {job.board.name}", 0, 1)
    with temporary_folder("plan") as scratch:
        made = compile_microcontroller(job, Path(scratch))
    tool = Tool(f"C compiler for {job.board.name}", made.compiler.name, "")
    return build_plan(job, made.lowered, made.fit.arena_bytes, [tool], regions=made.fit.rows())
