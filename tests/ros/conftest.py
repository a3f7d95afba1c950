"""A calibrated map of scenes along a line, of a tiny artifact."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from support.artifacts import scenes
from support.ros import APART_M, WAIT_S, InMemory
from tatvpr_edge.ros import Parameters, PlaceNode
from tatvpr_edge.runtime import Localizer
from tatvpr_edge.spec.calibration import Calibration
from tatvpr_edge.spec.placemap import Band, MapInfo, make_places, write_map


@pytest.fixture(scope="session")
def frames() -> NDArray[np.uint8]:
    """Eight scenes uint8 [8, 96, 128, 3]: the map's."""
    return scenes(8)


@pytest.fixture(scope="session")
def strangers() -> NDArray[np.uint8]:
    """Two scenes that the map does not know."""
    return scenes(2, seed=99)


@pytest.fixture(scope="session")
def scene_map(
    tiny_host: Path, frames: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A map of the scenes, 2 m apart along x; the last of unknown position. A match is right from a
    score of 0.99 up."""
    path = tmp_path_factory.mktemp("map") / "scenes.placemap"
    with Localizer(tiny_host, k=1.0) as localizer:
        model = localizer.artifact.manifest.model
        rows = np.stack([localizer.describe(frame) for frame in frames])
    band = Band(1.0, calibration=Calibration("score", 0.99))
    info = MapInfo(model.hash, "int8", model.descriptor_size, (band,))
    poses = np.full((len(frames), 7), np.nan)
    poses[:-1, 0] = APART_M * np.arange(len(frames) - 1)
    poses[:-1, 1] = 0.0
    tags = [f"scene {index}" for index in range(len(frames))]
    write_map(path, info, [make_places(info, [rows], poses, tags)])
    return path


@pytest.fixture
def memory() -> InMemory:
    """A transport without middleware."""
    return InMemory()


@pytest.fixture
def own_map(scene_map: Path, tmp_path: Path) -> Path:
    """A copy of the map that a test may change."""
    return Path(shutil.copy(scene_map, tmp_path / "own.placemap"))


@pytest.fixture
def made(tiny_host: Path, own_map: Path, memory: InMemory) -> Iterator[Callable[..., PlaceNode]]:
    """Makes nodes over the map; they end with the test."""
    nodes = []

    def make(**values: Any) -> PlaceNode:
        settings = {"artifact": str(tiny_host), "map": str(own_map), "k": "1.0", "stale_s": WAIT_S}
        settings |= values
        nodes.append(PlaceNode(Parameters.of(settings), memory))
        return nodes[-1]

    yield make
    for node in nodes:
        node.shutdown()
