"""What a map learns of its own answers, of its frames, and of labelled queries."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.walks import walk
from tatvpr_edge.mapping import calibrate_map
from tatvpr_edge.mapping.calibrate import ask, fit_band
from tatvpr_edge.mapping.calibrate_queries import (
    Asked,
    Truth,
    own_count,
    own_descriptors,
    stored_descriptor,
)
from tatvpr_edge.mapping.calibrate_sequences import ask_sequences, fit_sequences
from tatvpr_edge.mapping.logistic import (
    expected_calibration_error,
)
from tatvpr_edge.runtime import Localizer, PlaceMap
from tatvpr_edge.runtime.engine import Engine
from tatvpr_edge.runtime.mapjournal import append, compact, journal_path
from tatvpr_edge.spec.artifact import read_artifact
from tatvpr_edge.spec.errors import MapError
from tatvpr_edge.spec.placemap import Band, MapInfo, Places, Rows, make_places, write_map

RNG = np.random.default_rng


@pytest.mark.parametrize("kind", ["int8", "binary", "weighed"])
@pytest.mark.parametrize("with_mean", [False, True])
def test_a_place_s_own_descriptor_finds_it_with_the_highest_score(
    kind: str, with_mean: bool, tiny_host: Path, tmp_path: Path
) -> None:
    rng = RNG(3)
    mean = tuple(rng.normal(size=40).astype("f4").tolist()) if with_mean else None
    band = Band(1.0, mean=None if kind == "int8" else mean)
    info = MapInfo("ab" * 32, kind, 40, (band,), descriptor_size=48)
    path = tmp_path / "m"

    def some(count: int) -> Places:
        return make_places(info, [rng.normal(size=(count, 48)).astype("f4")])

    write_map(path, info, [some(30)])
    append(path, some(4))
    place_map = PlaceMap(path, engine=Engine.of(read_artifact(tiny_host)))
    for place in (0, 29, 30, 33):
        best = place_map.search(stored_descriptor(place_map, 0, place), 1.0).candidates[0]
        assert best.place == place and best.score == pytest.approx(1, abs=1e-6)


def test_a_large_map_is_asked_in_short_drives_all_over_it(tmp_path: Path) -> None:
    info = MapInfo("ab" * 32, "int8", 4, (Band(1.0),))
    write_map(tmp_path / "m", info, [make_places(info, [RNG(0).normal(size=(2600, 4))])])
    place_map = PlaceMap(tmp_path / "m")
    asked = [query.own for query in own_descriptors(place_map, Truth(place_map, 5.0, 3))]
    assert len(asked) == own_count(place_map) and 1500 < len({*asked}) == len(asked) <= 2000
    breaks = np.flatnonzero(np.diff(asked) != 1) + 1
    drives = np.split(np.array(asked), breaks)
    assert (asked[0], asked[-1]) == (0, 2599) and min(map(len, drives)) >= 40
    assert max(np.diff(asked)) < 40


@pytest.mark.parametrize("source", ["itself", "frames", "queries"])
def test_a_calibrated_map_says_how_sure_each_answer_is(
    source: str, tiny_host: Path, frames: Path, walked: Path
) -> None:
    given = {"itself": {}, "frames": {"frames": frames}, "queries": {"queries": frames}}[source]
    with Localizer(tiny_host) as localizer:
        before = [PlaceMap(walked).tag(place) for place in range(60)]
        done = calibrate_map(localizer, walked, within_m=1.2, precision=0.9, **given)
    (band,) = done.bands
    assert band.right >= 20 and band.answers - band.right >= 20
    stored = PlaceMap(walked)
    kept = stored.info.bands[0].calibration
    assert kept is not None and kept.weights == pytest.approx(band.calibration.weights)
    assert kept.threshold == pytest.approx(band.calibration.threshold)
    assert kept.precision == pytest.approx(0.9) and kept.elsewhere_m == pytest.approx(4.8)
    assert [stored.tag(place) for place in range(60)] == before
    with Localizer(tiny_host, walked, k=1.0) as localizer:
        match = localizer.query(walk(60, 5)[30])
        assert match.place == 30 and match.margin is not None
        w0, w1, w2 = band.calibration.weights
        odds = w0 + w1 * match.score + w2 * match.margin
        assert match.confidence == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-4)
        assert match.accepted is (odds >= band.calibration.threshold)
        assert (match.reason is None) == bool(match.accepted)


def test_the_map_s_own_frames_need_no_table_beside_them(
    tiny_host: Path, frames: Path, walked: Path, tmp_path: Path
) -> None:
    """One that lacked a row ended it, although a map made by --poses had never looked at it."""
    own = tmp_path / "own"
    shutil.copytree(frames, own)
    (own / "poses.csv").write_text("name,x,y\n000.png,0,0\n")
    with Localizer(tiny_host) as localizer:
        done = calibrate_map(localizer, walked, frames=own, within_m=1.2, sequence=1)
    assert not done.skipped


def test_queries_that_the_map_was_made_of_are_told(
    tiny_host: Path, frames: Path, walked: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They find themselves: all of them were accepted, and so it was promised of any."""
    queries = tmp_path / "queries"
    shutil.copytree(frames, queries)
    table = queries / "poses.csv"
    with Localizer(tiny_host) as localizer:
        for told in (["60 of 60 queries have the name and the position of a place"], []):
            caplog.clear()
            calibrate_map(localizer, walked, queries, within_m=1.2, sequence=1)
            assert [record.getMessage().partition(":")[0] for record in caplog.records] == told
            rows = [f"{index:03}.png,{index / 2},0.1" for index in range(60)]  # another drive
            table.write_text("\n".join(["name,x,y", *rows]))


