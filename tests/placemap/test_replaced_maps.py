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
from tatvpr_edge.mapping import extend_map
from tatvpr_edge.runtime import Localizer, MapWriter
from tatvpr_edge.runtime.mapjournal import compact, journal_path, read_map
from tatvpr_edge.spec.errors import MapError
from tatvpr_edge.spec.maptypes import Band, MapInfo, make_places
from tatvpr_edge.spec.placemap import write_map

OTHERS: dict[str, Callable[[MapInfo], MapInfo]] = {
    "model": lambda info: replace(info, model_hash="ab" * 32),
    "k": lambda info: replace(info, bands=(Band(0.2),)),
    "tokens": lambda info: replace(info, bands=(Band(1.0, 0.5),)),
    "pose frame": lambda info: replace(info, pose_frame="utm"),
    "kind": lambda info: replace(info, kind="binary"),
    "bands": lambda info: replace(info, bands=(Band(1.0), Band(0.2))),
}


def put(path: Path, info: MapInfo, count: int = 5) -> bytes:
    """Another map in the place of the one at ``path``; its bytes."""
    rows = [directions(count, info.dim, seed) for seed, _ in enumerate(info.bands)]
    other = path.with_suffix(".new")
    write_map(other, info, [make_places(info, rows, tags=[f"new {i}" for i in range(count)])])
    journal_path(path).unlink(missing_ok=True)
    os.replace(other, path)
    return path.read_bytes()


@pytest.mark.parametrize("changed", OTHERS)
def test_nothing_is_added_to_a_map_of_another_kind_that_took_its_place(
    robot: Localizer, frames: NDArray[np.uint8], changed: str
) -> None:
    """Its places were written there, of another model or at other dials, and the robot searched
    them from then on."""
    assert robot.map is not None
    path = robot.map.path
    writer = MapWriter(path, robot)
    for index in range(3):
        robot.add(frames[index], (index, 0), f"frame {index}")
    rows = make_places(writer.info, [directions(1, robot.descriptor_size)])
    after = put(path, OTHERS[changed](robot.map.info))
    adds: list[Callable[[], Any]] = [
        lambda: robot.add(frames[3]),
        lambda: robot.add(frames[3], max_places=3),
        lambda: writer.add(frames[3]),
        lambda: writer.add_places(rows),
        robot.map.catch_up,
        lambda: robot.map.prune(2) if robot.map else None,
    ]
    for add in adds:
        with pytest.raises(MapError, match=r"another map took the place of .*open it again"):
            add()
    assert path.read_bytes() == after and len(read_map(path)) == 5
    assert robot.query(frames[1]).tag == "frame 1"  # what was opened answers on


def test_frames_that_were_described_for_a_map_go_into_no_other(
    robot: Localizer, frames: NDArray[np.uint8], tmp_path: Path
) -> None:
    assert robot.map is not None
    path, info = robot.map.path, robot.map.info
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(2):
        (folder / f"{index}.ppm").write_bytes(b"P6 96 96 255\n" + bytes(range(256)) * 108)
    after: list[bytes] = []

    def replaced(_: int) -> None:
        after.append(put(path, OTHERS["k"](info)))

    with pytest.raises(MapError, match="another map took the place"):
        extend_map(robot, folder, path, views=False, progress=replaced)
    assert path.read_bytes() == after[-1] and len(read_map(path)) == 5


def test_a_drive_does_not_go_on_in_another_map(robot: Localizer, frames: NDArray[np.uint8]) -> None:
    """Both have a drive 0: its places would have become neighbours of the robot's."""
    assert robot.map is not None
    path = robot.map.path
    for index in range(3):
        robot.add(frames[index])
    put(path, robot.map.info)
    assert [robot.add(frames[index]).place for index in (3, 4)] == [5, 6]
    moments = read_map(path).places().moments
    assert moments["drive"].tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert moments["order"].tolist() == [0, 1, 2, 3, 4, 0, 1]
    compact(path)  # and one that was only written anew is the same
    robot.add(frames[5])
    assert read_map(path).places().moments["drive"].tolist()[-2:] == [1, 1]
