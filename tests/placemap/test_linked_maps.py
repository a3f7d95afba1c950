"""A map that is opened through a link is the map that the link leads to, whoever writes to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tatvpr_edge.cli import main
from tatvpr_edge.runtime import PlaceMap
from tatvpr_edge.runtime.mapjournal import append, create_map, journal_path, rewrite
from tatvpr_edge.spec.errors import MapError
from tatvpr_edge.spec.mapfiles import writing
from tatvpr_edge.spec.placemap import Band, MapInfo, Places, write_map

INFO = MapInfo("ab" * 32, "int8", 16, (Band(1.0),))


@pytest.fixture
def map_path(tmp_path: Path, some: Callable[..., Places]) -> Path:
    """A map of three places."""
    (tmp_path / "maps").mkdir()
    write_map(tmp_path / "maps" / "monday.placemap", INFO, [some(INFO, 3)])
    return tmp_path / "maps" / "monday.placemap"


@pytest.fixture
def link(map_path: Path, tmp_path: Path) -> Path:
    """A relative link to a link to it, in a folder of its own."""
    (tmp_path / "robot").mkdir()
    (map_path.parent / "newest.placemap").symlink_to(map_path.name)
    place = tmp_path / "robot" / "floor.placemap"
    place.symlink_to("../maps/newest.placemap")
    return place


def test_what_is_added_through_a_link_is_found_by_the_maps_name(
    map_path: Path, link: Path, some: Callable[..., Places]
) -> None:
    append(link, some(INFO, 2))
    assert len(PlaceMap(map_path)) == len(PlaceMap(link)) == 5
    append(map_path, some(INFO, 1))
    assert len(PlaceMap(map_path)) == len(PlaceMap(link)) == 6
    assert os.listdir(link.parent) == [link.name]


@pytest.mark.parametrize("command", [("compact",), ("prune", "--max-places", "5")])
def test_a_map_that_is_rewritten_through_a_link_stays_where_it_is(
    map_path: Path, link: Path, some: Callable[..., Places], command: tuple[str, ...]
) -> None:
    append(link, some(INFO, 2))
    assert main(["map", command[0], str(link), *command[1:]]) == 0
    assert link.is_symlink() and not map_path.is_symlink()
    assert len(PlaceMap(map_path)) == len(PlaceMap(link)) == 5
    assert sorted(os.listdir(map_path.parent)) == ["monday.placemap", "newest.placemap"]


def test_what_an_older_release_kept_beside_the_link_is_told(
    map_path: Path,
    link: Path,
    some: Callable[..., Places],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It was found no more, without a word."""
    append(map_path, some(INFO, 2))
    beside = Path(f"{link}.journal")
    journal_path(map_path).rename(beside)  # where a release of before kept it
    assert len(PlaceMap(link)) == 3
    assert f"is not searched: move it to {journal_path(map_path)}" in caplog.messages[-1]
    append(link, some(INFO, 1))
    assert len(PlaceMap(link)) == 4 and "'tatvpr-edge map merge' both" in caplog.messages[-1]
    told = len(caplog.messages)
    beside.rename(journal_path(map_path))
    assert len(PlaceMap(link)) == 5 and len(caplog.messages) == told


def test_writers_by_either_name_take_turns(
    map_path: Path, link: Path, some: Callable[..., Places], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tatvpr_edge.spec.mapfiles.LOCK_WAIT_S", 0.05)
    with writing(link), pytest.raises(MapError, match="is held by"):
        append(map_path, some(INFO, 1))
    with writing(map_path), pytest.raises(MapError, match="is held by"):
        append(link, some(INFO, 1))


def test_a_link_that_leads_nowhere_yet_is_where_a_new_map_goes(
    tmp_path: Path, some: Callable[..., Places]
) -> None:
    (tmp_path / "floor.placemap").symlink_to("tuesday.placemap")
    create_map(tmp_path / "floor.placemap", INFO)
    append(tmp_path / "floor.placemap", some(INFO, 2))
    assert (tmp_path / "floor.placemap").is_symlink()
    assert len(PlaceMap(tmp_path / "tuesday.placemap")) == 2


def test_links_in_a_circle_are_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "a.placemap").symlink_to("b.placemap")
    (tmp_path / "b.placemap").symlink_to("a.placemap")
    for name in ("a", "b"):
        with pytest.raises(MapError, match="Too many levels of symbolic links"):
            PlaceMap(tmp_path / f"{name}.placemap")
    with pytest.raises(MapError, match="Too many levels of symbolic links"):
        rewrite(tmp_path / "a.placemap", lambda stored: (stored.base.info, []))
