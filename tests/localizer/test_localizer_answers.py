"""A frame goes in, a place comes out: any shape of frame, any k, any number of threads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tatvpr_edge.runtime import CameraFrame, Localizer
from tatvpr_edge.runtime.cache import host_artifact
from tatvpr_edge.runtime.library import Library
from tatvpr_edge.spec.artifact import read_artifact
from tatvpr_edge.spec.errors import ArtifactError, MapError, UsageError
from tatvpr_edge.spec.formats import FORMATS
from tatvpr_edge.spec.frames import YUV, YUV_FORMATS, plane_shapes, to_rgb

U8 = NDArray[np.uint8]


@pytest.mark.parametrize("k", [1.0, 0.8, 0.2])
def test_every_scene_is_found_again(localizer: Localizer, frames: U8, k: float) -> None:
    localizer.k = k
    for place, frame in enumerate(frames):
        match = localizer.query(frame, top=3)
        assert (match.place, match.tag, match.k) == (place, f"scene {place}", k)
        assert len(match.candidates) == 3 and match.accepted is None
        scores = [candidate.score for candidate in match.candidates]
        assert scores == sorted(scores, reverse=True)
        assert match.latency_ms > 0


def test_poses_are_given_where_they_are_known(localizer: Localizer, frames: U8) -> None:
    assert localizer.query(frames[0]).pose is None
    pose = localizer.query(frames[5]).pose
    assert pose is not None and pose[0] == 5 and np.isnan(pose[1])


def test_a_descriptor_has_unit_length_and_the_same_bytes_each_time(
    localizer: Localizer, frames: U8
) -> None:
    first = localizer.describe(frames[0])
    assert first.dtype == np.float32 and first.shape == (localizer.descriptor_size,)
    assert np.linalg.norm(first) == pytest.approx(1, abs=1e-5)
    assert first.tobytes() == localizer.describe(frames[0]).tobytes()


def test_more_candidates_than_places_gives_all(localizer: Localizer, frames: U8) -> None:
    assert len(localizer.query(frames[0], top=1000).candidates) == len(frames)


def test_tokens_and_k_change_on_a_live_object(localizer: Localizer, frames: U8) -> None:
    full = localizer.describe(frames[0])
    localizer.tokens = 0.3
    fewer = localizer.describe(frames[0])
    localizer.tokens, localizer.k = 1.0, 1.0
    dense = localizer.describe(frames[0])
    assert len({full.tobytes(), fewer.tobytes(), dense.tobytes()}) == 3
    localizer.k = 0.2
    assert localizer.describe(frames[0]).tobytes() == full.tobytes()


# ---- frames as they come ---------------------------------------------------------------------


def test_layouts_of_one_picture_give_one_descriptor(localizer: Localizer, frames: U8) -> None:
    frame = frames[3]
    wanted = localizer.describe(frame).tobytes()
    padded = np.zeros((96, 200, 3), np.uint8)
    padded[:, 30:158] = frame
    read_only = frame.copy()
    read_only.flags.writeable = False
    same = {
        "bgr": localizer.describe(np.ascontiguousarray(frame[:, :, ::-1]), bgr=True),
        "bgr view": localizer.describe(frame[:, :, ::-1], bgr=True),
        "crop": localizer.describe(padded[:, 30:158]),
        "upside down twice": localizer.describe(np.ascontiguousarray(frame[::-1])[::-1]),
        "mirrored twice": localizer.describe(np.ascontiguousarray(frame[:, ::-1])[:, ::-1]),
        "fortran": localizer.describe(np.asfortranarray(frame)),
        "read-only": localizer.describe(read_only),
        "planes": localizer.describe(
            CameraFrame((padded.reshape(96, 600)[:, 90:],), "RGB888", 128, 96)
        ),
    }
    assert {name for name, made in same.items() if made.tobytes() != wanted} == set()


def test_rows_that_overlap_in_memory_are_rows(localizer: Localizer, frames: U8) -> None:
    for frame in (
        np.broadcast_to(frames[3][40], frames[3].shape),
        np.broadcast_to(frames[3][40, :, 0], (96, 128)),
        np.lib.stride_tricks.sliding_window_view(frames[3].reshape(-1), 300)[:90].reshape(90, 300),
    ):
        wanted = localizer.describe(np.ascontiguousarray(frame)).tobytes()
        assert localizer.describe(frame).tobytes() == wanted


def test_gray_is_three_equal_channels(localizer: Localizer, frames: U8) -> None:
    gray = np.ascontiguousarray(frames[2][:, :, 1])
    wanted = localizer.describe(np.repeat(gray[:, :, None], 3, axis=2))
    assert localizer.describe(gray).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("pixel_format", sorted(FORMATS))
def test_camera_formats_are_the_reference(localizer: Localizer, pixel_format: str) -> None:
    rng = np.random.default_rng(5)
    width, height = 46, 34
    planes = tuple(
        rng.integers(0, 256, (rows, columns + 6)).astype(np.uint8)
        for rows, columns in plane_shapes(pixel_format, width, height)
    )
    for color in sorted(YUV) if pixel_format in YUV_FORMATS else [("full", "bt601")]:
        frame = CameraFrame(planes, pixel_format, width, height, *color)
        wanted = localizer.describe(to_rgb(planes, pixel_format, width, height, *color))
        assert localizer.describe(frame).tobytes() == wanted.tobytes()


def test_four_channels_are_read_in_the_order_that_is_said(localizer: Localizer, frames: U8) -> None:
    rgb = np.ascontiguousarray(frames[2])
    alpha = np.full((*rgb.shape[:2], 1), 7, np.uint8)
    wanted = localizer.describe(rgb).tobytes()
    for name, colours in (("RGBA", rgb), ("RGBx", rgb), ("bgra8", rgb[:, :, ::-1])):
        frame = CameraFrame.of(np.concatenate([colours, alpha], axis=2), name)
        assert localizer.describe(frame).tobytes() == wanted


def test_sixteen_bit_gray_is_its_upper_byte_in_either_byte_order(
    localizer: Localizer, frames: U8
) -> None:
    gray = np.ascontiguousarray(frames[2][:, :, 1])
    wanted = localizer.describe(gray).tobytes()
    for order in ("<u2", ">u2"):
        deep = (gray.astype(np.uint16) * 256 + 99).astype(order)
        assert localizer.describe(CameraFrame.of(deep, "mono16")).tobytes() == wanted


def test_gray_frames_on_a_map_are_told_once(
    tiny_host: Path, scene_map: Path, frames: U8, caplog: pytest.LogCaptureFixture
) -> None:
    gray = np.ascontiguousarray(frames[2][:, :, 1])
    spread = np.repeat(gray[:, :, None], 3, axis=2)
    for told, frame in ((1, gray), (1, spread), (0, frames[2])):
        caplog.clear()
        with Localizer(tiny_host, scene_map) as here:
            for _ in range(3):
                here.query(frame)
        assert sum("fewer places" in r.getMessage() for r in caplog.records) == told
    caplog.clear()
    with Localizer(tiny_host) as alone:
        alone.describe(gray)
    assert not caplog.records


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (4000, 1), (3, 5), (4096, 4096)])
def test_any_size_is_squashed_as_the_reference_does(
    localizer: Localizer, shape: tuple[int, int]
) -> None:
    from tatvpr_edge.spec.resize import squash

    frame = np.random.default_rng(1).integers(0, 256, (*shape, 3)).astype(np.uint8)
    small = squash(frame, localizer.artifact.manifest.model.image_size)
    assert localizer.describe(frame).tobytes() == localizer.describe(small).tobytes()


def test_a_frame_too_large_for_the_arena_is_squashed_all_the_same(localizer: Localizer) -> None:
    from tatvpr_edge.spec.resize import squash

    frame = np.random.default_rng(2).integers(0, 256, (40, 32768, 3)).astype(np.uint8)
    small = squash(frame, localizer.artifact.manifest.model.image_size)
    assert localizer.describe(frame).tobytes() == localizer.describe(small).tobytes()


# ---- at once ---------------------------------------------------------------------------------


def test_threads_share_one_localizer(localizer: Localizer, frames: U8) -> None:
    wanted = [localizer.describe(frame).tobytes() for frame in frames]
    order = np.random.default_rng(0).integers(0, len(frames), 200)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda i: localizer.describe(frames[i]).tobytes(), order))
    assert made == [wanted[i] for i in order]


def test_k_may_change_while_others_query(localizer: Localizer, frames: U8) -> None:
    wanted = {}
    for k in (0.2, 1.0):
        localizer.k = k
        wanted[k] = localizer.query(frames[4]).score
    stop = threading.Event()

    def turn() -> None:
        while not stop.is_set():
            localizer.k = 1.0
            localizer.k = 0.2

    turner = threading.Thread(target=turn)
    turner.start()
    try:
        for _ in range(200):
            match = localizer.query(frames[4])
            assert match.score == wanted[float(match.k)] and match.place == 4
    finally:
        stop.set()
        turner.join()


def test_a_fork_while_threads_describe_still_answers(tiny_host: Path, project_root: Path) -> None:
    # In a program of its own, because forking pytest would fork its threads' locks too.
    program = """
