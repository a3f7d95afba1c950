"""Maps on the board of :mod:`support.board`, and what a robot does to them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from support.board import make_artifact
from tatvpr_edge.deploy.push import Options
from tatvpr_edge.runtime.mapjournal import append, read_map
from tatvpr_edge.spec.artifact import Artifact
from tatvpr_edge.spec.placemap import MapInfo, Places, make_places

#: An install root, and the options that deploy to it.
Board = tuple[Path, Options]


def places(info: MapInfo, count: int) -> Places:
    """So many, of no position."""
    rows = np.random.default_rng(count).standard_normal((count, info.dim)).astype(np.float32)
    return make_places(info, [rows], None, [f"{count}-{index}" for index in range(count)])


def live_map(root: Path) -> Path:
    """Of the live release below ``root``."""
    return root / "current" / "map.placemap"


def same_model(ram_path: Path, name: str, behaviour: str = "") -> Artifact:
    """Another build of the model that ``first`` holds."""
    return make_artifact(ram_path / name, behaviour=behaviour, files={"more.bin": name.encode()})


def add_on_board(root: Path, count: int) -> None:
    """Places that the robot itself adds."""
    info = read_map(live_map(root)).base.info
    append(live_map(root).resolve(), places(info, count))


def on_board(ram_path: Path, work: str) -> Path:
    """A program that does ``work`` to the map at ``path``, which is live now."""
    program = ram_path / "work.py"
    program.write_text(
        f"#!{sys.executable} -I\n"
        "from tatvpr_edge.runtime.mapjournal import append, compact, read_map\n"
        f"path = {str(live_map(ram_path / 'root').resolve())!r}\n{work}\n"
    )
    program.chmod(0o755)
    return program
