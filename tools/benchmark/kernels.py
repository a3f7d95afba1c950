"""Builds tools/core_bench.c with the C core of this machine, and times single kernels with it."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tatvpr_edge.boards.loader import load
from tatvpr_edge.compilers.core_sources import NUMERIC_FLAGS, Source, core_include, core_sources
from tatvpr_edge.compilers.objects import compile_object
from tatvpr_edge.compilers.toolchains import OPTIMISATION, core_architecture, find_compiler
from tatvpr_edge.spec.errors import ToolError
from tatvpr_edge.spec.workers import in_order

TOOLS = Path(__file__).resolve().parent.parent
BENCH = ("core_bench.c", "core_bench_peak.c")
#: Channels and outputs of the linear layers of ViT-S.
LAYERS = {"qkv": (384, 1152), "out": (384, 384), "up": (384, 1536), "down": (1536, 384)}


@dataclass(frozen=True)
class Timing:
    """Nanoseconds of thread CPU time: median and quartiles."""

    median_ns: float
    low_ns: float
    high_ns: float


class KernelBench:
    """The benchmark program, compiled for this machine.

    Raises:
        ToolError: no C compiler, or it failed.
    """

    def __init__(self) -> None:
        folder = tempfile.mkdtemp(prefix="tatvpr-bench-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        self.program = Path(folder) / "core_bench"
        _build(self.program)

    def time(
        self,
        kernels: str,
        what: str,
        tokens: int,
        k_in: int,
        n_out: int,
        keep: float = 1.0,
        group: int = 1,
        rounds: int = 21,
    ) -> Timing:
        """One kernel; arguments as core_bench.c explains them."""
        numbers = (tokens, k_in, n_out, keep, group, rounds)
        return Timing(*self._run(kernels, what, *numbers))

    def best(self) -> str:
        """The fastest variant that this CPU can run."""
        done = subprocess.run(
            [str(self.program), "-", "list", *"000000"], capture_output=True, text=True, check=True
        )
        return done.stdout.split()[0]

    def peak_gmacs(self, kernels: str) -> float:
        """Measured best rate of the variant's int8 multiply-accumulate (0: not written)."""
        return self._run(kernels, "peak", 0, 0, 0, 0, 0, 0)[0]

    def memory_gb_s(self) -> float:
        """Measured rate at which one core reads memory."""
        return self._run("portable", "memory", 0, 0, 0, 0, 0, 0)[0]

    def _run(self, *arguments: object) -> list[float]:
        command = [str(self.program), *(str(a) for a in arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise ToolError(done.stderr.strip() or f"core_bench ended with {done.returncode}")
        return [float(word) for word in done.stdout.split()]


def _build(program: Path) -> None:
    """The core as this machine's artifacts carry it, with what times it."""
    board = load("host")
    compiler = find_compiler(board)
    sources = core_sources(core_architecture(board))
    sources += [Source(TOOLS / name, NUMERIC_FLAGS) for name in BENCH]

    def compile_one(item: tuple[int, Source]) -> str:
        number, source = item
        flags = [*OPTIMISATION, *source.flags, "-fPIC", f"-I{core_include()}"]
        return str(compile_object(compiler, source.path, flags, program.parent / f"{number}.o"))

    made = in_order(compile_one, enumerate(sources), workers=2, stop=compiler.stop)
    compiler.run([*made, "-o", str(program), "-pthread"], "linking core_bench")
