"""What ``map`` and ``query`` refuse: one line that says why, and nothing left behind."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_map_and_query import NAMES

from tatvpr_edge.runtime import MapWriter, PlaceMap
from tatvpr_edge.spec.errors import MapError, UsageError
from tatvpr_edge.spec.placemap import Band, MapInfo, make_places, write_map

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def build(tatvpr: Run, tiny_host: Path, tmp_path: Path) -> Callable[..., str]:
    """Runs a map build that must fail; gives its error; checks that nothing is left."""

    def run(frames: str | Path, *options: str | Path, status: int = 1) -> str:
        before = sorted(path.name for path in tmp_path.rglob("*"))
        done = tatvpr(
            *("map", "build", frames, "--artifact", tiny_host, "-o", "m.placemap", *options),
            status=status,
        )
        assert sorted(path.name for path in tmp_path.rglob("*")) == before
        return done.stderr.splitlines()[-1]

    return run


def test_an_empty_or_missing_folder_is_told(build: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("x")
    assert "holds no frame" in build("empty")
    assert "no such file or folder" in build("nowhere")


@pytest.mark.parametrize("length", [0, 1, 20, 400, -200])
def test_a_corrupt_jpeg_is_named(
    build: Callable[..., str], folder: Path, tmp_path: Path, length: int
) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    data = (folder / "a" / "photo.JPG").read_bytes()
    (frames / "photo.JPG").write_bytes(data[:length])
    assert "photo.JPG" in build("frames")  # the only one there is
    shutil.copy(folder / "rgb.png", frames)
    assert "photo.JPG" in build("frames", "--strict")


def test_damaged_frames_are_listed_and_the_rest_is_mapped(
    tatvpr: Run, folder: Path, tiny_host: Path, tmp_path: Path
) -> None:
    frames = tmp_path / "frames"
    shutil.copytree(folder, frames)
    whole = (frames / "a" / "photo.JPG").read_bytes()
    (frames / "a" / "photo.JPG").write_bytes(whole[: len(whole) // 2])
    (frames / "zz.png").write_bytes(b"no picture")
    done = tatvpr("map", "build", "frames", "--artifact", tiny_host, "-o", "m", "--json")
    document = json.loads(done.stdout)
    assert document["places"] == 9
    assert [frame["name"] for frame in document["skipped"]] == ["a/photo.JPG", "zz.png"]
    assert "damaged" in document["skipped"][0]["reason"]
    tags = [PlaceMap(tmp_path / "m").tag(place) for place in range(9)]
    assert tags == [name for name in NAMES if name != "a/photo.JPG"]
    again = tatvpr("map", "add", "m", "frames", "--artifact", tiny_host)
    assert "9 places" in again.stdout
    assert "9 of 9 frames stand in the map already: not added again" in again.stderr
    assert again.stderr.count("left out: ") == 3 and "photo.JPG is damaged" in again.stderr


def test_damaged_frames_are_named_and_the_rest_is_answered(
    tatvpr: Run, folder: Path, tiny_host: Path, tmp_path: Path
) -> None:
    tatvpr("map", "build", folder, "--artifact", tiny_host, "-o", "m")
    frames = tmp_path / "frames"
    shutil.copytree(folder, frames)
    (frames / "a" / "photo.JPG").write_bytes(b"no picture")
    asked = ("--artifact", tiny_host, "--map", "m")
    done = tatvpr("query", "frames", *asked, "--json")
    found = [item["frame"].removeprefix("frames/") for item in json.loads(done.stdout)]
    assert found == [name for name in NAMES if name != "a/photo.JPG"]
    assert done.stderr.count("left out: frames/a/photo.JPG is no image") == 1
    table = tatvpr("query", "frames", *asked, "--sequence", "3")
    assert len(table.stdout.splitlines()) == len(NAMES)
    assert f"left out: 1 of {len(NAMES)} frames" in table.stderr
    # As a shell writes frames/*.jpg: one of them does not take away the others' answers.
    named = tatvpr("query", *(frames / name for name in NAMES), *asked, "--json")
    assert len(json.loads(named.stdout)) == len(NAMES) - 1
    assert named.stderr.count(f"left out: {frames / 'a' / 'photo.JPG'} is no image") == 1
    # One that is alone, and a folder of nothing else, have no answer.
    alone = tatvpr("query", frames / "a" / "photo.JPG", *asked, status=1)
    assert "photo.JPG is no image" in alone.stderr and not alone.stdout
    for name in NAMES:
        (frames / name).write_bytes(b"no picture")
    nothing = tatvpr("query", "frames", *asked, status=1)
    assert f"not one of {len(NAMES)} frames can be used" in nothing.stderr


def test_frames_of_nothing_are_listed_and_the_rest_is_mapped(
    tatvpr: Run, folder: Path, tiny_host: Path, tmp_path: Path
) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    shutil.copy(folder / "rgb.png", frames)
    Image.new("RGB", (320, 240)).save(frames / "black.png")
    Image.new("L", (640, 480), 200).save(frames / "cap.jpg")
    make = ("map", "build", "frames", "--artifact", tiny_host, "-o", "m")
    stopped = tatvpr(*make, "--strict", status=1).stderr.splitlines()[-1]
    assert "frames/black.png: the frame shows no structure (0.0 gray levels" in stopped
    done = tatvpr(*make)
    assert "m: 1 places" in done.stdout
    left = [line for line in done.stderr.splitlines() if line.startswith("left out: ")]
    assert len(left) == 3 and "black.png: the frame shows no" in left[0] and "cap.jpg" in left[1]
    assert left[2] == "left out: 2 of 3 frames (--strict stops)"
    document = json.loads(
        tatvpr("map", "add", "m", "frames", "--artifact", tiny_host, "--json").stdout
    )
    assert (document["places"], document["known"]) == (1, 1)
    assert [frame["name"] for frame in document["skipped"]] == ["black.png", "cap.jpg"]
    (frames / "rgb.png").unlink()
    assert "not one of 2 frames can be used: " in tatvpr(*make[:-1], "n", status=1).stderr
    # Somebody else's descriptors are of every frame, and a robot may ask with any.
    described = tatvpr("describe", "frames", "--artifact", tiny_host, "-o", "d.npy")
    assert "float32 [2, 48]" in described.stdout
    assert tatvpr("query", "frames/black.png", "--artifact", tiny_host, "--map", "m").stdout


@pytest.mark.parametrize("command", ["map", "describe"])
def test_of_many_frames_left_out_the_first_are_named_and_the_rest_counted(
    tatvpr: Run, folder: Path, tiny_host: Path, tmp_path: Path, command: str
) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    shutil.copy(folder / "rgb.png", frames)
    for index in range(45):
        (frames / f"{index:03}.png").write_bytes(b"no picture")
    make = {"map": ("map", "build", "frames", "-o"), "describe": ("describe", "frames", "-o")}
    given = (*make[command], "out.npy", "--artifact", tiny_host)
    said = tatvpr(*given).stderr.splitlines()
    left = [line for line in said if line.startswith("left out: ")]
    assert [f"{index:03}.png is no image" in line for index, line in enumerate(left)] == (
        [True] * 20 + [False] * 2
    )
    assert left[20:] == [
        "left out: 25 more (--json names all)",
        "left out: 45 of 46 frames (--strict stops)",
    ]
    (tmp_path / "out.npy").unlink()
    document = json.loads(tatvpr(*given, "--json").stdout)
    assert len(document["skipped"]) == 45 and document["skipped"][44]["name"] == "044.png"


def test_without_an_artifact_a_command_names_its_own_option(
    tatvpr: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was built for another board is not looked for."""
    for name in ("HOME", "XDG_CACHE_HOME", "TATVPR_EDGE_ROOT"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    said = tatvpr("map", "build", folder, "-o", "m", status=1).stderr
    assert "run 'tatvpr-edge build --board host'" in said and "give --artifact PATH" in said


def test_a_picture_of_too_many_pixels_is_told(build: Callable[..., str], tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    size = struct.pack(">IIBBBBB", 40000, 30000, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", size), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    (frames / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )
    )
    assert "too many pixels" in build("frames")


def test_a_name_of_newlines_stays_one_line(
    build: Callable[..., str], folder: Path, tmp_path: Path
) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    (frames / "a\nb[red].jpg").write_bytes(b"no picture")
    assert "is no image" in build("frames")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a header"),
        ("a,b\n1,2\n", "expected a header"),
        ("name,x,y\nrgb.png,1,2\n", "no row for a/alpha.png"),
        ("name,x,y\na/alpha.png,one,2\n", "line 2"),
        ("name,x,y\na/alpha.png,inf,2\n", "line 2"),
        ("name,x,y\na/alpha.png,,2\n", "line 2"),
    ],
)
def test_a_bad_table_of_poses_is_told(
    build: Callable[..., str], folder: Path, tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "poses.csv").write_text(text)
    assert words in build(folder, "--poses", "poses.csv")


