"""What a map learns of its own answers, of its frames, and of labelled queries."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image

from support.recordings import BagWriter
from support.tiny_model import TOKENS, tiny_model
from tatvpr_edge import build
from tatvpr_edge.mapping import Picking, build_map, calibrate_map, frames_of
from tatvpr_edge.mapping.calibrate import KS, SETTINGS, ask, fit_band
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
from tatvpr_edge.models.export.bodies import bodies
from tatvpr_edge.runtime import Localizer, PlaceMap
from tatvpr_edge.runtime.engine import Engine
from tatvpr_edge.runtime.mapjournal import append, compact, journal_path
from tatvpr_edge.spec.artifact import read_artifact, write_artifact
from tatvpr_edge.spec.errors import DataError, MapError, UsageError
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


def walk(count: int, seed: int) -> NDArray[np.uint8]:
    """Frames uint8 [count, 64, 96, 3] along a wall of blobs: neighbours share most of it."""
    rng = RNG(seed)
    coarse = rng.integers(0, 256, (4, count + 8, 3), np.uint8)
    wall = Image.fromarray(coarse).resize(((count + 8) * 16, 64), Image.Resampling.BILINEAR)
    pixels = np.asarray(wall)
    return np.stack([pixels[:, 16 * i : 16 * i + 96] for i in range(count)])


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty frames along a wall, half a metre apart."""
    folder = tmp_path_factory.mktemp("walk")
    for index, frame in enumerate(walk(60, 5)):
        Image.fromarray(frame).save(folder / f"{index:03}.png")
    rows = [f"{index:03}.png,{index / 2},0" for index in range(60)]
    (folder / "poses.csv").write_text("\n".join(["name,x,y", *rows]))
    return folder


@pytest.fixture
def walked(tiny_host: Path, frames: Path, tmp_path: Path) -> Path:
    """A map of them, not calibrated."""
    path = tmp_path / "m.placemap"
    with Localizer(tiny_host) as localizer:
        build_map(localizer, frames, path)
    return path


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


@pytest.mark.parametrize("source", ["frames", "queries"])
def test_frames_that_are_damaged_or_show_nothing_teach_nothing(
    source: str, tiny_host: Path, frames: Path, walked: Path, tmp_path: Path
) -> None:
    spoilt = tmp_path / "spoilt"
    shutil.copytree(frames, spoilt)
    for index in range(50, 58):
        Image.new("L", (96, 64), 255 * (index % 2)).save(spoilt / f"{index:03}.png")
    (spoilt / "058.png").write_bytes(b"no picture")
    rest = tmp_path / "rest"
    shutil.copytree(frames, rest)
    rows = [f"{index:03}.png,{index / 2},0" for index in range(60) if not 50 <= index < 59]
    (rest / "poses.csv").write_text("\n".join(["name,x,y", *rows]))
    for index in range(50, 59):
        (rest / f"{index:03}.png").unlink()
    again = tmp_path / "again.placemap"
    shutil.copy(walked, again)
    with Localizer(tiny_host) as localizer:
        done = calibrate_map(localizer, walked, within_m=1.2, **{source: spoilt})
        wanted = calibrate_map(localizer, again, within_m=1.2, **{source: rest})
    assert [frame.name for frame in done.skipped] == [f"{index:03}.png" for index in range(50, 59)]
    assert all("no structure" in frame.reason for frame in done.skipped[:8])
    assert "058.png is no image" in done.skipped[8].reason
    assert done.bands == wanted.bands and wanted.skipped == ()


def test_a_setting_that_changes_nothing_teaches_nothing(
    build_cache: Path, frames: Path, tmp_path: Path
) -> None:
    """A model that keeps all its tokens: half of them would count each answer twice."""
    onnx.save(tiny_model("gem", keep_after=(), functions=bodies(TOKENS)), tmp_path / "all.onnx")
    artifact = build("host", model=tmp_path / "all.onnx", output=tmp_path / "artifact")
    with Localizer(artifact) as localizer:
        build_map(localizer, frames, path := tmp_path / "m.placemap")
        for asked in ({"frames": frames}, {"queries": frames}):
            both = [
                calibrate_map(localizer, path, within_m=1.2, precision=0.6, ks=ks, **asked).bands
                for ks in (KS, SETTINGS)
            ]
            assert both[0] == both[1]


def test_a_k_that_teaches_nothing_is_refused(tiny_onnx: Path, frames: Path, tmp_path: Path) -> None:
    artifact = build("host", model=tiny_onnx, output=tmp_path / "A", k_range=(0.3, 1.0))
    with Localizer(artifact) as localizer:
        build_map(localizer, frames, path := tmp_path / "m.placemap")
        before = path.read_bytes()
        for asked in ({"frames": frames}, {"queries": frames}):
            with pytest.raises(UsageError, match=r"k is 0\.2: .* was built for 0\.3 to 1"):
                calibrate_map(localizer, path, within_m=1.2, ks=(1.0, (0.2, 0.5)), **asked)
        with pytest.raises(UsageError, match="a map's own descriptors are made: give the frames"):
            calibrate_map(localizer, path, within_m=1.2, ks=(1.0,))
        assert path.read_bytes() == before
        # Where nothing is said, what the artifact has is asked.
        calibrate_map(localizer, path, frames=frames, within_m=1.2, precision=0.6)


