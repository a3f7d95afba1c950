"""Caches as whoever builds meets them: whole after a power cut, not believed once they are damaged,
and missed only in time where they cannot be written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from support.medium import CUTS, Medium
from support.mounts import read_only
from tatvpr_edge.boards.loader import load
from tatvpr_edge.cli import main
from tatvpr_edge.compilers.core_sources import core_sources
from tatvpr_edge.compilers.toolchains import core_architecture
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
    # Vector kernels take long to compile: those that were kept before may stay.
    kernels = [s.path for s in core_sources(core_architecture(load("host")))]
    slow = [path.name.encode() for path in kernels if path.parent.name in ("x86", "aarch64")]
    for path in (cache / "objects").glob("*.object"):
        kept = path.read_bytes()  # which source one is of is said in it, not by its name
        if not any(name in kept for name in slow):
            path.unlink()
    before = len(list((cache / "objects").glob("*.object")))
    shutil.rmtree(cache / "drift")
    for folder in ("drift", "models"):  # whose own names may go once, with what is new
        (cache / folder).mkdir(exist_ok=True)
    with monkeypatch.context() as patch:
        medium = Medium(cache, patch)
        build("before")
        assert len(list((cache / "objects").glob("*.object"))) > before + 10
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
    cache: Path, build: Build, tiny_host: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """(What is missed there is compiled: test_objects.py. Here objects are found.)"""
    shutil.rmtree(cache / "drift")
    kept = sorted(cache.rglob("*"))
    with read_only(cache):
        made = build("made")
    assert sorted(cache.rglob("*")) == kept
    assert read_artifact(made).manifest.golden == read_artifact(tiny_host).manifest.golden
    (warning,) = [x for x in capfd.readouterr().err.splitlines() if x.startswith("warning: ")]
    assert f"{cache} cannot be written" in warning
