"""A CUDA driver for tests: the machine's GPU, or our kernels' own source run on the CPU."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from support.tools import require_tool
from tatvpr_edge.runtime.backends.tensorrt.driver import Driver

GPU_TESTS = Path(__file__).parent.parent / "gpu"
ON_CPU = "CUDA on CPU"  # what the stand-in calls itself
Array = np.ndarray[Any, np.dtype[Any]]


def kernel_sources() -> list[Path]:
    """The project's CUDA sources."""
    return sorted((GPU_TESTS.parent.parent / "runtime/core/cuda").glob("*.cu"))


def _adapt(source: str) -> str:
    """Exchange the two lines that only a GPU understands."""
    source = source.replace(
        "extern __shared__ unsigned char shared[];", "unsigned char *shared = emu::dynamic_shared;"
    )
    return re.sub(
        r"asm volatile\(.*?\);\n", "emu::mma_16x8x32(c, a, b);\n", source, flags=re.DOTALL
    )


def build_driver_on_cpu(folder: Path) -> Path:
    """Compile the stand-in for libcuda into ``folder``; it runs our kernels on the CPU.

    A child process finds it by its name with ``folder`` in LD_LIBRARY_PATH. It has no SONAME, so
    that this process, which opens it by its path, never takes it for the machine's own driver.
    """
    compiler = require_tool("g++", "g++")
    for source in kernel_sources():
        (folder / f"{source.stem}.inc").write_text(_adapt(source.read_text()))
    library = folder / "libcuda.so.1"
    subprocess.run(
        [
            *(compiler, "-std=c++17", "-O2", "-ffp-contract=off", "-shared", "-fPIC", "-w"),
            *("-I", str(folder), "-I", str(GPU_TESTS)),
            *(str(GPU_TESTS / "driver_on_cpu.cpp"), "-o", str(library)),
        ],
        check=True,
    )
    return library


def has_gpu() -> bool:
    """Whether a CUDA GPU answers on this machine."""
    from tatvpr_edge.spec.errors import ToolError

    try:
        driver = Driver()
    except ToolError:
        return False
    assert driver.device_name() != ON_CPU
    return True


def with_tensorrt(model: Path, folder: Path) -> Path:
    """The artifact of ``model`` for this machine, with an Orin's TensorRT half, in ``folder``."""
    from tatvpr_edge.boards.loader import load as load_board
    from tatvpr_edge.compilers.build import build_artifact
    from tatvpr_edge.compilers.tensorrt.build import add_tensorrt
    from tatvpr_edge.spec.artifact import read_artifact, write_artifact

    made = build_artifact("host", model=model, output=folder / "cpu")
    assert isinstance(made, Path)
    cpu = read_artifact(made)
    members = {entry.path: cpu.path(entry.path) for entry in cpu.manifest.files}
    manifest, members_too = add_tensorrt(
        load_board("jetson-orin-nano"), model, cpu.manifest, members
    )
    return write_artifact(folder / "gpu", manifest, members_too).root
