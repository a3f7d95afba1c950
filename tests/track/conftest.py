"""Maps of invented scores, and code that follows paths through them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tatvpr_edge.runtime.engine import Engine
from tatvpr_edge.runtime.search import Part, Table
from tatvpr_edge.spec.artifact import read_artifact
from tatvpr_edge.spec.calibration import Calibration
from tatvpr_edge.spec.maptypes import Band, MapInfo, make_places


@pytest.fixture(scope="session")
def engine(tiny_host: Path) -> Engine:
    """Compiled code, which follows any path."""
    return Engine.of(read_artifact(tiny_host))


Tables = Callable[..., Table]


@pytest.fixture(scope="session")
def tables(engine: Engine) -> Tables:
    """Makes a table of places: ``tables(drives, xy, calibration, parts, yaw, frame)``; ``yaw`` is
    radians [places], or orientations qx qy qz qw [places, 4]."""

    def make(
        drives: np.ndarray,
        xy: np.ndarray,
        calibration: Calibration,
        parts: int = 1,
        yaw: np.ndarray | None = None,
        frame: str = "local",
    ) -> Table:
        info = MapInfo("ab" * 32, "binary", 8, (Band(1.0, 1.0, calibration),), frame)
        poses = np.full((len(drives), 7), np.nan)
        poses[:, :2] = xy
        if yaw is not None:
            half = np.asarray(yaw) / 2
            about_z = [0 * half, 0 * half, np.sin(half), np.cos(half)]
            poses[:, 3:] = yaw if yaw.ndim == 2 else np.stack(about_z, axis=1)
        cuts = np.linspace(0, len(drives), parts + 1).astype(int)
        made = []
        for first, end in itertools.pairwise(cuts):
            part = make_places(
                info,
                [np.ones((end - first, 8), np.float32)],
                poses[first:end],
                drives=drives[first:end],
                orders=np.arange(first, end),
            )
            stored = np.where(np.isnan(part.poses), 0.0, part.poses)
            made.append(Part(end - first, part.rows, stored, part.moments))
        return Table(engine, info, made)

    return make
