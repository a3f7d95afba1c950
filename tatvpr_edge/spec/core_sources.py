"""The C core's files for each kind of CPU, and the flags that keep its numerics.

One list for the artifact builder, the microcontroller builds and the tests. Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .errors import UsageError

#: Flags that every file needs: results are bit-identical on every CPU only with these.
NUMERIC_FLAGS = ("-std=c99", "-fno-fast-math", "-ffp-contract=off", "-fno-math-errno")

#: Flags of a shared library on Linux: threads, and nothing exported but the public interface.
LINUX_FLAGS = ("-D_POSIX_C_SOURCE=200809L", "-DTATVPR_THREADS", "-pthread", "-fvisibility=hidden")

_DEFINE = {"x86_64": "X86", "aarch64": "AARCH64"}
ARCHITECTURES = ("x86_64", "aarch64", "cortexm", "portable")

_COMMON = (
    "status",
    "bytes",
    "weights",
    "model",
    "frame",
    "resize",
    "describe",
    "gated_tile",
    "op_linear",
    "op_embed_attention",
    "op_float",
    "portable_rows",
    "portable_matmul",
    "portable_attention",
    "kernels_list",
    "threads",
    "map",
    "map_search",
)

# File in x86/ or aarch64/ -> its instruction-set flags. Only these files may hold such
# instructions: the CPU is asked before any of their functions is called.
_AVX2 = ("-O3", "-mavx2", "-mpopcnt")
_AVX512 = (
    *("-O3", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni"),
    *("-mavx512vbmi", "-mavx512vbmi2", "-mpopcnt"),
)
_AVX_VNNI = (*_AVX2, "-mavxvnni")
_X86: dict[str, tuple[str, ...]] = {
    "cpu": (),
    "avx2_weights": _AVX2,
    "avx2_rows": _AVX2,
    "avx2_select": _AVX2,
    "avx2_dense": _AVX2,
    "avx2_sparse": _AVX2,
    "avx2_fours": _AVX2,
    "avx2_attention": _AVX2,
    "avx2_embed_search": _AVX2,
    "avx2_resize": _AVX2,
    "kernels_avx2": _AVX2,
    "avx_vnni_dense": _AVX_VNNI,
    "avx_vnni_fours": _AVX_VNNI,
    "avx_vnni_attention": _AVX_VNNI,
    "kernels_avx_vnni": _AVX2,
    "avx512_weights": _AVX512,
    "avx512_dense": _AVX512,
    "avx512_sparse": _AVX512,
    "avx512_select": _AVX512,
    "kernels_avx512": _AVX512,
}
_AARCH64: dict[str, tuple[str, ...]] = {
    "neon_weights": ("-O3",),
    "neon_rows": ("-O3",),
    "neon_select": ("-O3",),
    "neon_resize": ("-O3",),
    "neon_matmul": ("-O3",),
    "neon_dot": ("-O3",),
    "neon_dotprod": ("-O3",),
    "neon_dot_dotprod": ("-O3",),
    "kernels_neon": (),
}


@dataclass(frozen=True)
class Source:
    """A C file and the flags that it needs beside optimisation and the target's own."""

    path: Path
    flags: tuple[str, ...]


def core_folder() -> Path:
    """``runtime/core`` of this package."""
    return Path(__file__).resolve().parent.parent / "runtime" / "core"


def core_include() -> Path:
    """Folder of ``tatvpr.h`` and ``tatvpr_ops.h``."""
    return core_folder() / "include"


def core_sources(arch: str) -> list[Source]:
    """Sources of the C core for ``x86_64``, ``aarch64``, ``cortexm`` or ``portable``.

    ``portable`` is plain C99 for any CPU (RISC-V microcontrollers, tests). ``cortexm`` and
    ``portable`` take no operating system for granted; the others have threads.

    Raises:
        UsageError: an architecture that the core has no list for.
    """
    if arch not in ARCHITECTURES:
        raise UsageError(f"the C core has no sources for {arch!r}: {', '.join(ARCHITECTURES)}")
    folder = core_folder()
    flags: tuple[str, ...] = NUMERIC_FLAGS
    if arch in ("x86_64", "aarch64"):
        flags = (*NUMERIC_FLAGS, *LINUX_FLAGS, f"-DTATVPR_{_DEFINE[arch]}")
    elif arch == "cortexm":
        flags = (*NUMERIC_FLAGS, "-DTATVPR_CORTEXM")
    sources = [Source(folder / "common" / f"{name}.c", flags) for name in _COMMON]
    for room, files in (("x86", _X86), ("aarch64", _AARCH64)):
        if room[:3] == arch[:3] or room == arch:
            sources += [
                Source(folder / room / f"{name}.c", (*flags, *extra))
                for name, extra in files.items()
            ]
    if arch == "cortexm":
        sources += [Source(path, flags) for path in sorted((folder / "cortexm").glob("*.[cS]"))]
    return sources
