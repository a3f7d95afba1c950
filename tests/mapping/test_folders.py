"""Folders as cameras, storage boxes and file managers leave them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tatvpr_edge
from support.artifacts import scenes
from support.users import as_other_user
from tatvpr_edge.mapping import (
    FrameFile,
    extend_map,
    find_poses,
    frame_files,
    frames_of,
    is_recording,
)
from tatvpr_edge.runtime import Localizer, PlaceMap
from tatvpr_edge.runtime.mapjournal import append_drive, map_file, read_map
from tatvpr_edge.spec.errors import DataError, MapError, UsageError
from tatvpr_edge.spec.maptypes import MAX_DRIVES, make_places


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    (folder / "b").mkdir(parents=True)
    for name, pixels in zip(("a.jpg", "b/a.jpg", "b/c.png"), scenes(3), strict=True):
        Image.fromarray(pixels).save(folder / name, quality=95)
    return folder


def test_litter_beside_pictures_is_no_place(frames: Path) -> None:
    for name in (
        ".Trash-1000/files/old.jpg",
        "@eaDir/a.jpg/thumb.jpg",
        "b/.ipynb_checkpoints/a-checkpoint.jpg",
        "__MACOSX/b/a.jpg",
        "._a.jpg",
        "b/._c.png",
    ):
        (frames / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(frames / "a.jpg", frames / name)
    assert [frame.name for frame in frame_files(frames)] == ["a.jpg", "b/a.jpg", "b/c.png"]


def test_one_picture_has_the_position_that_the_table_beside_it_says(
    frames: Path, tiny_host: Path, tmp_path: Path
) -> None:
    (frames / "poses.csv").write_text("name,x,y\na.jpg,4,5\nb/a.jpg,6,7\n")
    shutil.copy(frames / "a.jpg", frames / "new.jpg")  # of which the table does not know
    with Localizer(tiny_host) as localizer:
        for name, x in (("a.jpg", 4), ("b/a.jpg", None), ("new.jpg", None)):
            output = tmp_path / f"{Path(name).parent.name}{Path(name).stem}.placemap"
            made = tatvpr_edge.build_map(localizer, frames / name, output)
            pose = PlaceMap(made.path).pose(0)[0]
            assert made.poses_from == (str(frames / "poses.csv") if x else "none")
            assert pose == x if x else np.isnan(pose)
        with pytest.raises(DataError, match="no row for"):
            tatvpr_edge.build_map(localizer, frames, tmp_path / "all.placemap")


def test_pictures_beside_another_program_s_metadata_are_no_bag(frames: Path) -> None:
    (frames / "metadata.yaml").write_text("camera: front\n")
    assert len(frames_of(frames)) == 3
    with tatvpr_edge.stream(frames) as stream:  # as for a map, so for a stream
        assert stream.read(timeout_s=30) is not None
    (frames / "metadata.yaml").write_text("rosbag2_bagfile_information:\n")
    assert is_recording(frames)
    with pytest.raises(DataError, match="is a recording, not a stream"):
        tatvpr_edge.stream(frames)


def test_a_folder_that_this_user_may_not_read_is_told(frames: Path) -> None:
    """It was called empty, or ended in a traceback."""
    with as_other_user(frames):
        for read in (frame_files, frames_of):
            with pytest.raises(DataError, match="cannot be read: Permission denied"):
                read(frames)


def test_a_folder_that_this_user_may_list_alone_ends_nothing(tmp_path: Path) -> None:
    """Its pictures are left out by name; looking for a table below was a PermissionError."""
    inside = tmp_path / "frames" / "a"
    inside.mkdir(parents=True)
    Image.new("L", (8, 8)).save(inside / "1.png")
    files = frame_files(tmp_path / "frames")
    with as_other_user(inside):
        assert find_poses(tmp_path / "frames", files).source == "none"


def test_every_kind_of_picture_counts(tmp_path: Path) -> None:
    names = ["a.JPEG", "b.bmp", "c.tif", "d.TIFF", "e.webp", "f.png", "g.ppm"]
    for name in names:
        Image.fromarray(scenes(1)[0]).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    assert [frame.name for frame in frame_files(tmp_path)] == names


def test_frames_follow_each_other_as_they_were_taken(tmp_path: Path) -> None:
    """Whether numbers are padded or not; folders as well, and each stays in one piece."""
    names = [
        "drive2/f9.png",
        "drive2/f10.png",
        "drive10/f1.png",
        "drive10/f01b.png",
        "times/1690000009.763555.png",
        "times/1690000009.7636.png",
        "times/1690000010.2.png",
        "x01/1.png",
        "x01/2.png",
        "x1/1.png",
        "x1/2.png",
    ]
    for name in reversed(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(scenes(1)[0]).save(tmp_path / name)
    assert [frame.name for frame in frame_files(tmp_path)] == names


def test_pictures_that_are_not_read_are_counted_once(
    frames: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("b/IMG_1.HEIC", "b/IMG_2.HEIC", "old.gif", "._x.gif", "notes.txt", "poses.csv"):
        (frames / name).write_bytes(b"x")
    assert [frame.name for frame in frame_files(frames)] == ["a.jpg", "b/a.jpg", "b/c.png"]
    assert len(frame_files(frames)) == 3
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"{frames}: 3 pictures (*.gif, *.heic) passed over: ")
    assert "*.jpg" in said and "*.pgm" in said and "\n" not in said
    for path in frames.rglob("*.*g"):
        path.unlink()
    with pytest.raises(DataError, match=r"holds no frame: .*3 pictures \(\*.gif, \*.heic\) in it"):
        frame_files(frames)


def test_a_linked_folder_that_is_passed_over_is_told(
    frames: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The drives behind a link were missing from maps and trainings without a word."""
    (tmp_path / "disk" / "drive").mkdir(parents=True)
    shutil.copy(frames / "a.jpg", tmp_path / "disk" / "drive" / "d.jpg")
    (frames / "latest").symlink_to(frames / "b")  # read as b
    (frames / "b" / "loop").symlink_to(frames)
    assert len(frame_files(frames)) == 3 and not caplog.records
    (frames / "b" / "drive").symlink_to(tmp_path / "disk" / "drive")
    assert len(frame_files(frames)) == len(frame_files(frames)) == 3
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"not followed ({frames}/b/drive): give those folders" in said
    only_links = tmp_path / "links"
    only_links.mkdir()
    for number in range(4):
        (only_links / f"drive{number}").symlink_to(tmp_path / "disk" / "drive")
    with pytest.raises(DataError, match=r"drive2 and 1 more\): give those folders"):
        frame_files(only_links)
    (tmp_path / "frames-link").symlink_to(tmp_path / "disk")
    assert [frame.name for frame in frame_files(tmp_path / "frames-link")] == ["drive/d.jpg"]


