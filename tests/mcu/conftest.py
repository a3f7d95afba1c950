"""What the microcontroller tests share: compiled images, the lowered model, the host's answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.emulator import BOARDS, Device, EmulatedBoard, Workshop, build_device, require_board
from tatvpr_edge import zoo
from tatvpr_edge.boards.loader import load
from tatvpr_edge.compilers.build import compile_linux, open_library
from tatvpr_edge.compilers.checks import checked_graph
from tatvpr_edge.compilers.graph import Graph
from tatvpr_edge.compilers.packing import Layout
from tatvpr_edge.compilers.tvm.lower import Lowered, lower
from tatvpr_edge.runtime.cache import cache_folder
from tatvpr_edge.runtime.library import Library


@pytest.fixture(scope="session", autouse=True)
def cached(own_cache: None) -> None:
    """Every test here compiles."""


@pytest.fixture(scope="session")
def workshop(own_cache: None) -> Workshop:
    """Compiled objects, kept between sessions and shared with ``tools/mcu_counts.py``: they are
    made again when a source is newer."""
    return Workshop(cache_folder("mcu"))


@pytest.fixture(scope="session", params=sorted(BOARDS))
def board(request: pytest.FixtureRequest) -> EmulatedBoard:
    return require_board(request.param)


@pytest.fixture(scope="session")
def graph() -> Graph:
    """The shipped micro model."""
    return checked_graph(zoo.path("micro"))


@pytest.fixture(scope="session")
def lowered(graph: Graph) -> Callable[[Layout], Lowered]:
    """The model with its weights in a layout; lowered once each."""
    made: dict[Layout, Lowered] = {}

    def lower_once(layout: Layout) -> Lowered:
        if layout not in made:
            made[layout] = lower(graph, "micro", layout)
        return made[layout]

    return lower_once


@pytest.fixture(scope="session")
def host(lowered: Callable[[Layout], Lowered], tmp_path_factory: pytest.TempPathFactory) -> Library:
    """The same model as a library of this machine."""
    model = lowered(Layout.ROWS2)
    folder = tmp_path_factory.mktemp("host") / "library"
    return open_library(compile_linux(model, load("host"), folder), model)


@pytest.fixture
def device(
    workshop: Workshop, board: EmulatedBoard, lowered: Callable[[Layout], Lowered]
) -> Device:
    """An emulated board with the whole library and the model linked in, and no jobs yet."""
    return build_device(workshop, board, lowered(board.variant.layout), "micro")


@pytest.fixture
def m7(workshop: Workshop, lowered: Callable[[Layout], Lowered]) -> Device:
    """The Cortex-M7 alone, for what does not depend on the core."""
    return build_device(workshop, require_board("mps2-an500"), lowered(Layout.LUT4), "micro")


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """Where jobs and results of one emulation lie. Its path may hold no space or comma."""
    return tmp_path
