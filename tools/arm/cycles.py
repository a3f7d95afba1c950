"""Estimated cycles of executed blocks of Arm and RISC-V code: LLVM's machine code analyser.

Every block is taken as a loop of its own with perfect caches and branches (``llvm-mca``), and its
cycles a turn are multiplied by how often it ran. That is a model, good to about a tenth; the ratio
of two programs priced alike is worth more than either figure.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tatvpr_edge.spec.errors import ToolError

VERSIONS = range(24, 18, -1)  # of LLVM: the first that has models of all cores below
ITERATIONS = 100
#: What is disassembled and priced, by LLVM's name of the architecture.
ATTRIBUTES = {
    "aarch64": "+all",
    "thumbv7em": "+fp-armv8d16sp,+dsp",
    "thumbv8.1m.main": "+mve.fp,+fp-armv8d16sp,+dsp",
    "riscv32": "+m,+a,+f,+c",
}
#: (mask, value) of instructions that branch, their first half below.
_THUMB_BRANCHES = (
    (0xF800, 0xE000), (0xF000, 0xD000), (0xF500, 0xB100), (0xFF00, 0x4700),  # b, bCC, cbz, bx
    (0xFF00, 0xBD00), (0xFF87, 0x4687),  # pop, mov to pc
    (0x8000F800, 0x8000F000), (0xFFF0, 0xE8D0),  # b, bl, wls, le ...; tbb
    (0x8000FE50, 0x8000E810), (0xF000FF70, 0xF000F850),  # ldm, ldr to pc
)  # fmt: skip
_BRANCHES = {
    "aarch64": ((0x1C000000, 0x14000000),),  # the group of branches and calls of the system
    "thumbv7em": _THUMB_BRANCHES,
    "thumbv8.1m.main": _THUMB_BRANCHES,
    "riscv32": (
        (0x7F, 0x63), (0x7F, 0x67), (0x7F, 0x6F),  # bCC, jalr, jal
        (0xE003, 0x2001), (0xE003, 0xA001), (0xC003, 0xC001), (0xE07F, 0x8002),  # of two bytes
    ),
}  # fmt: skip
#: Of a call, as of any other branch: what is called is priced by itself. LLVM would say 100.
CALL_CYCLES = 1
#: Cycles of one turn, by (block, core, triple): frames share most of their blocks.
_prices: dict[tuple[tuple[bytes, ...], str, str], float] = {}
#: What is priced, by instructions; what is left is taken to run as fast as the rest.
SHARE = 0.998


@dataclass(frozen=True)
class Block:
    """``times`` executions of instructions that follow one another.

    Attributes:
        code: instructions as they lie in memory.
    """

    code: tuple[bytes, ...]
    times: int


def instructions(code: bytes, triple: str) -> tuple[bytes, ...]:
    """``code`` cut into instructions, which Thumb and RISC-V have of two bytes and of four."""
    found = []
    at = 0
    while at < len(code):
        half = int.from_bytes(code[at : at + 2], "little")
        if triple.startswith("thumb"):
            size = 4 if half >> 11 in (0b11101, 0b11110, 0b11111) else 2
        elif triple.startswith("riscv"):
            size = 4 if half & 3 == 3 else 2
        else:
            size = 4
        found.append(code[at : at + size])
        at += size
    return tuple(found)


def joined(blocks: Iterable[tuple[int, bytes, int]], triple: str = "aarch64") -> list[Block]:
    """Blocks (address, code, times) with those put together that run into one another.

    The emulator ends a block where a page of memory ends (1 KiB on Cortex-M) and after some 200
    instructions, in the middle of a loop too; taken for two loops, its halves would cost more than
    the whole, and a frame more or less by where the linker put its code.
    """
    found = []
    left: dict[int, tuple[bytes, int]] = {}
    for address, code, times in sorted(blocks):
        if address in left:  # cut in two ways: what runs into it may be either
            found.append(Block(instructions(code, triple), times))
        else:
            left[address] = (code, times)
    for address in list(left):
        code, times = left[address]
        last = instructions(code, triple)[-1]
        while times and not _branches(last, triple) and address + len(code) in left:
            following = address + len(code)
            more, reached = left[following]
            if reached < times:
                break  # another one of that address took its part
            left[following] = (more, reached - times)
            code += more
            last = instructions(more, triple)[-1]
        if times:
            found.append(Block(instructions(code, triple), times))
    return found


def _branches(word: bytes, triple: str) -> bool:
    """Whether an instruction may go on elsewhere than at the next one."""
    bits = int.from_bytes(word, "little")
    return any(bits & mask == value for mask, value in _BRANCHES[triple])


def tool(name: str) -> str:
    """Path of an LLVM program of the newest version.

    Raises:
        ToolError: none is installed; the text names the package.
    """
    for version in VERSIONS:
        found = shutil.which(f"{name}-{version}")
        if found:
            return found
    raise ToolError(f"{name} of LLVM 19 or later is missing: apt-get install llvm-19")


def _is_it(word: bytes, triple: str) -> bool:
    """Thumb's IT, which would make the disassembler take what follows it for conditional."""
    return triple.startswith("thumb") and len(word) == 2 and word[1] == 0xBF and word[0] & 15 != 0


