"""``python -m tatvpr_edge.runtime``: the commands that a board has without click."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from support import interrupts
from tatvpr_edge.runtime import Localizer
from tatvpr_edge.runtime.__main__ import main


def test_help_lists_every_command_and_each_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in ("serve", "finish", "verify"):
        assert name in shown
        assert importlib.util.find_spec(f"tatvpr_edge.runtime.{name}") is not None


def test_no_command_is_a_question(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("usage: python -m tatvpr_edge.runtime")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fly"], "no command fly: query, "),
        (["--json"], "no command --json: query, "),
        (["query"], "required: FRAME (see python -m tatvpr_edge.runtime query --help)"),
        (["query", "--fly", "x"], "unrecognized arguments: --fly"),
        (["query", "--map", "", "x.ppm"], "an argument is empty (after --map)"),
        (["query", "--map=", "x.ppm"], "an argument is empty (after --map)"),
        (["map-add", ""], "an argument is empty"),
        (["serve", "--k"], "expected one argument"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(words)
    except SystemExit as stop:  # argparse ends the program itself
        status = int(str(stop.code))
    shown = capsys.readouterr()
    assert status == 2 and shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert shown.err.startswith("error: ") and said in shown.err


def test_a_reader_that_went_away_is_no_error(tiny_host: Path) -> None:
    for words in (["--help"], ["verify", str(tiny_host)]):
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "wb") as gone:
            done = subprocess.run(
                [sys.executable, "-m", "tatvpr_edge.runtime", *words],
                stdout=gone,
                stderr=subprocess.PIPE,
            )
        assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("number", "line", "status"),
    [
        (signal.SIGINT, "error: interrupted", 130),
        (signal.SIGTERM, "error: ended by SIGTERM", 143),
        (signal.SIGHUP, "error: ended by SIGHUP", 129),
    ],
)
def test_a_signal_is_one_line(
    tiny_host: Path,
    scene_map: Path,
    tmp_path: Path,
    number: signal.Signals,
    line: str,
    status: int,
) -> None:
    """While it waits for the pixels of a frame."""
    frame = tmp_path / "frame.ppm"
    os.mkfifo(frame)
    words = ["query", str(frame), "--artifact", str(tiny_host), "--map", str(scene_map)]
    program = [sys.executable, "-m", "tatvpr_edge.runtime", *words]
    with subprocess.Popen(
        program, stderr=subprocess.PIPE, text=True, preexec_fn=interrupts.heed
    ) as running:
        writer = None
        while writer is None:  # until the command reads
            assert running.poll() is None
            time.sleep(0.01)
            with contextlib.suppress(OSError):
                writer = os.open(frame, os.O_WRONLY | os.O_NONBLOCK)
        # A first one that comes between a check of Python's and the system call is seen after it.
        while running.poll() is None:
            running.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(1.0)
        assert running.stderr is not None
        said = running.stderr.read()
        os.close(writer)
    assert said.splitlines()[-1] == line and "Traceback" not in said
    assert running.returncode == status


def test_verify_prints_lines_or_one_document(
    tiny_host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(tiny_host)]) == 0
    assert "agree byte for byte" in capsys.readouterr().out
    assert main(["verify", str(tiny_host), "--json", "--board", "host"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["board"] == "host" and all(g["identical"] for g in document["golden"])


def test_verify_refuses_with_one_line(
    tiny_host: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ([str(tmp_path)], [str(tiny_host), "--board", "stm32h7"]):
        assert main(["verify", *words]) == 1
        shown = capsys.readouterr()
        assert shown.out == "" and len(shown.err.splitlines()) == 1
        assert shown.err.startswith("error: ")


def bare(words: list[str]) -> subprocess.CompletedProcess[str]:
    """A command of the board where neither click nor rich nor Pillow nor OpenCV is installed."""
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('click', 'rich', 'PIL', 'cv2'), None)); "
        "from tatvpr_edge.runtime.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    return subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)


def write_ppm(path: Path, pixels: NDArray[np.uint8]) -> Path:
    """A picture that needs no library."""
    height, width = pixels.shape[:2]
    path.write_bytes(b"P6\n# a camera\n%d %d\n255\n" % (width, height) + pixels.tobytes())
    return path


def test_a_board_queries_and_adds_without_click(
    tiny_host: Path, scene_map: Path, frames: NDArray[np.uint8], tmp_path: Path
) -> None:
    one, two = write_ppm(tmp_path / "3.ppm", frames[3]), tmp_path / "4.npy"
    np.save(two, frames[4])
    asked = ["--artifact", str(tiny_host), "--map", str(scene_map), "--k", "1"]
    said = bare(["query", str(one), str(two), *asked])
    assert said.returncode == 0, said.stderr
    head, first, second = said.stdout.splitlines()
    assert head.split() == ["frame", "place", "score", "position", "k", "ms"]
    assert "scene 3" in first and "3.00" in first and "scene 4" in second
    document = json.loads(bare(["query", str(one), *asked, "--json", "--top", "3"]).stdout)
    with Localizer(tiny_host, scene_map, 1.0) as localizer:
        expected = localizer.query(frames[3], top=3)
    assert [c["tag"] for c in document[0]["candidates"]] == [c.tag for c in expected.candidates]

    grown = tmp_path / "grown.placemap"
    add = ["map-add", str(grown), str(one), "--artifact", str(tiny_host)]
    assert bare([*add, "--pose", "-1.5,2", "--tag", "the hall"]).returncode == 0
    said = bare([*add[:2], str(one), str(two), *add[3:], "--json"])
    assert json.loads(said.stdout)["added"] == [1, 2]
    with Localizer(tiny_host, grown, 1.0) as localizer:
        assert localizer.map is not None and localizer.map.tag(2) == "4.npy"
        match = localizer.query(frames[3])
        assert match.tag == "the hall" and match.pose is not None and match.pose[:2] == (-1.5, 2.0)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_output_that_cannot_be_written_is_one_line(
    tiny_host: Path,
    scene_map: Path,
    frames: NDArray[np.uint8],
    tmp_path: Path,
    options: list[str],
) -> None:
    frame = write_ppm(tmp_path / "3.ppm", frames[3])
    words = ["query", str(frame), "--artifact", str(tiny_host), "--map", str(scene_map), *options]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tatvpr_edge.runtime", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    told = [line for line in done.stderr.splitlines() if "not calibrated" not in line]
    assert done.returncode == 1 and told == ["error: [Errno 28] No space left on device"]


def test_a_board_leaves_out_a_frame_of_nothing(
    tiny_host: Path, frames: NDArray[np.uint8], tmp_path: Path
) -> None:
    black = write_ppm(tmp_path / "black.ppm", np.zeros((60, 80, 3), np.uint8))
    hall, door = (write_ppm(tmp_path / f"{i}.ppm", frames[i]) for i in (3, 4))
    add = ["map-add", str(tmp_path / "m.placemap"), "--artifact", str(tiny_host)]
    said = bare([*add, str(hall), str(black), str(door)])
    assert said.returncode == 0 and "places 0 to 1 added" in said.stdout
    assert said.stderr.startswith(f"left out: {black}: the frame shows no structure")
    assert said.stderr.splitlines()[1:] == ["left out: 1 of 3 frames"]
    lift = write_ppm(tmp_path / "5.ppm", frames[5])
    document = json.loads(bare([*add, str(black), str(lift), "--json"]).stdout)
    assert document["added"] == [2] and document["skipped"][0]["name"] == str(black)
    said = bare([*add, str(black)])
    assert said.returncode == 1 and said.stderr.startswith("error: nothing was added: ")


def test_a_board_adds_what_a_command_that_was_cut_left_and_nothing_twice(
    tiny_host: Path, frames: NDArray[np.uint8], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It began anew: places that stand twice have no margin, and are not accepted any longer."""
    names = [str(write_ppm(tmp_path / f"{i}.ppm", frames[i])) for i in range(4)]
    add = ["map-add", str(tmp_path / "m"), "--artifact", str(tiny_host)]
    assert main([*add, *names[:2]]) == 0  # as far as it came
    assert main([*add, *names]) == 0
    shown = capsys.readouterr()
    assert "places 2 to 3 added" in shown.out and "left out: 2 of 4 frames" in shown.err
    assert f"{names[0]}: it stands in the map already" in shown.err
    assert main([*add, *names]) == 0  # it was done, as on a host
    shown = capsys.readouterr()
    assert "nothing added" in shown.out and "left out: 4 of 4 frames" in shown.err
    assert main([*add, names[0], "--pose", "0,0"]) == 0
    assert main([*add, names[1], "--tag", "the hall"]) == 0
    assert "place 5 added" in capsys.readouterr().out
    more = str(write_ppm(tmp_path / "more.ppm", frames[4]))
    assert main([*add, more, more]) == 0  # two patterns of a shell that both meet it
    shown = capsys.readouterr()
    assert "place 6 added" in shown.out and f"{more}: it stands in the map already" in shown.err


