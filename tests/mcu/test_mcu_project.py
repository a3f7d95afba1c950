"""The example in a microcontroller's folder: built by its two printed commands, and run."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

import tatvpr_edge
from support.emulator import require_board
from support.tiny_model import TOKENS, tiny_model
from support.tools import require_tool
from tatvpr_edge.boards import loader
from tatvpr_edge.boards.loader import load, names
from tatvpr_edge.compilers.mcu.flags import WARNINGS
from tatvpr_edge.compilers.mcu.linker import whole_script
from tatvpr_edge.models.export import bodies
from tatvpr_edge.runtime import Localizer
from tatvpr_edge.spec.artifact import read_artifact
from tatvpr_edge.spec.errors import UsageError

BOARD = "mps2-an500"
EMULATED = [name for name in names() if (e := load(name).emulator) and "system" in e.program]
ARENA_OF_MICRO = 400_000  # bytes, at least
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("firmware")


def run(command: Sequence[str | Path], where: Path, status: int | None = 0) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=where, capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    assert status is None or done.returncode == status, text[-3000:]
    return text


@pytest.fixture(scope="module")
def printed(empty: Path, project_root: Path) -> list[str]:
    """What ``tatvpr-edge build --board mps2-an500`` prints in an empty folder."""
    require_board(BOARD)
    command = [sys.executable, "-m", "tatvpr_edge", "build", "--board", BOARD]
    done = subprocess.run(command, cwd=empty, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def folder(printed: list[str], empty: Path) -> Path:
    return empty / f"micro-{BOARD}"


@pytest.fixture(scope="module")
def output(printed: list[str], empty: Path) -> str:
    """What the two printed commands print."""
    require_tool("cmake", "cmake")
    configure, start = (shlex.split(line) for line in printed[-2:])
    run(configure, empty)
    return run(start, empty)


@pytest.fixture(scope="module")
def tiny(empty: Path) -> Path:
    path = empty / "tiny.onnx"
    onnx.save(tiny_model("cls", functions=bodies.bodies(TOKENS)), path)
    return path


@pytest.fixture(scope="module")
def other(empty: Path, tiny: Path) -> Path:
    """The tiny model for the same board."""
    return tatvpr_edge.build(BOARD, model=tiny, output=empty / "other")


def test_two_printed_commands_build_and_run_it(output: str, folder: Path) -> None:
    golden = read_artifact(folder).manifest.golden
    line = re.compile(r"^frame (\d+) k ([\d.]+) tokens ([\d.]+): same bytes$", re.MULTILINE)
    lines = line.findall(output)
    wanted = [
        (str(index), f"{point.k:.3f}", f"{point.tokens:.3f}")
        for point in golden.points
        for index in range(len(golden.frames))
    ]
    assert lines == wanted  # QEMU's Cortex-M7 has no cycle counter: none is claimed
    places = re.findall(r"^place (\d+), score ([\d.]+)$", output, re.MULTILINE)
    assert places[0] == ("0", "1.000")  # golden frame 0 is the first place of the map in flash
    assert len(places) == len(golden.frames)


def test_building_and_running_leave_the_artifact_whole(output: str, folder: Path) -> None:
    assert read_artifact(folder, board=BOARD).manifest.board == BOARD


def test_the_flash_image_holds_constants_alone(output: str, folder: Path, tmp_path: Path) -> None:
    image = tmp_path / "image.bin"
    objcopy = require_tool("arm-none-eabi-objcopy", "binutils-arm-none-eabi")
    elf = f"{folder}-build/firmware.elf"
    run([objcopy, "-O", "binary", elf, image], tmp_path)
    artifact = read_artifact(folder)
    memory = artifact.manifest.memory
    data = sum(
        e.bytes for e in artifact.manifest.files if e.path.startswith(("golden/", "example/places"))
    )
    constants = memory["weight_bytes"] + memory["code_bytes"] + data
    assert memory["arena_bytes"] > ARENA_OF_MICRO
    assert memory["weight_bytes"] < image.stat().st_size < constants + 16_384


def test_an_altered_vector_fails_the_run(other: Path, tmp_path: Path) -> None:
    require_board(BOARD)
    require_tool("cmake", "cmake")
    copy = tmp_path / "altered"
    run(["cp", "-r", other, copy], tmp_path)
    vectors = next((copy / "golden").glob("k1-*.f32"))
    data = bytearray(vectors.read_bytes())
    data[0] ^= 1
    vectors.write_bytes(data)
    run(["cmake", "--preset", BOARD, "-S", copy / "example"], tmp_path)
    said = run(["cmake", "--build", f"{copy}-build", "--target", "run"], tmp_path, status=None)
    assert "frame 0 k 1.000 tokens 1.000: OTHER BYTES" in said
    assert "does not compute what it should" in said and "Error 1" in said


@pytest.mark.parametrize("missing", ["", "nowhere.placemap", "."])
def test_a_map_that_is_none_is_told_before_anything_is_compiled(
    missing: str, output: str, folder: Path, tmp_path: Path
) -> None:
    """An unset variable of the shell was a line of the assembler's."""
    configure = ["cmake", "--preset", BOARD, "-S", folder / "example", "-B", tmp_path / "build"]
    said = run([*configure, f"-DTATVPR_MAP={missing}"], tmp_path, status=None)
    said = " ".join(said.split())  # CMake breaks lines where it likes
    assert "TATVPR_MAP is '" in said and "and no file" in said


