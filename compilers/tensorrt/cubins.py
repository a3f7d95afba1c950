"""CUDA kernels to cubins on a host without a GPU: NVRTC from the package registry, in a process
of its own (:mod:`tatvpr_edge.compilers.tensorrt.nvrtc`).

In: ``runtime/core/cuda/*.cu`` and a GPU architecture. Out: cubin bytes with the registers, spills
and shared memory that ptxas reports. Called by the TensorRT build and by the compile checks.
"""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

from tatvpr_edge.spec.errors import ToolError

# Exactness: no fused multiply-add, IEEE division and square root (docs/numerics.md).
OPTIONS = ("--fmad=false", "--prec-div=true", "--prec-sqrt=true", "--ptxas-options=-v")

# JetPack 6 has CUDA 12.6; JetPack 7 and Thor have CUDA 13.
PACKAGES = {12: "nvidia-cuda-nvrtc-cu12", 13: "nvidia-cuda-nvrtc"}
INSTALL = {12: '"nvidia-cuda-nvrtc-cu12==12.6.*"', 13: '"nvidia-cuda-nvrtc>=13,<14"'}

#: What is compiled and checked: Orin under JetPack 6 and 7, Hopper, Thor.
TARGETS = (("sm_87", 12), ("sm_87", 13), ("sm_90", 12), ("sm_110", 13))


@dataclass(frozen=True)
class KernelReport:
    """What ptxas says of one kernel."""

    name: str
    registers: int
    spill_store_bytes: int
    spill_load_bytes: int
    shared_bytes: int


@dataclass(frozen=True)
class Cubin:
    """One compiled source for one architecture."""

    source: str
    architecture: str
    cuda: str
    code: bytes
    kernels: tuple[KernelReport, ...]


def source_folder() -> Path:
    """Folder of the CUDA sources."""
    from tatvpr_edge import runtime

    return Path(runtime.__file__).parent / "core" / "cuda"


@cache
def _library(major: int) -> str:
    try:
        listed = files(PACKAGES[major]) or []
    except PackageNotFoundError:
        listed = []
    for entry in listed:
        if re.fullmatch(rf"libnvrtc\.so\.{major}", entry.name):
            return str(entry.locate())
    raise ToolError(
        f"the CUDA {major} run-time compiler is not installed: pip install {INSTALL[major]}"
    )


def _compiler(major: int, sources: Sequence[Path] = (), options: Sequence[str] = ()) -> Any:
    """The answer of ``nvrtc.py``, which compiles in a process of its own."""
    job = {"library": _library(major), "sources": [str(s) for s in sources], "options": [*options]}
    done = subprocess.run(
        [sys.executable, "-I", str(Path(__file__).with_name("nvrtc.py"))],
        input=json.dumps(job),
        capture_output=True,
        text=True,
    )
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise ToolError(f"the CUDA {major} run-time compiler was ended by {name}: build again")
    if done.returncode:
        last = next((x for x in reversed(done.stderr.splitlines()) if x.strip()), "no reason")
        raise ToolError(f"the CUDA {major} run-time compiler failed: {last}")
    return json.loads(done.stdout)


@cache
def nvrtc_version(major: int) -> str:
    """Version of the installed compiler, such as ``"12.6"``."""
    return str(_compiler(major)["version"])


def _reports(log: str) -> tuple[KernelReport, ...]:
    found = []
    for block in re.split(r"Compiling entry function '", log)[1:]:
        registers = re.search(r"Used (\d+) registers", block)
        spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", block)
        shared = re.search(r"(\d+) bytes smem", block)
        if registers is None or spills is None:
            raise ToolError("the CUDA compiler's report of registers and spills was not understood")
        found.append(
            KernelReport(
                block.split("'", 1)[0],
                int(registers[1]),
                int(spills[1]),
                int(spills[2]),
                int(shared[1]) if shared else 0,
            )
        )
    return tuple(found)


def compile_cubins(sources: Sequence[Path], architecture: str, cuda_major: int) -> list[Cubin]:
    """Compile ``.cu`` files for ``architecture`` (such as ``"sm_87"``), in their order.

    Raises:
        ToolError: the compiler is not installed, or refuses a source (its first line is quoted).
    """
    options = [f"--gpu-architecture={architecture}", *OPTIONS]
    answer = _compiler(cuda_major, sources, options)
    cubins = []
    for source, made in zip(sources, answer["made"], strict=True):
        log = made["log"]
        if made["code"] is None:
            first = next((x for x in log.splitlines() if "error" in x), "no reason")
            raise ToolError(f"{source.name} does not compile for {architecture}: {first}")
        code = base64.b64decode(made["code"])
        cubins.append(Cubin(source.stem, architecture, answer["version"], code, _reports(log)))
    return cubins


def compile_all(architecture: str, cuda_major: int) -> list[Cubin]:
    """All kernels for one architecture, in the order of their names."""
    return compile_cubins(sorted(source_folder().glob("*.cu")), architecture, cuda_major)
