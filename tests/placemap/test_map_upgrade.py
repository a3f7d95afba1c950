"""Maps of format version 1 are upgraded by one command, and refused by everything else."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import struct
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tatvpr_edge.cli import main
from tatvpr_edge.mapping.upgrade import Upgraded, upgrade
from tatvpr_edge.runtime import PlaceMap
from tatvpr_edge.runtime.mapjournal import append, journal_path
from tatvpr_edge.spec.errors import MapError
from tatvpr_edge.spec.mapfiles import lock_path, writing
from tatvpr_edge.spec.placemap import Band
from tatvpr_edge.spec.scores import binary_rows, int8_rows

HASH, DIM = bytes(range(32)), 16
TURN = (0.0, 0.0, 0.6, 0.8)


def old_poses(count: int) -> NDArray[np.float64]:
    poses = np.full((count, 7), np.nan)
    poses[:, :2] = np.arange(2 * count).reshape(count, 2)
    poses[0, 3:] = TURN
    poses[1, 3:] = (0, 0, 0, 5)  # version 1 took any four numbers
    return poses


def stored(kind: str, rows: NDArray[np.float32]) -> tuple[bytes, bytes]:
    if kind == "binary":
        return binary_rows(rows).tobytes(), b""
    data, norms = int8_rows(rows)
    return data.tobytes(), norms.tobytes()


def write_old(path: Path, kind: str, rows: NDArray[np.float32], added: int) -> None:
    """A map of version 1 of one band, the last ``added`` places in its journal."""
    base = len(rows) - added
    tags = [f"plaça {index}".encode() for index in range(len(rows))]
    data, norms = stored(kind, rows[:base])
    ends = np.cumsum([0, *map(len, tags[:base])]).astype("<u8")
    sections = [data, *([norms] if norms else []), old_poses(len(rows))[:base].tobytes()]
    sections.append(ends.tobytes() + b"".join(tags[:base]))
    payload, offsets = b"", []
    for section in sections:
        payload += bytes(-(192 + len(payload)) % 64)
        offsets.append(192 + len(payload))
        payload += section
    code = 1 if kind == "int8" else 2
    band = struct.pack("<fffIQQ32s", 0.4, 1.0, 0.5, 0, offsets[0],
                       offsets[1] if norms else 0, bytes(32))  # fmt: skip
    crc = zlib.crc32(payload)
    start = struct.pack("<8sIIQII32sIIIIQIIQQQI", b"TVPRMAP1", 1, 192, 192 + len(payload), 0, 0,
                        HASH, code, DIM, code, 2 - code, base, 1, 1, offsets[-2], offsets[-1],
                        len(sections[-1]), crc)  # fmt: skip
    header = start + struct.pack("<I", zlib.crc32(start + bytes(4) + band)) + band
    path.write_bytes(header + payload)
    binding = struct.pack("<IIQ32s", crc, 0, 192 + len(payload), HASH)
    journal = b"TVPRJRN1" + struct.pack("<II", 1, zlib.crc32(binding)) + binding
    for index in range(base, len(rows)):
        data, norms = stored(kind, rows[index : index + 1])
        body = struct.pack("<I", 1) + data + norms + old_poses(len(rows))[index].tobytes()
        body += struct.pack("<I", len(tags[index])) + tags[index]
        journal += struct.pack("<II", len(body), zlib.crc32(body)) + body
    if added:
        journal_path(path).write_bytes(journal + b"torn")


@pytest.fixture(params=["int8", "binary"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    rows = np.random.default_rng(0).standard_normal((5, DIM)).astype(np.float32)
    write_old(tmp_path / "m.placemap", request.param, rows, 2)
    return tmp_path / "m.placemap"


def test_everything_but_the_upgrade_refuses_it_by_name(old: Path) -> None:
    for use in (PlaceMap, lambda path: append(path, None)):  # type: ignore[arg-type]
        with pytest.raises(MapError, match=r"version 1, .*'tatvpr-edge map build'; .*map upgrade"):
            use(old)


def test_an_upgraded_map_holds_the_same_places(old: Path) -> None:
    old.chmod(0o600)
    assert upgrade(old) == Upgraded(places=5, dropped_turns=1)
    assert sorted(path.name for path in old.parent.iterdir()) == [old.name]
    assert old.stat().st_mode & 0o777 == 0o600
    place_map = PlaceMap(old)
    info, rows = place_map.info, place_map.stored.base.rows[0]
    assert info.bands == (Band.accepting(0.4, 1.0, 0.5),) and info.pose_frame == "utm"
    assert (info.model_hash, info.dim, info.descriptor_size) == (HASH.hex(), DIM, DIM)
    floats = np.random.default_rng(0).standard_normal((5, DIM)).astype(np.float32)
    data, norms = stored(info.kind, floats)
    assert rows.data.tobytes() == data
    assert norms == (b"" if rows.norms is None else rows.norms.tobytes())
    wanted = old_poses(5)
    wanted[1, 3:] = np.nan
    np.testing.assert_array_equal([place_map.pose(i) for i in range(5)], wanted)
    assert [place_map.tag(i) for i in range(5)] == [f"plaça {i}" for i in range(5)]
    assert place_map.stored.base.moments["order"].tolist() == [0, 1, 2, 3, 4]
    assert upgrade(old) is None


def test_an_upgrade_says_that_no_artifact_answers_from_the_map(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who upgraded a map was told to give the artifact that it was made with, which is refused."""
    assert main(["map", "upgrade", str(old)]) == 0
    assert "make it again with 'tatvpr-edge map build'" in capsys.readouterr().err


