"""Small maps with random descriptors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from support.artifacts import scenes
from support.maps import info_of
from tatvpr_edge.runtime import Localizer, MapWriter
from tatvpr_edge.runtime.engine import Engine
from tatvpr_edge.runtime.mapjournal import append
from tatvpr_edge.spec.artifact import read_artifact
from tatvpr_edge.spec.placemap import MapInfo, Places, make_places, write_map


@pytest.fixture(scope="session")
def engine(tiny_host: Path) -> Engine:
    """Compiled code, which searches any map."""
    return Engine.of(read_artifact(tiny_host))


@pytest.fixture(scope="session")
def some() -> Callable[..., Places]:
    """Makes random places: ``some(info, count, seed)``."""

    def make(info: MapInfo, count: int, seed: int = 0) -> Places:
        rng = np.random.default_rng(seed)
        rows = [rng.standard_normal((count, info.dim)).astype(np.float32) for _ in info.bands]
        poses = rng.standard_normal((count, 7))
        poses[:, 3:] /= np.linalg.norm(poses[:, 3:], axis=1, keepdims=True)
        poses[:: max(count // 2, 1), 2:] = np.nan
        return make_places(info, rows, poses, [f"plaça {seed}/{i}" for i in range(count)])

    return make


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint8]:
    return scenes(8)


@pytest.fixture
def robot(tiny_host: Path, tmp_path: Path) -> Localizer:
    """A localizer at k = 1 whose map has no places yet."""
    localizer = Localizer(tiny_host, k=1.0, tokens=1.0)
    MapWriter(tmp_path / "drive.placemap", localizer).close()
    localizer.map = tmp_path / "drive.placemap"
    return localizer


@pytest.fixture(params=["int8", "binary", "weighed"])
def grown(request: pytest.FixtureRequest, tmp_path: Path, some: Callable[..., Places]) -> Path:
    """A base of 3 places and a journal of 2 + 1."""
    info = info_of(request.param)
    path = tmp_path / "m.placemap"
    write_map(path, info, [some(info, 3)])
    append(path, some(info, 2, 1))
    append(path, some(info, 1, 2))
    return path
