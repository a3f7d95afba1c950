"""``map merge`` and ``map stats``, as a user runs them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import score_reference
from tatvpr_edge.mapping import map_stats, merge_maps
from tatvpr_edge.runtime import PlaceMap
from tatvpr_edge.runtime.arguments import check_time
from tatvpr_edge.runtime.mapjournal import append
from tatvpr_edge.spec.errors import MapError, UsageError
from tatvpr_edge.spec.maptypes import LATEST_S, MAX_DRIVES
from tatvpr_edge.spec.placemap import (
    Band,
    Calibration,
    MapInfo,
    Places,
    make_places,
    write_map,
)

Run = Callable[..., subprocess.CompletedProcess[str]]
INFO = MapInfo("ab" * 32, "int8", 16, (Band(1.0),), "utm")
MODEL = "ab" * 32


def drive(info: MapInfo, count: int, seed: int, **moments: Any) -> Places:
    """Places a metre apart, eastwards."""
    rng = np.random.default_rng(seed)
    poses = np.full((count, 7), np.nan)
    poses[:, 0], poses[:, 1] = 500_000 + np.arange(count), 4_000_000 + 10 * seed
    if info.pose_frame == "local":
        poses[:, :2] -= (500_000, 4_000_000)
    rows = rng.standard_normal((count, info.descriptor_size)).astype(np.float32)
    return make_places(
        info, [rows] * len(info.bands), poses, [f"{seed}/{i}" for i in range(count)], **moments
    )


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """A map of two drives, one of them in its journal, and a map of one."""
    first, second = tmp_path / "first", tmp_path / "second"
    write_map(first, INFO, [drive(INFO, 4, 1, times=[10.0, 11, 12, 13], confirmed=2)])
    append(first, drive(INFO, 3, 2, drives=1))
    write_map(second, INFO, [drive(INFO, 5, 3)])
    return first, second


def moments(path: Path) -> Any:
    stored = PlaceMap(path).stored
    return np.concatenate([stored.base.moments, stored.added.moments])


def test_a_merged_map_holds_every_place_of_each_as_it_was(
    tatvpr: Run, two: tuple[Path, Path], tmp_path: Path
) -> None:
    before = [path.read_bytes() for path in two]
    done = tatvpr("map", "merge", *two, "-o", "both", "--json")
    document = json.loads(done.stdout)
    assert document["places"] == 12 and document["places_in_journal"] == 0
    assert done.stderr == ""
    parts, both = [PlaceMap(path) for path in two], PlaceMap(tmp_path / "both")
    sources = [(part, place) for part in parts for place in range(len(part))]
    for number, (part, place) in enumerate(sources):
        assert both.tag(number) == part.tag(place)
        assert both.pose(number).tobytes() == part.pose(place).tobytes()
    rows = [p.stored.places().rows[0].data for p in (*parts, both)]
    assert np.array_equal(np.concatenate(rows[:2]), rows[2])
    kept = moments(tmp_path / "both")
    assert kept["drive"].tolist() == [0] * 4 + [1] * 3 + [2] * 5
    assert kept["confirmed"].tolist() == [2] * 4 + [0] * 8
    assert kept["time_us"][:4].tolist() == [10e6, 11e6, 12e6, 13e6]
    assert [path.read_bytes() for path in two] == before


def test_a_place_that_several_maps_have_is_one_place(tatvpr: Run, tmp_path: Path) -> None:
    """Robots that began with copies of one map: each night's merge held what they share twice, and
    the next one four times."""
    base = Places.joined([drive(INFO, 4, 1, times=[10.0, 11, 12, 13]), drive(INFO, 3, 2, drives=5)])
    where = [tmp_path / name for name in ("first", "second", "third")]
    for path in where[:2]:
        write_map(path, INFO, [base])
    append(where[0], drive(INFO, 2, 3, drives=6))
    append(where[1], drive(INFO, 2, 4, drives=6))
    thinned = PlaceMap(where[1])
    for place in (0, 0, 3, 4, 6, 7, 8):
        thinned.confirm(place)
    thinned.prune(7)
    done = tatvpr("map", "merge", *where[:2], "-o", "both")
    assert done.stderr == "5 places stand in several of the maps, and once in this one\n"
    both = PlaceMap(tmp_path / "both")
    assert [both.tag(place) for place in range(len(both))] == [
        *(f"1/{i}" for i in range(4)),
        *(f"2/{i}" for i in range(3)),
        *("3/0", "3/1", "4/0", "4/1"),
    ]
    kept = moments(tmp_path / "both")
    assert kept["drive"].tolist() == [0] * 4 + [1] * 3 + [2] * 2 + [3] * 2
    assert kept["confirmed"].tolist() == [2, 0, 0, 1, 1, 0, 1, 0, 0, 1, 1]
    # The next night, of a robot that goes on with its own map: its drives have other numbers there.
    append(where[1], drive(INFO, 1, 5, drives=6, orders=[2]))
    again = merge_maps([tmp_path / "both", where[1]], tmp_path / "again")
    assert (again.places, again.drives, again.shared) == (12, 4, 7)
    assert moments(tmp_path / "again")["drive"].tolist()[-3:] == [3, 3, 3]
    # What one map holds twice stays.
    write_map(where[2], INFO, [Places.joined([drive(INFO, 2, 7), drive(INFO, 2, 7, drives=1)])])
    assert merge_maps([where[2], where[0]], tmp_path / "twice").places == 4 + 9


def test_a_calibration_is_kept_where_all_share_it_and_else_told(
    tatvpr: Run, tmp_path: Path
) -> None:
    judged = replace(INFO, bands=(Band(1.0, calibration=Calibration("score", 0.5)),))
    for name, info, seed in (("a", judged, 1), ("b", judged, 2), ("c", INFO, 3)):
        write_map(tmp_path / name, info, [drive(info, 3, seed)])
    assert tatvpr("map", "merge", "a", "b", "-o", "ab").stderr == ""
    assert PlaceMap(tmp_path / "ab").info == judged
    told = tatvpr("map", "merge", "a", "c", "-o", "a and c").stderr
    assert "not calibrated alike" in told and "map calibrate 'a and c'" in told
    assert PlaceMap(tmp_path / "a and c").info == INFO


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (replace(INFO, model_hash="cd" * 32), "model (abababababab and cdcdcdcdcdcd)"),
        (replace(INFO, kind="binary"), "kind (int8 and binary)"),
        (replace(INFO, dim=8, descriptor_size=16), "descriptor size"),
        (replace(INFO, bands=(Band(0.2),)), "bands (k=1 tokens=1 and k=0.2 tokens=1)"),
        (replace(INFO, pose_frame="local"), "pose frame (utm and local)"),
    ],
)
def test_maps_that_do_not_go_together_are_told_by_what_differs(
    tatvpr: Run, tmp_path: Path, other: MapInfo, named: str
) -> None:
    write_map(tmp_path / "a", INFO, [drive(INFO, 2, 1)])
    write_map(tmp_path / "b", other, [drive(other, 2, 2)])
    assert named in tatvpr("map", "merge", "a", "b", "-o", "c", status=1).stderr
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("reverse", [False, True])
def test_what_one_of_the_maps_says_of_its_places_is_kept(tmp_path: Path, reverse: bool) -> None:
    """A calibration by its band, and that places have neighbours: `map lean` would blur them."""
    judged = Band(0.2, calibration=Calibration("score", 0.5))
    one = replace(INFO, bands=(Band(1.0), judged), neighbours=True)
    other = replace(one, bands=(Band(1.0), Band(0.2)), neighbours=False)
    infos = [other, one] if reverse else [one, other]
    for name, info in zip("ab", infos, strict=True):
        write_map(tmp_path / name, info, [drive(info, 2, ord(name))])
    done = merge_maps([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    assert PlaceMap(tmp_path / "c").info == replace(other, neighbours=True) and done.uncalibrated
    write_map(tmp_path / "d", one, [drive(one, 2, 5)])
    alike = merge_maps([tmp_path / "d", tmp_path / ("b" if reverse else "a")], tmp_path / "e")
    assert PlaceMap(tmp_path / "e").info == one and not alike.uncalibrated


def test_drives_are_as_many_as_there_are_and_at_most_as_many_as_a_map_may_have(
    tmp_path: Path,
) -> None:
    """Of pruned maps some are gone; their numbers counted, and filled the new map."""
    names = [tmp_path / name for name in ("sparse", "second", "full", "empty")]
    write_map(names[0], INFO, [drive(INFO, 4, 1, drives=[7, 65535, 7, 9])])
    write_map(names[1], INFO, [drive(INFO, 3, 2, drives=[3, 0, 3])])
    rows = np.ones((MAX_DRIVES, 16), np.float32)
    write_map(names[2], INFO, [make_places(INFO, [rows], drives=np.arange(MAX_DRIVES))])
    write_map(names[3], INFO, [])
    done = merge_maps(names[:2], tmp_path / "both")
    assert (done.places, done.drives) == (7, 5)
    assert moments(tmp_path / "both")["drive"].tolist() == [0, 2, 0, 1, 4, 3, 4]
    assert merge_maps(names[2:], tmp_path / "most").drives == MAX_DRIVES
    with pytest.raises(MapError, match="second brings more drives than a map may have"):
        merge_maps([names[2], names[1]], tmp_path / "more")


def test_signs_around_other_means_are_refused(tmp_path: Path) -> None:
    for name, mean in (("a", 0.1), ("b", 0.2)):
        info = replace(INFO, kind="binary", bands=(Band(1.0, mean=(mean,) * 16),))
        write_map(tmp_path / name, info, [drive(info, 2, 1)])
    with pytest.raises(MapError, match="have other means of their signs"):
        merge_maps([tmp_path / "a", tmp_path / "b"], tmp_path / "c")


def test_local_maps_need_a_word_that_their_origin_is_one(tatvpr: Run, tmp_path: Path) -> None:
    local = replace(INFO, pose_frame="local")
    for seed, name in enumerate("ab"):
        write_map(tmp_path / name, local, [drive(local, 3, seed)])
    bare = make_places(local, [np.eye(3, 16, dtype=np.float32)])
    write_map(tmp_path / "bare", local, [bare])
    write_map(tmp_path / "grown", local, [bare])
    append(tmp_path / "grown", drive(local, 1, 3))
    assert "--same-frame" in tatvpr("map", "merge", "a", "b", "-o", "c", status=1).stderr
    with pytest.raises(MapError, match="same-frame"):
        merge_maps([tmp_path / "a", tmp_path / "grown"], tmp_path / "c")
    tatvpr("map", "merge", "a", "b", "-o", "c", "--same-frame")
    assert len(PlaceMap(tmp_path / "c")) == 6
    tatvpr("map", "merge", "a", "bare", "-o", "d")  # one map's positions cannot disagree


def test_what_stands_is_not_written_over_and_one_map_is_not_merged(
    tatvpr: Run, two: tuple[Path, Path], tmp_path: Path
) -> None:
    assert "exists already" in tatvpr("map", "merge", *two, "-o", two[0], status=1).stderr
    assert "two or more" in tatvpr("map", "merge", two[0], "-o", "c", status=1).stderr
    assert "cannot read" in tatvpr("map", "merge", two[0], "no", "-o", "c", status=1).stderr
    again = ("map", "merge", *two, tmp_path / "." / "first", "-o", "c")
    assert "is given twice" in tatvpr(*again, status=1).stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("first", "first.journal", "second")
    ]


@pytest.mark.parametrize("kind", ["int8", "binary", "weighed"])
def test_stats_say_what_the_places_say(tatvpr: Run, tmp_path: Path, kind: str) -> None:
    info = replace(INFO, kind=kind)
    places = drive(info, 4, 1, times=[100.0, 101, np.nan, 103.5], confirmed=[0, 1, 2, 0])
    write_map(tmp_path / "m", info, [places])
    append(tmp_path / "m", drive(info, 3, 2, drives=1))
    found = json.loads(tatvpr("map", "stats", "m", "--json").stdout)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert (found["places"], found["drives"], found["confirmed"]) == (7, 2, 2)
    assert found["bytes"] == size and found["bytes_a_place"] == pytest.approx(size / 7)
    assert (found["first_s"], found["last_s"]) == (100.0, 103.5)
    assert (found["width_m"], found["height_m"], found["step_m"]) == (3.0, 10.0, 1.0)
    rows = [p.rows[0] for p in (places, drive(info, 3, 2))]
    plain = [
        score_reference.int8_scores(
            r.data[i], r.norms[i], r.data[i + 1 : i + 2], r.norms[i + 1 : i + 2]
        )[0]
        if r.norms is not None
        else score_reference.binary_scores(r.data[i], r.data[i + 1 : i + 2], 16)[0]
        for r in rows
        for i in range(len(r) - 1)
    ]
    assert found["step_score"] == pytest.approx(float(np.median(plain)), abs=1e-6)
    assert found["redundant"] == 0
    shown = tatvpr("map", "stats", "m").stdout
    assert "7, of 2 drives" in shown and "3.0 m x 10.0 m" in shown and "1970-01-01" in shown


def test_steps_are_metres_wherever_a_drive_is(tmp_path: Path) -> None:
    """They were laid flat around the middle of all drives: 4.98 m of 3.9 in the north, here."""
    info = replace(INFO, pose_frame="geographic")
    poses = np.full((8, 7), np.nan)
    poses[:, 0] = 10 + 7e-5 * np.arange(8)
    poses[:, 1] = np.repeat([40.0, 60.0], 4)
    rows = np.random.default_rng(1).standard_normal((8, 16)).astype(np.float32)
    for name, north in (("south", poses[:, 1] < 50), ("north", poses[:, 1] > 50)):
        write_map(tmp_path / name, info, [make_places(info, [rows[north]], poses[north])])
    merge_maps([tmp_path / "south", tmp_path / "north"], tmp_path / "both")
    steps = [map_stats(tmp_path / name).step_m for name in ("south", "north", "both")]
    assert steps == pytest.approx([5.963, 3.892, 4.927], abs=1e-3)


def test_stats_of_places_that_say_little(tatvpr: Run, tmp_path: Path) -> None:
    write_map(tmp_path / "empty", INFO, [])
    found = json.loads(tatvpr("map", "stats", "empty", "--json").stdout)
    assert found["places"] == 0
    assert all(found[name] is None for name in ("step_m", "step_score", "width_m", "first_s"))
    same = np.ones((3, 16), np.float32)
    write_map(tmp_path / "bare", INFO, [make_places(INFO, [same])])
    found = json.loads(tatvpr("map", "stats", "bare", "--json").stdout)
    assert found["positions"] == 0 and found["redundant"] == 1.0 and found["step_m"] is None
    assert "positions  unknown" in tatvpr("map", "stats", "bare").stdout


def test_a_time_in_milliseconds_is_refused_and_told_of_a_map_that_has_it(
    tatvpr: Run, tmp_path: Path
) -> None:
    """Taken for seconds, it let `exclude_last="30s"` find the last 30 s, and ended `map stats`."""
    for at in (1.7e12, LATEST_S + 1, -1.0):
        with pytest.raises(MapError, match="not milliseconds"):
            drive(INFO, 1, 1, times=[at])
        with pytest.raises(UsageError, match="not milliseconds"):
            check_time(at)
    assert check_time(LATEST_S) == LATEST_S and check_time(0) == 0
    places = drive(INFO, 2, 1, times=[0.0, LATEST_S])
    places.moments["time_us"][1] = 2**63 - 1
    write_map(tmp_path / "m", INFO, [places])
    assert "from 1970-01-01 00:00:00 to 294247-" in tatvpr("map", "stats", "m").stdout
