"""C programs see what was added to a map since it was written, and refuse what Python refuses."""

from __future__ import annotations

import contextlib
import ctypes
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.journals import OpenedInC, OpenedMap, open_in_c, open_map_in_c
from tatvpr_edge.runtime import PlaceMap
from tatvpr_edge.runtime.engine import Engine
from tatvpr_edge.runtime.mapjournal import append, compact, journal_path, read_map
from tatvpr_edge.spec.calibration import Calibration
from tatvpr_edge.spec.errors import MapError
from tatvpr_edge.spec.placemap import Band, MapInfo, Places, write_map

Some = Callable[..., Places]
HASH = "ab" * 32
HEADER = 64
MODEL, CRC, JOURNAL = 23, 22, 28  # TATVPR_ERR_MAP_...
ARGUMENT = 27  # TATVPR_ERR_ARGUMENT


def grown(folder: Path, some: Some, kind: str, appends: list[int], frame: str = "local") -> Path:
    """A map of four places and a journal of so many places an append."""
    info = MapInfo(HASH, kind, 32, (Band(1.0), Band(0.4)), frame)
    path = folder / f"{kind}.placemap"
    write_map(path, info, [some(info, 4)])
    for number, count in enumerate(appends):
        append(path, some(info, count, seed=number + 1))
    return path


def in_c(engine: Engine, path: Path) -> OpenedInC | int:
    return open_in_c(engine.c, path.read_bytes(), journal_path(path).read_bytes())


@pytest.mark.parametrize("kind", ["int8", "binary", "weighed"])
@pytest.mark.parametrize("appends", [[], [1], [3, 1, 5], [70, 30]])
def test_c_finds_added_places_as_python_does(
    engine: Engine, some: Some, tmp_path: Path, kind: str, appends: list[int]
) -> None:
    path = grown(tmp_path, some, kind, appends or [1])
    if not appends:  # a journal without a record
        journal_path(path).write_bytes(journal_path(path).read_bytes()[:HEADER])
    opened = in_c(engine, path)
    assert isinstance(opened, OpenedInC)
    stored = read_map(path)
    assert opened.places == sum(appends) and opened.torn_bytes == 0
    assert [tag.decode() for tag in opened.tags()] == list(stored.added.tags)
    place_map = PlaceMap(path, engine=engine)
    rng = np.random.default_rng(1)
    for k in (1.0, 0.4):
        query = rng.standard_normal(32).astype(np.float32)
        found = place_map.search(query, k, count=8).candidates
        answers = opened.search(query, k)
        assert [(place, score) for place, score, _ in answers] == [
            (c.place, c.score) for c in found
        ]
        for (_, _, pose), candidate in zip(answers, found, strict=True):
            known = candidate.pose or (np.nan,) * 7
            assert np.array_equal(pose, known, equal_nan=True)


@pytest.mark.parametrize(("frame", "apart_m"), [("local", 1.0), ("geographic", 1e5)])
def test_c_judges_added_places_as_python_does(
    engine: Engine, some: Some, tmp_path: Path, frame: str, apart_m: float
) -> None:
    """What lies elsewhere, by metres, makes the margin, which makes the confidence."""
    judged = Calibration("logistic", 0.3, (-1.5, 4.0, 2.5), apart_m, 0, 0.95, 0.4)
    path = tmp_path / "m.placemap"
    info = MapInfo(HASH, "int8", 32, (Band(1.0, 1.0, judged),), frame)
    write_map(path, info, [some(info, 20)])
    append(path, some(info, 15, seed=1))
    opened, place_map = in_c(engine, path), PlaceMap(path, engine=engine)
    assert isinstance(opened, OpenedInC)
    margins = set()
    for query in np.random.default_rng(2).standard_normal((20, 32)).astype(np.float32):
        answer, found = opened.matches(query, 1.0, 1)[0], place_map.search(query, 1.0)
        assert answer.place == found.candidates[0].place
        assert (answer.margin, answer.confidence) == (found.margin, found.confidence)
        assert bool(answer.accepted) == found.accepted
        margins.add(answer.margin)
    assert min(margins) > 0 and len(margins) > 10


