"""The C filter says what the slow one in NumPy says: any map, any frames, any odometry."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.geography import degrees
from support.path_reference import Reference
from support.paths import HELD, WEIGHTS, judging, line, seen_at
from tatvpr_edge.runtime.engine import Engine
from tatvpr_edge.runtime.search import Table
from tatvpr_edge.runtime.tracking import Path, Tracked, _Step, _Track, _Tracked
from tatvpr_edge.spec.calibration import Calibration, DialWeights, SequenceCalibration, rooted
from tatvpr_edge.spec.errors import UsageError
from tatvpr_edge.spec.maptypes import Band

Tables = Callable[..., Table]

ERR_ABI = 2


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=4),
    frames=st.integers(1, 8),
    parts=st.integers(1, 3),
    odometry=st.booleans(),
    uneven_m=st.sampled_from([None, 0.0, 0.1, 0.6]),
    turns=st.booleans(),
    frame=st.sampled_from(("local", "geographic")),
    kind=st.sampled_from(["logistic", "rooted"]),
)
def test_equals_the_reference(
    engine: Engine,
    tables: Tables,
    seed: int,
    lengths: list[int],
    frames: int,
    parts: int,
    odometry: bool,
    uneven_m: float | None,
    turns: bool,
    frame: str,
    kind: str,
) -> None:
    """``uneven_m``: places are a metre apart, give or take so much; None: anywhere."""
    rng = np.random.default_rng(seed)
    drives = np.repeat(np.arange(len(lengths)), lengths)
    apart = rng.uniform(-2, 2, (len(drives), 2))
    if uneven_m is not None:
        apart = np.outer(1 + uneven_m * rng.uniform(-1, 1, len(drives)), (0.6, 0.8))
    xy = np.cumsum(apart, axis=0)
    yaw = np.cumsum(rng.normal(0, 1.2, len(drives))) if turns else None
    calibration = judging(3.0, frames, kind=kind)
    xy = degrees(xy) if frame == "geographic" else xy
    table = tables(drives, xy, calibration, parts, yaw, frame)
    path = Path(engine, frames)
    slow = Reference(frames, drives, xy, 3.0, yaw, frame == "geographic")
    bands = [Band(1.0, 1.0, calibration)]
    for _ in range(12):
        scores = rng.uniform(-1, 1, len(drives)).astype(np.float32)
        scores[rng.random(len(drives)) < 0.1] = -np.inf
        given_scores = None if rng.random() < 0.15 else scores
        moved = float(np.float32(rng.uniform(-3, 3))) if odometry and rng.random() < 0.7 else None
        turned = float(np.float32(rng.normal(0, 1))) if rng.random() < 0.7 else None
        mine = path.step(HELD, table, bands, 0, given_scores, moved, None, turned)
        theirs = slow.step(given_scores, moved, turned)
        numbers = (mine.place, mine.frames, mine.evidence, mine.margin, mine.still)
        numbers += (mine.still_margin, mine.steady)
        if odometry:  # sums of metres in another order
            np.testing.assert_allclose(numbers, astuple(theirs), atol=2e-5)
        else:
            np.testing.assert_array_equal(numbers, astuple(theirs))
        if not np.isnan(mine.margin):
            margin = mine.margin if kind == "logistic" else rooted(mine.margin)
            parts_of = (1.0, mine.evidence, margin, mine.still, mine.still_margin, mine.steady)
            odds = float(np.dot(WEIGHTS, parts_of))
            if mine.frames < frames:  # what is said of a single frame has to hold as well
                odds = min(odds, mine.evidence + mine.margin)
            assert mine.confidence == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-5)
            assert mine.accepted is (odds >= 0) or abs(odds) < 1e-5


def test_the_first_frame_of_a_path_is_judged_as_a_frame_by_itself(
    engine: Engine, tables: Tables
) -> None:
    """A robot that was switched on, or whose camera came back, where the map knows nothing."""
    sequence = SequenceCalibration(3, 0.0, (1.0, 0.0, 0.0, 0.0, 0.0, 0.0), 0.95, 0.3)
    dials = DialWeights(k=4.0, least_k_percent=20)
    single = Calibration("logistic", 0.0, (-1.0, 0.0, 0.0), 5.0, 0, 0.95, 0.1, sequence, dials)
    table, bands = tables(*line(40), single), [Band(1.0, 1.0, single)]
    path = Path(engine, 3)
    said = [path.step(HELD, table, bands, 0, seen_at(at, 40)) for at in (9, 10, 11, 12)]
    assert [one.accepted for one in said] == [False, False, True, True]
    assert [one.state for one in said] == ["lost", "lost", "found", "moved"]
    path.restart()  # at another k, of which the map says that single frames are right
    assert path.step(HELD, table, bands, 0, seen_at(9, 40), k=0.2).accepted


@pytest.mark.parametrize("back_to_front", [False, True])
def test_a_camera_on_its_way_is_no_path_to_and_fro(
    engine: Engine, tables: Tables, back_to_front: bool
) -> None:
    """One drive is followed, either way; of another, two places are more alike, by turns."""
    _, xy = line(80)
    table = tables(np.repeat([0, 1], 40), xy, judging(5.0, 5))
    path = Path(engine, 5)
    for i in range(12):
        scores = np.full(80, 0.3, np.float32)
        place = 30 - i if back_to_front else 10 + i
        scores[place], scores[60 + i % 2] = 0.8, 0.82
        found = path.step(HELD, table, [Band(1.0)], 0, scores)
    assert found.place == place and found.steady >= 3


def test_a_camera_that_turns_round_is_followed_back(engine: Engine, tables: Tables) -> None:
    drives, xy = line(60)
    table, path = tables(drives, xy, judging(5.0, 5)), Path(engine, 5)
    ways = [*range(20, 32), *range(31, 19, -1)]
    found = [path.step(HELD, table, [Band(1.0)], 0, seen_at(at, 60)) for at in ways]
    assert all(abs(one.place - at) <= 1 for one, at in zip(found, ways, strict=True))
    assert found[-1].steady == 20


def test_odometry_tells_places_apart_that_look_alike(engine: Engine, tables: Tables) -> None:
    """Places 14 and 20 show the same; only how far the robot came tells which it is."""
    calibration = judging(3.0, 5)
    table, bands = tables(*line(40), calibration), [Band(1.0, 1.0, calibration)]
    twins = np.maximum(seen_at(14, 40), seen_at(20, 40))
    answers = []
    for moved in (4.0, 10.0, -4.0):
        path = Path(engine, 5)
        for _ in range(3):
            path.step(HELD, table, bands, 0, seen_at(10, 40), 0.0)
        answers.append(path.step(HELD, table, bands, 0, twins, moved).place)
    assert answers == [14, 20, 14]


def winding(bend_rad: float, count: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(drives, xy, yaw) of two corridors a metre a place: one winds left, its twin winds right."""
    yaw = np.concatenate([bend_rad * np.arange(count), -bend_rad * np.arange(count)])
    steps = np.stack([np.cos(yaw), np.sin(yaw)], axis=1)
    xy = np.concatenate([np.cumsum(steps[:count], axis=0), 200 + np.cumsum(steps[count:], axis=0)])
    return np.repeat([0, 1], count), xy, yaw


