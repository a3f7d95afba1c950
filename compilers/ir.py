"""The heavy steps of a model as the C core carries them out, with their weights.

Made by :mod:`tatvpr_edge.compilers.match` from a checked graph; read by the blob writer, the code
generators and the cost model. Each class mirrors a structure of ``tatvpr_ops.h``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Domain of the nodes that stand for steps in a rewritten graph; its attribute ``STEP`` names one.
FUSED = "ai.tatvpr.fused"
STEP = "step"
#: The one node of ``FUSED`` that is no step of the core: x[0:1], which TVM compiles.
FIRST_ROW = "FirstRow"

F32 = NDArray[np.float32]
I8 = NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Norm:
    """LayerNorm over the last axis."""

    name: str
    gamma: F32  # [D]
    beta: F32  # [D]
    eps: float


@dataclass(frozen=True)
class Gate:
    """TopKGate; ``fixed_k`` above 0 replaces the run-time k."""

    group: int
    scope: int
    fixed_k: float


@dataclass(frozen=True, eq=False)
class Ternary:
    """Weights of one TernaryMatMul, unpacked."""

    name: str
    weights: I8  # [N, K] of -1, 0, +1
    scale: F32  # [1] or [N]
    bias: F32  # [N]

    @property
    def k_in(self) -> int:
        """Input channels K."""
        return int(self.weights.shape[1])

    @property
    def n_out(self) -> int:
        """Output channels N."""
        return int(self.weights.shape[0])


@dataclass(frozen=True, eq=False)
class GatedLinear:
    """[GELU] [LayerNorm] TopKGate, TernaryMatMul, [+ residual].

    It reads ``rows`` rows of its input from ``first_row`` on (``rows`` None: all that follow).
    """

    name: str
    gelu: bool
    norm: Norm | None
    gate: Gate
    linear: Ternary
    residual: bool = False
    first_row: int = 0
    rows: int | None = None


@dataclass(frozen=True, eq=False)
class Mlp:
    """A block's second half: x + fc2(fc1(x))."""

    name: str
    fc1: GatedLinear
    fc2: GatedLinear


@dataclass(frozen=True, eq=False)
class PatchEmbed:
    """The 8-bit patch projection."""

    name: str
    image_size: int
    patch: int
    weights: I8  # [D, P*P*3]
    scale: F32  # [D]
    bias: F32  # [D]

    @property
    def dim(self) -> int:
        """Output channels D."""
        return int(self.weights.shape[0])


@dataclass(frozen=True)
class Attention:
    """8-bit self-attention over [T, 3 * dim]."""

    name: str
    heads: int
    dim: int


@dataclass(frozen=True)
class KeepTokens:
    """Drop the patch tokens that CLS looks at least; ``count`` is the symbol of what stays."""

    name: str
    dim: int
    count: str


@dataclass(frozen=True, eq=False)
class LayerNorm:
    """A LayerNorm that no gate follows."""

    name: str
    norm: Norm


@dataclass(frozen=True)
class Gelu:
    """A GELU that no gate follows."""

    name: str


@dataclass(frozen=True)
class Gem:
    """Generalised mean, p = 3, over the rows from ``first_row`` on: [D], or [1, D]."""

    name: str
    clamp: float
    first_row: int = 0
    keep_dims: bool = False


@dataclass(frozen=True)
class L2Normalize:
    """A vector at unit length."""

    name: str
    eps: float


Step = (
    PatchEmbed | GatedLinear | Mlp | Attention | KeepTokens | LayerNorm | Gelu | Gem | L2Normalize
)


def gated_linears(steps: Iterator[Step] | list[Step]) -> Iterator[GatedLinear]:
    """Every gated linear, those inside MLPs included, in order."""
    for step in steps:
        if isinstance(step, GatedLinear):
            yield step
        elif isinstance(step, Mlp):
            yield step.fc1
            yield step.fc2