def test_a_pipe_among_pictures_is_named_and_not_waited_for(
    frames: Path, tiny_host: Path, tmp_path: Path
) -> None:
    os.mkfifo(frames / "b" / "camera.jpg")
    with Localizer(tiny_host) as localizer:
        made = tatvpr_edge.build_map(localizer, frames, tmp_path / "m")
    assert [(left.name, "a pipe" in left.reason) for left in made.skipped] == [
        ("b/camera.jpg", True)
    ]
    assert made.places == 3


def test_a_name_that_is_no_text_is_told_before_the_work(
    frames: Path, tiny_host: Path, tmp_path: Path
) -> None:
    try:
        shutil.copy(frames / "a.jpg", os.fsencode(frames) + b"/caf\xe9.jpg")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    told = []
    with Localizer(tiny_host) as localizer, pytest.raises(DataError, match=r"caf\\xe9.jpg"):
        tatvpr_edge.build_map(localizer, frames, tmp_path / "m", progress=told.append)
    assert not told and not (tmp_path / "m").exists()


def test_a_map_that_another_program_made_meanwhile_stays(
    frames: Path, tiny_host: Path, tmp_path: Path
) -> None:
    """The second of two builds with one output replaced the first without a word."""
    path = tmp_path / "m.placemap"
    with Localizer(tiny_host) as localizer:

        def meanwhile(count: int) -> None:
            if not path.exists():
                tatvpr_edge.build_map(localizer, frames, path, kind="binary")

        with pytest.raises(MapError, match=r"m\.placemap exists by now: another program"):
            tatvpr_edge.build_map(localizer, frames, path, progress=meanwhile)
    assert PlaceMap(path).info.kind == "binary"
    assert [file.name for file in tmp_path.glob("*m.placemap*")] == [path.name]