import os, sys, threading, warnings, numpy as np
from tatvpr_edge.runtime import Localizer
warnings.simplefilter("ignore")
localizer = Localizer(sys.argv[1])
frame = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
wanted = localizer.describe(frame).tobytes()
stop = threading.Event()
def work():
    while not stop.is_set():
        assert localizer.describe(frame).tobytes() == wanted
workers = [threading.Thread(target=work) for _ in range(4)]
for worker in workers: worker.start()
statuses = []
for _ in range(30):
    child = os.fork()
    if child == 0:
        same = all(localizer.describe(frame).tobytes() == wanted for _ in range(3))
        os._exit(0 if same else 1)
    statuses.append(os.waitpid(child, 0)[1])
stop.set()
for worker in workers: worker.join()
print(statuses.count(0))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tiny_host)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=project_root,
    )
    assert done.stdout == "30\n", done.stderr


def test_a_child_waits_for_no_lock_that_a_thread_of_its_parent_held(
    tiny_host: Path, scene_map: Path, project_root: Path, tmp_path: Path
) -> None:
    """Threads hold locks for so short a time that chance seldom finds one: here a thread holds
    every lock of the runtime at the moment of the fork."""
    program = """
import os, signal, sys, threading, warnings, numpy as np
warnings.simplefilter("ignore")
real, made = threading.Lock, []
def lock():
    one = real()
    if str(sys._getframe(1).f_globals.get("__name__")).startswith("tatvpr_edge."):
        made.append(one)
    return one
threading.Lock = lock
from tatvpr_edge.runtime import Localizer
localizer = Localizer(sys.argv[1], sys.argv[2], k="auto", budget="9s", sequence=3)
frame = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
place = localizer.query(frame).place
wanted = localizer.describe(frame, k=1.0, tokens=1.0).tobytes()
held, go_on = threading.Event(), threading.Event()
def hold():
    for one in made: one.acquire()
    held.set()
    go_on.wait()
    for one in made: one.release()
holder = threading.Thread(target=hold)
holder.start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(60)
    same = localizer.query(frame).place == place
    localizer.confirm(place)
    localizer.add(frame, match=localizer.query(frame))
    localizer.budget = "8s"
    localizer.k = 1.0
    same = same and localizer.describe(frame).tobytes() == wanted
    localizer.map.prune(5)
    with Localizer(sys.argv[1], sys.argv[2], k=1.0) as another:
        same = same and another.describe(frame).tobytes() == wanted
    os._exit(0 if same and len(localizer.map) == 5 else 1)
status = os.waitpid(child, 0)[1]
go_on.set()
holder.join()
print(len(made) > 1, status)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tiny_host), shutil.copy(scene_map, tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=project_root,
    )
    assert done.stdout == "True 0\n", done.stderr


def test_memory_does_not_grow(localizer: Localizer, frames: U8) -> None:
    def resident_kb() -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1])
        pytest.skip("no /proc on this system")

    for _ in range(200):
        localizer.query(frames[0])
    before = resident_kb()
    for _ in range(2000):
        localizer.query(frames[0], top=3)
    assert resident_kb() - before < 4096


# ---- kernels, traces, tokens -----------------------------------------------------------------


def test_every_kernel_variant_gives_the_same_bytes(tiny_host: Path, frames: U8) -> None:
    with Localizer(tiny_host) as fastest:
        names = fastest.backend.library.usable_kernels()  # type: ignore[attr-defined]
        wanted = fastest.describe(frames[0]).tobytes()
    assert "portable" in names
    for name in names:
        with Localizer(tiny_host, kernels=name) as forced:
            assert forced.describe(frames[0]).tobytes() == wanted


def test_layers_are_traced_in_pairs_and_last_tokens_are_given(
    localizer: Localizer, frames: U8
) -> None:
    from tatvpr_edge.runtime.frame import check_frame

    library: Library = localizer.backend.library  # type: ignore[attr-defined]
    events: list[tuple[str, bool]] = []
    described = library.describe(
        check_frame(frames[0]), 0.2, 1.0, trace=lambda n, b: events.append((n, b)), want_tokens=True
    )
    open_layers: list[str] = []
    for name, begin in events:
        if begin:
            open_layers.append(name)
        else:
            assert open_layers.pop() == name
    assert open_layers == [] and len(events) > 10
    model = localizer.artifact.manifest.model
    assert described.tokens is not None
    assert described.tokens.shape == (model.max_tokens, model.token_dim)
    fewer = library.describe(check_frame(frames[0]), 0.2, 0.25, want_tokens=True).tokens
    assert fewer is not None and len(fewer) == 1 + round(0.25 * (model.max_tokens - 1))


# ---- which artifact --------------------------------------------------------------------------


def test_without_any_artifact_the_error_names_the_command(bare_machine: Path) -> None:
    with pytest.raises(ArtifactError, match="tatvpr-edge build --board host"):
        Localizer()


def test_without_arguments_the_host_artifact_is_taken(
    bare_machine: Path, tiny_host: Path, frames: U8
) -> None:
    host_artifact().parent.mkdir(parents=True)
    shutil.copytree(tiny_host, host_artifact())
    with Localizer() as localizer:
        assert localizer.artifact.root == host_artifact().resolve()
        localizer.describe(frames[0])
        with pytest.raises(MapError, match="describe"):
            localizer.query(frames[0])


def test_a_deployed_release_comes_first_with_its_map(
    bare_machine: Path, tiny_host: Path, scene_map: Path, frames: U8
) -> None:
    release = bare_machine / "deployed" / "releases" / "1"
    release.mkdir(parents=True)
    shutil.copytree(tiny_host, release / "artifact")
    shutil.copy(scene_map, release / "map.placemap")
    (release / "release.json").write_text("{}")
    (bare_machine / "deployed" / "current").symlink_to("releases/1")
    with Localizer() as localizer:
        assert localizer.artifact.root == (release / "artifact").resolve()
        assert localizer.query(frames[7]).place == 7


def test_an_artifact_built_anew_at_its_place_is_the_new_one(
    tiny_host: Path, build_cache: Path, tmp_path: Path, frames: U8
) -> None:
    """The system's loader would hand out the old library: it knows the name."""
    import onnx

    import tatvpr_edge
    from support.tiny_model import TOKENS, tiny_model
    from tatvpr_edge.models.export import bodies

    onnx.save(tiny_model("cls", functions=bodies.bodies(TOKENS)), tmp_path / "other.onnx")
    other = tatvpr_edge.build("host", model=tmp_path / "other.onnx", output=tmp_path / "other")
    place, made = tmp_path / "here", []
    for source in (tiny_host, other, tiny_host, other):
        shutil.copytree(source, place)
        with Localizer(place) as localizer:
            made.append(localizer.describe(frames[0]).tobytes())
        shutil.rmtree(place)
    assert made[0] == made[2] != made[1] == made[3]