def test_half_named_frames_are_told(
    build: Callable[..., str], folder: Path, tmp_path: Path
) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    shutil.copy(folder / "rgb.png", frames / "@1@2@.png")
    shutil.copy(folder / "rgb.png", frames / "rgb.png")
    assert "rgb.png has no position in its name" in build("frames")
    (frames / "rgb.png").rename(frames / "@x@2@.png")
    assert "not named @utm_e@utm_n@" in build("frames")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--kind", "float"], "float"),
        (["--bands", "1,2"], "k is"),
        (["--bands", "1,1"], "twice"),
        (["--bands", "fast"], "k is"),
        (["--bands", "1:0"], "tokens is"),
    ],
)
def test_wrong_usage_is_told(
    build: Callable[..., str], folder: Path, options: list[str], words: str
) -> None:
    assert words in build(folder, *options, status=2)


def test_a_band_that_no_query_could_ask_for_is_told(
    build: Callable[..., str], folder: Path, tiny_host: Path, tmp_path: Path
) -> None:
    assert "k is 0.01: this artifact was built for" in build(folder, "--bands", "1,0.01")
    with pytest.raises(UsageError, match=r"k is 0\.01: this artifact was built for"):
        MapWriter(tmp_path / "w", tiny_host, bands=((0.01, 1.0),))
    assert not (tmp_path / "w").exists()


