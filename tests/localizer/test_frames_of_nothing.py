"""A lens cap is no place: such frames are never accepted, say why, and end no loop."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from support.artifacts import scenes
from support.frame_formats import in_format
from tatvpr_edge.runtime import CameraFrame, FakeLocalizer, Localizer, MapWriter, PlaceMap
from tatvpr_edge.runtime.mapjournal import rewrite
from tatvpr_edge.spec.calibration import Calibration
from tatvpr_edge.spec.errors import FrameError
from tatvpr_edge.spec.formats import FORMATS
from tatvpr_edge.spec.maptypes import calibrated

U8 = NDArray[np.uint8]


def gray(levels: NDArray[np.float64]) -> U8:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def noise(level: float, sigma: float, height: int = 240, width: int = 320) -> U8:
    return gray(np.random.default_rng(1).normal(level, sigma, (height, width, 3)))


def glow() -> U8:
    """Light around a finger on the lens, with noise."""
    y, x = np.mgrid[-1:1:240j, -1:1:320j]
    levels = 20 + 60 * np.hypot(x - 0.3, y)[..., None]
    return gray(levels + np.random.default_rng(2).normal(0, 8, (240, 320, 3)))


NOTHING = {
    "black": np.zeros((240, 320, 3), np.uint8),
    "white": np.full((240, 320, 3), 255, np.uint8),
    "gray, one plane": np.full((240, 320), 128, np.uint8),
    "one pixel": np.full((1, 1, 3), 90, np.uint8),
    "noise in the dark": noise(8, 10),
    "noise": noise(128, 16),
    "glow": glow(),
}


@pytest.fixture
def sure(scene_map: Path, tmp_path: Path) -> Path:
    """The map of the scenes, calibrated so that it accepts whatever is asked."""
    path = tmp_path / "sure.placemap"
    shutil.copy(scene_map, path)
    gullible = Calibration("logistic", -100.0, (0.0, 1.0, 1.0), elsewhere_places=1, precision=0.95)
    rewrite(path, lambda stored: (calibrated(stored.base.info, [gullible] * 2), [_all(stored)]))
    return path


def _all(stored):  # type: ignore[no-untyped-def]
    return stored.base.places()


@pytest.mark.parametrize("name", NOTHING)
def test_a_frame_of_nothing_is_never_accepted(name: str, tiny_host: Path, sure: Path) -> None:
    with Localizer(tiny_host, sure) as localizer:
        match = localizer.query(NOTHING[name])
    assert match.accepted is False
    assert match.reason is not None and "shows no structure" in match.reason


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_every_camera_format_is_looked_at(pixel_format: str, tiny_host: Path, sure: Path) -> None:
    luma = np.ascontiguousarray(scenes(1)[0][:, :, 1])
    height, width = luma.shape
    flat = np.full_like(luma, 90)
    with Localizer(tiny_host, sure) as localizer:
        seen, blank = (
            localizer.query(CameraFrame(in_format(one, pixel_format), pixel_format, width, height))
            for one in (luma, flat)
        )
    assert seen.accepted is True and seen.reason is None
    assert blank.accepted is False and blank.reason is not None


def test_places_are_frames_of_something(tiny_host: Path, sure: Path, frames: U8) -> None:
    with Localizer(tiny_host, sure) as localizer:
        matches = [localizer.query(frame) for frame in frames]
    assert all(match.accepted and match.reason is None for match in matches)


@pytest.mark.parametrize("name", NOTHING)
def test_a_frame_of_nothing_becomes_no_place(name: str, tiny_host: Path, tmp_path: Path) -> None:
    path = tmp_path / "drive.placemap"
    with Localizer(tiny_host, k=1.0) as robot, MapWriter(path, robot) as writer:
        with pytest.raises(FrameError, match="shows no structure"):
            writer.add(NOTHING[name])
        robot.map = path
        refused = robot.add(NOTHING[name])
        assert refused.place is None and "shows no structure" in str(refused.reason)
        writer.add(scenes(1)[0])
        robot.map = path
        # Its description is at hand, and it is no place all the same.
        again = robot.add(NOTHING[name], match=robot.query(NOTHING[name]))
        assert again.place is None and again.reason == refused.reason
        assert robot.add(robot.describe(NOTHING[name])).place == 1  # a descriptor shows no pixels
    assert len(PlaceMap(path)) == 2


@pytest.mark.parametrize(
    ("precision", "recall", "told"),
    [
        (0.95, 0.1, "too unsure for the map's precision of 95 %"),
        (0.999, 0.1, "too unsure for the map's precision of 99.9 %"),
        (0.95, 0.0, "nothing reaches the map's precision of 95 %: calibrate it"),
    ],
)
def test_what_is_too_unsure_says_so(
    precision: float, recall: float, told: str, tiny_host: Path, scene_map: Path, tmp_path: Path
) -> None:
    path = tmp_path / "m.placemap"
    shutil.copy(scene_map, path)
    strict = Calibration(
        "logistic",
        100.0,
        (0.0, 1.0, 1.0),
        0.0,
        elsewhere_places=1,
        precision=precision,
        recall=recall,
    )
    rewrite(path, lambda stored: (calibrated(stored.base.info, [strict] * 2), [_all(stored)]))
    with Localizer(tiny_host, path) as localizer:
        match = localizer.query(scenes(1)[0])
        nowhere = localizer.query(scenes(1)[0], exclude_last=1000)
    assert match.accepted is False and match.confidence is not None
    assert match.reason is not None and match.reason.startswith(told)
    assert (nowhere.place, nowhere.accepted, nowhere.reason) == (
        *(-1, False, "every place was left out"),
    )


def test_an_uncalibrated_map_says_once_how_to_calibrate_it(
    localizer: Localizer, frames: U8, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "tatvpr_edge"):
        matches = [localizer.query(frame) for frame in frames[:3]]
    assert [match.accepted for match in matches] == [None] * 3
    said = [r.getMessage() for r in caplog.records if "not calibrated" in r.getMessage()]
    assert len(said) == 1 and "tatvpr-edge map calibrate" in said[0]


def test_a_calibrated_map_says_nothing(
    tiny_host: Path, sure: Path, frames: U8, caplog: pytest.LogCaptureFixture
) -> None:
    with Localizer(tiny_host, sure) as localizer:
        localizer.query(frames[0])
    assert not [r for r in caplog.records if "calibrat" in r.getMessage()]


def test_the_stand_in_gives_the_same_fields() -> None:
    told = FakeLocalizer.match(3, accepted=False, confidence=0.4, margin=0.1, reason="too unsure")
    with FakeLocalizer([told, FakeLocalizer.match()]) as fake:
        assert fake.query(NOTHING["black"]) == told
        plain = fake.query(NOTHING["black"])
    assert (plain.accepted, plain.confidence, plain.margin, plain.reason) == (None,) * 4
