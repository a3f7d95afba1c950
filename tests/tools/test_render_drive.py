"""tools/render_drive.py: a way around something, odometry that drifts, the shipped drive again."""

from __future__ import annotations

import importlib
import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from support.tools import lacking
from tatvpr_edge.zoo import ZOO

tool = importlib.import_module("render_drive")
paths = importlib.import_module("rendering.paths")
scene = importlib.import_module("rendering.scene")
walls = importlib.import_module("rendering.walls")


def square(low: float, high: float) -> list[tuple[float, float, float, float]]:
    corners = [(low, low), (high, low), (high, high), (low, high)]
    return [(*a, *b) for a, b in zip(corners, corners[1:] + corners[:1], strict=True)]


def around(*lines: tuple[float, float, float, float]) -> object:
    """A hall of 24 x 24 metres with a block in its middle."""
    hall = [*square(0, 768), *square(256, 512), *lines]
    return paths.Ground(walls.Walls(np.array(hall)), (96.0, 96.0), lambda cell, other: True)


class TestAWayAround:
    def test_it_leads_around_the_block_and_nowhere_else(self) -> None:
        loop = around().loop(np.random.default_rng(1), 30, 140)
        assert loop is not None
        turned = np.unwrap(np.arctan2(loop[:, 1] - 384, loop[:, 0] - 384))
        assert abs(turned[-1] - turned[0]) > 1.8 * math.pi  # all the way around the middle
        inside = (np.abs(loop - 384) < 128).all(1)
        assert not inside.any()
        steps = np.hypot(*(np.roll(loop, -1, 0) - loop).T)
        assert steps.max() <= 32 * math.sqrt(2) + 1e-9  # it closes

    def test_where_a_wall_bars_one_side_there_is_none(self) -> None:
        barred = around((512.0, 384.0, 768.0, 384.0))
        assert barred.loop(np.random.default_rng(1), 30, 140) is None

    def test_smoothing_keeps_the_loop_and_spaces_it_evenly(self) -> None:
        loop = around().loop(np.random.default_rng(1), 30, 140)
        smoothed = paths.smooth(loop, 25.6, 48.0)
        steps = np.hypot(*(np.roll(smoothed, -1, 0) - smoothed).T)
        assert steps.max() < 1.1 * steps.min() and abs(steps.mean() - 25.6) < 2
        assert np.hypot(*(smoothed.mean(0) - loop.mean(0))) < 64


class TestOdometry:
    def poses(self) -> list[object]:
        angles = np.linspace(0, math.pi, 40)
        return [
            scene.Pose(
                10 * math.cos(a), 10 * math.sin(a), 1.0, scene.wrap(math.degrees(a) + 90), 0.0
            )
            for a in angles
        ]

    def test_without_error_it_is_the_truth(self) -> None:
        truth = self.poses()
        believed = tool.dead_reckoning(truth, 1.0, 0.0, np.random.default_rng(1))
        for pose, other in zip(truth, believed, strict=True):
            assert math.dist((pose.x, pose.y), (other.x, other.y)) < 1e-6
            assert abs(scene.wrap(pose.heading - other.heading)) < 1e-6

    def test_steps_are_too_long_and_turns_unnoticed(self) -> None:
        truth = self.poses()
        believed = tool.dead_reckoning(truth, 1.1, 1.0, np.random.default_rng(1))

        def length(of: list[object]) -> float:
            at = np.array([(pose.x, pose.y) for pose in of])
            return float(np.hypot(*np.diff(at, axis=0).T).sum())

        assert length(believed) / length(truth) == pytest.approx(1.1, abs=0.01)
        drift = scene.wrap(believed[-1].heading - truth[-1].heading)
        assert drift == pytest.approx(length(truth), rel=0.1)


@pytest.mark.slow
def test_the_shipped_drive_is_rendered_again(tmp_path: Path) -> None:
    if find_spec("vizdoom") is None:
        lacking("vizdoom", "pip install 'tatvpr-edge[render]'")
    words = ["--map", "e3m5", "--seed", "4", "--output", str(tmp_path / "drive")]
    assert tool.main(words) == 0
    for name in ("poses.csv", "odometry.csv", "render.json"):
        assert (tmp_path / "drive" / name).read_text() == (ZOO / "drive" / name).read_text()


def test_a_map_that_is_none_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["--map", "nowhere", "--output", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith("error: --")
    assert list(tmp_path.iterdir()) == []
