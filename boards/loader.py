"""Board files: `load("stm32h7")` reads and checks `stm32h7.toml` of this folder.

In: one TOML file per board; its name is the board's name. Out: a frozen `Board`. Called by the
compilers, the command line and the tests; `docs/boards.md` says how to add a board.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from tatvpr_edge.boards.board import (
    KINDS,
    MEMORY_KINDS,
    NATIVE,
    VERIFIED,
    Board,
    Cpu,
    Emulator,
    Gpu,
    MemoryRegion,
    Placement,
    Toolchain,
    Verification,
)
from tatvpr_edge.boards.nearest import nearest
from tatvpr_edge.boards.table import Table
from tatvpr_edge.spec.documents import read_toml
from tatvpr_edge.spec.errors import BoardError, UsageError

FOLDER = Path(__file__).resolve().parent
#: Of boards whose file names no model.
USUAL_MODEL = "micro"

# Patterns with what to write instead, for error messages.
_NAME = (r"[a-z0-9][a-z0-9-]{0,63}", "lower-case letters, digits and '-'")
_WORD = (r"[A-Za-z0-9][A-Za-z0-9._+-]*", "one word of letters, digits and . _ + -")
_TARGET = (rf"{NATIVE}|[a-z0-9._]+(-[a-z0-9._]+){{1,3}}", "a triple such as aarch64-linux-gnu")
_ARGUMENT = (r"[A-Za-z0-9._+=,:/-]+", "one argument without spaces or quotes")
_VERSION = (r"\d+\.\d+(\.\d+)?", "a version such as 10.3")
_FEATURE = (r"[a-z0-9][a-z0-9.-]*", "LLVM's name, without '+'")
_TEXT = (r"[^\x00-\x1f\x7f]+", "one line of text")

#: What LLVM calls the instructions of Cortex-M cores. Other words choose no kernels: a misspelt one
#: would quietly mean plain C. Of RISC-V's letters none chooses any.
_CORTEX_M = (
    *("dsp", "mve", "mve.fp", "mve1beat", "thumb2", "hwdiv", "db", "lob", "ras", "pacbti"),
    *("8msecext", "acquire-release", "v7clrex", "mclass", "no-movt", "strict-align"),
    *("v6m", "v7", "v8m", "v8m.main", "v8.1m.main", "fpregs", "fpregs16", "fpregs64"),
    *("fp16", "fp64", "fullfp16", "vfp2", "vfp2sp", "vfp3d16", "vfp3d16sp", "vfp4d16"),
    *("vfp4d16sp", "fp-armv8d16", "fp-armv8d16sp"),
)
_ARM = ("thumb", "arm")

_ADDRESS_MAX = 2**64 - 1
_32_BIT = ("thumb", "arm", "riscv32")


def names() -> tuple[str, ...]:
    """Names of all boards, sorted; `host` first, because it is every machine's own."""
    found = sorted(path.stem for path in FOLDER.glob("*.toml"))
    return tuple(sorted(found, key=lambda name: name != "host"))


def load(name: str | os.PathLike[str]) -> Board:
    """Return the board called `name`, or the one that a file of the user's describes.

    Args:
        name: of `names()`, or the path of a board file ("./my-board.toml").

    Raises:
        BoardError: no such board (with near matches), or its file is invalid.
        UsageError: it is neither a name nor a path.
    """
    given, name = name, os.fspath(name) if isinstance(name, (str, os.PathLike)) else b""
    if not isinstance(name, str):
        said = repr(given)[:80]
        raise UsageError(f"board is {said}: a board's name, such as host, or the path of its file")
    if name.endswith(".toml"):
        path = Path(os.path.expanduser(name))
        if path.stem in names() and Path(os.path.realpath(path)).parent != FOLDER:
            raise BoardError(
                f"{path}: a shipped board is called {path.stem!r} already: rename the file"
            )
        return read(path)
    if name not in names():
        raise BoardError(f"unknown board {name!r}{_meant(name)}")
    return read(FOLDER / f"{name}.toml")


def _meant(word: str) -> str:
    """ ": did you mean ...?" of a word that is no board's name, or else all names."""
    if re.fullmatch(_NAME[0], word) and Path(f"{word}.toml").is_file():
        return f": for the file here, write {word}.toml"
    # Titles by a pattern: an error must not fail by a board file that is being written.
    texts = {name: (FOLDER / f"{name}.toml").read_text("utf-8") for name in names()}
    found = {name: re.search(r'^title = "(.*)"', text, re.M) for name, text in texts.items()}
    titles = {name: "" if title is None else title[1] for name, title in found.items()}
    if near := nearest(word[:100], titles):
        return f": did you mean {' or '.join(near)}?"
    return f": known are {', '.join(names())}"


def read(path: Path) -> Board:
    """Return the board that the file at `path` describes; its name is the file's.

    Raises:
        BoardError: the file cannot be read, is no TOML, or breaks a rule; the message names the
            file, the key and the remedy.
    """
    file = path.name
    if not re.fullmatch(_NAME[0], path.stem) or path.suffix != ".toml":
        raise BoardError(f"{file}: a board's file is NAME.toml, NAME of {_NAME[1]}")
    values = read_toml(path, BoardError, file)
    return parse(path.stem, values, file)