def test_a_map_is_made_at_the_highest_k_of_an_artifact_that_ends_below_one(
    tatvpr: Run, tiny_onnx: Path, folder: Path, tmp_path: Path
) -> None:
    tatvpr("build", "--board", "host", "--model", tiny_onnx, "--k-range", "0.1:0.5", "-o", "low")
    tatvpr("map", "build", folder, "--artifact", "low", "-o", "m")
    assert [(band.k, band.tokens) for band in PlaceMap(tmp_path / "m").info.bands] == [(0.5, 1.0)]


@pytest.mark.parametrize("command", ["query", "watch"])
def test_more_frames_than_an_answer_can_rest_on_are_wrong_usage(
    tatvpr: Run, folder: Path, command: str
) -> None:
    done = tatvpr(command, folder, "--sequence", "1001", status=2)
    assert "1<=x<=1000" in done.stderr


def test_a_row_without_a_position_is_a_place_without_one(
    tatvpr: Run, tiny_host: Path, folder: Path, tmp_path: Path
) -> None:
    rows = ["name,x,y", *(f"{name},{i},{i}" for i, name in enumerate(NAMES[1:])), f"{NAMES[0]},,"]
    (tmp_path / "p.csv").write_text("\n".join(rows))
    tatvpr("map", "build", folder, "-o", "m", "--artifact", tiny_host, "--poses", "p.csv")
    poses = [PlaceMap(tmp_path / "m").pose(place) for place in range(len(NAMES))]
    assert [bool(np.isnan(pose[0])) for pose in poses] == [True] + [False] * 9


def test_an_output_that_exists_is_told_and_kept(
    tatvpr: Run, folder: Path, tiny_host: Path, tmp_path: Path
) -> None:
    (tmp_path / "m").write_text("precious")
    arguments = ["map", "build", folder, "--artifact", tiny_host, "-o"]
    assert "exists already" in tatvpr(*arguments, "m", status=1).stderr
    assert (tmp_path / "m").read_text() == "precious"
    (tmp_path / "maps").mkdir()
    inside = tatvpr(*arguments, "maps/", status=1).stderr
    assert "maps is a folder: name a file in it" in inside and "remove" not in inside
    assert "no does not exist: create it first" in tatvpr(*arguments, "no/where", status=1).stderr


