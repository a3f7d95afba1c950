"""Whatever a file holds that a user names, the answer is one line on what is wrong with it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tatvpr_edge import build, stream
from tatvpr_edge.cli import main
from tatvpr_edge.mapping import calibrate_map, find_poses, frame_files, frames_of, read_frame
from tatvpr_edge.runtime import Localizer
from tatvpr_edge.runtime.__main__ import main as on_board
from tatvpr_edge.runtime.pixels import read_pixels
from tatvpr_edge.spec.artifact import read_artifact
from tatvpr_edge.spec.errors import ArtifactError, TatvprError, UsageError
from tatvpr_edge.spec.manifest import parse_manifest
from tatvpr_edge.spec.placemap import Band, MapInfo, make_places, write_map
from tatvpr_edge.spec.text import parse_json

#: What a file may hold by mistake, by damage or by malice.
CONTENTS = {
    "empty": b"",
    "zeros": bytes(1000),
    "no text": b"\xff\xfe\x00caf\xe9",
    "deep list": b"[" * 200_000,
    "deep table": b'{"a":' * 100_000,
    "deep TOML": b"a = " + b"[" * 5_000,
    "a long number": b'{"format": ' + b"9" * 5_000 + b"}",
    "a long TOML number": b"a = " + b"9" * 5_000,
    "infinite": b'{"format": 1e999, "points": [{"k": 1e999, "recall": NaN}]}',
    "half a pair": b'{"format": 1, "board": "\\ud800"}',
    "a list": b"[]",
    "a number": b"3",
    "nothing": b"null",
    "a long table": b"name,x,y\n" + b"x" * 200_000 + b",1,2\n",
    "an open quote": b'name,x,y\n"a.jpg,1,2\n' * 3,
    "a long header": (2**60).to_bytes(8, "little") + b"{}",
    "a deep header": (200_000).to_bytes(8, "little") + b"[" * 200_000,
    "a bad wire": b"\x08\x0a\x3a\xff\xff\xff\xff\x0f",
}


@pytest.fixture(params=CONTENTS, ids=lambda name: name.replace(" ", "-"))
def bad_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file of each kind, under a name that every command takes."""
    path = tmp_path / "given.toml"
    path.write_bytes(CONTENTS[request.param])
    return path


