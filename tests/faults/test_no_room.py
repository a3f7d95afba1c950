"""A full disk, a bad block, an end in between: what pictures, keys and bags leave and say."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
from pathlib import Path

import pytest

from support.artifacts import scenes
from support.deaths import dies_at, fails_at, fails_beyond
from support.mounts import mounted
from support.recordings import BagWriter
from tatvpr_edge.cli import main
from tatvpr_edge.mapping.recordings.bag import Bag
from tatvpr_edge.models.train.loop import Curves
from tatvpr_edge.models.train.plot import plot_curves
from tatvpr_edge.spec.atomic import naming, staging, sync_folder
from tatvpr_edge.spec.errors import DataError


def test_what_finds_no_room_is_called_by_its_own_name(tmp_path: Path) -> None:
    """Not by a temporary's, nor by none, as write(2) and fsync(2) have it."""
    place = tmp_path / "place"
    for within in ("", "view.jpg", "part/poses.csv"):
        with pytest.raises(OSError) as told, naming(place), staging(place) as folder:
            raise OSError(errno.ENOSPC, "full", str(folder / within))
        assert told.value.filename == str(place)
        assert str(told.value) == f"[Errno 28] full: '{place}'"
    with pytest.raises(OSError) as told, naming(place), staging(place) as folder:
        (folder / "gone").rename(place)
    assert str(told.value) == f"[Errno 2] No such file or directory: '{place}'"
    theirs = tmp_path / "old.tmp" / "view.jpg"  # only looks like one
    with pytest.raises(FileNotFoundError) as told, naming(place):
        theirs.read_bytes()
    assert told.value.filename == str(theirs)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(IsADirectoryError) as told, naming(place):  # it was a TypeError
        open(descriptor, "rb").close()
    os.close(descriptor)
    assert told.value.filename == str(place)
    curves = Curves(tmp_path / "curves.csv", "metric", 0)
    curves.path = Path("/dev/full")
    curves.add(1, {"total": 1.0}, 0.1, last=True)
    with pytest.raises(OSError) as told:
        curves.flush()
    assert told.value.filename == "/dev/full"


def test_a_folder_that_cannot_be_synced_is_called_by_its_name_unless_none_there_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync_folder(Path("/proc/self/fd"))  # fsync(2) says EINVAL, as of a virtual machine's shares

    def bad_block(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", bad_block)
    with pytest.raises(OSError) as told:
        sync_folder(tmp_path)
    assert told.value.errno == errno.EIO and told.value.filename == str(tmp_path)


def test_a_picture_that_finds_no_room_leaves_the_one_before(tmp_path: Path) -> None:
    curves, picture = tmp_path / "curves.csv", tmp_path / "curves.png"
    curves.write_text("stage,step,lr,part,value\nmetric,1,1e-3,total,0.5\n")
    plot_curves(curves)  # matplotlib makes its own files the first time
    picture.write_bytes(b"old")
    assert fails_beyond(2000, lambda: plot_curves(curves))
    assert picture.read_bytes() == b"old"
    assert sorted(tmp_path.iterdir()) == [curves, picture]


def test_a_key_that_finds_no_room_leaves_its_name_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    words = ["keys", "new", "mine", "--no-passphrase"]
    assert main(["keys", "new", "other", "--no-passphrase"]) == 0  # all is imported
    room, folder = 200, tmp_path / "tatvpr-edge" / "keys"  # the private key is longer

    def refused() -> None:
        if main(words):
            raise OSError

    assert fails_beyond(room, refused)
    assert sorted(path.name for path in folder.iterdir()) == ["other", "other.pub"]
    assert main(words) == 0 and (folder / "mine.pub").is_file()


def test_half_a_key_is_completed_by_the_line_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a kill between its two files left held the name for ever: it "exists already"."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    words = ["keys", "new", "mine", "--no-passphrase"]
    path = tmp_path / "tatvpr-edge" / "keys" / "mine"
    assert main(words) == 0
    public = path.with_name("mine.pub")
    before = public.read_text()
    public.unlink()
    assert main(words) == 1
    told = capsys.readouterr().err
    subprocess.run(told.split("`")[1], shell=True, check=True)
    assert public.read_text().split()[:2] == before.split()[:2]


def test_a_call_that_fails_leaves_a_key_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "tatvpr-edge" / "keys"
    assert main(["keys", "new", "other", "--no-passphrase"]) == 0  # all is imported
    for change in itertools.count():

        def refused(name: str = f"k{change}") -> None:
            if main(["keys", "new", name, "--no-passphrase"]):
                raise OSError

        failed = fails_at(change, refused)
        there = [path.name for path in folder.iterdir() if path.name.startswith(f"k{change}")]
        assert len(there) in (0, 2), f"{there}: {failed}, change {change}"
        if failed is None:
            break
    assert change >= 3


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A bag of ROS 2 of 1 MB that is compressed as a whole."""
    from rosbags.rosbag2 import CompressionFormat, CompressionMode

    writer = BagWriter(tmp_path / "packed", "db3")
    writer._writer.set_compression(CompressionMode.FILE, CompressionFormat.ZSTD)
    with writer:
        for index, frame in enumerate(scenes(30)):
            writer.add("/camera", writer.rgb(frame, index), index)
    return tmp_path / "packed"


def test_a_bag_that_was_unpacked_by_who_was_killed_goes_with_the_next(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drive of gigabytes stayed in the folder of temporary files, for each."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))

    def killed() -> None:
        bag = Bag(packed)
        os._exit(77 if bag else 0)

    assert dies_at(10**9, killed) and len(os.listdir(scratch)) == 1
    (left,) = scratch.iterdir()
    bag = Bag(packed)
    assert not left.exists() and len(os.listdir(scratch)) == 1
    assert [c.topic for c in bag.topic("/camera", ("sensor_msgs/msg/Image",), "images", "--topic")]
    del bag
    assert os.listdir(scratch) == []


def test_a_bag_that_finds_no_room_to_be_unpacked_is_not_called_damaged(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mounted(tmp_path / "full", "size=400k") as full:
        monkeypatch.setattr("tempfile.tempdir", str(full))
        with pytest.raises(DataError, match=rf"compressed .* {full} has no room .* set TMPDIR"):
            Bag(packed)
        assert os.listdir(full) == []