def test_a_map_is_made_through_the_package(frames: Path, tiny_host: Path, tmp_path: Path) -> None:
    (frames / "b" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    Image.new("RGB", (640, 480)).save(frames / "dark.png")
    with Localizer(tiny_host) as localizer:
        made = tatvpr_edge.build_map(localizer, frames, tmp_path / "m.placemap", kind="binary")
        assert (made.places, made.pose_frame, made.poses_from) == (3, "local", "none")
        assert [frame.name for frame in made.skipped] == ["b/broken.jpg", "dark.png"]
        with pytest.raises(DataError, match="broken"):
            tatvpr_edge.build_map(localizer, frames, tmp_path / "n", strict=True)
        with pytest.raises(MapError, match="exists already"):
            tatvpr_edge.build_map(localizer, frames, made.path)
        with pytest.raises(UsageError, match="pose frame"):
            tatvpr_edge.build_map(localizer, frames, tmp_path / "n", pose_frame="mars")
        with pytest.raises(DataError, match="no frames"):
            tatvpr_edge.build_map(localizer, [], tmp_path / "n")
        assert not (tmp_path / "n").exists()
        # A list of files is a folder's too: its table is found, and names keep their folders.
        part = tatvpr_edge.build_map(localizer, frame_files(frames)[1:3], tmp_path / "part")
    assert PlaceMap(tmp_path / "m.placemap").info.kind == "binary"
    stored = PlaceMap(part.path)
    assert [stored.tag(0), part.skipped[0].name] == ["b/a.jpg", "b/broken.jpg"]


def test_every_folder_is_a_drive_of_its_own(frames: Path, tiny_host: Path, tmp_path: Path) -> None:
    """All were one: the last frame of a room and the first of the next counted as neighbours, and
    `map calibrate` took either for a right answer to the other."""
    target = tmp_path / "m.placemap"
    with Localizer(artifact=tiny_host) as localizer:
        tatvpr_edge.build_map(localizer, frames, target)
        for folder in (frames, frames / "b"):
            extend_map(localizer, folder, target, views=False)
    moments = read_map(target).places().moments
    assert moments["drive"].tolist() == [0, 1, 1, 2, 3, 3, 4, 4]
    assert moments["order"].tolist() == [0, 0, 1, 0, 0, 1, 0, 1]


def test_the_folders_of_one_recording_can_be_one_drive(
    frames: Path, tiny_host: Path, tmp_path: Path
) -> None:
    """A recorder that begins a folder each minute made as many drives, whose ends knew nothing of
    each other."""
    (frames / "poses.csv").write_text("name,x,y\na.jpg,0,0\nb/a.jpg,1,0\nb/c.png,2,0\n")
    target, other = tmp_path / "m.placemap", tmp_path / "other"
    with Localizer(artifact=tiny_host) as localizer:
        leaning = tatvpr_edge.build_map(localizer, frames, tmp_path / "leaning", one_drive=True)
        assert leaning.neighbours == 3
        for path in (target, other):
            tatvpr_edge.build_map(localizer, frames, path, one_drive=True, views=False)
        assert extend_map(localizer, frames, target, one_drive=True).neighbours == 3
        assert extend_map(localizer, frames, other).neighbours == 2
    for path, drives, orders in ((target, [1, 1, 1], [0, 1, 2]), (other, [1, 2, 2], [0, 0, 1])):
        moments = read_map(path).places().moments
        assert moments["drive"].tolist() == [0, 0, 0, *drives]
        assert moments["order"].tolist() == [0, 1, 2, *orders]


def test_frames_that_stand_in_the_map_are_not_added_again(
    frames: Path, tiny_host: Path, tmp_path: Path
) -> None:
    """A command that was killed once its record stood, and given again, added them twice: a place
    that stands twice, of unknown position, has no margin, and nothing of it is accepted."""
    target = tmp_path / "m.placemap"
    with Localizer(artifact=tiny_host) as localizer:
        tatvpr_edge.build_map(localizer, frames / "a.jpg", target, views=False)
        first = extend_map(localizer, frames, target, views=False)
        assert (first.places, first.known) == (2, 1)
        before = read_map(target)
        again = extend_map(localizer, frames, target, views=False)
        assert (again.places, again.known, again.unplaced) == (0, 3, 0)
        assert len(read_map(target)) == 3 and map_file(target) == before.file
        shutil.copy(frames / "b" / "c.png", frames / "b" / "d.png")
        grown = extend_map(localizer, frames, target, views=False)
        assert (grown.places, grown.known) == (1, 3)
        rows = ("name,x,y", "a.jpg,0,0", "b/a.jpg,1,0", "b/c.png,2,0", "b/d.png,,")
        (frames / "poses.csv").write_text("\n".join(rows))
        placed = extend_map(localizer, frames, target, views=False)
        assert (placed.places, placed.known) == (3, 1)  # the last is as unknown as it was
    places = read_map(target).places()
    assert places.tags == ("a.jpg", "b/a.jpg", "b/c.png", "b/d.png", "a.jpg", "b/a.jpg", "b/c.png")


def test_folders_that_stand_in_the_map_take_no_numbers_of_drives(
    frames: Path, tiny_host: Path, tmp_path: Path
) -> None:
    """A folder a day, and all of them given each time, had used up every number in a year."""
    target = tmp_path / "m.placemap"
    with Localizer(artifact=tiny_host) as localizer:
        tatvpr_edge.build_map(localizer, frames, target, views=False)
        for day in ("c", "d"):
            shutil.copytree(frames / "b", frames / day)
            assert extend_map(localizer, frames, target, views=False).places == 2
    assert read_map(target).places().moments["drive"].tolist() == [0, 1, 1, 2, 2, 3, 3]


def test_more_folders_than_a_map_has_numbers_for_drives_are_refused(
    frames: Path, tiny_host: Path, tmp_path: Path
) -> None:
    target = tmp_path / "m.placemap"
    with Localizer(artifact=tiny_host) as localizer:
        tatvpr_edge.build_map(localizer, frames / "b", target)
    info = PlaceMap(target).info
    row = [np.ones((1, info.descriptor_size), np.float32)]
    append_drive(target, make_places(info, row, drives=MAX_DRIVES - 3), own=False)
    with pytest.raises(MapError, match="up to number 65533, and has no room for 3 more: make an"):
        append_drive(target, make_places(info, row, drives=2))
    append_drive(target, make_places(info, row, drives=1))
    assert read_map(target).places().moments["drive"][-1] == MAX_DRIVES - 1


def test_more_folders_than_drives_are_told_before_a_frame_is_described(
    frames: Path, tiny_host: Path, tmp_path: Path
) -> None:
    """It was told after hours, as "a place's drive is a whole number from 0 up to 65535"."""
    many = [FrameFile(Path(f"/nowhere/{n}/a.jpg"), f"{n}/a.jpg") for n in range(MAX_DRIVES + 1)]
    target = tmp_path / "m.placemap"

    def described(*_: object) -> None:
        raise AssertionError

    with Localizer(artifact=tiny_host) as localizer:
        with pytest.raises(DataError, match=r"65537 drives .*--one-drive.* for 65536 more: put"):
            tatvpr_edge.build_map(localizer, many, target, progress=described)
        tatvpr_edge.build_map(localizer, frames / "a.jpg", target)
        info = PlaceMap(target).info
        row = [np.ones((1, info.descriptor_size), np.float32)]
        append_drive(target, make_places(info, row, drives=MAX_DRIVES - 2), own=False)
        with pytest.raises(DataError, match=r"2 drives.* for 1 more"):
            extend_map(localizer, frames, target, progress=described)
    assert len(read_map(target)) == 2
