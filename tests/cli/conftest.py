"""The command line as a user runs it, in an empty folder."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.artifacts import scenes
from tatvpr_edge.cli import main

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def tatvpr(
    tmp_path: Path,
    build_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Runs ``tatvpr-edge ARGUMENTS`` in an empty folder; nothing is deployed on this machine.

    In this process, because importing a compiler for every line of a table takes minutes.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TATVPR_EDGE_ROOT", str(tmp_path / "deployed"))

    def run(
        *arguments: str | Path, status: int = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        words = [str(word) for word in arguments]
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            capsys.readouterr()
            code = main(words)
        shown = capsys.readouterr()
        done = subprocess.CompletedProcess(words, code, shown.out, shown.err)
        assert done.returncode == status, done.stderr + done.stdout
        if status:
            assert done.stdout == ""
            errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
            assert len(errors) == 1 and done.stderr.splitlines()[-1] == errors[0], done.stderr
            assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames of many modes and sizes, in folders, with a file that is none."""
    path = tmp_path_factory.mktemp("frames")
    (path / "a" / "b").mkdir(parents=True)
    frames = [Image.fromarray(frame) for frame in scenes(10)]
    frames[0].save(path / "rgb.png")
    frames[1].resize((455, 256)).save(path / "a" / "photo.JPG", quality=95)
    frames[2].convert("L").save(path / "a" / "gray.jpeg", quality=95)
    frames[3].convert("RGBA").save(path / "a" / "alpha.png")
    frames[4].quantize(64).save(path / "a" / "b" / "palette.png")
    frames[5].convert("LA").save(path / "a" / "b" / "gray_alpha.png")
    frames[6].resize((1200, 900)).save(path / "a" / "b" / "large.jpg")
    frames[7].resize((31, 17)).save(path / "a" / "b" / "small size.png")
    deep = np.asarray(frames[8].convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(path / "deep.png")
    frames[9].convert("CMYK").save(path / "cmyk.jpg", quality=95)
    (path / "notes.txt").write_text("not a frame")
    (path / ".hidden.jpg").write_text("not a frame either")
    return path


@pytest.fixture(scope="session")
def a_map(
    folder: Path, tiny_host: Path, build_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A map of the ten frames; do not change it."""
    from click.testing import CliRunner

    from tatvpr_edge.cli.map import command

    path = tmp_path_factory.mktemp("map") / "frames.placemap"
    arguments = ["build", str(folder), "--artifact", str(tiny_host), "-o", str(path)]
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    return path
