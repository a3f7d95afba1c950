"""A microcontroller's folder inside a project of other habits: C++, clang, joined sources."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import onnx
import pytest

import tatvpr_edge
from support.emulator import require_board
from support.tiny_model import TOKENS, tiny_model
from support.tools import require_tool
from tatvpr_edge.boards.loader import load
from tatvpr_edge.models.export import bodies

BOARD = "mps2-an500"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, own_cache: None) -> Path:
    require_board(BOARD)
    where = tmp_path_factory.mktemp("neighbours")
    onnx.save(tiny_model("cls", functions=bodies.bodies(TOKENS)), where / "tiny.onnx")
    return tatvpr_edge.build(BOARD, model=where / "tiny.onnx", output=where / "tatvpr")


@pytest.mark.parametrize("standard", ["c++11", "c++17", "c++20"])
@pytest.mark.parametrize("name", [BOARD, "mps3-an547"])
def test_every_header_is_clean_cpp(name: str, standard: str, folder: Path, tmp_path: Path) -> None:
    """The counter's header had casts of C, and what C++20 warns of unasked."""
    compiler = require_tool("arm-none-eabi-g++", "gcc-arm-none-eabi")
    headers = sorted(path.name for path in (folder / "include").glob("*.h"))
    assert {"tatvpr.h", "tatvpr_build.h", "tatvpr_cycles.h"} <= set(headers)
    for first in headers:  # each by itself, too
        included = [first, *(h for h in headers if h != first)]
        (tmp_path / "all.cpp").write_text("".join(f'#include "{h}"\n' for h in included))
        command = [compiler, *load(name).toolchain.gcc_flags, f"-std={standard}", "-Wall"]
        command += ["-Wextra", "-Wpedantic", "-Wconversion", "-Wsign-conversion", "-Wshadow"]
        command += ["-Wundef", "-Wold-style-cast", "-Wuseless-cast", "-Wcast-align=strict"]
        command += ["-Werror", f"-I{folder / 'include'}", "-fsyntax-only", tmp_path / "all.cpp"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


THEIRS = """\
cmake_minimum_required(VERSION 3.16)
project(theirs C ASM)
set(CMAKE_UNITY_BUILD ON)
add_compile_options($<$<COMPILE_LANGUAGE:C>:-Wredundant-decls>
  $<$<COMPILE_LANGUAGE:C>:-Wall> $<$<COMPILE_LANGUAGE:C>:-Wpedantic> -Werror)
add_subdirectory({folder} tatvpr)
"""


@pytest.mark.parametrize("compiler", ["arm-none-eabi-gcc", "clang-19"])
def test_a_cmake_project_that_joins_sources_takes_it(
    compiler: str, folder: Path, tmp_path: Path
) -> None:
    """clang refused an option of GCC's; names of one file met those of the next."""
    require_tool("cmake", "cmake")
    require_tool(compiler, {"clang-19": "clang-19"}.get(compiler, "gcc-arm-none-eabi"))
    board = load(BOARD)
    flags = " ".join(board.toolchain.gcc_flags)
    if compiler == "clang-19":
        flags += f" --target={board.cpu.triple} -isystem /usr/include/newlib"
    (tmp_path / "CMakeLists.txt").write_text(THEIRS.format(folder=folder))
    configure = ["cmake", "-G", "Unix Makefiles", "-S", tmp_path, "-B", tmp_path / "made"]
    configure += ["-DCMAKE_SYSTEM_NAME=Generic", "-DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY"]
    for language in ("C", "ASM"):
        configure += [f"-DCMAKE_{language}_COMPILER={compiler}"]
        configure += [f"-DCMAKE_{language}_FLAGS={flags}"]
    subprocess.run(configure, check=True, capture_output=True)
    objects = ["src/common/map.obj", "src/common/map_journal.obj", "src/weights.obj"]
    command = ["make", "-C", tmp_path / "made" / "tatvpr", *objects, "selftest/selftest.obj"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search("warning", done.stderr)
