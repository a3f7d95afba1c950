"""A program that runs learns of a new release, and changes its map while it runs."""

from __future__ import annotations

import os
import pickle
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from support.artifacts import scenes
from support.tiny_model import TOKENS, tiny_model
from tatvpr_edge import build
from tatvpr_edge.models.export.bodies import bodies
from tatvpr_edge.runtime import FakeLocalizer, Localizer, MapError, MapWriter, PlaceMap, UsageError
from tatvpr_edge.runtime.cache import host_artifact
from tatvpr_edge.spec.artifact import read_artifact, replace_profile
from tatvpr_edge.spec.atomic import take_place
from tatvpr_edge.spec.placemap import Band, MapInfo, make_places, write_map

Frames = NDArray[np.uint8]


@pytest.fixture
def switch(
    tiny_host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Path]:
    """Makes a release live as a deploy does: one rename of a link. Returns the root."""
    root = tmp_path / "root"
    (root / "releases").mkdir(parents=True)
    monkeypatch.setenv("TATVPR_EDGE_ROOT", str(root))

    def live(name: str) -> Path:
        if not (root / "releases" / name).exists():
            shutil.copytree(tiny_host, root / "releases" / name / "artifact")
        (root / "current.next").symlink_to(f"releases/{name}")
        os.rename(root / "current.next", root / "current")
        return root

    return live


@pytest.mark.parametrize("named", [False, True])
def test_a_program_learns_of_a_new_release(switch: Callable[[str], Path], named: bool) -> None:
    root = switch("one")
    told: list[Localizer] = []
    heard = threading.Event()
    with Localizer(root / "current" / "artifact" if named else None) as localizer:
        localizer.on_stale(lambda it: (told.append(it), heard.set()), every_s=0.01)
        spawned = pickle.dumps(localizer)
        assert not localizer.stale
        before = localizer.describe(scenes(1)[0])
        switch("two")
        assert localizer.stale and heard.wait(60) and told == [localizer]
        # It goes on with what it opened; who opens another has the new one.
        assert localizer.describe(scenes(1)[0]).tobytes() == before.tobytes()
        assert "one" in localizer.artifact.root.parts
        with Localizer() as fresh, pickle.loads(spawned) as child:
            assert "two" in fresh.artifact.root.parts and not fresh.stale
            assert "one" in child.artifact.root.parts and child.stale
        switch("one")  # a rollback: what runs is live again
        assert not localizer.stale


