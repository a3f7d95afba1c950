"""The shipped model on emulated microcontrollers: the host's bytes, the host's places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from support.emulator import OWN_STACK_BYTES, Device
from support.score_reference import best, binary_scores, weighed_best
from tatvpr_edge.compilers.golden import synthetic_frame
from tatvpr_edge.compilers.mcu.fit import QUERY_STACK_BYTES, STACK_BYTES
from tatvpr_edge.runtime.frame import check_frame
from tatvpr_edge.runtime.library import Library
from tatvpr_edge.runtime.placemap import PlaceMap
from tatvpr_edge.spec.formats import FORMATS
from tatvpr_edge.spec.frames import plane_shapes, to_rgb
from tatvpr_edge.spec.placemap import Band, Calibration, MapInfo, make_places, write_map
from tatvpr_edge.spec.resize import squash
from tatvpr_edge.spec.scores import binary_rows

U8 = NDArray[np.uint8]
POINTS = ((1.0, 1.0), (0.6, 1.0), (0.2, 1.0), (0.2, 0.3))
PLACES, QUERIES = 200, 20
#: queries drop most tokens: the search is what is tested, and cores without an FPU are slow
QUERY_K, QUERY_TOKENS = 0.2, 0.05
HALF = Calibration("score", 0.5)


@pytest.mark.slow
def test_descriptors_and_tokens_are_the_hosts_byte_for_byte(
    device: Device, host: Library, run_folder: Path
) -> None:
    frames = [synthetic_frame(i, *size) for i, size in enumerate(((128, 128), (150, 101)))]
    for i, (k, tokens) in enumerate(POINTS):
        frame = frames[i % 2]
        height, width = frame.shape[:2]
        device.describe(frame.tobytes(), width, height, k, tokens, want_tokens=True)
    answers, _ = device.run(run_folder)
    for i, ((k, tokens), answer) in enumerate(zip(POINTS, answers, strict=True)):
        want = host.describe(check_frame(frames[i % 2]), k, tokens, want_tokens=True)
        assert (answer.status, answer.canaries) == (0, True)
        assert answer.descriptor == want.descriptor.tobytes(), (k, tokens)
        assert want.tokens is not None
        assert answer.tokens == want.tokens.tobytes(), (k, tokens)


def place_map(host: Library, kind: str, path: Path, judged: Calibration = HALF) -> None:
    """A map of 200 rendered places in one band."""
    rows = np.stack([describe(host, synthetic_frame(1000 + i, 64, 64)) for i in range(PLACES)])
    info = MapInfo(host.model_hash, kind, rows.shape[1], (Band(QUERY_K, QUERY_TOKENS, judged),))
    poses = np.random.default_rng(0).standard_normal((PLACES, 7))
    poses[:, 3:] /= np.linalg.norm(poses[:, 3:], axis=1, keepdims=True)
    write_map(path, info, [make_places(info, [rows], poses)])


def describe(host: Library, frame: U8) -> NDArray[np.float32]:
    return host.describe(check_frame(frame), QUERY_K, QUERY_TOKENS).descriptor


def query_frame(number: int) -> U8:
    """A place of the map, seen through noise."""
    frame = synthetic_frame(1000 + 9 * number, 64, 64).astype(np.int32)
    noise = np.random.default_rng(number).integers(-30, 31, frame.shape)
    return np.clip(frame + noise, 0, 255).astype(np.uint8)


@pytest.mark.slow
def test_a_map_of_200_places_answers_as_on_the_host(
    device: Device, host: Library, run_folder: Path
) -> None:
    kind = "binary" if device.board.name == "mps2-an386" else "int8"
    path = run_folder / "places.placemap"
    place_map(host, kind, path)
    device.map(path.read_bytes())
    frames = [query_frame(i) for i in range(QUERIES)]
    for frame in frames:
        device.query(frame.tobytes(), 64, 64, QUERY_K, count=3, tokens=QUERY_TOKENS)
    answers, _ = device.run(run_folder)
    assert answers[0].status == 0
    stored = PlaceMap(path, engine=host)
    seen = set()
    for frame, answer in zip(frames, answers[1:], strict=True):
        want = stored.search(describe(host, frame), QUERY_K, QUERY_TOKENS, 3).candidates
        assert (answer.status, answer.canaries) == (0, True)
        got = [(p.place, np.float32(p.score), p.pose) for p in answer.places]
        assert got == [(c.place, np.float32(c.score), tuple(stored.pose(c.place))) for c in want]
        assert [p.accepted for p in answer.places] == [int(c.score >= 0.5) for c in want]
        seen.add(answer.places[0].place)
    assert len(seen) > 5  # the map is a map, not a constant


@pytest.mark.slow
def test_a_weighed_map_answers_as_numpy_says(
    device: Device, host: Library, run_folder: Path
) -> None:
    judged = Calibration("logistic", 0.5, (-2.0, 3.0, 10.0), 0.0, 2, 0.95, 0.4)
    path = run_folder / "places.placemap"
    place_map(host, "weighed", path, judged)
    stored = PlaceMap(path, engine=host)
    rows = stored.stored.base.rows[0].data
    assert rows.dtype == np.uint8
    device.map(path.read_bytes())
    frames = [query_frame(i) for i in range(8)]
    for count, frame in enumerate(frames, 1):
        device.query(frame.tobytes(), 64, 64, QUERY_K, count, QUERY_TOKENS)
    device.info()
    (opened, *answers, info), _ = device.run(run_folder)
    assert opened.status == 0
    seen = set()
    for count, (frame, answer) in enumerate(zip(frames, answers, strict=True), 1):
        query = describe(host, frame)
        counted = binary_scores(binary_rows(query[None])[0], rows, len(query))
        order, scores = weighed_best(counted, query, None, rows, count)
        assert (answer.status, answer.canaries) == (0, True)
        got = [(p.place, np.float32(p.score)) for p in answer.places]
        assert got == list(zip(order.tolist(), scores, strict=True))
        accepted = stored.search(query, QUERY_K, QUERY_TOKENS).accepted
        assert answer.places[0].accepted == int(bool(accepted))
        seen.add((order.tolist() == best(counted, count).tolist(), accepted))
    # Some are ranked anew and some are not, some are accepted and some are not.
    assert len(seen) == 4
    assert 4096 < info.words[7] <= QUERY_STACK_BYTES + OWN_STACK_BYTES
    assert QUERY_STACK_BYTES <= STACK_BYTES - 1024  # a firmware's own calls need some, too


def camera_frames(rng: np.random.Generator) -> list[tuple[str, bytes, int, int, int, U8]]:
    """(format, bytes, width, height, stride, the RGB frame that it stands for)"""
    width, height = 36, 28
    made = []
    for name in FORMATS:
        shapes = plane_shapes(name, width, height)
        stride = shapes[0][1] + 12
        planes = [rng.integers(0, 256, (rows, stride)).astype(np.uint8) for rows, _ in shapes]
        used = [plane[:, :columns] for plane, (_, columns) in zip(planes, shapes, strict=True)]
        image = to_rgb(used, name, width, height)
        raw = b"".join(plane.tobytes() for plane in planes)
        made.append((name, raw, width, height, stride, image))
        if name == "GRAY8":  # bottom-up frames have a negative stride
            made.append((name, planes[0][::-1].tobytes(), width, height, -stride, image))
    return made


@pytest.mark.slow
def test_every_camera_format_with_any_stride(m7: Device, host: Library, run_folder: Path) -> None:
    frames = camera_frames(np.random.default_rng(11))
    for name, raw, width, height, stride, _ in frames:
        m7.describe(raw, width, height, QUERY_K, QUERY_TOKENS, pixels=name, stride=stride)
    answers, _ = m7.run(run_folder)
    for (name, _, _, _, stride, image), answer in zip(frames, answers, strict=True):
        want = describe(host, squash(image, host.info.image_size))
        assert answer.status == 0, (name, stride)
        assert answer.descriptor == want.tobytes(), (name, stride)