def refused_in_one_line(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """The command says what is wrong, and that it is not a fault of its own."""
    assert main(words) in (1, 2)
    said = capfd.readouterr()
    lines = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and len(lines[0]) < 700, said.err[-2000:]
    assert "fault of tatvpr-edge" not in said.err and "Traceback" not in said.err, said.err[-2000:]
    assert lines[0].isprintable()


def test_every_file_that_a_command_takes(
    bad_file: Path, tiny_host: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name, artifact, out = str(bad_file), str(tiny_host), str(tmp_path / "out")
    frames = tmp_path / "frames"
    frames.mkdir()
    (frames / "a.ppm").write_bytes(b"P6\n8 8\n255\n" + bytes(192))
    for words in (
        ["train", "--config", name],
        ["deploy", "--inventory", name],
        ["deploy", artifact, "local:", "--map", name, "--root", out],
        ["deploy", artifact, "local:", "--wheel", name, "--root", out],
        ["keys", "trust", name, "local:", "--root", out],
        ["map", "info", name],
        ["map", "compact", name],
        ["map", "upgrade", name],
        ["map", "build", str(frames), "--artifact", artifact, "--poses", name, "-o", out],
        ["query", name, "--artifact", artifact],
        ["query", str(frames), "--artifact", artifact, "--map", name],
        ["describe", name, "--artifact", artifact, "--output", out],
        ["profile", artifact, "--recall", name, "--no-write", "--output", out],
        ["export", "--model", "micro", "--weights", name, "--output", out],
        ["verify", name],
    ):
        if bad_file.read_bytes() == b"" and words[0] == "train":
            continue  # an empty training file is a good one: everything as it is by default
        refused_in_one_line(words, capfd)


def test_a_board_file_and_a_model(
    bad_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    refused_in_one_line(["build", "--board", str(bad_file), "--output", out], capfd)
    shutil.copy(bad_file, tmp_path / "model.onnx")
    words = ["build", "--board", "host", "--model", str(tmp_path / "model.onnx"), "--output", out]
    refused_in_one_line(words, capfd)


@pytest.mark.skipif(not os.path.exists("/dev/fd/0"), reason="no /dev/fd at hand")
def test_a_pipe_brings_a_board_its_frame(tmp_path: Path) -> None:
    """As `query <(program)` does: what was read of it does not come a second time."""
    frame = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    np.save(tmp_path / "frame.npy", frame)
    reader, writer = os.pipe()
    with open(reader, "rb"):
        with open(writer, "wb") as given:
            given.write((tmp_path / "frame.npy").read_bytes())
        assert np.array_equal(read_pixels(f"/dev/fd/{reader}"), frame)


def test_a_pipe_that_cannot_be_the_file_is_told_not_waited_for(
    tiny_host: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    artifact, made = ["--artifact", str(tiny_host)], str(tmp_path / "m.placemap")
    deploy = ["deploy", str(tiny_host), "local:", "--root", made + "3"]
    for name, words in (
        ("c.bag", ["query", "{}", *artifact]),
        ("d.mkv", ["map", "build", "{}", "-o", made + "2", *artifact]),
        ("e.whl", [*deploy, "--wheel", "{}"]),
    ):
        os.mkfifo(tmp_path / name)
        assert main([word.format(tmp_path / name) for word in words]) == 1
        assert "a pipe" in capfd.readouterr().err


@pytest.mark.parametrize("member", ["manifest.json", "manifest.sig"])
def test_a_member_of_an_artifact(
    bad_file: Path,
    member: str,
    tiny_host: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    artifact = tmp_path / "artifact"
    shutil.copytree(tiny_host, artifact)
    shutil.copy(bad_file, artifact / member)
    if member == "manifest.sig":  # nobody insists on signatures here: it is only said
        assert main(["verify", str(artifact)]) in (0, 1)
        assert "fault of tatvpr-edge" not in capfd.readouterr().err
    else:
        refused_in_one_line(["verify", str(artifact)], capfd)
        refused_in_one_line(["query", str(bad_file), "--artifact", str(artifact)], capfd)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[distil.optim]\nlr = nan", "lr is nan: a finite number"),
        ("[metric.optim]\nlr = inf", "lr is inf: a finite number"),
        ("[metric.optim]\nlr = -1.0", "metric.optim.lr is -1: at least 1e-12 and at most 1000"),
        ("[metric]\nplaces = 0", "metric.places is 0: at least 2"),
        ("[metric]\nimages = 0", "metric.images is 0: at least 2"),
        ("[distil]\nbatch = 0", "distil.batch is 0: at least 1"),
        ("[distil]\nbatch = 99999999999999999999", "absurd size"),
        ("[run]\nseed = -1", "run.seed is -1: at least 0"),
        ('[run]\ndevice = "tpu"', "run.device is 'tpu'"),
        ("[k]\nopening = 7", "k.opening is 7: at least 0 and at most 1"),
        ("[augment]\nblur_share = 2.0", "augment.blur_share is 2: at least 0 and at most 1"),
        ("[refit]\nridge = nan", "ridge is nan"),
    ],
)
def test_what_no_training_can_mean_is_said_at_its_start(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    path = tmp_path / "train.toml"
    path.write_text(text)
    assert main(["train", "--config", str(path)]) == 1
    assert says in capfd.readouterr().err
    section, _, key = text.partition("\n")
    if "." not in section:
        path.write_text("")
        change = f"{section.strip('[]')}.{key.replace(' = ', '=')}"
        assert main(["train", "--config", str(path), "--set", change]) == 1
        assert "error: --set" in capfd.readouterr().err


def test_a_terminal_of_ascii_shows_escapes(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tatvpr_edge", "map", "info", str(tmp_path / "Küche ☃.placemap")],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert done.returncode == 1
    assert rb"K\xfcche \u2603.placemap" in done.stderr and b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("key", "fault"), [("nowhere", "no key at"), ("/etc/passwd", "is no SSH key: give the private")]
)
def test_a_key_that_is_none_is_said_before_anything_is_compiled(
    key: str, fault: str, tiny_onnx: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["build", "--board", "host", "--model", str(tiny_onnx), "-o", str(tmp_path / "A")]
    assert main([*words, "--sign", str(tmp_path / key)]) == 1
    said = capfd.readouterr().err
    assert fault in said and "keys new" in said
    assert "lowering" not in said and "compiling" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("home", ["a file", "a folder of the kernel"])
def test_a_home_that_cannot_be_written_is_said_before_anything_is_compiled(
    home: str,
    tiny_onnx: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("")
    cache = tmp_path / "file" if home == "a file" else Path("/proc/self/nowhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    assert main(["build", "--board", "host", "--model", str(tiny_onnx)]) == 1
    said = capfd.readouterr().err
    assert "cannot write the artifact at" in said and "--output" in said
    assert "lowering" not in said and "compiling" not in said


def test_json_of_others_is_parsed_or_a_value_error() -> None:
    assert parse_json(b'{"a": [1, -2.5, 1e-999, null]}') == {"a": [1, -2.5, 0.0, None]}
    for content in CONTENTS.values():
        try:
            parse_json(content)
        except ValueError:
            continue


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b'{"a": 1e999}', "larger than a number can be"),
        (b'{"a": [-1E+400]}', "larger than a number can be"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b'{"a": -Infinity}', "-Infinity is not a number"),
        (b'{"a": 1, "b": 2, "a": 3}', "a key is given twice"),
        (b"9" * 30, "a number of 30 digits"),
    ],
)
def test_json_that_cannot_be_written_again_is_not_read(said: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        parse_json(said)
    with pytest.raises(ArtifactError, match=re.escape(why)):
        parse_manifest(said)


@pytest.mark.parametrize("named", ["a\0b", "\ud800", "9" * 400, "d/" * 3000])
def test_what_no_file_can_be_called_is_told(tiny_host: Path, tmp_path: Path, named: str) -> None:
    def calibrate() -> object:
        with Localizer(tiny_host) as localizer:
            return calibrate_map(localizer, named)

    asks: list[Callable[[], object]] = [
        lambda: Localizer(named),
        lambda: Localizer(tmp_path, named),
        lambda: read_artifact(named),
        lambda: stream(named),
        lambda: frame_files(named),
        lambda: read_frame(named),
        lambda: find_poses(named, []),
        calibrate,
        lambda: build("host", model=named),
        lambda: build("host", output=named),
    ]
    for ask in asks:
        with pytest.raises(TatvprError) as told:
            ask()
        assert str(told.value).isprintable() and len(str(told.value)) < 7000


@pytest.mark.parametrize("odd", [7, [], b"m.placemap", np.zeros(3)])
def test_what_is_no_path_and_no_picking_is_told(tiny_host: Path, odd: Any) -> None:
    with Localizer(tiny_host) as localizer, pytest.raises(UsageError, match="map is"):
        calibrate_map(localizer, odd)
    with pytest.raises(UsageError, match="folder is"):
        find_poses(odd, [])
    with pytest.raises(UsageError, match="picking is"):
        frames_of(".", odd)


def test_tags_of_others_are_printed_escaped(
    tiny_host: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = read_artifact(tiny_host).manifest.model
    info = MapInfo(model.hash, "int8", model.descriptor_size, (Band(1.0),))
    tag = "door\x1b[2J\x1b]0;owned\x07\x9b31m\u202egnp.exe"
    rows = np.eye(1, model.descriptor_size, dtype=np.float32)
    write_map(tmp_path / "m.placemap", info, [make_places(info, [rows], None, [tag])])
    frame = tmp_path / "f.ppm"
    frame.write_bytes(b"P6 40 30 255\n" + np.random.default_rng(0).bytes(40 * 30 * 3))
    words = [str(frame), "--map", str(tmp_path / "m.placemap"), "--artifact", str(tiny_host)]
    for command in (main, on_board):
        assert command(["query", *words]) == 0
        said = capfd.readouterr().out
        assert "door" in said and r"\x1b[2J" in said
        assert said.replace("\n", "").isprintable()
