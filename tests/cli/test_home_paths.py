"""``~`` in every path of the command line: bash leaves it alone in ``--output=~/floor.placemap``,
and whatever starts programs without a shell does so everywhere."""

from __future__ import annotations

import json
import pwd
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from support.users import as_other_user
from tatvpr_edge import runtime
from tatvpr_edge.boards.loader import load as load_board
from tatvpr_edge.cli.app import group
from tatvpr_edge.cli.paths import FilePath
from tatvpr_edge.cli.words import _files as files_below
from tatvpr_edge.mapping.recordings.opening import is_recording
from tatvpr_edge.mapping.table import read_table
from tatvpr_edge.runtime import Localizer, MapWriter, PlaceMap
from tatvpr_edge.runtime.cache import cache_folder
from tatvpr_edge.runtime.mapjournal import append
from tatvpr_edge.runtime.pixels import read_pixels
from tatvpr_edge.spec.errors import ArtifactError, DataError, MapError, SignatureError, TatvprError
from tatvpr_edge.spec.placemap import Band, MapInfo, make_places, write_map

Run = Callable[..., subprocess.CompletedProcess[str]]
INFO = MapInfo("ab" * 32, "int8", 16, (Band(1.0),))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a map of five places, two of them in its journal."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    rows = np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32)
    path = tmp_path / "home" / "floor.placemap"
    write_map(path, INFO, [make_places(INFO, [rows[:3]])])
    append(path, make_places(INFO, [rows[3:]]))
    return tmp_path / "home"


@pytest.mark.parametrize("command", ["info", "stats", "compact", "upgrade"])
def test_a_map_is_found_by_every_command_and_told_with_its_size(
    tatvpr: Run, home: Path, command: str
) -> None:
    told = json.loads(tatvpr("map", command, "~/floor.placemap", "--json").stdout)
    assert told["map"] == str(home / "floor.placemap") and told["bytes"] > 1000


def test_what_is_written_lies_in_the_home(tatvpr: Run, home: Path, tmp_path: Path) -> None:
    write_map(tmp_path / "b", INFO, [])
    tatvpr("map", "merge", "~/floor.placemap", "b", "--output=~/both.placemap")
    assert len(PlaceMap(home / "both.placemap")) == 5


def test_descriptors_and_tables_lie_in_the_home(
    tatvpr: Run, home: Path, folder: Path, tiny_host: Path
) -> None:
    asked = ("--artifact", tiny_host)
    tatvpr("describe", folder, "--output=~/rows.npy", *asked)
    tatvpr("evaluate", folder, folder, "--html=~/page.html", "--csv=~/table.csv", "--k=1", *asked)
    assert {"rows.npy", "rows.json", "page.html", "table.csv"} <= {p.name for p in home.iterdir()}


NOBODY = "~nobody-is-called-so"


@pytest.mark.parametrize(
    "taken",
    [
        lambda: runtime.stream(f"{NOBODY}/drive.mp4"),
        lambda: read_pixels(f"{NOBODY}/frame.ppm"),
        lambda: read_table(Path(f"{NOBODY}/poses.csv"), ("x",)),
        lambda: is_recording(f"{NOBODY}/drive.mp4") or files_below(f"{NOBODY}/", ""),
        lambda: load_board(f"{NOBODY}/board.toml"),
    ],
)
def test_the_home_of_somebody_who_is_not_there_is_no_traceback(taken: Callable[[], Any]) -> None:
    try:
        taken()
    except TatvprError as error:
        assert NOBODY in str(error)


def test_a_user_without_a_home_runs_and_keeps_nothing(
    tiny_host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number that no list of users has, in a container: `Localizer` ended with a traceback."""
    monkeypatch.delenv("HOME")
    for name in ("XDG_CACHE_HOME", "TATVPR_EDGE_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    assert cache_folder("kernels") == Path("/nonexistent/tatvpr-edge/kernels")
    with Localizer(tiny_host, kernels="portable") as localizer:
        assert localizer.describe(np.zeros((8, 8, 3), np.uint8)).shape
    with pytest.raises(ArtifactError, match="there is no artifact on this machine"):
        Localizer()


def test_a_home_of_another_users_holds_nothing(
    tiny_host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HOME=/root of a user who is not root, as in a container: PermissionError, and no remedy."""
    cache, root = tmp_path / "cache", tmp_path / "root"
    for folder in (cache, root):
        folder.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("TATVPR_EDGE_ROOT", str(tmp_path / "none"))
    with Localizer(tiny_host) as localizer, as_other_user(cache, root):
        with pytest.raises(ArtifactError, match="there is no artifact on this machine"):
            Localizer()
        with pytest.raises(MapError, match="Permission denied"):
            MapWriter(root / "new.placemap", localizer)
        with pytest.raises(DataError, match=r"no such file|Permission denied"):  # as root: above it
            runtime.stream(root)
        monkeypatch.setenv("TATVPR_EDGE_ROOT", str(root))
        with pytest.raises(SignatureError, match="let this user read it, or set TATVPR_EDGE_ROOT"):
            Localizer(tiny_host)


def commands(of: click.Group, context: click.Context) -> Iterator[click.Command]:
    """Every command below a group."""
    for name in of.list_commands(context):
        found = of.get_command(context, name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from commands(found, context)
        else:
            yield found


def test_no_path_of_any_command_is_taken_as_it_stands() -> None:
    plain = [
        f"{command.name} {parameter.name}"
        for command in commands(group, click.Context(group))
        for parameter in command.params
        if isinstance(parameter.type, click.Path) and not isinstance(parameter.type, FilePath)
    ]
    assert plain == []


def test_a_place_map_among_frames_is_called_one(tatvpr: Run, home: Path, tiny_host: Path) -> None:
    """``evaluate MAP QUERIES`` takes the frames of a map, and reads as if it took the map."""
    words = ("describe", home / "floor.placemap", "-o", "rows.npy", "--artifact", tiny_host)
    told = tatvpr(*words, status=1).stderr
    assert "floor.placemap is a place map: give the frames that it was made of" in told
