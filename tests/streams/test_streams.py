"""``stream(source)`` as a robot uses it: nothing swapped, nothing kept, nothing stuck."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tatvpr_edge
from support.recordings import U8, number_of, plain_frames, write_video
from tatvpr_edge import runtime
from tatvpr_edge.runtime import Localizer, Stream, StreamFrame, UsageError
from tatvpr_edge.runtime.streams.opencv import OpenCvSource
from tatvpr_edge.spec.errors import DataError, ToolError
from tatvpr_edge.spec.frames import to_rgb

BACKENDS = ("opencv", "av")
#: Seconds after which a test gives up on what must come.
PATIENCE_S = 60.0

#: Serves a video as Motion JPEG over TCP to one client, then dies.
SERVER = """\
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
client, _ = server.accept()
client.sendall(open(sys.argv[2], "rb").read())
"""


def rgb(frame: StreamFrame) -> U8:
    image = frame.image
    return to_rgb(image.planes, image.pixel_format, image.width, image.height)


def until(true: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end_s, "it did not come"
        time.sleep(0.01)


def next_frame(frames: Stream) -> StreamFrame:
    found = frames.read(timeout_s=PATIENCE_S)
    assert found is not None, frames.trouble
    return found


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "drive.mkv"
    write_video(path, plain_frames(12))
    return path


@pytest.fixture(scope="module")
def motion_jpeg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mjpeg") / "camera.mjpeg"
    write_video(path, plain_frames(12), codec="mjpeg", pixels="yuvj444p", kind="mjpeg")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "frames").mkdir()
    for index, frame in enumerate(plain_frames(12)):
        Image.fromarray(frame).save(tmp_path / "frames" / f"{index:03d}.png")
    return tmp_path / "frames"


# ---- colours ---------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_frame_goes_into_the_localizer_with_its_own_colours(
    video: Path, backend: str, tiny_host: Path
) -> None:
    drawn = plain_frames(1)[0]
    with tatvpr_edge.stream(video, backend=backend) as frames, Localizer(tiny_host) as localizer:
        frame = next_frame(frames)
        assert frame.image.pixel_format == {"opencv": "BGR888", "av": "RGB888"}[backend]
        assert np.array_equal(rgb(frame), drawn)
        described = localizer.describe(frame.image)
        assert np.array_equal(described, localizer.describe(drawn))
        assert not np.array_equal(described, localizer.describe(drawn, bgr=True))


def test_a_folders_frames_keep_their_colours_with_and_without_pillow(folder: Path) -> None:
    for opened in (tatvpr_edge.stream(folder), runtime.stream(folder)):
        with opened as frames:
            assert np.array_equal(rgb(next_frame(frames)), plain_frames(1)[0])


# ---- files and folders -----------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_file_gives_every_frame_however_slow_the_program_is(video: Path, backend: str) -> None:
    seen = []
    with runtime.stream(str(video), backend=backend) as frames:
        for frame in frames:
            time.sleep(0.005)
            seen.append(frame)
        assert frames.ended and (frames.frames, frames.dropped, frames.opened) == (12, 0, 1)
    assert [number_of(rgb(frame)) for frame in seen] == list(range(12))
    assert [frame.index for frame in seen] == list(range(12))
    assert [round(frame.pts_s or 0.0, 3) for frame in seen] == [n / 10 for n in range(12)]
    assert seen == sorted(seen, key=lambda frame: frame.time_s)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("end", "codec"), [("mpg", "mpeg1video"), ("avi", "mpeg4")])
def test_a_files_time_never_goes_back(tmp_path: Path, end: str, codec: str, backend: str) -> None:
    """OpenCV says 0 of a last frame whose time it does not know."""
    path = tmp_path / f"v.{end}"
    write_video(path, plain_frames(12), 25, codec, pixels="yuv420p", b_frames=2)
    with runtime.stream(path, backend=backend) as frames:
        times = [frame.pts_s for frame in frames]
    known = [pts_s for pts_s in times if pts_s is not None]
    assert len(times) == 12 and len(known) >= 11
    assert known == sorted(known)


def test_a_folder_goes_by_name_and_a_damaged_frame_is_named_and_counted(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = folder / "005.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    with tatvpr_edge.stream(folder) as frames:
        names = [frame.name for frame in frames]
        assert frames.damaged == 1
        assert frames.read() is None
    assert names == [f"{n:03d}.png" for n in range(12) if n != 5]
    assert "005.png is damaged" in caplog.text
    damaged.unlink()
    os.mkfifo(damaged)
    with runtime.stream(folder) as frames:  # a board waited for it for ever
        assert frames.read(timeout_s=30) is not None
        assert [frame.name for frame in frames] == [name for name in names if name != "000.png"]
    assert "005.png is no file but a pipe" in caplog.text
    damaged.unlink()
    for path in folder.iterdir():
        path.write_bytes(b"")
    with tatvpr_edge.stream(folder) as frames, pytest.raises(DataError, match=r"0\d\d\.png"):
        frames.read()


def test_a_picture_that_opencv_throws_at_costs_a_board_that_frame_alone(folder: Path) -> None:
    """An empty file, which a camera leaves that loses its power, or a header of 60000 x 60000
    pixels ended the stream, and the board's `query` with a traceback."""
    (folder / "003.png").write_bytes(b"")
    head = struct.pack(">4sIIBBBBB", b"IHDR", 60000, 60000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head
    (folder / "007.png").write_bytes(bomb + struct.pack(">I", zlib.crc32(head)) + bytes(64))
    with runtime.stream(folder) as frames:
        assert [number_of(rgb(frame)) for frame in frames] == [0, 1, 2, 4, 5, 6, 8, 9, 10, 11]
        assert frames.damaged == 2


def test_a_file_cut_short_ends_where_it_breaks_off(video: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mkv"
    data = video.read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    with runtime.stream(cut, backend="av") as frames:
        count = len(list(frames))
    assert 0 < count < 12
    cut.write_bytes(data[:40])
    for backend in BACKENDS:
        with runtime.stream(cut, backend=backend) as frames, pytest.raises(DataError, match="cut"):
            frames.read()


def test_in_real_time_the_newest_frame_wins_and_the_others_are_counted(folder: Path) -> None:
    with runtime.stream(folder, realtime=True, rate_hz=400) as frames:
        first = next_frame(frames)
        until(lambda: frames.frames == 12)
        last = next_frame(frames)
        assert frames.read() is None and frames.ended
    assert (first.dropped, last.index, number_of(rgb(last))) == (first.index, 11, 11)
    assert last.dropped == last.index - first.index - 1
    assert first.dropped + last.dropped == frames.dropped == 10


def test_a_gap_of_an_hour_is_told_while_it_is_waited_for(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with runtime.stream(folder, realtime=True, rate_hz=1 / 3600) as frames:
        next_frame(frames)
        until(lambda: frames.trouble is not None)
        said = re.escape(frames.name) + r": its next frame comes in (3600|35\d\d) s"
        assert re.fullmatch(said, str(frames.trouble))
        assert frames.read(timeout_s=0.01) is None and not frames.ended
    assert [record.getMessage() for record in caplog.records] == [frames.trouble]


def test_two_threads_may_import_parts_of_what_reads_pictures_at_once() -> None:
    """`watch` failed now and then: two of its threads did, and the package imported them as well,
    which Python takes for a deadlock."""
    program = (
        "import sys, tatvpr_edge.mapping.recordings\n"
        "print([name for name in sys.modules if name.startswith('tatvpr_edge.mapping.')])\n"
        "from tatvpr_edge import mapping\n"
        "assert all(getattr(mapping, name) and name in dir(mapping) for name in mapping.__all__)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "['tatvpr_edge.mapping.recordings']\n" and not done.stderr, done


def test_no_more_than_three_frames_are_alive(folder: Path) -> None:
    def alive() -> int:
        gc.collect()
        return sum(type(thing) is runtime.CameraFrame for thing in gc.get_objects())

    gc.freeze()  # what is alive already is not gone through each time: a second where torch is
    try:
        for realtime in (False, True):
            with runtime.stream(folder, realtime=realtime, rate_hz=400) as frames:
                held = next_frame(frames)
                counts = [alive() for _ in range(2)]
                assert 1 <= min(counts) <= max(counts) <= 3, counts
                del held
    finally:
        gc.unfreeze()


# ---- live sources ----------------------------------------------------------------------------


def feed(fifo: Path, motion_jpeg: Path) -> subprocess.Popen[bytes]:
    """A program that writes a camera's frames to a FIFO and dies."""
    return subprocess.Popen(["cp", str(motion_jpeg), str(fifo)])


def test_a_source_that_is_not_there_yet_dies_and_returns(
    tmp_path: Path, motion_jpeg: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fifo = tmp_path / "camera"
    os.mkfifo(fifo)
    with runtime.stream(fifo) as frames:
        assert frames.read(timeout_s=0.3) is None and not frames.ended
        for life in (1, 2):
            with feed(fifo, motion_jpeg):
                frame = next_frame(frames)
                until(lambda count=12 * life: frames.frames == count)  # type: ignore[misc]
            until(lambda: frames.trouble is not None)
            if number_of(rgb(frame)) != 11:  # a reader that comes late has the last one already
                frame = next_frame(frames)
            assert number_of(rgb(frame)) == 11
            assert frames.opened >= life
        assert frames.frames == 24 and not frames.ended
    assert frames.ended and "trying again" in caplog.text


def test_a_writer_that_follows_at_once_loses_nothing(tmp_path: Path, motion_jpeg: Path) -> None:
    fifo = tmp_path / "camera"
    os.mkfifo(fifo)
    with runtime.stream(fifo) as frames:
        for _ in range(5):  # each may begin before the end of the last was seen
            subprocess.run(["cp", str(motion_jpeg), str(fifo)], check=True, timeout=PATIENCE_S)
        until(lambda: frames.frames == 60)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_address_dies_and_returns(
    motion_jpeg: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SERVER, str(port), str(motion_jpeg)]
    with runtime.stream(f"tcp://127.0.0.1:{port}", backend=backend) as frames:
        until(lambda: frames.trouble is not None)  # nobody listens yet
        for _ in range(2):
            seen = frames.frames
            with subprocess.Popen(command, stdout=subprocess.DEVNULL):
                assert next_frame(frames).index >= seen
            until(lambda: frames.trouble is not None)
            frames.read(timeout_s=0.1)
        assert frames.opened == 2


def test_closing_ends_a_source_that_blocks(tmp_path: Path) -> None:
    fifo = tmp_path / "camera"
    os.mkfifo(fifo)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        for source in (fifo, address):
            frames = runtime.stream(source, backend="av")
            waiting = threading.Thread(target=frames.read)
            waiting.start()
            time.sleep(0.2)
            frames.close()
            waiting.join(PATIENCE_S)
            assert not waiting.is_alive() and frames.ended and frames.read() is None
            frames.close()
        until(lambda: not any(t.name.startswith("stream") for t in threading.enumerate()))


def test_a_camera_that_is_not_plugged_in_is_waited_for() -> None:
    with runtime.stream("/dev/video97") as frames:
        until(lambda: frames.trouble is not None)
        assert frames.live and not frames.ended and "/dev/video97: not there" in str(frames.trouble)
        assert frames.read(timeout_s=0) is None


def test_a_camera_at_whose_frame_opencv_throws_is_opened_again(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at an empty JPEG of one that is unplugged: the stream ended for good."""
    import cv2

    real = cv2.VideoCapture

    class Throwing:
        """Decodes nothing at its end, which OpenCV throws at."""

        def __init__(self, *given: Any) -> None:
            self._real = real(*given)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

        def read(self) -> tuple[bool, Any]:
            good, pixels = self._real.read()
            return good, pixels if good else cv2.imdecode(np.zeros(0, np.uint8), 1)

    monkeypatch.setattr(cv2, "VideoCapture", Throwing)
    with Stream(OpenCvSource.film(str(video), live=True)) as frames:
        until(lambda: frames.ended or frames.opened == 2)
        assert not frames.ended and next_frame(frames).opened in (1, 2)


def test_a_stream_that_is_forgotten_stops(video: Path) -> None:
    frames = runtime.stream(video)
    next_frame(frames)
    del frames
    gc.collect()
    until(lambda: not any(t.name.startswith("stream") for t in threading.enumerate()))


# ---- processes -------------------------------------------------------------------------------


# Python 3.12 and later warn of what is tried here on purpose.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_stream_stays_with_its_process(folder: Path) -> None:
    with runtime.stream(folder) as frames:
        next_frame(frames)
        with pytest.raises(UsageError, match="open one there, with stream"):
            pickle.dumps(frames)
        context = multiprocessing.get_context("fork")
        said = context.SimpleQueue()

        def child() -> None:
            ended = frames.ended  # without the lock, which the parent's thread may hold for ever
            try:
                frames.read()
            except UsageError as error:
                frames.close()
                said.put(f"{error}, {ended}")

        process = context.Process(target=child)
        process.start()
        process.join(PATIENCE_S)
        assert "open another one in the child, True" in said.get()
        assert next_frame(frames).index == 1


# ---- what cannot be read ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "kind", "text"),
    [
        (-1, UsageError, "there is no camera -1: numbers are 0 "),
        ("256", UsageError, "there is no camera 256"),
        (2**40, UsageError, "there is no camera 1099511627776"),
        ("rtsp://", UsageError, "no address: write it as rtsp://HOST/PATH"),
        (
            "rstp://camera/1",
            UsageError,
            "rstp://camera/1 is no address .*: those are rtsp://, rtsps:",
        ),
        ("nowhere.mp4", DataError, "no such file, folder or device"),
        (True, UsageError, "a source is a path"),
        ("", UsageError, "a source is a path"),
        ("frames\0", UsageError, "a source is a path"),
        ("v4l2src ! videoconvert", DataError, "end it in '! videoconvert"),
        ("v4l2src ! video/x-raw,format=NV12 ! appsink", DataError, "gives NV12"),
    ],
)
def test_a_source_that_cannot_be_is_one_clear_error(
    source: str, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        runtime.stream(source)


@pytest.mark.parametrize("backend", ["opencv", "av"])
@pytest.mark.parametrize(
    "name", [b"\xff.mp4", b"rtsp://\xff/", b"/dev/\xff", b"v4l2src ! \xff ! appsink"]
)
def test_a_name_that_is_not_utf_8_is_told(tmp_path: Path, name: bytes, backend: str) -> None:
    """OpenCV crashes on one, PyAV tries an address for ever: in a program of its own."""
    if b"/" not in name and b"!" not in name:
        write_video(tmp_path / "v.mp4", plain_frames(2))
        os.rename(tmp_path / "v.mp4", os.fsencode(tmp_path) + b"/" + name)
    program = (
        "import os, sys\nfrom tatvpr_edge import runtime\n"
        "from tatvpr_edge.spec.errors import TatvprError\n"
        "try:\n    with runtime.stream(os.fsdecode(sys.argv[1]), backend=sys.argv[2]) as frames:\n"
        "        print(next(iter(frames)).image.width)\n"
        "except TatvprError as error:\n    print(ascii(str(error)))\n"
    )
    words: list[str | bytes] = [sys.executable, "-c", program, name, backend]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0 and "UTF-8" in done.stdout, done


def test_a_pipeline_needs_an_opencv_with_gstreamer() -> None:
    import cv2

    pipeline = "videotestsrc num-buffers=3 ! video/x-raw,format=BGR ! appsink"
    if "GStreamer:                   YES" in cv2.getBuildInformation():
        with runtime.stream(pipeline) as frames:
            assert next_frame(frames).image.pixel_format == "BGR888"
        return
    with pytest.raises(ToolError, match=r"built without GStreamer.*apt-get install python3-opencv"):
        runtime.stream(pipeline)


@pytest.fixture
def without() -> Iterator[Callable[..., str]]:
    """Runs a line of a program in a Python that lacks some packages."""

    def run(line: str, *packages: str) -> str:
        program = (
            "import sys\n"
            f"sys.modules.update(dict.fromkeys({packages!r}))\n"
            "from tatvpr_edge import runtime\n"
            "try:\n"
            f"    print({line})\n"
            "except runtime.TatvprError as error:\n"
            "    print(f'{type(error).__name__}: {error}')\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, text=True
        )
        return done.stdout

    yield run


def test_what_is_not_installed_is_named_with_its_remedy(
    without: Callable[..., str], video: Path, folder: Path
) -> None:
    both = ("cv2", "av", "PIL")
    file = f"len(list(runtime.stream({str(video)!r})))"
    assert "pip install 'tatvpr-edge[video]'" in without(file, *both)
    assert without(file, "cv2").strip() == "12"
    assert "python3-opencv" in without("runtime.stream(0)", *both)
    assert "videoconvert" not in without("runtime.stream('a ! appsink')", *both)
    assert "DataError" in without(f"list(runtime.stream({str(folder)!r}))", *both)
    assert without("'cv2' in sys.modules or 'av' in sys.modules").strip() == "False"
