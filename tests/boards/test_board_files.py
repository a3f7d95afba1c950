"""The boards that we ship: their files are valid, agree with what emulators and compilers say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from support.tools import require_tool
from tatvpr_edge import zoo
from tatvpr_edge.boards.loader import load, names

SHIPPED = {
    "host",
    "jetson-orin-nano",
    "jetson-orin-nx",
    "jetson-agx-orin",
    "jetson-thor",
    "raspberry-pi-5",
    "raspberry-pi-4",
    "raspberry-pi-3",
    "raspberry-pi-zero-2w",
    "stm32h7",
    "stm32n6",
    "nucleo-u575",
    "rp2350",
    "mps2-an500",
    "mps2-an386",
    "mps3-an547",
    "riscv32-virt",
    "riscv32f-virt",
    "esp32-p4",
}
KIB = 1024


def test_every_shipped_board_is_there_and_valid() -> None:
    assert set(names()) == SHIPPED
    assert names()[0] == "host"
    assert [load(name).name for name in names()] == list(names())


@pytest.mark.parametrize("name", [n for n in names() if n.startswith("jetson-") and "orin" in n])
def test_orin_boards_are_jetpack_6(name: str) -> None:
    board = load(name)
    assert board.gpu is not None
    assert (board.gpu.sm, board.gpu.cuda, board.gpu.tensorrt) == (87, "12.6", "10.3")
    assert board.zig_triple == "aarch64-linux-gnu.2.35"


def test_ram_of_real_microcontrollers_adds_up_to_the_data_sheets() -> None:
    h7, n6 = load("stm32h7"), load("stm32n6")
    # STM32H743: 1056 kB of RAM besides 4 kB of backup RAM and 64 kB of ITCM count as "1 MB".
    assert sum(r.size for r in h7.memory if r.kind in ("ram", "tcm")) == 992 * KIB
    assert sum(r.size for r in h7.memory if r.kind == "itcm") == 64 * KIB
    assert h7.region("axi").size == 512 * KIB
    assert h7.region("flash").size == 2048 * KIB
    # STM32N657: 4.2 MB in one run of AXI addresses but for the hole before the last bank.
    assert sum(r.size for r in n6.memory if r.kind == "ram") == 4224 * KIB


@pytest.mark.parametrize("name", [n for n in names() if load(n).kind == "microcontroller"])
def test_arena_of_a_microcontroller_lies_in_writable_memory(name: str) -> None:
    board = load(name)
    assert board.placement is not None
    assert board.region(board.placement.arena).writable
    assert board.region(board.placement.stack).writable


def test_emulated_boards_name_the_real_board_whose_limits_they_hold() -> None:
    pairs = {"mps2-an500": "stm32h7", "mps3-an547": "stm32n6", "riscv32f-virt": "esp32-p4"}
    for name, real in pairs.items():
        assert load(name).limits_of == real
        assert load(name).cpu.name == load(real).cpu.name
        assert load(name).toolchain.gcc_flags == load(real).toolchain.gcc_flags


def test_every_board_names_a_shipped_model_made_for_its_class() -> None:
    boards = {name: load(name) for name in names()}
    assert {board.model for board in boards.values()} <= set(zoo.names())
    small = {name for name, board in boards.items() if board.model == "nano"}
    assert small == {"stm32h7", "nucleo-u575", "rp2350", "esp32-p4"}
    large = {name for name, board in boards.items() if board.model == "mini"}
    jetsons = {name for name in boards if name.startswith("jetson-")}
    assert large == {"raspberry-pi-4", "raspberry-pi-5"} | jetsons  # not the Pis of Cortex-A53


@pytest.mark.parametrize("name", names())
def test_gcc_takes_the_flags_of_every_board(name: str, tmp_path: Path) -> None:
    chain = load(name).toolchain
    gcc = require_tool(chain.gcc, *chain.gcc_packages)
    source = tmp_path / "f.c"
    source.write_text("int f(int a, int b) { return a * b; }\n")
    command = [gcc, *chain.gcc_flags, "-Wall", "-Werror", "-c", source, "-o", tmp_path / "f.o"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "name", [n for n in names() if (e := load(n).emulator) and "system" in e.program]
)
def test_memory_of_emulated_boards_is_what_the_emulator_maps(name: str) -> None:
    board = load(name)
    assert board.emulator is not None
    program = require_tool(board.emulator.program, board.emulator.package)
    done = subprocess.run(
        [
            *(program, *board.emulator.arguments),
            *("-S", "-display", "none", "-serial", "none", "-monitor", "stdio"),
        ],
        input="info mtree\nquit\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    # Behind a memory protection controller, RAM shows as that controller.
    what = r"(?:ram|rom|romd)\)|i/o\): tz-mpc-upstream"
    line = re.compile(rf"^\s+([0-9a-f]{{16}})-([0-9a-f]{{16}}) \(prio -?\d+, (?:{what})", re.M)
    mapped = {(int(m[1], 16), int(m[2], 16) + 1) for m in line.finditer(done.stdout)}
    assert mapped, done.stderr
    for region in board.memory:
        inside = [end for base, end in mapped if base == region.base and end >= region.end]
        assert inside, f"{region.name} of {name} is not mapped at {region.base:#x}"
