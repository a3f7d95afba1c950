"""Estimated cycles of microcontroller code: LLVM's models of the cores, and what they leave out.

``llvm-mca`` prices blocks that ran, each as a loop of its own, with perfect caches, memories
without wait states and branches that cost nothing. Two things are added, which its models take for
one cycle: transfers of several registers, and divisions on Cortex-M4 and M55.

- Cortex-M4 (Technical Reference Manual, instruction timings): LDM, STM, PUSH, POP, VLDM and VSTM of
  N registers take 1 + N cycles, VDIV and VSQRT 14.
- Cortex-M7 and M55: no table is published. Their data paths are 64 bits wide: half as many cycles
  as registers are assumed. VDIV and VSQRT on M55: 14 assumed; LLVM's model of M7 has them.
- RISC-V: SiFive's E31 stands in, single issue and in order.

These are estimates: the ratio of two programs priced alike is worth more than either figure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from arm.cycles import estimated_cycles, joined

_SEVERAL = re.compile(r"^(ldm|stm|push|pop|vldm|vstm|vpush|vpop)\w*(\.\w+)?\s")
_DIVISION = re.compile(r"^(vdiv|vsqrt)\.f32\s+s")


@dataclass(frozen=True)
class Model:
    """How a board's code is priced.

    Attributes:
        triple: of its instructions, a key of ``arm.cycles.ATTRIBUTES``.
        core: llvm-mca's name.
        registers_a_cycle: that a transfer of several moves; 0: the model prices them.
        division: cycles of a float division beyond the model's.
    """

    triple: str
    core: str
    registers_a_cycle: int = 0
    division: int = 0

    def extra(self) -> Callable[[str], float]:
        """Cycles that an instruction takes beyond the model's, by its assembler text."""

        def cycles(text: str) -> float:
            if self.registers_a_cycle and _SEVERAL.match(text):
                return -(-_registers(text) // self.registers_a_cycle)
            return self.division if _DIVISION.match(text) else 0

        return cycles


def _registers(text: str) -> int:
    """How many registers a list names."""
    return text[text.index("{") :].count(",") + 1


#: By board.
MODELS = {
    "mps2-an386": Model("thumbv7em", "cortex-m4", registers_a_cycle=1, division=13),
    "mps2-an500": Model("thumbv7em", "cortex-m7", registers_a_cycle=2),
    "mps3-an547": Model("thumbv8.1m.main", "cortex-m55", registers_a_cycle=2, division=13),
    "riscv32-virt": Model("riscv32", "sifive-e31"),
    "riscv32f-virt": Model("riscv32", "sifive-e31"),
}


def priced(board: str, code: Iterable[tuple[int, bytes, int]]) -> float:
    """Estimated cycles of blocks (address, code, times) that ran on a board in ``MODELS``."""
    model = MODELS[board]
    blocks = joined(code, model.triple)
    _, cycles = estimated_cycles(blocks, [model.core], model.triple, model.extra())
    return cycles[model.core]
