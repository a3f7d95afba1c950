"""A damaged artifact is refused by the name of its fault, and a whole one is read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.small_artifact import FILES, edit, manifest
from tatvpr_edge.spec.artifact import (
    MANIFEST,
    read_artifact,
    write_artifact,
)
from tatvpr_edge.spec.errors import ArtifactError
from tatvpr_edge.spec.manifest import parse_manifest, seal


def test_what_was_written_is_read_back(folder: Path) -> None:
    artifact = read_artifact(folder, board="host")
    assert [entry.path for entry in artifact.manifest.files] == sorted(FILES)
    assert artifact.read("weights.bin") == b"weights"
    assert artifact.manifest.to_json() == (folder / MANIFEST).read_bytes()
    assert not artifact.signed


def test_the_same_build_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write_artifact(tmp_path / "a", manifest(), FILES)
    second = write_artifact(tmp_path / "b", manifest(), dict(reversed(FILES.items())))
    assert first.hash == second.hash


def test_a_link_to_the_folder_is_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(folder)
    assert read_artifact(tmp_path / "current").root == folder.resolve()


def test_an_unknown_optional_key_is_ignored(folder: Path) -> None:
    edit(folder, lambda document: document.update(later={"more": 1}))
    read_artifact(folder)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_flipped_byte_in_any_file_is_named(folder: Path, name: str) -> None:
    path = folder / name
    for at in range(len(path.read_bytes())):
        data = bytearray(path.read_bytes())
        data[at] ^= 0x40
        path.write_bytes(data)
        with pytest.raises(ArtifactError, match=f"{name} was altered"):
            read_artifact(folder)
        data[at] ^= 0x40
        path.write_bytes(data)
    read_artifact(folder)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_missing_or_truncated_file_is_named(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    for length in range(len(data)):
        (folder / name).write_bytes(data[:length])
        with pytest.raises(ArtifactError, match=f"{name} is truncated"):
            read_artifact(folder)
    (folder / name).write_bytes(data + b"!")
    with pytest.raises(ArtifactError, match=f"{name} was altered"):
        read_artifact(folder)
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing"):
        read_artifact(folder)


def test_a_manifest_cut_at_any_byte_is_refused(folder: Path) -> None:
    data = (folder / MANIFEST).read_bytes()
    for length in range(len(data)):
        with pytest.raises(ArtifactError, match=r"truncated or not JSON|was altered"):
            parse_manifest(data[:length])
    for length in range(0, len(data), 97):
        (folder / MANIFEST).write_bytes(data[:length])
        with pytest.raises(ArtifactError, match=r"truncated or not JSON|was altered"):
            read_artifact(folder)


_DATA = manifest().to_json()


@given(st.integers(0, len(_DATA) - 1), st.integers(0, 7))
def test_any_flipped_bit_of_a_manifest_is_refused(at: int, bit: int) -> None:
    data = bytearray(_DATA)
    data[at] ^= 1 << bit
    with pytest.raises(ArtifactError) as caught:
        parse_manifest(bytes(data))
    assert "\n" not in str(caught.value)


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@given(st.sampled_from(sorted(manifest().to_dict())), _JSON)
def test_any_value_under_any_key_is_taken_or_refused(key: str, value: Any) -> None:
    document = {**manifest().to_dict(), key: value}
    try:
        parse_manifest(seal(document))
    except ArtifactError as error:
        assert "\n" not in str(error)


def test_a_missing_manifest_is_no_artifact(folder: Path, tmp_path: Path) -> None:
    (folder / MANIFEST).unlink()
    with pytest.raises(ArtifactError, match=r"has no manifest\.json"):
        read_artifact(folder)
    with pytest.raises(ArtifactError, match="no such folder"):
        read_artifact(tmp_path / "nowhere")
