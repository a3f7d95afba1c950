"""A map that grew, written as one file."""

from __future__ import annotations

import re
from pathlib import Path

from tatvpr_edge.runtime import PlaceMap
from tatvpr_edge.runtime.mapjournal import check_free, compact, read_map
from tatvpr_edge.spec.errors import UsageError
from tatvpr_edge.spec.placemap import write_map


def saved(place_map: PlaceMap, name: str) -> Path:
    """Write the map and its journal as the file ``name`` beside it, or as itself where that is
    empty; the file.

    Raises:
        UsageError: ``name`` is no plain name of a map.
        MapError: it stands already, or cannot be written.
    """
    if not name:
        compact(place_map.path)
        return place_map.path
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}\.placemap", name):
        raise UsageError(
            f"{name!r} is no name for a map: letters, digits, _, - and ., ending in .placemap"
        )
    target = place_map.path.with_name(name)
    check_free(target, "give another name")
    stored = read_map(place_map.path)
    write_map(target, stored.base.info, [stored.base.places(), stored.added], new=True)
    return target