def test_what_is_missing_is_told_and_needs_no_room(engine: Engine) -> None:
    null, older = 1, 2  # TATVPR_ERR_NULL, TATVPR_ERR_ABI
    journal = ctypes.create_string_buffer(64)
    zeros = ctypes.create_string_buffer(64)  # a map that was never opened
    for place_map, data, status in (
        (None, journal, null),
        (zeros, journal, null),
        (ctypes.create_string_buffer(b"\0" * 24 + b"\1" * 8, 64), journal, older),
        (zeros, None, null),
    ):
        room_bytes = ctypes.c_size_t(7)
        size = ctypes.c_size_t(64)
        made = engine.c.tatvpr_journal_bytes(place_map, data, size, ctypes.byref(room_bytes))
        assert (made, room_bytes.value) == (status, 0)


def test_what_a_cut_append_left_is_no_part_of_it(
    engine: Engine, some: Some, tmp_path: Path
) -> None:
    path = grown(tmp_path, some, "int8", [2, 2])
    whole = journal_path(path).read_bytes()
    for cut in (1, 9, 40):
        journal_path(path).write_bytes(whole[:-cut])
        opened, stored = in_c(engine, path), read_map(path)
        assert isinstance(opened, OpenedInC)
        assert opened.places == len(stored.added) == 2
        assert opened.torn_bytes == stored.torn_bytes > 0


def test_an_altered_record_is_refused_where_a_whole_one_follows(
    engine: Engine, some: Some, tmp_path: Path
) -> None:
    path = grown(tmp_path, some, "int8", [1, 1])
    altered = bytearray(journal_path(path).read_bytes())
    altered[HEADER + 30] ^= 1
    journal_path(path).write_bytes(altered)
    assert in_c(engine, path) == CRC
    with pytest.raises(MapError, match="altered"):
        read_map(path)


def test_a_journal_of_another_base_is_refused(engine: Engine, some: Some, tmp_path: Path) -> None:
    path = grown(tmp_path, some, "int8", [2])
    journal = journal_path(path).read_bytes()
    info = PlaceMap(path).info
    write_map(path, info, [some(info, 5, seed=9)])
    assert open_in_c(engine.c, path.read_bytes(), journal) == JOURNAL


@pytest.mark.parametrize(("places", "bands"), [(5, 2), (4, 1), (4, 3)])
def test_a_journal_opened_with_another_map_is_not_searched_with_this_one(
    engine: Engine, some: Some, tmp_path: Path, places: int, bands: int
) -> None:
    opened = in_c(engine, grown(tmp_path, some, "int8", [2]))
    info = MapInfo(HASH, "int8", 32, tuple(Band(k) for k in (1.0, 0.4, 0.2)[:bands]))
    write_map(tmp_path / "other", info, [some(info, places)])
    other = open_map_in_c(engine.c, (tmp_path / "other").read_bytes())
    assert isinstance(opened, OpenedInC) and isinstance(other, OpenedMap)
    with pytest.raises(AssertionError, match=f"^{JOURNAL}"):  # the status of the search
        replace(opened, map=other.map).search(np.ones(32, np.float32), 1.0)


def test_the_tag_of_a_place_that_no_journal_added_is_refused(
    engine: Engine, some: Some, tmp_path: Path
) -> None:
    opened = in_c(engine, grown(tmp_path, some, "int8", [2]))
    assert isinstance(opened, OpenedInC)
    text, size = ctypes.c_void_p(), ctypes.c_size_t()
    for place, status in ((3, ARGUMENT), (4, 0), (5, 0), (6, ARGUMENT), (2**64 - 1, ARGUMENT)):
        given = (ctypes.c_uint64(place), ctypes.byref(text), ctypes.byref(size))
        assert engine.c.tatvpr_journal_tag(ctypes.byref(opened.journal), *given) == status


