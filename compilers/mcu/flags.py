"""Compiler flags of microcontroller builds beyond those in a board's file."""

from __future__ import annotations

import re
from pathlib import Path

from tatvpr_edge.boards.board import Board
from tatvpr_edge.compilers.mcu.variants import variant_of

#: Headers for toolchains that come without a C library.
HEADERS = Path(__file__).resolve().parent / "freestanding"

#: What clang does not know, and refuses.
GCC_ALONE = "-fno-tree-loop-distribute-patterns"

#: Every object, in this order before the source's own flags.
OPTIMISATION = ("-O3", "-ffunction-sections", "-fdata-sections", GCC_ALONE)

#: The library is clean under these.
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")


def has_no_libc(board: Board) -> bool:
    """Whether the board's GCC comes without a C library (Debian's RISC-V package)."""
    return board.cpu.architecture.startswith("riscv")


def has_fpu(board: Board) -> bool:
    """Whether the board's compiler flags make floating-point instructions."""
    if board.cpu.architecture.startswith("riscv"):
        march = next((f for f in board.toolchain.gcc_flags if f.startswith("-march=rv32")), "")
        return bool(re.search("[fdg]", march.removeprefix("-march=rv32").partition("_")[0]))
    return not {"-mfloat-abi=hard", "-mfloat-abi=softfp"}.isdisjoint(board.toolchain.gcc_flags)


def extra_flags(board: Board) -> tuple[str, ...]:
    """Flags that follow the board's own: its kernels, and what stands in for a C library."""
    define = variant_of(board).define
    if has_no_libc(board):
        return (define, "-mcmodel=medany", "-ffreestanding", f"-I{HEADERS}")
    return (define,)
