"""Small maps with random descriptors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tatvpr_edge.spec.placemap import MapInfo, Places, make_places


@pytest.fixture
def some() -> Callable[..., Places]:
    """Makes random places: ``some(info, count, seed)``."""

    def make(info: MapInfo, count: int, seed: int = 0) -> Places:
        rng = np.random.default_rng(seed)
        rows = [rng.standard_normal((count, info.dim)).astype(np.float32) for _ in info.bands]
        poses = rng.standard_normal((count, 7))
        poses[:: max(count // 2, 1), 2:] = np.nan
        return make_places(info, rows, poses, [f"plaça {seed}/{i}" for i in range(count)])

    return make
