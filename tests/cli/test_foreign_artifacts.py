"""A map for a board is made on the host: with the same model, built on the way."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from support.tiny_model import TOKENS, tiny_model
from tatvpr_edge.compilers.linux import interface_hashes
from tatvpr_edge.models.export.bodies import bodies
from tatvpr_edge.runtime import PlaceMap
from tatvpr_edge.runtime.cache import cache_folder, host_artifact
from tatvpr_edge.spec.artifact import read_artifact, write_artifact
from tatvpr_edge.spec.manifest import Dials

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def own_cache(tmp_path: Path, build_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that holds what the suite's builds noted, and no artifact for this machine."""
    own = tmp_path / "cache"
    shutil.copytree(build_cache / "tatvpr-edge", own / "tatvpr-edge", symlinks=True)
    shutil.rmtree(own / "tatvpr-edge" / "artifacts", ignore_errors=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(own))
    return own


def test_a_boards_artifact_makes_the_map_that_the_host_makes(
    tatvpr: Run, folder: Path, tiny_arm64: Path, tiny_host: Path, tmp_path: Path, own_cache: Path
) -> None:
    shutil.copytree(tiny_arm64, host_artifact())  # of a home that two machines share
    done = tatvpr("map", "build", folder, "--artifact", tiny_arm64, "-o", "board.placemap")
    assert "is for jetson-orin-nano; this machine describes with its own build" in done.stderr
    tatvpr("map", "build", folder, "--artifact", tiny_host, "-o", "host.placemap")
    made = (tmp_path / "board.placemap").read_bytes()
    assert made == (tmp_path / "host.placemap").read_bytes()
    shutil.rmtree(host_artifact())
    kept = list(cache_folder("artifacts").iterdir())
    (model_hash,) = (path.name.partition("-")[0] for path in kept)
    assert model_hash == PlaceMap(tmp_path / "host.placemap").info.model_hash
    # The second time it is there.
    stamp = kept[0].stat().st_mtime_ns
    done = tatvpr("map", "add", "board.placemap", folder, "--artifact", tiny_arm64, "--json")
    assert json.loads(done.stdout)["known"] == 10
    assert next(cache_folder("artifacts").iterdir()).stat().st_mtime_ns == stamp


def test_it_is_made_at_the_k_that_the_board_was_built_for(
    tatvpr: Run, folder: Path, tiny_arm64: Path, tiny_host: Path, tmp_path: Path, own_cache: Path
) -> None:
    """The host's build had its own range: the map was of k = 1, at which the board answers none."""
    shutil.copytree(tiny_host, host_artifact())
    other = read_artifact(tiny_arm64)
    manifest = dataclasses.replace(other.manifest, k_range=(0.3, 0.6), defaults=Dials(0.3, 1.0))
    files = {entry.path: other.path(entry.path) for entry in other.manifest.files}
    write_artifact(tmp_path / "narrow", manifest, files)
    tatvpr("map", "build", folder, "--artifact", "narrow", "-o", "m.placemap", "--single-view")
    (band,) = PlaceMap(tmp_path / "m.placemap").info.bands
    assert (band.k, band.tokens) == (np.float32(0.6), 1.0)


def test_what_an_older_release_built_for_this_machine_is_built_anew(
    tatvpr: Run, folder: Path, tiny_arm64: Path, tiny_host: Path, tmp_path: Path, own_cache: Path
) -> None:
    """It lacked functions of today, and whoever built the board's artifact again was told the same:
    "built before there were rooted calibrations: build the artifact again"."""
    older = read_artifact(tiny_host)
    files = {entry.path: older.path(entry.path) for entry in older.manifest.files}
    (tmp_path / "tatvpr.h").write_text("/* of last month */")
    host_artifact().parent.mkdir()
    write_artifact(
        host_artifact(), older.manifest, {**files, "include/tatvpr.h": tmp_path / "tatvpr.h"}
    )
    tatvpr("map", "build", folder, "--artifact", tiny_arm64, "-o", "m.placemap", "--single-view")
    (kept,) = (path for path in cache_folder("artifacts").iterdir() if path != host_artifact())
    for path, sha256 in interface_hashes().items():
        assert read_artifact(kept).manifest.file(path).sha256 == sha256


def test_a_model_that_is_not_known_here_is_told(
    tatvpr: Run, folder: Path, tiny_arm64: Path, own_cache: Path
) -> None:
    shutil.rmtree(own_cache / "tatvpr-edge" / "models")
    done = tatvpr("map", "build", folder, "--artifact", tiny_arm64, "-o", "m", status=1)
    assert "is for jetson-orin-nano" in done.stderr
    assert "build --board host --model FILE.onnx" in done.stderr


def test_a_file_that_is_another_model_by_now_describes_nothing(
    tatvpr: Run, folder: Path, tiny_arm64: Path, tmp_path: Path, own_cache: Path
) -> None:
    """Trained again and exported under its name since the board's build."""
    onnx.save(tiny_model("cls", functions=bodies(TOKENS)), tmp_path / "again.onnx")
    note = own_cache / "tatvpr-edge" / "models" / f"{read_artifact(tiny_arm64).manifest.model.hash}"
    note.with_suffix(".json").write_text(json.dumps({"onnx": str(tmp_path / "again.onnx")}))
    done = tatvpr("map", "build", folder, "--artifact", tiny_arm64, "-o", "m", status=1)
    assert "again.onnx is another model" in done.stderr and not (tmp_path / "m").exists()
    assert list(cache_folder("artifacts").iterdir()) == []
