"""Every key of a board's file steers something: changed, it gives another build, plan, deploy or
refusal. A key that nothing reads has no row here, and the first test says so."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import sysconfig
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner

import tatvpr_edge
from support.tiny_model import TOKENS, tiny_model
from tatvpr_edge.boards import loader
from tatvpr_edge.boards.board import Board
from tatvpr_edge.cli.boards import command as boards_command
from tatvpr_edge.compilers import toolchains
from tatvpr_edge.compilers.checks import checked_graph
from tatvpr_edge.compilers.elf import check_loadable, read_elf
from tatvpr_edge.compilers.job import Job, lower_job
from tatvpr_edge.compilers.linux import llvm_target
from tatvpr_edge.compilers.mcu.fit import fit
from tatvpr_edge.compilers.mcu.flags import extra_flags
from tatvpr_edge.compilers.mcu.generated import Own
from tatvpr_edge.compilers.mcu.linker import fragment
from tatvpr_edge.compilers.mcu.project import example_files
from tatvpr_edge.compilers.packing import Layout
from tatvpr_edge.compilers.probe import compiler_fault
from tatvpr_edge.compilers.report import build_plan
from tatvpr_edge.compilers.toolchains import find_compiler
from tatvpr_edge.compilers.tvm.lower import Lowered
from tatvpr_edge.deploy.release import flash_tool
from tatvpr_edge.models.export import bodies
from tatvpr_edge.spec.errors import TatvprError

BOARDS = Path(loader.__file__).parent
KIB = 1024


def placed(board: Board, **_: Any) -> object:
    """Where a microcontroller's build puts a model of one megabyte, or why it does not fit."""
    arenas = {8: 200 * KIB, 40: 500 * KIB}
    return fit(board, "model", 1_000_000, 80 * KIB, arenas, tables_bytes=45 * KIB)


def kernels(board: Board, **_: Any) -> object:
    return extra_flags(board)


def linker_script(board: Board, **_: Any) -> object:
    return fragment(board)


def example(board: Board, **_: Any) -> object:
    return example_files(board, Own())


def target(board: Board, **_: Any) -> object:
    return llvm_target(board), toolchains.core_architecture(board)


def read(board: Board, **_: Any) -> object:
    """Only whether the file is taken."""
    return "taken"


def compiler(board: Board, path: Path, monkeypatch: pytest.MonkeyPatch, **_: Any) -> object:
    """The compiler of a machine that has GCC for Arm, or the refusal with what to install."""
    tools = path.parent / "bin"
    tools.mkdir(exist_ok=True)
    gcc = tools / "aarch64-linux-gnu-gcc"
    gcc.write_text(
        "#!/bin/sh\n"
        'for a; do [ "$a" = --version ] && echo gcc 1.0; done\n'
        'while [ $# -gt 1 ]; do [ "$1" = -o ] && : >"$2"; shift; done\n'
    )
    gcc.chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setattr(toolchains.importlib.util, "find_spec", lambda name: None)
    return find_compiler(board).command


