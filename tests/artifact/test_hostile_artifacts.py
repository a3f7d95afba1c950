"""Names that climb, links, pipes and manifests that contradict themselves are refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.small_artifact import FILES, edit, manifest
from tatvpr_edge.spec.artifact import (
    MANIFEST,
    SIGNATURE,
    read_artifact,
    write_artifact,
)
from tatvpr_edge.spec.errors import ArtifactError
from tatvpr_edge.spec.manifest import check_member, parse_manifest, seal

UNSAFE = [
    "../weights.bin",
    "/etc/passwd",
    "golden/../../x",
    "golden//x",
    "./x",
    "golden/.",
    "",
    ".hidden",
    "-rf",
    "a b",
    "a\nb",
    "a;b",
    "$(x)",
    "a\\b",
    "é",
    "a\0b",
    "x" * 201,
    MANIFEST,
    SIGNATURE,
]


@pytest.mark.parametrize("name", UNSAFE)
def test_an_unsafe_name_is_refused_by_writer_and_reader(
    folder: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(ArtifactError):
        check_member(name)
    with pytest.raises(ArtifactError):
        write_artifact(tmp_path / "other", manifest(), {**FILES, name: b"x"})
    assert not (tmp_path / "other").exists()
    edit(folder, lambda document: document["files"][0].update(path=name))
    with pytest.raises(ArtifactError):
        read_artifact(folder)


def test_a_file_that_is_not_listed_is_refused(folder: Path) -> None:
    (folder / "golden" / "extra").write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"'golden/extra', which .* lies elsewhere"):
        read_artifact(folder)
    (folder / "golden" / "extra").unlink()
    (folder / "empty").mkdir()
    with pytest.raises(ArtifactError, match="folder 'empty'"):
        read_artifact(folder)


def test_links_are_refused(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.copy(folder / "weights.bin", outside)
    (folder / "weights.bin").unlink()
    (folder / "weights.bin").symlink_to(outside)
    with pytest.raises(ArtifactError, match="symbolic link"):
        read_artifact(folder)
    (folder / "weights.bin").unlink()
    os.link(outside, folder / "weights.bin")
    with pytest.raises(ArtifactError, match="hard link"):
        read_artifact(folder)


def test_a_linked_folder_or_manifest_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "golden").rename(tmp_path / "golden")
    (folder / "golden").symlink_to(tmp_path / "golden")
    with pytest.raises(ArtifactError, match="symbolic link"):
        read_artifact(folder)
    (folder / MANIFEST).rename(tmp_path / MANIFEST)
    (folder / MANIFEST).symlink_to(tmp_path / MANIFEST)
    with pytest.raises(ArtifactError, match="symbolic link"):
        read_artifact(folder)


@pytest.mark.parametrize("path", ["weights.bin/x", "Weights.BIN/x", "weights.bin/a/b"])
def test_a_file_listed_inside_another_is_refused_before_any_is_read(
    folder: Path, path: str
) -> None:
    """By the manifest alone: who unpacks an artifact as it is listed asks no file system."""
    document = json.loads((folder / MANIFEST).read_bytes())
    document["files"].append({**document["files"][0], "path": path})
    with pytest.raises(ArtifactError, match=f"{path} lies inside another listed file"):
        parse_manifest(seal(document))


def test_a_pipe_does_not_hang_the_reader(folder: Path) -> None:
    (folder / "weights.bin").unlink()
    os.mkfifo(folder / "weights.bin")
    with pytest.raises(ArtifactError, match="not a plain file"):
        read_artifact(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["files"].append(d["files"][0]),
        lambda d: d["files"].append({**d["files"][0], "path": "WEIGHTS.bin"}),
        lambda d: d["files"].append({**d["files"][0], "path": "weights.bin/x"}),
        lambda d: d["files"][0].update(bytes=-1),
        lambda d: d["files"][0].update(bytes=2**64),
        lambda d: d["files"][0].update(sha256="AB" * 32),
        lambda d: d["golden"]["frames"][0].update(width=5),
        lambda d: d["golden"]["points"][0].update(path="nowhere"),
        lambda d: d["golden"]["points"][0].update(k=0),
        lambda d: d["model"].update(descriptor_size=3),
        lambda d: d["model"].update(hash="12"),
        lambda d: d["code"].update(kind="script"),
        lambda d: d.update(k_range=[0.5, 0.1]),
        lambda d: d.update(weights="nowhere"),
        lambda d: d.update(board="../x"),
        lambda d: d["input"].update(resize="nearest"),
        lambda d: d.pop("model"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    edit(folder, change)
    with pytest.raises(ArtifactError):
        read_artifact(folder)


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 2}', "[]", '"x"', "NaN", "[" * 100_000, "{}", "\ufeff{}"]
)
def test_odd_json_is_refused(text: str) -> None:
    with pytest.raises(ArtifactError):
        parse_manifest(text.encode())
