"""A map file comes back as it was written, and nothing else is taken for one."""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.maps import reseal
from tatvpr_edge.runtime import PlaceMap
from tatvpr_edge.spec import placemap
from tatvpr_edge.spec.calibration import Calibration, DialWeights
from tatvpr_edge.spec.errors import MapError
from tatvpr_edge.spec.manifest import ModelEntry
from tatvpr_edge.spec.placemap import (
    Band,
    MapInfo,
    Places,
    make_places,
    parse_base,
    parse_header,
    read_base,
    write_map,
)

Some = Callable[..., Places]


def info_of(kind: str, dim: int = 16) -> MapInfo:
    return MapInfo("ab" * 32, kind, dim, (Band(1.0), Band.accepting(0.2, 0.5, 0.75)), "utm")


def model(digest: str, descriptor_size: int) -> ModelEntry:
    return ModelEntry("m", digest, "gem", descriptor_size, 128, 192, 65)


@pytest.fixture(params=["int8", "binary", "weighed"])
def small(request: pytest.FixtureRequest, tmp_path: Path, some: Some) -> Path:
    """A map of three places, of each kind."""
    info = info_of(request.param)
    write_map(tmp_path / "m.placemap", info, [some(info, 3)])
    return tmp_path / "m.placemap"


def test_what_was_written_is_read_back(small: Path, some: Some) -> None:
    base = read_base(small)
    wanted = some(info_of(base.info.kind), 3)
    assert base.info == info_of(base.info.kind)
    np.testing.assert_array_equal(base.poses, wanted.poses)
    assert [base.tag(place) for place in range(3)] == list(wanted.tags)
    for mine, theirs in zip(base.rows, wanted.rows, strict=True):
        np.testing.assert_array_equal(mine.data, theirs.data)
    assert [rows.data.flags.writeable for rows in base.rows] == [False, False]


def test_parts_are_joined_in_order(tmp_path: Path, some: Some) -> None:
    info = info_of("int8")
    write_map(tmp_path / "m", info, [some(info, 2, 1), some(info, 0), some(info, 3, 2)])
    base = read_base(tmp_path / "m")
    assert [base.tag(i) for i in range(5)] == [*some(info, 2, 1).tags, *some(info, 3, 2).tags]


def test_the_layout_is_what_the_page_says(tmp_path: Path) -> None:
    info = MapInfo("11" * 32, "int8", 8, (Band(0.5),))
    rows = np.array([[0, 1, 2, 3, 4, 5, 6, 12.7], [1, 0, 0, 0, 0, 0, 0, 0]], dtype=np.float32)
    write_map(
        tmp_path / "m", info, [make_places(info, [rows], tags=["a", "bc"], times=[np.nan, 1.5])]
    )
    data = (tmp_path / "m").read_bytes()
    assert data[:8] == b"TVPRMAP1" and struct.unpack_from("<II", data, 8) == (2, 320)
    assert struct.unpack_from("<Q", data, 16)[0] == len(data) == 640 + 24 + 3
    assert list(data[320:328]) == [0, 10, 20, 30, 40, 50, 60, 127]
    squares = sum(value * value for value in data[320:328])
    norm = np.float32(1) / np.sqrt(np.float32(squares))
    assert struct.unpack_from("<f", data, 384)[0] == norm
    assert struct.unpack_from("<qIHBB", data, 576 + 16) == (1_500_000, 1, 0, 0, 0)
    assert data[-3:] == b"abc"
    assert zlib.crc32(data[320:]) == struct.unpack_from("<I", data, 184)[0]


@pytest.mark.parametrize("mapped", [False, True])
def test_a_file_is_read_or_mapped_to_the_same_places(
    small: Path, mapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placemap, "_READ_BYTES", 0 if mapped else small.stat().st_size)
    base = read_base(small)
    whole = parse_base(np.frombuffer(small.read_bytes(), np.uint8))
    assert isinstance(base.rows[0].data, np.memmap) is mapped
    assert not base.rows[0].data.flags.writeable
    assert base.rows[0].data.tobytes() == whole.rows[0].data.tobytes()
    assert [base.tag(i) for i in range(len(base))] == [whole.tag(i) for i in range(len(base))]


