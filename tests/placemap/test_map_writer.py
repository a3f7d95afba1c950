"""``MapWriter`` on a board: what is added is found, durable, ordered."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from support.artifacts import scenes
from tatvpr_edge.mapping import extend_map
from tatvpr_edge.runtime import Localizer, MapWriter, PlaceMap
from tatvpr_edge.runtime.mapjournal import compact
from tatvpr_edge.spec.errors import FrameError, MapError, UsageError
from tatvpr_edge.spec.maptypes import make_places
from tatvpr_edge.spec.placemap import write_map


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint8]:
    return scenes(5)


def moments(path: Path) -> NDArray[np.void]:
    stored = PlaceMap(path).stored
    return np.concatenate([stored.base.moments, stored.added.moments])


def test_a_map_is_made_and_every_frame_is_found(
    tiny_host: Path, frames: NDArray[np.uint8], tmp_path: Path
) -> None:
    path = tmp_path / "m.placemap"
    before = time.time()
    with MapWriter(path, tiny_host, bands=[(1.0, 1.0), (0.2, 1.0)]) as writer:
        for index, frame in enumerate(frames):
            assert writer.add(frame, (index, 2.0), f"frame {index}") == index
            assert len(PlaceMap(path)) == index + 1  # on the disk at once
    with Localizer(tiny_host, path, k=0.2) as localizer:
        for index, frame in enumerate(frames):
            match = localizer.query(frame)
            assert (match.place, match.tag) == (index, f"frame {index}")
            assert match.score > 0.999 and match.pose is not None
            assert match.pose[:2] == (index, 2.0) and np.isnan(match.pose[2:]).all()
    kept = moments(path)
    assert kept["order"].tolist() == [0, 1, 2, 3, 4] and not kept["drive"].any()
    assert (kept["time_us"] >= before * 1e6 - 1).all()


def test_each_writer_is_a_drive_of_its_own(
    tiny_host: Path, frames: NDArray[np.uint8], tmp_path: Path
) -> None:
    path = tmp_path / "m.placemap"
    with Localizer(tiny_host) as localizer:
        for _ in range(2):
            with MapWriter(path, localizer) as writer:
                writer.add(frames[0])
                writer.add(localizer.describe(frames[1], k=1.0), time_s=12.5)
        localizer.describe(frames[0])  # a writer does not close what it was lent
    kept = moments(path)
    assert kept["drive"].tolist() == [0, 0, 1, 1] and kept["order"].tolist() == [0, 1, 0, 1]
    assert kept["time_us"][1::2].tolist() == [12_500_000] * 2


def test_whoever_adds_at_one_time_has_a_drive_of_its_own(
    tiny_host: Path, frames: NDArray[np.uint8], tmp_path: Path
) -> None:
    """All of them opened the map, or were made of one that did, before they added to it."""
    path = tmp_path / "m.placemap"
    with Localizer(tiny_host) as localizer, Localizer(tiny_host, backend="cpu") as second:
        row = localizer.describe(frames[0], k=1.0)
        one, other = MapWriter(path, localizer), MapWriter(path, localizer)
        localizer.map = second.map = path  # type: ignore[assignment]
        localizer.add(row)
        third = localizer.map.searched_by(second.artifact.manifest.model, second.engine)
        for _ in range(2):
            one.add(row)
            other.add(row)
            localizer.add(row)
            second.add(row)
            third.add([row], np.full(7, np.nan))
    kept = moments(path)
    assert kept["drive"].tolist() == [0] + 2 * [1, 2, 0, 3, 4]
    assert kept["order"].tolist() == [0, 0, 0, 1, 0, 0, 1, 1, 2, 1, 1]


def test_frames_added_while_a_robot_adds_are_another_drive(
    tiny_host: Path, frames: NDArray[np.uint8], tmp_path: Path
) -> None:
    path, folder = tmp_path / "m.placemap", tmp_path / "frames"
    folder.mkdir()
    for index, frame in enumerate(frames[:3]):
        Image.fromarray(frame).save(folder / f"{index}.png")
    with Localizer(tiny_host) as localizer, MapWriter(path, localizer) as robot:
        robot.add(frames[0])
        compact(path)
        with MapWriter(path, localizer) as later:
            extend_map(localizer, folder, path, progress=lambda _: later.add(frames[1]))
            later.add(frames[1])
    kept = moments(path)
    assert kept["drive"].tolist() == [0, 1, 1, 1, 2, 2, 2, 1]
    assert kept["order"].tolist() == [0, 0, 1, 2, 0, 1, 2, 3]


@pytest.mark.parametrize("other", [{"model_hash": "ab" * 32}, {"pose_frame": "utm"}], ids=str)
def test_a_map_that_was_exchanged_takes_nothing_of_those_who_opened_the_other(
    other: dict[str, str], tiny_host: Path, frames: NDArray[np.uint8], tmp_path: Path
) -> None:
    """Places of one model went into the map of another one, where these have as many numbers."""
    path, folder = tmp_path / "m.placemap", tmp_path / "frames"
    folder.mkdir()
    Image.fromarray(frames[0]).save(folder / "0.png")
    with Localizer(tiny_host) as localizer, MapWriter(path, localizer) as writer:
        localizer.map = path
        places = make_places(writer.info, [localizer.describe(frames[0], k=1.0)[None]])

        def exchange(_: object = None) -> None:
            write_map(path, replace(writer.info, **other), [])  # type: ignore[arg-type]

        ways = (
            lambda: extend_map(localizer, folder, path, progress=exchange),
            lambda: writer.add(frames[0]),
            lambda: writer.add_places(places),
            lambda: localizer.add(frames[0]),
        )
        for way in ways:
            with pytest.raises(MapError, match="is another map by now: open it again"):
                way()
        opened = localizer.map
        assert opened is not None
        for look in (opened.catch_up, lambda: opened.prune(1)):
            with pytest.raises(MapError, match="is another map by now"):
                look()
    assert len(PlaceMap(path)) == 0


def test_a_map_of_as_many_drives_as_there_can_be_takes_no_other(
    tiny_host: Path, frames: NDArray[np.uint8], tmp_path: Path
) -> None:
    path = tmp_path / "m.placemap"
    with Localizer(tiny_host) as localizer, MapWriter(path, localizer) as writer:
        row = localizer.describe(frames[0], k=1.0)
        writer.add_places(make_places(writer.info, [row[None]], drives=65535))
        with pytest.raises(MapError, match="drives up to number 65535, the last: make another"):
            writer.add(row)
    assert len(moments(path)) == 1


def test_what_cannot_be_added_is_told_and_adds_nothing(
    tiny_host: Path, frames: NDArray[np.uint8], tmp_path: Path
) -> None:
    path = tmp_path / "m.placemap"
    with MapWriter(path, tiny_host) as writer:
        writer.add(frames[0])
        size = writer.info.descriptor_size
        good = np.ones(size, np.float32)
        for arguments, words in (
            ((frames[0], (1.0,)), "pose of 1 numbers"),
            ((frames[0], (1, 2, 3, 0, 0, 0, 0)), "length 0"),
            ((frames[0], (1, 2, 3, 0, 0, 0, np.nan)), "half known"),
            ((frames[0], (1, np.inf)), "infinite"),
            ((frames[0], (1, 1e300)), "its position is 1 1e[+]300 nan: at most 1e[+]09 metres"),
            ((frames[0], (1, 2, -2e9)), "its position is 1 2 -2e[+]09: at most"),
            ((good[:-1],), "elements"),
            ((good * np.nan,), "finite"),
            ((good * 0,), "zero"),
            ((good, None, "x" * 65536), "too long"),
            ((good, None, "\udce9"), "UTF-8"),
            ((good, None, 5), "a tag is text"),
            ((good, "door"), "a pose is numbers"),
        ):
            with pytest.raises(MapError, match=words):
                writer.add(*arguments)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="2 descriptors for a map of 1 bands"):
            writer.add([good, good])
        for no_frame, words in ((None, "NoneType"), ("a.jpg", "str"), (frames[0] / 2, "float64")):
            with pytest.raises(FrameError, match=f"not {words}"):
                writer.add(no_frame)  # type: ignore[arg-type]
    assert len(PlaceMap(path)) == 1
    with pytest.raises(MapError, match="one of int8, binary"):
        MapWriter(tmp_path / "other", tiny_host, kind="float")
    for twice in ([(1.0, 1.0), (1.0, 1.0)], [(0.2, 1), (1, 1), (0.2 + 1e-12, 1)]):
        with pytest.raises(UsageError, match="name one band twice"):
            MapWriter(tmp_path / "other", tiny_host, bands=twice)
    assert not (tmp_path / "other").exists()
