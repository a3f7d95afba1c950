"""What a shared library demands of the system that loads it, read from its ELF tables.

No external tool is needed, so a missing ``readelf`` never hides a library that a board cannot load.
Layout: System V ABI, "Object Files", and the GNU symbol versioning extension.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from tatvpr_edge.spec.errors import ToolError

MACHINES = {62: "x86_64", 183: "aarch64", 243: "riscv", 40: "arm"}
_SHT_DYNAMIC, _SHT_DYNSYM, _SHT_VERNEED = 6, 11, 0x6FFFFFFE
_DT_NEEDED = 1
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_VERNEED = struct.Struct("<HHIII")
_VERNAUX = struct.Struct("<IHHII")


@dataclass(frozen=True)
class Elf:
    """The parts of a 64-bit little-endian shared object that matter for loading it."""

    machine: str  # "aarch64"
    needed: tuple[str, ...]  # DT_NEEDED: libraries
    versions: tuple[tuple[str, str], ...]  # (library, version), "GLIBC_2.17" and the like
    exported: tuple[str, ...]  # defined global symbols

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
    data = path.read_bytes()
    try:
        return _parse(data)
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        raise ToolError(f"{path.name}: the compiler wrote no usable ELF library") from error


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


def _parse(data: bytes) -> Elf:
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    machine = struct.unpack_from("<H", data, 18)[0]
    (offset,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    if size != _SECTION.size:
        raise ValueError("unknown section header size")
    sections = [_SECTION.unpack_from(data, offset + i * size) for i in range(count)]
    needed: list[str] = []
    versions: list[tuple[str, str]] = []
    exported: list[str] = []
    for section in sections:
        kind, start, length, link, info = (
            section[1],
            section[4],
            section[5],
            section[6],
            section[7],
        )
        if kind not in (_SHT_DYNAMIC, _SHT_DYNSYM, _SHT_VERNEED):
            continue
        names = _Names(data, sections[link][4], sections[link][5])
        if kind == _SHT_DYNAMIC:
            for at in range(start, start + length, 16):
                tag, value = struct.unpack_from("<qQ", data, at)
                if tag == _DT_NEEDED:
                    needed.append(names[value])
        elif kind == _SHT_DYNSYM:
            for at in range(start, start + length, _SYMBOL.size):
                name, bits, _, index, _, _ = _SYMBOL.unpack_from(data, at)
                if index != 0 and bits >> 4 in (1, 2):
                    exported.append(names[name])
        else:
            versions += _needed_versions(data, start, info, names)
    return Elf(
        MACHINES.get(machine, f"machine {machine}"),
        tuple(needed),
        tuple(versions),
        tuple(exported),
    )


class _Names:
    """A string table."""

    def __init__(self, data: bytes, start: int, length: int) -> None:
        self._table = data[start : start + length]

    def __getitem__(self, offset: int) -> str:
        return self._table[offset : self._table.index(b"\0", offset)].decode("ascii")


def _needed_versions(data: bytes, start: int, count: int, names: _Names) -> list[tuple[str, str]]:
    found = []
    at = start
    for _ in range(count):
        _, entries, library, first, following = _VERNEED.unpack_from(data, at)
        entry = at + first
        for _ in range(entries):
            _, _, _, name, next_entry = _VERNAUX.unpack_from(data, entry)
            found.append((names[library], names[name]))
            entry += next_entry
        at += following
    return found
