"""A user's own microcontroller: its file alone decides kernels, layouts, regions and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tatvpr_edge
from support.tools import require_tool
from tatvpr_edge.boards import loader
from tatvpr_edge.compilers.build import find_model
from tatvpr_edge.compilers.checks import checked_graph
from tatvpr_edge.compilers.mcu.build import lower_for
from tatvpr_edge.compilers.mcu.compile import section_sizes
from tatvpr_edge.compilers.mcu.fit import STACK_BYTES, fit
from tatvpr_edge.compilers.mcu.flags import extra_flags
from tatvpr_edge.compilers.mcu.generated import Own
from tatvpr_edge.compilers.mcu.linker import fragment
from tatvpr_edge.compilers.mcu.project import example_files
from tatvpr_edge.spec.errors import BoardError, ToolError, UsageError

#: A Cortex-M33.
NEAREST = Path(loader.__file__).parent / "nucleo-u575.toml"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The nearest board's file, copied under another name as docs/boards.md says."""
    chain = loader.load("nucleo-u575").toolchain
    require_tool(chain.gcc, *chain.gcc_packages)
    path = tmp_path / "my-m33.toml"
    path.write_bytes(NEAREST.read_bytes())
    change(path, 'model = "nano"\n', "")  # micro, which fills such a board
    return path


def change(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new))
    return path


def regions(path: Path) -> dict[str, str]:
    """Where a plan puts each thing, after a look that it fits there."""
    plan = tatvpr_edge.plan(path)
    assert plan.board == "my-m33"
    assert all(0 < needed <= there for *_, needed, there in plan.regions)
    return {what: region for what, region, *_ in plan.regions}


def test_the_arena_goes_where_the_file_says(own: Path) -> None:
    want = {"weights": "flash", "code and constants": "flash", "stack": "sram2"}
    want["look-up tables"] = "sram1"
    assert regions(own) == {**want, "arena": "sram3"}
    change(own, "base = 0x2800_0000\nsize = 0x4000", "base = 0x2800_0000\nsize = 0x10_0000")
    change(own, 'arena = "sram3"', 'arena = "sram4"')
    assert regions(own) == {**want, "arena": "sram4"}


def test_a_stack_in_the_arenas_region_leaves_the_arena_less(own: Path) -> None:
    """The tile is the largest whose arena fits beside the stack, to the byte."""
    change(own, 'stack = "sram2"', 'stack = "sram3"')
    board = loader.load(str(own))
    room = board.region("sram3").size - STACK_BYTES
    arenas = {40: room + 1, 32: room, 8: 1000}
    chosen = fit(board, "model", 1000, 1000, arenas)
    assert (chosen.tile, chosen.arena_bytes) == (32, room)
    with pytest.raises(BoardError, match=f"at least {room + 1} bytes, region sram3 .* has {room}"):
        fit(board, "model", 1000, 1000, {40: room + 1})


def test_a_stack_beside_look_up_tables_has_to_fit_as_well(own: Path) -> None:
    change(own, 'stack = "sram2"', 'stack = "sram1"')
    board = loader.load(str(own))
    room = board.region("sram1").size - STACK_BYTES
    assert fit(board, "model", 1000, 1000, {8: 1000}, tables_bytes=room).tile == 8
    with pytest.raises(BoardError, match=rf"stack \({STACK_BYTES}\) and look-up tables .*sram1"):
        fit(board, "model", 1000, 1000, {8: 1000}, tables_bytes=room + 1)


@pytest.mark.parametrize(
    ("feature", "flags", "named"),
    [
        ("dsp", '"-mcpu=cortex-m33", "-mthumb"', "dsp kernels need an FPU: give -mfpu"),
        ("dsp", '"-mcpu=cortex-m3", "-mthumb"', "features name dsp"),
        (
            "mve",
            '"-mcpu=cortex-m55+nomve.fp", "-mthumb", "-mfloat-abi=hard", "-mfpu=auto"',
            "mve kernels need Helium with floats",
        ),
    ],
)
def test_flags_of_a_core_that_lacks_what_kernels_need_are_named(
    own: Path, feature: str, flags: str, named: str
) -> None:
    """Not the assembler's "inconsistent operand constraints"."""
    change(own, '"-mcpu=cortex-m33", "-mthumb", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"', flags)
    change(own, 'features = ["dsp"]', f'features = ["{feature}"]')
    with pytest.raises(ToolError, match=named):
        tatvpr_edge.plan(own, model="nano")


FLASH2 = '\n[[memory]]\nname = "flash2"\nbase = 0x9000_0000\nsize = 0x20_0000\nkind = "flash"\n'


@pytest.mark.parametrize(
    ("key", "before", "after", "what"),
    [
        ("code", "flash", "flash2", "code and constants"),
        ("weights", "flash", "flash2", "weights"),
        ("stack", "sram2", "sram1", "stack"),
        ("tables", "sram1", "sram2", "look-up tables"),
    ],
)
def test_everything_else_goes_where_the_file_says(
    own: Path, key: str, before: str, after: str, what: str
) -> None:
    own.write_text(own.read_text() + FLASH2)
    assert regions(own)[what] == before
    script = fragment(loader.load(str(own)))
    change(own, f'{key} = "{before}"', f'{key} = "{after}"')
    assert regions(own)[what] == after
    changed = fragment(loader.load(str(own)))
    assert (changed != script) == (key in ("code", "weights", "tables"))
    if key != "stack":
        assert "TATVPR_" + ("FLASH" if key == "code" else after.upper()) in changed


