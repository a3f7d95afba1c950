"""Frames that say nothing new are no evidence: a camera that stands, or hardly moves."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.path_reference import Reference
from support.paths import HELD, judging, line, seen_at
from tatvpr_edge.runtime.engine import Engine
from tatvpr_edge.runtime.search import Table
from tatvpr_edge.runtime.tracking import Path, Tracked, _Step, _Track, _Tracked
from tatvpr_edge.spec.calibration import Calibration, SequenceCalibration
from tatvpr_edge.spec.errors import ArtifactError
from tatvpr_edge.spec.maptypes import Band

Tables = Callable[..., Table]
ERR_ABI = 2

ALWAYS = SequenceCalibration(3, 0.0, (1.0, 0.0, 0.0, 0.0, 0.0, 0.0), 0.95, 0.3)
#: Every sequence of three is accepted, no single frame is.
THREE = Calibration("logistic", 0.0, (-1.0, 0.0, 0.0), 5.0, 0, 0.95, 0.1, ALWAYS)


def view(place: float, seed: int | None = None) -> np.ndarray:
    """The descriptor float32 [8] of what is seen there, with a little noise of its own."""
    noise = 0 if seed is None else np.random.default_rng(seed).normal(0, 0.01, 8)
    turns = np.arange(1, 5) * 0.3 * place
    return (np.concatenate([np.cos(turns), np.sin(turns)]) / 2 + noise).astype(np.float32)


class Camera:
    """A path through places a metre apart."""

    def __init__(
        self, engine: Engine, tables: Tables, calibration: Calibration = THREE, count: int = 60
    ) -> None:
        assert calibration.sequence is not None
        self.path = Path(engine, calibration.sequence.frames)
        self.table = tables(*line(count), calibration, 1, np.zeros(count))
        self.bands, self.count = [Band(1.0, 1.0, calibration)], count

    def see(
        self,
        place: float,
        descriptor: np.ndarray | None = None,
        moved: tuple[float | None, float | None] = (None, None),
        k: float = 1.0,
        scores: np.ndarray | None = None,
    ) -> Tracked:
        """One frame; the descriptor is that of the place where none is given."""
        scores = seen_at(place, self.count) if scores is None else scores
        shown = view(place) if descriptor is None else descriptor
        metres, turned = moved
        return self.path.step(
            HELD, self.table, self.bands, 0, scores, metres, None, turned, k, 1.0, shown
        )

    def stand(self, place: float, frames: int = 30) -> list[Tracked]:
        """So many frames of one view, each with its own noise."""
        return [self.see(place, view(place, seed)) for seed in range(frames)]


@pytest.fixture
def camera(engine: Engine, tables: Tables) -> Camera:
    """A camera that was just switched on."""
    return Camera(engine, tables)


def counted(told: Sequence[Tracked]) -> list[bool]:
    """Which of the frames counted."""
    return [one.counted for one in told]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    frames=st.integers(1, 6),
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=3),
    odometry=st.booleans(),
)
def test_equals_the_reference(
    engine: Engine, tables: Tables, seed: int, frames: int, lengths: list[int], odometry: bool
) -> None:
    """Of two views that have nothing in common, places left out, dark frames and steps of any size
    between places a metre apart."""
    rng = np.random.default_rng(seed)
    drives = np.repeat(np.arange(len(lengths)), lengths)
    xy = np.outer(np.arange(len(drives)), (0.6, 0.8))
    calibration = judging(3.0, frames)
    table, bands = tables(drives, xy, calibration), [Band(1.0, 1.0, calibration)]
    path, slow = Path(engine, frames), Reference(frames, drives, xy, 3.0)
    last, owed = -1, np.float32(0)
    for _ in range(20):
        scores = rng.uniform(-1, 0.9, len(drives)).astype(np.float32)
        scores[rng.random(len(drives)) < 0.05] = -np.inf
        shows, turn = rng.random() < 0.9 and bool(np.isfinite(scores).any()), int(rng.integers(2))
        moved = np.float32(rng.choice([0, 0.3, -0.3, 1])) if odometry else np.float32(np.nan)
        owed = owed + moved
        counts = not shows or not slow.seen or turn != last or abs(owed) >= 0.5
        given_moved = None if np.isnan(moved) else float(moved)
        told = path.step(
            *(HELD, table, bands, 0, scores if shows else None, given_moved),
            descriptor=np.eye(8, dtype=np.float32)[turn],
        )
        if counts:
            wanted = slow.step(scores if shows else None, None if np.isnan(owed) else float(owed))
            last = turn if shows else -1 if abs(owed) >= 0.5 else last
            owed = np.float32(0)
        else:
            wanted = slow.stand(scores)
        assert told.counted == counts
        mine = (told.place, told.frames, told.evidence, told.margin, told.still)
        mine += (told.still_margin, told.steady)
        np.testing.assert_allclose(mine, astuple(wanted), atol=2e-5 if odometry else 0, rtol=0)


def test_a_camera_that_stands_is_judged_by_one_frame(camera: Camera) -> None:
    told = camera.stand(9)
    assert counted(told) == [True] + [False] * 29
    assert {(t.place, t.frames, t.steady, t.accepted) for t in told} == {(9, 1, 0, False)}
    on = [camera.see(10), camera.see(11)]
    assert [(t.frames, t.accepted) for t in on] == [(2, False), (3, True)]


def test_an_answer_stands_while_the_camera_does(camera: Camera) -> None:
    last = [camera.see(place) for place in range(9, 13)][-1]
    told = camera.stand(12)
    assert not any(counted(told))
    assert {t.state for t in told} == {"here"}
    assert {t._replace(counted=True, state="moved") for t in told} == {last}
    assert camera.see(13).state == "moved"


def test_a_camera_that_stands_is_told_where(camera: Camera) -> None:
    """A path lags behind a camera that is faster than one place a frame."""
    for place in (5, 6, 8, 10):
        last = camera.see(place)
    assert last.place < 10
    told = camera.stand(10)
    assert {(t.place, t.accepted, t.frames) for t in told} == {(10, True, 3)}
    given = (HELD, camera.table, camera.bands, 0, seen_at(10, 60))
    asked = ((last.place, 0.0, np.nan), 0.5)  # where it stands is no answer to what is near there
    told_near = camera.path.step(*given, near=asked, descriptor=view(10))
    assert (told_near.place, told_near.counted) == (last.place, False)
    twin = np.maximum(seen_at(10, 60), 1.1 * seen_at(40, 60)).astype(np.float32)
    assert camera.see(10, scores=twin).place < 12  # far from the path's answer it is not


def test_standing_is_no_reason_to_be_lost(engine: Engine, tables: Tables) -> None:
    """Only frames that say something new, and are not accepted, are."""
    by_margin = SequenceCalibration(4, 0.0, (-0.2, 0.0, 1.0, 0.0, 0.0, 0.0), 0.95, 0.3)
    calibration = Calibration("logistic", -9.0, (0.0, 0.0, 0.0), 3.0, 0, 0.95, 0.1, by_margin)
    camera = Camera(engine, tables, calibration)
    assert [camera.see(place).accepted for place in range(9, 14)] == [True] * 5
    twins = np.maximum(seen_at(14, 60), seen_at(40, 60))
    told = [camera.see(14, scores=twins) for _ in range(3)]
    far = [camera.see(0, view(place), scores=twins) for place in range(15, 24)]
    assert counted(told) == [True, False, False] and all(counted(far))
    held = [t for t in far if t.state != "lost"]
    assert held and far[-1].state == "lost"
    first_lost = far[len(held)]
    assert not first_lost.accepted


def test_frames_that_do_not_count_owe_their_motion(engine: Engine, tables: Tables) -> None:
    """Along a corridor that looks the same everywhere a frame counts after half a place, and the
    path goes as far as the camera went."""
    slow, fast = Camera(engine, tables), Camera(engine, tables)
    alike = view(0)
    for camera in (slow, fast):
        camera.see(9, alike, (0.0, 0.0))
    for place in (9.5, 10.0, 10.5, 11.0):
        quarters = [slow.see(place, alike, (0.125, 0.03125)) for _ in range(4)]
        assert counted(quarters) == [False, False, False, True]
        assert quarters[-1] == fast.see(place, alike, (0.5, 0.125))


def test_motion_of_which_a_part_is_not_known_is_not_known(engine: Engine, tables: Tables) -> None:
    slow, fast = Camera(engine, tables), Camera(engine, tables)
    for camera in (slow, fast):
        camera.see(9, None, (0.0, 0.0))
    for moved in ((0.125, 0.0), (None, None), (0.25, 0.0), (0.25, 0.0)):
        assert not slow.see(9, view(9, 1), moved).counted
    assert slow.see(10, None, (0.25, 0.0)) == fast.see(10)


def test_the_same_view_gives_back_what_dark_frames_took(camera: Camera) -> None:
    """A robot that stands may blink now and then; one that was blind for long begins anew."""

    def dark(frames: int) -> list[int]:
        seen = (HELD, camera.table, camera.bands, 0, None)
        return [camera.path.step(*seen).frames for _ in range(frames)]

    for place in range(9, 13):
        camera.see(place)
    for _ in range(5):
        assert dark(1) == [2]
        told = camera.stand(12, 3)
        assert {(t.place, t.frames, t.accepted) for t in told} == {(12, 3, True)}
    assert dark(3) == [2, 1, 0]
    again = camera.stand(12, 5)
    assert {(t.place, t.frames, t.accepted) for t in again} == {(12, 1, False)}


@pytest.mark.parametrize(("best", "counts"), [(0.98, True), (0.7, False)])
def test_a_little_off_counts_where_the_map_shows_the_view_better(
    camera: Camera, best: float, counts: bool
) -> None:
    """The map's place is nearer to the view than twice what the camera moved by, or is not."""
    scores = seen_at(9, 60)
    scores[9] = best
    told = [camera.see(9, view(at), scores=scores) for at in (9, 9.1)]
    assert counted(told) == [True, counts]


