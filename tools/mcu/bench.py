"""Sends jobs to ``firmware/bench.c`` in an emulator and reads kernels' outputs and counts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from emulation import FIRMWARE, EmulatedBoard, Jobs, RunResult, Workshop
from numpy.typing import NDArray

from tatvpr_edge.compilers.packing import Layout, pack
from tatvpr_edge.spec.errors import ToolError

#: Of the operations of ``firmware/bench.c``.
OP_MATMUL, OP_SELECT, OP_CMSIS = 1, 2, 10


def _padded(array: NDArray[Any]) -> bytes:
    raw = np.ascontiguousarray(array).tobytes()
    return raw + bytes(-len(raw) % 64)


@dataclass
class Bench(Jobs):
    """Single kernels on one board."""

    regions: list[int] = field(default_factory=list)  # counted stretches of each job
    answers: list[int] = field(default_factory=list)  # answers of each job

    def add(
        self,
        operation: int,
        arguments: Sequence[int],
        parts: Sequence[NDArray[Any]],
        regions: int = 1,
        answers: int = 1,
    ) -> None:
        """One job: operation, integer arguments, arrays."""
        self.put(operation, arguments, b"".join(_padded(p) for p in parts))
        self.regions.append(regions)
        self.answers.append(answers)

    def matmul(
        self,
        weights: NDArray[np.int8],
        q: NDArray[np.int8],
        s: NDArray[np.float32],
        scale: NDArray[np.float32],
        bias: NDArray[np.float32],
        residual: NDArray[np.float32] | None = None,
        sparse: bool = False,
        layout: Layout | None = None,
        tile: int | None = None,
    ) -> None:
        """TernaryMatMul of q [T, K] with weights [N, K]; answers y [T, N]."""
        layout = self.board.variant.layout if layout is None else layout
        # as the core makes them of 65 tokens: the largest of its variant
        tile = self.board.variant.tiles[0] if tile is None else tile
        raw = np.frombuffer(pack(layout, weights), dtype=np.uint8)
        (tokens, k_in), n_out = q.shape, weights.shape[0]
        arguments = [k_in, n_out, tokens, int(layout), int(scale.size > 1),
                     int(residual is not None), int(sparse), raw.size, tile]  # fmt: skip
        parts = [raw, scale, bias, q, s, *([] if residual is None else [residual])]
        self.add(OP_MATMUL, arguments, parts, regions=-(-tokens // tile))

    def run(
        self,
        folder: Path,
        plugin: Path | None = None,
        blocks: bool = False,
        code: bool = False,
    ) -> tuple[list[list[bytes]], list[int], RunResult]:
        """Answers and instruction counts of every job, and the raw result.

        Raises:
            ToolError: the firmware did not end with status 0.
        """
        records, done = self.run_jobs(folder, plugin, blocks, code)
        answers = [[next(records) for _ in range(count)] for count in self.answers]
        counts = []
        if plugin is not None:
            left = iter(done.counts.regions)
            counts = [sum(next(left) for _ in range(n)) for n in self.regions]
        return answers, counts, done


def _call_of(include: Path) -> tuple[str, ...]:
    """What says how that version's arm_nn_mat_mult_nt_t_s8() is called: since 6.0 with the distance
    of output rows, before the last argument.

    Raises:
        ToolError: the folder has no header of CMSIS-NN's.
    """
    header = include / "arm_nnsupportfunctions.h"
    if not header.is_file():
        raise ToolError(f"{header} is missing: --cmsis-nn-include names CMSIS-NN's Include folder")
    found = re.search(r"arm_nn_mat_mult_nt_t_s8\(([^)]*)\)", header.read_text())
    if found is None:
        raise ToolError(f"{header} does not declare arm_nn_mat_mult_nt_t_s8()")
    return ("-DCMSIS_NN_ROW_OFFSET",) if "row_address_offset" in found[1] else ()


def build_bench(
    workshop: Workshop,
    board: EmulatedBoard,
    cmsis_library: Path | None = None,
    cmsis_include: Path | None = None,
) -> Bench:
    """A bench with its image; with CMSIS-NN linked in where it is given."""
    extra: tuple[str, ...] = ()
    libraries: tuple[Path, ...] = ()
    name = "bench"
    if cmsis_library is not None and cmsis_include is not None:
        extra = ("-DWITH_CMSIS_NN", *_call_of(cmsis_include), "-isystem", str(cmsis_include))
        libraries = (cmsis_library,)
        name = "bench-cmsis"
    image = workshop.link(
        board, name, workshop.core(board), [FIRMWARE / "bench.c"], extra, libraries
    )
    return Bench(board, image)
