"""C compilers for boards: which one is taken, and how a model's library is compiled and linked.

Order: the board's GCC (named in its TOML file), then, for Linux, ``ziglang`` with the board's glibc
as floor.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from tatvpr_edge.boards.board import NATIVE, Board
from tatvpr_edge.compilers.core_sources import (
    LINUX_FLAGS,
    NUMERIC_FLAGS,
    Source,
    core_include,
    core_sources,
)
from tatvpr_edge.compilers.elf import check_loadable
from tatvpr_edge.compilers.objects import Compiler, compile_object
from tatvpr_edge.compilers.probe import compiler_fault, first_line, probe_flags
from tatvpr_edge.spec.atomic import temporary_folder
from tatvpr_edge.spec.errors import ToolError
from tatvpr_edge.spec.workers import in_order

OPTIMISATION = ("-O3",)
_EXPORTS = "{ global: tatvpr_*; local: *; };\n"
_TIMEOUT_S = 600


def find_compiler(board: Board) -> Compiler:
    """The first compiler of the board's list that compiles and links a probe.

    Raises:
        ToolError: none does; the text has the command that installs each.
    """
    tools = board.toolchain
    gcc = shutil.which(tools.gcc)
    missing = f"no C compiler for board {board.name}"
    if gcc is not None:
        command = (gcc, *tools.gcc_flags)
        fault = compiler_fault(command, probe_flags(board), board.cpu.architecture)
        if fault is None:
            return Compiler(command, _version((gcc,)))
        missing = f"{tools.gcc} does not build a small program for board {board.name} ({fault})"
    remedies = [f"'apt-get install {' '.join(tools.gcc_packages)}'"]
    linux = board.kind == "linux"  # of firmware zig takes neither the flags nor the warnings
    if linux and importlib.util.find_spec("ziglang") is None:
        remedies.append("zig with 'pip install ziglang'")
    elif linux:
        zig = [sys.executable, "-m", "ziglang", "cc"]
        if board.cpu.triple != NATIVE:
            zig += ["-target", board.zig_triple]
        if tools.zig_cpu:
            zig.append(f"-mcpu={tools.zig_cpu}")
        fault = compiler_fault(tuple(zig), probe_flags(board), board.cpu.architecture)
        if fault is None:
            return Compiler(tuple(zig), _version(tuple(zig[:4])))
        missing += f"; zig does not either ({fault})"
    raise ToolError(f"{missing}: {', or '.join(remedies)}")


@lru_cache
def _version(command: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError(f"{command[0]} does not run: {error}") from error
    if done.returncode != 0 or not done.stdout:
        raise ToolError(f"{command[0]} does not run: {first_line(done.stderr)}")
    return done.stdout.splitlines()[0]


def core_architecture(board: Board) -> str:
    """Which of the core's source lists serves the board's CPU."""
    machine = platform.machine() if board.cpu.triple == NATIVE else board.cpu.architecture
    known = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
    return known.get(machine.lower(), "portable")


def build_library(
    board: Board,
    model_c: Path,
    objects: Sequence[Path],
    output: Path,
    defines: Sequence[str] = (),
) -> Compiler:
    """Compile the core and ``model_c`` and link them with ``objects`` to ``output``.

    ``defines`` are added to every compilation (variants of the core).

    Raises:
        ToolError: no compiler, a failed compilation, or a library that the board cannot load.
    """
    compiler = find_compiler(board)
    arch = core_architecture(board)
    linux_flags = () if arch == "portable" else LINUX_FLAGS
    sources = [*core_sources(arch), Source(model_c, (*NUMERIC_FLAGS, *linux_flags))]
    with temporary_folder("link") as scratch:
        folder = Path(scratch)

        def compiled(item: tuple[int, Source]) -> Path:
            index, source = item
            flags = [*OPTIMISATION, *source.flags, *defines, "-fPIC", f"-I{core_include()}"]
            return compile_object(compiler, source.path, flags, folder / f"{index}.o")

        workers = min(4, os.cpu_count() or 1)
        made = list(in_order(compiled, enumerate(sources), workers, stop=compiler.stop))
        link = ["-shared", "-o", str(output), *map(str, [*made, *objects])]
        if sys.platform != "darwin" or board.cpu.triple != NATIVE:
            exports = folder / "exports.map"
            exports.write_text(_EXPORTS)
            link += [
                f"-Wl,--version-script={exports}",
                "-Wl,-soname,libtatvpr_model.so",
                "-Wl,--no-undefined",
                "-Wl,--as-needed",
                "-Wl,-z,noexecstack",
            ]
        compiler.run([*link, "-pthread", "-lm"], "linking the model's library")
    if sys.platform != "darwin" or board.cpu.triple != NATIVE:
        machine = platform.machine() if board.cpu.triple == NATIVE else board.cpu.architecture
        check_loadable(output, machine, board.glibc)
    return compiler
