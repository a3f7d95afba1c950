"""A robot notices that it has been here before: by answers that agree with how it moves."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tatvpr_edge
from support.artifacts import scenes
from support.calibrated_map import calibrated_map
from support.tools import lacking
from tatvpr_edge.mapping import build_map, calibrate_map, find_poses, frame_files, read_frame
from tatvpr_edge.runtime import (
    Closure,
    FakeLocalizer,
    Localizer,
    LoopCloser,
    MapWriter,
    PlaceMap,
)
from tatvpr_edge.runtime.closures import Step
from tatvpr_edge.spec.calibration import SequenceCalibration
from tatvpr_edge.spec.errors import UsageError
from tatvpr_edge.spec.placemap import Band, MapInfo, write_map
from tatvpr_edge.zoo import ZOO

F64 = NDArray[np.float64]
DRIVE = ZOO / "drive"
RIGHT_M = 3.0
FRAME_S = 0.8


@pytest.fixture(scope="module")
def micro(build_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tatvpr_edge.build("host", output=tmp_path_factory.mktemp("micro") / "host")


@pytest.fixture(scope="module")
def judged(micro: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated map of other places."""
    path = tmp_path_factory.mktemp("judged") / "places.placemap"
    with Localizer(micro, k=1.0) as localizer:
        build_map(localizer, ZOO / "places" / "gallery", path, bands=[(1.0, 1.0)], views=False)
        calibrate_map(localizer, path, ZOO / "places" / "queries")
    return path


def empty_map(localizer: Localizer, path: Path) -> None:
    """One that grows, and accepts what it holds alone."""
    model = localizer.artifact.manifest.model
    bands = (Band.accepting(1.0, 1.0, 0.999),)
    write_map(path, MapInfo(model.hash, "int8", model.descriptor_size, bands), [])


def clocks(monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], list[float]]:
    """What ours and the wall's say from now on."""
    ours_s, clock_s = [100.0], [1.7e9]
    monkeypatch.setattr(time, "monotonic", lambda: ours_s[0])
    monkeypatch.setattr(time, "time", lambda: clock_s[0])
    return ours_s, clock_s


@dataclass(frozen=True)
class Drive:
    """The shipped drive: where odometry believes the robot is, and where it is."""

    odometry: F64
    truth: F64

    @classmethod
    def shipped(cls) -> Drive:
        files = frame_files(DRIVE)
        return cls(
            find_poses(DRIVE, files, DRIVE / "odometry.csv").values,
            find_poses(DRIVE, files).positions,
        )

    def loops(
        self,
        micro: Path,
        judged: Path,
        grown: Path,
        shown: list[int],
        odometry: F64,
    ) -> list[tuple[int, Closure]]:
        """Drive from an empty map, seeing frame ``shown[i]`` at stop i."""
        files, found = frame_files(DRIVE), []
        with Localizer(micro, k=1.0) as localizer:
            MapWriter(grown, localizer, like=judged).close()
            localizer.map = grown  # type: ignore[assignment]
            closer = LoopCloser(localizer)
            for now, seen in enumerate(shown):
                step = closer.step(
                    read_frame(files[seen].path), odometry[now], str(now), time_s=FRAME_S * now
                )
                if step.closure is not None:
                    found.append((now, step.closure))
        return found


