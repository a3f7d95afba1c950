"""How much structure a frame has is what the slow sums in NumPy say, in every format and size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.frame_formats import in_format
from support.structure_reference import structure_of
from tatvpr_edge.runtime import CameraFrame
from tatvpr_edge.runtime.engine import Engine
from tatvpr_edge.runtime.frame import check_frame
from tatvpr_edge.runtime.structure import LEAST_STRUCTURE, structure, without_structure
from tatvpr_edge.spec.artifact import read_artifact
from tatvpr_edge.spec.formats import FORMATS


@pytest.fixture(scope="module")
def engine(tiny_host: Path) -> Engine:
    return Engine.of(read_artifact(tiny_host))


@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    contrast=st.floats(0, 1),
)
def test_equals_the_reference(
    engine: Engine, seed: int, height: int, width: int, contrast: float
) -> None:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (7, 9))[np.arange(height) % 7][:, np.arange(width) // 31 % 9]
    luma = (coarse * contrast + rng.integers(0, 2, coarse.shape)).clip(0, 255).astype(np.uint8)
    found = structure(engine, check_frame(luma))
    assert found == pytest.approx(structure_of(luma), rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_of_every_format(engine: Engine, pixel_format: str) -> None:
    luma = np.random.default_rng(4).integers(0, 64, (48, 64)).astype(np.uint8) * 4
    frame = CameraFrame(in_format(luma, pixel_format), pixel_format, 64, 48)
    assert structure(engine, frame) == pytest.approx(structure_of(luma), rel=1e-5)


def test_rows_may_lie_anywhere(engine: Engine) -> None:
    luma = np.random.default_rng(5).integers(0, 256, (90, 120)).astype(np.uint8)
    upside_down, crop = luma[::-1], luma[10:70, 20:100]
    for seen in (upside_down, crop):
        expected = structure_of(np.ascontiguousarray(seen))
        assert structure(engine, check_frame(seen)) == pytest.approx(expected, rel=1e-5)


def test_the_limit_is_the_one_of_the_header() -> None:
    header = Path(__file__).parents[2] / "runtime" / "core" / "include" / "tatvpr.h"
    assert f"#define TATVPR_LEAST_STRUCTURE {LEAST_STRUCTURE}f" in header.read_text()


def test_a_frame_just_below_the_limit_is_not_said_to_reach_it(engine: Engine) -> None:
    """It read "3.0 gray levels, 3 are needed"."""
    coarse = np.random.default_rng(6).random((12, 16)).repeat(10, 0).repeat(10, 1)
    frames = (check_frame((coarse * peak).astype(np.uint8)) for peak in np.arange(5, 30, 0.05))
    below = next(f for f in frames if 2.95 <= structure(engine, f) < LEAST_STRUCTURE)
    said = without_structure(engine, below)
    assert said is not None and "(2.9 gray levels, 3 are needed)" in said
