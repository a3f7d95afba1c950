"""``map lean``: a map that was driven comes to know its places' neighbours, without its frames."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import tatvpr_edge
from support.artifacts import scenes
from tatvpr_edge.mapping import lean_map
from tatvpr_edge.mapping.neighbours import lent
from tatvpr_edge.runtime import Localizer, MapWriter, PlaceMap
from tatvpr_edge.runtime.mapjournal import append, create_map
from tatvpr_edge.spec.errors import MapError
from tatvpr_edge.spec.maptypes import Band, Calibration, MapInfo, make_places
from tatvpr_edge.spec.scores import int8_rows

Run = Callable[..., subprocess.CompletedProcess[str]]
F32 = NDArray[np.float32]
INFO = MapInfo("cd" * 32, "int8", 24, (Band(1.0), Band(0.4)))


def driven(
    path: Path, rows: F32, xs: NDArray[np.float64], drives: list[int], **more: object
) -> Path:
    """A map whose places were added one by one, of drives that took turns."""
    create_map(path, more.pop("info", INFO))  # type: ignore[arg-type]
    counts: dict[int, int] = {}
    info = PlaceMap(path).info
    for place, drive in enumerate(drives):
        poses = np.full((1, 7), np.nan)
        poses[0, :3] = xs[place], drive, 0
        number = counts[drive] = counts.get(drive, -1) + 1
        made = make_places(
            info,
            [rows[place : place + 1]] * len(info.bands),
            poses,
            [f"place {place}"],
            orders=np.array([number]),
            drives=np.array([drive]),
            confirmed=np.array([place % 3]),
        )
        append(path, made)
    return path


def kept(path: Path) -> list[NDArray[np.int8]]:
    """What a map holds, by band."""
    stored = PlaceMap(path).stored.places()
    return [rows.data for rows in stored.rows]


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(2, 14))
def test_places_lean_on_those_before_and_behind_them_along_their_own_drive(
    seed: int, count: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The reference is what ``map build`` keeps of the same descriptors, before they are stored."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, 24)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    drives = rng.integers(1, 4, count).tolist()
    xs = np.cumsum(rng.choice([1.0, 30.0], count, p=[0.8, 0.2]))
    path = driven(tmp_path_factory.mktemp("lean") / "m.placemap", rows, xs, drives)
    before, was = PlaceMap(path).stored.places(), kept(path)

    order = np.argsort(drives, kind="stable")
    linked = np.array(
        [drives[a] == drives[b] and xs[b] - xs[a] <= 10 for a, b in itertools.pairwise(order)]
    )
    wanted = np.empty_like(rows)
    wanted[order] = lent(rows[order], linked)
    beside = np.zeros(count, bool)
    beside[order] = np.append(linked, False) | np.insert(linked, 0, False)

    done = lean_map(path)
    assert (done.places, done.neighbours, done.uncalibrated) == (count, int(beside.sum()), False)
    place_map = PlaceMap(path)
    after = place_map.stored.places()
    assert place_map.info.neighbours == bool(beside.any()) and not place_map.stored.journalled
    for band, rows_now in enumerate(kept(path)):
        # Stored twice: a number is off by one or two of 127 at most.
        assert (
            np.abs(rows_now[beside].astype(int) - int8_rows(wanted)[0][beside]).max(initial=0) <= 2
        )
        assert np.array_equal(rows_now[~beside], was[band][~beside])
    assert after.tags == before.tags and np.array_equal(after.moments, before.moments)
    assert np.array_equal(after.poses, before.poses, equal_nan=True)


def test_a_driven_map_becomes_what_map_build_makes_of_the_same_frames(
    tatvpr: Run, tiny_host: Path, tmp_path: Path
) -> None:
    pixels = scenes(4)
    path = tmp_path / "driven.placemap"
    with Localizer(tiny_host) as localizer:
        writer = MapWriter(path, localizer, views=True)
        for index, frame in enumerate(pixels):
            writer.add(frame, (index, 0.0), f"{index:02}.png")
        (tmp_path / "frames").mkdir()
        for index, frame in enumerate(pixels):
            Image.fromarray(frame).save(tmp_path / "frames" / f"{index:02}.png")
        table = "\n".join(["name,x,y", *(f"{i:02}.png,{i},0" for i in range(4))])
        (tmp_path / "frames/poses.csv").write_text(table)
        built = tatvpr_edge.build_map(localizer, tmp_path / "frames", tmp_path / "built").path
    done = tatvpr("map", "lean", path)
    assert "4 of 4 places have a neighbour along their drive" in done.stderr
    assert np.abs(kept(path)[0].astype(int) - kept(built)[0]).max() <= 2
    assert json.loads(tatvpr("map", "info", path, "--json").stdout)["places"] == 4
    again = path.read_bytes()
    said = tatvpr("map", "lean", path, status=1).stderr
    assert "keep parts of their neighbours already" in said and path.read_bytes() == again


def test_a_calibration_of_places_as_they_were_goes_and_it_is_told(
    tatvpr: Run, tmp_path: Path
) -> None:
    bands = tuple(
        replace(band, calibration=Calibration("score", 0.4, precision=0.95, recall=0.6))
        for band in INFO.bands
    )
    rows = np.eye(6, 24, dtype=np.float32)
    info = replace(INFO, bands=bands)
    path = driven(tmp_path / "m.placemap", rows, np.arange(6.0), [1] * 6, info=info)
    done = tatvpr("map", "lean", path)
    assert "it is not calibrated" in done.stderr and f"map calibrate {path}" in done.stderr
    assert all(band.calibration is None for band in PlaceMap(path).info.bands)
    # Nothing to lean on, nothing lost.
    far = driven(tmp_path / "far.placemap", rows, 50 * np.arange(6.0), [1] * 6, info=info)
    assert "0 of 6 places" in tatvpr("map", "lean", far).stderr
    assert all(band.calibration for band in PlaceMap(far).info.bands)
    assert not PlaceMap(far).info.neighbours


def test_a_map_that_is_driven_on_stays_and_is_leaned_as_a_whole_again(
    tatvpr: Run, tmp_path: Path
) -> None:
    """What a leaned copy holds is what leaning the map itself would have made of it, byte for byte,
    also after more drives; the copies are no maps of the robot's."""
    rows = np.random.default_rng(6).normal(size=(9, 24)).astype(np.float32)
    path = driven(tmp_path / "m.placemap", rows[:5], np.arange(5.0), [1] * 5)
    first, second = tmp_path / "first.placemap", tmp_path / "second.placemap"
    alone, journal = kept(path), tmp_path / "m.placemap.journal"
    before = path.read_bytes(), journal.read_bytes()
    done = tatvpr("map", "lean", path, "--output", first)
    assert "5 of 5 places have a neighbour" in done.stderr
    assert (path.read_bytes(), journal.read_bytes()) == before
    assert PlaceMap(first).info.neighbours and not PlaceMap(path).info.neighbours
    said = tatvpr("map", "lean", path, "--output", first, status=1).stderr
    assert f"{first} exists already: remove it, or give another --output" in said
    said = tatvpr("map", "lean", path, "--output", tmp_path / "none/m.placemap", status=1).stderr
    assert "does not exist: create it first" in said

    extra = make_places(
        PlaceMap(path).info,
        [rows[5:]] * 2,
        np.column_stack([np.arange(5.0, 9.0), np.full(4, 2.0), np.full((4, 5), np.nan)]),
        [f"later {place}" for place in range(4)],
        orders=np.arange(4),
        drives=np.full(4, 2),
    )
    append(path, extra)
    assert lean_map(path, second).neighbours == 9
    assert np.array_equal(kept(path)[0][:5], alone[0])
    in_place = tmp_path / "place.placemap"
    for suffix in ("", ".journal"):
        Path(f"{in_place}{suffix}").write_bytes(Path(f"{path}{suffix}").read_bytes())
    lean_map(in_place)
    assert in_place.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(("frame", "metre"), [("utm", 1.0), ("geographic", 9e-6)])