def test_an_open_map_outlives_what_is_done_to_its_file(small: Path) -> None:
    """``cp`` over it cuts the file and fills it anew: SIGBUS, for what is mapped."""
    program = (
        "import os, sys\nfrom tatvpr_edge.runtime import PlaceMap\n"
        "def seen():\n"
        "    base = opened.stored.base\n"
        "    return base.rows[0].data.tobytes() + base.poses.tobytes() + base.tag(0).encode()\n"
        "opened = PlaceMap(sys.argv[1])\nfirst, size = seen(), os.path.getsize(sys.argv[1])\n"
        "os.truncate(sys.argv[1], 0)\nassert seen() == first\n"
        "os.truncate(sys.argv[1], size)\nassert seen() == first\n"
    )
    done = subprocess.run([sys.executable, "-c", program, small], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_map_cut_at_any_byte_is_refused(small: Path) -> None:
    data = small.read_bytes()
    for length in range(len(data)):
        with pytest.raises(MapError, match=r"truncated|no place map"):
            parse_base(np.frombuffer(data[:length], np.uint8))
    for length in range(0, len(data), 23):
        small.write_bytes(data[:length])
        with pytest.raises(MapError, match=r"truncated|no place map"):
            read_base(small)
    small.write_bytes(data + b"\0")
    with pytest.raises(MapError, match="longer than it says"):
        read_base(small)


def test_any_flipped_bit_is_refused(small: Path) -> None:
    data = np.fromfile(small, np.uint8)
    for at in range(len(data)):
        for bit in (0, 3, 7):
            changed = data.copy()
            changed[at] ^= 1 << bit
            with pytest.raises(MapError):
                parse_base(changed)


@given(
    field=st.sampled_from([(8, "I"), (12, "I"), (16, "Q"), (24, "I"), (64, "I"), (68, "I")])
    | st.sampled_from([(72, "I"), (76, "I"), (80, "Q"), (88, "I"), (92, "I"), (96, "Q")])
    | st.sampled_from([(104, "Q"), (112, "Q"), (120, "Q"), (128, "Q"), (180, "I"), (200, "Q")])
    | st.sampled_from([(208, "Q"), (216, "Q"), (224, "I"), (260, "I"), (312, "Q")]),
    value=st.sampled_from([0, 1, 2, 3, 7, 65537, 2**31, 2**32 - 1, 2**63, 2**64 - 1])
    | st.integers(0, 2**64 - 1),
)
def test_a_hostile_header_with_right_checksums_is_refused(
    tmp_path_factory: pytest.TempPathFactory, field: tuple[int, str], value: int
) -> None:
    path = tmp_path_factory.mktemp("hostile") / "m"
    info = info_of("int8")
    rows = np.eye(3, 16, dtype=np.float32)
    write_map(path, info, [make_places(info, [rows, rows])])
    data = bytearray(path.read_bytes())
    at, code = field
    value &= (1 << (8 * struct.calcsize(code))) - 1
    if struct.unpack_from("<" + code, data, at)[0] == value:
        return
    struct.pack_into("<" + code, data, at, value)
    data[188:192] = bytes(4)
    struct.pack_into("<I", data, 188, zlib.crc32(bytes(data[:448])))
    if (at, value) in ((76, 0), (76, 2)) or (at == 72 and 16 <= value <= 65536):
        return  # another pose frame is as good as this one, and so is a longer descriptor
    if (at, value) == (224, 1):
        return  # a band that accepts scores from 0 up
    if (at, value) == (312, 2**31):
        return  # -0.0 is what tokens count then: nothing, as 0 is, to the C reader as well
    with pytest.raises(MapError):
        parse_base(np.frombuffer(bytes(data), np.uint8))


def judged(**given: Any) -> tuple[Band]:
    """A band of such a calibration."""
    return (Band(1.0, 1.0, Calibration("logistic", 0.0, **{"elsewhere_m": 5.0, **given})),)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dim": 0}, "0 elements"),
        ({"dim": 70000}, "70000 elements"),
        ({"kind": "float"}, "float"),
        ({"kind": "binary", "dim": 12}, "12 elements"),
        ({"bands": ()}, "0 bands"),
        ({"bands": tuple(Band(1.0) for _ in range(17))}, "17 bands"),
        ({"bands": (Band(0.0),)}, "k is 0"),
        ({"bands": (Band(1.0, 1.5),)}, "tokens is 1.5"),
        ({"bands": (Band.accepting(1.0, 1.0, 2.0),)}, "threshold is 2"),
        ({"bands": judged(elsewhere_places=2**32)}, "distances are 0"),
        ({"bands": judged(dials=DialWeights(k=1.0, least_k_percent=101))}, "k of .* 101"),
        ({"bands": judged(dials=DialWeights(tokens=1.0))}, "tokens of .* 0 hundredths"),
        ({"pose_frame": "mars"}, "mars"),
    ],
)
def test_what_cannot_be_written_is_told(change: dict[str, object], words: str) -> None:
    values = {"model_hash": "ab" * 32, "kind": "int8", "dim": 16, "bands": (Band(1.0),)}
    with pytest.raises(MapError, match=words):
        placemap.check_info(MapInfo(**{**values, **change}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (np.zeros((2, 16)), "zero"),
        (np.full((2, 16), np.nan), "finite"),
        (np.ones((2, 15)), "15 elements"),
        (np.ones(16), "shape"),
    ],
)
def test_descriptors_that_cannot_be_places_are_told(
    rows: np.ndarray[tuple[int, ...], np.dtype[np.float64]], words: str
) -> None:
    info = MapInfo("ab" * 32, "int8", 16, (Band(1.0),))
    with pytest.raises(MapError, match=words):
        make_places(info, [rows.astype(np.float32)])