def test_a_program_that_upgrades_twice_reads_json_alone(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upgrade(old)
    assert main(["map", "upgrade", str(old), "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["places"] == 5 and said.err == ""


def test_a_cut_between_its_last_two_steps_is_mended(old: Path) -> None:
    journal = journal_path(old).read_bytes()
    upgrade(old)
    journal_path(old).write_bytes(journal)  # the new base stands, the old journal was not removed
    with pytest.raises(MapError, match="map upgrade"):
        PlaceMap(old)
    assert upgrade(old) is None
    assert len(PlaceMap(old)) == 5
    assert list(old.parent.iterdir()) == [old]  # what the map holds is not kept once more


def test_a_journal_of_other_places_is_kept(old: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.placemap"
    rows = np.random.default_rng(8).standard_normal((9, DIM)).astype(np.float32)
    kind = PlaceMap(old).info.kind if upgrade(old) else ""
    write_old(other, kind, rows, 4)
    journal_path(other).rename(journal_path(old))
    assert upgrade(old) is None and len(PlaceMap(old)) == 5
    assert Path(f"{journal_path(old)}.v1").is_file()


def test_two_upgrades_at_once_keep_what_the_journal_held(old: Path, tmp_path: Path) -> None:
    beside = tmp_path / "beside.placemap"
    shutil.copy(old, beside)
    shutil.copy(journal_path(old), journal_path(beside))
    upgrade(beside)
    with ThreadPoolExecutor() as pool:
        with writing(old):  # the other one's upgrade, at its end
            waiting = pool.submit(upgrade, old)
            while len(list(_open_files(lock_path(old)))) < 2:
                time.sleep(0.001)
            beside.replace(old)
            journal_path(old).unlink()
        assert waiting.result() is None
    assert len(PlaceMap(old)) == 5


def _open_files(path: Path) -> Iterator[str]:
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(f"/proc/self/fd/{number}") == str(path):
                yield number


def test_a_damaged_one_is_left_as_it_is(old: Path) -> None:
    good, journal = old.read_bytes(), journal_path(old).read_bytes()
    for at in (3, 17, 70, 80, 125, 150, 200, len(good) - 1):
        changed = bytearray(good)
        changed[at] ^= 4
        old.write_bytes(changed)
        with pytest.raises(MapError):
            upgrade(old)
        assert old.read_bytes() == changed and journal_path(old).read_bytes() == journal
    for length in (0, 5, 100, len(good) - 1):
        old.write_bytes(good[:length])
        with pytest.raises(MapError):
            upgrade(old)


def test_a_norm_that_is_no_number_is_refused(tmp_path: Path) -> None:
    old = tmp_path / "m.placemap"
    write_old(old, "int8", np.eye(3, DIM, dtype=np.float32), 0)
    data = bytearray(old.read_bytes())
    data[256:260] = struct.pack("<f", np.nan)
    data[120:124] = struct.pack("<I", zlib.crc32(bytes(data[192:])))
    data[124:128] = bytes(4)
    data[124:128] = struct.pack("<I", zlib.crc32(bytes(data[:192])))
    old.write_bytes(data)
    with pytest.raises(MapError, match="norm is not in"):
        upgrade(old)
