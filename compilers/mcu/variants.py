"""Which kernels a microcontroller's build holds: the features in its board's file decide.

One row a variant of ``runtime/core/mcu/variants.h``: the layout of its weights, the tokens of a
tile that it takes well, and what its rows are aligned to. The compiler's flags must give the
features too: the C sources refuse a target without them.
"""

from __future__ import annotations

from dataclasses import dataclass

from tatvpr_edge.boards.board import Board
from tatvpr_edge.compilers.packing import Layout


@dataclass(frozen=True)
class Variant:
    """Kernels of one kind of core.

    Attributes:
        name: of the row in ``variants.h``, and of the folder with its files.
        features: a board with any of these takes it; empty: every board can.
        layout: of ternary weights in the blob.
        columns: whether its kernels read ``Layout.MCU_COLS`` as well.
        tiles: tokens of a tile, largest first.
        row_align: bytes that a row of activations is aligned to.
    """

    name: str
    features: tuple[str, ...]
    layout: Layout
    columns: bool
    tiles: tuple[int, ...]
    row_align: int

    @property
    def define(self) -> str:
        """The compiler's option that chooses it."""
        return f"-DTATVPR_MCU_{self.name.upper()}"


#: Best first. The last one is plain C.
VARIANTS = (
    Variant("helium", ("mve", "mve.fp"), Layout.ROWS2, False, (66, 33, 24, 15, 9), 64),
    Variant("dsp", ("dsp",), Layout.LUT4, True, (40, 32, 24, 16, 8), 16),
    Variant("tables", (), Layout.LUT4, False, (40, 32, 24, 16, 8), 16),
)
PLAIN = VARIANTS[-1]


def variant_of(board: Board) -> Variant:
    """The best variant whose features the board's file names."""
    has = set(board.cpu.features)
    return next(row for row in VARIANTS if not row.features or has & set(row.features))
