"""Which layout each ternary matrix gets on a microcontroller, from counted instructions.

Cortex-M4 and M7 have two layouts. Rows (LUT4) serve both kernels, and the run time goes sparse
where that is cheaper (runtime/core/common/costs.c). Columns (MCU_COLS) are a little cheaper still
where few channels are kept, and three times as dear where all are. Either kernel reads either
layout, so that any k in (0, 1] stays exact; only its cost differs, and this module states it. On
the other cores one layout serves both kernels.

The figures are instructions per dense multiply-accumulate at 65 tokens in tiles of 40, counted for
Cortex-M7 (``tools/mcu/bench.py``): instructions, not cycles, and without lists.
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

    rows: float  # LUT4, dense kernel, any k
    rows_sparse: float  # LUT4, sparse kernel: fixed part
    columns_sparse: float  # MCU_COLS, sparse kernel: fixed part
    kept: float  # sparse kernel: for every kept channel
    columns_dense: float  # MCU_COLS with all channels listed


#: The largest k at which columns are multiplied sparsely: TATVPR_SPARSE_MOST.
COLUMNS_SPARSE_BELOW = 0.5

_COSTS = {
    (192, 192): Cost(0.458, 0.113, 0.103, 0.946, 1.18),
    (192, 576): Cost(0.389, 0.113, 0.103, 0.946, 1.18),
    (192, 768): Cost(0.380, 0.113, 0.103, 0.946, 1.18),
    (768, 192): Cost(0.461, 0.058, 0.049, 1.021, 1.08),
    (128, 128): Cost(0.549, 0.149, 0.140, 0.975, 1.30),
    (128, 384): Cost(0.444, 0.141, 0.131, 0.945, 1.27),
    (128, 512): Cost(0.430, 0.143, 0.133, 0.953, 1.28),
    (512, 128): Cost(0.533, 0.080, 0.073, 0.977, 1.13),
}


def layer_cost(k_in: int, n_out: int) -> Cost:
    """Counted figures of the nearest shape."""

    def distance(shape: tuple[int, int]) -> float:
        return abs(math.log(shape[0] / k_in)) + abs(math.log(shape[1] / n_out))

    return _COSTS[min(_COSTS, key=distance)]


def cost_at(layout: Layout, k_in: int, n_out: int, k: float) -> float:
    """Instructions per dense multiply-accumulate on Cortex-M7 at ``k``, as the run time chooses."""
    cost = layer_cost(k_in, n_out)
    if layout == Layout.MCU_COLS:
        few = k < COLUMNS_SPARSE_BELOW
        return cost.columns_sparse + cost.kept * k if few else cost.columns_dense
    return min(cost.rows_sparse + cost.kept * k, cost.rows)


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
