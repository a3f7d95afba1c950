"""Where the sparse matmul of a microcontroller meets the dense one, from an emulator.

    python tools/mcu_break_even.py [--board mps2-an386 ...] [--instructions]

Runs dense, sparse and the gate over layer shapes, shares of kept channels and tiles, prices each
(mcu/cycles.py: estimated cycles; with ``--instructions`` by exact counts, which needs no LLVM),
fits the costs of a token in a block of outputs (``tatvpr_costs`` of runtime/core/common/kernels.h)
and prints them as the C row that the variant's file holds, with the meeting point of every shape,
lists included: as priced, and as the row says.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from given import one_line, tool_parser
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent / "mcu"))

from bench import OP_SELECT, Bench, build_bench
from cycles import priced
from emulation import BOARDS, Workshop

from tatvpr_edge.runtime.cache import cache_folder
from tatvpr_edge.spec.reference import top_k_gate

F64 = NDArray[np.float64]
TOKENS = 65
#: Layers (K, N) of the shipped models.
SHAPES = ((192, 192), (192, 576), (192, 768), (768, 192),
          (128, 128), (128, 384), (128, 512), (512, 128))  # fmt: skip
KEEPS = (0.1, 0.2, 0.3)
#: Outputs of a block, by variant.
BLOCKS = {"dsp": 12, "helium": 32, "tables": 16}


@dataclass(frozen=True)
class Costs:
    """Of one token: a ``tatvpr_costs`` with one kind of block."""

    outputs: int
    dense_fixed: float
    dense_four: float
    sparse_fixed: float
    sparse_four: float
    list_channel: float
    unpack_four: float

    def below(self, k_in: int, n_out: int, tile_tokens: float) -> float:
        """The formula of common/costs.c."""
        blocks, fours = -(-n_out // self.outputs), -(-k_in // 4)
        dense = blocks * (self.dense_fixed + self.dense_four * fours)
        fixed = self.list_channel * k_in + blocks * self.sparse_fixed
        fixed += self.unpack_four * blocks * fours / tile_tokens
        return max(dense - fixed, 0.0) / (blocks * self.sparse_four * fours)


class Pricer:
    """Prices single kernels on one board."""

    def __init__(self, name: str, instructions: bool) -> None:
        self.board = BOARDS[name]
        self.workshop = Workshop(cache_folder("mcu"))
        self.instructions = instructions

    def _run(self, bench: Bench) -> float:
        plugin = self.workshop.plugin()
        with tempfile.TemporaryDirectory() as folder:
            _, counts, result = bench.run(Path(folder), plugin, code=not self.instructions)
        return sum(counts) if self.instructions else priced(self.board.name, result.counts.code)

    def matmul(self, k_in: int, n_out: int, keep: float, sparse: bool, tile: int) -> float:
        """One token's share of a product."""
        rng = np.random.default_rng(65)
        weights = rng.integers(-1, 2, (n_out, k_in)).astype(np.int8)
        q, s = top_k_gate(rng.standard_normal((TOKENS, k_in)).astype(np.float32), keep)
        bench = build_bench(self.workshop, self.board)
        one, bias = np.ones(1, np.float32), np.zeros(n_out, np.float32)
        bench.matmul(weights, q, s, one, bias, sparse=sparse, tile=tile)
        return self._run(bench) / TOKENS

    def gate(self, k_in: int, keep: float, listed: bool) -> float:
        """One channel's share of the gate."""
        rng = np.random.default_rng(65)
        q = top_k_gate(rng.standard_normal((TOKENS, k_in)).astype(np.float32), 1.0)[0]
        bench = build_bench(self.workshop, self.board)
        words = [k_in, TOKENS, round(keep * k_in), 1, int(listed)]
        bench.add(OP_SELECT, words, [q], answers=5)
        return self._run(bench) / (k_in * TOKENS)


def least(rows: list[list[float]], values: list[float]) -> F64:
    """Least squares, relative to each value."""
    weights = np.array(values)[:, None]
    return np.linalg.lstsq(np.array(rows) / weights, np.ones(len(values)), rcond=None)[0]


def measure(name: str, instructions: bool) -> Costs:
    """Costs of a board's kernels; says every meeting point on the way."""
    pricer = Pricer(name, instructions)
    variant = pricer.board.variant
    outputs = BLOCKS[variant.name]
    tiles = (variant.tiles[0], variant.tiles[-2])
    dense_rows, dense, sparse_rows, sparse = [], [], [], []
    points = {}
    lists = pricer.gate(192, KEEPS[-1], True) - pricer.gate(192, KEEPS[-1], False)
    for k_in, n_out in SHAPES:
        blocks, fours = -(-n_out // outputs), -(-k_in // 4)
        for tile in tiles:
            shared = blocks * fours * -(-TOKENS // tile) / TOKENS
            whole = pricer.matmul(k_in, n_out, 1.0, False, tile)
            dense_rows.append([blocks, blocks * fours, k_in, shared])
            dense.append(whole)
            few = []
            for keep in KEEPS:
                few.append(pricer.matmul(k_in, n_out, keep, True, tile))
                sparse_rows.append([blocks, blocks * round(keep * k_in) / 4, shared])
                sparse.append(few[-1])
            slope, base = np.polyfit(KEEPS, few, 1)
            points[k_in, n_out, tile] = (whole - base - lists * k_in) / slope
    dense_fixed, dense_four, tables, dense_unpack = least(dense_rows, dense)
    sparse_fixed, sparse_four, unpack = least(sparse_rows, sparse)
    costs = Costs(outputs, dense_fixed, dense_four, sparse_fixed, sparse_four,
                  lists - tables, unpack - dense_unpack)  # fmt: skip
    for (k_in, n_out, tile), point in points.items():
        said = costs.below(k_in, n_out, TOKENS / -(-TOKENS // tile))
        print(f"  {k_in:5d} x {n_out:<5d} tile {tile:2d}: {point:.3f} / {said:.3f}")
    return costs


@one_line
def main() -> int:
    """Prints a row for every board."""
    parser = tool_parser(__doc__)
    parser.add_argument("--board", action="append", choices=sorted(BOARDS), help="default: all")
    parser.add_argument("--instructions", action="store_true", help="exact counts, not cycles")
    options = parser.parse_args()
    for name in options.board or BOARDS:
        unit = "instructions" if options.instructions else "estimated cycles"
        print(f"{name}, {unit}: k where sparse meets dense, lists included, priced / by the row")
        c = measure(name, options.instructions)
        numbers = (c.dense_fixed, c.dense_four, c.sparse_fixed, c.sparse_four)
        print(f"    .blocks = {{{{{c.outputs}, " + ", ".join(f"{x:.2f}f" for x in numbers)
              + ", 0.0f, 0.0f}},")  # fmt: skip
        print(f"    .list_channel = {c.list_channel:.2f}f, .unpack_four = {c.unpack_four:.2f}f,")
    return 0


if __name__ == "__main__":
    sys.exit(main())
