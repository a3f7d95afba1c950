"""ONNX to the folder that a firmware engineer drops in; called by ``compilers.build``."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tatvpr_edge.boards.board import Board
from tatvpr_edge.compilers import golden
from tatvpr_edge.compilers.core_sources import NUMERIC_FLAGS, core_folder, core_sources
from tatvpr_edge.compilers.cost import frame_cost
from tatvpr_edge.compilers.graph import Graph
from tatvpr_edge.compilers.mcu import folder as texts
from tatvpr_edge.compilers.mcu.choose import choose_layouts
from tatvpr_edge.compilers.mcu.compile import (
    WEIGHTS_S,
    Section,
    arena_sizes,
    build_static_library,
    section_sizes,
)
from tatvpr_edge.compilers.mcu.fit import Fit, fit
from tatvpr_edge.compilers.mcu.flags import OPTIMISATION, extra_flags
from tatvpr_edge.compilers.mcu.variants import variant_of
from tatvpr_edge.compilers.report import BuildPlan, Tool, step_kinds
from tatvpr_edge.compilers.toolchains import Compiler
from tatvpr_edge.compilers.tvm.lower import Lowered, lower
from tatvpr_edge.spec.artifact import write_artifact
from tatvpr_edge.spec.manifest import Code

if TYPE_CHECKING:
    from tatvpr_edge.compilers.job import Job

LIBRARY = "lib/libtatvpr_model.a"
#: What users include of the governor; its other header is between its own files.
GOVERNOR_HEADER = "tatvpr_governor.h"
Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A library that fits its board."""

    lowered: Lowered
    library: Path
    compiler: Compiler
    section: Section
    fit: Fit


def compile_microcontroller(
    board: Board, graph: Graph, name: str, k_range: tuple[float, float], folder: Path
) -> Compiled:
    """Lower, size and compile; the library lies in ``folder``.

    Raises:
        BoardError: the model does not fit; the text has both figures.
        ToolError: no compiler, or it failed.
    """
    lowered = lower_for(board, graph, name, k_range)
    arenas = arena_sizes(board, lowered, variant_of(board).tiles)
    # what needs no compiler is refused before it is asked for
    tile = fit(board, name, len(lowered.blob), 0, arenas).tile
    library, compiler = build_static_library(board, lowered, tile, folder)
    section = section_sizes(board, library, len(lowered.blob))
    chosen = fit(board, name, len(lowered.blob), section.code, {tile: arenas[tile]})
    return Compiled(lowered, library, compiler, section, chosen)


def lower_for(board: Board, graph: Graph, name: str, k_range: tuple[float, float]) -> Lowered:
    """The model with weights laid out for this board and these k."""
    variant = variant_of(board)
    return lower(graph, name, variant.layout, choose_layouts(variant, k_range))


def build_microcontroller(
    board: Board,
    graph: Graph,
    name: str,
    onnx_file: Path,
    place: Path,
    k_range: tuple[float, float],
    progress: Progress,
) -> Path:
    """Write the artifact of a microcontroller to ``place``; returns its folder.

    Raises:
        BoardError: the model does not fit; the text has both figures.
        ToolError: no compiler, or it failed.
    """
    from tatvpr_edge.boards.loader import load as load_board
    from tatvpr_edge.compilers import linux
    from tatvpr_edge.compilers.job import Job, is_exact, lower_job, make_manifest, model_drift

    job = Job(board, onnx_file, graph, name, k_range, "tvm", progress)
    with tempfile.TemporaryDirectory(prefix="tatvpr-mcu-") as scratch:
        folder = Path(scratch)
        progress(f"compiling for {board.name}", 0, 1)
        made = compile_microcontroller(board, graph, name, k_range, folder / "board")
        progress("compiling for this machine", 0, 1)
        reference = lower_job(job, linux.LINUX_LAYOUT)
        host = linux.compile_linux(reference, load_board(linux.HOST), folder / "host")
        core = linux.open_library(host, reference)
        drift = model_drift(reference, job, core, folder)
        progress("golden vectors", 0, 1)
        entry, files = golden.make_golden(
            core, reference.matched.image_size, drift, exact=is_exact(reference)
        )
        manifest = dataclasses.replace(
            make_manifest(job, reference, core, entry, made.library),
            code=Code("static-library", LIBRARY, board.cpu.triple),
            memory={
                "arena_bytes": made.fit.arena_bytes,
                "planned_bytes": made.lowered.plan.arena_bytes,
                "weight_bytes": len(made.lowered.blob),
                "code_bytes": made.section.code,
                "writable_bytes": made.section.writable,
                "tile_tokens": made.fit.tile,
            },
        )
        progress("writing the artifact", 0, 1)
        place.parent.mkdir(parents=True, exist_ok=True)
        return write_artifact(place, manifest, {**members(board, made), **files}).root


