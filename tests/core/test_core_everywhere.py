"""The same bytes on every CPU and no undefined behaviour: foreign builds under emulation, and
builds with AddressSanitizer and UndefinedBehaviorSanitizer, run the tests of the native driver."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import test_core_frames
import test_core_map
import test_core_model
import test_core_operators
import test_core_track
from core_driver import LUT4, Driver, LinearCase, build, native_compiler, run_quietly
from hypothesis import settings

from support.tools import lacking, require_tool
from tatvpr_edge.compilers.core_sources import NUMERIC_FLAGS, Source, core_sources

PROPERTIES = (
    test_core_operators.test_gated_linear_equals_the_reference,
    test_core_operators.test_long_rows_equal_the_reference,
    test_core_operators.test_mlp_in_tiles_equals_the_reference,
    test_core_operators.test_attention_equals_the_reference,
    test_core_operators.test_patch_embed_equals_the_reference,
    test_core_operators.test_gate_keeps_what_the_reference_keeps,
    test_core_operators.test_gate_keeps_what_the_reference_keeps_in_every_shape,
    test_core_operators.test_float_operators_equal_the_reference,
    test_core_operators.test_keep_tokens_equals_the_reference,
    test_core_frames.test_every_format_and_stride,
    test_core_track.test_follows_as_the_reference,
    test_core_track.test_frames_that_say_nothing_new_do_not_count,
    test_core_track.test_odometry_and_dark_frames_give_the_same_bytes_everywhere,
    test_core_track.test_turns_give_the_same_bytes_everywhere,
)


def run_all(driver: Driver, examples: int, folders: pytest.TempPathFactory) -> None:
    """Every property of the operators and the search, and a whole model, on another driver."""
    usual = settings.default
    settings.register_profile("elsewhere", usual, max_examples=examples)
    settings.load_profile("elsewhere")
    try:
        for test in PROPERTIES:
            test(native=driver)
        test_core_map.test_finds_what_the_python_search_finds(
            native=driver, tmp_path_factory=folders
        )
    finally:
        settings.load_profile("tatvpr")
    test_core_model.check_whole(driver, (0, 3))


SANITIZE = ("-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory, native_arch: str) -> Driver:
    folder = tmp_path_factory.mktemp("sanitized")
    program = build(native_arch, native_compiler(), SANITIZE, folder / "driver")
    return Driver([str(program)], {**os.environ, "ASAN_OPTIONS": "detect_leaks=1"})


@pytest.mark.slow
def test_operators_under_sanitizers(
    sanitized: Driver, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run_all(sanitized, 40, tmp_path_factory)


@pytest.mark.slow
def test_faults_under_sanitizers(sanitized: Driver, tmp_path: Path) -> None:
    for fault in test_core_model.FAULTS:
        if fault != 11:  # a misaligned blob is refused before it is read, but its pointer is made
            test_core_model.test_every_fault_of_a_caller_has_its_status(sanitized, fault)
    test_core_model.test_weights_are_checked_before_use(sanitized)
    test_core_model.test_activations_that_are_not_finite_break_nothing(sanitized)
    test_core_frames.test_frames_that_cannot_be_read_are_refused(sanitized)
    test_core_frames.test_tables_that_do_not_fit_are_refused_to_the_byte(sanitized)
    test_core_frames.test_large_frames_of_a_camera(sanitized)
    for kind in ("int8", "binary", "weighed"):
        test_core_map.test_verdict_equals_pythons_on_damaged_maps(
            sanitized, tmp_path, kind, test_core_map.SEQUENCES
        )
    test_core_track.test_faults_have_their_status(sanitized)
    test_core_map.test_each_fault_of_a_map_has_its_status(sanitized, tmp_path)
    sanitized.close()


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    """A microcontroller's core with the kernels of RV32, which are plain C, under sanitizers."""
    folder = tmp_path_factory.mktemp("tables")
    flags = (*SANITIZE, "-DTATVPR_MCU", "-DTATVPR_MCU_TABLES")
    program = build("mcu", native_compiler(), flags, folder / "driver", variant="tables")
    driver = Driver([str(program)], {**os.environ, "ASAN_OPTIONS": "detect_leaks=1"}, LUT4)
    assert driver.kernels == ["rv32-tables", "portable"]
    driver.kernels = ["rv32-tables"]
    return driver


