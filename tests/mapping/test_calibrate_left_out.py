"""What teaches a map nothing when it is calibrated, and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from support.recordings import BagWriter
from support.tiny_model import TOKENS, tiny_model
from support.walks import walk
from tatvpr_edge import build
from tatvpr_edge.mapping import Picking, build_map, calibrate_map, frames_of
from tatvpr_edge.mapping.calibrate import KS, SETTINGS
from tatvpr_edge.models.export.bodies import bodies
from tatvpr_edge.runtime import Localizer, PlaceMap
from tatvpr_edge.runtime.mapjournal import append, journal_path
from tatvpr_edge.spec.artifact import read_artifact, write_artifact
from tatvpr_edge.spec.errors import DataError, MapError, UsageError
from tatvpr_edge.spec.placemap import make_places, write_map

RNG = np.random.default_rng


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