def test_an_artifact_that_is_built_anew_in_its_place_is_another(
    tiny_host: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "artifact"
    shutil.copytree(tiny_host, folder)
    with Localizer(folder) as localizer:
        os.utime(folder)
        assert not localizer.stale
        replace_profile(folder, {"device": {}, "points": []})
        assert localizer.stale
        shutil.rmtree(folder)
        assert not localizer.stale, "there is nothing newer to open"


@pytest.mark.parametrize("named", [False, True])
def test_an_artifact_that_is_replaced_between_its_files_is_opened_once_more(
    named: bool,
    tiny_host: Path,
    build_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another model's build takes its place once the weights are read, before the code is."""
    onnx.save(tiny_model("gem", seed=1, functions=bodies(TOKENS)), tmp_path / "other.onnx")
    other = build("host", model=tmp_path / "other.onnx", output=tmp_path / "other")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TATVPR_EDGE_ROOT", str(tmp_path / "nothing is deployed"))
    folder = host_artifact()
    folder.parent.mkdir(parents=True)
    shutil.copytree(tiny_host, folder)
    wanted, seal, sealed = read_artifact(other).manifest.model.hash, os.memfd_create, []

    def replacing(*arguments: int | str) -> int:
        sealed.append(arguments)
        if len(sealed) == 1:
            take_place(other, folder)
        return seal(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "memfd_create", replacing)
    with Localizer(folder if named else None) as localizer:
        assert localizer.artifact.manifest.model.hash == wanted == localizer.engine.model_hash
        assert not localizer.stale and len(sealed) >= 3


def test_a_callback_that_fails_ends_no_program_and_closing_ends_the_watch(
    switch: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    root = switch("one")
    heard = threading.Event()
    others = set(threading.enumerate())  # of Localizers that other tests share

    def fails(_: Localizer) -> None:
        heard.set()
        raise RuntimeError("the robot's own mistake")

    with Localizer(root / "current" / "artifact") as localizer:
        with pytest.raises(UsageError, match="every_s is 0"):
            localizer.on_stale(fails, every_s=0)
        with pytest.raises(UsageError, match=r"callback is 0\.5: a function"):
            localizer.on_stale(0.5)  # type: ignore[arg-type]
        localizer.on_stale(fails, every_s=0.01)
        localizer.on_stale(fails, every_s=1e6)  # looks no more before it is closed
        switch("two")
        assert heard.wait(60)
    assert "the robot's own mistake" in caplog.text
    assert not [t for t in set(threading.enumerate()) - others if t.name == "tatvpr-stale"]


def test_a_callback_may_close_what_it_is_told_of(switch: Callable[[str], Path]) -> None:
    root = switch("one")
    closed = threading.Event()

    def let_go(it: Localizer) -> None:
        it.close()
        closed.set()

    Localizer(root / "current" / "artifact").on_stale(let_go, every_s=0.01)
    switch("two")
    assert closed.wait(60)


def test_the_map_changes_while_the_program_runs(
    localizer: Localizer, frames: Frames, scene_map: Path, tmp_path: Path
) -> None:
    grown = Path(shutil.copy(scene_map, tmp_path / "grown.placemap"))
    new = scenes(14)[13]
    localizer.map = str(grown)
    assert localizer.map is not None and localizer.map.path == grown
    before = len(localizer.map)
    with MapWriter(grown, localizer) as writer:
        assert writer.add(new, tag="added") == before
    assert localizer.query(new).tag != "added"
    localizer.map = grown  # the same again: what was added is seen
    assert localizer.query(new).tag == "added"
    localizer.map = None
    with pytest.raises(MapError, match="no map to search"):
        localizer.query(new)
    localizer.map = scene_map
    assert localizer.query(frames[3]).tag == "scene 3"


@pytest.mark.parametrize("fault", ["missing", "damaged", "other model"])
def test_a_map_that_is_refused_changes_nothing(
    localizer: Localizer, frames: Frames, scene_map: Path, tmp_path: Path, fault: str
) -> None:
    bad = tmp_path / "bad.placemap"
    if fault == "damaged":
        bad.write_bytes(scene_map.read_bytes()[:-1])
    elif fault == "other model":
        info = MapInfo("ab" * 32, "int8", 32, (Band(1.0),))
        row = np.full((1, 32), 32**-0.5, np.float32)
        write_map(bad, info, [make_places(info, [row], np.full((1, 7), np.nan), ["x"])])
        with pytest.raises(MapError, match="another model"):
            localizer.map = PlaceMap(bad)
        opened = PlaceMap(bad, engine=localizer.engine)
        for ask in (localizer.query, localizer.add):
            with pytest.raises(MapError, match="another model"):
                ask(frames[5], map=opened)
    with pytest.raises(MapError, match=r"bad\.placemap"):
        localizer.map = bad
    assert localizer.query(frames[5]).tag == "scene 5"


def test_maps_share_one_model_also_at_once(
    localizer: Localizer, frames: Frames, tmp_path: Path
) -> None:
    floors = []
    for floor in range(3):
        path = tmp_path / f"floor{floor}.placemap"
        with MapWriter(path, localizer) as writer:
            for number, frame in enumerate(frames[4 * floor : 4 * floor + 4]):
                writer.add(frame, tag=f"floor {floor}, place {number}")
        # Opened by itself, without code to search it: the localizer's own does.
        floors.append(localizer.open_map(PlaceMap(path) if floor == 2 else path))
    localizer.k = 1.0
    wrong: list[str] = []

    def robot(floor: int) -> None:
        for _ in range(10):
            for number, frame in enumerate(frames[4 * floor : 4 * floor + 4]):
                tag = localizer.query(frame, map=floors[floor]).tag
                if tag != f"floor {floor}, place {number}":
                    wrong.append(tag)

    robots = [threading.Thread(target=robot, args=(floor,)) for floor in range(3)]
    for thread in robots:
        thread.start()
    for floor in (0, 1, 2, None):  # and the one that is set changes meanwhile
        localizer.map = None if floor is None else floors[floor]
    for thread in robots:
        thread.join()
    assert not wrong


def test_the_stand_in_for_tests_has_maps_and_releases() -> None:
    robot = FakeLocalizer([FakeLocalizer.match(1), FakeLocalizer.match(2)])
    told: list[FakeLocalizer] = []
    robot.on_stale(told.append)
    assert not robot.stale
    robot.map = robot.open_map("floor1.placemap")
    robot.query(scenes(1)[0])
    robot.query(scenes(1)[0], map="floor2.placemap")
    assert robot.maps == ["floor1.placemap", "floor2.placemap"]
    robot.stale = True
    assert robot.stale and told == [robot]
