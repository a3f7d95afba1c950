"""Whoever is killed while it writes a map or an artifact leaves the old one or the new one, whole;
the next run removes what lies beside it."""

from __future__ import annotations

import hashlib
import itertools
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.board import make_artifact
from support.deaths import dies_at, fails_at, fails_beyond
from support.faults import Faults
from support.keys import make_keys
from support.medium import CUTS, Medium
from tatvpr_edge.models.checkpoint import write_atomically
from tatvpr_edge.runtime.mapjournal import append, compact, journal_path, read_map, rewrite
from tatvpr_edge.runtime.signature import check_trust, signer_line
from tatvpr_edge.runtime.signing import sign_artifact
from tatvpr_edge.runtime.trust import Trust
from tatvpr_edge.spec.artifact import read_artifact, read_signed, replace_profile
from tatvpr_edge.spec.atomic import (
    staging,
    take_place,
    temporary_folder,
)
from tatvpr_edge.spec.calibration import Calibration
from tatvpr_edge.spec.maptypes import calibrated
from tatvpr_edge.spec.placemap import Band, MapInfo, Places, make_places, write_map

INFO = MapInfo("ab" * 32, "int8", 16, (Band(1.0),))


def places(count: int, seed: int = 0) -> Places:
    """Places of a drive."""
    rows = np.random.default_rng(seed).standard_normal((count, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    tags = [f"{seed}/{number}" for number in range(count)]
    return make_places(INFO, [rows], np.full((count, 7), np.nan), tags)


def map_state(path: Path) -> Any:
    """What a reader finds."""
    if not path.exists():
        return None
    stored = read_map(path)
    base, added = stored.base, stored.added
    tags = [base.tag(place) for place in range(len(base))] + list(added.tags)
    return tags, base.info.bands


def artifact_state(path: Path) -> Any:
    """Which artifact is there, every byte of it checked."""
    return read_artifact(path).hash if path.exists() else None


def file_state(path: Path) -> Any:
    """The bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def new_map(place: Path) -> None:
    write_map(place, INFO, [places(3)])


def grown_map(place: Path) -> None:
    new_map(place)
    append(place, places(2, seed=1))


def added(place: Path) -> None:
    append(place, places(2, seed=2))


def leaning(place: Path) -> None:
    append(place, places(2, seed=2), neighbours=True)  # the head of the base says so from now on


def folded(place: Path) -> None:
    compact(place)


def judged(place: Path) -> None:
    calibration = Calibration("score", 0.5, (0.0, 0.0, 0.0))
    rewrite(place, lambda old: (calibrated(old.base.info, [calibration]), [old.base.places()]))


def old_artifact(place: Path) -> None:
    make_artifact(place, b"old")


def new_artifact(place: Path) -> None:
    make_artifact(place, b"new")


def rebuilt(place: Path) -> None:
    with staging(place) as beside:
        make_artifact(beside / "new", b"new")
        take_place(beside / "new", place)


def profiled(place: Path) -> None:
    replace_profile(place, {"device": {"name": "a board"}, "points": []}, unsign=True)


def old_file(place: Path) -> None:
    place.write_bytes(b"old")


def new_file(place: Path) -> None:
    write_atomically(place, b"new" * 10_000)


Work = Callable[[Path], None]
#: (name, what was there before, what is killed, how its outcome is told)
SCENES: list[tuple[str, Work | None, Work, Callable[[Path], Any]]] = [
    ("a map is written", None, new_map, map_state),
    ("a map is written over", grown_map, new_map, map_state),
    ("places are added", new_map, added, map_state),
    ("places are added again", grown_map, added, map_state),
    ("places that lean on each other are added", new_map, leaning, map_state),
    ("places that lean on each other are added again", grown_map, leaning, map_state),
    ("a journal is folded in", grown_map, folded, map_state),
    ("a map is calibrated", grown_map, judged, map_state),
    ("an artifact is written", None, new_artifact, artifact_state),
    ("an artifact is built anew", old_artifact, rebuilt, artifact_state),
    ("a profile is written", old_artifact, profiled, artifact_state),
    ("a checkpoint is written", old_file, new_file, file_state),
]


def before_and_after(
    ram_path: Path, before: Work | None, work: Work, state: Callable[[Path], Any]
) -> tuple[Path, Path, Any, Any]:
    """The folders without the work and with it, and the state of each."""
    template = ram_path / "template"
    template.mkdir()
    if before is not None:
        before(template / "place")
    old = state(template / "place")
    done = Path(shutil.copytree(template, ram_path / "done"))
    work(done / "place")
    return template, done, old, state(done / "place")


@pytest.mark.parametrize(
    ("before", "work", "state"), [scene[1:] for scene in SCENES], ids=[s[0] for s in SCENES]
)
def test_whoever_dies_while_writing_leaves_old_or_new(
    ram_path: Path, faults: Faults, before: Work | None, work: Work, state: Callable[[Path], Any]
) -> None:
    template, _, old, new = before_and_after(ram_path, before, work, state)
    assert new != old or before in (grown_map,)  # folding a journal in changes no place
    change = 0
    while True:
        folder = Path(shutil.copytree(template, ram_path / f"at{change}"))
        place = folder / "place"
        if not dies_at(change, lambda place=place: work(place)):  # type: ignore[misc]
            break
        area = "map" if state is map_state else "build"
        faults.count(area, state(place) in (old, new), f"before change {change}")
        # The next run is as good as the first, and nothing of the dead one is left beside it.
        if state(place) == old or before is not None:
            work(place)
            left = [name for name in os.listdir(folder) if name.endswith((".tmp", ".lock"))]
            assert not left, f"{left} after change {change}"
        shutil.rmtree(folder)
        change += 1
    assert change >= 2


@pytest.mark.parametrize("lost", CUTS)
@pytest.mark.parametrize(
    ("before", "work", "state"), [scene[1:] for scene in SCENES], ids=[s[0] for s in SCENES]
)
def test_a_power_cut_leaves_old_or_new_and_takes_nothing_back(
    ram_path: Path, before: Work | None, work: Work, state: Callable[[Path], Any], lost: str
) -> None:
    template, _, old, new = before_and_after(ram_path, before, work, state)
    for change in itertools.count():
        folder = Path(shutil.copytree(template, ram_path / f"at{change}"))
        place = folder / "place"
        with pytest.MonkeyPatch.context() as patch:
            cut = partial(Medium(folder, patch).cut, lost)
            # The run that nothing ends before is cut at its end.
            died = dies_at(change, lambda place=place, cut=cut: (work(place), cut()), cut)  # type: ignore[misc]
        if not died:
            assert state(place) == new
            break
        assert state(place) in (old, new), f"before change {change}"


def test_whoever_dies_while_signing_leaves_no_wrong_signature_and_nothing_to_the_next(
    ram_path: Path,
) -> None:
    keys = make_keys(ram_path)
    trusted = Trust(ram_path, signer_line("ours", keys.public("ours")).encode(), ())
    for name, signed_before in (("unsigned", False), ("signed", True)):
        template = ram_path / name
        template.mkdir()
        make_artifact(template / "place", b"old")
        if signed_before:
            sign_artifact(template / "place", keys.private("ours"), serial=1)

        def sign(place: Path) -> None:
            sign_artifact(place, keys.private("ours"), serial=2)

        change = 0
        while True:
            folder = Path(shutil.copytree(template, ram_path / f"{name}{change}"))
            if not dies_at(change, lambda place=folder / "place": sign(place)):  # type: ignore[misc]
                break
            found = read_artifact(folder / "place")  # every byte of it
            assert not found.signed or check_trust(read_signed(found.root), trusted) == "ours"
            sign(folder / "place")
            assert os.listdir(folder) == ["place"], f"after change {change}"
            assert check_trust(read_signed(folder / "place"), trusted) == "ours"
            change += 1
        assert change >= 4


@pytest.mark.parametrize(
    ("before", "work", "state"), [scene[1:] for scene in SCENES], ids=[s[0] for s in SCENES]
)
def test_a_disk_that_fills_leaves_old_or_new(
    ram_path: Path, faults: Faults, before: Work | None, work: Work, state: Callable[[Path], Any]
) -> None:
    template, done, old, new = before_and_after(ram_path, before, work, state)
    largest = max(file.stat().st_size for file in done.rglob("*") if file.is_file())
    steps = sorted({*range(0, 64, 7), *range(0, largest, max(1, largest // 25))})
    for room in steps:
        folder = Path(shutil.copytree(template, ram_path / f"room{room}"))
        place = folder / "place"
        refused = fails_beyond(room, lambda place=place: work(place))  # type: ignore[misc]
        area = "map" if state is map_state else "build"
        faults.count(area, state(place) == (old if refused else new), f"{room} bytes of room")
        left = [name for name in os.listdir(folder) if name.endswith((".tmp", ".lock"))]
        assert not left, f"{left} with {room} bytes of room"
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("before", "work", "state"), [scene[1:] for scene in SCENES], ids=[s[0] for s in SCENES]
)
def test_a_call_that_fails_leaves_old_or_new_and_nothing_beside(
    ram_path: Path, faults: Faults, before: Work | None, work: Work, state: Callable[[Path], Any]
) -> None:
    template, _, old, new = before_and_after(ram_path, before, work, state)
    for change in itertools.count():
        folder = Path(shutil.copytree(template, ram_path / f"at{change}"))
        place = folder / "place"
        failed = fails_at(change, lambda place=place: work(place))  # type: ignore[misc]
        if failed is None:
            break
        area = "map" if state is map_state else "build"
        faults.count(area, state(place) in (old, new), f"{failed}, change {change}")
        # What cannot be removed stays; a lock is another writer's, too, and no file more each time.
        gone = failed in ("os.remove", "os.rmdir")
        left = [name for name in os.listdir(folder) if name.endswith(".tmp")]
        assert gone or not left, f"{left}: {failed}, change {change}"
    assert change >= 2


@pytest.mark.parametrize(
    ("before", "work", "state"), [scene[1:] for scene in SCENES], ids=[s[0] for s in SCENES]
)
def test_who_may_open_too_few_files_is_told_so_before_anything_changes(
    ram_path: Path, faults: Faults, before: Work | None, work: Work, state: Callable[[Path], Any]
) -> None:
    template, _, old, new = before_and_after(ram_path, before, work, state)
    for spare in itertools.count():
        folder = Path(shutil.copytree(template, ram_path / f"spare{spare}"))
        place = folder / "place"
        refused = fails_beyond(spare, lambda place=place: work(place), resource.RLIMIT_NOFILE)  # type: ignore[misc]
        area = "map" if state is map_state else "build"
        faults.count(area, state(place) == (old if refused else new), f"{spare} files")
        # To empty a folder it has to be opened: the next writer sweeps it.
        assert not [name for name in folder.glob(".*.tmp") if not name.is_dir()]
        if not refused:
            break
    assert spare >= 2


def test_an_append_that_is_torn_at_any_byte_leaves_old_or_new(
    ram_path: Path, faults: Faults
) -> None:
    place = ram_path / "place"
    grown_map(place)
    journal = journal_path(place)
    before, old = journal.read_bytes(), map_state(place)
    added(place)
    after, new = journal.read_bytes(), map_state(place)
    assert after.startswith(before) and old != new
    for size in range(len(before), len(after) + 1):
        journal.write_bytes(after[:size])
        faults.count("map", map_state(place) == (new if size == len(after) else old), size)
    # Blocks that reached the disk in another order: what is not there yet reads as zeros.
    for begin in range(len(before), len(after), 16):
        journal.write_bytes(
            after[:begin] + bytes(min(16, len(after) - begin)) + after[begin + 16 :]
        )
        if journal.read_bytes() != after:
            faults.count("map", map_state(place) == old, begin)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files lie."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield tmp_path


def test_temporary_folders_of_the_dead_go_and_those_of_the_living_stay(temporary: Path) -> None:
    def killed() -> None:
        with temporary_folder("build") as folder:
            (folder / "object.o").write_bytes(b"x" * 1000)
            os._exit(77)

    assert dies_at(10**9, killed) and len(os.listdir(temporary)) == 1
    with temporary_folder("build") as mine:
        assert os.listdir(temporary) == [mine.name]
        with temporary_folder("build") as other:
            assert mine.exists() and other.exists() and other != mine
    assert os.listdir(temporary) == []


def test_what_only_looks_like_a_leftover_stays(temporary: Path) -> None:
    outside = temporary / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (temporary / ".tatvpr-build.00000000.tmp").symlink_to(outside)
    os.mkfifo(temporary / ".tatvpr-build.11111111.tmp")
    (temporary / ".tatvpr-build.mine.tmp").write_text("a user's")
    with temporary_folder("build"):
        pass
    assert (outside / "kept").exists() and (temporary / ".tatvpr-build.mine.tmp").exists()
