"""ONNX to artifact: what ``tatvpr-edge build`` and ``tatvpr_edge.build`` call.

Reads top to bottom as the pipeline: check, lower, compile, measure, assemble.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tatvpr_edge
from tatvpr_edge.boards.board import NATIVE, Board
from tatvpr_edge.boards.loader import load as load_board
from tatvpr_edge.compilers import golden, ir
from tatvpr_edge.compilers.checks import checked_graph
from tatvpr_edge.compilers.cost import frame_cost
from tatvpr_edge.compilers.graph import Graph
from tatvpr_edge.compilers.packing import Layout
from tatvpr_edge.compilers.report import BuildPlan, Tool, check_fit, step_kinds
from tatvpr_edge.compilers.toolchains import build_library, find_compiler
from tatvpr_edge.compilers.tvm.lower import Lowered, lower
from tatvpr_edge.runtime.library import Library
from tatvpr_edge.spec.artifact import write_artifact
from tatvpr_edge.spec.cache import host_artifact
from tatvpr_edge.spec.core_sources import core_include
from tatvpr_edge.spec.errors import ArtifactError, ModelError, ToolError, UsageError
from tatvpr_edge.spec.limits import check_fraction
from tatvpr_edge.spec.manifest import Code, Manifest, ModelEntry

LIBRARY = "lib/libtatvpr_model.so"
WEIGHTS = "weights.bin"
BACKENDS = ("tvm", "tensorrt")
HOST = "host"
#: (k, tokens) whose multiply-accumulates every manifest states.
COMPUTE_POINTS = (
    *((k, 1.0) for k in (1.0, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05)),
    *((k, 0.5) for k in (1.0, 0.4, 0.2)),
)
#: Standard operators that give the same bits however a compiler treats them.
_MOVING = (
    *("Concat", "Reshape", "Slice", "Gather", "Transpose", "Squeeze", "Unsqueeze", "Flatten"),
    ir.FIRST_ROW,
)
_ROUNDING_ONCE = ("Identity", "Add", "Sub", "Neg", "Max", "Min", "Relu", "Clip")
EXACT_OPERATORS = frozenset((*_MOVING, *_ROUNDING_ONCE))
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class _Job:
    """Arguments of a build after their checks."""

    board: Board
    onnx_file: Path
    graph: Graph
    name: str
    k_range: tuple[float, float]
    backend: str
    progress: Progress


def build_artifact(
    board: str,
    *,
    model: str | os.PathLike[str] = "micro",
    output: str | os.PathLike[str] | None = None,
    k_range: tuple[float, float] = (0.05, 1.0),
    backend: str = "tvm",
    dry_run: bool = False,
    sign: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Path | BuildPlan:
    """Build the artifact of ``model`` for ``board``; returns its folder.

    Args:
        model: a shipped model's name, or an ONNX file.
        output: a folder that does not exist yet. Without it ``./MODEL-BOARD``; for ``host`` the
            cached artifact that ``Localizer()`` takes, which is replaced.
        k_range: smallest and largest k that the artifact is checked for.
        dry_run: change nothing and return the :class:`BuildPlan`.
        sign: a private SSH key (Ed25519) to sign the artifact with.
        progress: called as ``progress(what, done, of)``.

    Raises:
        TatvprError: one line that names what is wrong (arguments, model, board, tools, output).
    """
    say = progress if progress is not None else _silent
    target = load_board(board)
    if backend not in BACKENDS:
        raise UsageError(f"unknown backend {backend!r}: it is one of {', '.join(BACKENDS)}")
    low, high = (check_fraction(value, "k-range") for value in k_range)
    if low > high:
        raise UsageError(f"k-range is {low:g}:{high:g}: write the smaller k first")
    onnx_file = find_model(model)
    say("checking the model", 0, 1)
    graph = checked_graph(onnx_file)
    job = _Job(target, onnx_file, graph, _model_name(graph, onnx_file), (low, high), backend, say)
    if backend == "tensorrt" and target.gpu is None:
        raise UsageError(f"board {board} has no GPU for TensorRT: leave --backend out")
    if dry_run and target.kind == "microcontroller":
        from tatvpr_edge.compilers.mcu.build import plan_microcontroller

        return plan_microcontroller(job)
    if dry_run:
        return _plan(job, _lower(job, Layout.ROWS2))
    place, replace = _output_folder(job, output)
    if target.kind == "microcontroller":
        from tatvpr_edge.compilers.mcu.build import build_microcontroller

        made = build_microcontroller(target, graph, job.name, onnx_file, place, job.k_range, say)
    else:
        made = _build_linux(job, place, replace)
    if sign is not None:
        from tatvpr_edge.runtime.signature import sign_artifact

        sign_artifact(made, os.fspath(sign))
    return made


def find_model(model: str | os.PathLike[str]) -> Path:
    """The ONNX file of a shipped model's name, or the file itself.

    Raises:
        ModelError: neither a shipped model nor a file.
    """
    text = os.fspath(model)
    if text.endswith(".onnx") or os.sep in text:
        if not Path(text).is_file():
            raise ModelError(f"{text}: no such ONNX file; 'tatvpr-edge models' lists shipped ones")
        return Path(text)
    from tatvpr_edge.spec import zoo

    return zoo.path(text)


def _model_name(graph: Graph, onnx_file: Path) -> str:
    """A short name that fits C text, file names and errors."""
    name = graph.metadata.get("tatvpr.model", "") or onnx_file.stem
    return re.sub(r"[^0-9A-Za-z._-]+", "-", name)[:60].strip("-.") or "model"


def _lower(job: _Job, layout: Layout) -> Lowered:
    job.progress("lowering with TVM", 0, 1)
    return lower(job.graph, job.name, layout)


def _output_folder(job: _Job, output: str | os.PathLike[str] | None) -> tuple[Path, bool]:
    """Where the artifact goes, and whether something there may be replaced."""
    if output is None and job.board.name == HOST:
        return host_artifact(), True
    place = Path(output) if output is not None else Path(f"{job.name}-{job.board.name}")
    if place.exists() or place.is_symlink():
        raise ArtifactError(f"{place} exists: choose another --output, or remove it first")
    return place, False


def _build_linux(job: _Job, place: Path, replace: bool) -> Path:
    lowered = _lower(job, Layout.ROWS2)
    with tempfile.TemporaryDirectory(prefix="tatvpr-build-") as scratch:
        folder = Path(scratch)
        host = load_board(HOST)
        job.progress("compiling for this machine", 0, 1)
        host_library = compile_linux(lowered, host, folder / "host")
        library = host_library
        if job.board.cpu.triple != NATIVE:
            job.progress(f"compiling for {job.board.name}", 0, 1)
            library = compile_linux(lowered, job.board, folder / "board")
        core = open_library(host_library, lowered)
        drift = model_drift(lowered, job, core, folder)
        job.progress("golden vectors", 0, 1)
        entry, files = golden.make_golden(
            core, lowered.matched.image_size, drift, exact=is_exact(lowered)
        )
        manifest = _manifest(job, lowered, core, entry, library)
        members: dict[str, bytes | str | Path] = {
            LIBRARY: library,
            WEIGHTS: lowered.blob,
            "include/tatvpr.h": core_include() / "tatvpr.h",
            "src/model.c": lowered.model_c.encode(),
            **files,
        }
        if job.backend == "tensorrt":
            from tatvpr_edge.compilers.tensorrt.build import add_tensorrt

            manifest, members = add_tensorrt(job.board, job.onnx_file, manifest, members)
        job.progress("writing the artifact", 0, 1)
        place.parent.mkdir(parents=True, exist_ok=True)
        if replace and place.exists():
            shutil.rmtree(place)
        return write_artifact(place, manifest, members).root


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
    features = [f"+{name}" for name in board.cpu.features]
    return {
        "kind": "llvm",
        "mtriple": board.cpu.triple,
        "mcpu": board.cpu.llvm_cpu,
        "mattr": features,
    }


def is_exact(lowered: Lowered) -> bool:
    """Whether every CPU gives the same bytes: nothing that TVM compiles rounds twice."""
    return all(
        node.op_type in EXACT_OPERATORS
        for node in lowered.matched.graph.nodes
        if lowered.matched.step_of(node) is None
    )


def model_drift(
    lowered: Lowered, job: _Job, core: Library, folder: Path
) -> list[golden.DriftPoint]:
    """Known drift of the model, or a measurement that is then remembered."""
    points = golden.points_within(job.k_range, lowered.matched.keeps_tokens)
    known = golden.known_drift(lowered.model_hash, job.onnx_file, points)
    if known is not None:
        return known
    library = compile_linux(lowered, load_board(HOST), folder / "permuted", ("-DTATVPR_PERMUTED",))
    permuted = open_library(library, lowered)
    drift = golden.measure_drift(
        core, permuted, lowered.matched.image_size, points, progress=job.progress
    )
    golden.cache_drift(lowered.model_hash, drift)
    return drift


def _manifest(
    job: _Job, lowered: Lowered, core: Library, entry: golden.Golden, library: Path
) -> Manifest:
    matched = lowered.matched
    native = job.board.cpu.triple == NATIVE
    points = [(k, t) for k, t in COMPUTE_POINTS if t == 1.0 or matched.keeps_tokens]
    return Manifest(
        board=job.board.name,
        model=ModelEntry(
            name=job.name,
            hash=lowered.model_hash.hex(),
            head=head_kind(lowered, job.graph),
            descriptor_size=matched.descriptor_size,
            image_size=matched.image_size,
            token_dim=matched.token_dim,
            max_tokens=matched.max_tokens,
        ),
        code=Code(
            kind="shared-library",
            path=LIBRARY,
            triple=_host_triple() if native else job.board.cpu.triple,
            kernels=core.kernel_names if native else (),
        ),
        created_with=f"tatvpr-edge {tatvpr_edge.__version__}",
        weights=WEIGHTS,
        golden=entry,
        k_range=job.k_range,
        memory={
            "arena_bytes": int(core.info.arena_bytes),
            "planned_bytes": lowered.plan.arena_bytes,
            "weight_bytes": len(lowered.blob),
            "library_bytes": library.stat().st_size,
        },
        compute=tuple(frame_cost(matched, k, t).to_dict() for k, t in points),
    )


def head_kind(lowered: Lowered, graph: Graph) -> str:
    """What the exporter called the head, else what the graph shows."""
    named = graph.metadata.get("tatvpr.head", "")
    if re.fullmatch(r"[a-z0-9_-]{1,40}", named):
        return named
    if any(isinstance(step, ir.Gem) for step in lowered.steps):
        return "gem"
    return "cls" if is_exact(lowered) else "learned"


def _host_triple() -> str:
    import platform

    system = {"Darwin": "apple-darwin"}.get(platform.system(), "linux-gnu")
    return f"{platform.machine()}-{system}"


def _plan(job: _Job, lowered: Lowered) -> BuildPlan:
    """What the build would be; the arena is asked of the core where a C compiler is at hand."""
    tools = [_tool(job.board)]
    host = load_board(HOST)
    if job.board.name != HOST:
        tools.append(_tool(host))
    arena: int | None = None
    can_compile = tools[-1].found is not None
    board_steps: tuple[str, ...] = ()
    if job.backend == "tensorrt":
        from tatvpr_edge.compilers.tensorrt import build as tensorrt

        board_steps = tensorrt.board_steps(job.board, job.graph)
        tools += tensorrt.tools(job.board)
    if can_compile:
        with tempfile.TemporaryDirectory(prefix="tatvpr-plan-") as scratch:
            library = compile_linux(lowered, host, Path(scratch) / "host")
            arena = int(open_library(library, lowered).info.arena_bytes)
    needed = arena if arena is not None else lowered.plan.arena_bytes
    return BuildPlan(
        board=job.board.name,
        model=job.name,
        model_hash=lowered.model_hash.hex(),
        backend=job.backend,
        core_steps=step_kinds(lowered.steps),
        compiled_operators=tuple(lowered.compiled_operators),
        weight_bytes=len(lowered.blob),
        arena_bytes=arena,
        planned_bytes=lowered.plan.arena_bytes,
        costs=tuple(frame_cost(lowered.matched, k) for k in (1.0, 0.6, 0.4, 0.2)),
        tools=tuple(tools),
        regions=check_fit(job.board, job.name, len(lowered.blob), needed),
        board_steps=board_steps,
    )


def _tool(board: Board) -> Tool:
    try:
        return Tool(f"C compiler for {board.name}", find_compiler(board).name, "")
    except ToolError as error:
        return Tool(f"C compiler for {board.name}", None, str(error).partition(": ")[2])


def _silent(what: str, done: int, of: int) -> None:
    """No progress wanted."""