@pytest.mark.slow
def test_a_microcontrollers_core_under_sanitizers(tables: Driver) -> None:
    usual = settings.default
    settings.register_profile("elsewhere", usual, max_examples=30)
    settings.load_profile("elsewhere")
    try:
        for test in PROPERTIES:
            if "gate_keeps" not in test.__name__:
                test(native=tables)  # those list all channels; here there is room for half
    finally:
        settings.load_profile("tatvpr")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("k_in", "group"), [(256, 256), (1024, 1024), (512, 256), (768, 256), (260, 1), (33, 1)]
)
def test_lists_of_half_the_channels_are_enough(tables: Driver, k_in: int, group: int) -> None:
    """Of a row that is a single group all channels stay, however small k is."""
    rng = np.random.default_rng(k_in)
    below = tables.sparse_below("rv32-tables", k_in, 40, group) or 0.25  # 0: of a single group
    w = rng.integers(-1, 2, (40, k_in)).astype(np.int8)
    for k in (2**-7, np.nextafter(np.float32(below), 0), below, 0.4999, 0.5):
        x = rng.standard_normal((9, k_in)).astype(np.float32)
        case = LinearCase(x, w, np.ones(1, np.float32), np.zeros(40, np.float32), float(k), group)
        test_core_operators.same_bits(
            tables.linear("rv32-tables", case), test_core_operators.expected_linear(case)
        )


