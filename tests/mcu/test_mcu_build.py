"""What `tatvpr-edge build --board <microcontroller>` leaves for a firmware engineer."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from support.emulator import DEVICE, Device, Workshop, require_board
from support.tiny_model import DIM, TOKENS, Head, Writer, tiny_model
from support.tools import require_tool
from tatvpr_edge.boards.loader import load
from tatvpr_edge.compilers.build import build_artifact, plan_artifact
from tatvpr_edge.compilers.checks import checked_graph
from tatvpr_edge.compilers.core_sources import NUMERIC_FLAGS, core_folder, core_sources
from tatvpr_edge.compilers.mcu.choose import choose_layouts, cost_at
from tatvpr_edge.compilers.mcu.compile import build_static_library, memory_needs
from tatvpr_edge.compilers.mcu.fit import fit
from tatvpr_edge.compilers.mcu.flags import HEADERS, OPTIMISATION, has_no_libc
from tatvpr_edge.compilers.mcu.folder import zephyr_kconfig
from tatvpr_edge.compilers.mcu.generated import Own
from tatvpr_edge.compilers.mcu.variants import variant_of
from tatvpr_edge.compilers.packing import Layout
from tatvpr_edge.compilers.report import BuildPlan
from tatvpr_edge.compilers.tvm.lower import Lowered, lower
from tatvpr_edge.models.export import bodies
from tatvpr_edge.spec.artifact import Artifact, read_artifact
from tatvpr_edge.spec.errors import BoardError, ToolError

#: What a compiler may call unasked, and its own run-time support: nothing else may be missing.
ALLOWED = re.compile(r"mem(cpy|move|set|cmp)|__aeabi_\w+|__\w+(sf|df|di|si|ti)\w*|__gnu_\w+")


#: What firmware teams compile with.
STRICT = ("-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The M7 artifact, held to the limits of an STM32H7."""
    require_board("mps2-an500")
    made = build_artifact("mps2-an500", output=tmp_path_factory.mktemp("mcu") / "artifact")
    assert isinstance(made, Path)
    return read_artifact(made, board="mps2-an500")


@pytest.mark.slow
def test_the_prebuilt_library_gives_the_golden_vectors(
    artifact: Artifact, workshop: Workshop, run_folder: Path
) -> None:
    board = require_board("mps2-an500")
    library = artifact.path("lib/libtatvpr_model.a")
    device = Device(board, workshop.link(board, "prebuilt", [], [DEVICE], libraries=[library]))
    golden = artifact.manifest.golden
    device.info()
    for point in golden.points:
        for frame in golden.frames:
            raw = artifact.read(frame.path)
            if len(raw) <= 320 * 240 * 3:
                device.describe(raw, frame.width, frame.height, point.k, point.tokens)
    (info, *answers), _ = device.run(run_folder)
    memory = artifact.manifest.memory
    assert info.words[0] == memory["arena_bytes"]  # asked on this machine, true on the device
    assert info.words[1] == memory["weight_bytes"]
    got = iter(answers)
    for point in golden.points:
        rows = np.frombuffer(artifact.read(point.path), "<f4").reshape(len(golden.frames), -1)
        for frame, want in zip(golden.frames, rows, strict=True):
            if frame.width * frame.height <= 320 * 240:
                assert next(got).descriptor == want.tobytes(), (point.k, frame.path)


def test_the_folder_is_complete_and_compiles_as_it_stands(
    artifact: Artifact, tmp_path: Path
) -> None:
    board = load("mps2-an500")
    compiler = require_tool(board.toolchain.gcc, *board.toolchain.gcc_packages)
    root = artifact.root
    listing = (root / "CMakeLists.txt").read_text()
    sources = re.findall(r"\$\{CMAKE_CURRENT_LIST_DIR\}/(src/\S+\.[cS])$", listing, re.MULTILINE)
    assert {"src/model.c", "src/weights.S", "src/mcu/dsp/dsp_dense.c"} <= set(sources)
    options = re.search(r"COMPILE_LANGUAGE:C>:(.*)>\)", listing)
    assert options is not None
    flags = [*board.toolchain.gcc_flags, *options[1].split(";"), "-I", "include", "-O1"]
    others = [path.relative_to(root).as_posix() for path in root.rglob("*.c")]
    assert {"example/main.c", "selftest/selftest.c", "selftest/golden.c"} <= set(others)
    for name in {*sources, *others}:
        command = [compiler, *flags, *STRICT, "-c", name, "-o", str(tmp_path / "one.o")]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["mps2-an500", "mps3-an547", "riscv32f-virt"])