def test_a_journal_that_compaction_absorbed_adds_nothing(
    engine: Engine, some: Some, tmp_path: Path
) -> None:
    path = grown(tmp_path, some, "binary", [2, 1])
    journal = journal_path(path).read_bytes()
    compact(path)
    for torn in (b"", bytes(9)):
        opened = open_in_c(engine.c, path.read_bytes(), journal + torn)
        assert isinstance(opened, OpenedInC) and opened.places == 0 and opened.torn_bytes == 0
    assert len(PlaceMap(path)) == 7


@pytest.mark.parametrize(
    ("cut", "model", "status"), [(0, HASH, None), (1, HASH, JOURNAL), (0, "cd" * 32, JOURNAL)]
)
def test_a_base_of_other_tags_or_another_model_absorbed_nothing(
    engine: Engine, some: Some, tmp_path: Path, cut: int, model: str, status: int | None
) -> None:
    path = grown(tmp_path, some, "binary", [1])
    journal = journal_path(path).read_bytes()
    compact(path)
    base = read_map(path).base
    *others, last = base.places().tags
    places = replace(base.places(), tags=(*others, last[: -cut or None]))
    write_map(path, replace(base.info, model_hash=model), [places])
    opened = open_in_c(engine.c, path.read_bytes(), journal)
    assert opened == status or (status is None and isinstance(opened, OpenedInC))


def test_what_a_base_has_no_room_for_it_did_not_absorb(
    engine: Engine, some: Some, tmp_path: Path
) -> None:
    """As many places as the base holds are absorbed by it; more are never looked for before it."""
    info = MapInfo(HASH, "int8", 32, (Band(1.0), Band(0.4)))
    path = tmp_path / "m.placemap"
    write_map(path, info, [some(info, 0)])
    append(path, some(info, 1200))
    journal = journal_path(path).read_bytes()
    compact(path)
    opened = open_in_c(engine.c, path.read_bytes(), journal)
    assert isinstance(opened, OpenedInC) and opened.places == 0
    write_map(tmp_path / "other", info, [some(info, 1)])
    assert open_in_c(engine.c, (tmp_path / "other").read_bytes(), journal) == JOURNAL


def sealed(journal: bytes) -> bytes:
    """The journal with every checksum that can be found made right again."""
    made, at = bytearray(journal), HEADER
    if len(made) >= HEADER:
        struct.pack_into("<I", made, 12, zlib.crc32(bytes(made[16:HEADER])))
    while at + 24 <= len(made):
        (length,) = struct.unpack_from("<I", made, at + 4)
        if length < 24 or at + length > len(made):
            break
        struct.pack_into("<I", made, at + length - 8, zlib.crc32(bytes(made[at : at + length - 8])))
        at += length
    return bytes(made)