def test_the_same_view_at_another_k_is_no_other_view(camera: Camera) -> None:
    """Descriptors of one frame at two k are further apart than those of one k."""
    ks = (1.0, 1.0, 0.2, 0.2, 1.0, 1.0)
    told = [camera.see(9, view(9 + 2 * (k < 1)), k=k) for k in ks]
    assert counted(told) == [True, False, False, False, True, False]  # of two changes one counts
    assert camera.see(13).counted
    by_turns = [camera.see(15 + i, k=(0.2, 1.0)[i % 2]) for i in range(6)]
    assert counted(by_turns) == [False, True] * 3  # the camera is on its way for all that


def test_a_camera_on_its_way_counts_however_often_k_changes(camera: Camera) -> None:
    """Each change began the comparison anew, with a frame that no path had taken in: a robot that
    moves less than that tells between two changes stayed where it was for good."""
    told = [camera.see(9 + 0.1 * i, k=(1.0, 0.2)[i // 2 % 2]) for i in range(200)]
    assert abs(told[-1].place - 28.9) < 2
    assert sum(counted(told)) > 20


def test_another_view_at_another_k_counts_after_dark_frames(camera: Camera) -> None:
    """A robot that is carried to another floor under a cloth: what it saw first, at another k, was
    taken for what it had seen last, and all that followed for that."""
    for place in range(9, 13):
        last = camera.see(place)
    camera.path.step(HELD, camera.table, camera.bands, 0, None)
    told = [camera.see(40, k=0.2) for _ in range(3)]
    assert counted(told) == [True, False, False]
    assert max(t.evidence for t in told) < last.evidence


def test_the_same_view_counts_after_a_drive_in_the_dark(camera: Camera) -> None:
    """All looks alike: it is half a place further."""
    for metres in (0.0, 1.0):
        camera.see(9, view(0), (metres, 0.0))
    camera.path.step(HELD, camera.table, camera.bands, 0, None, 0.25)
    assert not camera.see(10, view(0), (0.125, 0.0)).counted
    camera.path.step(HELD, camera.table, camera.bands, 0, None, 3.0)
    assert camera.see(13, view(0), (0.0, 0.0)).counted


def test_a_frame_of_which_nobody_knows_the_view_is_no_frame_to_compare_with(
    camera: Camera,
) -> None:
    """It counts, and so does the one behind it, be that as the last one that was known."""
    camera.see(9)
    assert not camera.see(9).counted
    step = HELD, camera.table, camera.bands, 0
    assert camera.path.step(*step, seen_at(20, 60)).counted
    assert counted([camera.see(9) for _ in range(2)]) == [True, False]


def test_a_place_that_is_left_out_is_no_answer_while_the_camera_stands(camera: Camera) -> None:
    twins = np.maximum(seen_at(10, 60), 0.95 * seen_at(30, 60)).astype(np.float32)
    assert camera.see(10, scores=twins).place == 10
    without = twins.copy()
    without[5:15] = -np.inf
    told = camera.see(10, scores=without)
    assert (told.place, told.counted) == (30, False)
    nowhere = np.where(np.arange(60) < 3, 0.2, -np.inf).astype(np.float32)
    camera.see(10, scores=np.where(np.isinf(nowhere), twins, -np.inf).astype(np.float32))
    assert camera.see(10, scores=nowhere).place == -1  # nothing speaks for what is left
    assert camera.see(10, scores=twins).counted


def test_where_no_descriptor_is_given_every_frame_counts(engine: Engine, tables: Tables) -> None:
    camera = Camera(engine, tables)
    for _ in range(3):
        told = camera.path.step(HELD, camera.table, camera.bands, 0, seen_at(9, 60))
    assert (told.frames, told.counted, told.accepted) == (3, True, True)


def test_room_is_made_while_the_camera_stands(engine: Engine, tables: Tables) -> None:
    grown, whole = Camera(engine, tables, count=1000), Camera(engine, tables, count=1000)
    more = tables(*line(1100), THREE, 1, np.zeros(1100))
    for camera in (grown, whole):
        camera.path.step(
            HELD, camera.table, camera.bands, 0, seen_at(9, 1000), 0.0, None, 0.0, 1.0, 1.0, view(9)
        )
    whole.path._make_room(1100)
    for camera in (grown, whole):
        camera.see(9.2, view(9, 1), (0.25, 0.0))
        camera.table, camera.count = more, 1100
    for place, seed in ((9.4, 2), (9.6, 3), (11, None), (12, 4)):
        told = [c.see(place, view(place if seed is None else 9, seed), (0.25, 0.1))
                for c in (grown, whole)]  # fmt: skip
        assert repr(told[0]) == repr(told[1])


def test_callers_compiled_before_are_answered_as_before(engine: Engine, tables: Tables) -> None:
    """Their structures end before the new members, which are neither read nor written."""
    table, bands = tables(*line(40), judging(3.0, 5)), [Band(1.0, 1.0, judging(3.0, 5))]
    path, c = Path(engine, 5), engine.c
    size = c.tatvpr_track_bytes(40, 2)
    memory, other, room = (np.empty(size, np.uint8) for _ in range(3))
    track = _Track(size=_Track.last.offset, last=77, counted=78, swapped=79)
    step = _Step(size=_Step.descriptor.offset, moved_m=0.0, descriptor=80)
    found = _Tracked(size=ctypes.sizeof(_Tracked))
    assert c.tatvpr_track_init(ctypes.byref(track), 5, 40, 2, memory.ctypes.data, size) == 0
    given = (ctypes.byref(track), ctypes.byref(table.places))
    for _ in range(7):
        scores = seen_at(9, 40)
        told = path.step(HELD, table, bands, 0, scores, 0.0)
        step.scores = scores.ctypes.data
        assert c.tatvpr_track_step(*given, ctypes.byref(step), ctypes.byref(found)) == 0
        assert (found.seen, found.steady, found.evidence) == (
            told.frames,
            told.steady,
            told.evidence,
        )
    assert found.seen == 5
    assert c.tatvpr_track_move(ctypes.byref(track), 40, other.ctypes.data, size) == 0
    assert (track.last, track.counted, track.swapped) == (77, 78, 79)
    assert c.tatvpr_track_remember(ctypes.byref(track), room.ctypes.data, 8) == ERR_ABI


def test_a_descriptor_for_which_there_is_no_room_is_refused(engine: Engine, tables: Tables) -> None:
    camera, c = Camera(engine, tables), engine.c
    camera.see(9)
    given = ctypes.byref(camera.path._track), camera.path._last.ctypes.data
    assert c.tatvpr_track_remember(*given, 7) == 0
    with pytest.raises(ArtifactError, match="arena"):
        camera.see(9)
    assert c.tatvpr_track_remember(*given, 8) == 0
    assert camera.see(9).place == 9
