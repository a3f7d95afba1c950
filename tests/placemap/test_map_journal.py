"""Places added to a map: all of them or none, whatever happens in between."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.maps import info_of
from tatvpr_edge.mapping.merge import merge_maps
from tatvpr_edge.ros.saving import saved
from tatvpr_edge.runtime import PlaceMap, journalrecords, mapjournal
from tatvpr_edge.runtime.engine import Engine
from tatvpr_edge.runtime.mapjournal import (
    append,
    compact,
    create_map,
    journal_path,
    read_map,
    torn_path,
)
from tatvpr_edge.spec.calibration import Calibration
from tatvpr_edge.spec.errors import MapError
from tatvpr_edge.spec.placemap import Band, MapInfo, Places, make_places, read_base, write_map

Some = Callable[..., Places]


def content(path: Path) -> list[tuple[str, bytes, bytes]]:
    """Everything that a query may give back, place by place."""
    place_map = PlaceMap(path)
    stored = place_map.stored
    rows = [np.concatenate([stored.base.rows[b].data, stored.added.rows[b].data]) for b in range(2)]
    moments = np.concatenate([stored.base.moments, stored.added.moments])
    return [
        (
            place_map.tag(i),
            place_map.pose(i).tobytes() + moments[i].tobytes(),
            rows[0][i].tobytes() + rows[1][i].tobytes(),
        )
        for i in range(len(place_map))
    ]


def test_added_places_are_found_at_once_and_in_order(grown: Path, some: Some) -> None:
    info = read_base(grown).info
    wanted = [*some(info, 3).tags, *some(info, 2, 1).tags, *some(info, 1, 2).tags]
    assert [tag for tag, _, _ in content(grown)] == wanted


def test_places_that_lean_on_each_other_change_one_bit_of_the_base(grown: Path, some: Some) -> None:
    """Its places, means and calibrations stay as they are, and so does what was added before."""
    info = read_base(grown).info
    bands = [replace(band, calibration=Calibration("score", 0.5)) for band in info.bands]
    if info.kind != "int8":
        bands[1] = replace(bands[1], mean=tuple(np.linspace(-1, 1, 16, dtype=np.float32).tolist()))
    write_map(grown, replace(info, bands=tuple(bands)), [some(info, 3)])
    journal_path(grown).unlink()
    append(grown, some(info, 2, 1))
    base, before = grown.read_bytes(), content(grown)
    assert append(grown, some(info, 1, 3), neighbours=True) == 5
    again, file = grown.read_bytes(), grown.stat().st_ino
    changed = {at for at in range(len(base)) if base[at] != again[at]}
    assert 28 in changed and again[28] == 1 and changed - {28} <= set(range(188, 192))
    assert content(grown)[:5] == before and content(grown)[5][0] == some(info, 1, 3).tags[0]
    append(grown, some(info, 1, 4), neighbours=True)
    append(grown, some(info, 1, 5))
    assert grown.read_bytes() == again and len(content(grown)) == 8
    assert grown.stat().st_ino == file  # which was not written anew


def test_compaction_changes_nothing_that_a_query_sees(grown: Path) -> None:
    before = content(grown)
    compact(grown)
    assert content(grown) == before
    assert not journal_path(grown).exists()
    assert len(read_base(grown)) == 6
    compact(grown)
    assert content(grown) == before


def test_search_covers_base_and_journal(tmp_path: Path, engine: Engine) -> None:
    info = MapInfo("ab" * 32, "int8", 16, (Band(1.0),))
    rows = np.eye(6, 16, dtype=np.float32)
    write_map(tmp_path / "m", info, [make_places(info, [rows[:4]])])
    append(tmp_path / "m", make_places(info, [rows[4:]]))
    place_map = PlaceMap(tmp_path / "m", engine=engine)
    for place in range(6):
        assert place_map.search(rows[place], 1.0).candidates[0].place == place


def test_a_journal_cut_at_any_byte_gives_whole_appends(grown: Path) -> None:
    whole = content(grown)
    journal = journal_path(grown)
    data = journal.read_bytes()
    ends = [64, 0, len(data)]
    ends[1] = 64 + int.from_bytes(data[68:72], "little")
    for length in range(64, len(data)):
        journal.write_bytes(data[:length])
        expected = 3 if length < ends[1] else 5
        assert content(grown) == whole[:expected]
        assert PlaceMap(grown).stored.torn_bytes == length - (64 if expected == 3 else ends[1])
    for length in range(64):
        journal.write_bytes(data[:length])
        with pytest.raises(MapError, match="truncated inside its header"):
            read_map(grown)


@pytest.mark.parametrize("ending", ["cut", "cut and longer than the next", "altered"])
def test_the_next_append_writes_over_a_torn_one(grown: Path, some: Some, ending: str) -> None:
    info = read_base(grown).info
    journal = journal_path(grown)
    if ending == "cut and longer than the next":
        append(grown, some(info, 9, 3))
    data, whole = journal.read_bytes(), content(grown)
    torn = data[:-5] if ending != "altered" else data[:-40] + bytes([data[-40] ^ 1]) + data[-39:]
    journal.write_bytes(torn)
    kept = len(read_map(grown))
    end = len(torn) - PlaceMap(grown).stored.torn_bytes
    assert kept == (6 if ending == "cut and longer than the next" else 5) and end < len(torn)
    assert append(grown, some(info, 2, 8)) == kept
    assert content(grown)[:kept] == whole[:kept]
    assert [tag for tag, _, _ in content(grown)[kept:]] == list(some(info, 2, 8).tags)
    assert PlaceMap(grown).stored.torn_bytes == 0
    assert torn_path(grown).read_bytes() == torn[end:]  # kept aside, not thrown away


def test_an_append_that_the_system_takes_in_pieces_is_whole(
    grown: Path, some: Some, monkeypatch: pytest.MonkeyPatch
) -> None:
    info, write = read_base(grown).info, os.write
    with monkeypatch.context() as patch:
        patch.setattr(mapjournal.os, "write", lambda file, data: write(file, data[:7]))
        append(grown, some(info, 2, 9))
    assert [tag for tag, _, _ in content(grown)][6:] == list(some(info, 2, 9).tags)


def test_of_two_programs_that_make_one_map_the_second_takes_it_as_it_is(
    tmp_path: Path, some: Some
) -> None:
    for kind in ("int8", "binary"):
        create_map(tmp_path / "m", info_of(kind))
        if kind == "int8":
            append(tmp_path / "m", some(info_of(kind), 2))
    assert read_base(tmp_path / "m").info == info_of("int8") and len(read_map(tmp_path / "m")) == 2


def test_no_map_is_made_in_a_release_which_would_not_start_again(tmp_path: Path) -> None:
    release = tmp_path / "releases" / "micro-host-0123"
    release.mkdir(parents=True)
    (release / "release.json").write_text("{}")
    (tmp_path / "current").symlink_to(release)
    for name in ("map.placemap", "mine.placemap"):
        with pytest.raises(MapError, match=r"is a release, .*name a place outside it"):
            create_map(tmp_path / "current" / name, info_of("int8"))
    assert [file.name for file in release.iterdir()] == ["release.json"]
    # Nor by what writes a map from others, or the ROS node's saving beside the map that it serves.
    for path in (tmp_path / "deployed", tmp_path / "other"):
        create_map(path, info_of("int8"))
    served = (tmp_path / "deployed").rename(release / "map.placemap")
    with pytest.raises(MapError, match="is a release, "):
        saved(PlaceMap(tmp_path / "current" / "map.placemap"), "mine.placemap")
    with pytest.raises(MapError, match="is a release, "):
        merge_maps([served, tmp_path / "other"], tmp_path / "current" / "both.placemap")
    assert sorted(file.name for file in release.iterdir()) == ["map.placemap", "release.json"]


def test_any_flipped_bit_before_a_whole_record_is_told_and_destroys_nothing(
    grown: Path, some: Some
) -> None:
    journal = journal_path(grown)
    data = journal.read_bytes()
    first = 64 + int.from_bytes(data[68:72], "little")
    for at in range(64, first):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        journal.write_bytes(changed)
        with pytest.raises(MapError, match="altered at byte 64"):
            read_map(grown)
    for at in (68, first - 4):  # both lengths of the record
        changed = bytearray(data)
        changed[at] ^= 1
        journal.write_bytes(changed)
        with pytest.raises(MapError, match="altered at byte 64"):
            compact(grown)
        assert journal.read_bytes() == changed
        append(grown, some(read_base(grown).info, 1, 4))  # goes behind the last whole record
        assert journal.read_bytes()[: len(data)] == changed


def test_a_tag_that_reads_like_a_record_hides_no_altered_one(tmp_path: Path, some: Some) -> None:
    """What stood behind it was taken for the rest of a torn append, and the next written there."""
    info, rows = info_of("int8"), np.eye(2, 16, dtype=np.float32)
    write_map(tmp_path / "m", info, [])
    append(tmp_path / "m", make_places(info, [rows, rows], tags=["PLCS", "PLCS"]))
    append(tmp_path / "m", some(info, 1))
    changed = bytearray(journal_path(tmp_path / "m").read_bytes())
    changed[100] ^= 1
    journal_path(tmp_path / "m").write_bytes(changed)
    with pytest.raises(MapError, match="altered at byte 64"):
        read_map(tmp_path / "m")


def test_records_that_are_missing_in_the_middle_are_told(grown: Path) -> None:
    journal = journal_path(grown)
    data = journal.read_bytes()
    first = 64 + int.from_bytes(data[68:72], "little")
    journal.write_bytes(data[:64] + data[first:])
    with pytest.raises(MapError, match="lacks places"):
        read_map(grown)


def test_an_append_reads_nothing_that_grows_with_the_map(
    tmp_path: Path, some: Some, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = info_of("int8")
    write_map(tmp_path / "m", info, [some(info, 3)])
    append(tmp_path / "m", some(info, 1))

    def never(*arguments: object) -> None:
        raise AssertionError("an append read the whole map")

    monkeypatch.setattr(mapjournal, "read_base", never)
    monkeypatch.setattr(mapjournal, "read_records", never)
    numbers = [append(tmp_path / "m", some(info, 2)) for _ in range(3)]
    assert numbers == [4, 6, 8]


def test_an_altered_header_is_told(grown: Path) -> None:
    journal = journal_path(grown)
    data = journal.read_bytes()
    for at in range(64):
        changed = bytearray(data)
        changed[at] ^= 1
        journal.write_bytes(changed)
        with pytest.raises(MapError):
            read_map(grown)


def test_a_journal_of_another_map_is_told(grown: Path, some: Some, tmp_path: Path) -> None:
    info = read_base(grown).info
    other = tmp_path / "other.placemap"
    write_map(other, info, [some(info, 4, 5)])
    shutil.copy(journal_path(grown), journal_path(other))
    for use in (read_map, compact, lambda path: append(path, some(info, 1))):
        with pytest.raises(MapError, match="belongs to another map"):
            use(other)


def test_power_lost_inside_compaction_leaves_the_whole_map(grown: Path, some: Some) -> None:
    before = content(grown)
    info = read_base(grown).info
    saved = journal_path(grown).read_bytes()
    compact(grown)
    journal_path(grown).write_bytes(saved)  # the new base stands, its journal was not removed yet
    assert content(grown) == before
    append(grown, some(info, 1, 7))
    assert len(content(grown)) == 7
    compact(grown)
    assert [tag for tag, _, _ in content(grown)][:6] == [tag for tag, _, _ in before]


def test_a_journal_is_folded_in_only_where_the_map_ends_with_just_its_places(grown: Path) -> None:
    """Else they would be gone without a word: a drive along the same frames has other poses."""
    info, whole = read_base(grown).info, read_map(grown).places()
    moments, poses = whole.moments.copy(), whole.poses.copy()
    moments["order"][-1] += 1
    poses[-1, 0] += 1
    for other, places in (
        (info, replace(whole, tags=(*whole.tags[:-1], "another"))),
        (info, replace(whole, poses=poses)),
        (info, replace(whole, moments=moments)),
        (replace(info, model_hash="cd" * 32), whole),
    ):
        write_map(grown, other, [places])
        with pytest.raises(MapError, match="belongs to another map"):
            read_map(grown)
    write_map(grown, info, [whole])
    assert len(read_map(grown)) == 6


@pytest.mark.parametrize("failing", ["fsync", "write", "replace"])
def test_a_failed_append_adds_nothing(
    grown: Path, some: Some, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    before = content(grown)
    info = read_base(grown).info
    if failing == "replace":
        journal_path(grown).unlink()
        before = before[:3]

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(mapjournal.os, failing, full)
        with pytest.raises(MapError, match="disk is full"):
            append(grown, some(info, 2, 3))
    assert content(grown) == before
    append(grown, some(info, 2, 3))
    assert len(content(grown)) == len(before) + 2


@pytest.mark.parametrize("change", ["append", "compact", "prune"])
def test_a_disk_without_room_for_the_lock_s_note_is_told_as_any_full_disk(
    grown: Path, some: Some, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    before = content(grown)
    info = read_base(grown).info

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(mapjournal.os, "pwrite", full)
        patch.setattr(mapjournal.os, "fsync", full)
        with pytest.raises(MapError, match="disk is full"):
            if change == "append":
                append(grown, some(info, 2, 3))
            elif change == "compact":
                compact(grown)
            else:
                PlaceMap(grown).prune(2)
    assert content(grown) == before


def test_places_of_another_shape_are_refused(grown: Path, some: Some) -> None:
    kind = read_base(grown).info.kind
    other = "binary" if kind == "int8" else "int8"
    for info in (info_of(other), MapInfo("ab" * 32, kind, 24, info_of(kind).bands)):
        with pytest.raises(MapError, match="other bands, kind or size"):
            append(grown, some(info, 1))
    assert len(read_map(grown)) == 6


def test_a_map_of_as_many_places_as_there_can_be_takes_no_more(
    grown: Path, some: Some, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = read_base(grown).info
    monkeypatch.setattr(mapjournal, "MAX_PLACES", 7)
    append(grown, some(info, 1))
    before = content(grown)
    with pytest.raises(MapError, match="is full: it holds at most 7 places"):
        append(grown, some(info, 1))
    assert content(grown) == before and len(before) == 7


def test_a_large_journal_takes_its_own_size_of_memory(tmp_path: Path) -> None:
    """A deploy's health check counts it; a place a second makes this one in half a day."""
    info = MapInfo("ab" * 32, "int8", 512, (Band(1.0),))
    path = tmp_path / "m.placemap"
    write_map(path, info, [])
    rows = np.random.default_rng(0).standard_normal((8000, 512)).astype(np.float32)
    places = make_places(info, [rows], tags=[f"{index}.jpg" for index in range(8000)])
    append(path, places)
    journal = journal_path(path)
    with journal.open("ab") as sink:
        for number in range(1, 5):
            sink.write(journalrecords.encode_record(places, 8000 * number))
    program = (
        "import sys; from tatvpr_edge.runtime.mapjournal import read_map; "
        "from tatvpr_edge.runtime.service import resident_bytes; before = resident_bytes(); "
        "stored = read_map(sys.argv[1]); print(len(stored), resident_bytes() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    held, grown = map(int, done.stdout.split())
    assert held == 40_000 and grown < 1.5 * journal.stat().st_size


def _add(path: Path, first: int, count: int) -> None:
    info = info_of("int8")
    for index in range(count):
        rows = np.full((1, 16), first + index, dtype=np.float32)
        rows[0, : first + index + 1] += 1
        append(path, make_places(info, [rows, rows], tags=[f"{first + index}"]))
        if index % 3 == 2:
            compact(path)


def test_writers_and_readers_at_once_lose_nothing(tmp_path: Path) -> None:
    info = info_of("int8")
    path = tmp_path / "m.placemap"
    write_map(path, info, [make_places(info, [np.zeros((0, 16)), np.zeros((0, 16))])])
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_add, args=(path, 8 * part, 8)) for part in range(2)]
    for writer in writers:
        writer.start()
    seen = 0
    while any(writer.is_alive() for writer in writers):
        count = len(read_map(path))
        assert count >= seen
        seen = count
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    tags = sorted(int(tag) for tag, _, _ in content(path))
    assert tags == list(range(16))