@pytest.mark.parametrize("name", EMULATED)
def test_every_emulated_board_has_a_script_within_its_memory(name: str, tmp_path: Path) -> None:
    board = load(name)
    text = whole_script(board)
    ranges = [
        (int(origin, 16), int(origin, 16) + int(size, 16))
        for origin, size in re.findall(r"ORIGIN = (0x\w+), LENGTH = (0x\w+)", text)
    ]
    assert ranges
    for begin, end in ranges:
        assert any(r.base <= begin and end <= r.end for r in board.memory), hex(begin)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(sorted(ranges)))


def test_a_head_that_calls_the_c_librarys_mathematics_is_linked(empty: Path) -> None:
    """Softmax and GELU of a user's own head are TVM's, with expf and erff of the C library."""
    require_board(BOARD)
    require_tool("cmake", "cmake")
    model = empty / "learned.onnx"
    onnx.save(tiny_model("learned", functions=bodies.bodies(TOKENS)), model)
    made = tatvpr_edge.build(BOARD, model=model, output=empty / "learned")
    assert "expf(" in (made / "src" / "kernels.c").read_text()
    run(["cmake", "--preset", BOARD, "-S", made / "example"], empty)
    said = run(["cmake", "--build", f"{made}-build", "--target", "run"], empty)
    points = read_artifact(made).manifest.golden.points
    assert len(re.findall(r": (?:same bytes|near enough)$", said, re.MULTILINE)) >= len(points)