@pytest.mark.slow
class TestTheShippedDrive:
    """A lap and a half through a rendered map that training never saw."""

    def test_its_loop_is_found_and_no_other(
        self, micro: Path, judged: Path, tmp_path: Path
    ) -> None:
        drive = Drive.shipped()
        count = len(drive.truth)
        odometry = drive.odometry
        found = drive.loops(micro, judged, tmp_path / "m.placemap", list(range(count)), odometry)
        apart = [math.dist(drive.truth[now], drive.truth[int(c.tag)]) for now, c in found]
        assert max(apart) <= RIGHT_M
        again = [
            now
            for now in range(60, count)
            if np.hypot(*(drive.truth[: now - 40] - drive.truth[now]).T).min() < RIGHT_M
        ]
        assert len({now for now, _ in found} & set(again)) >= 0.6 * len(again)
        drifts = [abs(c.drift_m - math.dist(c.then[:2], c.now[:2])) for _, c in found]
        assert max(drifts) < 1e-9 and max(c.drift_m for _, c in found) > 5

    def test_a_robot_that_sees_one_view_for_ever_closes_nothing(
        self, micro: Path, judged: Path, tmp_path: Path
    ) -> None:
        """Every answer is sure and names the same place, while the wheels turn."""
        drive = Drive.shipped()
        still = [4] * 80
        assert not drive.loops(micro, judged, tmp_path / "m.placemap", still, drive.odometry)

    def test_answers_that_move_another_way_than_the_robot_close_nothing(
        self, micro: Path, judged: Path, tmp_path: Path
    ) -> None:
        """The second lap is seen as it was, while odometry says that the robot drives straight."""
        drive = Drive.shipped()
        odometry = drive.odometry.copy()
        odometry[120:] = odometry[120]
        odometry[120:, 0] += 3.0 * np.arange(len(odometry) - 120)
        order = list(range(len(odometry)))
        assert not drive.loops(micro, judged, tmp_path / "m.placemap", order, odometry)

    def test_the_example_refuses_in_one_line_and_can_be_run_again(
        self, project_root: Path, tmp_path: Path
    ) -> None:
        try:
            import gtsam  # noqa: F401
        except ImportError:
            lacking("gtsam", "pip install 'tatvpr-edge[slam]'")
        script = project_root / "examples" / "close_loops.py"
        (tmp_path / "file").write_text("")
        for output, words in (
            (tmp_path / "loops", "is not an artifact"),
            (tmp_path / "loops", "is not an artifact"),  # what the first run made is in no way
            (tmp_path / "file", "name a new folder"),
            (tmp_path / "file" / "loops", "Not a directory"),
        ):
            done = subprocess.run(
                [sys.executable, str(script), str(tmp_path / "nowhere"), str(output)],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "MPLCONFIGDIR": str(tmp_path / "mpl")},
            )
            assert done.returncode == 1 and words in done.stderr
            assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1

    def test_the_example_with_gtsam_corrects_the_path(
        self, micro: Path, project_root: Path, tmp_path: Path
    ) -> None:
        try:
            import gtsam  # noqa: F401
        except ImportError:
            lacking("gtsam", "pip install 'tatvpr-edge[slam]'")
        out = tmp_path / "loops"
        script = project_root / "examples" / "close_loops.py"
        done = subprocess.run(
            [sys.executable, str(script), str(micro), str(out)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "MPLCONFIGDIR": str(tmp_path / "mpl")},
        )
        assert done.returncode == 0, done.stderr
        paths = {
            name: np.loadtxt(out / f"{name}.tum") for name in ("truth", "odometry", "corrected")
        }
        assert {path.shape for path in paths.values()} == {(len(frame_files(DRIVE)), 8)}

        def rms(name: str) -> float:
            off = paths[name][:, 1:3] - paths["truth"][:, 1:3]
            return float(np.sqrt((off**2).sum(1).mean()))

        assert rms("odometry") > 5 and rms("corrected") < 0.25 * rms("odometry")
        assert f"{rms('corrected'):.2f} m with loops" in done.stdout
        assert (out / "loops.png").read_bytes().startswith(b"\x89PNG")


def test_a_place_without_a_heading_closes_no_loop_and_ends_no_drive(
    tiny_host: Path, tmp_path: Path
) -> None:
    """A map of positions alone, which a robot with odometry goes on with."""
    frame, path = scenes(1)[0], tmp_path / "m.placemap"
    with Localizer(tiny_host, k=1.0) as localizer:
        model = localizer.artifact.manifest.model
        bands = (Band.accepting(1.0, 1.0, 0.5),)
        write_map(path, MapInfo(model.hash, "int8", model.descriptor_size, bands), [])
        with MapWriter(path, localizer) as writer:
            writer.add(frame, (0.0, 0.0))
        localizer.map = path  # type: ignore[assignment]
        closer = LoopCloser(localizer, exclude_last=0)
        step = closer.step(frame, (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0))
        assert step.match is not None and step.match.accepted and step.match.place == 0
        assert step.closure is None and step.addition.place == 1


