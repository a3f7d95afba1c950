"""The C governor decides as the Python one, step by step, on the host and on an emulated M7."""

from __future__ import annotations

import csv
import ctypes
import math
import subprocess
from dataclasses import astuple, fields
from pathlib import Path

import governor_scenarios as scenarios
import pytest

from support.tools import require_tool
from tatvpr_edge.profile.plant import PolicyRule, random_plant, simulate
from tatvpr_edge.runtime.governor import Inputs, Kind, Level, Policy, Reason, Tuning
from tatvpr_edge.runtime.governor.governor import _SAID
from tatvpr_edge.runtime.governor.observer import MAX_SWITCHES, PEAKS

HERE = Path(__file__).parent
FLAGS = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-O2", "-ffp-contract=off"]


def logic(source: Path) -> list[str]:
    """The governor itself, without the glue to the library's options."""
    return [str(source / name) for name in ("tatvpr_governor.c", "tatvpr_governor_observer.c")]


def table_program(source: Path) -> list[str]:
    """What the program that runs the shared table is compiled from."""
    return [f"-I{source}", str(HERE / "governor_table.c"), *logic(source)]


def doubles(*names: str) -> list[tuple[str, type]]:
    return [(name, ctypes.c_double) for name in names]


class CLevel(ctypes.Structure):
    _fields_ = doubles("k", "tokens", "p50_ms", "p95_ms", "energy_mj")


class CTuning(ctypes.Structure):
    _fields_ = doubles(*(field.name for field in fields(Tuning)))


class CInputs(ctypes.Structure):
    _fields_ = doubles(*(field.name for field in fields(Inputs)))


@pytest.fixture(scope="session")
def source(project_root: Path) -> Path:
    return project_root / "runtime/core/governor"


