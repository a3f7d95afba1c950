"""One governor: the same decisions on every processor, free-standing C, the board's callback."""

from __future__ import annotations

import ctypes
import math
import subprocess
from pathlib import Path

import governor_scenarios as scenarios
import pytest

from support.tools import require_tool
from tatvpr_edge.runtime.governor import CGovernor, GovernorCore, Kind, Level, Reason
from tatvpr_edge.spec.errors import ArtifactError, UsageError

HERE = Path(__file__).parent
FLAGS = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-O2", "-ffp-contract=off"]


def logic(source: Path) -> list[str]:
    """The governor itself, without the glue to the library's options."""
    return [str(path) for path in sorted(source.glob("*.c")) if "apply" not in path.name]


def table_program(source: Path) -> list[str]:
    """What the program that replays the table is compiled from."""
    return [f"-I{source}", str(HERE / "governor_table.c"), *logic(source)]


@pytest.fixture(scope="session")
def source(project_root: Path) -> Path:
    return project_root / "runtime/core/governor"


@pytest.fixture(scope="session")
def table(core: GovernorCore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("governor") / "table.csv"
    path.write_text("\n".join(scenarios.table(core)) + "\n")
    return path


def test_the_table_meets_every_reason(table: Path) -> None:
    met = {int(line.split(",")[-1]) for line in table.read_text().splitlines() if line[0] == "S"}
    assert met == {int(reason) for reason in Reason}


def test_a_program_in_c_decides_as_python_saw_it(source: Path, table: Path, tmp_path: Path) -> None:
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
    ran = subprocess.run([str(program), str(table)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
    assert ran.stdout.endswith(" steps, 0 differ\n")
    broken = tmp_path / "broken.csv"
    lines = table.read_text().splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("S"))
    lines[at] = lines[at].rsplit(",", 1)[0] + ",7"
    broken.write_text("\n".join(lines))
    ran = subprocess.run([str(program), str(broken)], capture_output=True, text=True)
    assert ran.returncode == 1
    assert f"line {at + 1}: " in ran.stdout


def test_an_emulated_cortex_m7_decides_as_the_host(
    source: Path, table: Path, tmp_path: Path
) -> None:
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
    arguments = f"enable=on,target=native,arg=governor_table,arg={table}"
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


def test_every_reason_has_a_sentence(core: GovernorCore) -> None:
    sentences = {core.why(reason) for reason in Reason}
    assert len(sentences) == len(Reason)
    assert "unknown reason" not in sentences


def test_a_library_without_this_governor_is_refused_by_no_number_of_a_descriptor() -> None:
    with pytest.raises(ArtifactError, match=r"^this artifact's library .*: build the artifact"):
        GovernorCore(ctypes.CDLL(None))


def test_what_is_out_of_range_is_refused(core: GovernorCore) -> None:
    level = Level(1.0, 1.0, 10.0, 11.0, 100.0)

    def make(n: int = 1, limit: float = 5000.0, safe: int = 0) -> CGovernor:
        return CGovernor(core, [level] * n, Kind.POWER, limit, safe)

    assert make().level == 0
    for wrong in (
        *({"n": 0}, {"n": 17}, {"safe": 1}, {"safe": -1}),
        *({"limit": 0.0}, {"limit": math.nan}, {"limit": math.inf}),
    ):
        with pytest.raises(UsageError, match="outside its range"):
            make(**wrong)
    for point in (Level(0.0, 1.0), Level(1.0, 1.5), Level(math.inf, 1.0), Level(1.0, math.nan)):
        with pytest.raises(UsageError, match="outside its range"):
            CGovernor(core, [point, level], Kind.POWER, 5000.0)
    for points in ([], [Level(0.0, 1.0)], [Level(1.0, 1.5)], [Level(math.nan, 1.0)]):
        with pytest.raises(UsageError, match="levels need"):
            core.frontier(points, Kind.POWER)


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
