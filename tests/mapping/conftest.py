"""A walk along a wall, and a map of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from support.walks import walk
from tatvpr_edge.mapping import build_map
from tatvpr_edge.runtime import Localizer


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty frames along a wall, half a metre apart."""
    folder = tmp_path_factory.mktemp("walk")
    for index, frame in enumerate(walk(60, 5)):
        Image.fromarray(frame).save(folder / f"{index:03}.png")
    rows = [f"{index:03}.png,{index / 2},0" for index in range(60)]
    (folder / "poses.csv").write_text("\n".join(["name,x,y", *rows]))
    return folder


@pytest.fixture
def walked(tiny_host: Path, frames: Path, tmp_path: Path) -> Path:
    """A map of them, not calibrated."""
    path = tmp_path / "m.placemap"
    with Localizer(tiny_host) as localizer:
        build_map(localizer, frames, path)
    return path
