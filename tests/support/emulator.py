"""The emulated microcontroller boards of ``tools/mcu``, for tests."""

from __future__ import annotations

import sys
from pathlib import Path

from support.tools import require_tool

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools" / "mcu"))

from bench import Bench  # noqa: E402
from emulation import BOARDS, FIRMWARE, EmulatedBoard, Workshop, account  # noqa: E402

from support.mcu_device import DEVICE, Answer, Device, build_device  # noqa: E402

#: What of the stack is the test firmware's own when it calls the library (tests/mcu/firmware).
OWN_STACK_BYTES = 1400

__all__ = [
    "BOARDS",
    "DEVICE",
    "OWN_STACK_BYTES",
    "Answer",
    "Bench",
    "Device",
    "EmulatedBoard",
    "Workshop",
    "account",
    "build_device",
    "build_kernels",
    "require_board",
]


#: Operations of the bench beside its own.
_KERNELS = ROOT / "tests" / "mcu" / "firmware" / "kernels.c"


def build_kernels(workshop: Workshop, board: EmulatedBoard) -> Bench:
    """A bench that also does what ``tests/mcu/firmware/kernels.c`` knows."""
    sources = [FIRMWARE / "bench.c", _KERNELS]
    core = workshop.core(board)
    return Bench(board, workshop.link(board, "kernels", core, sources, ["-DWITH_OTHERS"]))


def require_board(name: str) -> EmulatedBoard:
    """A board whose compiler and emulator are installed; else the calling test is skipped."""
    board = BOARDS[name]
    require_tool(board.compiler, board.package)
    require_tool(board.qemu, board.qemu_package)
    require_tool("gcc", "gcc")
    return board
