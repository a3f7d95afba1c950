"""CUDA kernels to cubins on a host without a GPU: NVRTC from the package registry, by ctypes.

In: ``runtime/core/cuda/*.cu`` and a GPU architecture. Out: cubin bytes with the registers, spills
and shared memory that ptxas reports. Called by the TensorRT build and by the compile checks.
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

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
def _nvrtc(major: int) -> ctypes.CDLL:
    try:
        listed = files(PACKAGES[major]) or []
    except PackageNotFoundError:
        listed = []
    for entry in listed:
        if re.fullmatch(rf"libnvrtc\.so\.{major}", entry.name):
            return ctypes.CDLL(str(entry.locate()))
    raise ToolError(
        f"the CUDA {major} run-time compiler is not installed: pip install {INSTALL[major]}"
    )


def nvrtc_version(major: int) -> str:
    """Version of the installed compiler, such as ``"12.6"``."""
    lib = _nvrtc(major)
    high, low = ctypes.c_int(), ctypes.c_int()
    _check(lib, lib.nvrtcVersion(ctypes.byref(high), ctypes.byref(low)), "asking for its version")
    return f"{high.value}.{low.value}"


def _check(lib: ctypes.CDLL, result: int, doing: str) -> None:
    if result:
        lib.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise ToolError(f"NVRTC failed {doing}: {lib.nvrtcGetErrorString(result).decode()}")


def _log(lib: ctypes.CDLL, program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    _check(lib, lib.nvrtcGetProgramLogSize(program, ctypes.byref(size)), "reading its log")
    buffer = ctypes.create_string_buffer(size.value)
    _check(lib, lib.nvrtcGetProgramLog(program, buffer), "reading its log")
    return buffer.value.decode(errors="replace")


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


def compile_cubin(source: Path, architecture: str, cuda_major: int) -> Cubin:
    """Compile one ``.cu`` file for ``architecture`` (such as ``"sm_87"``).

    Raises:
        ToolError: the compiler is not installed, or refuses the source (its first line is quoted).
    """
    lib = _nvrtc(cuda_major)
    program = ctypes.c_void_p()
    text = source.read_bytes()
    _check(
        lib,
        lib.nvrtcCreateProgram(ctypes.byref(program), text, source.name.encode(), 0, None, None),
        f"opening {source.name}",
    )
    try:
        options = [f"--gpu-architecture={architecture}", *OPTIONS]
        raw = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
        if lib.nvrtcCompileProgram(program, len(options), raw):
            first = next((x for x in _log(lib, program).splitlines() if "error" in x), "no reason")
            raise ToolError(f"{source.name} does not compile for {architecture}: {first}")
        reports = _reports(_log(lib, program))
        size = ctypes.c_size_t()
        _check(lib, lib.nvrtcGetCUBINSize(program, ctypes.byref(size)), "sizing the cubin")
        code = ctypes.create_string_buffer(size.value)
        _check(lib, lib.nvrtcGetCUBIN(program, code), "reading the cubin")
        return Cubin(source.stem, architecture, nvrtc_version(cuda_major), code.raw, reports)
    finally:
        lib.nvrtcDestroyProgram(ctypes.byref(program))


def compile_all(architecture: str, cuda_major: int) -> list[Cubin]:
    """All kernels for one architecture, in the order of their names."""
    return [
        compile_cubin(source, architecture, cuda_major)
        for source in sorted(source_folder().glob("*.cu"))
    ]
