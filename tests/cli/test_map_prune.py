"""``map prune``, as users call it: the most redundant places go, evenly, and the loss is told."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tatvpr_edge.runtime import PlaceMap
from tatvpr_edge.runtime.mapjournal import append
from tatvpr_edge.spec.maptypes import Band, MapInfo, Places, make_places
from tatvpr_edge.spec.placemap import write_map

Run = Callable[..., subprocess.CompletedProcess[str]]


def turning(path: Path, count: int, added: int) -> Path:
    """A map of one drive whose places turn slowly from one direction to another; the last
    ``added`` places lie in its journal."""
    info = MapInfo("cd" * 32, "int8", 32, (Band(1.0),))
    ends = np.random.default_rng(0).standard_normal((2, 32))
    share = np.linspace(0, 1, count)[:, None]
    rows = (ends[0] * (1 - share) + ends[1] * share).astype(np.float32)
    poses = np.full((count, 7), np.nan)
    poses[:, 0], poses[:, 1] = np.arange(count), 0

    def part(which: slice) -> Places:
        return make_places(info, [rows[which]], poses[which], orders=np.arange(count)[which])

    write_map(path, info, [part(slice(0, count - added))])
    append(path, part(slice(count - added, None)))
    return path


def test_a_map_is_thinned_out_evenly_and_says_what_it_lost(tatvpr: Run, tmp_path: Path) -> None:
    path = turning(tmp_path / "a.placemap", 100, added=10)
    done = tatvpr("map", "prune", path, "--max-places", "25")
    assert "dropped 75 places; each scores 0.9" in done.stdout
    place_map = PlaceMap(path)
    assert len(place_map) == 25 and not place_map.stored.journalled
    gaps = np.diff([place_map.pose(i)[0] for i in range(25)])
    assert gaps.min() > 0 and gaps.max() <= 16
    assert "dropped 0 places" in tatvpr("map", "prune", path, "--max-places", "25").stdout


def test_no_number_of_places_is_an_error_that_changes_nothing(tatvpr: Run, tmp_path: Path) -> None:
    path = turning(tmp_path / "a.placemap", 20, added=5)
    before = path.read_bytes()
    tatvpr("map", "prune", path, "--max-places", "0", status=2)
    assert path.read_bytes() == before and len(PlaceMap(path)) == 20
