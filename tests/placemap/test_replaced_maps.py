"""Another map takes the name of one that a program has open, and adds to."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from support.maps import directions
from tatvpr_edge.runtime import Localizer, MapWriter
from tatvpr_edge.runtime.mapjournal import compact, journal_path, read_map
from tatvpr_edge.spec.errors import MapError
from tatvpr_edge.spec.maptypes import MapInfo, make_places
from tatvpr_edge.spec.placemap import write_map


def put(path: Path, info: MapInfo, count: int = 5) -> bytes:
    """Another map in the place of the one at ``path``; its bytes."""
    rows = [directions(count, info.dim, seed) for seed, _ in enumerate(info.bands)]
    other = path.with_suffix(".new")
    write_map(other, info, [make_places(info, rows, tags=[f"new {i}" for i in range(count)])])
    journal_path(path).unlink(missing_ok=True)
    os.replace(other, path)
    return path.read_bytes()


def test_a_map_of_another_kind_takes_nothing(robot: Localizer, frames: NDArray[np.uint8]) -> None:
    """Of another model, bands or pose frame: test_map_writer.py."""
    assert robot.map is not None
    path = robot.map.path
    for index in range(3):
        robot.add(frames[index], (index, 0), f"frame {index}")
    after = put(path, replace(robot.map.info, kind="binary"))
    adds: list[Callable[[], Any]] = [
        lambda: robot.add(frames[3]),
        lambda: robot.add(frames[3], max_places=3),
        robot.map.catch_up,
        lambda: robot.map.prune(2) if robot.map else None,
    ]
    for add in adds:
        with pytest.raises(MapError, match="is another map by now: open it again"):
            add()
    assert path.read_bytes() == after and len(read_map(path)) == 5
    assert robot.query(frames[1]).tag == "frame 1"  # what was opened answers on


@pytest.mark.parametrize("by", [Localizer, MapWriter])
def test_a_drive_does_not_go_on_in_another_map(
    robot: Localizer, frames: NDArray[np.uint8], by: type
) -> None:
    """Both have a drive 0: its places would have become neighbours of the robot's."""
    assert robot.map is not None
    path = robot.map.path
    adds = robot if by is Localizer else MapWriter(path, robot)
    for index in range(3):
        adds.add(frames[index])
    put(path, robot.map.info)
    for index in (3, 4):
        adds.add(frames[index])
    moments = read_map(path).places().moments
    assert moments["drive"].tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert moments["order"].tolist() == [0, 1, 2, 3, 4, 0, 1]
    compact(path)  # and one that was only written anew is the same
    adds.add(frames[5])
    assert read_map(path).places().moments["drive"].tolist()[-2:] == [1, 1]


@pytest.mark.parametrize("by", [Localizer, MapWriter])
def test_a_drive_knows_its_places_in_a_map_that_was_exchanged(
    robot: Localizer, frames: NDArray[np.uint8], by: type
) -> None:
    """Another robot's first place there had its drive's number, and a time that was as unknown."""
    assert robot.map is not None
    path, now = robot.map.path, float("nan")
    adds = robot if by is Localizer else MapWriter(path, robot)
    for index in range(3):
        adds.add(frames[index], time_s=now)
    compact(path)
    adds.add(frames[3], time_s=now)
    assert read_map(path).places().moments["drive"].tolist() == [0, 0, 0, 0]
    put(path, robot.map.info, 0)
    MapWriter(path, robot).add(frames[4], time_s=now)
    adds.add(frames[5], time_s=now)
    moments = read_map(path).places().moments
    assert moments["drive"].tolist() == [0, 1] and moments["order"].tolist() == [0, 0]