def test_arguments_of_another_kind_are_one_line_each(tiny_host: Path, walked: Path) -> None:
    with Localizer(tiny_host) as localizer:
        for name, value in (
            *(("precision", value) for value in (None, "0.9", 0.4, float("nan"))),
            *(("within_places", value) for value in (0, "3", 1.5)),
            *(("within_m", value) for value in (0, "5m", float("inf"))),
            *(("ks", value) for value in (0.5, [(1.0,)], [(1.0, 0.5, 0.2)])),
        ):
            asked = {"frames": walked.parent} if name == "ks" else {}
            with pytest.raises(UsageError, match=f"^{name} is "):
                calibrate_map(localizer, walked, **{name: value}, **asked)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"localizer is .*: a Localizer"):
        calibrate_map(str(tiny_host), walked)  # type: ignore[arg-type]


def test_frames_that_are_no_place_of_the_map_are_named(
    tiny_host: Path, frames: Path, walked: Path, tmp_path: Path
) -> None:
    more = tmp_path / "more"
    shutil.copytree(frames, more)
    (more / "poses.csv").unlink()
    strange = ["strange0.png", "strange1.png"]
    for name in strange:
        shutil.copy(frames / "007.png", more / name)
    again = tmp_path / "again.placemap"
    shutil.copy(walked, again)
    with Localizer(tiny_host) as localizer:
        done = calibrate_map(localizer, walked, within_m=1.2, frames=more)
        wanted = calibrate_map(localizer, again, within_m=1.2, frames=frames)
    assert [frame.name for frame in done.skipped] == strange and wanted.skipped == ()
    assert all("no place of the map" in frame.reason for frame in done.skipped)
    assert done.bands == wanted.bands


def test_frames_whose_name_several_places_have_are_named_and_teach_nothing(
    tiny_host: Path, frames: Path, walked: Path, tmp_path: Path
) -> None:
    """Two folders number their frames alike: nobody knows which place a frame of them is."""
    info = PlaceMap(walked).info
    rows = RNG(0).normal(size=(60, info.descriptor_size)).astype("f4")
    append(walked, make_places(info, [rows[:2]], tags=["003.png", "005.png"]))
    twice, less = tmp_path / "twice.placemap", tmp_path / "less"
    shutil.copy(walked, twice)
    shutil.copy(journal_path(walked), journal_path(twice))
    again = tmp_path / "again.placemap"
    shutil.copy(walked, again)
    shutil.copy(journal_path(walked), journal_path(again))
    shutil.copytree(frames, less)
    for name in ("003.png", "005.png"):
        (less / name).unlink()
    (less / "poses.csv").unlink()
    append(twice, make_places(info, [rows], tags=[f"{index:03}.png" for index in range(60)]))
    with Localizer(tiny_host) as localizer:
        done = calibrate_map(localizer, walked, within_m=1.2, frames=frames)
        wanted = calibrate_map(localizer, again, within_m=1.2, frames=less)
        with pytest.raises(DataError, match="named like a place of the map and no other"):
            calibrate_map(localizer, twice, within_m=1.2, frames=frames)
    assert [frame.name for frame in done.skipped] == ["003.png", "005.png"]
    assert all("2 places of the map are called so" in frame.reason for frame in done.skipped)
    assert done.bands == wanted.bands


def test_queries_without_a_position_are_named(
    tiny_host: Path, walked: Path, tmp_path: Path
) -> None:
    """A bag whose odometry ends before its images do."""
    with BagWriter(tmp_path / "drive.bag", "bag") as bag:
        for index, frame in enumerate(walk(60, 5)):
            bag.add("/images", bag.rgb(frame, 10.0 + index), 10.0 + index)
            if index < 51:
                placed = bag.placed("Odometry", 10.0 + index, index / 2, 0.0, 0.0)
                bag.add("/odom", placed, 10.0 + index)
    picking = Picking("/images", "/odom", every_s=0)
    queries = frames_of(tmp_path / "drive.bag", picking)
    with Localizer(tiny_host) as localizer:
        done = calibrate_map(localizer, walked, queries, within_m=1.2)
        assert len(done.skipped) == len(queries) - 51 == 9
        assert all("no position in /odom" in frame.reason for frame in done.skipped)
        with pytest.raises(DataError, match="not one frame has a position"):
            calibrate_map(localizer, walked, queries[51:], within_m=1.2)


