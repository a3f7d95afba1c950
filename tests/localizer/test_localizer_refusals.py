"""Bad input is one clear line that names the thing and the remedy."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tatvpr_edge.runtime import CameraFrame, Localizer, PlaceMap
from tatvpr_edge.runtime.engine import Engine
from tatvpr_edge.spec.artifact import MANIFEST, read_artifact, write_artifact
from tatvpr_edge.spec.errors import (
    ArtifactError,
    FrameError,
    MapError,
    TatvprError,
    UsageError,
)
from tatvpr_edge.spec.placemap import Band, MapInfo, make_places, write_map

U8 = NDArray[np.uint8]
NV12 = (np.zeros((8, 8), np.uint8), np.zeros((4, 8), np.uint8))
GOOD = np.zeros((8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (None, "not NoneType"),
        ([[1, 2, 3]], "not list"),
        ("frame.jpg", "not str"),
        (np.zeros((0, 0, 3), np.uint8), "empty"),
        (np.zeros((0, 5, 3), np.uint8), "empty"),
        (np.zeros((8, 8, 3), np.float32), "not float32"),
        (np.full((8, 8, 3), np.nan), "not float64"),
        (np.zeros((8, 8, 3), np.uint16), "not uint16"),
        (np.zeros((8, 8, 3), bool), "not bool"),
        (np.zeros((8, 8, 4), np.uint8), r"CameraFrame\.of\(frame, 'RGBA'\), or 'BGRA'"),
        (np.zeros((8, 8), np.uint16), r"CameraFrame\.of\(frame, 'GRAY16'\)"),
        (Image.new("P", (8, 8)), r"tatvpr_edge\.read_frame"),
        (Image.new("CMYK", (8, 8)), r"tatvpr_edge\.read_frame"),
        (np.zeros((8, 8, 1), np.uint8), r"\[height, width\] for gray"),
        (np.zeros((3, 8, 8), np.uint8), r"expected \[height, width, 3\]"),
        (np.zeros((1, 8, 8, 3), np.uint8), r"expected \[height, width, 3\]"),
        (np.zeros(8, np.uint8), r"expected \[height, width, 3\]"),
        (np.zeros((1, 40000, 3), np.uint8), "at most 32768"),
    ],
)
def test_a_bad_frame_is_told(localizer: Localizer, frame: Any, words: str) -> None:
    for ask in (localizer.query, localizer.describe):
        with pytest.raises(FrameError, match=words) as caught:
            ask(frame)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pixel_format": "JPEG"}, "'JPEG' is unknown"),
        ({"planes": ()}, "needs 1 planes"),
        ({"width": 0}, "empty"),
        ({"width": 8.0}, "whole number"),
        ({"width": 9}, "8 x 24 bytes"),
        ({"height": 9}, "needs 9 x 24"),
        ({"pixel_format": "NV12", "height": 7}, "even height"),
        ({"pixel_format": "YUV422", "width": 7}, "even width"),
        ({"pixel_format": "NV12"}, "needs 2 planes"),
        ({"pixel_format": "yuv422", "width": 7}, "UYVY frames have an even width"),
        ({"pixel_format": "I420"}, "needs 3 planes"),
        ({"pixel_format": "RGBA"}, "needs 8 x 32"),
        ({"yuv_range": "tv"}, "full or limited"),
        ({"pixel_format": "NV12", "planes": NV12, "yuv_matrix": "bt2020"}, "bt601 or bt709"),
        ({"yuv_range": "limited"}, "RGB888 is no YUV"),
        ({"planes": (np.zeros((8, 24), np.int8),)}, "uint8"),
        ({"planes": (np.zeros((24, 8), np.uint8).T,)}, "not neighbours"),
    ],
)
def test_a_bad_camera_frame_is_told(
    localizer: Localizer, change: dict[str, Any], words: str
) -> None:
    good = CameraFrame((np.zeros((8, 24), np.uint8),), "RGB888", 8, 8)
    localizer.describe(good)
    with pytest.raises(FrameError, match=words):
        localizer.describe(dataclasses.replace(good, **change))


def test_an_array_that_is_not_what_its_format_says_is_told() -> None:
    for pixels, name, words in (
        (GOOD, "RGBA", r"RGBA is uint8 \[H, W, 4\]"),
        (GOOD, "mono16", r"GRAY16 is uint16 \[H, W\]"),
        (np.zeros((8, 8), np.uint8), "GRAY16", "GRAY16 is uint16"),
        (GOOD, "NV12", "no array of pixels"),
        (np.zeros((0, 8, 4), np.uint8), "BGRA", "empty"),
    ):
        with pytest.raises(FrameError, match=words):
            CameraFrame.of(pixels, name)


def test_a_library_older_than_limited_range_is_told(
    tiny_host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Handed a structure that ends before ``yuv``, this one reads as an older one does."""
    monkeypatch.setattr("tatvpr_edge.runtime.library._FRAME_BYTES", 56)
    with Localizer(tiny_host) as localizer:
        localizer.describe(CameraFrame(NV12, "NV12", 8, 8))
        with pytest.raises(ArtifactError, match="build it again"):
            localizer.describe(CameraFrame(NV12, "NV12", 8, 8, "limited"))


