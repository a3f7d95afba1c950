"""Files that take the place of others, and what they must not take the place of."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tatvpr_edge.cli.output import write_file
from tatvpr_edge.spec.atomic import replacing, temporary_folder
from tatvpr_edge.spec.errors import DataError


@pytest.mark.parametrize("leads_to", ["device", "pipe"])
def test_no_file_takes_the_place_of_a_device(tmp_path: Path, leads_to: str) -> None:
    """As root, ``evaluate --csv /dev/zero`` left a table where the device had been. A link stands
    for it here: this test must not be the next one to do so."""
    target = Path("/dev/null") if leads_to == "device" else tmp_path / "pipe"
    if leads_to == "pipe":
        os.mkfifo(target)
    (tmp_path / "out.csv").symlink_to(target)
    with pytest.raises(
        DataError, match=r"out\.csv: it is a device or a way to a pipe: name a file"
    ):
        write_file(tmp_path / "out.csv", "k,query\n")
    assert (tmp_path / "out.csv").is_symlink()


def test_a_link_to_a_file_and_a_file_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    (tmp_path / "out.csv").symlink_to(tmp_path / "old")
    for _ in range(2):
        write_file(tmp_path / "out.csv", "new")
        assert (tmp_path / "out.csv").read_text() == "new"
    assert (tmp_path / "old").read_text() == "old"


def test_an_error_names_the_file_and_not_its_temporary(tmp_path: Path) -> None:
    for missing in (tmp_path / "no" / "mine.onnx", Path("/proc/self/mine.onnx")):
        with pytest.raises(OSError) as told, replacing(missing):
            pass
        assert told.value.filename == str(missing)
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as told, replacing(tmp_path / "folder"):
        pass
    assert (told.value.filename, told.value.filename2) == (str(tmp_path / "folder"), None)


def test_a_full_disk_of_temporary_files_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build with TMPDIR on a small disk said "No space left on device" and not where."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with (
        pytest.raises(OSError, match="No space left") as told,
        temporary_folder("build"),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        full.write(b"x")
    assert told.value.filename == str(tmp_path)
