"""What a board did to its map, and a deploy or a rollback leaves behind, is told."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.board import (
    Sshd,
    board_modules,
    local_transport,
)
from support.board_maps import Board, add_on_board, live_map, on_board, places, same_model
from tatvpr_edge.deploy.kept import JOURNAL
from tatvpr_edge.deploy.push import deploy, rollback
from tatvpr_edge.runtime.mapjournal import append, compact, read_map
from tatvpr_edge.spec.errors import DeployError
from tatvpr_edge.spec.placemap import write_map


@pytest.mark.parametrize("more", [0, 2])
def test_a_map_that_the_board_wrote_anew_stays_and_is_told(
    ram_path: Path, board: Board, hall: Any, more: int
) -> None:
    """Its journal, which goes with the new file, made every other release with that map a damaged
    one; without a journal its places stayed behind without a word."""
    root, options = board
    add_on_board(root, 5)
    before = live_map(root).resolve()
    compact(before)
    if more:
        add_on_board(root, more)
    second = same_model(ram_path, "second")
    said: list[dict[str, Any]] = []
    done = deploy(local_transport(), second, hall(second), options, said.append)
    assert done.changed and len(read_map(live_map(root))) == 3
    told = [text for event in said if "compacted" in (text := str(event.get("text")))]
    assert len(told) == 1 and str(before.parent) in told[0]
    assert len(read_map(before)) == 8 + more
    # Going back to it works (it was called damaged), and brings no journal that it does not fit.
    add_on_board(root, 1)
    said.clear()
    rollback(local_transport(), None, options, said.append)
    assert any("what it did there stays there" in str(event.get("text")) for event in said)
    assert live_map(root).resolve() == before and len(read_map(before)) == 8 + more


#: A disk that has no room for places that were added.
_FULL = """
def _full(self, descriptor, data, write=Disk.write):
    if not os.readlink(f"/proc/self/fd/{descriptor}").endswith(".journal.new"):
        return write(self, descriptor, data)
    write(self, descriptor, data[:1])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
Disk.write = _full
"""


def test_places_that_find_no_room_stop_a_deploy_and_no_rollback(
    ram_path: Path, board: Board, sshd: Sshd
) -> None:
    root, options = board
    modules = board_modules(root)
    modules[-1] = (modules[-1][0], modules[-1][1] + _FULL)
    full = dataclasses.replace(options, modules=modules)
    first, second = (root / "current").resolve(), same_model(ram_path, "second")
    add_on_board(root, 5)
    with pytest.raises(DeployError, match="map cannot be copied: No space left on device"):
        deploy(sshd.transport(), second, None, full)
    assert (root / "current").resolve() == first
    # Half of them was left there, and made the release a damaged one.
    done = deploy(sshd.transport(), second, None, options)
    assert done.changed and not done.warnings and len(read_map(live_map(root))) == 8
    add_on_board(root, 2)
    said: list[dict[str, Any]] = []
    rollback(sshd.transport(), None, full, said.append)
    assert any("stay in" in str(e) and "No space left" in str(e) for e in said)
    assert (root / "current").resolve() == first and len(read_map(live_map(root))) == 8
    assert not list(root.rglob("*.journal.new"))


def test_places_that_the_robot_adds_while_it_is_restarted_are_told(
    ram_path: Path, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, options = board
    before = live_map(root).resolve()
    adds = "append(path, read_map(path).base.places())"
    (ram_path / "bin").mkdir()
    (ram_path / "bin" / "systemctl").write_text(
        f'#!/bin/sh\ncase "$*" in *restart*) {on_board(ram_path, adds)};; esac; echo loaded\n'
    )
    (ram_path / "bin" / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{ram_path}/bin:{os.environ['PATH']}")
    restarting = dataclasses.replace(options, restart=("robot",))
    done = deploy(local_transport(), same_model(ram_path, "second"), None, restarting)
    (told,) = done.warnings
    assert "while its programs were restarted" in told and str(before.parent) in told
    assert (len(read_map(live_map(root))), len(read_map(before))) == (3, 6)


def test_what_a_rollback_leaves_behind_is_told(ram_path: Path, board: Board) -> None:
    """It was not, where the release before has another map than the one that is left."""
    root, options = board
    add_on_board(root, 5)
    compact(live_map(root).resolve())
    deploy(local_transport(), same_model(ram_path, "second"), None, options)
    second = live_map(root).resolve()
    add_on_board(root, 2)
    compact(second)
    said: list[dict[str, Any]] = []
    rollback(local_transport(), None, options, said.append)
    (told,) = [str(event["text"]) for event in said if event["event"] == "warning"]
    assert "stays there" in told and str(second.parent) in told
    assert len(read_map(live_map(root))) == 8
    # Nothing is left behind where the other one has all of it, and more.
    said.clear()
    rollback(local_transport(), second.parent.name, options, said.append)
    deploy(local_transport(), same_model(ram_path, "third"), None, options, said.append)
    third = live_map(root).resolve()
    add_on_board(root, 1)
    rollback(local_transport(), None, options, said.append)
    append(third, places(read_map(third).base.info, 1))  # by a program that nobody restarted
    rollback(local_transport(), third.parent.name, options, said.append)
    assert len(read_map(live_map(root))) == 12
    assert not [event for event in said if event["event"] == "warning"]


@pytest.mark.parametrize("does", [add_on_board, lambda root, count: compact(live_map(root))])
def test_what_another_map_leaves_behind_is_told(
    ram_path: Path, board: Board, sshd: Sshd, does: Callable[[Path, int], object]
) -> None:
    """Places that the robot had added were no longer used, and nothing said so."""
    root, options = board
    live, first = (root / "current").resolve(), same_model(ram_path, "second")
    info = read_map(live_map(root)).base.info
    for count in (4, 5):
        write_map(ram_path / f"{count}.placemap", info, [places(info, count)])
    assert not deploy(sshd.transport(), first, ram_path / "4.placemap", options).warnings
    rollback(sshd.transport(), None, options)
    add_on_board(root, 2)
    does(root, 1)
    (told,) = deploy(sshd.transport(), first, ram_path / "5.placemap", options).warnings
    assert f"stays there; to keep it, copy map.placemap and, if it is there, {JOURNAL}" in told
    assert str(live) in told and len(read_map(live_map(root))) == 5