def test_places_without_a_position_are_no_wrong_answers_to_labelled_queries(
    tiny_host: Path, frames: Path, walked: Path, tmp_path: Path
) -> None:
    """A drive whose receiver had no fix, through the places of another: it looks as they do."""
    stored, info = PlaceMap(walked).stored.places(), PlaceMap(walked).info
    blind = np.full((60, 7), np.nan)
    moments = stored.moments.copy()
    moments["known"], moments["drive"] = 0, 1
    both = tmp_path / "both.placemap"
    write_map(both, info, [replace(stored, poses=blind, moments=moments), stored])
    with Localizer(tiny_host) as localizer:
        done = calibrate_map(localizer, both, frames, within_m=1.2)
        wanted = calibrate_map(localizer, walked, frames, within_m=1.2)
    (one,), (other,) = done.bands, wanted.bands
    bare = [replace(made.calibration, sequence=None) for made in (one, other)]
    assert bare[0] == bare[1] and one.by_setting == other.by_setting
    assert one.sequence is not None and other.sequence is not None
    # A frame's lead is summed in the places' order: its last digits differ, and so may an answer
    # that is as good as another.
    for made in (one.sequence, other.sequence):
        assert made.answers == 400 and abs(made.right - 247) <= 1


@pytest.mark.parametrize("source", ["itself", "frames"])
def test_nor_to_the_places_of_another_drive(
    source: str, tiny_host: Path, frames: Path, walked: Path, tmp_path: Path
) -> None:
    """The same map, asked of itself: what stands in an order is judged along that alone."""
    stored, info = PlaceMap(walked).stored.places(), PlaceMap(walked).info
    moments = stored.moments.copy()
    moments["known"], moments["drive"] = 0, 1
    tags = tuple(f"blind/{tag}" for tag in stored.tags)
    blind = replace(stored, poses=np.full((60, 7), np.nan), moments=moments, tags=tags)
    both = tmp_path / "both.placemap"
    write_map(both, info, [stored, blind])
    asked = {"itself": {}, "frames": {"frames": frames}}[source]
    with Localizer(tiny_host) as localizer:
        done = calibrate_map(localizer, both, within_m=1.2, within_places=2, **asked)
        wanted = calibrate_map(localizer, walked, within_m=1.2, **asked)
    (one,), (other,) = done.bands, wanted.bands
    drives = 2 if source == "itself" else 1
    assert (one.answers, one.right) == (drives * other.answers, drives * other.right)


def test_code_that_could_not_open_the_map_afterwards_teaches_it_no_sequences(
    tiny_host: Path, walked: Path, tmp_path: Path
) -> None:
    new = read_artifact(tiny_host)
    files = {entry.path: (tiny_host / entry.path).read_bytes() for entry in new.manifest.files}
    code = new.manifest.code.path
    files[code] = files[code].replace(b"tatvpr_calibration_known", b"tatvpr_calibration_knowm")
    write_artifact(tmp_path / "older", new.manifest, files)
    before = walked.read_bytes()
    with Localizer(tmp_path / "older") as localizer:
        with pytest.raises(MapError, match=r"before there were rooted .*: build the art"):
            calibrate_map(localizer, walked, within_m=1.2)
        assert walked.read_bytes() == before
        calibrate_map(localizer, walked, within_m=1.2, sequence=1)
    with Localizer(tmp_path / "older", walked) as localizer:
        assert localizer.query(walk(1, 5)[0]).confidence is not None


def test_what_cannot_be_learned_from_is_refused_and_the_map_stays(
    tiny_host: Path, frames: Path, walked: Path, tmp_path: Path
) -> None:
    before = walked.read_bytes()
    bare = tmp_path / "bare"
    bare.mkdir()
    Image.fromarray(walk(1, 9)[0]).save(bare / "x.png")
    afar = tmp_path / "afar.csv"  # of an odometry that began elsewhere
    afar.write_text((frames / "poses.csv").read_text().replace(",0", ",1000"))
    with Localizer(tiny_host) as localizer:
        with pytest.raises(DataError, match="right answers, 20 are needed"):
            calibrate_map(localizer, walked, within_m=0.1)
        with pytest.raises(DataError, match=r"hardly a place .* more than 4000 m .* a narrower"):
            calibrate_map(localizer, walked, within_m=1000.0)
        described: list[int] = []  # hours of it, where queries are many
        with pytest.raises(DataError, match=r": no query lies within 5 m of a place: give them"):
            calibrate_map(localizer, walked, frames, poses=afar, progress=described.append)
        with pytest.raises(DataError, match=r"^0 right answers at most, 20 are needed"):
            calibrate_map(localizer, walked, frames=frames, within_m=0.1, progress=described.append)
        assert not described
        with pytest.raises(DataError, match="have no positions: give --poses"):
            calibrate_map(localizer, walked, bare)
        with pytest.raises(DataError, match="named like a place of the map"):
            calibrate_map(localizer, walked, frames=bare)
        with pytest.raises(UsageError, match="not both"):
            calibrate_map(localizer, walked, bare, frames=bare)
        with pytest.raises(UsageError, match="precision is 1"):
            calibrate_map(localizer, walked, precision=1.0)
        with pytest.raises(MapError, match="cannot read the map"):
            calibrate_map(localizer, tmp_path / "none")
    assert walked.read_bytes() == before
