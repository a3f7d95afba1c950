"""Measures where the sparse matmul of a kernel variant meets the dense one, on this machine.

    python tools/break_even.py [--kernels avx2] [--tokens 65] [--rounds 21] [--passes 1]

Times dense, sparse and fours over layer shapes and shares of kept channels, fits the costs of a
token in each kind of block (``tatvpr_costs`` of runtime/core/common/kernels.h), and prints them as
the C row that the variant's file holds for this CPU's family, beside the measured and the modelled
meeting point of every shape. Costs are nanoseconds of thread CPU time; only their ratios matter.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from given import one_line, tool_parser, whole
from numpy.typing import NDArray
from scipy.optimize import nnls

from benchmark.kernels import KernelBench

F64 = NDArray[np.float64]

#: Layers (K, N) of the shipped models and of ViT-B.
SHAPES = (
    (192, 192), (192, 576), (192, 768), (768, 192),
    (384, 384), (384, 1152), (384, 1536), (1536, 384),
    (768, 768), (768, 2304), (3072, 768),
)  # fmt: skip
KEEPS = (0.1, 0.3, 0.5, 0.8)
#: Outputs of the blocks in each variant's prepared layout, widest first.
BLOCKS = {
    "avx512-vnni": (256, 128, 64),
    "avx-vnni": (128, 64),
    "avx2": (128, 64),
    "neon-i8mm": (64,),
    "neon-dotprod": (64,),
    "neon": (64,),
}


@dataclass(frozen=True)
class Fit:
    """Costs of one kind of work: for each kind of block, fixed and for four channels."""

    fixed: F64
    four: F64


def block_counts(blocks: Sequence[int], n_out: int) -> list[int]:
    """How many blocks of each kind a layer has: the rule of common/costs.c."""
    counts, left = [], n_out
    for i, outputs in enumerate(blocks):
        count = left // outputs + int(left % outputs > sum(blocks[i + 1 :]))
        counts.append(count)
        left = max(left - count * outputs, 0)
    return counts


def fit(blocks: Sequence[int], points: Sequence[tuple[int, float, float]]) -> Fit:
    """Least squares, relative to each time, over (N, fours worked on, nanoseconds a token)."""
    counts = np.array([block_counts(blocks, n_out) for n_out, _, _ in points], dtype=float)
    fours = np.array([four for _, four, _ in points])[:, None]
    times = np.array([time for _, _, time in points])
    rows = np.hstack([counts, counts * fours]) / times[:, None]
    costs, _ = nnls(rows, np.ones(len(points)))
    return Fit(costs[: len(blocks)], costs[len(blocks) :])


def meeting_point(dense: Fit, sparse: Fit, counts: F64, k_in: int) -> float:
    """The share of kept channels where both cost the same: the formula of common/costs.c."""
    fours = (k_in + 3) // 4
    left = counts @ (dense.fixed + dense.four * fours) - counts @ sparse.fixed
    return float(max(left, 0.0) / (counts @ sparse.four * fours))


def crossing(keeps: Sequence[float], sparse: Sequence[float], dense: float) -> float:
    """Where a straight line through the measured sparse times reaches the dense time."""
    slope, base = np.polyfit(keeps, sparse, 1)
    return float((dense - base) / slope)


@one_line
def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument(
        "--kernels", choices=BLOCKS, help="variant (default: the first that runs here)"
    )
    parser.add_argument("--tokens", type=whole(1, 65536), default=65)
    parser.add_argument("--rounds", type=whole(1), default=21)
    parser.add_argument(
        "--passes",
        type=whole(1),
        default=1,
        help="measure all of it so many times and take the least: where others use the machine too",
    )
    options = parser.parse_args()
    bench = KernelBench()
    kernels = options.kernels or bench.best()
    blocks = BLOCKS[kernels]

    kept = [(keep, group) for group in (1, 4) for keep in KEEPS]
    wanted = [("dense", shape, 1.0, 1) for shape in SHAPES]
    wanted += [("sparse", shape, *how) for how in kept for shape in SHAPES]
    least: dict[Any, float] = {}
    for one in wanted * options.passes:
        what, shape, keep, group = one
        timing = bench.time(kernels, what, options.tokens, *shape, keep, group, options.rounds)
        spent = timing.low_ns / options.tokens
        least[one] = min(spent, least.get(one, spent))

    dense = {shape: least["dense", shape, 1.0, 1] for shape in SHAPES}
    dense_fit = fit(blocks, [(n, (k + 3) // 4, t) for (k, n), t in dense.items()])
    measured: dict[int, dict[tuple[int, int], list[float]]] = {}
    fits = {}
    for group in (1, 4):
        measured[group] = {
            shape: [least["sparse", shape, keep, group] for keep in KEEPS] for shape in SHAPES
        }
        fits[group] = fit(
            blocks,
            [
                (n, keep * ((k + 3) // 4), t)
                for (k, n), times in measured[group].items()
                for keep, t in zip(KEEPS, times, strict=True)
            ],
        )
    print(f"{kernels}, {options.tokens} tokens: k where sparse meets dense, measured / modelled")
    for k, n in SHAPES:
        counts = np.array(block_counts(blocks, n), dtype=float)
        shown = []
        for group in (1, 4):
            real = crossing(KEEPS, measured[group][k, n], dense[k, n])
            shown.append(f"{real:.2f} / {meeting_point(dense_fit, fits[group], counts, k):.2f}")
        print(f"  {k:5d} x {n:<5d} single {shown[0]}   fours {shown[1]}")
    single, fours = fits[1], fits[4]
    print("\nthe row for this CPU's family (nanoseconds):")
    for i, outputs in enumerate(blocks):
        numbers = (
            dense_fit.fixed[i],
            dense_fit.four[i],
            single.fixed[i],
            single.four[i],
            fours.fixed[i],
            fours.four[i],
        )
        print(f"    {{{outputs}, " + ", ".join(f"{x:.2f}f" for x in numbers) + "},")


if __name__ == "__main__":
    sys.exit(main())