@given(data=st.data())
def test_both_readers_give_one_verdict(
    engine: Engine, some: Some, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any bytes may be changed, cut, doubled; checksums are made right again, or left."""
    kind = data.draw(st.sampled_from(("int8", "binary", "weighed")))
    frame = data.draw(st.sampled_from(("local", "geographic")))
    path = grown(tmp_path_factory.mktemp("map"), some, kind, [1, 2], frame)
    journal = bytearray(journal_path(path).read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(journal) - 1))
        journal[at] = data.draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xC3, 0xED, 0xF8, 0xFF)))
    cut = data.draw(st.sampled_from((0, 0, 1, 8, 60)))
    journal = journal[: len(journal) - cut]
    if data.draw(st.booleans()):
        journal += journal[HEADER:]
    given_bytes = sealed(bytes(journal)) if data.draw(st.booleans()) else bytes(journal)
    journal_path(path).write_bytes(given_bytes)
    opened = in_c(engine, path)
    try:
        stored = read_map(path)
    except MapError:
        assert isinstance(opened, int)
        return
    assert isinstance(opened, OpenedInC), opened
    assert (opened.places, opened.torn_bytes) == (len(stored.added), stored.torn_bytes)
    assert [tag.decode() for tag in opened.tags()] == list(stored.added.tags)


@pytest.mark.parametrize("length", [16, 20])
def test_a_record_shorter_than_its_own_ends_is_none(
    engine: Engine, some: Some, tmp_path: Path, length: int
) -> None:
    """Its checksum is right, and its places would end before they begin."""
    path = grown(tmp_path, some, "int8", [1])
    record = struct.pack("<4sII", b"PLCS", length, 1)[: length - 8]
    record += struct.pack("<II", zlib.crc32(record), length)
    with journal_path(path).open("ab") as journal:
        journal.write(record + bytes(24))
    opened, stored = in_c(engine, path), read_map(path)
    assert isinstance(opened, OpenedInC), opened
    assert (opened.places, opened.torn_bytes) == (1, length + 24) == (1, stored.torn_bytes)


def test_no_byte_of_a_journal_is_read_otherwise(engine: Engine, some: Some, tmp_path: Path) -> None:
    """Each byte of a record and of what the next begins with, under checksums that are right."""
    path = grown(tmp_path, some, "int8", [1, 1], "geographic")
    journal, verdicts = journal_path(path).read_bytes(), set()
    (length,) = struct.unpack_from("<I", journal, HEADER + 4)
    for at in range(HEADER, HEADER + length + 16):
        for value in {journal[at] ^ 1, 0x7F, 0xFF} - {journal[at]}:
            altered = bytearray(journal)
            altered[at] = value
            journal_path(path).write_bytes(sealed(bytes(altered)))
            opened = in_c(engine, path)
            try:
                stored = read_map(path)
            except MapError:
                assert isinstance(opened, int), (at, value)
                verdicts.add(opened)
                continue
            assert isinstance(opened, OpenedInC), (at, value, opened)
            assert (opened.places, opened.torn_bytes) == (len(stored.added), stored.torn_bytes)
    assert len(verdicts) > 1


@pytest.mark.parametrize(
    ("norm", "right"),
    [(0.0, False), (1e-30, True), (1.0, True), (1.0000001, False), (np.nan, False)],
)
def test_norms_are_above_0_and_at_most_1(
    engine: Engine, some: Some, tmp_path: Path, norm: float, right: bool
) -> None:
    path = grown(tmp_path, some, "int8", [1])
    journal = bytearray(journal_path(path).read_bytes())
    struct.pack_into("<f", journal, HEADER + 16 + 32 + 4 + 32, norm)  # of the second band
    journal_path(path).write_bytes(sealed(bytes(journal)))
    assert isinstance(in_c(engine, path), OpenedInC) == right
    with contextlib.nullcontext() if right else pytest.raises(MapError):
        read_map(path)


@pytest.mark.parametrize(
    ("tag", "right"),
    [
        (b"", True),
        ("plaça €𝄞".encode(), True),
        (b"\xc0\xaf", False),
        (b"\xe0\x80\x80", False),
        (b"\xed\xa0\x80", False),
        (b"\xf4\x90\x80\x80", False),
        (b"\xf0\x8f\xbf\xbf", False),
        # a checksum follows, of which some begin as the rest of the letter would
        *((bytes([letter]) + b"\xe2\x82", False) for letter in b"abcdefgh"),
        (b"\x80", False),
        (b"\xf5\x80\x80\x80", False),
        ("\U0010ffff\ud7ff\ue000".encode(), True),
    ],
)
def test_tags_are_utf_8(
    engine: Engine, some: Some, tmp_path: Path, tag: bytes, right: bool
) -> None:
    path = grown(tmp_path, some, "int8", [1])
    journal = journal_path(path).read_bytes()
    fixed = HEADER + 16 + 2 * (32 + 4) + 56 + 16
    body = journal[HEADER + 16 : fixed] + struct.pack("<I", len(tag)) + tag
    record = struct.pack("<4sIII", b"PLCS", 24 + len(body), 0, 1) + body
    record += struct.pack("<II", zlib.crc32(record), 24 + len(body))
    journal_path(path).write_bytes(journal[:HEADER] + record)
    opened = in_c(engine, path)
    assert isinstance(opened, OpenedInC) == right
    if isinstance(opened, OpenedInC):
        assert opened.tags() == [tag] and read_map(path).added.tags == (tag.decode(),)
    else:
        with pytest.raises(MapError):
            read_map(path)
