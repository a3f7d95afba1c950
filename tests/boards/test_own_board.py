"""A user's own microcontroller: its file alone decides kernels, layouts, regions and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

import tatvpr_edge
from support.tools import require_tool
from tatvpr_edge.boards import loader
from tatvpr_edge.compilers.build import find_model
from tatvpr_edge.compilers.checks import checked_graph
from tatvpr_edge.compilers.mcu.build import lower_for
from tatvpr_edge.compilers.mcu.flags import extra_flags
from tatvpr_edge.spec.errors import BoardError

#: A Cortex-M33.
NEAREST = Path(loader.__file__).parent / "nucleo-u575.toml"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The nearest board's file, copied under another name as docs/boards.md says."""
    chain = loader.load("nucleo-u575").toolchain
    require_tool(chain.gcc, *chain.gcc_packages)
    path = tmp_path / "my-m33.toml"
    path.write_bytes(NEAREST.read_bytes())
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
    assert regions(own) == {**want, "arena": "sram3"}
    change(own, "base = 0x2800_0000\nsize = 0x4000", "base = 0x2800_0000\nsize = 0x10_0000")
    change(own, 'arena = "sram3"', 'arena = "sram4"')
    assert regions(own) == {**want, "arena": "sram4"}


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
