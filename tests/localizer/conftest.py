"""A tiny artifact that runs here, a map of scenes, and no other artifact on the machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from support.artifacts import scenes
from tatvpr_edge.runtime import Localizer
from tatvpr_edge.spec.placemap import Band, MapInfo, make_places, write_map


@pytest.fixture(scope="session")
def frames() -> NDArray[np.uint8]:
    """Twelve scenes."""
    return scenes(12)


@pytest.fixture(scope="session")
def scene_map(
    tiny_host: Path, frames: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A map of the scenes at k = 1 and 0.2."""
    path = tmp_path_factory.mktemp("map") / "scenes.placemap"
    rows = []
    with Localizer(tiny_host) as localizer:
        model = localizer.artifact.manifest.model
        for k in (1.0, 0.2):
            localizer.k = k
            rows.append(np.stack([localizer.describe(frame) for frame in frames]))
    info = MapInfo(model.hash, "int8", model.descriptor_size, (Band(1.0), Band(0.2)))
    poses = np.full((len(frames), 7), np.nan)
    poses[1:, 0] = np.arange(1, len(frames))
    tags = [f"scene {index}" for index in range(len(frames))]
    write_map(path, info, [make_places(info, rows, poses, tags)])
    return path


@pytest.fixture
def localizer(tiny_host: Path, scene_map: Path) -> Iterator[Localizer]:
    """A Localizer over the scenes."""
    with Localizer(tiny_host, scene_map) as made:
        yield made


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build_cache: Path) -> Path:
    """No release is deployed and nothing was built; the folder stands for the user's cache."""
    monkeypatch.setenv("TATVPR_EDGE_ROOT", str(tmp_path / "deployed"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path
