"""``map`` and ``query``, as a user runs them: any image, poses from names or a table."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tatvpr_edge.runtime import PlaceMap

Run = Callable[..., subprocess.CompletedProcess[str]]
NAMES = [
    "a/alpha.png",
    "a/b/gray_alpha.png",
    "a/b/large.jpg",
    "a/b/palette.png",
    "a/b/small size.png",
    "a/gray.jpeg",
    "a/photo.JPG",
    "cmyk.jpg",
    "deep.png",
    "rgb.png",
]


def test_a_map_is_built_and_every_frame_is_found(
    tatvpr: Run, folder: Path, tiny_host: Path, tmp_path: Path
) -> None:
    done = tatvpr("map", "build", folder, "--artifact", tiny_host, "-o", "m.placemap")
    assert "10 places, int8 x 48, bands k=1," in done.stdout
    assert "frames: 10 of 10" in done.stderr
    asked = tatvpr(
        *("query", folder, "--artifact", tiny_host, "--map", "m.placemap", "--k", "1", "--json")
    )
    answers = json.loads(asked.stdout)
    assert [answer["tag"] for answer in answers] == NAMES
    assert all(answer["score"] > 0.9 and answer["pose"] is None for answer in answers)
    assert asked.stderr == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.placemap"]


def test_people_get_a_table(tatvpr: Run, folder: Path, a_map: Path, tiny_host: Path) -> None:
    frame = folder / "rgb.png"
    done = tatvpr(*("query", frame, "--artifact", tiny_host, "--map", a_map, "--top", "2"))
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["frame", "place", "score", "position", "k", "ms"]
    assert len(lines) == 3 and "rgb.png" in lines[1] and "unknown" in lines[1]
    assert done.stderr == ""


def test_frames_of_one_camera_are_followed_and_each_folder_begins_anew(
    tatvpr: Run, folder: Path, a_map: Path, tiny_host: Path
) -> None:
    frames = [folder / "rgb.png", folder / "deep.png"]
    options = ["--artifact", tiny_host, "--map", a_map, "--sequence", "3", "--json"]
    done = tatvpr("query", *frames, folder, *frames, *options)
    seen = [answer["frames"] for answer in json.loads(done.stdout)]
    assert seen == [1, 2, 1, 2, *[3] * 8, 1, 2]


@pytest.mark.parametrize("kind", ["binary", "weighed"])
def test_binary_maps_bands_and_thresholds(
    kind: str, tatvpr: Run, folder: Path, tiny_host: Path, tmp_path: Path
) -> None:
    options = ["--kind", kind, "--bands", "1,.4:.5,.1", "--threshold", "0.9"]
    tatvpr("map", "build", folder, "--artifact", tiny_host, "-o", "m", *options, "--json")
    document = json.loads(tatvpr("map", "info", "m", "--json").stdout)
    assert (document["kind"], document["places"], document["dim"]) == (kind, 10, 48)
    bands = [
        {name: band[name] for name in ("k", "tokens", "threshold")} for band in document["bands"]
    ]
    assert bands == [
        {"k": 1.0, "tokens": 1.0, "threshold": 0.9},
        {"k": 0.4, "tokens": 0.5, "threshold": 0.9},
        {"k": 0.1, "tokens": 1.0, "threshold": 0.9},
    ]
    query = ["--artifact", tiny_host, "--map", "m", "--k", ".4", "--tokens", ".5"]
    done = tatvpr("query", folder / "rgb.png", *query)
    assert "accepted" in done.stdout and "yes" in done.stdout


def test_positions_come_from_names(
    tatvpr: Run, tiny_host: Path, folder: Path, tmp_path: Path
) -> None:
    frames = tmp_path / "named"
    frames.mkdir()
    shutil.copy(folder / "rgb.png", frames / "@0543210.25@4170000.5@10@S@@@.png")
    shutil.copy(folder / "deep.png", frames / "@0543207@4170012@.png")
    done = tatvpr("map", "build", frames, "--artifact", tiny_host, "-o", "m")
    assert "positions: utm, from names" in done.stdout
    poses = [PlaceMap(tmp_path / "m").pose(place)[:3].tolist() for place in range(2)]
    assert poses[0][:2] == [543207, 4170012] and poses[1][:2] == [543210.25, 4170000.5]
    assert np.isnan(poses[0][2])


def test_positions_come_from_a_table(
    tatvpr: Run, tiny_host: Path, folder: Path, tmp_path: Path
) -> None:
    rows = ["name,place,x,y,z", *(f"{name},p,{i},-{i}.5," for i, name in enumerate(NAMES))]
    (tmp_path / "poses.csv").write_text("\n".join(rows), encoding="utf-8-sig")
    options = ["--artifact", tiny_host, "--poses", "poses.csv"]
    done = tatvpr("map", "build", folder, "-o", "m", *options)
    assert "positions: local, from poses.csv" in done.stdout
    place_map = PlaceMap(tmp_path / "m")
    assert place_map.pose(3)[:2].tolist() == [3, -3.5]
    asked = tatvpr("query", folder / NAMES[3], "--artifact", tiny_host, "--map", "m", "--json")
    assert json.loads(asked.stdout)[0]["pose"][:3] == [3, -3.5, None]


def test_places_are_added_and_folded_in(
    tatvpr: Run, folder: Path, a_map: Path, tiny_host: Path, tmp_path: Path
) -> None:
    shutil.copy(a_map, tmp_path / "m")
    done = tatvpr("map", "add", "m", folder / "a", "--artifact", tiny_host)
    assert "17 places" in done.stdout and "journal: 7 places" in done.stdout
    assert "journal" not in tatvpr("map", "compact", "m").stdout
    assert len(PlaceMap(tmp_path / "m")) == 17
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]


# ---- real frames -----------------------------------------------------------------------------


@pytest.mark.slow
def test_real_frames_of_a_floor(
    tatvpr: Run, shared_data: Path, tiny_host: Path, tmp_path: Path
) -> None:
    """Frames of one floor: a map of all, and queries that are frames of the same floor."""
    floor = shared_data / "ie_tower" / "val" / "floor22"
    options = ["--artifact", tiny_host, "-o", "m", "--single-view", "--json"]
    made = json.loads(tatvpr("map", "build", floor, *options).stdout)
    bare = [frame["name"] for frame in made["skipped"]]  # a wall that fills the frame
    assert made["places"] > 100 and len(bare) < 3
    asked = tatvpr("query", floor, "--artifact", tiny_host, "--map", "m", "--k", "1", "--json")
    answers = json.loads(asked.stdout)
    assert len(answers) == made["places"] + len(bare)
    placed = [one for one in answers if not one["frame"].endswith(tuple(bare))]
    assert len(placed) == made["places"]
    assert all(one["score"] > 0.999 for one in placed)


@pytest.mark.slow
def test_three_hundred_frames_with_progress(
    tatvpr: Run, shared_data: Path, tiny_host: Path, tmp_path: Path
) -> None:
    frames = sorted((shared_data / "ie_tower" / "val").rglob("*.jpg"))
    for name, chosen in (("map", frames[:300]), ("ask", frames[-300:])):
        (tmp_path / name).mkdir()
        for index, frame in enumerate(chosen):
            (tmp_path / name / f"{index:03d}-{frame.name}").symlink_to(frame)
    done = tatvpr("map", "build", "map", "--artifact", tiny_host, "-o", "m")
    assert "frames: 300 of 300" in done.stderr
    done = tatvpr("query", "ask", "--artifact", tiny_host, "--map", "m")
    assert "queries: 300 of 300" in done.stderr
    assert len(done.stdout.splitlines()) == 301


def test_one_reason_of_many_frames_is_one_line(
    tatvpr: Run, folder: Path, tiny_host: Path, tmp_path: Path
) -> None:
    tatvpr("map", "build", folder, "--artifact", tiny_host, "--threshold", "0.9", "-o", "m")
    (tmp_path / "blank").mkdir()
    for index in range(5):  # the last one shows a little, and still nothing
        frame = Image.new("RGB", (64, 48), (90, 90, 90))
        frame.putpixel((20, 20), (90 + index // 4, 90, 90))
        frame.save(tmp_path / "blank" / f"{index}.png")
    done = tatvpr("query", "blank", "--map", "m", "--artifact", tiny_host)
    header, *rows = (line.split() for line in done.stdout.splitlines())
    assert (header[-3], [row[-3] for row in rows]) == ("accepted", ["no"] * 5)
    assert [line for line in done.stderr.splitlines() if "not accepted" in line] == [
        "5 frames from blank/0.png on: not accepted: the frame shows no structure: blank, "
        "black or a covered lens"
    ]


def test_a_map_without_positions_says_what_gives_them(
    tatvpr: Run, folder: Path, tiny_host: Path
) -> None:
    said = tatvpr("map", "build", folder, "--artifact", tiny_host, "-o", "m").stdout
    assert "positions: none; a poses.csv in the folder, --poses or --poses-topic" in said
    assert ", of 3 drives; " in tatvpr("map", "stats", "m").stdout  # one a folder