@pytest.mark.parametrize(
    "k", [0, 0.0, -0.2, 1.5, math.nan, math.inf, "fast", "0.2", None, True, []]
)
def test_a_bad_k_or_tokens_is_told_with_its_range(
    localizer: Localizer, tiny_host: Path, k: Any
) -> None:
    if k is not None:  # the artifact's default
        with pytest.raises(UsageError, match="above 0 and at most 1"):
            Localizer(tiny_host, k=k)
    with pytest.raises(UsageError, match="above 0 and at most 1"):
        localizer.k = k
    with pytest.raises(UsageError, match="above 0 and at most 1"):
        localizer.tokens = k
    assert localizer.k == 0.2 and localizer.tokens == 1.0


def test_a_k_that_the_artifact_was_not_built_for_is_told(localizer: Localizer) -> None:
    with pytest.raises(UsageError, match=r"built for 0\.05 to 1"):
        localizer.k = 0.01


@pytest.mark.parametrize("k", [0.2, 0.29, 0.51, 1.0])
def test_a_k_on_either_side_of_a_narrow_range_is_told(
    tiny_host: Path, tmp_path: Path, k: float
) -> None:
    artifact = read_artifact(tiny_host)
    manifest = artifact.manifest
    points = tuple(point for point in manifest.golden.points if 0.3 <= point.k <= 0.5)
    narrow = dataclasses.replace(
        manifest,
        k_range=(0.3, 0.5),
        defaults=dataclasses.replace(manifest.defaults, k=0.4),
        frontier=(),
        golden=dataclasses.replace(manifest.golden, points=points),
    )
    files: dict[str, bytes | str | Path] = {f.path: artifact.read(f.path) for f in manifest.files}
    made = write_artifact(tmp_path / "narrow", narrow, files).root
    with Localizer(made) as localizer:
        for refused in (lambda: setattr(localizer, "k", k), lambda: localizer.describe(GOOD, k=k)):
            with pytest.raises(UsageError, match=r"built for 0\.3 to 0\.5"):
                refused()
        localizer.k = 0.5
        localizer.describe(GOOD, k=0.3)
    with pytest.raises(UsageError, match=r"built for 0\.3 to 0\.5"):
        Localizer(made, k=k)