def test_a_map_of_another_model_is_refused(small: Path) -> None:
    PlaceMap(small, model("ab" * 32, 16))
    with pytest.raises(MapError, match=r"another model .*: give the artifact that it was made"):
        PlaceMap(small, model("cd" * 32, 16))
    with pytest.raises(MapError, match="16 numbers, the artifact's have 64"):
        PlaceMap(small, model("ab" * 32, 64))


def test_a_missing_map_and_a_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(MapError, match="No such file"):
        PlaceMap(tmp_path / "nowhere")
    with pytest.raises(MapError, match="cannot read"):
        PlaceMap(tmp_path)


def test_a_full_disk_leaves_the_old_map(
    small: Path, some: Some, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = small.read_bytes()
    info = read_base(small).info

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MapError, match="disk is full"):
        write_map(small, info, [some(info, 5)])
    assert small.read_bytes() == before
    assert list(small.parent.iterdir()) == [small]


def test_a_disk_that_is_really_full_leaves_nothing(tmp_path: Path, project_root: Path) -> None:
    # A limit on file size stands for the end of a disk: the kernel itself refuses the write.
    program = """
import resource, signal, sys, numpy as np
from tatvpr_edge.spec.errors import MapError
from tatvpr_edge.spec.manifest import ModelEntry
from tatvpr_edge.spec.placemap import Band, MapInfo, make_places, write_map
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
info = MapInfo("ab" * 32, "int8", 512, (Band(1.0),))
try:
    write_map(sys.argv[1], info, [make_places(info, [np.eye(200, 512, dtype=np.float32)])])
except MapError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "m")],
        capture_output=True,
        text=True,
        cwd=project_root,
    )
    assert "cannot write the map" in done.stdout and done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("pose", "words"),
    [
        ((1, 2, 3, 5, 5, 5, 5), "orientation"),
        ((1, 2, 3, 0, 0, 0, 0), "orientation"),
        ((1, 2, np.inf, 0, 0, 0, 1), "infinite"),
        ((1, 2, 3, 0, 0, 0, 1e300), "has length inf, not 1"),
        ((2e9, 2, 3, 0, 0, 0, 1), "at most 1e[+]09 metres"),  # the first releases wrote such
        ((-np.inf, 2, 3, 0, 0, 0, 1), "infinite"),
    ],
)
def test_a_pose_is_a_place_and_an_orientation_or_unknown(
    tmp_path: Path, pose: tuple[float, ...], words: str
) -> None:
    info, row = info_of("int8"), np.eye(1, 16, dtype=np.float32)
    with pytest.raises(MapError, match=words):
        make_places(info, [row, row], np.array([pose], np.float64))
    # And a reader, of a file whose writer did not ask.
    good = np.array([[1.25, 2.5, 3.75, 0, 0, 0, 1]])
    write_map(tmp_path / "m", info, [make_places(info, [row, row], good)])
    data = (tmp_path / "m").read_bytes()
    assert data.count(good.tobytes()) == 1
    bad = data.replace(good.tobytes(), np.array(pose, np.float64).tobytes())
    with pytest.raises(MapError, match=r"(pose|position|orientation) .*make it again"):
        parse_base(np.frombuffer(reseal(bad), np.uint8))


@pytest.mark.parametrize(
    ("section", "at", "code", "value", "words"),
    [
        ("norms", 4, "<f", 0.0, "norm"),
        ("norms", 4, "<f", 1.5, "norm"),
        ("norms", 4, "<f", np.nan, "norm"),
        ("poses", 0, "<d", 180.5, "not on earth"),
        ("poses", 8, "<d", -90.5, "not on earth"),
        ("poses", 7 * 8, "<d", 1.0, "unknown number of a pose is not zero"),
        ("moments", 0, "<q", -1, "a time is before 1970"),
        ("moments", 15, "<B", 0b0001111, "half known"),
        ("tags", 0, "<Q", 1, "tags overlap or leave"),
        ("tags", 8, "<Q", 9, "tags overlap or leave"),
        ("tags", 16, "<Q", 2, "tags overlap or leave"),
    ],
)
def test_a_stored_number_that_breaks_a_rule_is_refused(
    tmp_path: Path, section: str, at: int, code: str, value: float, words: str
) -> None:
    """Of a writer that did not ask: both checksums are right."""
    info, rows = MapInfo("ab" * 32, "int8", 16, (Band(1.0),), "geographic"), np.eye(2, 16)
    poses = np.array([[20, 10, 5, 0, 0, 0, 1], [np.nan] * 7])
    write_map(
        tmp_path / "m",
        info,
        [make_places(info, [rows.astype(np.float32)], poses, ["a", "bc"])],
    )
    data = bytearray((tmp_path / "m").read_bytes())
    layout = parse_header(np.frombuffer(data, np.uint8), len(data)).layout
    begin = layout.bands[0].norms if section == "norms" else getattr(layout, section)
    struct.pack_into(code, data, begin + at, value)
    with pytest.raises(MapError, match=words):
        parse_base(np.frombuffer(reseal(data), np.uint8))


def test_what_is_nearly_right_is_stored_as_it_is_meant() -> None:
    info, row = info_of("int8"), np.eye(1, 16, dtype=np.float32)
    near = np.array([[1, 2, 3, 0, 0, 0.6, 0.8004]])
    made = make_places(info, [row, row], near, times=[0.0], confirmed=300)
    assert np.linalg.norm(made.poses[0, 3:]) == pytest.approx(1.0, abs=1e-12)
    assert made.moments[0]["time_us"] == 1  # 0 would say unknown
    assert made.moments[0]["confirmed"] == 255
    with pytest.raises(MapError, match="not milliseconds"):
        make_places(info, [row, row], times=[1.7e12])


def test_a_signed_map_is_read_into_memory_whatever_its_size(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes into a mapped file changes what was checked."""
    monkeypatch.setattr(placemap, "_READ_BYTES", 0)
    signed = read_base(small, hashlib.sha256(small.read_bytes()).hexdigest())
    assert not isinstance(signed.rows[0].data, np.memmap)


@pytest.mark.parametrize("kind", ["int8", "binary", "weighed"])
def test_a_descriptor_of_nothing_is_no_place(kind: str) -> None:
    row = np.zeros((1, 16), np.float32)
    with pytest.raises(MapError, match="is zero"):
        make_places(info_of(kind), [row, row])
