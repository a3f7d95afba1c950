"""``watch``, as a user runs it: in a pipe, on a terminal, with a camera that dies, until Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tatvpr_edge
from support.artifacts import scenes
from support.recordings import write_video
from tatvpr_edge import runtime
from tatvpr_edge.cli.watched import Answer, watch
from tatvpr_edge.runtime import Localizer
from tatvpr_edge.runtime.telemetry import FedSource, Sampler
from tatvpr_edge.spec.artifact import replace_profile
from tatvpr_edge.spec.calibration import Calibration
from tatvpr_edge.spec.placemap import Band, MapInfo, make_places, write_map

Run = Callable[..., subprocess.CompletedProcess[str]]
PATIENCE_S = 60.0
#: A tag that would rename the terminal's window and hide what follows.
HOSTILE = "kitchen\x1b]0;pwned\x07\x1b[8m"


@pytest.fixture(scope="module")
def sure_map(tiny_host: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten scenes, every match accepted, the first with a hostile tag."""
    path = tmp_path_factory.mktemp("watch") / "m.placemap"
    with Localizer(tiny_host, k=1.0) as localizer:
        rows = np.stack([localizer.describe(frame) for frame in scenes(10)])
        model = localizer.artifact.manifest.model
    band = Band(1.0, calibration=Calibration("score", 0.5))
    info = MapInfo(model.hash, "int8", model.descriptor_size, (band,))
    tags = [HOSTILE, *(f"scene {n}" for n in range(1, 10))]
    poses = np.full((10, 7), np.nan)
    poses[:, 0], poses[:, 1] = np.arange(10), 2.0
    write_map(path, info, [make_places(info, [rows], poses, tags)])
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures")
    for index, frame in enumerate(scenes(10)):
        Image.fromarray(frame).save(path / f"{index}.png")
    return path


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# ---- in a pipe -------------------------------------------------------------------------------


def test_a_folder_becomes_json_lines_and_a_summary(
    tatvpr: Run, pictures: Path, sure_map: Path, tiny_host: Path
) -> None:
    done = tatvpr(*("watch", pictures, "--map", sure_map, "--artifact", tiny_host, "--k", "1"))
    answers = lines(done.stdout)
    assert [answer["name"] for answer in answers] == [f"{n}.png" for n in range(10)]
    assert [answer["place"] for answer in answers] == list(range(10))
    assert answers[0]["tag"] == HOSTILE and "\x1b" not in done.stdout
    last = answers[-1]
    assert last["pts_s"] is None  # pictures have no times
    assert last["accepted"] is True and last["k"] == 1 and last["latency_ms"] > 0
    assert last["rate_hz"] > 0 and last["power_w"] is None and last["dropped"] == 0
    assert abs(last["time_s"] - time.time()) < 600
    assert done.stderr == "10 answers, 10 accepted; 10 frames, 0 dropped\n"


def test_pictures_have_no_times_to_be_asked_by(
    tatvpr: Run, pictures: Path, sure_map: Path, tiny_host: Path
) -> None:
    """One answer came for a whole folder."""
    given = ("watch", pictures, "--map", sure_map, "--artifact", tiny_host, "--every", "0.1s")
    assert "have no times: play it with --realtime" in tatvpr(*given, status=1).stderr
    assert len(lines(tatvpr(*given, "--realtime").stdout)) > 1


def test_a_camera_that_moves_is_followed(
    tatvpr: Run, pictures: Path, sure_map: Path, tiny_host: Path
) -> None:
    line = ("watch", pictures, "--map", sure_map, "--artifact", tiny_host, "--sequence", "3")
    assert [answer["frames"] for answer in lines(tatvpr(*line).stdout)] == [1, 2, *[3] * 8]
    assert "--sequence" in tatvpr(*line, "--sequence", "0", status=2).stderr


def test_every_limit_and_record(
    tatvpr: Run, sure_map: Path, tiny_host: Path, tmp_path: Path
) -> None:
    write_video(tmp_path / "v.mkv", list(scenes(10)), rate_hz=5)
    common = ("--map", sure_map, "--artifact", tiny_host, "--record", "log.jsonl", "--json")
    done = tatvpr("watch", "v.mkv", "--every", "0.39s", *common)
    assert [answer["frame"] for answer in lines(done.stdout)] == [0, 2, 4, 6, 8]
    done = tatvpr("watch", "v.mkv", "--limit", "3", *common)
    assert [answer["frame"] for answer in lines(done.stdout)] == [0, 1, 2]
    kept = lines(Path("log.jsonl").read_text())
    assert [answer["frame"] for answer in kept] == [0, 2, 4, 6, 8, 0, 1, 2]


def test_every_frame_is_asked_for_where_it_is_due_by_the_files_own_clock(
    tatvpr: Run, sure_map: Path, tiny_host: Path, tmp_path: Path
) -> None:
    """What followed a joint, whose clock begins anew, was passed over; so were frames that came as
    often as they were asked for, by a rounding."""
    write_video(tmp_path / "a.ts", list(scenes(10)), 10, "mpeg2video", pixels="yuv420p")
    Path("joined.ts").write_bytes(2 * Path("a.ts").read_bytes())
    common = ("--map", sure_map, "--artifact", tiny_host, "--json")
    for words in ((), ("--every", "0.1s")):
        done = tatvpr("watch", "joined.ts", *common, *words)
        times = [answer["pts_s"] or 0.0 for answer in lines(done.stdout)]
        assert f"; {len(times)} frames, 0 dropped" in done.stderr and times != sorted(times)


