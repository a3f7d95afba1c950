"""What a path remembers: bounded, and the same wherever it lies."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np

from support.paths import HELD, judging, line, seen_at
from tatvpr_edge.runtime.engine import Engine
from tatvpr_edge.runtime.search import Table
from tatvpr_edge.runtime.tracking import Path
from tatvpr_edge.spec.maptypes import Band

Tables = Callable[..., Table]
ERR_ARGUMENT = 27


def test_memory_is_bounded(engine: Engine, tables: Tables) -> None:
    calibration = judging(3.0, 5)
    table, bands = tables(*line(500), calibration), [Band(1.0, 1.0, calibration)]
    path = Path(engine, 5)
    before = path.memory_bytes
    for place in range(400):
        path.step(HELD, table, bands, 0, seen_at(place, 500), 1.0)
    assert path.memory_bytes == before == 24 * 1024 + 1024 // 8


def test_larger_memory_holds_the_same_path(engine: Engine, tables: Tables) -> None:
    """Drives end in the middle of what a word says of them; positions may be unknown."""
    lengths = [700, 300, 31, 33, 700]
    drives = np.repeat(np.arange(len(lengths)), lengths)
    xy = np.cumsum(np.random.default_rng(5).uniform(-2, 2, (len(drives), 2)), axis=0)
    xy[drives == 2] = np.nan
    yaw = np.cumsum(np.random.default_rng(7).normal(0, 0.3, len(drives)))
    calibration = judging(3.0, 5)
    bands = [Band(1.0, 1.0, calibration)]
    grown, whole = Path(engine, 5), Path(engine, 5)
    rng = np.random.default_rng(6)
    for turn, count in enumerate((1000, 1000, 1016, 1040, 1764, 1764)):
        scores = np.full(len(drives), -np.inf, np.float32)
        scores[:count] = rng.uniform(-1, 1, count)
        known = tables(drives[:count], xy[:count], calibration, 1, yaw[:count])
        mine = grown.step(HELD, known, bands, 0, scores[:count].copy(), 1.5, None, 0.2)
        every = tables(drives, xy, calibration, 1, yaw)
        assert mine == whole.step(HELD, every, bands, 0, scores, 1.5, None, 0.2), turn


def test_room_is_made_between_any_two_frames(engine: Engine, tables: Tables) -> None:
    """A path that is found, goes dark, is lost and found again goes on as where there was room."""
    calibration = judging(3.0, 4, threshold=1.0)
    bands = [Band(1.0, 1.0, calibration)]
    least, most = (tables(*line(count), calibration) for count in (1000, 1100))
    nowhere = np.full(1100, 0.3, np.float32)
    shown = [seen_at(place, 1100) for place in range(10, 15)]
    shown += [None, None, seen_at(17, 1100), *[nowhere] * 6, seen_at(40, 1100), seen_at(41, 1100)]
    states = set()
    for grows in range(1, len(shown)):
        grown, whole = Path(engine, 4), Path(engine, 4)
        for turn, scores in enumerate(shown):
            early = None if scores is None else np.where(np.arange(1100) < 1000, scores, -np.inf)
            seen = scores if turn >= grows else early
            wanted = whole.step(HELD, most, bands, 0, seen)
            own = seen if turn >= grows or seen is None else seen[:1000].copy()
            told = grown.step(HELD, most if turn >= grows else least, bands, 0, own)
            assert repr(told) == repr(wanted), (grows, turn)
            states.add(told.state)
    assert states == {"lost", "found", "moved", "here"}


def test_memory_for_fewer_places_than_a_path_knows_is_refused(
    engine: Engine, tables: Tables
) -> None:
    calibration = judging(3.0, 5)
    bands, shown = [Band(1.0, 1.0, calibration)], seen_at(4, 40)
    path, other = Path(engine, 5), Path(engine, 5)
    table = tables(*line(40), calibration)
    for one in (path, other):
        one.step(HELD, table, bands, 0, shown)
    memory = np.empty(engine.c.tatvpr_track_bytes(40, 2), np.uint8)
    for places, status in ((39, ERR_ARGUMENT), (40, 0)):
        given = (ctypes.byref(path._track), places, memory.ctypes.data, memory.nbytes)
        assert engine.c.tatvpr_track_move(*given) == status
        assert path.step(HELD, table, bands, 0, shown) == other.step(HELD, table, bands, 0, shown)
