"""What a build will be, before it is made: ``tatvpr-edge build --dry-run``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tatvpr_edge.compilers.cost import Cost, frame_cost

if TYPE_CHECKING:
    from tatvpr_edge.compilers.job import Job
    from tatvpr_edge.compilers.tvm.lower import Lowered


@dataclass(frozen=True)
class Tool:
    """A program that the build needs, and where it is or how to get it."""

    what: str
    found: str | None
    remedy: str


@dataclass(frozen=True)
class BuildPlan:
    """Operators, bytes, multiply-accumulates and tools of one build."""

    board: str
    title: str  # of the board
    processor: str
    verified: str  # how far this project has tried the board
    notes: tuple[str, ...]  # what to know of it
    model: str
    model_hash: str
    backend: str
    core_steps: dict[str, int]  # kind -> how many
    compiled_operators: tuple[str, ...]
    weight_bytes: int
    arena_bytes: int | None  # None: no C compiler on this machine to ask
    planned_bytes: int  # the part of the arena that TVM planned
    costs: tuple[Cost, ...]
    tools: tuple[Tool, ...]
    # (what, region, bytes needed, bytes there); empty on Linux, which has virtual memory
    regions: tuple[tuple[str, str, int, int], ...] = ()
    board_steps: tuple[str, ...] = ()  # what is left for the board

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "board": self.board,
            "title": self.title,
            "processor": self.processor,
            "verified": self.verified,
            "notes": list(self.notes),
            "model": self.model,
            "model_hash": self.model_hash,
            "backend": self.backend,
            "core_steps": self.core_steps,
            "compiled_operators": list(self.compiled_operators),
            "weight_bytes": self.weight_bytes,
            "arena_bytes": self.arena_bytes,
            "planned_bytes": self.planned_bytes,
            "compute": [cost.to_dict() for cost in self.costs],
            "tools": [vars(tool) for tool in self.tools],
            "regions": [
                {"what": what, "region": region, "bytes": needed, "region_bytes": there}
                for what, region, needed, there in self.regions
            ],
            "board_steps": [step.strip() for step in self.board_steps],
        }

    def lines(self) -> list[str]:
        """For people."""
        steps = ", ".join(f"{count} {kind}" for kind, count in self.core_steps.items())
        arena = (
            "unknown (no C compiler here)" if self.arena_bytes is None else _size(self.arena_bytes)
        )
        lines = [
            f"{self.model} ({self.model_hash[:12]}) for {self.board}, backend {self.backend}",
            f"  {self.title}: {self.processor}",
            f"  the board itself: {self.verified}",
            f"  C core: {steps}",
            f"  TVM: {', '.join(self.compiled_operators) or 'nothing'}",
            f"  weights {_size(self.weight_bytes)}, arena {arena}"
            f" (of it planned by TVM: {_size(self.planned_bytes)})",
        ]
        for what, region, needed, there in self.regions:
            lines.append(f"  {what}: {_size(needed)} of {_size(there)} in {region}")
        for cost in self.costs:
            lines.append(
                f"  k {cost.k:g}, tokens {cost.tokens:g}: {cost.macs / 1e6:.1f} million MACs"
            )
        for tool in self.tools:
            lines.append(f"  {tool.what}: {tool.found or 'missing, ' + tool.remedy}")
        lines += [f"  {step}" for step in self.board_steps]
        lines += [f"  note: {note}" for note in self.notes]
        return lines


def build_plan(
    job: Job,
    lowered: Lowered,
    arena_bytes: int | None,
    tools: Sequence[Tool],
    regions: tuple[tuple[str, str, int, int], ...] = (),
    board_steps: tuple[str, ...] = (),
) -> BuildPlan:
    """The plan of ``job``, whose model was ``lowered``."""
    board = job.board
    return BuildPlan(
        board=board.name,
        title=board.title,
        processor=board.processor + (f", {board.gpu.name}" if board.gpu else ""),
        verified=f"{board.verification.level}: {board.verification.note}",
        notes=board.notes,
        model=job.name,
        model_hash=lowered.model_hash.hex(),
        backend=job.backend,
        core_steps=dict(Counter(type(step).__name__ for step in lowered.steps)),
        compiled_operators=tuple(lowered.compiled_operators),
        weight_bytes=len(lowered.blob),
        arena_bytes=arena_bytes,
        planned_bytes=lowered.plan.arena_bytes,
        costs=tuple(frame_cost(lowered.matched, k) for k in (1.0, 0.6, 0.4, 0.2)),
        tools=tuple(tools),
        regions=regions,
        board_steps=board_steps,
    )


def _size(count: int) -> str:
    return f"{count / 1024:.1f} KiB" if count < 1 << 20 else f"{count / (1 << 20):.2f} MiB"
