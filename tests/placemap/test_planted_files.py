"""What somebody who may write to a map's folder puts beside the map: nothing is waited for, nothing
has no end, and no other file is read or written through it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tatvpr_edge.cli import main
from tatvpr_edge.runtime import PlaceMap
from tatvpr_edge.runtime.mapjournal import append, journal_path, torn_path
from tatvpr_edge.spec.errors import MapError
from tatvpr_edge.spec.placemap import Band, MapInfo, Places, write_map

INFO = MapInfo("ab" * 32, "int8", 16, (Band(1.0),))
#: A reader that hung or read for ever would stop here.
STOP_S = 120
READERS = {
    "query": "from tatvpr_edge.runtime import PlaceMap; PlaceMap({map!r})",
    "info": "from tatvpr_edge.cli import main; sys.exit(main(['map', 'info', {map!r}]))",
    "compact": "from tatvpr_edge.cli import main; sys.exit(main(['map', 'compact', {map!r}]))",
}


@pytest.fixture
def small(tmp_path: Path, some: Callable[..., Places]) -> Path:
    """A map of three places, without a journal."""
    write_map(tmp_path / "m.placemap", INFO, [some(INFO, 3)])
    return tmp_path / "m.placemap"


def plant(what: str, place: Path) -> None:
    """Put something that is no plain file at ``place``."""
    if what == "pipe":
        os.mkfifo(place)
    elif what == "folder":
        place.mkdir()
    else:
        place.symlink_to("/dev/zero" if what == "device" else place.parent / "victim")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("what", ["pipe", "device", "folder", "link"])
def test_a_journal_that_is_no_plain_file_is_refused(small: Path, what: str, reader: str) -> None:
    plant(what, journal_path(small))
    (small.parent / "victim").write_text("of somebody else")
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30)); "
    done = subprocess.run(
        [sys.executable, "-c", limit + READERS[reader].format(map=str(small))],
        capture_output=True,
        text=True,
        timeout=STOP_S,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 1
    assert f"cannot read {journal_path(small)}" in done.stderr.splitlines()[-1]
    assert (small.parent / "victim").read_text() == "of somebody else"


@pytest.mark.parametrize("what", ["pipe", "device", "link"])
def test_torn_bytes_are_kept_in_no_other_file(
    small: Path, some: Callable[..., Places], what: str
) -> None:
    """An append keeps what a torn journal ends with; a link in that place would be followed."""
    append(small, some(INFO, 1))
    with journal_path(small).open("ab") as journal:
        journal.write(b"\nssh-ed25519 AAAA a key of whoever planted this\n")
    victim = small.parent / "victim"
    victim.write_text("keys that are trusted\n")
    plant(what, torn_path(small))
    with pytest.raises(MapError, match=r"cannot add to the map"):
        append(small, some(INFO, 1, 1))
    assert victim.read_text() == "keys that are trusted\n"
    torn_path(small).unlink()
    append(small, some(INFO, 1, 1))
    assert len(PlaceMap(small)) == 5 and b"AAAA" in torn_path(small).read_bytes()


@pytest.mark.parametrize("what", ["pipe", "device"])
def test_an_upgrade_reads_plain_files_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], what: str
) -> None:
    plant(what, tmp_path / "old.placemap")
    assert main(["map", "upgrade", str(tmp_path / "old.placemap")]) == 1
    assert "a pipe or a device" in capfd.readouterr().err


def test_inputs_without_an_end_are_refused(tmp_path: Path, project_root: Path) -> None:
    """Files that people name."""
    for words, says in (
        (["train", "--config", "/dev/zero"], "/dev/zero: cannot be read: File too large"),
        (["build", "--board", "host", "--model", "/dev/zero"], "a pipe or a device"),
        (["export", "/dev/zero", "-o", "x.onnx"], "a pipe or a device"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "tatvpr_edge", *words],
            capture_output=True,
            text=True,
            timeout=STOP_S,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(project_root)},
        )
        assert done.returncode == 1, words
        assert says in done.stderr.splitlines()[-1]
