"""An artifact of another release, for another board, or with entries that make no sense, is refused
by the name of what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.small_artifact import edit
from tatvpr_edge.spec.artifact import (
    MANIFEST,
    SIGNATURE,
    SignedManifest,
    read_artifact,
)
from tatvpr_edge.spec.errors import ArtifactError, SignatureError
from tatvpr_edge.spec.manifest import Dials


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
        ("frontier", [{"k": 0.001, "tokens": 1.0, "recall": 1}], "k 0.001 of its defaults or f"),
        ("k_range", [0.0, 1.0], r"k_range 0..1 is not inside \(0, 1\]"),
        ("k_range", [0.5, 0.2], r"k_range 0.5..0.2 is not inside \(0, 1\]"),
        ("k_range", [0.2, 1.5], r"k_range 0.2..1.5 is not inside \(0, 1\]"),
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


@pytest.mark.parametrize("bound", [-1.0, 0.0, 0.49, 1.001])
def test_a_golden_point_that_tells_nothing_apart_is_refused(folder: Path, bound: float) -> None:
    edit(folder, lambda document: document["golden"]["points"][0].update(min_cosine=bound))
    with pytest.raises(ArtifactError, match="would tell no right answer from a wrong one"):
        read_artifact(folder)


@pytest.mark.parametrize("key", ["frames", "points"])
def test_an_artifact_without_golden_answers_is_refused(folder: Path, key: str) -> None:
    edit(folder, lambda document: document["golden"].update({key: []}))
    with pytest.raises(ArtifactError, match="has no golden point"):
        read_artifact(folder)


def test_two_names_that_are_one_file_elsewhere_are_refused(folder: Path) -> None:
    def twice(document: dict[str, Any]) -> None:
        (weights,) = (entry for entry in document["files"] if entry["path"] == "weights.bin")
        document["files"] += [{**weights, "path": "Weights.BIN"}]

    edit(folder, twice)
    with pytest.raises(ArtifactError, match="a file is listed twice"):
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
