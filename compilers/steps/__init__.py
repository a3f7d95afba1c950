"""The core's steps, one file a kind: ``STEPS`` is the one list of them.

A new kind is one file here and one row below; its function in C is declared in ``tatvpr_ops.h``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tatvpr_edge.compilers.steps.attention import Attention
from tatvpr_edge.compilers.steps.base import FUSED, STEP, Arguments, Step
from tatvpr_edge.compilers.steps.gated_linear import GatedLinear
from tatvpr_edge.compilers.steps.gelu import Gelu
from tatvpr_edge.compilers.steps.gem import Gem
from tatvpr_edge.compilers.steps.keep_tokens import KeepTokens
from tatvpr_edge.compilers.steps.l2_normalize import L2Normalize
from tatvpr_edge.compilers.steps.mlp import Mlp
from tatvpr_edge.compilers.steps.norm import LayerNorm
from tatvpr_edge.compilers.steps.patch_embed import PatchEmbed
from tatvpr_edge.compilers.steps.rows import Rows

STEPS: tuple[type[Step], ...] = (
    PatchEmbed,
    GatedLinear,
    Mlp,
    Attention,
    KeepTokens,
    LayerNorm,
    Gelu,
    Gem,
    L2Normalize,
    Rows,
)

__all__ = ["FUSED", "STEP", "STEPS", "Arguments", "Step", "gated_linears"]


def gated_linears(steps: Iterable[Step]) -> Iterator[GatedLinear]:
    """Every gated linear, those inside MLPs included, in order."""
    for step in steps:
        yield from step.gated_linears()