def test_tables_of_the_arenas_own_region_are_a_part_of_the_arena(own: Path) -> None:
    apart = tatvpr_edge.plan(own)
    change(own, 'tables = "sram1"', 'tables = "sram3"')
    inside = tatvpr_edge.plan(own)
    sizes = {what: needed for what, _, needed, _ in apart.regions}
    assert "look-up tables" not in {what for what, *_ in inside.regions}
    assert apart.arena_bytes is not None
    assert inside.arena_bytes == apart.arena_bytes + sizes["look-up tables"]


def test_tables_that_do_not_fit_their_region_are_refused(own: Path) -> None:
    change(own, "base = 0x2800_0000\nsize = 0x4000", "base = 0x2800_0000\nsize = 0x8000")
    change(own, 'tables = "sram1"', 'tables = "sram4"')
    with pytest.raises(BoardError, match=r"look-up tables \(46080\) take .* sram4 .* has 32768"):
        tatvpr_edge.plan(own)


def test_the_linker_script_follows_base_and_size_of_the_regions(own: Path) -> None:
    assert "ORIGIN = 0x20040000, LENGTH = 0x80000" in fragment(loader.load(str(own)))
    change(own, "base = 0x2004_0000\nsize = 0x8_0000", "base = 0x2005_0000\nsize = 0x7_0000")
    assert "ORIGIN = 0x20050000, LENGTH = 0x70000" in fragment(loader.load(str(own)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('arguments = ["-M", "mps2-an500"]', 'arguments = ["-M", "mps2-an505"]'),
        ('program = "qemu-system-arm"', 'program = "qemu-system-armeb"'),
        ("base = 0x2000_0000\nsize = 0x40_0000", "base = 0x2000_0000\nsize = 0x9_0000"),
        ('limits_of = "stm32h7"\n', ""),
        ('gcc = "arm-none-eabi-gcc"', 'gcc = "arm-none-eabi-c99"'),
        ('"-mfpu=fpv5-d16"', '"-mfpu=fpv5-sp-d16"'),
        ('triple = "thumbv7em-none-eabihf"', 'triple = "thumbv7m-none-eabihf"'),
    ],
)
def test_the_example_of_an_emulated_board_follows_its_file(
    tmp_path: Path, old: str, new: str
) -> None:
    path = tmp_path / "my-m7.toml"
    path.write_text((NEAREST.parent / "mps2-an500.toml").read_text())
    before = example_files(loader.load(str(path)), Own())
    after = example_files(loader.load(str(change(path, old, new))), Own())
    changed = {name for name in before if before[name] != after[name]}
    assert len(changed) == 1
    assert changed <= {"example/CMakeLists.txt", "example/board.ld", "example/toolchain.cmake"} | (
        {"example/CMakePresets.json"}
    )


def test_features_choose_kernels_and_the_layout_of_weights(own: Path) -> None:
    graph = checked_graph(find_model("micro"))

    def made(path: Path) -> tuple[tuple[str, ...], bytes]:
        board = loader.load(str(path))
        # k low enough for the second layout, which only kernels with these instructions have
        return extra_flags(board), lower_for(board, graph, "micro", (0.05, 0.1)).blob

    flags, blob = made(own)
    plain_flags, plain_blob = made(change(own, 'features = ["dsp"]', "features = []"))
    assert "-DTATVPR_MCU_DSP" in flags
    assert "-DTATVPR_MCU_TABLES" in plain_flags
    assert blob != plain_blob
    tatvpr_edge.plan(own)  # the plain kernels compile for this core


def test_a_region_that_is_too_small_is_refused_with_both_figures(own: Path) -> None:
    change(own, "size = 0x8_0000 # 512 KiB", "size = 0x1_0000")
    with pytest.raises(BoardError, match=r"at least \d+ bytes, region sram3 of my-m33 has 65536"):
        tatvpr_edge.plan(own)


@pytest.mark.parametrize("gcc", ["arm-none-eabi-gcc", "arm-none-eabi-gcc-13.2.1"])
def test_programs_beside_the_compiler_are_found_or_told_with_its_packages(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gcc: str
) -> None:
    """Without "size" the build ended in a traceback, of a compiler with a version in its name after
    minutes."""
    change(own, 'gcc = "arm-none-eabi-gcc"', f'gcc = "{gcc}"')
    board = loader.load(str(own))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match=r"^arm-none-eabi-size cannot .*: apt-get install gcc-arm"):
        section_sizes(board, tmp_path / "libmodel.a", 0)


def test_a_compiler_that_is_missing_is_told_with_the_packages_of_the_file(own: Path) -> None:
    change(own, 'gcc = "arm-none-eabi-gcc"', 'gcc = "my-own-gcc"')
    change(own, '"gcc-arm-none-eabi"', '"my-compiler"')
    with pytest.raises(ToolError, match=r"apt-get install my-compiler libnewlib-arm-none-eabi"):
        tatvpr_edge.plan(own)


@pytest.mark.parametrize("wrong", [{"board": None}, {"model": 5}, {"sign": 5}])
def test_what_is_no_path_is_named_before_anything_is_built(
    wrong: dict[str, Any], tmp_path: Path
) -> None:
    """Each was a TypeError of Python's own."""
    (name,) = wrong
    given = {"board": "host", "output": tmp_path / "made", **wrong}
    with pytest.raises(UsageError, match=rf"{name} is (None|5): .*path"):
        tatvpr_edge.build(given.pop("board"), **given)
    assert not any(tmp_path.iterdir())
