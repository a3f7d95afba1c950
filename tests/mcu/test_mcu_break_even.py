"""Which product a layer gets at a k on a microcontroller: the cheaper one, as both are priced."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from support.emulator import Bench, EmulatedBoard, Workshop, build_kernels, require_board
from support.tools import require_tool
from tatvpr_edge.compilers.mcu.choose import COLUMNS_SPARSE_BELOW, cost_at
from tatvpr_edge.compilers.packing import Layout
from tatvpr_edge.spec.reference import top_k_gate

TOKENS = 65
LAYERS = ((192, 192), (192, 768), (768, 192), (128, 384))


def points_of(
    workshop: Workshop, board: EmulatedBoard, folder: Path, tile: int
) -> dict[tuple[int, int], float]:
    """Where the firmware goes sparse, by layer."""
    bench = build_kernels(workshop, board)
    for k_in, n_out in LAYERS:
        arguments = [k_in, n_out, int(board.variant.layout), TOKENS, tile]
        bench.add(14, arguments, [], regions=0)  # OP_SPARSE_BELOW
    answers, _, _ = bench.run(folder)
    points = [float(np.frombuffer(answer[0], np.float32)[0]) for answer in answers]
    return dict(zip(LAYERS, points, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mps2-an500", "mps2-an386", "mps3-an547", "riscv32f-virt"])
def test_sparse_is_chosen_where_it_is_cheaper_lists_included(
    name: str, workshop: Workshop, run_folder: Path
) -> None:
    board = require_board(name)
    require_tool("llvm-mca-19", "llvm-19")
    tools = importlib.import_module("mcu_break_even")
    pricer = tools.Pricer(name, instructions=False)
    tile = board.variant.tiles[0]
    for (k_in, n_out), point in points_of(workshop, board, run_folder, tile).items():
        dense = pricer.matmul(k_in, n_out, 1.0, False, tile)
        for k, cheaper in ((point - 0.04, True), (point + 0.06, False)):
            gate = pricer.gate(k_in, k, True) - pricer.gate(k_in, k, False)
            sparse = pricer.matmul(k_in, n_out, k, True, tile) + gate * k_in
            assert (sparse < dense) is cheaper, (k_in, n_out, k, sparse / dense)


def test_small_tiles_go_sparse_later(
    workshop: Workshop, board: EmulatedBoard, run_folder: Path
) -> None:
    """Their tokens share an unpacking with fewer others."""
    large, small = (
        points_of(workshop, board, run_folder, tile) for tile in (board.variant.tiles[0], 9)
    )
    for layer in LAYERS:
        assert small[layer] < large[layer] <= 0.5, layer


def test_k_of_a_fifth_is_a_level_on_cortex_m(workshop: Workshop, run_folder: Path) -> None:
    """Where one constant stood for all shapes, rows went sparse below .2 and never at it."""
    for name in ("mps2-an500", "mps2-an386", "mps3-an547"):
        board = require_board(name)
        points = points_of(workshop, board, run_folder, board.variant.tiles[0])
        assert min(points.values()) > 0.24, name


@pytest.mark.parametrize("layout", [Layout.LUT4, Layout.MCU_COLS])
def test_the_builder_knows_the_counts(layout: Layout, workshop: Workshop, run_folder: Path) -> None:
    """What `choose_layouts` compares is what the emulator counts."""
    bench: Bench = build_kernels(workshop, require_board("mps2-an500"))
    rng = np.random.default_rng(1)
    wanted = []
    for k_in, n_out in LAYERS:
        weights = rng.integers(-1, 2, (n_out, k_in)).astype(np.int8)
        x = rng.standard_normal((TOKENS, k_in)).astype(np.float32)
        for k in (1.0, 0.2):
            q, s = top_k_gate(x, k)
            one, bias = np.ones(1, np.float32), np.ones(n_out, np.float32)
            bench.matmul(weights, q, s, one, bias, sparse=k < 1.0, layout=layout)
            wanted.append(cost_at(layout, k_in, n_out, k) * k_in * n_out * TOKENS)
    _, counts, _ = bench.run(run_folder, workshop.plugin())
    np.testing.assert_allclose(counts, wanted, rtol=0.02)


def test_the_builder_goes_sparse_where_the_firmware_does(
    workshop: Workshop, run_folder: Path
) -> None:
    """Its costs are without lists and of instructions, so that it does a little later."""
    board = require_board("mps2-an500")
    for (k_in, n_out), point in points_of(workshop, board, run_folder, 40).items():
        dense = cost_at(Layout.LUT4, k_in, n_out, 1.0)
        assert cost_at(Layout.LUT4, k_in, n_out, point - 0.02) < dense
        assert cost_at(Layout.LUT4, k_in, n_out, point + 0.08) == dense
    few, many = (
        cost_at(Layout.MCU_COLS, 192, 768, COLUMNS_SPARSE_BELOW + step) for step in (-0.01, 0.0)
    )
    assert few < many == cost_at(Layout.MCU_COLS, 192, 768, 1.0)