def test_an_open_map_outlives_its_replacement(grown: Path, engine: Engine) -> None:
    place_map = PlaceMap(grown, engine=engine)
    query = place_map.stored.base.rows[0].data[1].astype(np.float32)
    if place_map.info.kind != "int8":
        query = np.unpackbits(query.astype(np.uint8), bitorder="little").astype(np.float32) - 0.5
    before = place_map.search(query, 1.0, count=3)
    compact(grown)
    os.unlink(grown)
    after = place_map.search(query, 1.0, count=3)
    assert repr(after) == repr(before)  # unknown poses are NaN, which equal nothing


@given(data=st.data())
def test_a_journal_that_was_harmed_gives_a_prefix_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    info = info_of("binary")
    whole, ends = b"", []
    for size in (1, 3, 2):
        rows = np.eye(size, 16, dtype=np.float32)
        record = journalrecords.encode_record(make_places(info, [rows, rows]), sum(ends))
        whole, ends = whole + record, [*ends, size]
    harmed = bytearray(bytes(64) + whole)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(64, len(harmed) - 1))
        harmed[at] = data.draw(st.integers(0, 255))
    del harmed[data.draw(st.integers(64, len(harmed))) :]
    try:
        places, end = journalrecords.read_records(bytes(harmed), 64, info, "m.journal")
    except MapError:
        return
    assert len(places) in (0, 1, 4, 6) and end <= len(harmed)
