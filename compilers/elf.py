"""What a shared library demands of the system that loads it, read from its ELF tables.

No external tool is needed, so a missing ``readelf`` never hides a library that a board cannot load.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

from tatvpr_edge.spec.errors import ToolError

MACHINES = {
    "EM_X86_64": "x86_64",
    "EM_AARCH64": "aarch64",
    "EM_RISCV": "riscv",
    "EM_ARM": "arm",
}
#: What pyelftools raises on tables that make no sense.
_DAMAGED = (
    *(ELFError, ConstructError, struct.error, IndexError, KeyError, ValueError, TypeError),
    *(AttributeError, OverflowError, AssertionError, MemoryError),
)


@dataclass(frozen=True)
class Elf:
    """The parts of a 64-bit little-endian shared object that matter for loading it."""

    machine: str  # "aarch64"
    needed: tuple[str, ...]  # DT_NEEDED: libraries
    versions: tuple[tuple[str, str], ...]  # (library, version), "GLIBC_2.17" and the like

    @property
    def glibc(self) -> tuple[int, int]:
        """The newest glibc version that a symbol asks for; (0, 0) where none does."""
        found = [
            (int(match[1]), int(match[2]))
            for _, version in self.versions
            if (match := re.match(r"GLIBC_(\d+)\.(\d+)", version))
        ]
        return max(found, default=(0, 0))


def read_elf(path: Path) -> Elf:
    """Parse the dynamic tables of the shared object at ``path``.

    Raises:
        ToolError: it is no 64-bit little-endian ELF file, or its tables are damaged.
    """
    try:
        with path.open("rb") as stream:
            return _parse(ELFFile(stream))
    except _DAMAGED as error:
        raise ToolError(f"{path.name}: the compiler wrote no usable ELF library") from error


def machine_of(path: Path) -> str | None:
    """The machine that the file at ``path`` was compiled for; None: it is no ELF file."""
    try:
        with path.open("rb") as stream:
            return _machine(ELFFile(stream))
    except _DAMAGED:
        return None


def check_loadable(path: Path, machine: str, glibc: str | None) -> Elf:
    """The library is for ``machine`` and asks for no glibc newer than ``glibc`` ("2.35").

    Raises:
        ToolError: it is for another machine, or the board could not load it.
    """
    elf = read_elf(path)
    if elf.machine != machine:
        raise ToolError(f"{path.name} was compiled for {elf.machine}, the board is {machine}")
    if glibc is not None:
        major, minor = (int(part) for part in glibc.split(".")[:2])
        if elf.glibc > (major, minor):
            newest = ".".join(map(str, elf.glibc))
            raise ToolError(
                f"{path.name} needs glibc {newest}, the board has {glibc}: "
                "build with 'pip install ziglang', which keeps to the board's version"
            )
    return elf


def _parse(file: ELFFile) -> Elf:
    if file.elfclass != 64 or not file.little_endian:
        raise ValueError("not a 64-bit little-endian ELF file")
    needed: list[str] = []
    versions: list[tuple[str, str]] = []
    for section in file.iter_sections():
        if isinstance(section, DynamicSection):
            # pyelftools gives each tag the member of its own name, which its types do not say
            needed += [tag.needed for tag in section.iter_tags("DT_NEEDED")]  # type: ignore[attr-defined]
        elif isinstance(section, GNUVerNeedSection):
            for library, entries in section.iter_versions():
                versions += [(str(library.name), str(entry.name)) for entry in entries]
    return Elf(_machine(file), tuple(needed), tuple(versions))


def _machine(file: ELFFile) -> str:
    machine = file["e_machine"]
    return MACHINES.get(machine, f"machine {machine}")
