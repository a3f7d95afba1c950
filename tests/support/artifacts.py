"""Artifacts of a tiny model, really built: fixtures for every test that runs one.

``tiny_host`` runs here, ``tiny_arm64`` (for jetson-orin-nano) under qemu-aarch64; both are of one
model, so that maps and descriptors must be the same. They are shared: copy one before harming it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

PROJECT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="session")
def build_cache() -> Iterator[Path]:
    """Objects and drift go to a cache of the test suite, never to the user's."""
    before = os.environ.get("XDG_CACHE_HOME")
    cache = PROJECT / ".pytest_cache" / "tatvpr"
    cache.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(cache)
    yield cache
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="session")
def tiny_onnx(build_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with the GeM head and the operators' bodies inside."""
    import onnx

    from support.tiny_model import TOKENS, tiny_model
    from tatvpr_edge.models.export import bodies

    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    onnx.save(tiny_model("gem", functions=bodies.bodies(TOKENS)), path)
    return path


@pytest.fixture(scope="session")
def tiny_host(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's artifact for this machine."""
    return _build("host", tiny_onnx, tmp_path_factory)


@pytest.fixture(scope="session")
def tiny_arm64(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's artifact for an aarch64 board."""
    from support.tools import require_tool

    require_tool("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu")
    return _build("jetson-orin-nano", tiny_onnx, tmp_path_factory)


def _build(board: str, model: Path, factory: pytest.TempPathFactory) -> Path:
    import tatvpr_edge

    # One worker of a run compiles the core, and the others find its objects.
    with (Path(os.environ["XDG_CACHE_HOME"]) / f"{board}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path: Path = tatvpr_edge.build(
            board, model=model, output=factory.mktemp(board) / "artifact"
        )
    return path


def scenes(count: int, height: int = 96, width: int = 128, seed: int = 7) -> NDArray[np.uint8]:
    """Frames uint8 [count, height, width, 3] that differ as places do: blobs of colour."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 6, 8, 3)).astype(np.float64)
    rows = np.linspace(0, 5, height)
    columns = np.linspace(0, 7, width)
    top, left = np.minimum(rows.astype(int), 4), np.minimum(columns.astype(int), 6)
    down, right = (rows - top)[:, None, None], (columns - left)[None, :, None]
    near = coarse[:, top][:, :, left] * (1 - down) + coarse[:, top + 1][:, :, left] * down
    far = coarse[:, top][:, :, left + 1] * (1 - down) + coarse[:, top + 1][:, :, left + 1] * down
    return np.rint(near * (1 - right) + far * right).astype(np.uint8)