def test_a_board_makes_no_map_for_frames_that_cannot_be_read(
    tiny_host: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty one kept `map build` from its place."""
    made = tmp_path / "m.placemap"
    words = ["map-add", str(made), str(tmp_path / "misspelt.ppm"), "--artifact", str(tiny_host)]
    assert main(words) == 1
    assert "nothing was added" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_a_board_makes_no_map_for_what_is_no_place(
    tiny_host: Path, frames: NDArray[np.uint8], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "m.placemap"
    black = write_ppm(tmp_path / "black.ppm", np.zeros((60, 80, 3), np.uint8))
    good = write_ppm(tmp_path / "good.ppm", frames[3])
    add = ["map-add", "--artifact", str(tiny_host), str(made)]
    assert main([*add, str(black)]) == 1
    assert "nothing was added" in capsys.readouterr().err
    assert main([*add, str(good), "--pose", "1,2,3,4"]) == 1
    assert "a pose of 4 numbers" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == [black, good]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_board_names_frames_that_it_cannot_take_and_takes_the_others(
    tiny_host: Path,
    scene_map: Path,
    frames: NDArray[np.uint8],
    tmp_path: Path,
    options: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One lost all answers of `query *.ppm`, and ended `map-add` after those before it."""
    hall, door = (str(write_ppm(tmp_path / f"{i}.ppm", frames[i])) for i in (3, 4))
    gone, deep = str(tmp_path / "gone.ppm"), str(tmp_path / "deep.npy")
    np.save(deep, frames[0] / 2)
    by = ["--artifact", str(tiny_host), *options]
    asked = ["--map", str(scene_map), "--k", "1", *by]
    for command in (["query", hall, gone, deep, door, *asked],
                    ["map-add", str(tmp_path / "new"), hall, gone, deep, door, *by]):  # fmt: skip
        assert main(command) == 0
        shown = capsys.readouterr()
        said = [line for line in shown.err.splitlines() if line.startswith("left out")]
        if options and command[0] == "query":
            assert [one["frame"] for one in json.loads(shown.out)] == [hall, door]
        elif options:
            document = json.loads(shown.out)
            assert document["added"] == [0, 1]
            assert [one["name"] for one in document["skipped"]] == [gone, deep]
            said = [f"left out: {one['reason']}" for one in document["skipped"]]
        elif command[0] == "query":
            assert [line.split()[0] for line in shown.out.splitlines()[1:]] == [hall, door]
        else:
            assert "places 0 to 1 added" in shown.out
        assert said[0] == f"left out: {gone}: No such file or directory"
        assert said[1].startswith(f"left out: {deep}: ") and "float64" in said[1]
        assert said[2:] == ([] if options else ["left out: 2 of 4 frames"])
    assert main(["query", gone, deep, *asked]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: not one of 2 frames can be used: {gone}: No such file")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        (b"", "without OpenCV a board reads .ppm, .pgm and .npy"),
        (b"\xff\xd8\xff jpeg", "without OpenCV a board reads"),
        (b"P6\n4 4\n255\n" + bytes(47), "cut short: 47 of 48 bytes"),
        (b"P6\n4 4\n65535\n" + bytes(96), "no PPM or PGM of 8 bits"),
        (b"P5 999999 999999 255\n", "cut short"),
        (b"\x93NUMPY\x01\x00", "no array of pixels"),
    ],
)
def test_a_frame_that_a_board_cannot_read_is_one_line(
    tiny_host: Path, scene_map: Path, tmp_path: Path, content: bytes | None, says: str
) -> None:
    frame = tmp_path / "frame"
    if content is not None:
        frame.write_bytes(content)
    for command in (["query", str(frame), "--map", str(scene_map)],
                    ["map-add", str(tmp_path / "new.placemap"), str(frame)]):  # fmt: skip
        said = bare([*command, "--artifact", str(tiny_host)])
        assert said.returncode == 1 and len(said.stderr.splitlines()) == 1, said.stderr
        assert said.stderr.startswith("error: ") and says in said.stderr


def test_power_is_shown_without_click() -> None:
    document = json.loads(bare(["power", "--duration", "0", "--json"]).stdout)
    assert {"readings", "missing", "total"} <= set(document)
    assert bare(["power", "--duration", "-1"]).returncode == 1
