"""Maps and queries from videos, frame by frame whatever the container tells of times."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.artifacts import scenes
from support.recordings import number_of, plain_frames, rgb, write_video
from tatvpr_edge.mapping import Picking, frames_of
from tatvpr_edge.runtime import PlaceMap, stream
from tatvpr_edge.runtime.streams.pyav import decoding_times, in_order
from tatvpr_edge.spec.errors import DataError

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_a_video_becomes_a_map_and_is_found_again(
    tatvpr: Run, tmp_path: Path, tiny_host: Path
) -> None:
    drawn = scenes(10)
    write_video(tmp_path / "run.mkv", list(drawn), rate_hz=5)
    command = ("map", "build", "run.mkv", "--every", "0.4s", "--artifact", tiny_host, "-o", "m")
    done = tatvpr(*command)
    assert "5 places" in done.stdout
    place_map = PlaceMap("m")
    assert [place_map.tag(n) for n in range(3)] == ["run 0.000s", "run 0.400s", "run 0.800s"]
    frames = frames_of("run.mkv", Picking(every_s=0))
    for index in (7, 2, 3, 9, 0):  # in any order
        assert np.array_equal(frames[index].read(), drawn[index])
    asked = tatvpr("query", "run.mkv", "--every", "0.4", "--artifact", tiny_host, "--map", "m",
                   "--k", "1", "--json")  # fmt: skip
    assert [answer["place"] for answer in json.loads(asked.stdout)] == list(range(5))


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize(
    ("end", "codec"),
    [
        ("mp4", "mpeg4"),
        ("avi", "mpeg4"),
        ("ts", "mpeg2video"),
        ("mpg", "mpeg2video"),
        ("avi", "libx264"),
        ("mkv", "libx264"),
    ],
)
def test_a_video_of_predicted_frames_gives_each_its_own_pixels(
    tmp_path: Path, end: str, codec: str, b_frames: int
) -> None:
    """What is sought in a .ts, or in an .avi of B-frames, is found behind it: every good frame was
    called damaged. An .avi tells no times of showing: with H.264's B-frames some frames had those
    of others, which were called damaged."""
    path = tmp_path / f"predicted.{end}"
    drawn = plain_frames(12, 64, 48)
    write_video(path, drawn, 25, codec, pixels="yuv420p", b_frames=b_frames)
    frames = frames_of(path, Picking(every_s=0))
    assert len(frames) == 12
    for index in (11, 4, 5, 5, 0, *range(12)):  # in any order, and from first to last
        right = int(rgb(frames[index].read())[24, -4, 1])
        assert abs(right - (10 + 20 * index)) < 8, index
    with stream(path, backend="av") as played:
        shown = [(frame.pts_s, int(rgb(frame.image)[24, -4, 1])) for frame in played]
    first_s = shown[0][0]
    assert first_s is not None
    for index, (seconds, right) in enumerate(shown):
        assert seconds == pytest.approx(first_s + index / 25, abs=1e-3), index
        assert abs(right - (10 + 20 * index)) < 8, index


def decoded(path: Path, *, breaks_off: bool = False) -> Iterator[Any]:
    import av

    with av.open(str(path)) as container:
        yield from container.decode(video=0)
    if breaks_off:
        raise OSError("the disk ended")


def test_an_avi_that_breaks_off_gives_all_that_was_decoded(tmp_path: Path) -> None:
    """The frames that wait for those with earlier times were lost, sixteen of them."""
    path = tmp_path / "broken.avi"
    write_video(path, plain_frames(12, 64, 48), 25, "libx264", pixels="yuv420p", b_frames=2)
    shown = []
    with pytest.raises(OSError, match="the disk ended"):
        for frame in in_order(True, decoded(path, breaks_off=True)):
            shown.append(frame.pts)
    assert len(shown) == 12 and shown == sorted(shown)


@pytest.mark.parametrize(
    ("end", "codec", "waits"),
    [("avi", "libx264", True), ("avi", "mjpeg", False), ("mkv", "libx264", False)],
)
def test_frames_wait_for_others_only_where_their_times_may_be_wrong(
    tmp_path: Path, end: str, codec: str, waits: bool
) -> None:
    """A camera's MJPEG in an AVI can be sought, and needs no memory for sixteen frames."""
    path = tmp_path / f"drive.{end}"
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    write_video(path, plain_frames(12, 64, 48), 25, codec, pixels=pixels)
    import av

    with av.open(str(path)) as container:
        assert decoding_times(container, container.streams.video[0]) is waits
    taken: list[Any] = []
    frames = in_order(waits, (taken.append(frame) or frame for frame in decoded(path)))
    next(frames)
    assert len(taken) == (12 if waits else 1)
    numbers = [number_of(frame.read()) for frame in frames_of(path, Picking(every_s=0))]  # type: ignore
    assert numbers == list(range(12))


@pytest.mark.parametrize(("rate_hz", "ends_s"), [(2, "2.500"), (25, "0.200")])
def test_files_that_were_joined_are_read_to_where_their_clock_is_set_back(
    tmp_path: Path, rate_hz: int, ends_s: str
) -> None:
    """`cat a.ts b.ts`: each frame of the second gave the pixels of the first's of that time, under
    its name. A stream has no need of times."""
    for name, first in (("a", 0), ("b", 6)):
        drawn = plain_frames(12, 64, 48)[first : first + 6]
        write_video(tmp_path / f"{name}.ts", drawn, rate_hz, "mpeg2video", pixels="yuv420p")
    path = tmp_path / "joined.ts"
    path.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    *good, last = frames_of(path, Picking(every_s=0))
    assert [number_of(rgb(frame.read())) for frame in good] == list(range(6))
    with pytest.raises(DataError, match=f"set back after {ends_s} s.*ffmpeg"):
        last.read()
    with stream(path, backend="av") as played:
        shown = [number_of(rgb(frame.image)) for frame in played]
    assert shown[0] == 0 and shown[-1] == 11 and shown == sorted(shown)


def test_files_that_were_joined_play_at_their_speed(tmp_path: Path) -> None:
    """What followed the first came as fast as it was decoded, and most of it was dropped."""
    write_video(tmp_path / "a.ts", plain_frames(6, 64, 48), 20, "mpeg2video", pixels="yuv420p")
    path = tmp_path / "joined.ts"
    path.write_bytes(2 * (tmp_path / "a.ts").read_bytes())
    with stream(path, backend="av", realtime=True) as played:
        times = [(frame.pts_s or 0.0, frame.time_s) for frame in played]
    back = next(n for n in range(1, len(times)) if times[n][0] < times[n - 1][0])
    (first_s, began_s), (last_s, ended_s) = times[back], times[-1]
    assert last_s > first_s and ended_s - began_s >= last_s - first_s - 1e-3


def test_a_video_that_is_none_or_was_cut_short(tatvpr: Run, tmp_path: Path, a_map: Path) -> None:
    path = tmp_path / "v.mp4"
    write_video(path, plain_frames(12), codec="mpeg4", pixels="yuv420p")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    done = tatvpr("query", path, "--map", a_map, status=1)
    assert "no video" in done.stderr
    path.write_bytes(b"")
    assert "no video" in tatvpr("query", path, "--map", a_map, status=1).stderr
