"""A CUDA driver for tests: the machine's GPU, or our kernels' own source run on the CPU."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from support.tools import require_tool

GPU_TESTS = Path(__file__).parent.parent / "gpu"
ON_CPU = "CUDA on CPU"  # what the stand-in calls itself
Array = np.ndarray[Any, np.dtype[Any]]
#: For PYTHONPATH: ``pycuda`` over the driver that the process finds.
FAKE_PYCUDA = str(Path(__file__).with_name("fake_pycuda"))
#: A robot's program on the stand-in: ARTIFACT PACKAGE BACKEND. Prints one JSON document.
ROBOT = """
import ctypes, json, sys
import numpy as np
from tatvpr_edge.runtime import FrameError, Localizer
from tatvpr_edge.runtime.cuda.driver import open_driver

artifact, package, backend = sys.argv[1:]
cuda = ctypes.CDLL("libcuda.so.1")
cuda.queued_on.restype, cuda.queued_on.argtypes = ctypes.c_long, [ctypes.c_void_p]
if package == "pycuda":
    import pycuda.driver as theirs
    theirs.init()
    context = theirs.Device(0).retain_primary_context()
    context.push()
    stream = theirs.Stream()
    handle = stream.handle
else:
    from cuda.bindings import driver as theirs
    theirs.cuInit(0)
    context = int(theirs.cuDevicePrimaryCtxRetain(0)[1])
    theirs.cuCtxPushCurrent(context)
    stream = theirs.cuStreamCreate(0)[1]
    handle = int(stream)

def current():
    found = ctypes.c_void_p()
    cuda.cuCtxGetCurrent(ctypes.byref(found))
    return found.value

class OnGpu:
    def __init__(self, array, **more):
        self.held = np.ascontiguousarray(array)
        self.memory = mine.to_device(self.held)
        self.__cuda_array_interface__ = {
            "shape": array.shape, "typestr": array.dtype.str, "data": (self.memory, False),
            "version": 3, "stream": handle, **more,
        }

frame = np.random.default_rng(5).integers(0, 256, (40, 56, 3)).astype(np.uint8)
before = current()
given = {} if backend == "cpu" else {"cuda_context": context, "cuda_stream": stream}
with open_driver() as mine, Localizer(artifact, backend=backend, **given) as localizer:
    right = [localizer.describe(f) for f in (frame, frame[:, :30], frame[..., 0])]
    started = cuda.queued_on(handle)
    crop = OnGpu(frame)
    crop.__cuda_array_interface__ |= {"shape": (40, 30, 3), "strides": (168, 3, 1)}
    made = [localizer.describe(f) for f in (OnGpu(frame), crop, OnGpu(frame[..., 0]))]
    on_default = cuda.queued_on(1)
    right.append(right[0])
    made.append(localizer.describe(OnGpu(frame, stream=None)))
    on_default = cuda.queued_on(1) - on_default
    refused = []
    for wrong in (
        OnGpu(frame.astype(np.float32)),
        OnGpu(frame, mask=1),
        OnGpu(frame, shape=(1 << 20, 1 << 20, 3)),
        OnGpu(frame, shape=()),
    ):
        try:
            localizer.describe(wrong)
        except FrameError as error:
            refused.append(str(error))
    print(json.dumps({
        "same": all(np.array_equal(a, b) for a, b in zip(right, made)),
        "by": localizer.backend.name, "through": mine.through, "refused": refused,
        "on_their_stream": cuda.queued_on(handle) - started, "their_context": current() == before,
        "on_default": on_default,
    }))
if package == "pycuda":
    del stream
    context.pop()
"""


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

    A child process finds it by its name with ``folder`` in LD_LIBRARY_PATH. A process that has
    opened it by its path takes it for the machine's own driver from then on.
    """
    compiler = require_tool("g++", "g++")
    for source in kernel_sources():
        (folder / f"{source.stem}.inc").write_text(_adapt(source.read_text()))
    library = folder / "libcuda.so.1"
    subprocess.run(
        [
            *(compiler, "-std=c++17", "-O2", "-ffp-contract=off", "-shared", "-fPIC", "-w"),
            *("-I", str(folder), "-I", str(GPU_TESTS), "-Wl,-soname,libcuda.so.1"),
            *(str(GPU_TESTS / "driver_on_cpu.cpp"), "-o", str(library)),
        ],
        check=True,
    )
    return library


_NAME = (
    "from tatvpr_edge.runtime.cuda.driver import open_driver; print(open_driver().device_name())"
)


@functools.cache
def has_gpu() -> bool:
    """Whether a CUDA GPU answers on this machine: asked in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _NAME], capture_output=True, text=True, check=False
    )
    assert ON_CPU not in done.stdout
    return done.returncode == 0


def with_tensorrt(model: Path, folder: Path) -> Path:
    """The artifact of ``model`` for this machine, with an Orin's TensorRT half, in ``folder``."""
    from tatvpr_edge.boards.loader import load as load_board
    from tatvpr_edge.compilers.build import build_artifact
    from tatvpr_edge.compilers.checks import checked_graph
    from tatvpr_edge.compilers.tensorrt.build import add_tensorrt
    from tatvpr_edge.spec.artifact import read_artifact, write_artifact

    made = build_artifact("host", model=model, output=folder / "cpu")
    assert isinstance(made, Path)
    cpu = read_artifact(made)
    members = {entry.path: cpu.path(entry.path) for entry in cpu.manifest.files}
    manifest, members_too = add_tensorrt(
        load_board("jetson-orin-nano"), checked_graph(model), cpu.manifest, members
    )
    return write_artifact(folder / "gpu", manifest, members_too).root