def test_neighbours_are_near_in_the_maps_own_frame(
    tmp_path: Path, frame: str, metre: float
) -> None:
    rows = np.random.default_rng(3).normal(size=(5, 24)).astype(np.float32)
    xs = 10 + metre * np.array([0.0, 40, 80, 1000, 1040])
    info = replace(INFO, pose_frame=frame)
    path = driven(tmp_path / "m.placemap", rows, xs, [1, 1, 1, 1, 2], info=info)
    assert lean_map(path).neighbours == 3


@pytest.mark.parametrize("kind", ["binary", "weighed"])
def test_signs_are_refused_and_stay(tmp_path: Path, kind: str) -> None:
    info = MapInfo("cd" * 32, kind, 24, (Band(1.0),))
    rows = np.random.default_rng(1).normal(size=(4, 24)).astype(np.float32)
    path = driven(tmp_path / "m.placemap", rows, np.arange(4.0), [1] * 4, info=info)
    before = kept(path)[0]
    with pytest.raises(MapError, match="holds signs alone"):
        lean_map(path)
    assert np.array_equal(kept(path)[0], before)


def test_places_of_unknown_position_lean_where_they_look_like_a_drive_and_not_across_a_pause(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(2)
    ends = rng.normal(size=(5, 24))
    share = np.linspace(0, 1, 10, endpoint=False)[:, None]
    rows = np.concatenate([a * (1 - share) + b * share for a, b in itertools.pairwise(ends)])
    seen_s = 1e9 + np.arange(40) + np.where(np.arange(40) >= 20, 600, 0)
    info = replace(INFO, bands=(Band(1.0),))

    def made(name: str, order: NDArray[np.int64], times: NDArray[np.float64] = seen_s) -> Path:
        path = tmp_path / name
        create_map(path, info)
        append(path, make_places(info, [rows[order].astype(np.float32)], times=times))
        return path

    assert lean_map(made("drive", np.arange(40))).neighbours == 40
    was, now = made("twin", np.arange(40)), tmp_path / "drive"
    across = np.abs(kept(now)[0][19].astype(int) - kept(was)[0][19])
    assert across.max() > 0  # of the one before it alone:
    alone = lent(
        rows[18:20].astype(np.float32) / np.linalg.norm(rows[18:20], axis=1)[:, None],
        np.array([True]),
    )
    assert (
        np.abs(kept(now)[0][19].astype(int) - int8_rows(alone.astype(np.float32))[0][1]).max() <= 2
    )
    assert lean_map(made("mixed", rng.permutation(40))).neighbours == 0
    once = np.where(np.arange(40) == 5, np.nan, seen_s)  # that its time is not known is no pause
    assert lean_map(made("once", np.arange(40), once)).neighbours == 40
