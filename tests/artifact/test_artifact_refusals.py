"""A damaged, foreign or hostile artifact is refused by the name of its fault."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tatvpr_edge.spec.artifact import (
    MANIFEST,
    SIGNATURE,
    Artifact,
    Code,
    Golden,
    GoldenFrame,
    GoldenPoint,
    Manifest,
    ModelEntry,
    SignedManifest,
    read_artifact,
    replace_profile,
    write_artifact,
)
from tatvpr_edge.spec.atomic import take_place
from tatvpr_edge.spec.errors import ArtifactError, SignatureError
from tatvpr_edge.spec.manifest import Dials, check_member, parse_manifest, seal

FILES: dict[str, bytes | str | Path] = {
    "lib/libtatvpr_model.so": b"code" * 5,
    "weights.bin": b"weights",
    "golden/frame0.rgb": bytes(range(48)),
    "golden/k1.f32": bytes(16),
}


def manifest(**changes: Any) -> Manifest:
    """A manifest that fits FILES."""
    values: dict[str, Any] = {
        "board": "host",
        "model": ModelEntry("micro", "ab" * 32, "gem", 4, 4, 8, 5),
        "code": Code("shared-library", "lib/libtatvpr_model.so", "x86_64-linux-gnu", ("portable",)),
        "created_with": "tatvpr-edge 0.1.0",
        "golden": Golden(
            True,
            (GoldenFrame("golden/frame0.rgb", 4, 4),),
            (GoldenPoint(1.0, 1.0, "golden/k1.f32", 0.99),),
        ),
        "compute": ({"k": 1.0, "tokens": 1.0, "macs": 5.0},),
        "memory": {"arena_bytes": 4096},
        "frontier": (Dials(1.0, 1.0, 41.7), Dials(0.2, 0.5, 38.0)),
    }
    return Manifest(**{**values, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good artifact."""
    return write_artifact(tmp_path / "artifact", manifest(), FILES).root


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest of ``folder`` in place."""
    path = folder / MANIFEST
    document = json.loads(path.read_text())
    change(document)
    path.write_bytes(seal(document))


# ---- what is good is read back ---------------------------------------------------------------


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


# ---- damage ----------------------------------------------------------------------------------


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


# ---- another time, another board -------------------------------------------------------------


def test_a_newer_format_asks_for_an_update(folder: Path) -> None:
    edit(folder, lambda document: document.update(format_version=3))
    with pytest.raises(ArtifactError, match="format 3 is newer"):
        read_artifact(folder)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"format_version": 1}, "artifact format 1 is of an older release"),
        ({"operators": 1}, "computes version 1 of the operators, this reader knows 2"),
        ({"operators": 3}, "computes version 3 of the operators, this reader knows 2"),
    ],
)
def test_other_numerics_are_refused_with_the_command_that_builds_again(
    folder: Path, change: dict[str, int], fault: str
) -> None:
    edit(folder, lambda document: document.update(change))
    with pytest.raises(ArtifactError, match=fault) as caught:
        read_artifact(folder)
    assert "'tatvpr-edge build --board host --model micro'" in str(caught.value)


def test_dials_groups_and_the_kind_of_weights_are_read_back(folder: Path) -> None:
    first = read_artifact(folder).manifest
    assert first.model.weights == "trained" and first.model.groups == {}
    assert first.defaults == Dials(0.2, 1.0)
    assert first.frontier == (Dials(1.0, 1.0, 41.7), Dials(0.2, 0.5, 38.0))


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("defaults", {"k": 0.2}, "defaults.tokens is missing"),
        ("defaults", {"k": 1.2, "tokens": 1.0}, r"defaults.k is not a number in \(0, 1\]"),
        ("defaults", {"k": 0.001, "tokens": 1.0}, "k 0.001 of its defaults or frontier"),
        ("frontier", [{"k": 0.2, "tokens": 1.0}], "recall is missing"),
        ("frontier", [{"k": 0.2, "tokens": 1.0, "recall": 101}], "no percentage"),
        ("frontier", "none", "frontier is not a list"),
    ],
)
def test_malformed_dials_are_named(folder: Path, key: str, value: Any, fault: str) -> None:
    edit(folder, lambda document: document.update({key: value}))
    with pytest.raises(ArtifactError, match=fault):
        read_artifact(folder)


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("weights", "borrowed", "model.weights is not valid"),
        ("groups", {"blocks.0.down": 1}, "blocks.0.down is not an integer in 2"),
        ("groups", [4], "model.groups is not an object"),
    ],
)
def test_a_malformed_model_entry_is_named(folder: Path, key: str, value: Any, fault: str) -> None:
    edit(folder, lambda document: document["model"].update({key: value}))
    with pytest.raises(ArtifactError, match=fault):
        read_artifact(folder)


def test_an_unknown_required_feature_is_named(folder: Path) -> None:
    edit(folder, lambda document: document.update(required_features=["teleport"]))
    with pytest.raises(ArtifactError, match="requires teleport"):
        read_artifact(folder)


def test_another_board_is_refused_when_one_is_named(folder: Path) -> None:
    with pytest.raises(ArtifactError, match="for board host, not raspberry-pi-5"):
        read_artifact(folder, board="raspberry-pi-5")


def test_the_signature_hook_sees_what_was_read_and_may_refuse(folder: Path, tmp_path: Path) -> None:
    (folder / SIGNATURE).write_text("signature")
    (tmp_path / "link").symlink_to(folder)
    seen: list[SignedManifest] = []
    assert read_artifact(tmp_path / "link", verify_signature=seen.append).signed
    manifest = (folder / MANIFEST).read_bytes()
    assert seen == [SignedManifest(folder.resolve(), manifest, b"signature")]

    def refuse(signed: SignedManifest) -> None:
        raise SignatureError("unsigned")

    with pytest.raises(SignatureError):
        read_artifact(folder, verify_signature=refuse)


# ---- another artifact takes the folder's place -------------------------------------------------


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another good artifact, on the same disk, of other files by the same names."""
    files = {name: b"other " + bytes(data) for name, data in FILES.items()}  # type: ignore[arg-type]
    files["golden/frame0.rgb"], files["golden/k1.f32"] = bytes(48), bytes(range(16))
    return write_artifact(tmp_path / "other", manifest(), files).root


def test_a_folder_that_is_replaced_while_it_is_read_is_read_once_more(
    folder: Path, other: Path
) -> None:
    wanted, calls = read_artifact(other).hash, []

    def replaced(signed: SignedManifest) -> None:
        calls.append(signed.manifest)
        if len(calls) == 1:  # the manifest is of one, all that follows of the other
            take_place(other, folder)

    assert read_artifact(folder, verify_signature=replaced).hash == wanted and len(calls) == 2

    def always(signed: SignedManifest) -> None:
        calls.append(signed.manifest)
        take_place(other, folder)

    with pytest.raises(ArtifactError, match=r"was altered|truncated"):
        read_artifact(folder, verify_signature=always)
    assert len(calls) == 4, "once more, and not for ever"


def test_what_is_damaged_and_not_replaced_is_read_once(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(b"WEIGHTS")
    calls: list[SignedManifest] = []
    with pytest.raises(ArtifactError, match=r"weights\.bin was altered"):
        read_artifact(folder, verify_signature=calls.append)
    assert len(calls) == 1


# ---- attacks ---------------------------------------------------------------------------------

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
    with pytest.raises(ArtifactError, match="'golden/extra', which is not in its list"):
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


# ---- writing ---------------------------------------------------------------------------------


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
