"""Data sets as users have them are read as meant; every fault names the file and the rule."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_sets import gsv_set, labelled_set, tower_set, utm_set, write_rows

from support.mounts import mounted
from tatvpr_edge.models.data import formats
from tatvpr_edge.models.data.frames import load_frames
from tatvpr_edge.models.train.config import DataConfig
from tatvpr_edge.spec import resize
from tatvpr_edge.spec.errors import DataError


def test_labelled_places(tmp_path: Path) -> None:
    places = formats.labelled(labelled_set(tmp_path / "set", places=4, views=3))
    assert len(places) == 12
    assert [list(p) for p in places.places] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]


@pytest.mark.parametrize("label", ["", "  "])
def test_frames_that_nobody_labelled_are_not_one_place(tmp_path: Path, label: str) -> None:
    table = labelled_set(tmp_path / "set") / "poses.csv"
    lines = table.read_text().splitlines()
    lines[2:4] = [line.replace(",p0,", f",{label},") for line in lines[2:4]]
    table.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"poses\.csv, line 3: names no place: write one"):
        formats.labelled(tmp_path / "set")


@pytest.mark.parametrize("left", [0, 100, 2000])
def test_a_cache_that_lost_its_contents_is_made_again(tmp_path: Path, left: int) -> None:
    paths = formats.labelled(labelled_set(tmp_path / "set", places=2, views=2)).paths
    whole = np.array(load_frames(paths, 32, tmp_path / "cache"))
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:left])
    assert np.array_equal(load_frames(paths, 32, tmp_path / "cache"), whole)
    assert np.array_equal(np.load(kept), whole)


def test_what_a_killed_process_left_in_the_cache_goes(tmp_path: Path) -> None:
    """Whatever set it was at: its own may never be asked for again."""
    one, other = (formats.labelled(labelled_set(tmp_path / n, places=2, views=2)) for n in "ab")
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tatvpr_edge.models.data import frames\n"
        "frames.squash = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "frames.load_frames([Path(p) for p in sys.argv[2:]], 32, Path(sys.argv[1]))"
    )
    cache = tmp_path / "cache"
    killed = subprocess.run([sys.executable, "-c", program, cache, *one.paths], check=False)
    assert killed.returncode == -9 and len(list(cache.iterdir())) == 1
    load_frames(other.paths, 32, cache)
    (kept,) = cache.iterdir()
    assert kept.suffix == ".npy"


def test_a_disk_that_is_full_is_an_error_and_no_signal(tmp_path: Path) -> None:
    root = labelled_set(tmp_path / "set", places=10, views=3)
    program = (
        "import sys; from pathlib import Path\n"
        "from tatvpr_edge.models.data import formats, frames\n"
        "frames.load_frames(formats.labelled(Path(sys.argv[1])).paths, 128, Path(sys.argv[2]))"
    )
    with mounted(tmp_path / "disk", "size=1m") as disk:
        done = subprocess.run(
            [sys.executable, "-c", program, root, disk / "cache"], capture_output=True, text=True
        )
        assert done.returncode == 1
        assert f"No space left on device: '{disk}/cache/frames-" in done.stderr
        assert not list((disk / "cache").iterdir())


def test_tower_places_are_windows_of_a_clip_with_gaps(tmp_path: Path) -> None:
    places = formats.tower(tower_set(tmp_path, frames=20), "train")
    assert len(places) == 2 * 2 * 20
    rng = np.random.default_rng(0)
    for _ in range(20):
        drawn = places.draw(rng)
        together = np.concatenate(drawn)
        assert len(set(together.tolist())) == len(together)  # no frame in two places
        for window in drawn:
            assert 2 <= len(window) <= 4
            assert (np.diff(window) == 1).all()
            assert len({int(i) // 20 for i in window}) == 1  # one clip
        starts = sorted(int(w[0]) for w in drawn)
        assert all(b - a >= 7 for a, b in itertools.pairwise(starts) if a // 20 == b // 20)


def test_a_training_file_sets_the_windows_of_a_clip(tmp_path: Path) -> None:
    root = tower_set(tmp_path, frames=20)
    source = DataConfig(format="tower", root=str(root), window=2, gap=1)
    places = formats.open_source(source)
    starts = sorted(int(w[0]) for w in places.draw(np.random.default_rng(0)))
    same_clip = [b - a for a, b in itertools.pairwise(starts) if a // 20 == b // 20]
    assert same_clip and set(same_clip) == {3}
    apart = places.apart(np.arange(20))
    assert not apart[4, 6] and apart[4, 7]


def test_floors_can_be_left_out_and_must_exist(tmp_path: Path) -> None:
    root = tower_set(tmp_path)
    source = DataConfig(format="tower", root=str(root), leave_out=("f2",))
    assert all("f2" not in str(p) for p in formats.open_source(source).paths)
    with pytest.raises(DataError, match="no floor 'f9'"):
        formats.open_source(DataConfig(format="tower", root=str(root), leave_out=("f9",)))


def test_gsv_cities_uses_places_with_four_images(tmp_path: Path) -> None:
    places = formats.gsv_cities(gsv_set(tmp_path))
    assert len(places) == 8
    assert len(places.places) == 2  # the same place number in two cities is two places
    one = formats.gsv_cities(tmp_path, leave_out=("Osaka",))
    assert len(one.places) == 1


def test_utm_names_become_positions_and_cells(tmp_path: Path) -> None:
    database, queries = formats.gallery_and_queries(utm_set(tmp_path))
    assert database.positions[1].tolist() == [550100.0, 4180000.0]
    assert len(queries.paths) == 5
    nested = tmp_path / "pitts30k"
    utm_set(nested / "images" / "test")
    assert len(formats.gallery_and_queries(nested)[0].paths) == 4


def test_frames_with_poses_become_cells(tmp_path: Path) -> None:
    root = labelled_set(tmp_path / "set", places=4, views=3)
    places = formats.open_source(DataConfig(format="poses", root=str(root)))
    assert len(places.places) == 4  # views lie 1 m apart, places 100 m


def test_frames_are_squashed_as_on_the_device_and_cached(tmp_path: Path) -> None:
    from PIL import Image

    places = formats.labelled(labelled_set(tmp_path / "set", places=2, views=2))
    frames = load_frames(places.paths, 24, tmp_path / "cache")
    for path, frame in zip(places.paths, frames, strict=True):
        wanted = resize.squash(np.asarray(Image.open(path)), 24)
        np.testing.assert_array_equal(frame, wanted)
    again = load_frames(places.paths, 24, tmp_path / "cache")
    np.testing.assert_array_equal(again, frames)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    Image.new("RGB", (9, 9)).save(places.paths[0], quality=50)
    assert not np.array_equal(load_frames(places.paths, 24, tmp_path / "cache"), frames)


def spoil_missing_list(root: Path) -> None:
    (root / "frames.csv").unlink()


def spoil_column(root: Path) -> None:
    write_rows(root / "frames.csv", [{"path": "x", "split": "train"}])


def spoil_image(root: Path) -> None:
    (root / "train/f1/a/000003.jpg").unlink()


def spoil_number(root: Path) -> None:
    text = (root / "frames.csv").read_text().replace(",f1,a,3", ",f1,a,three")
    (root / "frames.csv").write_text(text)


def spoil_row(root: Path) -> None:
    with (root / "frames.csv").open("a") as file:
        file.write("train/f1\n")


def spoil_encoding(root: Path) -> None:
    (root / "frames.csv").write_bytes(b"path,split\n\xff\xfe\x00")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_missing_list, r"frames\.csv: cannot be read"),
        (spoil_column, "no column clip, floor, frame"),
        (spoil_image, r"000003\.jpg: listed, but there is no such file"),
        (spoil_number, "not a whole number"),
        (spoil_row, "another number of columns"),
        (spoil_encoding, "cannot be read as CSV"),
    ],
)
def test_a_spoiled_tower_set(tmp_path: Path, spoil: Callable[[Path], None], said: str) -> None:
    spoil(tower_set(tmp_path))
    with pytest.raises(DataError, match=said):
        formats.tower(tmp_path, "train")


def test_an_empty_or_thin_city(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no city tables"):
        formats.gsv_cities(tmp_path)
    gsv_set(tmp_path)
    rows = (tmp_path / "Dataframes" / "Osaka.csv").read_text().splitlines()
    (tmp_path / "Dataframes" / "Osaka.csv").write_text("\n".join(rows[:3]) + "\n")
    with pytest.raises(DataError, match=r"Osaka\.csv: no place has 4 images"):
        formats.gsv_cities(tmp_path)
    (tmp_path / "Dataframes" / "Osaka.csv").write_text(rows[0] + "\n")
    with pytest.raises(DataError, match=r"Osaka\.csv: has no rows"):
        formats.gsv_cities(tmp_path)


@pytest.mark.parametrize("name", ["plain.jpg", "@east@12@x.jpg", "@nan@12@x.jpg", "@5.jpg"])
def test_a_name_without_position(tmp_path: Path, name: str) -> None:
    utm_set(tmp_path)
    (tmp_path / "database" / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"@utm_e"):
        formats.gallery_and_queries(tmp_path)


def test_a_corrupt_image_is_named(tmp_path: Path) -> None:
    places = formats.labelled(labelled_set(tmp_path / "set", places=2, views=2))
    whole = places.paths[1].read_bytes()
    places.paths[1].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"p0-1\.jpg is damaged"):
        load_frames(places.paths, 24, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_places_with_one_image_teach_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no place has two frames"):
        formats.labelled(labelled_set(tmp_path / "set", places=3, views=1))