def test_code_of_another_machine_is_told(tiny_arm64: Path) -> None:
    if os.uname().machine == "aarch64":
        pytest.skip("this machine is the other one")
    with pytest.raises(ArtifactError, match=r"aarch64.*this machine is"):
        Localizer(tiny_arm64)


def test_code_of_another_model_is_told(tiny_host: Path, tmp_path: Path) -> None:
    import dataclasses

    from tatvpr_edge.spec.artifact import write_artifact

    good = read_artifact(tiny_host)
    model = dataclasses.replace(good.manifest.model, hash="cd" * 32)
    files = {entry.path: good.path(entry.path) for entry in good.manifest.files}
    write_artifact(tmp_path / "a", dataclasses.replace(good.manifest, model=model), dict(files))
    with pytest.raises(ArtifactError, match="another model"):
        Localizer(tmp_path / "a")


def test_a_query_looks_where_it_is_told_to(localizer: Localizer, frames: NDArray[np.uint8]) -> None:
    localizer.k = 1.0
    assert localizer.query(frames[11]).place == 11
    assert localizer.query(frames[11], exclude_last=1).place < 11
    assert {c.place for c in localizer.query(frames[3], top=12, exclude_last=8).candidates} == {
        *range(4)
    }
    nothing = localizer.query(frames[3], exclude_last=12)
    assert (nothing.place, nothing.accepted, nothing.candidates) == (-1, False, ())
    with pytest.raises(UsageError, match="needs radius"):
        localizer.query(frames[3], near=(1.0, 2.0))
    with pytest.raises(UsageError, match="exclude_last is -1"):
        localizer.query(frames[3], exclude_last=-1)
    # The scenes' y is unknown, so that none is near anything.
    assert localizer.query(frames[3], near=(3.0, 0.0), radius=5.0).place == -1