def parse(name: str, values: dict[str, Any], file: str) -> Board:
    """Check the values of a board file and return the board. Raises BoardError as `read` does."""
    top = Table(values, file)
    kind = top.choice("kind", KINDS)
    linux = kind == "linux"
    cpu = _cpu(top.table("cpu"), linux)
    memory = _memory(top, cpu)
    placement = None if linux else _placement(top, memory)
    board = Board(
        name=name,
        title=top.text("title"),
        kind=kind,
        model=top.text("model", *_WORD) if top.has("model") else USUAL_MODEL,
        cpu=cpu,
        gpu=_gpu(top) if linux else None,
        memory=memory,
        placement=placement,
        limits_of=_limits_of(top, name),
        toolchain=_toolchain(top.table("toolchain"), linux),
        emulator=_emulator(top.optional_table("emulator")),
        glibc=top.optional_text("glibc", r"2\.\d+", "a version such as 2.35") if linux else None,
        verification=_verification(top.table("verification")),
        notes=top.texts("notes", *_TEXT) if top.has("notes") else (),
    )
    top.finish()
    if linux and cpu.triple != NATIVE and board.glibc is None:
        raise top.fault("glibc", "missing: a Linux board states the oldest glibc to load on")
    return board


def _cpu(table: Table, linux: bool) -> Cpu:
    triple = table.text("triple", *_TARGET)
    known = _CORTEX_M if triple.startswith(_ARM) else None
    cpu = Cpu(
        name=table.text("name"),
        triple=triple,
        # Libraries of Linux boards hold every variant of their architecture and ask the CPU.
        features=() if linux else table.texts("features", *_FEATURE, known),
        cores=table.integer("cores", 0 if triple == NATIVE else 1, 1024),
        clock_mhz=table.integer("clock_mhz", 1, 100_000) if table.has("clock_mhz") else None,
    )
    table.finish()
    return cpu


def _gpu(top: Table) -> Gpu | None:
    table = top.optional_table("gpu")
    if table is None:
        return None
    gpu = Gpu(
        name=table.text("name"),
        sm=table.integer("sm", 50, 999),
        cuda=table.text("cuda", *_VERSION),
        tensorrt=table.text("tensorrt", *_VERSION),
        jetpack=table.text("jetpack", *_VERSION),
    )
    table.finish()
    return gpu


def _memory(top: Table, cpu: Cpu) -> tuple[MemoryRegion, ...]:
    space = 2**32 if cpu.architecture.startswith(_32_BIT) else _ADDRESS_MAX + 1
    regions: list[MemoryRegion] = []
    for table in top.tables("memory"):
        name = table.text("name", r"[a-z][a-z0-9_]*", "lower-case letters, digits and '_'")
        base = table.integer("base", 0, _ADDRESS_MAX)
        size = table.integer("size", 1, _ADDRESS_MAX)
        region = MemoryRegion(name, base, size, table.choice("kind", MEMORY_KINDS))
        table.finish()
        if region.end > space:
            raise table.fault("size", f"{name} ends beyond the address space: lower base or size")
        for other in regions:
            if other.name == name:
                raise table.fault("name", f"two regions are called {name!r}: rename one")
            if region.base < other.end and other.base < region.end:
                raise table.fault(
                    "base",
                    f"{name} {_range(region)} overlaps {other.name} {_range(other)}: "
                    "correct base or size of one",
                )
        regions.append(region)
    return tuple(regions)


def _range(region: MemoryRegion) -> str:
    return f"({region.base:#010x} to {region.end - 1:#010x})"


def _placement(top: Table, memory: tuple[MemoryRegion, ...]) -> Placement:
    table = top.table("placement")
    known = [region.name for region in memory]
    writable = [region.name for region in memory if region.writable]
    placement = Placement(
        code=table.choice("code", known),
        weights=table.choice("weights", known),
        arena=table.choice("arena", writable),
        stack=table.choice("stack", writable),
        tables=table.choice("tables", known),
    )
    table.finish()
    return placement


def _limits_of(top: Table, name: str) -> str | None:
    if not top.has("limits_of"):
        return None
    real = top.choice("limits_of", names())
    if real == name:
        raise top.fault("limits_of", "names the board itself: name the real one, or remove it")
    return real


def _toolchain(table: Table, linux: bool) -> Toolchain:
    cpu = (r"([a-z0-9_]+([+-][a-z0-9_]+)*)?", "as zig cc -mcpu")
    toolchain = Toolchain(
        gcc=table.text("gcc", *_WORD),
        gcc_packages=table.texts("gcc_packages", *_WORD),
        gcc_flags=table.texts("gcc_flags", *_ARGUMENT),
        zig_target=table.text("zig_target", *_TARGET) if linux else "",
        zig_cpu=table.text("zig_cpu", *cpu) if linux else "",
    )
    table.finish()
    return toolchain


def _emulator(table: Table | None) -> Emulator | None:
    if table is None:
        return None
    emulator = Emulator(
        program=table.text("program", *_WORD),
        package=table.text("package", *_WORD),
        arguments=table.texts("arguments", *_ARGUMENT),
    )
    table.finish()
    return emulator


def _verification(table: Table) -> Verification:
    verification = Verification(table.choice("level", VERIFIED), table.text("note"))
    table.finish()
    return verification
