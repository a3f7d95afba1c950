"""On boards of three kinds, less budget is less energy at every step (simulated).

A Cortex-M7 on which k does not pay, a Cortex-A76 on which it pays at its low end alone, and an x86
on which it pays throughout. No figure was measured on a board. With all tokens, costs are counted
instructions (M7) and modelled cycles (A76) of ``micro``, and so are half the tokens at k = 1 of the
M7; the rest is in proportion. x86 has the shape of an AVX-512 machine; energy follows time.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from governing.plant import STEP_S, Plant, governor_for, simulate
from tatvpr_edge.runtime.governor import GovernorCore, Kind, Level

# Cost of (k, tokens), in million instructions (M7) or cycles; a frame at k = 1 takes FULL_MS.
COSTS = {
    "cortex-m7": {
        (1.0, 1.0): 121.5, (0.5, 1.0): 125.2, (0.2, 1.0): 125.0,
        (1.0, 0.5): 84.0, (0.5, 0.5): 86.5, (0.2, 0.5): 86.4,
    },
    "cortex-a76": {
        (1.0, 1.0): 22.5, (0.6, 1.0): 23.4, (0.2, 1.0): 19.5,
        (1.0, 0.5): 15.6, (0.6, 0.5): 16.2, (0.2, 0.5): 13.5,
    },
    "x86": {
        (1.0, 1.0): 1.00, (0.6, 1.0): 0.85, (0.4, 1.0): 0.74, (0.2, 1.0): 0.60,
        (1.0, 0.5): 0.66, (0.6, 0.5): 0.57, (0.4, 0.5): 0.50, (0.2, 0.5): 0.41,
    },
}  # fmt: skip
FULL_MS = {"cortex-m7": 390.0, "cortex-a76": 9.4, "x86": 1.6}
FULL_MJ = {"cortex-m7": 120.0, "cortex-a76": 40.0, "x86": 24.0}


def points(board: str, recall: bool) -> list[Level]:
    full = COSTS[board][1.0, 1.0]
    return [
        Level(
            k,
            tokens,
            p50_ms=FULL_MS[board] * cost / full,
            p95_ms=1.1 * FULL_MS[board] * cost / full,
            energy_mj=FULL_MJ[board] * cost / full,
            recall=0.42 - 0.03 * (1.0 - k) - 0.04 * (1.0 - tokens) if recall else 0.0,
        )
        for (k, tokens), cost in COSTS[board].items()
    ]


@pytest.mark.parametrize("recall", [False, True])
@pytest.mark.parametrize("board", COSTS)
def test_less_budget_is_less_energy_at_every_step(
    core: GovernorCore, board: str, recall: bool
) -> None:
    levels = core.frontier(points(board, recall), Kind.POWER)
    assert levels[-1] == max(levels, key=lambda level: (level.k, level.tokens))
    assert levels[0].energy_mj == min(one.energy_mj for one in points(board, recall)) or not recall
    rate_hz, base_mw = 0.4 * 1000.0 / FULL_MS[board], 300.0
    steps = round(240.0 / STEP_S)
    used_mj, held = [], []
    for low, high in [(None, levels[0]), *itertools.pairwise(levels)][::-1]:
        query_mw = rate_hz * high.energy_mj
        limit_mw = (base_mw + query_mw) * 1.05
        plant = Plant(
            tuple(levels),
            np.full(steps, base_mw),
            np.full(steps, rate_hz),
            sensor_noise=0.01,
        )
        trace = simulate(plant, governor_for(plant, limit_mw))
        late = slice(steps // 2, None)
        held.append(int(trace.level[-1]))
        energies = np.array([level.energy_mj for level in levels])
        spent = float(energies[trace.level[late]] @ trace.queries[late])
        used_mj.append(spent / trace.queries[late].sum())
        assert trace.worst_minute(limit_mw) <= 1.05
        assert low is None or low.energy_mj < high.energy_mj
    assert held == sorted(held, reverse=True) and held[-1] == 0
    assert all(more >= less for more, less in itertools.pairwise(used_mj)), used_mj
    assert used_mj[-1] < used_mj[0]


def test_k_moves_where_it_pays_and_tokens_where_it_does_not(core: GovernorCore) -> None:
    dials = {
        board: [(one.k, one.tokens) for one in core.frontier(points(board, False), Kind.POWER)]
        for board in COSTS
    }
    assert dials["cortex-m7"] == [(1.0, 0.5), (1.0, 1.0)]
    assert dials["cortex-a76"] == [(0.2, 0.5), (0.2, 1.0), (1.0, 1.0)]
    assert dials["x86"] == [(0.2, 0.5), (0.2, 1.0), (0.4, 1.0), (0.6, 1.0), (1.0, 1.0)]