def test_a_new_map_does_not_bring_back_what_was_added_to_a_removed_one(
    tatvpr: Run, folder: Path, tiny_host: Path, tmp_path: Path
) -> None:
    by = ("--artifact", tiny_host)
    tatvpr("map", "build", folder, *by, "-o", "m")
    tatvpr("map", "add", "m", folder, *by, "--single-view")
    (tmp_path / "m").unlink()  # its journal fits the same map, made once more
    told = tatvpr("map", "build", folder, *by, "-o", "m", status=1).stderr
    assert "m.journal is what was added to a map that is gone: remove it as well" in told
    assert "frames:" not in told and not (tmp_path / "m").exists()
    with pytest.raises(MapError, match="a map that is gone"):
        MapWriter(tmp_path / "m", tiny_host)
    assert not (tmp_path / "m").exists()


def test_adding_nothing_good_changes_nothing(
    tatvpr: Run, folder: Path, a_map: Path, tiny_host: Path, tmp_path: Path
) -> None:
    shutil.copy(a_map, tmp_path / "m")
    frames = tmp_path / "frames"
    shutil.copytree(folder, frames)
    (frames / "zz.jpg").write_bytes(b"no picture")
    done = tatvpr("map", "add", "m", frames, "--artifact", tiny_host, "--strict", status=1)
    assert "zz.jpg is no image" in done.stderr
    assert (tmp_path / "m").read_bytes() == a_map.read_bytes()
    assert not (tmp_path / "m.journal").exists()


@pytest.mark.parametrize("k", ["0", "1.5", "nan", "fast", "-1"])
def test_a_bad_k_is_wrong_usage_with_its_range(
    tatvpr: Run, folder: Path, a_map: Path, tiny_host: Path, k: str
) -> None:
    arguments = ["query", folder / "rgb.png", "--artifact", tiny_host, "--map", a_map]
    done = tatvpr(*arguments, f"--k={k}", status=2)
    assert "above 0 and at most 1" in done.stderr
    assert "above 0 and at most 1" in tatvpr(*arguments, f"--tokens={k}", status=2).stderr


def test_bad_maps_and_artifacts_are_told(
    tatvpr: Run, folder: Path, a_map: Path, tiny_host: Path, tmp_path: Path
) -> None:
    frame = folder / "rgb.png"

    def error(artifact: str | Path, place_map: str | Path) -> str:
        arguments = ["query", frame, "--artifact", artifact, "--map", place_map]
        return tatvpr(*arguments, status=1).stderr

    (tmp_path / "cut").write_bytes(a_map.read_bytes()[:-1])
    assert "truncated" in error(tiny_host, "cut")
    info = MapInfo("ab" * 32, "int8", 48, (Band(1.0),))
    write_map(tmp_path / "other", info, [make_places(info, [np.eye(1, 48, dtype=np.float32)])])
    assert "another model" in error(tiny_host, "other")
    assert "cannot read the map nowhere" in error(tiny_host, "nowhere")
    assert "it is a folder, and a map is one file" in error(tiny_host, folder)
    swapped = tatvpr("map", "add", folder, a_map, "--artifact", tiny_host, status=1).stderr
    assert "it is a folder, and a map is one file" in swapped
    assert "no such folder" in error("nowhere", a_map)
    shutil.copytree(tiny_host, tmp_path / "damaged")
    (tmp_path / "damaged" / "weights.bin").write_bytes(b"short")
    assert "weights.bin is truncated" in error("damaged", a_map)


def test_a_query_without_a_map_is_told(tatvpr: Run, folder: Path, tiny_host: Path) -> None:
    done = tatvpr("query", folder / "rgb.png", "--artifact", tiny_host, status=1)
    assert "give --map" in done.stderr


def test_budgets_belong_to_auto(tatvpr: Run, folder: Path, a_map: Path, tiny_host: Path) -> None:
    arguments = ["query", folder / "rgb.png", "--artifact", tiny_host, "--map", a_map]
    assert "--k auto" in tatvpr(*arguments, "--budget", "5W", status=2).stderr
    assert "budget" in tatvpr(*arguments, "--k", "auto", status=1).stderr
    done = tatvpr(*arguments, "--k", "auto", "--preset", "battery-saver")
    assert "rgb.png" in done.stdout