@pytest.mark.parametrize("top", [0, -1, 1.5, "2", True])
def test_a_bad_number_of_candidates_is_told(localizer: Localizer, top: Any) -> None:
    with pytest.raises(UsageError, match="from 1 up"):
        localizer.query(GOOD, top=top)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backend": "npu"}, "'npu' is unknown"),
        ({"backend": "tensorrt"}, "--backend tensorrt"),
        ({"kernels": "warp"}, "'warp' are not in this artifact"),
        ({"threads": -1}, "threads is -1"),
        ({"threads": 1.5}, "threads is 1.5"),
        ({"k": "auto"}, "budget"),
        ({"k": "auto", "budget": "soon"}, "budget"),
    ],
)
def test_a_bad_option_is_told(tiny_host: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Localizer(tiny_host, **options)


def test_a_closed_localizer_takes_no_frames(tiny_host: Path, scene_map: Path) -> None:
    localizer = Localizer(tiny_host, scene_map)
    tracker = localizer.track(3)
    localizer.query(GOOD)
    for _ in range(2):  # closing twice is as closing once
        localizer.close()
    for asked in (
        lambda: localizer.query(GOOD),
        lambda: tracker.query(GOOD),
        lambda: localizer.describe(GOOD),
        lambda: localizer.add(GOOD),
        lambda: localizer.on_stale(print),  # its thread would look for ever
    ):
        with pytest.raises(UsageError, match="this Localizer is closed"):
            asked()


def test_query_without_a_map_points_to_describe(tiny_host: Path) -> None:
    with Localizer(tiny_host) as localizer, pytest.raises(MapError, match="use describe"):
        localizer.query(GOOD)


@pytest.mark.parametrize("stride", [2**31, 2**32 + 24, -(2**31) - 8, 2**40])
def test_rows_further_apart_than_c_can_say_are_told(tiny_host: Path, stride: int) -> None:
    """ctypes would cut the distance off: a wrong descriptor, or a crash."""
    frame = np.lib.stride_tricks.as_strided(np.zeros((2, 8, 3), np.uint8), strides=(stride, 3, 1))
    with Localizer(tiny_host) as localizer, pytest.raises(FrameError, match="from row to row"):
        localizer.describe(frame)


def test_a_map_with_another_number_of_elements_is_told(tiny_host: Path, tmp_path: Path) -> None:
    model = read_artifact(tiny_host).manifest.model
    info = MapInfo(model.hash, "int8", 1024, (Band(1.0),))
    write_map(tmp_path / "m", info, [make_places(info, [np.eye(1, 1024, dtype=np.float32)])])
    with pytest.raises(MapError, match="1024 numbers"):
        Localizer(tiny_host, tmp_path / "m")


def test_an_empty_map_is_told(tiny_host: Path, tmp_path: Path) -> None:
    model = read_artifact(tiny_host).manifest.model
    info = MapInfo(model.hash, "int8", model.descriptor_size, (Band(1.0),))
    rows = np.zeros((0, model.descriptor_size), np.float32)
    write_map(tmp_path / "m", info, [make_places(info, [rows])])
    with Localizer(tiny_host, tmp_path / "m") as localizer:  # noqa: SIM117
        with pytest.raises(MapError, match="no places yet"):
            localizer.query(GOOD)


def test_a_map_of_another_model_is_told(tiny_host: Path, tmp_path: Path) -> None:
    size = read_artifact(tiny_host).manifest.model.descriptor_size
    info = MapInfo("ab" * 32, "int8", size, (Band(1.0),))
    write_map(tmp_path / "m", info, [make_places(info, [np.eye(1, size, dtype=np.float32)])])
    with pytest.raises(MapError, match="another model"):
        Localizer(tiny_host, tmp_path / "m")


def test_weights_that_are_not_those_of_the_code_are_told(tiny_host: Path, tmp_path: Path) -> None:
    good = read_artifact(tiny_host)
    files: dict[str, Any] = {entry.path: good.path(entry.path) for entry in good.manifest.files}
    blob = bytearray(good.read("weights.bin"))
    for at in (0, 12, 40, len(blob) // 2):
        changed = bytearray(blob)
        changed[at] ^= 1
        files["weights.bin"] = bytes(changed)
        artifact = tmp_path / f"a{at}"
        write_artifact(artifact, good.manifest, files)
        with pytest.raises(ArtifactError):
            Localizer(artifact)
    for length in (0, 10, 63, len(blob) - 1):
        files["weights.bin"] = bytes(blob[:length])
        artifact = tmp_path / f"b{length}"
        write_artifact(artifact, good.manifest, files)
        with pytest.raises(ArtifactError):
            Localizer(artifact)


def test_code_that_is_no_library_is_told(tiny_host: Path, tmp_path: Path) -> None:
    good = read_artifact(tiny_host)
    files: dict[str, Any] = {entry.path: good.path(entry.path) for entry in good.manifest.files}
    files[good.manifest.code.path] = b"\x7fELF and no more"
    write_artifact(tmp_path / "a", good.manifest, files)
    with pytest.raises(ArtifactError, match="cannot load"):
        Localizer(tmp_path / "a")


def test_a_changed_artifact_does_not_start(tiny_host: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(tiny_host, tmp_path / "a")
    for path in sorted((tmp_path / "a").rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            data = path.read_bytes()
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
            with pytest.raises(TatvprError, match=path.name):
                Localizer(tmp_path / "a")
            path.write_bytes(data)
    Localizer(tmp_path / "a").close()


def test_auto_chooses_by_the_budget_and_explains_itself(
    tiny_host: Path, tmp_path: Path, scene_map: Path, frames: U8
) -> None:
    import shutil

    from tatvpr_edge.spec.artifact import replace_profile

    shutil.copytree(tiny_host, tmp_path / "a")
    points = [
        {"k": k, "tokens": 1.0, "latency_ms": {"p50": 100 * k, "p95": 110 * k, "p99": 120 * k}}
        for k in (0.2, 0.4, 1.0)
    ]
    try:
        replace_profile(tmp_path / "a", {"device": {}, "points": points})
        localizer = Localizer(tmp_path / "a", scene_map, k="auto", preset="battery-saver")
    except TatvprError as error:
        pytest.fail(f"a measured profile was refused: {error}")
    with localizer:
        assert localizer.k == "auto" and localizer.governor is not None
        match = localizer.query(frames[2])
        assert match.place == 2 and match.k == 0.2
        assert "0.2" in localizer.governor.why()
        localizer.k = 1.0
        assert localizer.query(frames[2]).k == 1.0
    with Localizer(tmp_path / "a", scene_map, k="auto", preset="turbo") as fast:
        assert fast.query(frames[2]).k == 1.0


def test_a_mistake_about_the_map_is_told_before_a_frame_is_described(
    localizer: Localizer, scene_map: Path, tmp_path: Path
) -> None:
    """A map of another model was searched, where its descriptors have as many numbers."""
    model = localizer.artifact.manifest.model

    def opened(name: str, model_hash: str, count: int) -> PlaceMap:
        info = MapInfo(model_hash, "int8", model.descriptor_size, (Band(1.0),))
        rows = np.ones((count, model.descriptor_size), np.float32)
        write_map(tmp_path / name, info, [make_places(info, [rows])])
        return PlaceMap(tmp_path / name, engine=localizer.engine)

    other, empty = opened("other", "ab" * 32, 3), opened("empty", model.hash, 0)
    for asked, error, words in (
        ({"map": other}, MapError, "another model"),
        ({"map": empty}, MapError, "no places yet"),
        ({"map": PlaceMap(scene_map)}, MapError, "without an artifact's code"),
        ({"near": (1.0, 2.0)}, UsageError, "near needs radius"),
    ):
        with pytest.raises(error, match=words):
            localizer.query("no frame", **asked)  # type: ignore[arg-type]
    with pytest.raises(MapError, match="another model"):
        localizer.add("no frame", map=other)
    with pytest.raises(MapError, match="another model"):
        localizer.query(GOOD, map=other)


def test_code_of_an_older_release_is_named_whole_with_the_command(tiny_host: Path) -> None:
    """It said that lib/libtatvpr_model.so lacks it, and not of which artifact."""
    engine = Engine.of(read_artifact(tiny_host))
    named = re.escape(f"{tiny_host}/lib/libtatvpr_model.so is older than this runtime and lacks ")
    with pytest.raises(ArtifactError, match=named + r"tatvpr_later: .*'tatvpr-edge build'"):
        engine.declare({"tatvpr_later": (None, [])})