def test_a_recording_is_never_written_behind_something_else(
    tatvpr: Run, pictures: Path, sure_map: Path, tiny_host: Path
) -> None:
    shutil.copy(sure_map, "own.placemap")
    Path("settings.json").write_text('{\n  "k": 0.2\n}\n')
    common = ("--map", "own.placemap", "--artifact", tiny_host, "--limit", "2")
    for option in ("--record", "--rerun"):
        for name in ("own.placemap", "settings.json"):
            before = Path(name).read_bytes()
            done = tatvpr("watch", pictures, *common, option, name, status=1)
            assert name in done.stderr and Path(name).read_bytes() == before


def test_a_source_that_gives_nothing_costs_no_recording(
    tatvpr: Run, sure_map: Path, tiny_host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt name emptied the drive that was recorded before."""
    nothing = SimpleNamespace(save=str, flush=str, disconnect=str)
    rerun = SimpleNamespace(RecordingStream=lambda name: nothing)
    monkeypatch.setitem(sys.modules, "rerun", rerun)
    Path("text.mp4").write_text("no video")
    Path("old.rrd").write_text("yesterday's drive")
    Path("log.jsonl").write_text('{"time_s": 1}\n')
    for source in ("gone.mp4", "text.mp4"):
        common = ("--map", sure_map, "--artifact", tiny_host, "--rerun", "old.rrd")
        assert source in tatvpr("watch", source, *common, status=1).stderr
        assert Path("old.rrd").read_text() == "yesterday's drive"
        for log in ("new.jsonl", "log.jsonl"):
            assert source in tatvpr("watch", source, *common[:4], "--record", log, status=1).stderr
        assert not Path("new.jsonl").exists()  # an empty one was left
        assert Path("log.jsonl").read_text() == '{"time_s": 1}\n'


def test_a_recording_goes_into_a_pipe_that_somebody_opened(
    tatvpr: Run, pictures: Path, sure_map: Path, tiny_host: Path
) -> None:
    """`--record >(gzip > log.gz)`: no file can be made beside it, nor beside a log that its owner
    alone may write in a folder of root's."""
    common = ("--map", sure_map, "--artifact", tiny_host, "--limit", "2")
    reader, writer = os.pipe()
    tatvpr("watch", pictures, *common, "--record", f"/dev/fd/{writer}")
    os.close(writer)
    with open(reader) as said:
        assert [json.loads(line)["frame"] for line in said] == [0, 1]


def test_a_line_that_a_power_cut_ended_costs_no_other(
    tatvpr: Run, pictures: Path, sure_map: Path, tiny_host: Path
) -> None:
    common = ("--map", sure_map, "--artifact", tiny_host, "--limit", "2", "--record", "log.jsonl")
    tatvpr("watch", pictures, *common)
    log = Path("log.jsonl")
    log.write_bytes(log.read_bytes()[:-20])
    tatvpr("watch", pictures, *common)
    first, cut, *rest = log.read_text().splitlines()
    assert json.loads(first)["frame"] == 0 and not cut.endswith("}")
    assert [json.loads(line)["frame"] for line in rest] == [0, 1]


def test_what_cannot_be_watched_is_one_line(
    tatvpr: Run,
    pictures: Path,
    sure_map: Path,
    tiny_host: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    common = ("--map", sure_map, "--artifact", tiny_host)
    assert "no map to search" in tatvpr("watch", pictures, *common[2:], status=1).stderr
    assert "no such file" in tatvpr("watch", "gone\x1b[2J.mp4", *common, status=1).stderr
    assert "is a recording" in tatvpr("watch", _empty("run.bag"), *common, status=1).stderr
    tatvpr("watch", pictures, *common, "--budget", "5W", status=2)
    done = tatvpr("watch", pictures, *common, "--record", "/dev/full", status=1)
    assert "error: cannot write /dev/full: No space left on device\n" in done.stderr
    done = tatvpr("watch", pictures, *common, "--record", "no/such/folder", status=1)
    assert "cannot write no/such/folder" in done.stderr
    monkeypatch.setitem(sys.modules, "rerun", None)
    done = tatvpr("watch", pictures, *common, "--rerun", "x.rrd", status=1)
    assert "pip install 'tatvpr-edge[rerun]'" in done.stderr and not Path("x.rrd").exists()


def _empty(name: str) -> Path:
    Path(name).write_bytes(b"")
    return Path(name)


def test_the_boards_watts_stand_beside_each_answer(
    tiny_host: Path, sure_map: Path, pictures: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_host, tmp_path / "profiled")
    latency_ms = {"p50": 5.0, "p95": 6.0, "p99": 7.0}
    points = [{"k": k, "tokens": 1.0, "latency_ms": latency_ms} for k in (0.2, 1.0)]
    replace_profile(tmp_path / "profiled", {"device": {}, "points": points})
    fed = FedSource()
    fed.feed(power_w=3.5)
    told: list[Answer] = []
    with Sampler(sources=[fed], interval_s=0.02) as sampler:
        sampler.ready()
        with (
            Localizer(
                tmp_path / "profiled", sure_map, k="auto", budget="9W", telemetry=sampler
            ) as localizer,
            runtime.stream(pictures) as frames,
        ):
            watch(localizer, frames, threading.Event(), 0.0, None, [told.append])
    assert [answer.document()["power_w"] for answer in told] == [3.5] * 10


# ---- a program of its own --------------------------------------------------------------------


def start(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tatvpr_edge", "watch", *map(str, arguments)]
    return subprocess.Popen(command, **options)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_camera_comes_late_dies_and_returns_until_it_is_told_to_end(
    tmp_path: Path, sure_map: Path, tiny_host: Path, number: signal.Signals
) -> None:
    fifo, film = tmp_path / "camera", tmp_path / "film.mjpeg"
    os.mkfifo(fifo)
    write_video(film, list(scenes(10)), codec="mjpeg", pixels="yuvj444p", kind="mjpeg")
    command = (fifo, "--map", sure_map, "--artifact", tiny_host, "--k", "1")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start(*command, **pipes) as program, _patience(program):
        assert program.stdout is not None and program.stderr is not None
        for life in (1, 2):
            subprocess.run(["cp", film, fifo], check=True, timeout=PATIENCE_S)
            seen = -1
            while seen < 10 * life - 1:  # the last frame is the newest for as long as it takes
                answer = json.loads(program.stdout.readline())
                assert answer["frame"] > seen and answer["accepted"]
                seen = answer["frame"]
            assert answer["place"] == 9
        program.send_signal(number)
        rest, said = program.communicate()
        assert program.returncode == 0 and rest == b""
    text = said.decode()
    assert 1 <= text.count("it ended; trying again") <= 2 and "Traceback" not in text
    assert "20 frames" in text.splitlines()[-1]


def test_a_camera_that_was_away_is_followed_from_the_beginning(
    tmp_path: Path, sure_map: Path, tiny_host: Path
) -> None:
    fifo, film = tmp_path / "camera", tmp_path / "film.mjpeg"
    os.mkfifo(fifo)
    write_video(film, list(scenes(10)), codec="mjpeg", pixels="yuvj444p", kind="mjpeg")
    ended = threading.Event()
    cameras = [subprocess.Popen(["cp", film, fifo])]
    answers: list[Answer] = []

    def told(answer: Answer) -> None:
        answers.append(answer)
        if answer.frame.index == 9:
            cameras.append(subprocess.Popen(["cp", film, fifo]))
        if answer.frame.index == 19:
            ended.set()

    patience = threading.Timer(PATIENCE_S, ended.set)
    patience.start()
    with (
        Localizer(tiny_host, sure_map, sequence=50) as localizer,
        tatvpr_edge.stream(fifo) as frames,
    ):
        watch(localizer, frames, ended, 0, None, [told], localizer.track())
    patience.cancel()
    for camera in cameras:
        camera.kill()
        camera.wait()
    assert answers[-1].frame.index == 19
    for answer in answers:
        first = 0 if answer.frame.index < 10 else 10
        assert answer.match.frames <= answer.frame.index + 1 - first


def test_on_a_terminal_the_answer_is_drawn_and_nothing_foreign_is_obeyed(
    tmp_path: Path, sure_map: Path, tiny_host: Path
) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    Image.fromarray(scenes(1)[0]).save(folder / "frame\x1b[2Jname.png")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    command = (folder, "--map", sure_map, "--artifact", tiny_host, "--k", "1")
    with (
        start(*command, stdout=theirs, stderr=theirs, env=environment) as program,
        _patience(program),
    ):
        os.close(theirs)
        shown = _until_closed(ours)
        assert program.wait() == 0, shown
    os.close(ours)
    assert "\x1b]0;" not in shown and "\x1b[8m" not in shown and "\x1b[2J" not in shown
    assert r"kitchen\x1b]0;pwned\x07\x1b[8m" in shown and r"frame\x1b[2Jname.png" in shown
    for word in ("place", "accepted", "yes", "score", "position", "0.00 2.00", "k", "ms"):
        assert word in shown
    assert shown.rstrip().endswith("1 answers, 1 accepted; 1 frames, 0 dropped")


@contextlib.contextmanager
def _patience(program: subprocess.Popen[bytes]) -> Iterator[None]:
    """A program that says nothing ends, and with it whoever waits for its next line."""
    end = threading.Timer(PATIENCE_S, program.kill)
    end.start()
    try:
        yield
    finally:
        end.cancel()


def _until_closed(terminal: int) -> str:
    """What a program shows on a terminal, until it ends."""
    parts = []
    while select.select([terminal], [], [], PATIENCE_S)[0]:
        try:
            parts.append(os.read(terminal, 65536))
        except OSError:  # Linux says so when nobody holds the other end any more
            break
    return b"".join(parts).decode()
