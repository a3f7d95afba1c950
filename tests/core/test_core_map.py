"""The C map reader gives the Python reader's verdict, and finds the places that it finds."""

from __future__ import annotations

import itertools
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from core_driver import OK, Driver
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_core_model import STATUS

from support import score_reference
from support.maps import reseal
from tatvpr_edge.spec import scores
from tatvpr_edge.spec.calibration import (
    Calibration,
    DialWeights,
    SequenceCalibration,
    at_dials,
    check_calibration,
)
from tatvpr_edge.spec.errors import MapError
from tatvpr_edge.spec.placemap import Band, Base, MapInfo, make_places, parse_base, write_map

HASH = bytes(range(32))
EXTREMES = (0, 1, 2**31 - 1, 2**31, 2**32, 2**61 + 5, 2**63, 2**64 - 1)
F32 = NDArray[np.float32]


def make_map(
    folder: Path, kind: str, dim: int, places: int, bands: tuple[Band, ...], seed: int = 0
) -> bytes:
    """A map of random descriptors, some of them twice, as a file's bytes."""
    rng = np.random.default_rng(seed)
    rows = [rng.standard_normal((places, dim)).astype(np.float32) for _ in bands]
    for part in rows:
        part[places // 2 :: 3] = part[: len(part[places // 2 :: 3])]
    info = MapInfo(HASH.hex(), kind, dim, bands)
    poses = rng.standard_normal((places, 7))
    poses[:, 3:] /= np.linalg.norm(poses[:, 3:], axis=1, keepdims=True)
    poses[::3, 2:] = np.nan
    tags = [f"place {i} \u00e9" for i in range(places)]
    write_map(folder / "m.placemap", info, [make_places(info, rows, poses, tags)])
    return (folder / "m.placemap").read_bytes()


def c_map(
    driver: Driver,
    kernels: str,
    data: bytes,
    descriptor: F32 | None = None,
    count: int = 0,
    k: float = 0.2,
    tokens: float = 1.0,
    model_hash: bytes = HASH,
    descriptor_size: int | None = None,
    opened_without: bool = False,
    ahead: bool = False,
) -> tuple[int, list[NDArray[np.uint8]]]:
    query = b"" if descriptor is None else descriptor.tobytes()
    if descriptor_size is None:
        descriptor_size = int.from_bytes(data[72:76], "little", signed=True)
    numbers = (count, descriptor_size, int(opened_without), int(ahead))
    return driver.call("map", kernels, numbers, (k, tokens), (data, query, model_hash))


def python_base(data: bytes) -> Base | None:
    try:
        return parse_base(np.frombuffer(data, np.uint8))
    except MapError:
        return None


@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(("int8", "binary", "weighed")),
    eighths=st.one_of(st.integers(1, 40), st.sampled_from((32, 64, 130))),
    places=st.one_of(st.integers(1, 40), st.sampled_from((255, 256, 257, 600))),
    count=st.integers(1, 20),
    bands=st.integers(1, 3),
    k=st.floats(2**-7, 1, width=32),
    ahead=st.booleans(),
    lowest=st.booleans(),
)
def test_finds_what_the_python_search_finds(
    native: Driver,
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    kind: str,
    eighths: int,
    places: int,
    count: int,
    bands: int,
    k: float,
    ahead: bool,
    lowest: bool,
) -> None:
    """``lowest``: some numbers of int8 rows are -128, which no writer of ours makes."""
    rng = np.random.default_rng(seed)
    dim = eighths * 8 - (3 if kind == "int8" else 0)
    table = [Band.accepting(0.2, 1.0, 0.1), Band(0.8, 1.0), Band.accepting(0.2, 0.5, -0.5)][:bands]
    data = make_map(tmp_path_factory.mktemp("map"), kind, dim, places, tuple(table), seed)
    base = python_base(data)
    assert base is not None
    if lowest and kind == "int8":
        changed = bytearray(data)
        for rows in base.rows:
            at = changed.index(rows.data.tobytes())
            for some in rng.integers(0, rows.data.size, rows.data.size // 16 + 1).tolist():
                changed[at + some] = 0x80
        data = reseal(changed)
        base = python_base(data)
        assert base is not None
    query = rng.standard_normal(dim).astype(np.float32)
    band = scores.nearest_band([(b.k, b.tokens) for b in table], k, 1.0)
    rows = base.rows[band]
    if kind == "int8":
        q, norm = scores.int8_rows(query[None])
        expected = score_reference.int8_scores(q[0], norm[0], rows.data, rows.norms)
    else:
        bits = scores.binary_rows(query[None])[0]
        expected = score_reference.binary_scores(bits, rows.data, dim)
    order, best = score_reference.best(expected, min(count, places)), None
    if kind == "weighed":
        order, best = score_reference.weighed_best(
            expected, query, None, rows.data, min(count, places)
        )
        expected = score_reference.weighed_scores(query, None, rows.data)
    best = expected[order] if best is None else best
    for kernels in native.kernels:
        status, out = c_map(native, kernels, data, query, count, k, ahead=ahead)
        assert status == OK
        np.testing.assert_array_equal(out[0].view(np.uint64), order)
        got = out[1].view(np.float32)
        np.testing.assert_array_equal(got.view(np.uint32), best.view(np.uint32))
        judged = table[band].calibration
        limit = None if judged is None else judged.threshold
        accepted = [-1 if limit is None else int(v >= np.float32(limit)) for v in got]
        rest = out[2].view(np.int32).reshape(-1, 2)
        np.testing.assert_array_equal(rest[:, 0], band)
        np.testing.assert_array_equal(rest[:, 1], accepted)
        got_poses = out[3].view(np.float64).reshape(-1, 7)
        np.testing.assert_array_equal(got_poses, base.poses[order])
        every = out[4].view(np.float32)
        np.testing.assert_array_equal(every.view(np.uint32), expected.view(np.uint32))


SEQUENCES = Calibration(
    *("logistic", 0.5, (-1.0, 2.0, 3.0), 20.0, 3, 0.95, 0.25),
    SequenceCalibration(5, 1.5, (-3.0, 1.0, 2.0, 3.0, 4.0, 0.5), 0.95, 0.5),
)


ROOTED = replace(SEQUENCES, kind="rooted")
OF_K = replace(SEQUENCES, dials=DialWeights(0.7, 0.0, 2, 0))
assert OF_K.sequence is not None
BOTH_OF_K = replace(OF_K, sequence=replace(OF_K.sequence, dials=DialWeights(-0.25, 0.5, 20, 50)))


@pytest.mark.parametrize("kind", ["int8", "binary", "weighed"])
@pytest.mark.parametrize(
    "judged",
    [Calibration("score", 0.3), SEQUENCES, BOTH_OF_K, ROOTED],
    ids=["score", "sequence", "dials", "rooted"],
)
def test_verdict_equals_pythons_on_damaged_maps(
    native: Driver, tmp_path: Path, kind: str, judged: Calibration
) -> None:
    good = make_map(tmp_path, kind, 16, 5, (Band(0.2), Band(1.0, 0.5, judged)))
    base = python_base(good)
    assert base is not None and base.info.bands[1].calibration == judged
    rng = np.random.default_rng(1)
    corpus = [good[:cut] for cut in range(len(good))] + [good + b"\0", good + bytes(64)]
    for at in range(len(good)):  # every byte, as it is and with the checksums made right
        for value in {good[at] ^ 1, 0, 255, int(rng.integers(256))}:
            bad = bytearray(good)
            bad[at] = value
            corpus += [bytes(bad), reseal(bad)]
    for _ in range(300):  # numbers that overflow, in any 8-byte field
        bad = bytearray(good)
        at = int(rng.integers(2, 56)) * 8
        value = EXTREMES[int(rng.integers(len(EXTREMES)))]
        bad[at : at + 8] = struct.pack("<Q", value)
        corpus.append(reseal(bad))
    accepted = 0
    for data in corpus:
        status, _ = c_map(native, "portable", data, None, 0, model_hash=data[32:64].ljust(32))
        verdict = python_base(data) is not None
        assert (status == OK) == verdict, (status, len(data))
        accepted += verdict
    assert 0 < accepted < len(corpus) // 2  # flipped descriptors under right checksums


@pytest.mark.parametrize("number", range(3))
def test_a_position_further_than_any_that_is_written_is_refused(
    native: Driver, tmp_path: Path, number: int
) -> None:
    """Squares of such distances overflow, and nobody who makes places makes them."""
    good = make_map(tmp_path, "int8", 16, 5, (Band(0.2),))
    base = python_base(good)
    assert base is not None
    at = good.index(base.stored_poses[1].tobytes()) + 8 * number
    beyond = float(np.nextafter(1e9, 2e9))
    for metres in (0.0, 1e9, beyond, 1e10, 1e300):
        for value in (metres, -metres):
            data = bytearray(good)
            data[at : at + 8] = struct.pack("<d", value)
            status, _ = c_map(native, "portable", reseal(data))
            read = python_base(reseal(data)) is not None
            assert (status == OK, read) == (metres <= 1e9, metres <= 1e9), value


def test_what_dials_count_is_what_python_says(native: Driver, tmp_path: Path) -> None:
    """A query at low k scores less where it is right, and is judged by that."""
    query, sequence = np.ones(16, np.float32), BOTH_OF_K.sequence
    assert sequence is not None
    for judged in (BOTH_OF_K, OF_K, SEQUENCES, ROOTED, replace(OF_K, sequence=None)):
        good = make_map(tmp_path, "int8", 16, 20, (Band(1.0, 1.0, judged),))
        for k, tokens in itertools.product((1.0, 0.75, 0.4, 0.2, 0.013), (1.0, 0.6, 0.31)):
            status, out = c_map(native, "portable", good, query, 1, k, tokens)
            of_frames, of_sequences = out[5].view(np.float32).tolist()
            assert status == OK and of_frames == at_dials(judged, k, tokens).weights[0]
            told = judged.sequence
            first = 0.0 if told is None else at_dials(told, k, tokens).weights[0]
            assert of_sequences == first
    assert at_dials(BOTH_OF_K, 1.0, 1.0).weights == BOTH_OF_K.weights
    assert at_dials(BOTH_OF_K, 0.25, 0.5).weights[0] == pytest.approx(-1.0 + 0.7)
    at_quarter = (-3.25, *sequence.weights[1:])
    assert at_dials(sequence, 0.25, 1.0).weights == pytest.approx(at_quarter)
    # nothing was learned below
    assert at_dials(sequence, 0.19, 0.3) == at_dials(sequence, 0.2, 0.5)
    for bad in (0, -1, 101):
        for dials in (DialWeights(0.7, 0.0, bad, 0), DialWeights(0.0, 0.7, 0, bad)):
            with pytest.raises(MapError, match="hundredths"):
                check_calibration(replace(OF_K, dials=dials))
    for dials in (DialWeights(0.0, 0.0, 20, 0), DialWeights(0.0, 0.0, 0, 20)):
        with pytest.raises(MapError, match="hundredths"):
            check_calibration(replace(OF_K, dials=dials))
    with pytest.raises(MapError, match="sequences"):
        check_calibration(replace(ROOTED, sequence=None))
    with pytest.raises(MapError, match="finite"):
        check_calibration(replace(OF_K, dials=DialWeights(np.inf, 0.0, 20, 0)))


def test_each_fault_of_a_map_has_its_status(native: Driver, tmp_path: Path) -> None:
    good = make_map(tmp_path, "int8", 16, 5, (Band(0.2),))
    faults = {0: "MAGIC", 8: "VERSION", 12: "HEADER", 25: "FEATURE", 64: "HEADER", 80: "HEADER"}
    faults |= {77: "HEADER", 92: "HEADER", 128: "HEADER", 224: "HEADER", 260: "HEADER"}
    for at, name in faults.items():
        bad = bytearray(good)
        bad[at] ^= 2
        data = reseal(bad) if name != "MAGIC" else bytes(bad)
        assert c_map(native, "portable", data)[0] == STATUS[f"TATVPR_ERR_MAP_{name}"], at
    announced = ((None, 0), (SEQUENCES, 1), (OF_K, 3), (replace(OF_K, sequence=None), 2))
    announced += ((ROOTED, 5), (replace(OF_K, kind="rooted"), 7))
    for (judged, needed), said in itertools.product(announced, range(8)):
        bad = bytearray(make_map(tmp_path, "int8", 16, 5, (Band(0.2, 1.0, judged),)))
        assert bad[24] == needed
        if said == needed:
            continue
        bad[24] = said  # announced without being there, and there without being announced
        status, _ = c_map(native, "portable", reseal(bad))
        assert status == STATUS["TATVPR_ERR_MAP_HEADER"] and python_base(reseal(bad)) is None
    bad = bytearray(good)
    bad[-1] ^= 1
    assert c_map(native, "portable", bytes(bad))[0] == STATUS["TATVPR_ERR_MAP_CRC"]
    assert c_map(native, "portable", good[:-1])[0] == STATUS["TATVPR_ERR_MAP_TRUNCATED"]
    other = c_map(native, "portable", good, model_hash=bytes(32))[0]
    assert other == STATUS["TATVPR_ERR_MAP_MODEL"]
    longer = c_map(native, "portable", good, descriptor_size=17)[0]
    assert longer == STATUS["TATVPR_ERR_MAP_MODEL"]
    query = np.ones(16, np.float32)
    # Whoever opened it without its model is told at the search, before a descriptor is read.
    for size, name in ((16, "OK"), (15, "ERR_MAP_MODEL"), (17, "ERR_MAP_MODEL")):
        status = c_map(
            native, "portable", good, query, 1, descriptor_size=size, opened_without=True
        )[0]
        assert status == STATUS[f"TATVPR_{name}"], size
    empty = make_map(tmp_path, "int8", 16, 0, (Band(0.2),))
    assert c_map(native, "portable", empty, query, 1)[0] == STATUS["TATVPR_ERR_MAP_EMPTY"]
    assert c_map(native, "portable", good, query, 1, k=0.0)[0] == STATUS["TATVPR_ERR_K"]
    assert c_map(native, "portable", good, query, 1, tokens=2)[0] == STATUS["TATVPR_ERR_TOKENS"]
    for value, name in ((np.nan, "NOT_FINITE"), (np.inf, "NOT_FINITE"), (0.0, "ARGUMENT")):
        status = c_map(native, "portable", good, np.full(16, value, np.float32), 1)[0]
        assert status == STATUS[f"TATVPR_ERR_{name}"]
