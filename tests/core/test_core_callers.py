"""What C programs call and Python does not: the whole query, and structures of another age."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from support.artifacts import scenes
from support.journals import OpenedMap, open_map_in_c
from tatvpr_edge.runtime.engine import ModelInfo
from tatvpr_edge.runtime.frame import check_frame
from tatvpr_edge.runtime.library import Library, _Arena, _Options, aligned_bytes, c_frame
from tatvpr_edge.runtime.placemap import PlaceMap
from tatvpr_edge.runtime.search import Hit
from tatvpr_edge.spec.artifact import read_artifact
from tatvpr_edge.spec.placemap import Band, MapInfo, make_places, write_map

OK, ABI, ARENA, MAP_EMPTY, MAP_MODEL = 0, 2, 4, 24, 23  # TATVPR_OK, TATVPR_ERR_...


@pytest.fixture(scope="module")
def library(tiny_host: Path) -> Library:
    return Library.of(read_artifact(tiny_host))


def test_a_callers_structure_is_filled_as_far_as_it_goes(library: Library, tiny_host: Path) -> None:
    """One that was compiled before its last members, and one that has more behind them."""
    whole = ctypes.sizeof(ModelInfo)
    wanted, c = bytes(library.info), library.c
    assert library.info.weight_bytes == read_artifact(tiny_host).path("weights.bin").stat().st_size
    assert library.info.arena_bytes == c.tatvpr_arena_bytes(ctypes.byref(library._model), 1)
    for size in range(whole + 40):
        room = ctypes.create_string_buffer(b"\xa5" * (whole + 64), whole + 64)
        ctypes.memmove(room, size.to_bytes(4, "little"), 4)
        status = c.tatvpr_model_get_info(library.program, room)
        assert status == (OK if size >= 4 else ABI)
        told = wanted[4:size] + bytes(max(size - whole, 0)) if size >= 4 else b""
        rest = whole + 64 - 4 - len(told)
        assert room.raw == size.to_bytes(4, "little") + told + b"\xa5" * rest, size


def test_a_query_is_a_description_and_a_search(library: Library, tmp_path: Path) -> None:
    c, frames = library.c, scenes(6)
    size = library.info.descriptor_size
    settings = ((1.0, 0.5), (0.4, 1.0))
    rows = [
        np.stack([library.describe(check_frame(frame), k, tokens).descriptor for frame in frames])
        for k, tokens in settings
    ]
    bands = tuple(Band(k, tokens) for k, tokens in settings)
    info = MapInfo(library.model_hash, "int8", size, bands)
    write_map(tmp_path / "m", info, [make_places(info, rows, np.full((6, 7), np.nan))])
    opened = open_map_in_c(c, (tmp_path / "m").read_bytes())
    assert isinstance(opened, OpenedMap)
    needed = c.tatvpr_arena_bytes(ctypes.byref(library._model), 0)
    room = aligned_bytes(needed)
    matches, found = (Hit * 3)(), ctypes.c_int32()
    matches[0].size = ctypes.sizeof(Hit)

    def status(frame: np.ndarray, k: float, tokens: float, arena_bytes: int = needed) -> int:
        options = _Options(size=ctypes.sizeof(_Options), k=k, tokens=tokens)
        held = check_frame(frame)
        made: int = c.tatvpr_query(
            ctypes.byref(library._model),
            _Arena(room.ctypes.data, arena_bytes),
            ctypes.byref(c_frame(held)),
            ctypes.byref(options),
            ctypes.byref(opened.map),
            matches,
            3,
            ctypes.byref(found),
        )
        return made

    place_map = PlaceMap(tmp_path / "m", engine=library)
    for number, frame in enumerate(frames):
        for band, (k, tokens) in enumerate(settings):
            assert status(frame, k, tokens) == OK
            wanted = place_map.search(rows[band][number], k, tokens, 3).candidates
            assert [(m.place, m.score) for m in matches[: found.value]] == [
                (candidate.place, candidate.score) for candidate in wanted
            ]
            assert (matches[0].place, matches[0].band) == (number, band)
    assert status(frames[0], 1.0, 1.0, 0) == status(frames[0], 1.0, 1.0, needed - 1) == ARENA
    other = MapInfo(library.model_hash, "int8", size, bands[:1], "local", size + 1)
    longer = np.ones((1, size + 1), np.float32)
    write_map(tmp_path / "o", other, [make_places(other, [longer], np.full((1, 7), np.nan))])
    foreign = open_map_in_c(c, (tmp_path / "o").read_bytes())
    assert isinstance(foreign, OpenedMap)
    write_map(tmp_path / "e", info, [make_places(info, [r[:0] for r in rows], np.empty((0, 7)))])
    empty = open_map_in_c(c, (tmp_path / "e").read_bytes())
    assert isinstance(empty, OpenedMap)
    # Before a frame's work: the arena is as it was.
    room[:] = 0xA5
    for given, wrong in ((foreign, MAP_MODEL), (empty, MAP_EMPTY)):
        opened = given
        assert status(frames[0], 1.0, 1.0) == wrong
    matches[0].size -= 1
    assert status(frames[0], 1.0, 1.0) == ABI
    assert (room == 0xA5).all()


def test_a_search_without_weights_knows_the_processor_as_one_with_them(library: Library) -> None:
    """Whether rows are fetched ahead hangs on the costs of the processor's family."""
    for kernels in library.usable_kernels():
        library.use(kernels)
        searcher, model = library.searcher, library._model
        assert (searcher.kernels, searcher.costs) == (model.kernels, model.costs)
        assert (searcher.costs is None) == (kernels == "portable")
    library.use(None)