def test_the_sources_compile_with_clang_too(name: str, tmp_path: Path) -> None:
    """`src/` is for other compilers: Keil's and Arm's, of clang, took no kernel in assembler."""
    board = load(name)
    clang = require_tool("clang-19", "clang-19")
    require_board(name)  # for the C library's headers
    variant = variant_of(board)
    flags = [f for f in board.toolchain.gcc_flags if not f.startswith("-mcmodel")]
    headers = HEADERS if has_no_libc(board) else Path("/usr/include/newlib")
    command = [clang, f"--target={board.cpu.triple}", *flags, "-ffreestanding", "-isystem", headers]
    command += [*NUMERIC_FLAGS, "-std=c99", "-O1", "-DTATVPR_MCU", variant.define]
    command += ["-Wall", "-Wextra", "-Werror", "-c"]
    for source in core_sources("mcu", variant.name):
        if "mcu" in source.path.parts[-3:]:  # the rest of the core is in the fuzz targets, by clang
            done = subprocess.run(
                [*command, source.path, "-o", tmp_path / "one.o"], capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["mps2-an500", "mps3-an547"])
def test_a_tracer_leaves_functions_in_assembler_alone(name: str, tmp_path: Path) -> None:
    """-finstrument-functions began them with a call, which took their arguments: a fault."""
    board = load(name)
    gcc = require_tool(board.toolchain.gcc, *board.toolchain.gcc_packages)
    variant = variant_of(board)
    command = [gcc, *board.toolchain.gcc_flags, *NUMERIC_FLAGS, "-O1", "-DTATVPR_MCU"]
    command += [variant.define, "-finstrument-functions", "-S", "-o", "-"]
    found = 0
    for source in core_sources("mcu", variant.name):
        if "TATVPR_ASSEMBLER" not in source.path.read_text():
            continue
        done = subprocess.run([*command, source.path], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        bodies = re.findall(r"@ Naked Function(.*?)\.size", done.stdout, re.DOTALL)
        assert not any("__cyg_profile" in body for body in bodies), source.path
        found += len(bodies)
    assert found > 1


@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m3"])
def test_a_core_without_an_fpu_wants_nothing_of_the_c_library(core: str, tmp_path: Path) -> None:
    """A board of one's own: the square root was newlib's, and no page or report said so."""
    gcc = require_tool("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    nm = require_tool("arm-none-eabi-nm", "binutils-arm-none-eabi")
    define = variant_of(load("riscv32-virt")).define
    command = [gcc, f"-mcpu={core}", "-mthumb", "-O1", *NUMERIC_FLAGS, "-DTATVPR_MCU", define]
    sources = [source.path for source in core_sources("mcu", "tables")]
    command += [f"-I{core_folder() / room}" for room in ("include", "governor")]
    subprocess.run([*command, "-c", *sources], cwd=tmp_path, check=True)
    objects = sorted(tmp_path.glob("*.o"))
    listing = subprocess.run([nm, *objects], capture_output=True, text=True, check=True).stdout
    symbols = [line.split()[-2:] for line in listing.splitlines() if len(line.split()) >= 2]
    missing = {name for kind, name in symbols if kind == "U"} - {n for k, n in symbols if k != "U"}
    assert {name for name in missing if not ALLOWED.fullmatch(name)} == set()


def test_a_big_endian_core_is_refused_by_name(tmp_path: Path) -> None:
    gcc = require_tool("arm-none-eabi-gcc", "gcc-arm-none-eabi")
    source = core_folder() / "common" / "model.c"
    command = [gcc, "-mcpu=cortex-m3", "-mthumb", "-mbig-endian", "-c", source, "-o", "one.o"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0 and "compile for a little-endian core" in done.stderr


@pytest.mark.parametrize("file", ["common/map.c", "governor/tatvpr_governor.c"])
@pytest.mark.parametrize(
    "flag",
    ["-Ofast", "-ffast-math", "-ffinite-math-only", "-funsafe-math-optimizations",
     "-freciprocal-math"],
)  # fmt: skip
def test_floats_that_are_not_exact_are_refused_by_name(
    flag: str, file: str, tmp_path: Path
) -> None:
    """IDEs offer -Ofast: it gave other descriptors, and took every NaN of a map for a number, and
    what a governor does not know for known."""
    gcc = require_tool("gcc", "gcc")
    source = core_folder() / file
    command = [gcc, flag, "-c", source, "-o", tmp_path / "one.o"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0 and "-fno-fast-math" in done.stderr
    exact = [*command, *NUMERIC_FLAGS]
    assert subprocess.run(exact, capture_output=True, text=True).returncode == 0


def six_queries(w: Writer, x: str) -> int:
    """A product of as many rows as no tile has."""
    score = w.add("MatMul", [x, w.random("head.query", DIM, 6, scale=0.2)], "head.score")
    turned = w.add("Transpose", [score], "head.turned", perm=[1, 0])
    pooled = w.add("MatMul", [turned, x], "head.pooled")
    flat = w.weight("head.shape", np.array([-1], dtype=np.int64))
    w.add("Reshape", [w.add("Relu", [pooled], "head.relu"), flat], "descriptor")
    return 6 * DIM


@pytest.mark.parametrize("head", ["learned", six_queries])
def test_kernels_of_a_learned_head_compile_without_a_warning(tmp_path: Path, head: Head) -> None:
    """With six rows GCC warned of a tile's last two, and the build ended on it."""
    gcc = require_tool("gcc", "gcc")
    path = tmp_path / "learned.onnx"
    onnx.save(tiny_model(head, functions=bodies.bodies(TOKENS)), path)
    source = lower(checked_graph(path), "learned").kernels_source()
    assert source.count("kernel_") > 2
    (tmp_path / "kernels.c").write_text(source)
    command = [gcc, *STRICT, *OPTIMISATION, "-std=c99", "-c", "kernels.c", "-o", "kernels.o"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_zephyr_module_selects_the_fpu_and_says_that_it_never_met_zephyr(
    artifact: Artifact,
) -> None:
    root = artifact.root / "zephyr"
    listing = (artifact.root / "CMakeLists.txt").read_text()
    sources = re.findall(r"\$\{CMAKE_CURRENT_LIST_DIR\}/(src/\S+\.[cS])$", listing, re.MULTILINE)
    assert (root / "module.yml").is_file()
    zephyr = (root / "CMakeLists.txt").read_text()
    assert all(f"${{TATVPR_DIR}}/{name}" in zephyr for name in sources)
    kconfig = (root / "Kconfig").read_text()
    assert "\n\tselect FPU\n" in kconfig and "has never been built within Zephyr" in kconfig
    assert "FPU" not in zephyr_kconfig(load("riscv32-virt"), Own())  # a core without one
    assert "select FPU" in zephyr_kconfig(load("esp32-p4"), Own())
    pico = load("rp2350")
    soft = tuple(flag.replace("=hard", "=softfp") for flag in pico.toolchain.gcc_flags)
    passed_in_integers = replace(pico, toolchain=replace(pico.toolchain, gcc_flags=soft))
    assert "select FPU" in zephyr_kconfig(passed_in_integers, Own())  # as Pico's SDK compiles


def test_the_report_states_every_figure(artifact: Artifact) -> None:
    report = (artifact.root / "MEMORY.md").read_text()
    for figure in ("arena_bytes", "tables_bytes", "weight_bytes", "code_bytes"):
        assert str(artifact.manifest.memory[figure]) in report


def test_the_library_has_no_allocation_no_stdio_and_no_writable_data(artifact: Artifact) -> None:
    nm = require_tool("arm-none-eabi-nm", "binutils-arm-none-eabi")
    library = str(artifact.path("lib/libtatvpr_model.a"))
    listing = subprocess.run([nm, library], capture_output=True, text=True, check=True).stdout
    symbols = [line.split()[-2:] for line in listing.splitlines() if len(line.split()) >= 2]
    defined = {name for kind, name in symbols if kind not in "Uw"}
    writable = [name for kind, name in symbols if kind in "bBdDCgGsS"]
    assert writable == []
    assert artifact.manifest.memory["writable_bytes"] == 0
    missing = {name for kind, name in symbols if kind == "U"} - defined
    assert {name for name in missing if not ALLOWED.fullmatch(name)} == set()
    public = {name for kind, name in symbols if kind in "TR"}
    assert all(name.startswith("tatvpr_") for name in public), public


def test_nothing_in_the_folder_names_the_machine_that_built_it(artifact: Artifact) -> None:
    for entry in artifact.manifest.files:
        data = artifact.read(entry.path)
        for trace in (str(Path.home()).encode() + b"/", b"/tmp/", str(artifact.root).encode()):
            assert trace not in data, (entry.path, trace)


def test_dry_run_states_flash_ram_arena_and_macs() -> None:
    require_board("mps2-an500")
    told: list[str] = []
    plan = plan_artifact("stm32h7", progress=lambda what, done, of: told.append(what))
    assert "compiling for stm32h7" in told  # which takes most of the time
    assert isinstance(plan, BuildPlan)
    regions = {what: (region, needed, there) for what, region, needed, there in plan.regions}
    assert regions["weights"][0] == "flash"
    assert regions["arena"] == ("axi", plan.arena_bytes, 512 << 10)
    text = "\n".join(plan.lines())
    assert "flash" in text and "million MACs" in text


def test_a_model_that_does_not_fit_is_refused_with_figures() -> None:
    board = load("stm32h7")
    with pytest.raises(BoardError, match=r"arena takes at least 600000 bytes.*axi.* has 524288"):
        fit(board, "big", 1_000_000, 60_000, {40: 900_000, 8: 600_000})
    with pytest.raises(BoardError, match=r"weights \(2090000\).*take 2150000 bytes.*has 2097152"):
        fit(board, "big", 2_090_000, 60_000, {8: 100_000})
    small = replace(board, placement=replace(board.placement, arena="dtcm", tables="axi"))
    with pytest.raises(BoardError, match=r"or by \[placement\] another region: axi \(524288\)$"):
        fit(small, "big", 900_000, 60_000, {40: 600_000, 8: 524_288}, 40_000)
    assert fit(board, "small", 900_000, 60_000, {40: 600_000, 24: 500_000, 8: 9}).tile == 24


def test_a_region_is_filled_to_its_last_byte_and_shared() -> None:
    board = load("stm32h7")
    assert fit(board, "x", 1, 1, {40: 524_289, 8: 524_288}).tile == 8
    shared = replace(board, placement=replace(board.placement, tables="axi"))
    arenas = {40: 524_288 - 40_000 + 1, 24: 524_288 - 40_000}
    assert fit(shared, "x", 1, 1, arenas, 40_000).tile == 24
    with pytest.raises(BoardError, match=r"region axi of stm32h7 has 484288: "):
        fit(shared, "x", 1, 1, {8: 500_000}, 40_000)
    # what is not known yet is not named; a region that holds the smaller part alone is no remedy
    spare = replace(board.region("flash"), name="spare", size=100_000)
    board = replace(board, memory=(*board.memory, spare))
    with pytest.raises(BoardError, match=r": weights \(2200000\) take .*: choose a smaller model$"):
        fit(board, "x", 2_200_000, 0, {8: 1})
    with pytest.raises(BoardError, match=r"code .* \(60000\) take .*: choose a smaller model$"):
        fit(board, "x", 2_090_000, 60_000, {8: 1})


def test_the_arena_asked_on_this_machine_shrinks_with_the_tile(
    lowered: Callable[[Layout], Lowered],
) -> None:
    require_tool("gcc", "gcc")
    for name in ("stm32h7", "stm32n6"):
        board = load(name)
        needs = memory_needs(board, lowered(Layout.ROWS2), variant_of(board).tiles, True)
        ordered = [needs.arenas[tile] for tile in variant_of(board).tiles]
        assert ordered == sorted(ordered, reverse=True) and ordered[0] > ordered[-1]


def test_a_warning_of_the_compiler_is_an_error(
    lowered: Callable[[Layout], Lowered], tmp_path: Path
) -> None:
    require_board("mps2-an500")
    model = lowered(Layout.LUT4)
    sloppy = replace(model, model_c=model.model_c + "\nstatic int unused(void);\n")
    with pytest.raises(ToolError, match="unused"):
        build_static_library(load("stm32h7"), sloppy, Own(8), tmp_path)


def test_layouts_follow_the_range_of_k() -> None:
    few = choose_layouts(variant_of(load("stm32h7")), (0.05, 0.2))
    many = choose_layouts(variant_of(load("stm32h7")), (0.3, 1.0))
    assert few is not None and many is not None
    assert few(192, 768) == Layout.MCU_COLS and many(192, 768) == Layout.LUT4
    assert choose_layouts(variant_of(load("riscv32-virt")), (0.05, 0.2)) is None
    for k in (0.1, 0.4, 1.0):  # the other layout has its price at every k
        assert cost_at(Layout.LUT4, 192, 768, k) > 0 < cost_at(Layout.MCU_COLS, 192, 768, k)


@pytest.mark.slow
def test_a_build_for_few_channels_gives_the_same_bytes(
    workshop: Workshop, lowered: Callable[[Layout], Lowered], run_folder: Path
) -> None:
    from support.emulator import build_device
    from tatvpr_edge import zoo

    board = require_board("mps2-an500")
    columns = lower(
        checked_graph(zoo.path("micro")), "micro", Layout.LUT4, lambda k, n: Layout.MCU_COLS
    )
    frame = bytes(range(256)) * 48
    answers = []
    for name, model in (("micro", lowered(Layout.LUT4)), ("columns", columns)):
        device = build_device(workshop, board, model, name)
        for k in (0.1, 0.7):
            device.describe(frame, 64, 64, k)
        answers.append([a.descriptor for a in device.run(run_folder)[0]])
    assert answers[0] == answers[1]