def test_a_lift_takes_queries_elsewhere(tiny_host: Path, tmp_path: Path) -> None:
    """What is right and which queries follow each other are told by altitudes too, where known."""
    info = MapInfo("ab" * 32, "int8", 512, (Band(1.0),))
    poses = np.full((4, 7), np.nan)
    poses[:, :3] = [[0, 0, 0], [1, 0, 0], [1, 0, 12], [1, 0, np.nan]]
    write_map(tmp_path / "m", info, [make_places(info, [np.eye(4, 512, dtype="f4")], poses)])
    truth = Truth(PlaceMap(tmp_path / "m", engine=Engine.of(read_artifact(tiny_host))), 2.0, 1)
    right, around = truth.of_position(poses[1])
    assert right.tolist() == around.tolist() == [True, True, False, True]
    assert truth.drives(list("abcd"), poses) == [0, 0, 1, 1]
    assert truth.drives(["x/a", "x/b", "y/c", "y/d"], poses[[0, 1, 0, 1]]) == [0, 0, 1, 1]


def asked_both_ways(
    kind: str, rho: float, engine: Engine, path: Path
) -> tuple[PlaceMap, Truth, list[Asked], list[Asked]]:
    """A map in which each place is as like the next as a query is to its place; its own descriptors
    as queries, and other frames of its places."""
    rng, info = RNG(8), MapInfo("ab" * 32, kind, 512, (Band(1.0),))
    noise = rng.normal(size=(2, 400, 512)).astype("f4") * (1 - rho**2) ** 0.5
    rows = noise[0].copy()
    for place in range(1, len(rows)):
        rows[place] += rho * rows[place - 1]
    poses = np.full((len(rows), 7), np.nan)
    poses[:, 0], poses[:, 1] = np.arange(len(rows)), 0.0
    write_map(path, info, [make_places(info, [rows], poses)])
    place_map = PlaceMap(path, engine=engine)
    truth = Truth(place_map, 1.0, 1)
    queries = [
        Asked(row, 1.0, 1.0, *truth.of_position(pose))
        for row, pose in zip(rho * rows + noise[1], poses, strict=True)
    ]
    return place_map, truth, own_descriptors(place_map, truth), queries


@pytest.mark.parametrize("kind", ["int8", "binary", "weighed"])
def test_what_a_map_learns_of_its_own_descriptors_holds_for_queries(
    kind: str, tiny_host: Path, tmp_path: Path
) -> None:
    engine = Engine.of(read_artifact(tiny_host))
    place_map, truth, own, queries = asked_both_ways(kind, 0.3, engine, tmp_path / "m.placemap")
    made = fit_band(place_map, truth, ask(place_map, truth, own), 0, 0.8).calibration
    answers = ask(place_map, truth, queries)
    odds = answers.odds(made.weights, made.dials)
    taken = odds >= made.threshold
    assert taken.sum() > 300 and answers.right[taken].mean() >= 0.8
    assert expected_calibration_error(1 / (1 + np.exp(-odds)), answers.right) < 0.1