def test_what_the_firmware_has_to_bring_is_said(
    empty: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Debian's compiler for RISC-V has no C library, whose expf an own head's softmax calls."""
    riscv = "riscv32-virt"
    require_board(riscv)
    models = {head: empty / f"{head}-riscv.onnx" for head in ("cls", "learned")}
    for head, path in models.items():
        onnx.save(tiny_model(head, functions=bodies.bodies(TOKENS)), path)
    made = tatvpr_edge.build(riscv, model=models["learned"], output=empty / "learned-riscv")
    (said,) = (r.message for r in caplog.records if "has to bring" in r.message)
    assert "has to bring expf: " in said
    assert "The firmware has to bring: expf (" in (made / "MEMORY.md").read_text()
    caplog.clear()
    made = tatvpr_edge.build(riscv, model=models["cls"], output=empty / "cls-riscv")
    assert "has to bring" not in caplog.text + (made / "MEMORY.md").read_text()


# ---- two models in one firmware


def compile_firmware(
    sources: dict[str, str], folders: Sequence[Path], where: Path, extra: Sequence[str] = ()
) -> str:
    """Links C sources and the prebuilt libraries of ``folders``; answers what the tools said."""
    board = load(BOARD)
    compiler = require_tool(board.toolchain.gcc, *board.toolchain.gcc_packages)
    where.mkdir()
    example = folders[0] / "example"
    for name, text in sources.items():
        (where / name).write_text(text)
    includes = [f"-I{folder}/include" for folder in folders]
    support = [example / "startup.c", example / "semihosting.c"]
    libraries = [next((folder / "lib").glob("*.a")) for folder in folders]
    command = [
        *(compiler, *board.toolchain.gcc_flags, *WARNINGS, "-std=gnu99", "-O2", *includes),
        *(f"-I{example}", *extra, *(where / name for name in sources), *support),
        *("-nostdlib", "-nostartfiles", "-static", "-T", example / "board.ld", *libraries),
        *("-Wl,--gc-sections", "-Wl,--no-warn-rwx-segments", "-lc", "-lgcc"),
        *("-o", where / "two.elf"),
    ]
    return run(command, where, status=None)


TWO = """\
#include "day_build.h"
#include "night_build.h"
#include "semihosting.h"

static uint8_t day_arena[DAY_ARENA_BYTES + NIGHT_ARENA_BYTES] TATVPR_IN_ARENA;
static uint8_t tables[DAY_TABLES_BYTES] TATVPR_IN_TABLES;
static float descriptor[DAY_DESCRIPTOR_SIZE];
static uint8_t pixels[64 * 64 * 3];

static int describe(const tatvpr_program *program, const uint8_t *weights, uint32_t bytes) {
    tatvpr_model model;
    const tatvpr_arena arena = {day_arena, sizeof(day_arena)};
    tatvpr_frame frame = {.size = sizeof(frame), .format = TATVPR_RGB888};
    frame.width = frame.height = 64;
    frame.planes[0] = pixels;
    frame.strides[0] = 192;
    tatvpr_options options = {.size = sizeof(options), .k = 0.5f, .tokens = 1.0f};
    options.tables = tables;
    options.tables_bytes = sizeof(tables);
    if (tatvpr_model_init(&model, program, weights, bytes, NULL, NULL, 0) != TATVPR_OK)
        return 1;
    if (tatvpr_describe(&model, arena, &frame, &options, descriptor) != TATVPR_OK)
        return 2;
    tatvpr_model_info info = {.size = sizeof(info)};
    if (tatvpr_model_get_info(program, &info) != TATVPR_OK)
        return 3;
    sh_text(info.name);
    const int32_t file = sh_open(info.name, SH_WRITE);
    return sh_write(file, descriptor, (size_t)info.descriptor_size * sizeof(float)) != 0;
}

int main(void) {
    for (uint32_t i = 0; i < sizeof(pixels); i++)
        pixels[i] = (uint8_t)(i * i >> 5);
    const int day = describe(day_program_get(), day_weights, day_weights_bytes);
    return day != 0 ? day : describe(night_program_get(), night_weights, night_weights_bytes);
}
"""


def test_two_models_in_one_firmware(empty: Path, tiny: Path) -> None:
    require_board(BOARD)
    day = tatvpr_edge.build(BOARD, prefix="day", output=empty / "day")
    night = tatvpr_edge.build(BOARD, model=tiny, prefix="night", output=empty / "night")
    where = empty / "two"
    assert compile_firmware({"two.c": TWO}, [day, night], where) == ""
    emulator = load(BOARD).emulator
    assert emulator is not None
    command = [
        *(emulator.program, *emulator.arguments, "-display", "none", "-monitor", "none"),
        *("-serial", "none", "-semihosting-config", "enable=on,target=native"),
        *("-kernel", "two.elf"),
    ]
    said = run(command, where)
    names_of = [read_artifact(made).manifest.model.name for made in (day, night)]
    assert said == "".join(names_of)
    for name, model in zip(names_of, ("micro", tiny), strict=True):
        assert (where / name).read_bytes() == on_this_machine(model, empty), name


def on_this_machine(model: str | Path, empty: Path) -> bytes:
    """The descriptor of the frame that TWO makes."""
    artifact = tatvpr_edge.build("host", model=model, output=empty / f"host-{Path(model).stem}")
    at = np.arange(64 * 64 * 3, dtype=np.uint32)
    frame = (at * at >> 5).astype(np.uint8).reshape(64, 64, 3)
    with Localizer(artifact, k=0.5, tokens=1.0) as localizer:
        return localizer.describe(frame).tobytes()


def part(name: str) -> str:
    return f"""\
#include "tatvpr_build.h"
int {name}(void);
int {name}(void) {{ return tatvpr_program_get() != NULL ? TATVPR_DESCRIPTOR_SIZE : 0; }}
"""


MAIN = "int day(void);\nint night(void);\nint main(void) { return day() == night(); }\n"


def test_two_models_under_one_name_do_not_link(folder: Path, empty: Path, other: Path) -> None:
    night = f'#include "{other}/include/tatvpr_build.h"\n' + part("night").partition("\n")[2]
    sources = {"main.c": MAIN, "day.c": part("day"), "night.c": night}
    said = compile_firmware(sources, [folder, other], empty / "clash")
    assert "multiple definition of `tatvpr_program_get'" in said
    both = f'#include "tatvpr_build.h"\n{night}'
    said = compile_firmware({"both.c": both}, [folder, other], empty / "both")
    assert "of another model is included already: build one with --prefix" in said


def test_one_folder_twice_is_no_clash(folder: Path, empty: Path) -> None:
    sources = {"main.c": MAIN, "day.c": part("day"), "night.c": part("night")}
    assert compile_firmware(sources, [folder], empty / "same") == ""


def test_a_prefix_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    for prefix in ("Night", "2nd", "a-b", ""):
        with pytest.raises(UsageError, match="does not begin a name in C"):
            tatvpr_edge.build(BOARD, prefix=prefix, output=tmp_path / "x")
    for prefix in ("all", "install", "test", "firmware"):  # cmake refused such a folder
        with pytest.raises(UsageError, match="CMake names a target of its own: choose another"):
            tatvpr_edge.build(BOARD, prefix=prefix, output=tmp_path / "x")
    with pytest.raises(UsageError, match="board host loads one library a model"):
        tatvpr_edge.build("host", prefix="night", output=tmp_path / "x")
    for board, prefix in ((BOARD, "Night"), ("host", "night")):
        with pytest.raises(UsageError, match="prefix"):
            tatvpr_edge.plan(board, prefix=prefix)
    assert not (tmp_path / "x").exists()


def test_two_cores_in_one_firmware_do_not_link(empty: Path, tiny: Path) -> None:
    """The same names, other kernels: which of the two would run is not left to the linker."""
    own = empty / "my-m7.toml"
    text = (Path(loader.__file__).parent / f"{BOARD}.toml").read_text()
    own.write_text(text.replace('features = ["dsp"]', "features = []"))
    day = tatvpr_edge.build(BOARD, model=tiny, prefix="day", output=empty / "day-dsp")
    night = tatvpr_edge.build(own, model=tiny, prefix="night", output=empty / "night-plain")
    said = compile_firmware({"two.c": TWO}, [day, night], empty / "cores")
    assert "multiple definition of `tatvpr_model_init'" in said


# ---- a board with a linker script of its own

THEIRS = """\
ENTRY(start)
MEMORY {
  DTCMRAM : ORIGIN = 0x20000000, LENGTH = 128K
  RAM_D1 : ORIGIN = 0x24000000, LENGTH = 512K
  RAM_D2 : ORIGIN = 0x30000000, LENGTH = 288K
  FLASH : ORIGIN = 0x08000000, LENGTH = 2048K
}
SECTIONS {
  .text : { *(.text*) *(.rodata*) } > FLASH
  .data : { *(.data*) } > RAM_D2 AT > FLASH
  .bss : { *(.bss*) *(COMMON) } > RAM_D2
}
"""
YOURS = """\
#include "board.h"
int main(void);
void start(void);
void start(void) { (void)main(); }
int board_camera_frame(tatvpr_frame *frame) { return frame->size == 0; }
const void *board_place_map(size_t *bytes) { *bytes = 0; return NULL; }
void board_say(const char *line) { (void)line; }
void board_report(const tatvpr_match *match, tatvpr_status status) { (void)match; (void)status; }
"""


@pytest.fixture(scope="module")
def h7(empty: Path) -> Path:
    return tatvpr_edge.build("stm32h7", model="micro", output=empty / "h7")


def link_with_theirs(made: Path, theirs: str, where: Path, status: int = 0) -> str:
    """What linking the example beside a script like STM32CubeMX's says; the image is h7.elf."""
    chain = load("stm32h7").toolchain
    gcc = require_tool(chain.gcc, *chain.gcc_packages)
    where.mkdir()
    (where / "theirs.ld").write_text(theirs)
    (where / "yours.c").write_text(YOURS)
    return run(
        [
            *(gcc, *chain.gcc_flags, *WARNINGS, "-O2", "-Iinclude", "-Iexample"),
            *("example/main.c", where / "yours.c", "selftest/selftest.c", "selftest/golden.c"),
            *("selftest/golden.S", "lib/libtatvpr_model.a", "-nostartfiles", "-Wl,--gc-sections"),
            *("-Wl,--no-warn-rwx-segments", "-T", "example/tatvpr.ld", "-T", where / "theirs.ld"),
            *("-o", where / "h7.elf"),
        ],
        made,
        status,
    )


@pytest.mark.parametrize(("bank", "section"), [("RAM_D1", "arena"), ("DTCMRAM", "tables")])
def test_an_arena_over_the_firmwares_own_data_does_not_link(
    h7: Path, tmp_path: Path, bank: str, section: str
) -> None:
    """.data at the beginning of a bank: ld took two sections of one address for overlays."""
    theirs = THEIRS.replace("> RAM_D2", f"> {bank}").replace(
        "*(.data*)",
        "*(.data*) . = . + 100;",  # what a firmware of any size has
    )
    said = link_with_theirs(h7, theirs, tmp_path / "over", status=1)
    assert f"section .tatvpr_{section} VMA" in said and "overlaps section .data" in said


def test_the_fragment_puts_arena_and_tables_into_their_banks(h7: Path, empty: Path) -> None:
    board, made, where = load("stm32h7"), h7, empty / "own"
    image = where / "h7.elf"
    assert link_with_theirs(made, THEIRS, where) == ""
    nm = require_tool("arm-none-eabi-nm", "binutils-arm-none-eabi")
    symbols = {
        words[2]: int(words[0], 16)
        for line in run([nm, image], where).splitlines()
        if len(words := line.split()) == 3
    }
    assert symbols["arena"] == board.region("axi").base + 64
    assert symbols["tables"] == board.region("dtcm").base + 64
    run(["arm-none-eabi-objcopy", "-O", "binary", image, where / "h7.bin"], where)
    memory = read_artifact(made).manifest.memory
    assert memory["arena_bytes"] > ARENA_OF_MICRO
    size = (where / "h7.bin").stat().st_size
    assert 0 <= size - memory["weight_bytes"] < memory["code_bytes"] + 150_000


@pytest.mark.parametrize("name", [name for name in EMULATED if name != BOARD])
def test_the_example_runs_on_every_emulated_board(name: str, empty: Path, tiny: Path) -> None:
    require_board(name)
    made = tatvpr_edge.build(name, model=tiny, output=empty / name)
    run(["cmake", "--preset", name, "-S", made / "example"], empty)
    said = run(["cmake", "--build", f"{made}-build", "--target", "run"], empty)
    golden = read_artifact(made).manifest.golden
    assert said.count(": same bytes") == len(golden.points) * len(golden.frames)
    assert "place 0, score 1.000" in said
    # an emulated RISC-V counts instructions as cycles; QEMU's Arm cores have no counter that runs
    assert (" cycles\n" in said) == load(name).cpu.architecture.startswith("riscv")
