"""``LoopCloser`` on odd drives: a full disk, odometry that jumps, slow robots."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.artifacts import scenes
from tatvpr_edge.runtime import Closure, Localizer, LoopCloser
from tatvpr_edge.spec.errors import MapError, UsageError
from tatvpr_edge.spec.placemap import Band, MapInfo, write_map


@pytest.fixture
def closing(tiny_host: Path, tmp_path: Path) -> Iterator[Localizer]:
    """With an empty map that judges its answers."""
    path = tmp_path / "m.placemap"
    with Localizer(tiny_host, k=1.0) as localizer:
        model = localizer.artifact.manifest.model
        bands = (Band.accepting(1.0, 1.0, 0.999),)
        write_map(path, MapInfo(model.hash, "int8", model.descriptor_size, bands), [])
        localizer.map = path  # type: ignore[assignment]
        yield localizer


def at(x: float, y: float = 0.0) -> tuple[float, ...]:
    return (x, y, 0.0, 0.0, 0.0, 0.0, 1.0)


def test_a_loop_is_told_where_the_disk_is_full_and_then_that_it_is(closing: Localizer) -> None:
    """The frame that found it was not added, and the loop was lost with the error of that."""
    frames = scenes(6)
    closer = LoopCloser(closing, exclude_last=0, agree=2, baseline_m=4.0, window_m=20.0)
    for metre, frame in enumerate(frames):
        assert closer.step(frame, at(4.0 * metre)).closure is None
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))  # no file takes a byte more
    try:
        with pytest.raises(MapError, match="File too large"):
            closer.step(frames[1], at(4.0, 5.0))  # one answer closes nothing
        step = closer.step(frames[2], at(8.0, 5.0))
        with pytest.raises(MapError, match="File too large"):
            closer.step(frames[0], at(30.0, 5.0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert step.closure is not None and step.closure.place == 2
    assert step.addition.place is None and "File too large" in (step.addition.reason or "")
    assert closing.map is not None and len(closing.map) == len(frames)


def test_a_pose_that_no_map_takes_ends_no_drive(closing: Localizer) -> None:
    """The way to it was counted: metres were lost in 1e300, and no loop was closed ever after."""
    frames = scenes(6)
    closer = LoopCloser(closing, exclude_last=0, agree=2, baseline_m=4.0, window_m=20.0)
    for metre, frame in enumerate(frames):
        closer.step(frame, at(4.0 * metre))
    with pytest.raises(MapError, match="metres, or NaN"):
        closer.step(frames[0], at(1e300))
    found = [closer.step(frames[n], at(4.0 * n, 5.0)).closure for n in range(4)]
    assert [one is not None for one in found] == [False, True, True, True]


def test_what_a_slow_robot_saw_a_minute_ago_is_the_way_just_driven(closing: Localizer) -> None:
    """At 5 cm a second, what was seen 30 s ago is 1.5 m behind and looks alike: it closed a loop
    with it at every frame."""
    frames = scenes(10)
    closer = LoopCloser(closing, agree=2, baseline_m=1.0, window_m=4.0)

    def lap(y: float, begins_s: float) -> list[Closure | None]:
        """Each place is seen twice, half a metre and 40 s apart."""
        steps = [
            closer.step(frame, at(metre + later, y), time_s=begins_s + 80 * metre + 80 * later)
            for metre, frame in enumerate(frames)
            for later in (0.0, 0.5)
        ]
        return [step.closure for step in steps]

    assert lap(0.0, 1e6) == 20 * [None]
    found = lap(30.0, 1e6 + 1e4)
    assert all(one is not None for one in found[4:])
    assert {one.then[1] for one in found if one is not None} == {0.0}


def test_to_and_fro_on_the_spot_is_no_driving(closing: Localizer) -> None:
    """One view for ever agrees with movements within the tolerance, however long their way is."""
    frame = scenes(1)[0]
    closer = LoopCloser(closing, exclude_last=0, novelty=0.999)
    closer.step(frame, at(0.0))
    steps = [closer.step(frame, at(20.0 + 0.4 * (n % 2))) for n in range(40)]
    assert all(one.match is not None and one.match.accepted for one in steps)
    assert [one.closure for one in steps] == 40 * [None]


def test_a_tolerance_that_every_answer_meets(closing: Localizer) -> None:
    for metres, share in ((7.0, 0.15), (0.8, 0.9)):
        with pytest.raises(UsageError, match=r"tolerance_m=.*would agree with every"):
            LoopCloser(closing, tolerance_m=metres, tolerance_share=share)
    LoopCloser(closing, tolerance_m=7.0, window_m=9.0)