@pytest.mark.parametrize("kind", ["int8", "binary", "weighed"])
def test_what_it_learns_of_them_in_order_holds_for_sequences_of_queries(
    kind: str, tiny_host: Path, tmp_path: Path
) -> None:
    engine = Engine.of(read_artifact(tiny_host))
    place_map, truth, own, queries = asked_both_ways(kind, 0.3, engine, tmp_path / "m.placemap")
    judging = truth.judging(place_map)
    made = fit_sequences(ask_sequences(judging, engine, own, 3), 0, 3, 0.95)
    assert made is not None
    answers = ask_sequences(judging, engine, queries, 3)
    learned = made.calibration
    odds = answers.odds(learned.weights, learned.dials)
    taken = odds >= learned.threshold
    assert taken.sum() > 300 and answers.right[taken].mean() >= 0.95
    assert expected_calibration_error(1 / (1 + np.exp(-odds)), answers.right) < 0.02


def test_a_drive_of_thirty_frames_a_second_teaches_what_its_places_do(
    tiny_host: Path, tmp_path: Path
) -> None:
    """Stretches were cut by frames, be they new: of many a place none was as long as a sequence,
    and a robot that stood was a path that began again and again."""
    engine = Engine.of(read_artifact(tiny_host))
    place_map, truth, _, queries = asked_both_ways("int8", 0.3, engine, tmp_path / "m.placemap")
    judging = truth.judging(place_map)
    slow = [query for query in queries[:60] for _ in range(50)]
    once, often = (ask_sequences(judging, engine, asked, 3) for asked in (queries[:60], slow))
    assert len(once) == 120 and not once.few.all()
    np.testing.assert_array_equal(often.columns, once.columns)
    np.testing.assert_array_equal(often.few, once.few)


def test_places_in_the_journal_are_kept_and_judged_too(
    tiny_host: Path, walked: Path, tmp_path: Path
) -> None:
    size = PlaceMap(walked).info.descriptor_size
    row = RNG(0).normal(size=(1, size)).astype("f4")
    append(walked, make_places(PlaceMap(walked).info, [row], tags=["added"]))
    with Localizer(tiny_host) as localizer:
        calibrate_map(localizer, walked, within_m=1.2)
    assert PlaceMap(walked).tag(60) == "added" and not journal_path(walked).exists()


def test_a_map_that_was_made_anew_meanwhile_is_not_judged_by_the_old_one_s_answers(
    tiny_host: Path, walked: Path, tmp_path: Path
) -> None:
    """Of the same model, kind and bands: confidences were learned of places that it never held."""
    info, stored = PlaceMap(walked).info, PlaceMap(walked).stored.places()
    (rows,) = stored.rows
    assert rows.norms is not None
    turned = Rows(rows.data[::-1].copy(), rows.norms[::-1].copy())
    path, fresh = tmp_path / "judged.placemap", tmp_path / "fresh.placemap"

    def meanwhile(_: int) -> None:
        if fresh.exists():
            fresh.replace(path)

    for of, places in (
        (info, replace(stored, rows=(turned,))),  # other frames
        (info, replace(stored, poses=stored.poses[::-1].copy())),  # other positions
        (info, replace(stored, rows=(Rows(rows.data[:59], rows.norms[:59]),), tags=stored.tags[:59],
                       poses=stored.poses[:59], moments=stored.moments[:59])),
        (replace(info, bands=(Band(0.6),)), stored),
    ):  # fmt: skip
        shutil.copy(walked, path)
        write_map(fresh, of, [places])
        wanted = fresh.read_bytes()
        told = pytest.raises(MapError, match="was made anew meanwhile: calibrate it again")
        with Localizer(tiny_host) as localizer, told:
            calibrate_map(localizer, path, within_m=1.2, sequence=1, progress=meanwhile)
        assert path.read_bytes() == wanted


def test_places_that_a_robot_adds_and_folds_in_meanwhile_are_kept(
    tiny_host: Path, walked: Path
) -> None:
    info = PlaceMap(walked).info
    rows = RNG(0).normal(size=(3, 1, info.descriptor_size)).astype("f4")
    append(walked, make_places(info, [rows[0]], tags=["before"]))
    new = ["folded in", "added"]

    def meanwhile(_: int) -> None:
        if new:
            append(walked, make_places(info, [rows[len(new)]], tags=[new.pop(0)]))
            if new:
                compact(walked)

    with Localizer(tiny_host) as localizer:
        calibrate_map(localizer, walked, within_m=1.2, sequence=1, progress=meanwhile)
    done = PlaceMap(walked)
    assert [done.tag(place) for place in (60, 61, 62)] == ["before", "folded in", "added"]
    assert done.info.bands[0].calibration is not None
