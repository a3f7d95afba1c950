"""Which layout each ternary matrix gets on a microcontroller, from counted instructions.

Cortex-M4 and M7 have two layouts. Tables (LUT4) are fastest while most channels are kept; columns
(MCU_COLS) are fastest when few are. Either kernel reads either layout, so that any k in (0, 1]
stays exact; only its cost differs, and this module states it. On the other cores one layout serves
both kernels, and the kernel is chosen at run time.

The figures are instructions per dense multiply-accumulate at 65 tokens, counted by
``tools/mcu_counts.py`` for Cortex-M7: instructions, not cycles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tatvpr_edge.compilers.mcu.variants import Variant
from tatvpr_edge.compilers.packing import Layout


@dataclass(frozen=True)
class Cost:
    """Instructions per dense multiply-accumulate of one layer shape on Cortex-M7."""

    tables: float  # LUT4, dense kernel, any k
    tables_sparse: float  # LUT4, sparse kernel: fixed part
    columns_sparse: float  # MCU_COLS, sparse kernel: fixed part
    kept: float  # sparse kernel: for every kept channel
    columns_dense: float  # MCU_COLS with all channels listed


#: sparse_below() of runtime/core/mcu/dsp/dsp_sparse.c: where the run time goes sparse.
SPARSE_BELOW = {Layout.LUT4: 0.2, Layout.MCU_COLS: 0.5}

_COSTS = {
    (192, 192): Cost(0.458, 0.258, 0.129, 0.952, 1.21),
    (192, 576): Cost(0.389, 0.258, 0.129, 0.952, 1.21),
    (192, 768): Cost(0.380, 0.258, 0.129, 0.952, 1.21),
    (768, 192): Cost(0.461, 0.185, 0.058, 1.040, 1.11),
}


def layer_cost(k_in: int, n_out: int) -> Cost:
    """Counted figures of the nearest shape."""

    def distance(shape: tuple[int, int]) -> float:
        return abs(math.log(shape[0] / k_in)) + abs(math.log(shape[1] / n_out))

    return _COSTS[min(_COSTS, key=distance)]


def cost_at(layout: Layout, k_in: int, n_out: int, k: float) -> float:
    """Instructions per dense multiply-accumulate on Cortex-M7 at ``k``, as the run time chooses."""
    cost = layer_cost(k_in, n_out)
    sparse = k < SPARSE_BELOW[layout]
    if layout == Layout.MCU_COLS:
        return cost.columns_sparse + cost.kept * k if sparse else cost.columns_dense
    return cost.tables_sparse + cost.kept * k if sparse else cost.tables


def choose_layouts(
    variant: Variant, k_range: tuple[float, float]
) -> Callable[[int, int], Layout] | None:
    """Layout of a matrix (K, N) for the k that the build is meant for; None: only one exists.

    The cheaper mean over ``k_range`` wins, for a head's projection too: it is never gated, but it
    multiplies one row a frame.
    """
    if not variant.columns:
        return None
    low, high = k_range
    points = [low + (high - low) * (i + 0.5) / 32 for i in range(32)]

    def choose(k_in: int, n_out: int) -> Layout:
        layouts = (Layout.LUT4, Layout.MCU_COLS)
        return min(layouts, key=lambda one: sum(cost_at(one, k_in, n_out, k) for k in points))

    return choose
