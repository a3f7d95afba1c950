"""A deploy never takes the robot's map away without a word, nor the places that it added to it."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest

from support.board import (
    DESCRIPTOR,
    Sshd,
    board_modules,
    local_transport,
    make_artifact,
    quick_options,
)
from support.board_maps import Board, add_on_board, live_map, on_board, places, same_model
from support.keys import make_keys
from tatvpr_edge.deploy.push import Options, accept_unsigned, deploy, rollback, status, trust
from tatvpr_edge.deploy.release import open_artifact
from tatvpr_edge.runtime.mapjournal import append, compact, read_map
from tatvpr_edge.spec.calibration import Calibration, SequenceCalibration
from tatvpr_edge.spec.errors import DeployError, MapError
from tatvpr_edge.spec.placemap import Band, MapInfo, write_map


def test_a_deploy_without_a_map_keeps_the_robots(ram_path: Path, board: Board) -> None:
    root, options = board
    before = live_map(root).read_bytes()
    done = deploy(local_transport(), same_model(ram_path, "second"), None, options)
    assert done.changed and live_map(root).read_bytes() == before
    found = status(local_transport(), options)["releases"]
    assert [release["map"] for release in found] == ["hall.placemap"] * 2
    # The places that the board added go along; a rollback brings the newer ones back with it.
    add_on_board(root, 5)
    deploy(local_transport(), same_model(ram_path, "third"), None, options)
    assert len(read_map(live_map(root))) == 8
    add_on_board(root, 2)
    rollback(local_transport(), None, options)
    assert len(read_map(live_map(root))) == 10
    # Both sides added since: neither is lost, and it is said.
    add_on_board(root, 1)
    third = next(
        path
        for path in (root / "releases").iterdir()
        if path != (root / "current").resolve() and (path / "map.placemap.journal").exists()
    )
    append(third / "map.placemap", places(read_map(third / "map.placemap").base.info, 4))
    said: list[dict[str, Any]] = []
    rollback(local_transport(), third.name, options, said.append)
    assert len(read_map(live_map(root))) == 14
    assert sum("keeps the places" in str(event.get("text")) for event in said) == 1


def test_a_deploy_without_a_map_keeps_one_that_the_board_wrote_anew(
    ram_path: Path, board: Board
) -> None:
    """It was called damaged: what a board prunes, compacts or calibrates is its map all the same,
    and what it adds afterwards goes along, too."""
    root, options = board
    add_on_board(root, 5)
    first = live_map(root).resolve()
    compact(first)
    add_on_board(root, 2)
    anew = first.read_bytes()
    second, said = same_model(ram_path, "second"), []
    done = deploy(local_transport(), second, None, options, said.append)
    assert done.changed and live_map(root).resolve() != first
    assert live_map(root).read_bytes() == anew and len(read_map(live_map(root))) == 10
    assert done.reused_bytes >= len(anew) and not done.warnings
    assert status(local_transport(), options, check=True)["releases"][-1]["fault"] is None
    # The same again changes nothing; back and forth, no place is lost.
    assert not deploy(local_transport(), second, None, options).changed
    rollback(local_transport(), None, options)
    assert live_map(root).resolve() == first and len(read_map(first)) == 10


def test_a_map_that_the_board_wrote_anew_is_not_signed_unseen(
    ram_path: Path, tmp_path: Path, board: Board
) -> None:
    root, options = board
    live, second = (root / "current").resolve(), same_model(ram_path, "second")
    add_on_board(root, 5)
    compact(live_map(root).resolve())
    signing = dataclasses.replace(options, sign=make_keys(tmp_path).private("ours"))
    with pytest.raises(MapError, match=r"wrote its map hall.placemap anew .*give --map"):
        deploy(local_transport(), second, None, signing)
    assert (root / "current").resolve() == live
    copied = ram_path / "copied.placemap"
    copied.write_bytes(live_map(root).read_bytes())
    deploy(local_transport(), second, copied, signing)
    assert len(read_map(live_map(root))) == 8


def test_a_signed_map_that_a_board_without_keys_wrote_anew_is_kept(
    ram_path: Path, tmp_path: Path, board: Board, hall: Any
) -> None:
    """It was called damaged, and to deploy again helped nothing."""
    root, options = board
    second = same_model(ram_path, "second")
    signing = dataclasses.replace(options, sign=make_keys(tmp_path).private("ours"))
    deploy(local_transport(), second, hall(second), signing)
    add_on_board(root, 5)
    compact(live_map(root).resolve())
    third = same_model(ram_path, "third")
    with pytest.raises(MapError, match=r"wrote its map hall.placemap anew .*give --map"):
        deploy(local_transport(), third, None, signing)
    deploy(local_transport(), third, None, options)
    assert len(read_map(live_map(root))) == 8


def test_places_that_the_robot_adds_during_the_health_check_go_along(
    ram_path: Path, board: Board
) -> None:
    """Its programs run the release before until they are restarted."""
    root, options = board
    before = live_map(root).resolve()
    add_on_board(root, 5)

    def heard(event: dict[str, Any]) -> None:
        if event.get("name") == "health":
            append(before, places(read_map(before).base.info, 2))

    longer = dataclasses.replace(options, settle_s=1.0)
    deploy(local_transport(), same_model(ram_path, "second"), None, longer, heard)
    assert live_map(root).resolve() != before and len(read_map(live_map(root))) == 10


@pytest.mark.parametrize("when", ["verify", "serve"])
def test_a_map_that_the_board_writes_anew_amid_a_deploy_is_not_left_behind(
    ram_path: Path, board: Board, when: str
) -> None:
    """Without a word, where it had done so before."""
    root, options = board
    add_on_board(root, 5)
    compact(live_map(root).resolve())
    add_on_board(root, 2)
    before, program = live_map(root).resolve(), on_board(ram_path, "compact(path)")
    second = same_model(ram_path, "second", f"{when}={program}")
    with pytest.raises(DeployError, match=r"wrote its map anew .*: deploy again") as said:
        deploy(local_transport(), second, None, options)
    assert ("went back" in str(said.value)) == (when == "serve")  # else nothing was switched
    assert live_map(root).resolve() == before and len(read_map(before)) == 10
    deploy(local_transport(), second, None, options)
    assert live_map(root).resolve() != before and len(read_map(live_map(root))) == 10


def test_a_map_that_goes_amid_a_deploy_is_told(ram_path: Path, board: Board) -> None:
    root, options = board
    live = (root / "current").resolve()
    program = on_board(ram_path, "__import__('os').unlink(path)")
    with pytest.raises(DeployError, match=r"map.placemap"):
        deploy(local_transport(), same_model(ram_path, "b", f"verify={program}"), None, options)
    assert (root / "current").resolve() == live


@pytest.mark.parametrize(
    ("kind", "function", "why"),
    [
        ("int8", b"tatvpr_calibration_known", "before there were rooted calibrations"),
        ("weighed", b"tatvpr_map_kind_known", "before there were weighed maps"),
    ],
)
def test_a_map_that_the_artifacts_code_is_too_old_for_is_refused_before_anything_is_sent(
    ram_path: Path, wheel: Path, kind: str, function: bytes, why: str
) -> None:
    """The board refused it, after all of it was sent."""
    options = quick_options(ram_path / "root", wheel)
    sequence = SequenceCalibration(5, 0.0, (0.0,) * 6)
    rooted = Calibration("rooted", 0.0, elsewhere_places=1, sequence=sequence)
    for content in (b"older", b"not_%b\0%b_either" % (function, function), b"\0%b\0" % function):
        artifact = make_artifact(ram_path / content.hex(), content)
        band = Band(1.0) if kind == "weighed" else Band(1.0, calibration=rooted)
        info = MapInfo(artifact.manifest.model.hash, kind, DESCRIPTOR, (band,))
        write_map(ram_path / "m.placemap", info, [places(info, 3)])
        if content[:1] == b"\0":
            break
        with pytest.raises(MapError, match=rf"libmodel.so was built {why}.* build the artifact"):
            deploy(local_transport(), artifact.root, ram_path / "m.placemap", options)
        assert not (ram_path / "root").exists()
    assert deploy(local_transport(), artifact.root, ram_path / "m.placemap", options).changed


@pytest.mark.parametrize("lost", ["map.placemap", "artifact/manifest.json", "release.json"])
def test_a_map_that_cannot_be_kept_is_never_dropped_without_a_word(
    ram_path: Path, board: Board, lost: str
) -> None:
    root, options = board
    live = (root / "current").resolve()
    (live / lost).unlink()
    with pytest.raises(MapError, match=rf"{live.name} cannot be kept \(.*--map, or --no-map"):
        deploy(local_transport(), same_model(ram_path, "second"), None, options)
    assert (root / "current").resolve() == live


def test_a_map_that_does_not_fit_is_never_dropped_without_a_word(
    ram_path: Path, board: Board
) -> None:
    root, options = board
    other = make_artifact(ram_path / "other", b"another model")
    live = (root / "current").resolve()
    with pytest.raises(MapError, match=r"hall.placemap was made with another model .*--no-map"):
        deploy(local_transport(), other, None, options)
    assert (root / "current").resolve() == live
    deploy(local_transport(), other, None, dataclasses.replace(options, no_map=True))
    assert not live_map(root).exists()
    assert status(local_transport(), options)["releases"][-1]["map"] is None
    # From a release without a map nothing is kept.
    deploy(local_transport(), same_model(ram_path, "again"), None, options)
    assert not live_map(root).exists()


def test_a_damaged_map_is_not_kept(ram_path: Path, tiny_host: Path) -> None:
    """A real build: it is its runtime, asked on the board, that tells damage from a map that the
    board wrote anew."""
    root = ram_path / "real"
    options = Options(root=str(root), python=sys.executable, settle_s=0.1)
    artifact = open_artifact(tiny_host, None)
    model = artifact.manifest.model
    info = MapInfo(model.hash, "int8", model.descriptor_size, (Band(1.0),))
    write_map(ram_path / "real.placemap", info, [places(info, 3)])
    deploy(local_transport(), artifact, ram_path / "real.placemap", options)
    path, live = live_map(root).resolve(), (root / "current").resolve()
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(DeployError, match=r"map.*checksum.*went back"):
        deploy(local_transport(), artifact, None, options)
    assert (root / "current").resolve() == live


def test_a_release_with_a_map_has_to_answer_a_query(ram_path: Path, board: Board) -> None:
    root, options = board
    live = (root / "current").resolve()
    bad = same_model(ram_path, "bad", "query-fails")
    with pytest.raises(DeployError, match=r"does not answer a query of its map.*went back"):
        deploy(local_transport(), bad, None, options)
    assert (root / "current").resolve() == live
    # Without a map there is nothing to ask.
    deploy(local_transport(), bad, None, dataclasses.replace(options, no_map=True))


def test_a_release_that_rots_while_it_is_asked_goes_back(ram_path: Path, board: Board) -> None:
    """It stayed live, unconfirmed: an artifact's reader raises another error than a deploy does."""
    root, options = board
    live = (root / "current").resolve()
    rots = ram_path / "rots"
    rots.write_text(f"#!/bin/sh\necho x >> {root}/current/artifact/golden/frame.rgb\n")
    rots.chmod(0o755)
    bad = same_model(ram_path, "bad", f"serve={rots}")
    with pytest.raises(DeployError, match=r"frame.rgb was altered.*went back"):
        deploy(local_transport(), bad, None, options)
    assert (root / "current").resolve() == live
    assert status(local_transport(), options)["unconfirmed"] is False


def test_only_a_deploy_that_keeps_the_map_has_it_read_before_anything_is_asked(
    ram_path: Path, tmp_path: Path, board: Board, sshd: Sshd
) -> None:
    """Every status and every change of keys hashed all of it, with the first word to the board."""
    root, options = board
    opened = ram_path / "opened"
    modules = board_modules(root)
    name, text = modules[-1]
    hook = "sys.addaudithook(lambda event, given: event == 'open' and log(given[0]))"
    text += f"\ndef log(path):\n    if str(path).endswith('{live_map(root).name}'):\n"
    text += f"        os.close(os.open('{opened}', os.O_CREAT | os.O_WRONLY))\n{hook}\n"
    watched = dataclasses.replace(options, modules=[*modules[:-1], (name, text)])
    assert status(sshd.transport(), watched)["live"] == live_map(root).resolve().parent.name
    trust(sshd.transport(), "ours", make_keys(tmp_path).public("ours"), True, watched)
    assert not opened.exists()
    accept_unsigned(sshd.transport(), options)
    deploy(sshd.transport(), same_model(ram_path, "second"), None, watched)
    assert opened.exists()