def _disassembled(words: Iterable[bytes], triple: str) -> dict[bytes, str]:
    """Assembler text of instructions; those that LLVM does not know are left out."""
    distinct = sorted(word for word in set(words) if not _is_it(word, triple))
    # In brackets, so that one which LLVM does not know does not run into the next.
    text = "\n".join("[" + " ".join(f"{b:#04x}" for b in word) + "]" for word in distinct)
    command = [tool("llvm-mc"), "--disassemble", f"--triple={triple}",
               f"--mattr={ATTRIBUTES[triple]}"]  # fmt: skip
    done = subprocess.run(command, input=text + "\n", capture_output=True, text=True, check=False)
    warned = r"^<stdin>:(\d+):\d+: warning: invalid"  # it reads the others
    unknown = {int(line) for line in re.findall(warned, done.stderr, re.M)}
    known = [word for number, word in enumerate(distinct, 1) if number not in unknown]
    lines = [line.strip() for line in done.stdout.splitlines() if line.startswith("\t")]
    lines = [line for line in lines if not line.startswith(".")]
    if len(lines) != len(known):
        raise ToolError(
            f"llvm-mc gave {len(lines)} lines for {len(known)} instructions: {done.stderr[-300:]}"
        )
    return dict(zip(known, lines, strict=True))


def _priced(
    blocks: Sequence[tuple[bytes, ...]], texts: dict[bytes, str], core: str, triple: str
) -> list[float]:
    """Cycles of one turn of each block."""
    if not blocks:
        return []
    source = []
    for number, code in enumerate(blocks):
        source.append(f"# LLVM-MCA-BEGIN block{number}")
        source += [texts[word] for word in code if word in texts]
        source.append(f"# LLVM-MCA-END block{number}")
    command = [
        tool("llvm-mca"), f"-mtriple={triple}", f"-mcpu={core}", f"-mattr={ATTRIBUTES[triple]}",
        f"-iterations={ITERATIONS}", "-json", "-skip-unsupported-instructions=any",
        f"-call-latency={CALL_CYCLES}",
    ]  # fmt: skip
    text = "\n".join(source) + "\n"
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ToolError(f"llvm-mca failed: {done.stderr.strip()[-600:]}")
    regions = json.loads(done.stdout)["CodeRegions"]
    cycles = {r["Name"]: r["SummaryView"]["TotalCycles"] / ITERATIONS for r in regions}
    return [cycles.get(f"block{number}", 0.0) for number in range(len(blocks))]


def estimated_cycles(
    blocks: Iterable[Block],
    cores: Sequence[str],
    triple: str = "aarch64",
    extra: Callable[[str], float] | None = None,
) -> tuple[int, dict[str, float]]:
    """(instructions executed, cycles by core) of ``blocks``.

    Args:
        cores: names that ``llvm-mca -mcpu=`` takes.
        triple: whose instructions they are: a key of ``ATTRIBUTES``.
        extra: cycles of an instruction beyond LLVM's, by its text.

    Raises:
        ToolError: LLVM is missing or refuses the code.
    """
    times: Counter[tuple[bytes, ...]] = Counter()
    for block in blocks:
        times[block.code] += block.times
    total = sum(len(code) * count for code, count in times.items())
    chosen: list[tuple[bytes, ...]] = []
    covered = 0
    for code, count in sorted(times.items(), key=lambda item: -len(item[0]) * item[1]):
        if covered >= SHARE * total:
            break
        chosen.append(code)
        covered += len(code) * count
    texts = _disassembled((word for code in chosen for word in code), triple)
    priced = {}
    for core in cores:
        new = [code for code in chosen if (code, core, triple) not in _prices]
        for code, price in zip(new, _priced(new, texts, core, triple), strict=True):
            _prices[code, core, triple] = price
        spent = sum(_prices[code, core, triple] * times[code] for code in chosen)
        if extra is not None:
            for code in chosen:
                beyond = sum(extra(texts[word]) for word in code if word in texts)
                spent += beyond * times[code]
        priced[core] = spent * total / covered
    return total, priced
