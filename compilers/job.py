"""What the builds of every kind of board share: their arguments, drift and manifest."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import tatvpr_edge
from tatvpr_edge.boards.board import NATIVE, Board
from tatvpr_edge.boards.loader import load as load_board
from tatvpr_edge.compilers import golden
from tatvpr_edge.compilers.cost import frame_cost
from tatvpr_edge.compilers.graph import Graph
from tatvpr_edge.compilers.linux import HOST, LIBRARY, WEIGHTS, compile_linux, open_library
from tatvpr_edge.compilers.packing import Layout
from tatvpr_edge.compilers.steps import gated_linears
from tatvpr_edge.runtime.library import Library
from tatvpr_edge.spec.errors import ToolError
from tatvpr_edge.spec.manifest import DEFAULTS, RANDOM, TRAINED, Code, Dials, Manifest, ModelEntry
from tatvpr_edge.spec.shortage import check_room

if TYPE_CHECKING:
    from tatvpr_edge.compilers.tvm.lower import Lowered

#: (k, tokens) whose multiply-accumulates every manifest states.
COMPUTE_POINTS = (
    *((k, 1.0) for k in (1.0, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05)),
    *((k, 0.5) for k in (1.0, 0.6, 0.4, 0.2)),
)
#: Standard operators that give the same bits however a compiler treats them.
_MOVING = ("Concat", "Reshape", "Slice", "Gather", "Transpose", "Squeeze", "Unsqueeze", "Flatten")
_ROUNDING_ONCE = ("Identity", "Add", "Sub", "Neg", "Max", "Min", "Relu", "Clip")
EXACT_OPERATORS = frozenset((*_MOVING, *_ROUNDING_ONCE))
#: Address space that TVM and ONNX Runtime take once they are loaded; half loaded, they break.
_TVM_MB = 650
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Job:
    """Arguments of a build after their checks."""

    board: Board
    onnx_file: Path
    graph: Graph
    name: str
    k_range: tuple[float, float]
    backend: str
    progress: Progress


def lower_job(job: Job, layout: Layout) -> Lowered:
    """The job's model with weights in one layout.

    Raises:
        ToolError: TVM is not installed.
    """
    job.progress("lowering with TVM", 0, 1)
    check_room(_TVM_MB, "lowering with TVM")
    try:
        from tatvpr_edge.compilers.tvm.lower import lower  # takes seconds: not before it is needed
    except ImportError as error:
        raise ToolError(
            f"TVM is not usable here ({error}): pip install 'tatvpr-edge[build]' on Python 3.11 "
            "to 3.13"
        ) from error
    return lower(job.graph, job.name, layout)


def is_exact(lowered: Lowered) -> bool:
    """Whether every CPU gives the same bytes: nothing that TVM compiles rounds twice."""
    matched = lowered.matched
    return all(
        node.op_type in EXACT_OPERATORS if (step := matched.step_of(node)) is None else step.exact
        for node in matched.graph.nodes
    )


def model_drift(lowered: Lowered, job: Job, core: Library, folder: Path) -> list[golden.DriftPoint]:
    """Known drift of the model, or a measurement that is then remembered."""
    points = golden.points_within(job.k_range, lowered.matched.keeps_tokens)
    known = golden.known_drift(lowered.model_hash, job.onnx_file, points)
    if known is not None:
        return known
    library = compile_linux(lowered, load_board(HOST), folder / "permuted", ("-DTATVPR_PERMUTED",))
    permuted = open_library(library, lowered)
    every = golden.points_within(golden.EVERY_K, lowered.matched.keeps_tokens)
    frames = golden.drift_frames(sum(frame_cost(lowered.matched, *at).macs for at in every))
    drift = golden.measure_drift(
        core, permuted, lowered.matched.image_size, points, frames, job.progress
    )
    golden.cache_drift(lowered.model_hash, drift, frames)
    return drift


def make_manifest(
    job: Job, lowered: Lowered, core: Library, entry: golden.Golden, library: Path
) -> Manifest:
    """The manifest of a Linux artifact; ``core`` runs the same model on this machine."""
    matched = lowered.matched
    native = job.board.cpu.triple == NATIVE
    points = [(k, t) for k, t in COMPUTE_POINTS if t == 1.0 or matched.keeps_tokens]
    card = golden.known_dials(lowered.model_hash, job.onnx_file)
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
            weights=RANDOM if job.graph.metadata.get("tatvpr.weights") == RANDOM else TRAINED,
            groups={
                gated.name: gated.gate.group
                for gated in gated_linears(lowered.steps)
                if gated.gate.group > 1
            },
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
        defaults=_within(DEFAULTS if card.defaults is None else card.defaults, job.k_range),
        frontier=tuple(s for s in card.frontier if s == _within(s, job.k_range)),
        memory={
            "arena_bytes": int(core.info.arena_bytes),
            "planned_bytes": lowered.plan.arena_bytes,
            "weight_bytes": len(lowered.blob),
            "library_bytes": library.stat().st_size,
        },
        compute=tuple(frame_cost(matched, k, t).to_dict() for k, t in points),
    )


def _within(setting: Dials, k_range: tuple[float, float]) -> Dials:
    """``setting`` with the nearest k that the artifact is built for."""
    low, high = k_range
    return replace(setting, k=min(max(setting.k, low), high))


def head_kind(lowered: Lowered, graph: Graph) -> str:
    """What the exporter called the head, else what the graph shows."""
    named = graph.metadata.get("tatvpr.head", "")
    if re.fullmatch(r"[a-z0-9_-]{1,40}", named):
        return named
    shown = next((step.head for step in lowered.steps if step.head is not None), None)
    return shown or ("cls" if is_exact(lowered) else "learned")


def _host_triple() -> str:
    system = {"Darwin": "apple-darwin"}.get(platform.system(), "linux-gnu")
    return f"{platform.machine()}-{system}"
