"""An artifact is written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from support.small_artifact import FILES, manifest
from tatvpr_edge.spec.artifact import (
    MANIFEST,
    SIGNATURE,
    Artifact,
    read_artifact,
    replace_profile,
    write_artifact,
)
from tatvpr_edge.spec.errors import ArtifactError


def test_an_existing_output_is_refused_and_untouched(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="exists already"):
        write_artifact(folder, manifest(board="stm32h7"), FILES)
    assert read_artifact(folder).manifest.board == "host"
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="exists already"):
        write_artifact(tmp_path / "dangling", manifest(), FILES)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "artifact"
    with pytest.raises(OSError):
        write_artifact(target, manifest(), {**FILES, "weights.bin": tmp_path / "nowhere"})
    with pytest.raises(ArtifactError):
        write_artifact(target, manifest(k_range=(0.0, 2.0)), FILES)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_with_the_place(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_artifact(folder).hash

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as made:
        write_artifact(tmp_path / "new", manifest(), FILES)
    assert made.value.filename == str(tmp_path / "new")
    with pytest.raises(OSError) as replaced:
        replace_profile(folder, {"device": {}, "points": []})
    assert replaced.value.filename == str(folder / MANIFEST)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert read_artifact(folder).hash == before


def test_a_file_changed_after_reading_is_noticed(folder: Path) -> None:
    artifact = read_artifact(folder)
    (folder / "weights.bin").write_bytes(b"WEIGHTS")
    with pytest.raises(ArtifactError, match=r"weights\.bin was altered"):
        artifact.read("weights.bin")


def test_a_profile_is_put_in_and_the_artifact_stays_whole(folder: Path) -> None:
    profile = {"device": {"cpu": "x"}, "points": [{"k": 0.2, "tokens": 1.0, "latency_ms": 2.5}]}
    assert replace_profile(folder, profile).manifest.profile == profile
    assert isinstance(read_artifact(folder), Artifact)
    (folder / SIGNATURE).write_text("signature")
    with pytest.raises(ArtifactError, match="signed"):
        replace_profile(folder, profile)
    assert not replace_profile(folder, profile, unsign=True).signed
    with pytest.raises(ArtifactError, match="profile"):
        replace_profile(folder, {"device": {}, "points": [{"k": 7}]})
    read_artifact(folder)