def zig(board: Board, path: Path, monkeypatch: pytest.MonkeyPatch, **_: Any) -> object:
    """The command on a machine that has zig alone."""
    monkeypatch.setenv("PATH", str(path.parent))
    monkeypatch.setattr(toolchains.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(toolchains, "_version", lambda command: "zig")
    monkeypatch.setattr(toolchains, "compiler_fault", lambda *asked: None)
    return find_compiler(board).command


def loadable(board: Board, **_: Any) -> object:
    """Whether a library that this machine's compiler made may go to the board."""
    folder = Path(sysconfig.get_path("stdlib")) / "lib-dynload"
    library = next(folder.glob("_ctypes.*.so"))
    check_loadable(library, read_elf(library).machine, board.glibc)
    return "loads"


def board_steps(board: Board, path: Path, models: Path, **_: Any) -> object:
    """The GPU's part of a plan."""
    model = tiny_lowered(models)[0].onnx_file
    return tatvpr_edge.plan(path, model=model, backend="tensorrt").board_steps


@functools.cache
def tiny_lowered(folder: Path) -> tuple[Job, Lowered]:
    """A tiny model, lowered once for all plans."""
    file = folder / "tiny.onnx"
    onnx.save(tiny_model(functions=bodies.bodies(TOKENS)), file)
    job = Job(
        loader.load("host"), file, checked_graph(file), "tiny", (0.1, 1.0), "tvm", lambda *_: None
    )
    return job, lower_job(job, Layout.ROWS2)


def planned(board: Board, models: Path, **_: Any) -> object:
    """What ``build --dry-run`` says of the board itself: such keys are for people who choose."""
    job, lowered = tiny_lowered(models)
    return build_plan(dataclasses.replace(job, board=board), lowered, None, []).lines()


def told(board: Board, path: Path, **_: Any) -> object:
    """What ``tatvpr-edge boards FILE`` shows."""
    return CliRunner().invoke(boards_command, [str(path)], catch_exceptions=False).output


def flashed(board: Board, path: Path, monkeypatch: pytest.MonkeyPatch, **_: Any) -> object:
    """What deploy says of a microcontroller's artifact, were this file the shipped one."""
    folder = path.parent / "shipped"
    shutil.copytree(BOARDS, folder, ignore=shutil.ignore_patterns("*.py*"), dirs_exist_ok=True)
    shutil.copy(path, folder / "mps2-an500.toml")
    monkeypatch.setattr(loader, "FOLDER", folder)
    return flash_tool("mps2-an500")


def planned_model(board: Board, path: Path, **_: Any) -> object:
    """The model of a plan that is asked for none."""
    return tatvpr_edge.plan(path).model


AXI = 'name = "axi"\nbase = 0x2400_0000\nsize = 0x8_0000 # 512 KiB\nkind = "ram"'
#: key -> (what sees it, board, text, its change). A name is a file's: see the test below.
ROWS: dict[str, tuple[Callable[..., object], str, str, str]] = {
    "title": (planned, "stm32h7", 'title = "STM', 'title = "My STM'),
    "kind": (read, "stm32h7", 'kind = "microcontroller"', 'kind = "linux"'),
    "model": (planned_model, "host", 'kind = "linux"', 'kind = "linux"\nmodel = "nano"'),
    "cpu.name": (planned, "stm32h7", '"Cortex-M7"', '"Cortex-M7F"'),
    "cpu.triple": (
        target,
        "raspberry-pi-4",
        '"aarch64-linux-gnu"\ncores',
        '"x86_64-linux-gnu"\ncores',
    ),
    "cpu.features": (kernels, "stm32h7", 'features = ["dsp"]', "features = []"),
    "cpu.cores": (planned, "raspberry-pi-4", "cores = 4", "cores = 2"),
    "cpu.clock_mhz": (planned, "stm32h7", "clock_mhz = 480", "clock_mhz = 400"),
    "gpu.name": (planned, "jetson-thor", 'name = "Blackwell', 'name = "Not Blackwell'),
    "gpu.sm": (board_steps, "jetson-thor", "sm = 110", "sm = 87"),
    "gpu.cuda": (board_steps, "jetson-thor", 'cuda = "13', 'cuda = "12'),
    "gpu.tensorrt": (board_steps, "jetson-thor", 'tensorrt = "10', 'tensorrt = "11'),
    "gpu.jetpack": (board_steps, "jetson-thor", 'jetpack = "7', 'jetpack = "8'),
    "memory.name": (linker_script, "stm32h7", '"axi"', '"bank"'),
    "memory.base": (linker_script, "stm32h7", AXI, AXI.replace("0x2400", "0x2410")),
    "memory.size": (placed, "stm32h7", AXI, AXI.replace("0x8_0000", "0x4_0000")),
    "memory.kind": (read, "stm32h7", AXI, AXI.replace('"ram"', '"flash"')),
    "placement.code": (placed, "stm32h7", 'code = "flash"', 'code = "sram1"'),
    "placement.weights": (placed, "stm32h7", 'weights = "flash"', 'weights = "sram1"'),
    "placement.arena": (placed, "stm32h7", 'arena = "axi"', 'arena = "sram1"'),
    "placement.stack": (placed, "stm32h7", 'stack = "dtcm"', 'stack = "axi"'),
    "placement.tables": (placed, "stm32h7", 'tables = "dtcm"', 'tables = "sram2"'),
    "limits_of": (placed, "mps2-an500", 'limits_of = "stm32h7"\n', ""),
    "toolchain.gcc": (compiler, "raspberry-pi-4", 'gcc = "aarch64', 'gcc = "arm64'),
    "toolchain.gcc_packages": (compiler, "stm32h7", 'libnewlib-arm-none-eabi"', 'picolibc"'),
    "toolchain.gcc_flags": (compiler, "raspberry-pi-4", "gcc_flags = []", 'gcc_flags = ["-g"]'),
    "toolchain.zig_target": (zig, "raspberry-pi-4", '"aarch64-linux-gnu"', '"aarch64-linux-musl"'),
    "toolchain.zig_cpu": (zig, "raspberry-pi-4", 'zig_cpu = ""', 'zig_cpu = "cortex_a72"'),
    "emulator.program": (
        flashed,
        "mps2-an500",
        'program = "qemu-system-arm"',
        'program = "renode"',
    ),
    "emulator.package": (
        flashed,
        "mps2-an500",
        'package = "qemu-system-arm"',
        'package = "renode"',
    ),
    "emulator.arguments": (example, "mps2-an500", '"mps2-an500"]', '"mps2-an505"]'),
    "glibc": (loadable, "raspberry-pi-4", 'glibc = "2.3', 'glibc = "2.1" # '),
    "verification.level": (planned, "stm32h7", 'level = "compiled"', 'level = "not run"'),
    "verification.note": (planned, "stm32h7", 'note = "its memory', 'note = "her memory'),
    "notes": (planned, "stm32h7", '  "RAM is split', '  "Memory is split'),
}


def keys(kind: Any, prefix: str = "") -> set[str]:
    """Names of the leaves of a dataclass, those inside tables with their table's name."""
    found = set()
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        inner = [t for t in (hints[field.name], *typing.get_args(hints[field.name]))]
        table = next((t for t in inner if dataclasses.is_dataclass(t)), None)
        name = f"{prefix}{field.name}"
        found |= {name} if table is None else keys(table, f"{name}.")
    return found


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def test_every_key_has_something_that_sees_it() -> None:
    assert keys(Board) - {"name"} == set(ROWS)


@pytest.mark.parametrize("key", ROWS)
def test_another_value_is_seen(
    key: str, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    see, name, old, new = ROWS[key]
    path = tmp_path / "mine.toml"
    text = (BOARDS / f"{name}.toml").read_text()
    assert text.count(old) >= 1, f"{name}.toml has no {old!r} any more"
    seen = []
    for content in (text, text.replace(old, new)):
        path.write_text(content)
        compiler_fault.cache_clear()
        toolchains._version.cache_clear()
        with monkeypatch.context() as patch:
            try:
                seen.append(
                    see(loader.load(str(path)), path=path, models=models, monkeypatch=patch)
                )
            except TatvprError as error:
                seen.append(str(error))
    assert seen[0] != seen[1]


def test_the_name_of_a_board_is_its_files(tmp_path: Path) -> None:
    for name in ("mine", "yours"):
        shutil.copy(BOARDS / "stm32h7.toml", tmp_path / f"{name}.toml")
        board = loader.load(str(tmp_path / f"{name}.toml"))
        assert board.name == name
        assert name in str(told(board, tmp_path / f"{name}.toml"))