def members(board: Board, made: Compiled) -> dict[str, bytes | str | Path]:
    """Everything in the folder but the manifest and the golden vectors."""
    lowered, variant = made.lowered, variant_of(board)
    flags = [
        *OPTIMISATION, *NUMERIC_FLAGS, "-DTATVPR_MCU", variant.define,
        f"-DTATVPR_TILE_TOKENS={made.fit.tile}",
    ]  # fmt: skip
    files: dict[str, bytes | str | Path] = {
        LIBRARY: made.library,
        "weights.bin": lowered.blob,
        "src/model.c": lowered.model_c.encode(),
        "src/weights.S": WEIGHTS_S.format(path="weights.bin", size=len(lowered.blob)).encode(),
        "include/tatvpr_build.h": texts.build_header(made.fit, len(lowered.blob)).encode(),
        "example/main.c": texts.TEMPLATES / "main.c",
    }
    compiled = ["src/model.c", "src/weights.S"]
    if lowered.compiled_operators:
        files["src/kernels.c"] = lowered.kernels_source().encode()
        compiled.append("src/kernels.c")
    core = core_folder()
    for path in (source.path for source in core_sources("mcu", variant.name)):
        member = f"src/{path.relative_to(core).as_posix()}"
        files[member] = path
        compiled.append(member)
    for header in sorted(core.rglob("*.h")):
        room, *inner = header.relative_to(core).parts[:-1]
        if room == "common" or (room == "mcu" and inner in ([], [variant.name])):
            files[f"src/{header.relative_to(core).as_posix()}"] = header
        elif room == "include":
            files[f"include/{header.name}"] = header
            files[f"src/include/{header.name}"] = header
        elif room == "governor":
            files[f"src/governor/{header.name}"] = header
            if header.name == GOVERNOR_HEADER:
                files[f"include/{header.name}"] = header
    command = [*board.toolchain.gcc_flags, *extra_flags(board), *flags]
    shown = [f for f in dict.fromkeys(command) if not f.startswith("-I")]
    report = texts.memory_report(
        board, lowered.name, made.fit, made.section, made.compiler.name, shown
    )
    files["CMakeLists.txt"] = texts.cmake(compiled, flags).encode()
    files["zephyr/CMakeLists.txt"] = texts.zephyr_cmake(compiled, flags).encode()
    files["zephyr/Kconfig"] = texts.ZEPHYR_KCONFIG.encode()
    files["zephyr/module.yml"] = texts.ZEPHYR_MODULE.encode()
    files["MEMORY.md"] = report.encode()
    return files


def plan_microcontroller(job: Job) -> BuildPlan:
    """What the build would be, compiled in a temporary folder because flash holds code, too.

    Raises:
        BoardError: the model does not fit; the text has both figures.
        ToolError: no compiler.
    """
    with tempfile.TemporaryDirectory(prefix="tatvpr-plan-") as scratch:
        made = compile_microcontroller(job.board, job.graph, job.name, job.k_range, Path(scratch))
    lowered = made.lowered
    return BuildPlan(
        board=job.board.name,
        model=job.name,
        model_hash=lowered.model_hash.hex(),
        backend=job.backend,
        core_steps=step_kinds(lowered.steps),
        compiled_operators=tuple(lowered.compiled_operators),
        weight_bytes=len(lowered.blob),
        arena_bytes=made.fit.arena_bytes,
        planned_bytes=lowered.plan.arena_bytes,
        costs=tuple(frame_cost(lowered.matched, k) for k in (1.0, 0.6, 0.4, 0.2)),
        tools=(Tool(f"C compiler for {job.board.name}", made.compiler.name, ""),),
        regions=made.fit.rows(),
    )