@pytest.fixture(scope="module")
def aarch64(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = require_tool("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu")
    folder = tmp_path_factory.mktemp("aarch64")
    return build("aarch64", (compiler,), ("-O2", "-static"), folder / "driver")


@pytest.mark.slow
@pytest.mark.parametrize("cpu", ["max", "cortex-a76", "cortex-a72"])
def test_aarch64_under_emulation(
    aarch64: Path, cpu: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    emulator = require_tool("qemu-aarch64", "qemu-user")
    driver = Driver([emulator, "-cpu", cpu, str(aarch64)])
    own = {"max": ["neon-i8mm", "neon-dotprod"], "cortex-a76": ["neon-dotprod"], "cortex-a72": []}
    assert driver.kernels == [*own[cpu], "neon", "portable"]
    run_all(driver, 12, tmp_path_factory)
    test_core_frames.test_large_frames_of_a_camera(driver)
    driver.close()


def spelled_out(source: Source) -> Source:
    """AVX-512 files with SIMDe's plain C in the place of the instructions; no strict ISO names.
    AVX-VNNI files with AVX2's instructions in the place of theirs."""
    if "avx_vnni" in source.path.name:
        flags = tuple(flag for flag in source.flags if flag != "-mavxvnni")
        return Source(source.path, (*flags, "-DTATVPR_SIMDE"))
    if "avx512" not in source.path.name and source.path.name != "cpu.c":
        return source
    flags = tuple(flag for flag in source.flags if not flag.startswith("-mavx512"))
    if "avx512" in source.path.name:
        plain = f"-I{Path(__file__).parent}"  # avx512_plain.h
        flags = (*flags, "-mavx2", "-std=gnu99", "-Wno-error", "-w", plain)
    return Source(source.path, (*flags, "-DTATVPR_SIMDE"))


@pytest.mark.slow
def test_kernels_of_newer_processors_spelled_out(
    native: Driver, tmp_path_factory: pytest.TempPathFactory, native_arch: str
) -> None:
    """The logic of the AVX-512 and AVX-VNNI kernels on machines without these instructions."""
    if native_arch != "x86_64":
        pytest.skip("SIMDe's AVX2 half is used: x86-64 only")
    if not Path("/usr/include/simde/x86/avx512.h").is_file():
        lacking("SIMDe", "apt-get install libsimde-dev")
    folder = tmp_path_factory.mktemp("avx512")
    program = build("x86_64", native_compiler(), ("-O2",), folder / "driver", spelled_out)
    driver = Driver([str(program)])
    assert driver.kernels[:2] == ["avx512-vnni", "avx-vnni"]
    # Where the instructions are there, the kernels themselves are asked as often as all others.
    run_all(driver, 12 if "avx512-vnni" in native.kernels else 60, tmp_path_factory)
    driver.close()


BARE_METAL = {
    "cortex-m4": ("arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard",
                  "-mfpu=fpv4-sp-d16"),
    "cortex-m7": ("arm-none-eabi-gcc", "-mcpu=cortex-m7", "-mthumb", "-mfloat-abi=hard",
                  "-mfpu=fpv5-d16"),
    "cortex-m55": ("arm-none-eabi-gcc", "-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard"),
    "rv32imac": ("riscv64-unknown-elf-gcc", "-march=rv32imac", "-mabi=ilp32"),
}  # fmt: skip
PACKAGES = {
    "arm-none-eabi-gcc": "gcc-arm-none-eabi",
    "riscv64-unknown-elf-gcc": "gcc-riscv64-unknown-elf",
}


@pytest.mark.slow
@pytest.mark.parametrize("core", BARE_METAL)
def test_compiles_without_a_library(core: str, tmp_path: Path) -> None:
    """The portable list needs no operating system, no heap, and keeps no writable memory."""
    name, *flags = BARE_METAL[core]
    compiler = require_tool(name, PACKAGES[name])
    objects = []
    for number, source in enumerate(core_sources("portable")):
        target = tmp_path / f"{number}.o"
        command = [compiler, *flags, "-O2", "-ffreestanding", "-Wall", "-Wextra", "-Wconversion"]
        command += ["-Werror", *source.flags, "-c", str(source.path), "-o", str(target)]
        run_quietly(command)
        objects.append(str(target))
    whole = tmp_path / "core.o"
    run_quietly([compiler, *flags, "-r", "-nostdlib", *objects, "-o", str(whole)])
    check_symbols(name.replace("gcc", "nm"), whole)


def check_symbols(nm: str, whole: Path) -> None:
    """Nothing but memory functions and arithmetic helpers is missing; no data or bss is there."""
    import subprocess

    listing = subprocess.run([nm, str(whole)], capture_output=True, text=True, check=True).stdout
    missing = {line.split()[-1] for line in listing.splitlines() if " U " in line}
    helpers = {m for m in missing if m.startswith("__")}
    allowed = {"memcpy", "memset", "memmove", "memcmp", "sqrtf"}
    assert missing - helpers <= allowed, missing - helpers - allowed
    writable = [line for line in listing.splitlines() if line.split()[-2] in "bBdDC"]
    assert not writable, writable


def test_permuted_sums_move_a_descriptor_only_a_little(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The build that measures ``min_cosine`` differs in float sums and in nothing else."""
    folder = tmp_path_factory.mktemp("permuted")
    flags = ("-O2", "-DTATVPR_PERMUTED")
    driver = Driver([str(build("portable", native_compiler(), flags, folder / "driver"))])
    assert driver.kernels == ["portable-permuted"]
    expected, _ = test_core_model.MODEL.describe(test_core_model.FRAME, 0.4, 1.0)
    status, got, _ = test_core_model.run(driver, "portable-permuted", 0.4)
    assert status == 0
    assert (got.view(np.uint32) != expected.view(np.uint32)).any()
    assert float(got @ expected) > 0.9
    assert "-ffp-contract=off" in NUMERIC_FLAGS
    driver.close()