def along_twins(
    engine: Engine, tables: Tables, bend_rad: float, known: bool = True, turn_rad: float = 0.0
) -> list[int]:
    """In which corridor the last of twelve frames was taken, which show the same in both: driven
    with the left one's turns, with the right one's, and without any. ``turn_rad``: of the camera
    that comes again, from how the one that made the map looked."""
    drives, xy, yaw = winding(bend_rad)
    calibration = judging(3.0, 5)
    table = tables(drives, xy, calibration, 1, yaw + turn_rad if known else None)
    bands = [Band(1.0, 1.0, calibration)]
    answers = []
    for turned in (bend_rad, -bend_rad, None):
        path = Path(engine, 5)
        for place in range(10, 22):
            scores = np.tile(seen_at(place, 40), 2)
            told = path.step(HELD, table, bands, 0, scores, 1.0, None, turned)
        assert told.place % 40 == 21
        answers.append(told.place // 40)
    return answers


def test_turns_tell_corridors_apart_that_look_alike_and_are_as_long(
    engine: Engine, tables: Tables
) -> None:
    """By metres alone it is the first one, whichever is driven."""
    assert along_twins(engine, tables, 0.15) == [0, 1, 0]
    assert along_twins(engine, tables, 0.15, turn_rad=2.0) == [0, 1, 0]
    assert along_twins(engine, tables, 3.0) == [0, 1, 0]  # through more than a whole turn
    assert along_twins(engine, tables, 0.15, known=False) == [0, 0, 0]


def test_callers_compiled_before_turns_are_answered_as_before(
    engine: Engine, tables: Tables
) -> None:
    """Their structures end before the new members, which are neither read nor written."""
    calibration = judging(3.0, 5)
    drives, xy, yaw = winding(0.15)
    table, bands = tables(drives, xy, calibration, 1, yaw), [Band(1.0, 1.0, calibration)]
    path, c = Path(engine, 5), engine.c
    size = c.tatvpr_track_bytes(80, 1)
    memory = np.empty(size, np.uint8)
    track = _Track(size=_Track.turned.offset, turned=77)
    step = _Step(size=_Step.turned_rad.offset, moved_m=1.0, turned_rad=-0.15)
    found = _Tracked(size=ctypes.sizeof(_Tracked))
    init = (ctypes.byref(track), 5, 80)
    assert c.tatvpr_track_init(*init, 2, memory.ctypes.data, size + 80 * 4) == ERR_ABI
    assert c.tatvpr_track_init(*init, 1, memory.ctypes.data, size) == 0
    for place in range(10, 22):
        scores = np.tile(seen_at(place, 40), 2)
        told = path.step(HELD, table, bands, 0, scores, 1.0)
        step.scores = scores.ctypes.data
        given_table = ctypes.byref(table.places)
        made = (ctypes.byref(track), given_table, ctypes.byref(step), ctypes.byref(found))
        assert c.tatvpr_track_step(*made) == 0
        assert (found.place, found.evidence, found.margin) == (
            told.place,
            told.evidence,
            told.margin,
        )
    other = np.empty(2 * size, np.uint8)
    moved = c.tatvpr_track_move(ctypes.byref(track), 90, other.ctypes.data, other.nbytes)
    assert moved == 0 and track.turned == 77


def test_a_bend_driven_backwards_turns_the_other_way(engine: Engine, tables: Tables) -> None:
    drives, xy, yaw = winding(0.15)
    calibration = judging(3.0, 5)
    table, bands = tables(drives, xy, calibration, 1, yaw), [Band(1.0, 1.0, calibration)]
    path = Path(engine, 5)
    for place in range(30, 18, -1):
        scores = np.tile(seen_at(place, 40), 2)
        told = path.step(HELD, table, bands, 0, scores, -1.0, None, 0.15)
    assert told.place == 40 + 19


def test_where_a_camera_looks_straight_up_it_has_not_turned(engine: Engine, tables: Tables) -> None:
    """Seen from above, it points nowhere: the drive goes straight on there."""
    calibration = judging(3.0, 5)
    bands = [Band(1.0, 1.0, calibration)]
    looks = np.tile([0.0, 0.0, 0.0, 1.0], (40, 1))
    looks[[9, 12, 13, 21]] = (0.5, 0.5, -0.5, 0.5)
    mixed, level = (tables(*line(40), calibration, 1, yaw) for yaw in (looks, np.zeros(40)))
    mine, theirs = Path(engine, 5), Path(engine, 5)
    for place in range(5, 30):
        given_step = (bands, 0, seen_at(place, 40), 1.0, None, 0.4)
        told, wanted = mine.step(HELD, mixed, *given_step), theirs.step(HELD, level, *given_step)
        assert told[:-1] == wanted[:-1] and told.place == place


def test_odometry_of_a_drive_without_positions_does_no_harm(engine: Engine, tables: Tables) -> None:
    drives, xy = line(40)
    calibration = Calibration(
        "logistic",
        0.0,
        elsewhere_places=3,
        sequence=SequenceCalibration(5, 0.0, WEIGHTS),
    )
    table = tables(drives, np.full_like(xy, np.nan), calibration)
    bands = [Band(1.0, 1.0, calibration)]
    with_it, without = Path(engine, 5), Path(engine, 5)
    for place in range(5, 15):
        scores = seen_at(place, 40)
        told = with_it.step(HELD, table, bands, 0, scores, 7.0)
        assert told == without.step(HELD, table, bands, 0, scores)
        assert told.place == place


def test_states_of_a_drive_that_is_carried_away(engine: Engine, tables: Tables) -> None:
    """Found, moves, stands, sees nothing, is carried elsewhere (lost), and found again there."""
    calibration = judging(3.0, 5, threshold=1.0)
    table, bands = tables(*line(60), calibration), [Band(1.0, 1.0, calibration)]
    path = Path(engine, 5)

    def step(scores: np.ndarray | None) -> Tracked:
        return path.step(HELD, table, bands, 0, scores)

    told = [step(seen_at(place, 60)) for place in range(10, 16)]
    assert [t.place for t in told] == list(range(10, 16))
    assert told[0].state == "found" and {t.state for t in told[1:]} == {"moved"}
    assert all(t.accepted for t in told)
    assert step(seen_at(15, 60)).state == "here"
    dark = step(None)
    assert (dark.place, dark.accepted, dark.state) == (15, False, "here")
    assert step(seen_at(15, 60)).accepted
    nowhere = [step(np.full(60, 0.3, np.float32)) for _ in range(12)]
    assert nowhere[-1].state == "lost" and not nowhere[-1].accepted
    again = [step(seen_at(place, 60)) for place in range(40, 50)]
    assert "found" in {t.state for t in again}
    assert again[-1].state == "moved" and again[-1].place == 49


def test_an_answer_that_jumps_is_found_anew(engine: Engine, tables: Tables) -> None:
    calibration = judging(3.0, 3, threshold=-100.0)
    table, bands = tables(*line(60), calibration), [Band(1.0, 1.0, calibration)]
    path = Path(engine, 3)
    told = [path.step(HELD, table, bands, 0, seen_at(x, 60)) for x in [10] * 4 + [40] * 8]
    states = [(t.place, t.state) for t in told]
    first = next(i for i, t in enumerate(told) if t.place == 40)
    assert states == [(10, "found")] + [(10, "here")] * (first - 1) + [(40, "found")] + [
        (40, "here")
    ] * (len(told) - first - 1)


def test_an_answer_that_stays_and_is_never_accepted_is_lost_in_the_end(
    engine: Engine, tables: Tables
) -> None:
    """After as many frames as evidence is gathered over: here, of two places that show the same."""
    by_margin = SequenceCalibration(4, 0.0, (-0.2, 0.0, 1.0, 0.0, 0.0, 0.0), 0.95, 0.3)
    calibration = Calibration("logistic", 0.0, (0.0, 1.0, 1.0), 3.0, 0, 0.95, 0.1, by_margin)
    table, bands = tables(*line(40), calibration), [Band(1.0, 1.0, calibration)]
    path = Path(engine, 4)
    shown = [seen_at(10, 40)] * 5 + [np.maximum(seen_at(10, 40), seen_at(30, 40))] * 20
    told = [path.step(HELD, table, bands, 0, scores) for scores in shown]
    assert {t.place for t in told} == {10}
    accepted = [bool(t.accepted) for t in told]
    last = accepted.index(False)  # the first that is not
    assert last > 5 and not any(accepted[last:])
    states = [t.state for t in told]
    assert states == ["found"] + ["here"] * (last + 2) + ["lost"] * (len(told) - last - 3)


def test_nothing_but_dark_frames_is_forgotten(engine: Engine, tables: Tables) -> None:
    calibration = judging(3.0, 3)
    table, bands = tables(*line(30), calibration), [Band(1.0, 1.0, calibration)]
    path = Path(engine, 3)
    assert path.step(HELD, table, bands, 0, None).place == -1
    for place in (4, 5, 6):
        path.step(HELD, table, bands, 0, seen_at(place, 30))
    dark = [path.step(HELD, table, bands, 0, None) for _ in range(4)]
    assert [t.place for t in dark] == [6, 6, -1, -1]
    assert [t.frames for t in dark] == [2, 1, 0, 0]
    assert not any(t.accepted for t in dark) and dark[-1].state == "lost"
    assert path.step(HELD, table, bands, 0, seen_at(20, 30)).place == 20


@pytest.mark.parametrize("frame", ["local", "geographic"])
def test_a_place_near_is_asked_for(engine: Engine, tables: Tables, frame: str) -> None:
    """Evidence is gathered everywhere; the answer lies near, or there is none."""
    calibration = judging(3.0, 5)
    drives, xy = line(40)
    asked = np.array([[31.0, 0.0], [500.0, 0.0]])
    if frame == "geographic":
        xy, asked = degrees(xy), degrees(asked)
    table = tables(drives, xy, calibration, frame=frame)
    bands = [Band(1.0, 1.0, calibration)]
    twins = np.maximum(seen_at(10, 40), seen_at(30, 40))
    near = Path(engine, 5).step(HELD, table, bands, 0, twins, None, ((*asked[0], np.nan), 4.0))
    assert near.place == 30 and not np.isnan(near.margin)
    far = Path(engine, 5).step(HELD, table, bands, 0, twins, None, ((*asked[1], np.nan), 4.0))
    assert (far.place, far.accepted) == (-1, False)


def test_a_map_that_grows_is_followed_into_its_new_places(engine: Engine, tables: Tables) -> None:
    calibration = judging(3.0, 5)
    bands = [Band(1.0, 1.0, calibration)]
    path = Path(engine, 5)
    for count in range(1200, 1215):  # beyond the room that a path begins with
        told = path.step(
            HELD, tables(*line(count), calibration), bands, 0, seen_at(count - 1, count)
        )
    assert told.place == 1213 and told.frames == 5 and told.steady == 14


def test_other_places_begin_a_path_anew(engine: Engine, tables: Tables) -> None:
    calibration = judging(3.0, 5)
    table, bands = tables(*line(30), calibration), [Band(1.0, 1.0, calibration)]
    path = Path(engine, 5)
    for place in (4, 5, 6):
        assert path.step(HELD, table, bands, 0, seen_at(place, 30)).place == place
    told = path.step(object(), table, bands, 0, seen_at(20, 30))
    assert (told.place, told.frames) == (20, 1)
    path.restart()
    assert path.step(HELD, table, bands, 0, seen_at(9, 30)).frames == 1
    fewer = tables(*line(29), calibration)
    assert path.step(HELD, fewer, bands, 0, seen_at(9, 29)).frames == 1


def test_a_calibration_of_sequences_of_another_length_judges_nothing(
    engine: Engine, tables: Tables
) -> None:
    """In C as well, whose callers hand over what the map says: of sequences of four frames."""
    calibration = judging(3.0, 4, threshold=-100.0)
    table, bands = tables(*line(40), calibration), [Band(1.0, 1.0, calibration)]
    for frames in (4, 5):
        path = Path(engine, frames)
        path.frames = 4
        told = path.step(HELD, table, bands, 0, seen_at(4, 40))
        assert (told.accepted, told.state) == ((True, "found") if frames == 4 else (None, None))
        assert np.isnan(told.confidence) == (frames == 5) and not np.isnan(told.margin)


def test_few_places_elsewhere_are_no_rivals(engine: Engine, tables: Tables) -> None:
    for count, accepted in ((10, False), (40, True)):
        calibration = judging(3.0, 5, threshold=-100.0)
        table, bands = tables(*line(count), calibration), [Band(1.0, 1.0, calibration)]
        told = Path(engine, 5).step(HELD, table, bands, 0, seen_at(4, count))
        assert told.accepted is accepted


def test_odds_exactly_at_the_threshold_are_accepted(engine: Engine, tables: Tables) -> None:
    """Of the sequence, and of the single frame that speaks for its first frames."""
    above = float(np.nextafter(np.float32(1.5), np.float32(2)))
    for of_frames, single in ((1.5, 0.0), (above, 0.0), (0.0, 1.5), (0.0, above)):
        always = SequenceCalibration(5, of_frames, (1.5, 0.0, 0.0, 0.0, 0.0, 0.0), 0.95, 0.3)
        calibration = Calibration("logistic", single, (1.5, 0.0, 0.0), 3.0, 0, 0.95, 0.1, always)
        table, bands = tables(*line(40), calibration), [Band(1.0, 1.0, calibration)]
        told = Path(engine, 5).step(HELD, table, bands, 0, seen_at(4, 40))
        assert told.accepted is (above not in (of_frames, single))


def test_a_path_is_judged_by_the_k_of_its_frame(engine: Engine, tables: Tables) -> None:
    made = SequenceCalibration(
        5, 1.5, (1.0, 0.0, 0.0, 0.0, 0.0, 0.0), 0.95, 0.3, DialWeights(0.5, 1.0, 25, 25)
    )
    calibration = Calibration("logistic", 0.0, (0.0, 1.0, 1.0), 3.0, 0, 0.95, 0.1, made)
    table, bands = tables(*line(40), calibration), [Band(1.0, 1.0, calibration)]
    path = Path(engine, 5)
    for _ in range(5):  # before, what is said of single frames counts as well
        path.step(HELD, table, bands, 0, seen_at(4, 40))
    at_half = 1 + 0.5 * (2**0.5 - 1)
    for k, odds in ((1.0, 1.0), (0.25, 1.5), (0.5, at_half), (0.25, 1.5), (1.0, 1.0)):
        told = path.step(HELD, table, bands, 0, seen_at(4, 40), k=k)
        fewer = path.step(HELD, table, bands, 0, seen_at(4, 40), k=k, tokens=0.25)
        assert fewer.confidence == pytest.approx(1 / (1 + np.exp(-odds - 1)), rel=1e-6)
        assert told.confidence == pytest.approx(1 / (1 + np.exp(-odds)), rel=1e-6)
        assert told.accepted is (odds >= 1.5)


def test_a_margin_below_zero_counts_by_its_root_against_a_place_near(
    engine: Engine, tables: Tables
) -> None:
    """``near`` may ask for a place that more speaks against than for."""
    calibration = judging(3.0, 5, kind="rooted")
    table, path = tables(*line(60), calibration), Path(engine, 5)
    bands = [Band(1.0, 1.0, calibration)]
    found = path.step(HELD, table, bands, 0, seen_at(20, 60), None, ((50.0, 0.0, 0.0), 2.0))
    assert found.margin == pytest.approx(0.3 - 0.9) and rooted(found.margin) < -0.77
    told = (1, found.evidence, rooted(found.margin), found.still, found.still_margin, 0)
    assert found.confidence == pytest.approx(1 / (1 + np.exp(-np.dot(WEIGHTS, told))), abs=1e-6)
    assert not found.accepted


@pytest.mark.parametrize(
    "wrong",
    [
        {"moved_m": np.inf},
        {"turned_rad": -np.inf},
        {"near": ((0.0, 0.0, 0.0), np.nan)},
        {"near": ((0.0, 0.0, 0.0), -1.0)},
    ],
)
def test_motions_and_distances_that_are_none_are_refused(
    engine: Engine, tables: Tables, wrong: dict[str, Any]
) -> None:
    calibration = judging(3.0, 5)
    table, bands = tables(*line(40), calibration), [Band(1.0, 1.0, calibration)]
    with pytest.raises(UsageError):
        Path(engine, 5).step(HELD, table, bands, 0, seen_at(4, 40), **wrong)


@pytest.mark.parametrize("frames", [0, -1, 1001, 2.5, True, "5", None])
def test_lengths_that_are_none_are_refused(engine: Engine, frames: object) -> None:
    with pytest.raises(UsageError, match="sequence is"):
        Path(engine, frames)  # type: ignore[arg-type]


def test_a_sequence_of_another_length_is_not_judged(engine: Engine, tables: Tables) -> None:
    calibration = judging(3.0, 5, threshold=-100.0)
    table, bands = tables(*line(40), calibration), [Band(1.0, 1.0, calibration)]
    told = Path(engine, 4).step(HELD, table, bands, 0, seen_at(4, 40))
    assert (told.accepted, told.state) == (None, None) and np.isnan(told.confidence)
