"""From an ONNX file to everything that a C compiler needs: ``lower(...)`` -> :class:`Lowered`.

Called by ``compilers.build`` for Linux boards and by ``compilers.mcu`` for microcontrollers.
TVM is imported here and below only, because importing it takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tatvpr_edge.compilers.canonical import model_hash
from tatvpr_edge.compilers.graph import Graph
from tatvpr_edge.compilers.match import Matched, match
from tatvpr_edge.compilers.packing import BlobWriter, Layout
from tatvpr_edge.compilers.steps import FUSED, Step
from tatvpr_edge.compilers.tvm.codegen import ModelSource
from tatvpr_edge.compilers.tvm.kernels import build_object, build_source
from tatvpr_edge.compilers.tvm.plan import Plan, plan_module
from tatvpr_edge.compilers.tvm.refusals import tvm_lowers
from tatvpr_edge.compilers.tvm.relax_import import import_graph


@dataclass(frozen=True)
class Lowered:
    """One model for one layout of weights, before any C compiler ran."""

    name: str
    model_hash: bytes
    matched: Matched
    plan: Plan
    model_c: str
    blob: bytes

    @property
    def steps(self) -> list[Step]:
        """The core's steps in execution order."""
        return list(self.matched.steps.values())

    @property
    def compiled_operators(self) -> list[str]:
        """Names of the kernels that TVM compiles."""
        return list(self.plan.kernels)

    def kernels_source(self) -> str:
        """TVM's kernels as C; empty where the model needs none."""
        kernels = list(self.plan.kernels.values())
        with tvm_lowers(lambda _: f"the rest of {self.name}"):
            return build_source(kernels) if kernels else ""

    def kernels_object(self, target: dict[str, Any], path: Path) -> bool:
        """TVM's kernels as an object file for an LLVM target; False where there are none."""
        kernels = list(self.plan.kernels.values())
        if kernels:
            with tvm_lowers(lambda _: f"the rest of {self.name}"):
                build_object(kernels, target, str(path))
        return bool(kernels)


def lower(
    graph: Graph,
    name: str,
    layout: Layout = Layout.ROWS2,
    choose: Callable[[int, int], Layout] | None = None,
) -> Lowered:
    """Lower a checked graph; ``choose`` gives single matrices (K, N) another layout.

    Raises:
        ModelError: a part of the model that neither the core nor TVM can lower.
    """
    matched = match(graph)
    outputs = {n.name: len(n.output) for n in matched.graph.nodes if n.domain == FUSED}
    module = import_graph(matched)
    with tvm_lowers(lambda _: f"the rest of {name}"):
        plan = plan_module(module, outputs, matched.max_tokens)
    digest = model_hash(graph)
    writer = BlobWriter(layout, choose)
    source = ModelSource(name, matched, plan, writer)
    blob = writer.finish(digest)
    text = source.text(digest, len(blob))
    return Lowered(name, digest, matched, plan, text, blob)
