"""Who may write to a map: one at a time, told by name; a private map stays private."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tatvpr_edge.runtime import PlaceMap
from tatvpr_edge.runtime.mapjournal import (
    append,
    compact,
    create_map,
    journal_path,
    read_map,
)
from tatvpr_edge.spec import mapfiles
from tatvpr_edge.spec.errors import MapError
from tatvpr_edge.spec.placemap import Places, read_base

Some = Callable[..., Places]


def test_a_private_map_stays_private(grown: Path, some: Some) -> None:
    compact(grown)
    grown.chmod(0o600)
    append(grown, some(read_base(grown).info, 1))
    assert journal_path(grown).stat().st_mode & 0o777 == 0o600
    compact(grown)
    assert grown.stat().st_mode & 0o777 == 0o600


def test_a_held_lock_is_waited_for_and_its_holder_named(
    grown: Path, some: Some, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapfiles, "LOCK_WAIT_S", 0.05)
    with mapfiles.writing(grown):
        assert mapfiles.lock_path(grown).stat().st_mode & 0o777 == 0o600
        for write in (
            lambda: append(grown, some(read_base(grown).info, 1)),
            lambda: compact(grown),
            lambda: create_map(grown, read_base(grown).info),
            lambda: PlaceMap(grown).prune(1),
        ):
            with pytest.raises(MapError, match=rf"held by .+ \(process {os.getpid()}\)"):
                write()
        assert len(read_map(grown)) == 6  # a reader waits for nobody
    append(grown, some(read_base(grown).info, 1))
    assert not mapfiles.lock_path(grown).exists()


# What Ctrl-C keeps from being closed closes itself, and warns.


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_leaves_no_lock_held(
    grown: Path, some: Some, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it came between the lock and its holder, the program, a notebook say, and every other
    one could not write to the map until that program ended."""
    monkeypatch.setattr(mapfiles, "LOCK_WAIT_S", 0.0)
    places, count, line = some(read_base(grown).info, 1), len(read_map(grown)), 0

    def interrupted(at: int) -> bool:
        seen = 0

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal seen
            if frame.f_code.co_filename == mapfiles.__file__ and event == "line":
                seen += 1
                if seen == at:
                    raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            append(grown, places)
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False

    while interrupted(line := line + 1):
        assert len(read_map(grown)) - count in (0, 1)
        append(grown, places)
        count = len(read_map(grown))
    assert line > 20


def test_another_users_lock_on_the_map_stops_nobody(grown: Path, some: Some) -> None:
    with open(grown, "rb") as held:  # what any user who may read the map can do
        fcntl.flock(held, fcntl.LOCK_EX)
        append(grown, some(read_base(grown).info, 1))
        assert len(read_map(grown)) == 7
