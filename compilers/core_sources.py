"""The C core's files for each kind of CPU, and the flags that keep its numerics.

Sources are the folders of ``runtime/core``; a variant's flags stand in the ``variants.h`` of its
folder. For the artifact builder, the microcontroller builds, the tests and the tools.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tatvpr_edge.spec.errors import UsageError

#: Flags that every file needs: results are bit-identical on every CPU only with these.
NUMERIC_FLAGS = ("-std=c99", "-fno-fast-math", "-ffp-contract=off", "-fno-math-errno")

#: Flags of a shared library on Linux: threads, and nothing exported but the public interface.
LINUX_FLAGS = ("-D_POSIX_C_SOURCE=200809L", "-DTATVPR_THREADS", "-pthread", "-fvisibility=hidden")

#: What a build for an architecture defines, and the folder of its kernels beside ``common``.
_DEFINES = {"x86_64": "-DTATVPR_X86", "aarch64": "-DTATVPR_AARCH64", "mcu": "-DTATVPR_MCU"}
_ROOMS = {"x86_64": "x86", "aarch64": "aarch64", "mcu": "mcu"}
ARCHITECTURES = (*_ROOMS, "portable")

#: A row of a ``variants.h``: name, and the flags of the variant's own files.
_ROW = re.compile(r'^TATVPR_ROW\((\w+), "([^"]*)"\)$', re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """A C file and the flags that it needs beside optimisation and the target's own."""

    path: Path
    flags: tuple[str, ...]


def core_folder() -> Path:
    """``runtime/core`` of this package."""
    return Path(__file__).resolve().parent.parent / "runtime" / "core"


def firmware_folder() -> Path:
    """The example firmware: start-up code, self-test, what an emulated board needs."""
    return core_folder() / "firmware"


def core_include() -> Path:
    """Folder of ``tatvpr.h`` and ``tatvpr_ops.h``."""
    return core_folder() / "include"


def governor_sources() -> list[Path]:
    """The governor's C files, a part of every library; they need no C file of the rest of it."""
    return sorted((core_folder() / "governor").glob("*.c"))


def core_sources(arch: str, variant: str | None = None) -> list[Source]:
    """Sources of the C core for ``x86_64``, ``aarch64``, ``mcu`` or ``portable``: whole folders.

    ``variant`` names the folder of the only kernels that a microcontroller's build holds.

    ``portable`` is plain C99 for any CPU. ``mcu`` is for microcontrollers, Arm or RISC-V. Both take
    no operating system for granted; the others have threads.

    Raises:
        UsageError: an architecture that the core has no sources for.
    """
    if arch not in ARCHITECTURES:
        raise UsageError(f"the C core has no sources for {arch!r}: {', '.join(ARCHITECTURES)}")
    folder = core_folder()
    linux = LINUX_FLAGS if arch in ("x86_64", "aarch64") else ()
    defines = (_DEFINES[arch],) if arch in _DEFINES else ()
    flags = (*NUMERIC_FLAGS, *linux, *defines)
    everywhere = [*sorted((folder / "common").glob("*.c")), *governor_sources()]
    sources = [Source(path, flags) for path in everywhere]
    if arch not in _ROOMS:
        return sources
    room = folder / _ROOMS[arch]
    variants = _variant_flags(room)
    fast = ("-O3",) if linux else ()
    for path in sorted(room.rglob("*.[cS]")):
        if variant is not None and path.parent not in (room, room / variant):
            continue
        sources.append(Source(path, (*flags, *fast, *_flags_of(path.stem, variants))))
    return sources


def _variant_flags(room: Path) -> dict[str, tuple[str, ...]]:
    """Flags of each variant's own files, from the rows of the folder's ``variants.h``."""
    rows = _ROW.findall((room / "variants.h").read_text())
    return {name: tuple(flags.split()) for name, flags in rows}


def _flags_of(stem: str, variants: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Flags of ``NAME_anything``, ``NAME`` or ``kernels_NAME``; the longest name decides."""
    named = stem.removeprefix("kernels_") + "_"
    own = [name for name in variants if named.startswith(f"{name}_")]
    return variants[max(own, key=len)] if own else ()
