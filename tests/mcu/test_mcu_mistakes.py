"""Whatever a firmware engineer gets wrong is a status, never a fault of the core."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from support.emulator import OWN_STACK_BYTES, Device, EmulatedBoard
from tatvpr_edge.compilers.mcu.fit import DESCRIBE_STACK_BYTES
from tatvpr_edge.compilers.packing import Layout
from tatvpr_edge.compilers.tvm.lower import Lowered
from tatvpr_edge.spec.placemap import Band, MapInfo, make_places, read_base, write_map

OK, NULL, ALIGNMENT, ARENA, K, TOKENS, FRAME, FORMAT, TOO_LARGE = 0, 1, 3, 4, 5, 6, 7, 8, 9
TRUNCATED, MAGIC, VERSION, CRC, MODEL, LAYOUT = 10, 11, 12, 13, 14, 15
FRAME_BYTES = bytes(64 * 64 * 3)
ERASED = 0xFF  # what flash reads where nothing was programmed


def test_the_arena_is_exactly_as_planned(device: Device, run_folder: Path) -> None:
    device.info()
    device.describe(FRAME_BYTES, 64, 64, 0.1, 0.02)
    device.describe(FRAME_BYTES, 64, 64, 0.1, 0.02, arena_less=1)
    device.describe(FRAME_BYTES, 64, 64, 0.1, 0.02, arena_shift=4)
    (info, fits, smaller, shifted), _ = device.run(run_folder)
    arena, bank = info.words[0], info.words[6]
    assert arena <= bank  # the board's region, less the canaries
    assert (fits.status, fits.canaries) == (OK, True)
    assert (smaller.status, smaller.canaries) == (ARENA, True)
    assert (shifted.status, shifted.canaries) == (ALIGNMENT, True)
    untouched = np.frombuffer(smaller.descriptor, np.float32)
    assert (untouched == -7.0).all()


def test_look_up_tables_beside_the_arena_are_exactly_as_planned(
    m7: Device, run_folder: Path
) -> None:
    m7.info()
    m7.describe(FRAME_BYTES, 64, 64, 0.1, 0.02)
    m7.describe(FRAME_BYTES, 64, 64, 0.1, 0.02, tables_less=1)
    (info, fits, smaller), _ = m7.run(run_folder)
    assert info.words[8] > 0  # an STM32H7 keeps them in its DTCM
    assert (fits.status, smaller.status) == (OK, ARENA)


def test_describing_takes_no_more_stack_than_builds_say(device: Device, run_folder: Path) -> None:
    for k in (1.0, 0.1):
        device.describe(FRAME_BYTES, 64, 64, k, 0.02)
    device.nulls()
    device.info()
    answers, _ = device.run(run_folder)
    assert 1000 < answers[-1].words[7] <= DESCRIBE_STACK_BYTES + OWN_STACK_BYTES


def test_arguments_out_of_range(m7: Device, run_folder: Path) -> None:
    wanted = []
    for k in (0.0, -1.0, 1.0001, float("nan"), float("inf")):
        m7.describe(FRAME_BYTES, 64, 64, k)
        m7.describe(FRAME_BYTES, 64, 64, 0.5, tokens=k)
        wanted += [K, TOKENS]
    m7.describe(FRAME_BYTES, 0, 64, 0.5)
    m7.describe(FRAME_BYTES, 64, -1, 0.5)
    m7.describe(FRAME_BYTES, 64, 64, 0.5, stride=191)
    m7.describe(FRAME_BYTES, 64, 64, 0.5, pixels="no such format")
    m7.describe(FRAME_BYTES, 63, 64, 0.5, pixels="YUV422")
    m7.describe(FRAME_BYTES, 64, 63, 0.5, pixels="NV12")
    wanted += [FRAME, FRAME, FRAME, FORMAT, FORMAT, FORMAT]
    answers, _ = m7.run(run_folder)
    assert [a.status for a in answers] == wanted
    assert all(a.canaries for a in answers)


def test_null_pointers(device: Device, run_folder: Path) -> None:
    device.nulls()
    (answer,), _ = device.run(run_folder)
    assert answer.words == (NULL,) * 13


def resealed(blob: bytes, at: int, value: bytes) -> bytes:
    """The blob with other bytes under a right checksum."""
    changed = blob[:at] + value + blob[at + len(value) :]
    return changed[:24] + struct.pack("<I", zlib.crc32(changed[64:])) + changed[28:]


def test_partitions_half_written_or_of_something_else(
    m7: Device, lowered: Callable[[Layout], Lowered], run_folder: Path
) -> None:
    blob = lowered(Layout.LUT4).blob
    half = blob[: len(blob) // 2] + bytes([ERASED]) * (len(blob) - len(blob) // 2)
    cases = {
        "as built": (blob, None, 0, OK),
        "a longer partition": (blob + bytes([ERASED]) * 64, None, 0, OK),
        "erased flash": (bytes([ERASED]) * 4096, None, 0, MAGIC),
        "half written": (half, None, 0, CRC),
        "cut off": (blob[:-1], None, 0, TRUNCATED),
        "shorter than a header": (blob[:63], None, 0, TRUNCATED),
        "nothing": (b"", None, 0, TRUNCATED),
        "one bit": (blob[:5000] + bytes([blob[5000] ^ 1]) + blob[5001:], None, 0, CRC),
        "newer format": (resealed(blob, 8, b"\2\0\0\0"), None, 0, VERSION),
        "another model": (resealed(blob, 32, bytes(32)), None, 0, MODEL),
        "for another board": (resealed(blob, 12, b"\1\0\0\0"), None, 0, LAYOUT),
        "misaligned": (blob, None, 4, ALIGNMENT),
    }
    for data, size, shift, _ in cases.values():
        m7.init(data, size, shift)
    answers, _ = m7.run(run_folder)
    got = {name: answer.status for name, answer in zip(cases, answers, strict=True)}
    assert got == {name: case[3] for name, case in cases.items()}


def test_blobs_of_every_board_carry_that_boards_layout(
    board: EmulatedBoard, lowered: Callable[[Layout], Lowered]
) -> None:
    layout = board.variant.layout
    assert struct.unpack_from("<I", lowered(layout).blob, 12) == (int(layout),)


def test_maps_get_the_verdict_of_the_python_reader(m7: Device, run_folder: Path) -> None:
    path = run_folder / "small.placemap"
    info = MapInfo("00" * 32, "int8", 16, (Band(0.5),))
    rows = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    write_map(path, info, [make_places(info, [rows])])
    good = path.read_bytes()
    rng = np.random.default_rng(1)
    corpus = [good, b"", good[:127], good[:-1], good + b"\0"]
    corpus += [good[: int(cut)] for cut in rng.integers(1, len(good), 20)]
    for at in (*range(0, 320, 5), *rng.integers(320, len(good), 30)):
        bad = bytearray(good)
        bad[at] ^= 1 << int(rng.integers(8))
        corpus.append(bytes(bad))
    for data in corpus:
        m7.map(data, with_model=False)
    m7.map(good, shift=4, with_model=False)
    m7.map(good)  # of another model than the program's
    answers, _ = m7.run(run_folder)
    for data, answer in zip(corpus, answers, strict=False):
        assert (answer.status == OK) == python_accepts(path, data), (answer.status, len(data))
    assert [a.status for a in answers[-2:]] == [ALIGNMENT, 23]


def python_accepts(path: Path, data: bytes) -> bool:
    from tatvpr_edge.spec.errors import MapError

    path.with_suffix(".bad").write_bytes(data)
    try:
        read_base(path.with_suffix(".bad"))
    except MapError:
        return False
    return True
