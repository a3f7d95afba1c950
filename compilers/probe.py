"""Does a compiler really work for a board? It compiles and links a small program, or says why not.

A compiler on the PATH is half of a toolchain: Debian's gcc-arm-none-eabi comes without newlib, and
would fail in the middle of a build with "math.h: No such file".
"""

from __future__ import annotations

import os
import subprocess
from functools import lru_cache
from pathlib import Path

from tatvpr_edge.boards.board import NATIVE, Board
from tatvpr_edge.compilers.elf import machine_of
from tatvpr_edge.compilers.mcu.flags import extra_flags, has_no_libc
from tatvpr_edge.spec.atomic import temporary_folder

_TIMEOUT_S = 600  # zig builds its C library for a target once
#: What the core asks of a C library, and nothing else.
_PROGRAM = """\
#include <math.h>
#include <stddef.h>
#include <stdint.h>
float tatvpr_probe(float x, uint8_t *bytes, size_t count);
float tatvpr_probe(float x, uint8_t *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) bytes[i] ^= 1;
    return x / (float)(1 + bytes[0]);
}
"""
_ENTRY = ("-nostartfiles", "-Wl,--entry=tatvpr_probe")


def probe_flags(board: Board) -> tuple[str, ...]:
    """How the probe is compiled and linked for a board, as its build would be."""
    if board.kind == "linux":
        return ("-shared", "-fPIC", "-pthread", "-lm")
    if has_no_libc(board):
        return (*extra_flags(board), *_ENTRY, "-nostdlib", "-lgcc")
    return (*extra_flags(board), *_ENTRY, "-lm")


#: "sorry": what GCC says of flags that do not go together.
_CAUSES = ("error:", "undefined", "sorry, unimplemented")


#: How a triple may begin whose machine is called otherwise in ELF files.
_ARM = ("arm", "thumb")


@lru_cache
def compiler_fault(
    command: tuple[str, ...], flags: tuple[str, ...], architecture: str
) -> str | None:
    """Why ``command`` cannot compile and link with ``flags`` for ``architecture`` (of the board's
    triple), in its own words; None: it can."""
    libraries = tuple(flag for flag in flags if flag.startswith("-l"))
    rest = tuple(flag for flag in flags if flag not in libraries)
    with temporary_folder("probe") as scratch:
        source, output = Path(scratch) / "probe.c", Path(scratch) / "probe"
        source.write_text(_PROGRAM)
        words = [*command, "-O2", *rest, "-o", str(output), str(source), *libraries]
        try:
            done = subprocess.run(
                words,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                env={**os.environ, "TMPDIR": str(scratch)},  # its own scratch files go as well
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if done.returncode == 0 and output.is_file():
            # A build would fail in the middle, or an artifact say what its code is not.
            machine = machine_of(output)
            fits = _ARM if machine == "arm" else machine
            if architecture == NATIVE or not fits or architecture.startswith(fits):
                return None
            return f"it builds for {machine}, and cpu.triple is of {architecture}: correct either"
    return first_line(done.stderr)


def first_line(text: str) -> str:
    """The line of a compiler's message that names the cause."""
    lines = [line for line in text.splitlines() if line.strip()]
    # GCC's linker ends with a "collect2: error" that says nothing; the cause stands above it.
    said = [line for line in lines if "collect2" not in line]
    errors = [line for line in said if any(word in line for word in _CAUSES)]
    return (errors or lines or ["no message"])[0].strip()