@pytest.mark.parametrize(
    ("rules", "scale", "answers"),
    [
        ({"agree": 3, "baseline_m": 8.0}, 1.0, [0, 0, 3, 4, 5, 6, 6, 6]),  # window: 20 m back
        ({"agree": 2, "baseline_m": 12.0}, 1.0, [0, 0, 0, 4, 5, 6, 6, 6]),
        ({"agree": 5, "baseline_m": 4.0}, 1.0, [0, 0, 0, 0, 5, 6, 6, 6]),
        ({"agree": 3, "baseline_m": 8.0, "tolerance_share": 0.15}, 1.15, [0, 0, 3, 4, 5, 5, 5, 5]),
        ({"agree": 3, "baseline_m": 8.0, "tolerance_share": 0.05}, 1.15, 8 * [0]),
    ],
)
def test_a_second_lap_closes_loops_by_the_rules_that_were_given(
    tiny_host: Path, tmp_path: Path, rules: dict[str, Any], scale: float, answers: list[int]
) -> None:
    """Places stand 4 m apart; the second lap is driven 5 m beside them, as odometry has it."""
    frames, path = scenes(8), tmp_path / "m.placemap"
    with Localizer(tiny_host, k=1.0) as localizer:
        empty_map(localizer, path)
        localizer.map = path  # type: ignore[assignment]
        options = {"window_m": 20.1, "tolerance_m": 0.1, "tolerance_share": 0.0, **rules}
        closer = LoopCloser(localizer, exclude_last=0, **options)

        def lap(y: float, scale: float) -> list[Closure | None]:
            ways = [4.0 * scale * at for at in range(len(frames))]
            steps = [
                closer.step(frame, (x, y, 0.0, 0.0, 0.0, 0.0, 1.0), f"{x:g}")
                for frame, x in zip(frames, ways, strict=True)
            ]
            return [step.closure for step in steps]

        assert lap(0.0, 1.0) == 8 * [None]
        found = lap(5.0, scale)
    assert [0 if one is None else one.answers for one in found] == answers
    for at, one in enumerate(found):
        if one is not None:
            assert (one.place, one.tag, one.then) == (at, f"{4 * at}", (4.0 * at, 0.0, 0.0))
            assert one.drift_m == pytest.approx(math.hypot(5.0, 4.0 * (scale - 1) * at))


def test_what_a_robot_is_answered_while_it_stands_is_one_answer(
    tiny_host: Path, tmp_path: Path
) -> None:
    """Each frame at a red light agreed with the last, and noise of odometry was taken for driving:
    a loop was closed without a metre, and each frame of an hour was held and compared."""
    frames, path = scenes(4), tmp_path / "m.placemap"
    with Localizer(tiny_host, k=1.0) as localizer:
        empty_map(localizer, path)
        with MapWriter(path, localizer) as writer:
            for at, frame in enumerate(frames):
                writer.add(frame, (4.0 * at, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0))
        localizer.map = path  # type: ignore[assignment]
        closer = LoopCloser(
            localizer, exclude_last=0, agree=3, baseline_m=1.0, window_m=20.0, novelty=0.9
        )
        stops = [(at, noise) for at in range(4) for noise in 10 * (0.03, -0.03)]
        closures = [
            closer.step(frames[at], (4.0 * at + noise, 5.0, 0.0, 0.0, 0.0, 0.0, 1.0)).closure
            for at, noise in stops
        ]
    said = [one and (one.place, one.answers) for one in closures]
    assert said == 40 * [None] + 20 * [(2, 3)] + 20 * [(3, 4)]


@pytest.mark.parametrize("set_s", [-3600.0, 3600.0])
@pytest.mark.parametrize("live", [True, False])
def test_where_the_clock_is_set_what_was_just_driven_is_left_out_all_the_same(
    tiny_host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_s: float, live: bool
) -> None:
    """By the clock that was an hour ago, or will be in an hour, and closed loops."""
    frames, path = scenes(4), tmp_path / "m.placemap"
    ours_s, clock_s = clocks(monkeypatch)
    with Localizer(tiny_host, k=1.0) as localizer:
        empty_map(localizer, path)
        localizer.map = path  # type: ignore[assignment]
        closer = LoopCloser(localizer, window_m=8.0)

        def step(at: int, x: float, passed_s: float) -> int | None:
            ours_s[0] += passed_s
            clock_s[0] += passed_s
            pose = (x, *(0.0,) * 5, 1.0)
            match = closer.step(frames[at], pose, time_s=None if live else clock_s[0]).match
            return match and match.place

        assert step(0, 0.0, 1.0) is None
        assert [step(0, 0.01, 5.0), step(1, 6.0, 5.0)] == [-1, -1]
        clock_s[0] += set_s
        assert step(0, 12.0, 5.0) == -1
        if live or set_s < 0:  # a recording whose time leaps may have been halted
            assert step(0, 18.0, 9.0) == -1
        assert step(1, 30.0, 29.0) == step(1, 45.0, 29.0) == 2
        assert step(0, 60.0, 29.0) == 0


