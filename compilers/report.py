"""What a build will be, before it is made: ``tatvpr-edge build --dry-run``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from tatvpr_edge.compilers.cost import Cost


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
        return lines


def step_kinds(steps: list[Any]) -> dict[str, int]:
    """How many steps of each kind, in order of first appearance."""
    return dict(Counter(type(step).__name__ for step in steps))


def _size(count: int) -> str:
    return f"{count / 1024:.1f} kB" if count < 1 << 20 else f"{count / (1 << 20):.2f} MB"
