"""The frames that ship with the demo: complete, small, held out, and renderable again."""

from __future__ import annotations

import csv
import importlib
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from support.tools import lacking

PROJECT = Path(__file__).resolve().parents[2]
PLACES = PROJECT / "models" / "zoo" / "places"
TRAINING_MAPS = {f"map{number:02d}" for number in range(1, 25)}

tool = importlib.import_module("render_places")


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "poses.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def test_each_place_has_one_gallery_frame_and_two_queries() -> None:
    gallery = Counter(row["place"] for row in rows_of(PLACES / "gallery"))
    queries = Counter(row["place"] for row in rows_of(PLACES / "queries"))
    assert len(gallery) >= 36
    assert set(gallery.values()) == {1}
    assert queries == {place: 2 for place in gallery}
    assert set(gallery) == tool.read_only(PLACES / "places.txt")


@pytest.mark.parametrize("part", ["gallery", "queries"])
def test_poses_and_frames_belong_together(part: str) -> None:
    rows = rows_of(PLACES / part)
    assert {row["name"] for row in rows} == {p.name for p in (PLACES / part).glob("*.jpg")}
    for row in rows:
        with Image.open(PLACES / part / row["name"]) as frame:
            frame.load()
            assert (frame.size, frame.mode) == ((256, 192), "RGB")


def test_no_place_is_of_a_training_map() -> None:
    maps = {row["map"] for part in ("gallery", "queries") for row in rows_of(PLACES / part)}
    assert maps and not maps & TRAINING_MAPS


def test_the_set_is_below_two_megabytes_and_carries_its_licence() -> None:
    assert sum(path.stat().st_size for path in PLACES.rglob("*") if path.is_file()) < 2_000_000
    licence = (PLACES / "LICENSE.md").read_text()
    assert "Contributors to the Freedoom project" in licence
    assert "Redistributions in binary form must reproduce" in licence


def test_the_poses_of_a_map_come_out_again(tmp_path: Path) -> None:
    if find_spec("vizdoom") is None:
        lacking("vizdoom", "pip install 'tatvpr-edge[render]'")
    command = "--seed 7 --places 16 --views 3 --size 256x192 --light 0.7 --quality 75 --split"
    wanted = [row for row in rows_of(PLACES / "gallery") if row["map"] == "e4m5"]
    (tmp_path / "keep.txt").write_text("\n".join(row["place"] for row in wanted))
    output = tmp_path / "again"
    arguments = [*command.split(), "--maps", "e4m5", "--only", str(tmp_path / "keep.txt")]
    assert tool.main([*arguments, "--output", str(output)]) == 0
    for part in ("gallery", "queries"):
        shipped = [row for row in rows_of(PLACES / part) if row["map"] == "e4m5"]
        assert shipped
        assert rows_of(output / part) == shipped
