"""Searching a map in C finds what a plain computation over the same stored numbers finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from support import score_reference
from support.geography import degrees
from support.geography import metres as metres_apart
from tatvpr_edge.boards.loader import load
from tatvpr_edge.compilers.checks import checked_graph
from tatvpr_edge.compilers.linux import compile_linux
from tatvpr_edge.compilers.tvm.lower import lower
from tatvpr_edge.runtime import PlaceMap
from tatvpr_edge.runtime.engine import Engine
from tatvpr_edge.runtime.mapjournal import append
from tatvpr_edge.runtime.tracking import Path as FramePath
from tatvpr_edge.spec import scores
from tatvpr_edge.spec.calibration import DialWeights, SequenceCalibration
from tatvpr_edge.spec.errors import MapError, UsageError
from tatvpr_edge.spec.floats import exp32
from tatvpr_edge.spec.placemap import Band, Calibration, MapInfo, Places, make_places, write_map

F32 = NDArray[np.float32]
Some = Callable[..., Places]


def grown_map(folder: Path, info: MapInfo, rng: np.random.Generator, sizes: list[int]) -> Path:
    """A base of ``sizes[0]`` places and one journal record for each other size."""
    parts = []
    for drive, size in enumerate(sizes):
        rows = [rng.standard_normal((size, info.descriptor_size)).astype("f4") for _ in info.bands]
        poses = np.full((size, 7), np.nan)
        poses[:, :2] = rng.uniform(-20, 20, (size, 2))
        poses[::3, 2] = rng.uniform(-20, 20, len(poses[::3]))
        if info.pose_frame == "geographic":
            poses[:, :2] = degrees(poses[:, :2])
        poses[1::4, :2] = np.nan
        parts.append(make_places(info, rows, poses, drives=drive))
    path = folder / "m.placemap"
    write_map(path, info, parts[:1])
    for part in parts[1:]:
        append(path, part)
    return path


def plain_scores(place_map: PlaceMap, band: int, query: F32) -> F32:
    """Scores of every place by the NumPy reference."""
    info = place_map.info
    query = query[None, : info.dim]
    parts = [place_map.stored.base.rows[band], place_map.stored.added.rows[band]]
    if info.kind == "int8":
        q, norm = scores.int8_rows(query)
        return np.concatenate(
            [score_reference.int8_scores(q[0], norm[0], part.data, part.norms) for part in parts]
        )
    mean = info.bands[band].mean
    bits = scores.binary_rows(query, None if mean is None else np.array(mean, np.float32))
    return np.concatenate(
        [score_reference.binary_scores(bits[0], part.data, info.dim) for part in parts]
    )


def best_of(
    place_map: PlaceMap, band: int, query: F32, plain: F32, count: int
) -> tuple[NDArray[np.int64], F32]:
    """The best places and their scores by the NumPy reference; ``plain``: of :func:`plain_scores`,
    -infinity where a place is left out."""
    info = place_map.info
    if info.kind == "weighed":
        given = info.bands[band].mean
        mean = None if given is None else np.array(given, np.float32)
        stored = [place_map.stored.base.rows[band].data, place_map.stored.added.rows[band].data]
        return score_reference.weighed_best(
            plain, query[: info.dim], mean, np.concatenate(stored), count
        )
    order = score_reference.best(plain, count)
    order = order[np.isfinite(plain[order])]
    return order, plain[order]


def every_score(place_map: PlaceMap, band: int, query: F32, plain: F32) -> F32:
    """Scores of every place as a search gives them that is asked for all; ``plain`` as above."""
    if place_map.info.kind != "weighed":
        return plain
    given = place_map.info.bands[band].mean
    mean = None if given is None else np.array(given, np.float32)
    stored = [place_map.stored.base.rows[band].data, place_map.stored.added.rows[band].data]
    weighed = score_reference.weighed_scores(
        query[: place_map.info.dim], mean, np.concatenate(stored)
    )
    return np.where(np.isfinite(plain), weighed, plain)


def metres(place_map: PlaceMap, place: int, other: NDArray[np.float64]) -> float:
    """Distance of a place from a pose; NaN where x or y is unknown."""
    geographic = place_map.info.pose_frame == "geographic"
    return float(metres_apart(place_map.pose(place)[:3], other[:3], geographic))


@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(("int8", "binary", "weighed")),
    eighths=st.sampled_from((1, 2, 8, 33)),
    sizes=st.lists(st.integers(0, 300), min_size=1, max_size=4).filter(any),
    count=st.sampled_from((1, 3, 9, 16, 40)),
    filters=st.sets(st.sampled_from(("range", "without", "near", "mean", "cut"))),
    frame=st.sampled_from(("local", "geographic")),
    k=st.sampled_from((0.1, 0.2, 0.5, 1.0)),
)
def test_any_search_finds_what_numpy_finds(
    engine: Engine,
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    kind: str,
    eighths: int,
    sizes: list[int],
    count: int,
    filters: set[str],
    frame: str,
    k: float,
) -> None:
    rng = np.random.default_rng(seed)
    dim, size = eighths * 8, eighths * 8 + (5 if "cut" in filters else 0)
    mean = None
    if "mean" in filters and kind != "int8":
        mean = tuple(rng.standard_normal(dim).astype(np.float32).tolist())
    bands = (Band.accepting(0.2, 1.0, 0.1), Band(0.5, 1.0, None, mean))
    info = MapInfo("ab" * 32, kind, dim, bands, frame, size)
    path = grown_map(tmp_path_factory.mktemp("map"), info, rng, sizes)
    place_map = PlaceMap(path, engine=engine)
    query = rng.standard_normal(size).astype(np.float32)
    band = scores.nearest_band([(b.k, b.tokens) for b in bands], k, 1.0)
    wanted = plain_scores(place_map, band, query)
    options: dict[str, Any] = {}
    if "range" in filters:
        first, end = sorted(rng.integers(0, len(wanted) + 1, 2).tolist())
        options.update(first=first, end=end)
        wanted[:first] = wanted[end:] = -np.inf
    if "without" in filters:
        options["without"] = rng.random(len(wanted)) < 0.5
        wanted[options["without"]] = -np.inf
    if "near" in filters:
        at = np.array([1.0, 2.0, 3.0])
        if frame == "geographic":
            at[:2] = degrees(at[:2])
        options.update(near=tuple(at.tolist()), radius=15.0)
        far = [not metres(place_map, place, at) <= 15 for place in range(len(wanted))]
        wanted[far] = -np.inf
    order, best = best_of(place_map, band, query, wanted, count)
    found = place_map.search(query, k, count=count, scores=True, **options)
    without_scores = place_map.search(query, k, count=count, **options)
    assert [c.place for c in found.candidates] == order.tolist()
    assert [c.score for c in found.candidates] == best.tolist()
    assert found.scores is not None
    np.testing.assert_array_equal(found.scores, every_score(place_map, band, query, wanted))
    assert repr(without_scores.candidates) == repr(found.candidates)
    if not len(order):
        assert found.accepted is False
        return
    assert found.band == bands[band]
    assert found.accepted == (bool(best[0] >= np.float32(0.1)) if band == 0 else None)
    for candidate in found.candidates:
        pose = place_map.pose(candidate.place)
        got = [np.nan] * 7 if candidate.pose is None else candidate.pose
        np.testing.assert_array_equal(got, pose)


@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(("int8", "binary", "weighed")),
    elsewhere_m=st.sampled_from((0.0, 8.0)),
    elsewhere_places=st.sampled_from((0, 2)),
    k=st.floats(2**-7, 1, width=32),
    k_weight=st.sampled_from((0.0, 0.7, -0.3)),
    frame=st.sampled_from(("local", "geographic")),
)
def test_confidence_is_the_logistic_of_score_and_margin(
    engine: Engine,
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    kind: str,
    elsewhere_m: float,
    elsewhere_places: int,
    k: float,
    k_weight: float,
    frame: str,
) -> None:
    if not elsewhere_m and not elsewhere_places:
        elsewhere_places = 1
    rng = np.random.default_rng(seed)
    weights, apart = (-1.5, 4.0, 2.5), (elsewhere_m, elsewhere_places)
    judged = Calibration("logistic", 0.3, weights, *apart, 0.95, 0.4)
    if k_weight:
        judged = replace(judged, dials=DialWeights(k_weight, 1.5, 25, 40))
    info = MapInfo("ab" * 32, kind, 16, (Band(1.0, 1.0, judged),), frame)
    path = grown_map(tmp_path_factory.mktemp("map"), info, rng, [30, 20])
    place_map = PlaceMap(path, engine=engine)
    assert place_map.info.bands[0].calibration == judged
    query = rng.standard_normal(16).astype(np.float32)
    wanted = plain_scores(place_map, 0, query)
    order, of_best = best_of(place_map, 0, query, wanted, 1)
    best, score = int(order[0]), of_best[0]
    moments = np.concatenate([place_map.stored.base.moments, place_map.stored.added.moments])

    def elsewhere(place: int) -> bool:
        apart = metres(place_map, place, place_map.pose(best))
        if elsewhere_m and not np.isnan(apart):
            return apart > elsewhere_m
        mine, theirs = moments[best], moments[place]
        if not elsewhere_places or mine["drive"] != theirs["drive"]:
            return True
        return abs(int(mine["order"]) - int(theirs["order"])) > elsewhere_places

    others = [place for place in range(50) if elsewhere(place)]
    found = place_map.search(query, k, 0.5, count=3)
    with_scores = place_map.search(query, k, 0.5, count=3, scores=True)
    assert (with_scores.margin, with_scores.confidence) == (found.margin, found.confidence)
    if len(others) < score_reference.FEWEST_RIVALS:
        assert (found.margin, found.confidence, found.accepted) == (None, None, False)
        return
    rivals = np.full_like(wanted, -np.inf)
    rivals[others] = wanted[others]
    margin = score - best_of(place_map, 0, query, rivals, 1)[1][0]
    w0, w1, w2 = (np.float32(w) for w in judged.weights)
    if k_weight:
        one = np.float32(1)
        w0 += np.float32(k_weight) * (one / np.sqrt(np.float32(max(k, 0.25))) - one)
        w0 += np.float32(1.5) * (one / np.sqrt(np.float32(0.5)) - one)
    odds = (w0 + w1 * score) + w2 * margin
    assert found.margin == margin
    assert found.confidence == np.float32(1) / (np.float32(1) + exp32(np.array([-odds]))[0])
    assert found.accepted == bool(odds >= np.float32(0.3))


def test_weighing_a_querys_bits_finds_places_that_counting_them_does_not(
    engine: Engine, tmp_path: Path
) -> None:
    """Noise turns the signs of small numbers first, which then count little."""
    rng = np.random.default_rng(4)
    places = rng.standard_normal((400, 64)).astype("f4")
    queries = places + rng.standard_normal(places.shape).astype("f4") * 1.2
    found = {}
    for kind in ("binary", "weighed"):
        info = MapInfo("ab" * 32, kind, 64, (Band(1.0),))
        path = tmp_path / f"{kind}.placemap"
        write_map(path, info, [make_places(info, [places], np.full((400, 7), np.nan))])
        place_map = PlaceMap(path, engine=engine)
        assert place_map.info.kind == kind
        best = [place_map.search(query, 1.0).candidates[0] for query in queries]
        found[kind] = sum(candidate.place == number for number, candidate in enumerate(best))
        assert all(-1 <= candidate.score <= 1 for candidate in best)
    assert path.stat().st_size == (tmp_path / "binary.placemap").stat().st_size
    assert found["weighed"] > 1.1 * found["binary"] > 40


def test_a_library_from_before_weighed_maps_refuses_them_and_searches_others(
    engine: Engine, tiny_onnx: Path, tmp_path: Path, some: Some
) -> None:
    lowered = lower(checked_graph(tiny_onnx), "tiny")
    # The function by which a library says that it knows them goes by a name that is not exported.
    renamed = (
        "-O0",  # nothing is timed
        "-Dtatvpr_map_kind_known=map_kind_known",
        "-Dtatvpr_calibration_known=calibration_known",
    )
    older = Engine(compile_linux(lowered, load("host"), tmp_path / "older", renamed))
    query = np.random.default_rng(3).standard_normal(16).astype(np.float32)
    for kind in ("int8", "binary", "weighed"):
        info = MapInfo("ab" * 32, kind, 16, (Band(1.0),))
        write_map(tmp_path / "m.placemap", info, [some(info, 5)])
        if kind == "weighed":
            break
        found, wanted = (
            PlaceMap(tmp_path / "m.placemap", engine=code).search(query, 1.0, count=5)
            for code in (older, engine)
        )
        assert repr(found) == repr(wanted)
    with pytest.raises(MapError, match="built before there were weighed maps: build the artifact"):
        PlaceMap(tmp_path / "m.placemap", engine=older)
    assert PlaceMap(tmp_path / "m.placemap", engine=engine).search(query, 1.0).candidates
    following = SequenceCalibration(5, 0.0, (0.0,) * 6)
    judged = Calibration("rooted", 0.0, elsewhere_places=1, sequence=following)
    info = MapInfo("ab" * 32, "int8", 16, (Band(1.0, 1.0, judged),))
    write_map(tmp_path / "m.placemap", info, [some(info, 5)])
    with pytest.raises(MapError, match="before there were rooted calibrations"):
        PlaceMap(tmp_path / "m.placemap", engine=older)


def test_what_lies_at_the_mean_is_counted_not_weighed(engine: Engine, tmp_path: Path) -> None:
    mean = np.full(16, 0.25, np.float32)
    info = MapInfo("ab" * 32, "weighed", 16, (Band(1.0, 1.0, None, tuple(mean.tolist())),))
    rows = np.random.default_rng(2).standard_normal((20, 16)).astype("f4")
    write_map(tmp_path / "m.placemap", info, [make_places(info, [rows], np.full((20, 7), np.nan))])
    place_map = PlaceMap(tmp_path / "m.placemap", engine=engine)
    wanted = plain_scores(place_map, 0, mean)
    found = place_map.search(mean, 1.0, count=20)
    order = score_reference.best(wanted, 20)
    assert [c.place for c in found.candidates] == order.tolist()
    assert [c.score for c in found.candidates] == wanted[order].tolist()
    every = place_map.search(mean, 1.0, scores=True).scores
    np.testing.assert_array_equal(every, wanted)


def test_evidence_of_a_path_is_what_a_weighed_map_scores(engine: Engine, tmp_path: Path) -> None:
    """Each frame is so noisy that its signs, counted, speak for its place less often."""
    rng = np.random.default_rng(4)
    places = rng.standard_normal((400, 64)).astype("f4")
    frames = places + rng.standard_normal(places.shape).astype("f4") * 1.6
    right = {}
    for kind in ("binary", "weighed"):
        info = MapInfo("ab" * 32, kind, 64, (Band(1.0),))
        path = tmp_path / f"{kind}.placemap"
        write_map(path, info, [make_places(info, [places])])
        place_map = PlaceMap(path, engine=engine)
        two, right[kind] = FramePath(engine, 2), 0
        for number in range(0, 400, 2):
            two.restart()
            frame = frames[number]
            every = every_score(place_map, 0, frame, plain_scores(place_map, 0, frame))
            first = place_map.follow(two.step, frame, 1.0)
            assert first.tracked is not None and first.candidates[0].score == every.max()
            assert first.tracked.evidence == every[first.tracked.place] == every.max()
            then = place_map.follow(two.step, frames[number + 1], 1.0)
            right[kind] += then.candidates[0].place == number + 1
    assert right["weighed"] > 1.1 * right["binary"] > 40, right


@pytest.mark.parametrize("kind", ["int8", "binary", "weighed"])
def test_the_place_of_a_path_has_this_frames_score_on_the_scale_of_its_candidates(
    engine: Engine, tmp_path: Path, kind: str
) -> None:
    rng = np.random.default_rng(6)
    rows = rng.standard_normal((60, 64)).astype("f4")
    info = MapInfo("ab" * 32, kind, 64, (Band(1.0),))
    write_map(tmp_path / "m.placemap", info, [make_places(info, [rows])])
    place_map = PlaceMap(tmp_path / "m.placemap", engine=engine)
    path, elsewhere = FramePath(engine, 5), 0
    for seen in (20, 21, 22, 45, 24, 25):  # one frame looks like another place
        query = rows[seen] + rng.standard_normal(64).astype("f4") * 0.3
        alone = place_map.search(query, 1.0, count=60).candidates
        found = place_map.follow(path.step, query, 1.0, count=3).candidates
        place = found[0].place
        without = np.arange(60) != place
        own = place_map.search(query, 1.0, without=without).candidates[0]
        assert (own.place, own.score) == (place, found[0].score)
        others = [c for c in alone if c.place != place][:2]
        assert [(c.place, c.score) for c in found[1:]] == [(c.place, c.score) for c in others]
        elsewhere += place != alone[0].place
    assert elsewhere == 1  # the path went on where the frame alone would not have


def test_a_geographic_radius_is_in_metres(engine: Engine, tmp_path: Path) -> None:
    """Over any distance, across the date line too, to a millionth."""
    rng = np.random.default_rng(4)
    info = MapInfo("ab" * 32, "int8", 8, (Band(1.0),), "geographic")
    poses = np.full((60, 7), np.nan)
    poses[:, :2] = rng.uniform((-180, -80), (180, 80), (60, 2))
    poses[:20, :2] = degrees(rng.uniform(-50, 50, (20, 2)))
    rows = rng.standard_normal((60, 8)).astype(np.float32)
    write_map(tmp_path / "m", info, [make_places(info, [rows], poses)])
    place_map = PlaceMap(tmp_path / "m", engine=engine)
    for near in poses[[0, 30, 31], :2]:
        apart = metres_apart(poses[:, :2], near, True)
        for radius in apart[apart > 0]:
            for share in (1 - 1e-6, 1 + 1e-6):
                given = {"near": tuple(near.tolist()), "radius": float(radius * share)}
                scores_of = place_map.search(rows[0], 1.0, scores=True, **given).scores
                assert scores_of is not None
                np.testing.assert_array_equal(np.isfinite(scores_of), apart <= radius * share)


@pytest.mark.parametrize("kind", ["int8", "binary", "weighed"])
def test_queries_that_look_like_nothing_are_told(
    engine: Engine, tmp_path: Path, some: Some, kind: str
) -> None:
    info = MapInfo("ab" * 32, kind, 16, (Band(1.0),))
    write_map(tmp_path / "m", info, [some(info, 3)])
    place_map = PlaceMap(tmp_path / "m", engine=engine)
    for value, words in ((0, "zero"), (1e-12, "zero"), (np.nan, "finite"), (np.inf, "finite")):
        with pytest.raises(MapError, match=words):
            place_map.search(np.full(16, value, np.float32), 1.0)
    for shape in ((15,), (17,), (1, 16), (0,)):
        with pytest.raises(MapError, match=r"have \[16\]"):
            place_map.search(np.ones(shape, np.float32), 1.0)


def test_what_cannot_be_asked_is_told(engine: Engine, tmp_path: Path, some: Some) -> None:
    info = MapInfo("ab" * 32, "int8", 16, (Band(1.0),))
    write_map(tmp_path / "m", info, [some(info, 3)])
    query = np.ones(16, np.float32)
    with pytest.raises(MapError, match="without an artifact's code"):
        PlaceMap(tmp_path / "m").search(query, 1.0)
    place_map = PlaceMap(tmp_path / "m", engine=engine)
    for options, words in (
        ({"near": (1.0, 2.0)}, "needs radius"),
        ({"near": (1.0, 2.0), "radius": 0.0}, "radius is 0.0: how many metres"),
        ({"near": (1.0,), "radius": 1.0}, "near is .*: a position"),
        ({"near": (1.0, np.nan), "radius": 1.0}, "near is .*: a position"),
        ({"near": (1.0, 1e300), "radius": 1.0}, "near is .*: a position"),
        ({"near": (1.0, 1.0, np.inf), "radius": 1.0}, "near is .*: a position"),
        ({"radius": 1.0}, "near="),
        ({"without": np.zeros(2, bool)}, r"without is .*: a mask, bool \[3\]"),
        ({"first": -1}, "from 0 up"),
    ):
        with pytest.raises(UsageError, match=words):
            place_map.search(query, 1.0, **options)
    for k in (0.0, 1.5, np.nan):
        with pytest.raises(UsageError):
            place_map.search(query, k)


def test_scores_stay_within_their_range(engine: Engine, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    info = MapInfo("ab" * 32, "int8", 512, (Band(1.0),))
    rows = rng.standard_normal((200, 512)).astype(np.float32)
    write_map(tmp_path / "m", info, [make_places(info, [rows])])
    place_map = PlaceMap(tmp_path / "m", engine=engine)
    for row in rows:  # its own score rounds to either side of 1
        for query in (row, -row):
            found = place_map.search(query, 1.0, count=200).candidates
            assert -1 <= found[-1].score <= found[0].score <= 1