@pytest.fixture(scope="session")
def library(source: Path, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    gcc = require_tool("gcc", "gcc")
    built = tmp_path_factory.mktemp("governor") / "governor.so"
    subprocess.run(
        [gcc, *FLAGS, "-shared", "-fPIC", *logic(source), "-o", str(built)],
        check=True,
    )
    opened = ctypes.CDLL(str(built))
    opened.tatvpr_governor_why.restype = ctypes.c_char_p
    opened.tatvpr_governor_init.argtypes = [
        ctypes.c_void_p,
        ctypes.POINTER(CLevel),
        ctypes.c_int32,
        ctypes.c_int,
        ctypes.c_double,
        ctypes.c_int32,
        ctypes.c_int32,
        ctypes.POINTER(CTuning),
    ]
    opened.tatvpr_governor_step.argtypes = [ctypes.c_void_p, ctypes.POINTER(CInputs)]
    return opened


class CGovernor:
    """The C governor behind the controller's interface; remembers what it decided."""

    def __init__(
        self, library: ctypes.CDLL, levels: tuple[Level, ...], kind: Kind, limit: float
    ) -> None:
        self._library = library
        # level and reason lead the structure; the rest is the library's own.
        self._state = (ctypes.c_int32 * 1024)()
        table = (CLevel * len(levels))(*(CLevel(*astuple(level)[:5]) for level in levels))
        status = library.tatvpr_governor_init(
            self._state, table, len(levels), int(kind), limit, 0, 0, None
        )
        assert status == 0
        self.decided: list[tuple[int, int]] = []

    def step(self, inputs: Inputs) -> int:
        level = self._library.tatvpr_governor_step(
            self._state, ctypes.byref(CInputs(*astuple(inputs)))
        )
        self.decided.append((level, self._state[1]))
        return int(level)


def test_the_table_is_what_python_decides() -> None:
    with open(scenarios.TABLE, newline="", encoding="utf-8") as file:
        written = list(csv.reader(file))
    assert written == list(scenarios.lines())


def test_the_table_meets_every_reason() -> None:
    met = {int(row[-1]) for row in scenarios.lines() if row[0] == "S"}
    assert met == {int(reason) for reason in Reason}


def test_c_decides_as_the_table_says(source: Path, tmp_path: Path) -> None:
    gcc = require_tool("gcc", "gcc")
    program = tmp_path / "governor_table"
    subprocess.run(
        [
            gcc,
            *FLAGS,
            *table_program(source),
            "-o",
            str(program),
        ],
        check=True,
    )
    ran = subprocess.run([str(program), str(scenarios.TABLE)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
    assert ran.stdout.endswith(" steps, 0 differ\n")
    broken = tmp_path / "broken.csv"
    lines = scenarios.TABLE.read_text().splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("S"))
    lines[at] = lines[at].rsplit(",", 1)[0] + ",7"
    broken.write_text("\n".join(lines))
    ran = subprocess.run([str(program), str(broken)], capture_output=True, text=True)
    assert ran.returncode == 1
    assert f"line {at + 1}: " in ran.stdout


def test_an_emulated_cortex_m7_decides_as_the_table_says(source: Path, tmp_path: Path) -> None:
    gcc = require_tool("arm-none-eabi-gcc", "gcc-arm-none-eabi libnewlib-arm-none-eabi")
    qemu = require_tool("qemu-system-arm", "qemu-system-arm")
    program = tmp_path / "governor_table.elf"
    subprocess.run(
        [
            gcc,
            *FLAGS,
            "-mcpu=cortex-m7",
            "-mthumb",
            "-mfloat-abi=soft",
            "--specs=rdimon.specs",
            *table_program(source),
            str(HERE / "mps2_vectors.c"),
            "-T",
            str(HERE / "mps2_an500.ld"),
            "-o",
            str(program),
        ],
        check=True,
    )
    arguments = f"enable=on,target=native,arg=governor_table,arg={scenarios.TABLE}"
    ran = subprocess.run(
        [
            qemu,
            "-M",
            "mps2-an500",
            "-nographic",
            "-monitor",
            "none",
            "-serial",
            "none",
            "-semihosting-config",
            arguments,
            "-kernel",
            str(program),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " steps, 0 differ" in ran.stdout


@pytest.mark.parametrize(
    ("package", "executable", "flags"),
    [
        ("gcc-arm-none-eabi", "arm-none-eabi-gcc", ["-mcpu=cortex-m4", "-mthumb"]),
        ("gcc-arm-none-eabi", "arm-none-eabi-gcc", ["-mcpu=cortex-m55", "-mthumb"]),
        (
            "gcc-riscv64-unknown-elf",
            "riscv64-unknown-elf-gcc",
            ["-march=rv32imac", "-mabi=ilp32"],
        ),
    ],
)
def test_it_compiles_without_a_warning_and_without_a_library(
    source: Path, tmp_path: Path, package: str, executable: str, flags: list[str]
) -> None:
    gcc = require_tool(executable, package)
    built = tmp_path / "governor.o"
    subprocess.run(
        [
            gcc,
            *FLAGS,
            "-pedantic",
            "-ffreestanding",
            *flags,
            "-r",  # both halves as one object, so that what stays undefined is needed from outside
            "-nostdlib",
            *logic(source),
            "-o",
            str(built),
        ],
        check=True,
    )
    symbols = subprocess.run(
        [executable.replace("gcc", "nm"), str(built)], capture_output=True, text=True, check=True
    ).stdout
    needed = {line.split()[-1] for line in symbols.splitlines() if " U " in line}
    helpers = {name for name in needed if name.startswith("__")}  # the compiler's own arithmetic
    assert needed - helpers <= {"memcpy", "memset"}
    assert not [line for line in symbols.splitlines() if line.split()[-2] in "DdBbC"]  # no globals


def test_the_constants_are_the_same(library: ctypes.CDLL) -> None:
    tuning = CTuning()
    library.tatvpr_governor_defaults(ctypes.byref(tuning))
    assert [getattr(tuning, field.name) for field in fields(Tuning)] == list(astuple(Tuning()))


def test_the_sizes_are_the_same(source: Path) -> None:
    header = (source / "tatvpr_governor.h").read_text()
    assert f"#define TATVPR_GOVERNOR_PEAKS {PEAKS}\n" in header
    assert f"#define TATVPR_GOVERNOR_SWITCHES {MAX_SWITCHES} " in header


def test_the_sentences_are_the_same(library: ctypes.CDLL) -> None:
    for reason in Reason:
        assert library.tatvpr_governor_why(int(reason)).decode() == _SAID[reason]
    assert library.tatvpr_governor_why(99) == b"unknown reason"


def test_init_refuses_what_is_out_of_range(library: ctypes.CDLL) -> None:
    state = (ctypes.c_int32 * 1024)()
    level = (CLevel * 1)(CLevel(1.0, 1.0, 10.0, 11.0, 100.0))

    def init(n: int = 1, kind: int = 1, limit: float = 5000.0, safe: int = 0) -> int:
        return int(library.tatvpr_governor_init(state, level, n, kind, limit, safe, 0, None))

    assert init() == 0
    assert init(n=0) == init(n=17) == init(safe=1) == init(safe=-1) == -1
    assert init(kind=6) == init(limit=0.0) == init(limit=math.nan) == init(limit=math.inf) == -1
    assert library.tatvpr_governor_init(None, level, 1, 1, 1.0, 0, 0, None) == -1


@pytest.mark.parametrize("seed", range(12))
def test_c_and_python_agree_on_random_plants(library: ctypes.CDLL, seed: int) -> None:
    plant, limit_mw = random_plant(seed, duration_s=180.0)
    c = CGovernor(library, plant.levels, Kind.POWER, limit_mw)
    simulate(plant, c)
    policy = Policy(plant.levels, Kind.POWER, limit_mw)
    decided: list[tuple[int, int]] = []

    class Recording(PolicyRule):
        def step(self, inputs: Inputs) -> int:
            level = self.policy.step(inputs)
            decided.append((level, int(self.policy.reason)))
            return level

    simulate(plant, Recording(policy))
    assert decided == c.decided
    assert len(set(decided)) > 2


def test_the_boards_callback_is_the_telemetry(
    source: Path, project_root: Path, tmp_path: Path
) -> None:
    gcc = require_tool("gcc", "gcc")
    program = tmp_path / "governor_apply"
    sources = [HERE / "governor_apply.c", *source.glob("*.c")]
    include = project_root / "runtime/core/include"
    subprocess.run(
        [gcc, *FLAGS, f"-I{source}", f"-I{include}", *map(str, sources), "-o", str(program)],
        check=True,
    )
    ran = subprocess.run([str(program)], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "all as expected\n")
