"""Places added to a map: all of them or none, whatever happens in between."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tatvpr_edge.runtime import PlaceMap
from tatvpr_edge.spec import mapjournal
from tatvpr_edge.spec.errors import MapError
from tatvpr_edge.spec.mapjournal import append, compact, journal_path, read_map
from tatvpr_edge.spec.placemap import Band, MapInfo, Places, make_places, read_base, write_map

Some = Callable[..., Places]


def info_of(kind: str, model: str = "ab" * 32) -> MapInfo:
    return MapInfo(model, kind, 16, (Band(1.0), Band(0.2, 0.5)), "local")


@pytest.fixture(params=["int8", "binary"])
def grown(request: pytest.FixtureRequest, tmp_path: Path, some: Some) -> Path:
    """A base of 3 places and a journal of 2 + 1."""
    info = info_of(request.param)
    path = tmp_path / "m.placemap"
    write_map(path, info, [some(info, 3)])
    append(path, some(info, 2, 1))
    append(path, some(info, 1, 2))
    return path


def content(path: Path) -> list[tuple[str, bytes, bytes]]:
    """Everything that a query may give back, place by place."""
    place_map = PlaceMap(path)
    stored = place_map.stored
    rows = [np.concatenate([stored.base.rows[b].data, stored.added.rows[b].data]) for b in range(2)]
    return [
        (place_map.tag(i), place_map.pose(i).tobytes(), rows[0][i].tobytes() + rows[1][i].tobytes())
        for i in range(len(place_map))
    ]


def test_added_places_are_found_at_once_and_in_order(grown: Path, some: Some) -> None:
    info = read_base(grown).info
    wanted = [*some(info, 3).tags, *some(info, 2, 1).tags, *some(info, 1, 2).tags]
    assert [tag for tag, _, _ in content(grown)] == wanted


def test_compaction_changes_nothing_that_a_query_sees(grown: Path) -> None:
    before = content(grown)
    compact(grown)
    assert content(grown) == before
    assert not journal_path(grown).exists()
    assert len(read_base(grown)) == 6
    compact(grown)
    assert content(grown) == before


def test_search_covers_base_and_journal(tmp_path: Path) -> None:
    info = MapInfo("ab" * 32, "int8", 16, (Band(1.0),))
    rows = np.eye(6, 16, dtype=np.float32)
    write_map(tmp_path / "m", info, [make_places(info, [rows[:4]])])
    append(tmp_path / "m", make_places(info, [rows[4:]]))
    place_map = PlaceMap(tmp_path / "m")
    for place in range(6):
        assert place_map.search(rows[place], 1.0).candidates[0].place == place


def test_a_journal_cut_at_any_byte_gives_whole_appends(grown: Path) -> None:
    whole = content(grown)
    journal = journal_path(grown)
    data = journal.read_bytes()
    ends = [64, 0, len(data)]
    ends[1] = 64 + 8 + int.from_bytes(data[64:68], "little")
    for length in range(64, len(data)):
        journal.write_bytes(data[:length])
        expected = 3 if length < ends[1] else 5
        assert content(grown) == whole[:expected]
        assert PlaceMap(grown).stored.torn_bytes == length - (64 if expected == 3 else ends[1])
    for length in range(64):
        journal.write_bytes(data[:length])
        with pytest.raises(MapError, match="truncated inside its header"):
            read_map(grown)


def test_the_next_append_writes_over_a_torn_one(grown: Path, some: Some) -> None:
    info = read_base(grown).info
    journal = journal_path(grown)
    data = journal.read_bytes()
    journal.write_bytes(data[:-5])
    append(grown, some(info, 2, 9))
    tags = [tag for tag, _, _ in content(grown)]
    assert tags == [*some(info, 3).tags, *some(info, 2, 1).tags, *some(info, 2, 9).tags]
    assert PlaceMap(grown).stored.torn_bytes == 0


def test_an_altered_record_before_a_whole_one_is_told(grown: Path) -> None:
    journal = journal_path(grown)
    data = bytearray(journal.read_bytes())
    data[100] ^= 1
    journal.write_bytes(data)
    with pytest.raises(MapError, match="altered at byte 64"):
        read_map(grown)


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


def test_places_of_another_shape_are_refused(grown: Path, some: Some) -> None:
    kind = read_base(grown).info.kind
    other = "binary" if kind == "int8" else "int8"
    for info in (info_of(other), MapInfo("ab" * 32, kind, 24, info_of(kind).bands)):
        with pytest.raises(MapError, match="other bands, kind or size"):
            append(grown, some(info, 1))
    assert len(read_map(grown)) == 6


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


def test_an_open_map_outlives_its_replacement(grown: Path) -> None:
    place_map = PlaceMap(grown)
    query = place_map.stored.base.rows[0].data[1].astype(np.float32)
    if place_map.info.kind == "binary":
        query = np.unpackbits(query.astype(np.uint8), bitorder="little").astype(np.float32) - 0.5
    before = place_map.search(query, 1.0, count=3)
    compact(grown)
    os.unlink(grown)
    after = place_map.search(query, 1.0, count=3)
    assert repr(after) == repr(before)  # unknown poses are NaN, which equal nothing
