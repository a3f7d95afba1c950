"""A path through a map is followed as the slow filter in NumPy follows it, on every CPU."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import numpy as np
from core_driver import OK, Driver
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_core_model import STATUS

from support.path_drive import (
    CRC,
    CRC_OF_TURNS,
    ELSEWHERE_M,
    FRAMES,
    PLACES,
    STEPS,
    THRESHOLD,
    TRACKED,
    TURNS,
    WEIGHTS,
    drive,
    sum_of,
    turned,
)
from support.path_reference import Reference
from tatvpr_edge.spec.maptypes import MOMENT


def along_x(
    rng: np.random.Generator, lengths: list[int]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """(drives, positions, moments, poses) of places whole metres apart: every distance, and so
    every sum of them, is exact."""
    drives = np.repeat(np.arange(len(lengths)), lengths)
    count = len(drives)
    xy = np.zeros((count, 2))
    xy[:, 0] = np.cumsum(rng.integers(1, 4, count))
    moments, poses = np.zeros(count, MOMENT), np.zeros((count, 7))
    moments["drive"], moments["known"], poses[:, :2] = drives, 3, xy
    return drives, xy, moments, poses


@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    frames=st.integers(1, 8),
)
def test_follows_as_the_reference(
    native: Driver, seed: int, lengths: list[int], frames: int
) -> None:
    rng, steps = np.random.default_rng(seed), 10
    drives, xy, moments, poses = along_x(rng, lengths)
    count = len(drives)
    scores = rng.uniform(-1, 1, (steps, count)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    shown = (rng.random(steps) < 0.85).astype(np.uint8)
    moved = np.full(steps, np.nan, np.float32)
    status, (raw,) = native.call(
        "track",
        "",
        (count, frames, steps, 1),
        (3.0, 0.0, *WEIGHTS),
        tuple(a.tobytes() for a in (scores, shown, moved, moments, poses)),
    )
    assert status == OK
    slow = Reference(frames, drives, xy, 3.0)
    for t, told in enumerate(raw.view(TRACKED)):
        expected = slow.step(scores[t] if shown[t] else None)
        place = int(told["place"]) if told["seen"] else -1
        names = ("evidence", "margin", "still", "still_margin", "steady")
        np.testing.assert_array_equal(
            (place, told["seen"], *(told[name] for name in names)), astuple(expected)
        )
        assert told["accepted"] == int(odds_of(told) >= 0) or abs(odds_of(told)) < 1e-5


def odds_of(told: np.void) -> float:
    """Log-odds, worked out again; -infinity where nothing is judged."""
    if np.isnan(told["margin"]):
        return float("-inf")
    names = ("evidence", "margin", "still", "still_margin", "steady")
    return float(np.dot(WEIGHTS, [1.0, *(told[name] for name in names)]))


@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=4),
    frames=st.integers(1, 6),
    odometry=st.booleans(),
)
def test_frames_that_say_nothing_new_do_not_count(
    native: Driver, seed: int, lengths: list[int], frames: int, odometry: bool
) -> None:
    """Of two views that have nothing in common, dark frames, and steps between places."""
    rng, steps = np.random.default_rng(seed), 20
    drives, xy, moments, poses = along_x(rng, lengths)
    count = len(drives)
    scores = rng.uniform(-1, 0.9, (steps, count)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.05] = -np.inf
    shown = (rng.random(steps) < 0.9).astype(np.uint8)
    moved = rng.choice([0, 0.25, -0.25, 1], steps).astype(np.float32)
    moved = moved if odometry else np.full(steps, np.nan, np.float32)
    views = rng.choice([1, -1], steps).astype(np.float32)
    status, (raw,) = native.call(
        "track",
        "",
        (count, frames, steps, 1),
        (3.0, 0.0, *WEIGHTS),
        tuple(a.tobytes() for a in (scores, shown, moved, moments, poses, moved, views)),
    )
    assert status == OK
    slow, last, owed = Reference(frames, drives, xy, 3.0), 0.0, np.float32(0)
    for t, told in enumerate(raw.view(TRACKED)):
        own = np.flatnonzero(drives == drives[slow.place])
        here = own[abs(own - slow.place) <= 1]
        apart = (xy[here[-1], 0] - xy[here[0], 0]) / (len(here) - 1)
        shows = bool(shown[t]) and bool(np.isfinite(scores[t]).any())
        owed = owed + moved[t]
        if not shows or not slow.seen or views[t] != last or abs(owed) >= 0.5 * apart:
            known = None if np.isnan(owed) else float(owed)
            expected = slow.step(scores[t] if shows else None, known)
            blind = 0.0 if abs(owed) >= 0.5 * apart else last
            owed, last = np.float32(0), views[t] if shows else blind
        else:
            expected = slow.stand(scores[t])
        names = ("evidence", "margin", "still", "still_margin", "steady")
        place = int(told["place"]) if told["seen"] else -1
        numbers = (place, told["seen"], *(told[name] for name in names))
        exact = 2e-5 if odometry else 0
        np.testing.assert_allclose(numbers, astuple(expected), atol=exact, rtol=0)


def test_odometry_and_dark_frames_give_the_same_bytes_everywhere(native: Driver) -> None:
    """Fixed by the bytes that x86-64 gave; foreign builds run this as well."""
    status, (raw,) = native.call(
        "track",
        "",
        (PLACES, FRAMES, STEPS, 1),
        (ELSEWHERE_M, THRESHOLD, *WEIGHTS),
        tuple(part.tobytes() for part in drive()),
    )
    assert status == OK
    assert sum_of(raw.tobytes()) == CRC


def test_turns_give_the_same_bytes_everywhere(native: Driver) -> None:
    status, (raw,) = native.call(
        "track",
        "",
        (PLACES, FRAMES, STEPS, TURNS),
        (ELSEWHERE_M, THRESHOLD, *WEIGHTS),
        tuple(part.tobytes() for part in (*drive(turning=True), turned())),
    )
    assert status == OK
    assert sum_of(raw.tobytes()) == CRC_OF_TURNS


def test_faults_have_their_status(native: Driver) -> None:
    moments, poses = np.zeros(9, MOMENT), np.zeros((9, 7))
    one = np.ones(1, np.uint8)

    def status(
        score: float, moved: float = np.nan, odometry: int = 1, frames: int = 5, at: int = 0
    ) -> int:
        scores = np.full(9, score, np.float32)
        scores[:at] = 0.5
        given_arrays = (scores, one, np.float32([moved]), moments, poses)
        return native.call(
            "track",
            "",
            (9, frames, 1, odometry),
            (3.0, 0.0, *WEIGHTS),
            tuple(a.tobytes() for a in given_arrays),
        )[0]

    assert status(0.5) == status(0.5, 1.0) == status(-np.inf) == OK
    for at in (0, 8):  # all, and what is left of blocks of eight
        assert status(np.nan, at=at) == status(np.inf, at=at) == STATUS["TATVPR_ERR_NOT_FINITE"]
    assert status(0.5, np.inf) == STATUS["TATVPR_ERR_ARGUMENT"]
    assert status(0.5, 1.0, odometry=0) == STATUS["TATVPR_ERR_ARGUMENT"]
    for unknown in (-1, 3, 9):
        assert status(0.5, odometry=unknown) == STATUS["TATVPR_ERR_ARGUMENT"]
    assert status(0.5, frames=0) == status(0.5, frames=1001) == STATUS["TATVPR_ERR_ARGUMENT"]
