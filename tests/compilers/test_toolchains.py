"""Compilers: which one is taken, what is said when none is there, what a board can load."""

from __future__ import annotations

import stat
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from support.tools import require_tool
from tatvpr_edge.boards.loader import load, names
from tatvpr_edge.cli.doctor import examine
from tatvpr_edge.compilers import toolchains
from tatvpr_edge.compilers.elf import check_loadable, read_elf
from tatvpr_edge.compilers.objects import compile_object, run_tool
from tatvpr_edge.compilers.probe import compiler_fault
from tatvpr_edge.compilers.toolchains import find_compiler
from tatvpr_edge.spec.errors import ToolError


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing on it, and no ziglang."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(toolchains.importlib.util, "find_spec", lambda name: None)
    toolchains._version.cache_clear()
    compiler_fault.cache_clear()
    return folder


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


#: A compiler that knows its version and leaves a file where it was told to.
WORKS = """\
[ "$2" = --version ] || [ "$1" = --version ] && { echo the GCC of this test 1.0; exit 0; }
while [ $# -gt 1 ]; do [ "$1" = -o ] && : >"$2"; shift; done
exit 0"""


class TestChoice:
    @pytest.mark.parametrize("name", names())
    def test_without_any_the_error_names_both_commands(self, only: Path, name: str) -> None:
        board = load(name)
        with pytest.raises(ToolError) as caught:
            find_compiler(board)
        assert f"apt-get install {' '.join(board.toolchain.gcc_packages)}" in str(caught.value)
        # Firmware's flags are GCC's: zig compiled a probe of RISC-V's, and then not the library.
        assert ("pip install ziglang" in str(caught.value)) == (board.kind == "linux")
        assert name in str(caught.value)

    def test_the_boards_gcc_comes_first(self, only: Path) -> None:
        board = load("jetson-orin-nano")
        script(only / board.toolchain.gcc, WORKS)
        compiler = find_compiler(board)
        assert compiler.command == (str(only / board.toolchain.gcc), *board.toolchain.gcc_flags)
        assert compiler.name == "the GCC of this test 1.0"

    def test_then_zig_with_the_boards_glibc(
        self, only: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(toolchains.importlib.util, "find_spec", lambda name: object())
        monkeypatch.setattr(toolchains, "_version", lambda command: "zig")
        monkeypatch.setattr(toolchains, "compiler_fault", lambda *asked: None)
        command = find_compiler(load("jetson-orin-nano")).command
        assert "ziglang" in command
        assert "aarch64-linux-gnu.2.35" in command

    def test_a_compiler_without_its_c_library_does_not_count(self, only: Path) -> None:
        board = load("stm32h7")
        script(
            only / board.toolchain.gcc,
            "echo 'p.c:1: fatal error: math.h: No such file' >&2; exit 1",
        )
        with pytest.raises(ToolError, match=r"math\.h: No such file") as caught:
            find_compiler(board)
        assert "libnewlib-arm-none-eabi" in str(caught.value)
        found = [
            check for check in examine() if "Cortex" in check.thing or "stm32h7" in check.thing
        ]
        assert all(not check.present for check in found)

    def test_a_remedy_that_was_tried_is_not_offered(
        self, only: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(toolchains.importlib.util, "find_spec", lambda name: object())
        monkeypatch.setattr(toolchains, "compiler_fault", lambda *asked: "no libm")
        with pytest.raises(ToolError, match=r"zig does not either \(no libm\): 'apt-get ") as told:
            find_compiler(load("jetson-orin-nano"))
        with pytest.raises(ToolError, match=r"^no C compiler for board stm32h7: 'apt-get") as arm:
            find_compiler(load("stm32h7"))
        assert "ziglang" not in str(told.value) + str(arm.value)

    def test_flags_that_do_not_go_together_are_told_in_gccs_words(self, only: Path) -> None:
        told = "p.c: In function 'f':\np.c:1: sorry, unimplemented: Thumb-1 'hard-float' VFP ABI"
        script(only / "arm-none-eabi-gcc", f'echo "{told}" >&2; exit 1')
        with pytest.raises(ToolError, match=r"unimplemented: Thumb-1"):
            find_compiler(load("stm32h7"))

    @pytest.mark.parametrize("triple", ["x86_64-linux-gnu", "foo-bar"])
    def test_a_compiler_for_another_processor_does_not_count(self, triple: str) -> None:
        require_tool("arm-none-eabi-gcc", "gcc-arm-none-eabi")
        board = load("stm32h7")
        wrong = replace(board, cpu=replace(board.cpu, triple=triple))
        with pytest.raises(
            ToolError, match=f"builds for arm, and cpu.triple is of {wrong.cpu.architecture}"
        ):
            find_compiler(wrong)

    def test_a_compiler_that_does_not_run(self, only: Path) -> None:
        script(only / "gcc", "echo broken installation >&2; exit 3")
        with pytest.raises(ToolError, match="broken installation"):
            find_compiler(load("host"))


class TestCompiling:
    def test_an_error_is_one_line_with_the_compilers_words(self, tmp_path: Path) -> None:
        require_tool("gcc", "gcc")
        source = tmp_path / "wrong.c"
        source.write_text("int f(void) { return undeclared; }\n")
        with pytest.raises(ToolError, match=r"wrong\.c.*undeclared") as caught:
            compile_object(find_compiler(load("host")), source, [], tmp_path / "o.o")
        assert "\n" not in str(caught.value)

    def test_a_program_that_is_not_there(self) -> None:
        with pytest.raises(ToolError, match="linking failed"):
            run_tool(["/nonexistent/compiler"], "linking")


class TestElf:
    @pytest.fixture
    def library(self, tmp_path: Path) -> Path:
        require_tool("gcc", "gcc")
        source, made = tmp_path / "f.c", tmp_path / "f.so"
        source.write_text(
            "#include <math.h>\n#include <string.h>\n"
            "double tatvpr_test(double x, char *p) { memset(p, 0, 64); return exp(x); }\n"
        )
        run_tool(
            ["gcc", "-shared", "-fPIC", "-fno-builtin", "-o", str(made), str(source), "-lm"], ""
        )
        return made

    def test_it_reads_what_the_library_needs(self, library: Path) -> None:
        elf = read_elf(library)
        assert any(name.startswith("libc.so") for name in elf.needed)
        assert (2, 0) < elf.glibc < (3, 0)

    def test_a_library_for_an_older_system_is_refused(self, library: Path) -> None:
        machine = read_elf(library).machine
        check_loadable(library, machine, "2.99")
        with pytest.raises(ToolError, match=r"needs glibc 2\.\d+, the board has 2\.1.*ziglang"):
            check_loadable(library, machine, "2.1")

    def test_a_library_for_another_machine_is_refused(self, library: Path) -> None:
        with pytest.raises(ToolError, match="the board is riscv"):
            check_loadable(library, "riscv", None)

    @pytest.mark.parametrize("cut", [0, 3, 17, 60, 200, 1000])
    def test_damage_is_an_error_and_no_crash(self, library: Path, cut: int) -> None:
        library.write_bytes(library.read_bytes()[:cut])
        with pytest.raises(ToolError, match="no usable ELF"):
            read_elf(library)

    def test_nonsense_in_the_section_table(self, library: Path) -> None:
        data = bytearray(library.read_bytes())
        struct.pack_into("<Q", data, 40, 2**63)
        library.write_bytes(data)
        with pytest.raises(ToolError, match="no usable ELF"):
            read_elf(library)
