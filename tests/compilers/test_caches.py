"""Caches as whoever builds meets them: whole after a power cut, not believed once they are damaged,
and missed only in time where they cannot be written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from support.medium import CUTS, Medium
from tatvpr_edge.cli import main
from tatvpr_edge.spec.artifact import read_artifact

Build = Callable[[str], Path]


@pytest.fixture
def cache(
    build_cache: Path, tiny_host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A user's cache that holds all that a build of the tiny model keeps."""
    place = tmp_path / "cache" / "tatvpr-edge"
    for what in ("objects", "drift"):
        shutil.copytree(build_cache / "tatvpr-edge" / what, place / what)
    monkeypatch.setenv("XDG_CACHE_HOME", str(place.parent))
    return place


@pytest.fixture
def build(tiny_onnx: Path, tmp_path: Path) -> Build:
    """Builds the tiny model with the command line."""

    def make(name: str) -> Path:
        output = tmp_path / name
        words = ["build", "--model", str(tiny_onnx), "--board", "host", "--output", str(output)]
        assert main(words) == 0
        return output

    return make


@pytest.fixture
def no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets gcc refuse whatever it is to compile: it looks for its compiler proper here first."""

    def refuse() -> None:
        refusing = tmp_path / "bin" / "cc1"
        refusing.parent.mkdir()
        refusing.write_text("#!/bin/sh\necho 'error: compiled anew' >&2\nexit 1\n")
        refusing.chmod(0o755)
        monkeypatch.setenv("COMPILER_PATH", str(refusing.parent))

    return refuse


def manifest(artifact: Path) -> bytes:
    """What names every byte of an artifact."""
    return (artifact / "manifest.json").read_bytes()


def test_what_a_build_kept_is_whole_after_a_power_cut(
    cache: Path,
    build: Build,
    tiny_host: Path,
    no_compiler: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next build takes from the cache what the one before the cut put there."""
    shutil.rmtree(cache / "objects")  # which of them this build takes is not said by their names
    shutil.rmtree(cache / "drift")
    for folder in ("objects", "drift", "models"):  # whose own names may go once, with what is new
        (cache / folder).mkdir(exist_ok=True)
    with monkeypatch.context() as patch:
        medium = Medium(cache, patch)
        build("before")
        assert len(list((cache / "objects").glob("*.object"))) > 10
        assert len(list((cache / "drift").iterdir())) == 1
        assert [medium.cut(lost) for lost in CUTS] == [[] for _ in CUTS]
    no_compiler()
    assert manifest(build("after")) == manifest(tiny_host)


@pytest.mark.parametrize("damage", ["empty", "altered"])
def test_a_damaged_memory_of_a_model_s_drift_is_measured_again(
    cache: Path, build: Build, tiny_host: Path, damage: str
) -> None:
    kept = cache / "drift" / f"{read_artifact(tiny_host).manifest.model.hash}.points"
    kept.unlink()  # builds of other k ranges may have left points there that this one has not
    build("before")
    whole = kept.read_bytes()
    kept.write_bytes(b"" if damage == "empty" else whole.replace(b"0.99", b"0.89"))
    assert kept.read_bytes() != whole
    made = build("again")
    assert manifest(made) == manifest(tiny_host)
    assert kept.read_bytes() == whole, "the next build finds it again"


def test_a_home_that_cannot_be_written_costs_a_warning(
    build: Build,
    tiny_host: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    place = tmp_path / "file"
    place.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    made = build("made")
    assert read_artifact(made).manifest.golden == read_artifact(tiny_host).manifest.golden
    (warning,) = [x for x in capfd.readouterr().err.splitlines() if x.startswith("warning: ")]
    assert f"{place}/tatvpr-edge cannot be written" in warning