def test_frames_with_and_without_a_time_are_one_drive(
    tiny_host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No time passed between them, so that all of the way was just driven, and no loop closed."""
    frames, path = scenes(4), tmp_path / "m.placemap"
    ours_s, clock_s = clocks(monkeypatch)
    with Localizer(tiny_host, k=1.0) as localizer:
        empty_map(localizer, path)
        localizer.map = path  # type: ignore[assignment]
        closer = LoopCloser(localizer, window_m=8.0)
        found = []
        for at in range(7):
            ours_s[0] += 10.0
            clock_s[0] += 10.0
            time_s = clock_s[0] - 0.1 if at % 2 else None
            pose = (10.0 * at, *(0.0,) * 5, 1.0)
            found.append(closer.step(frames[min(at, 3) % 3], pose, time_s=time_s).match)
    assert [match and match.place for match in found] == [None, -1, -1, -1, 0, 0, 0]


@pytest.mark.parametrize(
    ("height_m", "z", "closes"),
    [(None, 30.0, True), (2.0, 30.0, False), (2.0, 1.5, True), (2.0, math.nan, True)],
)
def test_a_drone_above_its_old_way_closes_a_loop_only_where_heights_are_not_heeded(
    tiny_host: Path, tmp_path: Path, height_m: float | None, z: float, closes: bool
) -> None:
    frames, path = scenes(6), tmp_path / "m.placemap"
    with Localizer(tiny_host, k=1.0) as localizer:
        empty_map(localizer, path)
        localizer.map = path  # type: ignore[assignment]
        closer = LoopCloser(localizer, exclude_last=0, agree=3, height_m=height_m)
        closed = [
            closer.step(frame, (3.0 * at, y, height, 0.0, 0.0, 0.0, 1.0)).closure
            for y, height in ((0.0, 40.0), (2.0, 40.0 + z))
            for at, frame in enumerate(frames)
        ]
    assert (closed[-1] is not None) is closes


def test_a_small_robot_closes_loops_of_centimetres(tiny_host: Path, tmp_path: Path) -> None:
    frames, path = scenes(11), tmp_path / "m.placemap"
    with Localizer(tiny_host, k=1.0) as localizer:
        empty_map(localizer, path)
        localizer.map = path  # type: ignore[assignment]
        closer = LoopCloser(
            localizer, exclude_last=0, agree=8, baseline_m=0.42, window_m=0.7, tolerance_m=0.01
        )
        closed = [
            closer.step(frame, (0.05 * at, y, 0.0, 0.0, 0.0, 0.0, 1.0)).closure is not None
            for y in (0.0, 1.0)
            for at, frame in enumerate(frames)
        ]
    assert closed == 20 * [False] + 2 * [True]


def test_what_a_closer_was_given_reaches_the_query_and_the_map(
    tiny_host: Path, tmp_path: Path
) -> None:
    frames, path = scenes(4), tmp_path / "m.placemap"
    mirrored = frames[..., ::-1]
    with Localizer(tiny_host, k=1.0) as localizer:
        empty_map(localizer, path)
        localizer.map = path  # type: ignore[assignment]

        def step(at: int, x: float, tag: str = "", more: Any = None, **given: Any) -> Step:
            made = LoopCloser(localizer, **(more or {}))
            return made.step(frames[at], (x, *(0.0,) * 5, 1.0), tag, **given)

        first = LoopCloser(localizer).step(mirrored[0], (0.0,) * 6 + (1.0,), time_s=1e3, bgr=True)
        assert first.match is None and first.addition.place == 0
        for seconds, place in ((10, -1), (40, 0)):
            novel = step(0, 0.0, more={"novelty": 0.999}, time_s=1e3 + seconds)
            assert novel.match is not None and novel.match.place == place
            assert novel.addition.place is None and len(localizer.map) == 1
        seen = LoopCloser(localizer).step(mirrored[0], (0.0,) * 6 + (1.0,), time_s=2e3, bgr=True)
        assert seen.match is not None and seen.match.accepted
        later = step(0, 0.0, more={"exclude_last": 2}, time_s=3e3)
        assert later.match is not None and later.match.place == -1
        elsewhere = {"novelty": 0.999, "novelty_m": 1.0}
        assert step(0, 50.0, more=elsewhere).addition.place == 3
        assert step(1, 50.0, more={"max_places": 3}).addition.dropped == 2
        full = step(2, 60.0, tag=65535 * "t", more={"max_bytes": 1 << 16})
        assert full.addition.place is None and "full" in (full.addition.reason or "")


class TestWhatIsRefused:
    def test_a_map_that_judges_no_sequences(self, tiny_host: Path, tmp_path: Path) -> None:
        """It was taken, and no loop was ever closed."""
        info = calibrated_map(tiny_host, tmp_path / "m.placemap")
        with (
            Localizer(tiny_host, tmp_path / "m.placemap", sequence=3) as localizer,
            pytest.raises(UsageError, match=r"no sequences of 3 .* DRIVE --sequence 3`"),
        ):
            LoopCloser(localizer)
        (band,) = info.bands
        judged = SequenceCalibration(3, 0.5, (-9.0, 9.0, 9.0, 9.0, 9.0, 0.0))
        assert band.calibration is not None
        bands = (replace(band, calibration=replace(band.calibration, sequence=judged)),)
        write_map(tmp_path / "m.placemap", replace(info, bands=bands), [])
        for frames in (1, 3):
            with Localizer(tiny_host, tmp_path / "m.placemap", sequence=frames) as localizer:
                LoopCloser(localizer)
        fake = FakeLocalizer()
        fake.map = PlaceMap(tmp_path / "m.placemap")
        LoopCloser(fake)  # type: ignore[arg-type]

    def test_a_map_of_degrees(self, tiny_host: Path, tmp_path: Path) -> None:
        info = calibrated_map(tiny_host, tmp_path / "m.placemap")
        write_map(tmp_path / "m.placemap", replace(info, pose_frame="geographic"), [])
        with (
            Localizer(tiny_host, tmp_path / "m.placemap") as localizer,
            pytest.raises(UsageError, match="of degrees, and loops are closed in metres"),
        ):
            LoopCloser(localizer)

    def test_a_map_that_is_not_calibrated(self, tiny_host: Path, tmp_path: Path) -> None:
        with Localizer(tiny_host) as localizer:
            with pytest.raises(UsageError, match="calibrated"):
                LoopCloser(localizer)
            MapWriter(tmp_path / "m.placemap", localizer).close()
            localizer.map = tmp_path / "m.placemap"  # type: ignore[assignment]
            with pytest.raises(UsageError, match="like=CALIBRATED"):
                LoopCloser(localizer)

    @pytest.mark.parametrize(
        "options",
        [
            {"agree": 1},
            {"baseline_m": 9.0},
            {"window_m": math.inf},
            {"tolerance_m": -1.0},
            {"tolerance_share": 1.0},
            {"height_m": 0.0},
        ],
    )
    def test_settings_that_mean_nothing(
        self, tiny_host: Path, tmp_path: Path, options: dict[str, float]
    ) -> None:
        calibrated_map(tiny_host, tmp_path / "m.placemap")
        with Localizer(tiny_host, tmp_path / "m.placemap") as localizer:
            LoopCloser(localizer)
            with pytest.raises(UsageError):
                LoopCloser(localizer, **options)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "pose",
        [(1.0, 2.0), (1.0, 2.0, 0.0, 0.0, 0.0, 0.0, math.nan), None, (1.0, 2.0, *(0.0,) * 5)],
    )
    def test_a_pose_without_a_heading(self, tiny_host: Path, tmp_path: Path, pose: Any) -> None:
        calibrated_map(tiny_host, tmp_path / "m.placemap")
        with Localizer(tiny_host, tmp_path / "m.placemap") as localizer:
            with pytest.raises(UsageError, match="heading"):
                LoopCloser(localizer).step(scenes(1)[0], pose)
            assert localizer.map is not None and len(localizer.map) == 0
