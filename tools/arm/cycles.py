"""Estimated cycles of executed blocks of AArch64 code: LLVM's machine code analyser.

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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tatvpr_edge.spec.errors import ToolError

VERSIONS = range(24, 18, -1)  # of LLVM: the first that has models of all cores below
ITERATIONS = 100
#: What is priced, by instructions; what is left is taken to run as fast as the rest.
SHARE = 0.998


@dataclass(frozen=True)
class Block:
    """``times`` executions of instructions that follow one another.

    Attributes:
        code: 32-bit instructions.
    """

    code: tuple[int, ...]
    times: int


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


def _disassembled(words: Iterable[int]) -> dict[int, str]:
    """Assembler text of instructions; those that LLVM does not know are left out."""
    distinct = sorted(set(words))
    text = "\n".join(" ".join(f"{b:#04x}" for b in word.to_bytes(4, "little")) for word in distinct)
    command = [tool("llvm-mc"), "--disassemble", "--triple=aarch64", "--mattr=+all"]
    done = subprocess.run(command, input=text + "\n", capture_output=True, text=True, check=False)
    unknown = {int(line) for line in re.findall(r"^<stdin>:(\d+):\d+: warning", done.stderr, re.M)}
    known = [word for number, word in enumerate(distinct, 1) if number not in unknown]
    lines = [line.strip() for line in done.stdout.splitlines() if line.startswith("\t")]
    lines = [line for line in lines if not line.startswith(".")]
    if len(lines) != len(known):
        raise ToolError(
            f"llvm-mc gave {len(lines)} lines for {len(known)} instructions: {done.stderr[-300:]}"
        )
    return dict(zip(known, lines, strict=True))


def _priced(blocks: Sequence[tuple[int, ...]], texts: dict[int, str], core: str) -> list[float]:
    """Cycles of one turn of each block."""
    source = []
    for number, code in enumerate(blocks):
        source.append(f"# LLVM-MCA-BEGIN block{number}")
        source += [texts[word] for word in code if word in texts]
        source.append(f"# LLVM-MCA-END block{number}")
    command = [
        tool("llvm-mca"), "-mtriple=aarch64", f"-mcpu={core}", "-mattr=+all",
        f"-iterations={ITERATIONS}", "-json", "-skip-unsupported-instructions=any",
    ]  # fmt: skip
    text = "\n".join(source) + "\n"
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ToolError(f"llvm-mca failed: {done.stderr.strip()[-600:]}")
    regions = json.loads(done.stdout)["CodeRegions"]
    cycles = {r["Name"]: r["SummaryView"]["TotalCycles"] / ITERATIONS for r in regions}
    return [cycles.get(f"block{number}", 0.0) for number in range(len(blocks))]


def estimated_cycles(blocks: Iterable[Block], cores: Sequence[str]) -> tuple[int, dict[str, float]]:
    """(instructions executed, cycles by core) of ``blocks``.

    Args:
        cores: names that ``llvm-mca -mcpu=`` takes.

    Raises:
        ToolError: LLVM is missing or refuses the code.
    """
    times: Counter[tuple[int, ...]] = Counter()
    for block in blocks:
        times[block.code] += block.times
    total = sum(len(code) * count for code, count in times.items())
    chosen: list[tuple[int, ...]] = []
    covered = 0
    for code, count in sorted(times.items(), key=lambda item: -len(item[0]) * item[1]):
        if covered >= SHARE * total:
            break
        chosen.append(code)
        covered += len(code) * count
    texts = _disassembled(word for code in chosen for word in code)
    priced = {}
    for core in cores:
        each = _priced(chosen, texts, core)
        spent = sum(c * times[code] for c, code in zip(each, chosen, strict=True))
        priced[core] = spent * total / covered
    return total, priced
