"""Loop order of the kernels that TVM compiles: untuned, a head's matrix products would cost more
than the whole backbone.

Every output element still adds its products in rising order of k, one after the other, so that the
schedule changes no bit.
"""

from __future__ import annotations

from typing import Any

from tvm import IRModule, s_tir, tirx
from tvm.s_tir import Schedule

ROWS = 4  # of an output tile: each loaded row of the right factor is used so many times
COLUMNS = (8, 4)  # of an output tile: with ROWS, half of SSE's and a quarter of NEON's registers
_REDUCTION = 2  # IterVar.iter_type of a reduction axis


def scheduled(function: Any) -> tuple[Any, set[str]]:
    """The function with cheap intermediates inlined and matrix products tiled.

    Also the names of the buffers that are tiles: they stay inside the function, in registers.
    """
    tiles: set[str] = set()
    schedule = Schedule(IRModule({"main": function}))
    _inline(schedule)
    for block in _children(schedule):
        if _is_matmul(schedule, block):
            attempt = schedule.copy()
            try:
                tile = _tile(attempt, attempt.get_sblock(schedule.get(block).name_hint))
            except s_tir.ScheduleError:
                continue  # its shape does not tile: as it was
            schedule = attempt
            tiles |= tile
    return schedule.mod["main"], tiles


def _children(schedule: Schedule) -> list[Any]:
    return list(schedule.get_child_blocks(schedule.get_sblock("root")))


def _inline(schedule: Schedule) -> None:
    """Compute elementwise intermediates where their only reader is instead of storing them."""
    for block in _children(schedule):
        if len(schedule.get_consumers(block)) != 1:
            continue
        try:
            schedule.compute_inline(block)
        except s_tir.ScheduleError:  # a reduction, or the output
            continue


def _is_matmul(schedule: Schedule, block: Any) -> bool:
    """One reduction axis over the product of two buffers, rows and columns of known number."""
    node = schedule.get(block)
    kinds = [int(axis.iter_type) for axis in node.iter_vars]
    if kinds.count(_REDUCTION) != 1 or kinds[-1] != _REDUCTION or len(kinds) < 3:
        return False
    if node.init is None or len(node.reads) != 2:
        return False
    return len(schedule.get_loops(block)) == len(kinds)


def _tile(schedule: Schedule, block: Any) -> set[str]:
    """Loops (..., i, j, k) to (..., i / 4, j / 8, k, 4, 8) with the tile in registers."""
    *_, i, j, k = schedule.get_loops(block)
    columns = _columns(schedule.get(j).extent)
    rows = ROWS if isinstance(schedule.get(i).extent, tirx.IntImm) else 1
    if columns is None:  # as many columns as tokens: let k run outside, so that rows are streamed
        schedule.reorder(k, j)
        schedule.decompose_reduction(block, k)
        return set()
    readers = schedule.get_consumers(block)
    fused = len(readers) == 1 and _is_elementwise(schedule, block, readers[0])
    epilogue = readers[0] if fused else schedule.cache_write(block, 0, "global")
    tile = str(schedule.get(block).writes[0].source.name)
    i0, i1 = schedule.split(i, [None, rows])
    j0, j1 = schedule.split(j, [None, columns])
    schedule.reorder(i0, j0, k, i1, j1)
    schedule.reverse_compute_at(epilogue, j0)
    schedule.vectorize(j1)
    schedule.unroll(i1)
    init = schedule.decompose_reduction(block, k)
    for part in (init, epilogue):
        *_, row, column = schedule.get_loops(part)
        schedule.vectorize(column)
        schedule.unroll(row)
    return {tile}


def _columns(extent: Any) -> int | None:
    if not isinstance(extent, tirx.IntImm):
        return None
    return next((c for c in COLUMNS if int(extent) % c == 0), None)


def _is_elementwise(schedule: Schedule, block: Any, reader: Any) -> bool:
    """Whether the reader runs over the product's rows and columns, in their order."""
    product, node = schedule.get(block), schedule.get(reader)
    spatial = product.iter_vars[:-1]
    if len(node.iter_vars) != len(spatial):
        return False
    return all(
        (int(axis.iter_type) != _REDUCTION and axis.dom.extent.same_as(other.dom.extent))
        or (
            isinstance(axis.dom.extent, tirx.IntImm)
            and isinstance(other.dom.extent, tirx.IntImm)
            and int(axis.dom.extent) == int(other.dom.extent)
        )
        for axis, other in zip(node.iter_vars, spatial, strict=True)
    )
