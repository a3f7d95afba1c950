"""A place is described from several views of its frame, and a query from its frame alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import tatvpr_edge
from support.artifacts import scenes
from tatvpr_edge.cli import main
from tatvpr_edge.models.evaluate.describers import (
    ArtifactDescriber,
    Gray32,
    frames_for,
    places_of,
)
from tatvpr_edge.models.evaluate.protocols import Trial
from tatvpr_edge.models.evaluate.run import evaluate
from tatvpr_edge.runtime import CameraFrame, Localizer, MapWriter, PlaceMap
from tatvpr_edge.runtime.views import CORNER, lower_settings, mean_view, views_of
from tatvpr_edge.spec.errors import UsageError
from tatvpr_edge.spec.scores import int8_rows


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    for name, pixels in zip("abc", scenes(3), strict=True):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def stored(path: Path) -> Any:
    """The whole numbers that a map keeps of its places, int8 [N, D]."""
    place_map = PlaceMap(path)
    both = (place_map.stored.base.rows[0], place_map.stored.added.rows[0])
    return np.concatenate([rows.data for rows in both])


def expected(
    localizer: Localizer,
    pixels: np.ndarray[Any, Any],
    k: float,
    lower: tuple[tuple[float, float], ...] = ((0.2, 1.0), (0.4, 0.5)),
) -> Any:
    """By the words of the page: the frame at three settings, each corner, gray."""
    height, width = pixels.shape[:2]
    rows, columns = round(height * 0.85), round(width * 0.85)
    image = Image.fromarray(pixels)
    corners = [
        image.crop((x, y, x + columns, y + rows))
        for y in (0, height - rows)
        for x in (0, width - columns)
    ]
    total = localizer.describe(pixels, k=k, tokens=1.0)
    for low, fewer in lower:
        total = total + localizer.describe(pixels, k=low, tokens=fewer)
    for view in [*corners, image.convert("L").convert("RGB")]:
        total = total + localizer.describe(np.asarray(view), k=k, tokens=1.0)
    return total / np.linalg.norm(total)


def test_an_artifact_refuses_a_k_before_it_describes(tiny_host: Path) -> None:
    with pytest.raises(UsageError, match=r"0\.01"):
        ArtifactDescriber(tiny_host, (1.0, 0.01))


@pytest.mark.parametrize("kind", ["float of evaluation", "int8"])
def test_a_place_is_the_mean_of_its_frame_its_corners_and_gray(
    kind: str, frames: Path, tiny_host: Path, tmp_path: Path
) -> None:
    with Localizer(tiny_host) as localizer:
        for k in (1.0, 0.4):
            wanted = np.stack([expected(localizer, pixels, k) for pixels in scenes(3)])
            if kind == "int8":
                output = tmp_path / f"{k}.placemap"
                tatvpr_edge.build_map(localizer, frames, output, bands=[(k, 1.0)])
                found = stored(output) / np.linalg.norm(stored(output), axis=1)[:, None]
            else:
                images = [Image.fromarray(pixels) for pixels in scenes(3)]
                (found,) = places_of(ArtifactDescriber(tiny_host, (k,)), images, [(k, None)])
            assert (found * wanted).sum(1) == pytest.approx([1, 1, 1], abs=2e-3)


def test_one_view_is_the_frame_alone(frames: Path, tiny_host: Path, tmp_path: Path) -> None:
    with Localizer(tiny_host) as localizer:
        alone = np.stack([localizer.describe(pixels, k=1.0, tokens=1.0) for pixels in scenes(3)])
        made = tatvpr_edge.build_map(localizer, frames, tmp_path / "m", views=False)
        assert np.array_equal(stored(made.path), int8_rows(alone)[0])
        words = ["map", "build", str(frames), "--artifact", str(tiny_host), "--single-view"]
        assert main([*words, "-o", str(tmp_path / "n.placemap")]) == 0
        assert (tmp_path / "n.placemap").read_bytes() == made.path.read_bytes()
        tatvpr_edge.build_map(localizer, frames, tmp_path / "o")
        assert (tmp_path / "o").read_bytes() != made.path.read_bytes()


def test_a_board_adds_the_same_place_where_it_is_told_to(
    frames: Path, tiny_host: Path, tmp_path: Path
) -> None:
    with Localizer(tiny_host) as localizer:
        made = tatvpr_edge.build_map(localizer, frames, tmp_path / "m")
        first, second, third = scenes(3)
        opaque = np.full((*third.shape[:2], 1), 255, np.uint8)
        rgba = CameraFrame.of(np.concatenate([third, opaque], axis=2), "RGBA")
        given = [first, second[:, :, ::-1], rgba]
        with MapWriter(tmp_path / "w", localizer, views=True) as writer:
            for index, frame in enumerate(given):
                writer.add(frame, bgr=index == 1)
        assert np.array_equal(stored(tmp_path / "w"), stored(made.path))
        with MapWriter(tmp_path / "x", localizer) as writer:
            writer.add(given[0])
        (single, _) = int8_rows(localizer.describe(given[0], k=1.0, tokens=1.0)[None])
        assert np.array_equal(stored(tmp_path / "x"), single)
        with pytest.raises(UsageError, match="views"):
            MapWriter(tmp_path / "y", localizer, views="yes")  # type: ignore[arg-type]


def test_evaluation_judges_maps_of_single_views_too() -> None:
    images = [Image.fromarray(pixels) for pixels in scenes(3)]
    trial = Trial(images, images, np.eye(3, dtype=np.bool_))
    gray = Gray32()
    alone = gray.describe(frames_for(gray, images), 1.0)
    for views in (False, True):
        result = evaluate([gray], iter([trial]), timed=False, views=views)["gray32"]
        (scores,) = result.matched["float"][1.0].scores
        best = (alone @ alone.T).max(1)
        assert np.allclose(scores, best, atol=1e-5) is not views


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_every_frame_has_its_views(height: int, width: int, seed: int) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    views = views_of(rgb)
    assert len(views) == 6 and np.array_equal(views[0], rgb)
    rows, columns = max(1, round(height * CORNER)), max(1, round(width * CORNER))
    assert np.array_equal(views[1], rgb[:rows, :columns])
    assert np.array_equal(views[4], rgb[height - rows :, width - columns :])
    luma = rgb.astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(views[5][:, :, 0] - luma).max() <= 2
    assert np.array_equal(views[5][:, :, 0], views[5][:, :, 2])


def test_views_that_cancel_out_leave_the_frame() -> None:
    one = np.array([[1.0, 0.0]], np.float32)
    assert np.array_equal(mean_view([one, -one, 0 * one, 0 * one]), one)
    assert mean_view([one] * 6) == pytest.approx(one)


def test_lower_settings_stay_where_the_artifact_was_checked(
    frames: Path, tiny_onnx: Path, tmp_path: Path
) -> None:
    artifact = tatvpr_edge.build(
        "host", model=tiny_onnx, output=tmp_path / "artifact", k_range=(0.4, 1.0)
    )
    images = [Image.fromarray(pixels) for pixels in scenes(3)]
    lower = ((0.4, 1.0), (0.4, 0.5))
    with Localizer(artifact) as localizer:
        wanted = np.stack([expected(localizer, pixels, 1.0, lower) for pixels in scenes(3)])
        tatvpr_edge.build_map(localizer, frames, tmp_path / "m")
    rows = stored(tmp_path / "m") / np.linalg.norm(stored(tmp_path / "m"), axis=1)[:, None]
    (judged,) = places_of(ArtifactDescriber(artifact, (1.0,)), images, [(1.0, None)])
    for found in (rows, judged):
        assert (found * wanted).sum(1) == pytest.approx([1, 1, 1], abs=2e-3)


@given(st.floats(0.01, 1), st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_place_is_never_described_above_the_dials_of_its_map(
    k: float, tokens: float, lowest: float
) -> None:
    lowest = min(lowest, k)
    for low, fewer in lower_settings(k, tokens, lowest):
        assert lowest <= low <= k and fewer <= tokens
