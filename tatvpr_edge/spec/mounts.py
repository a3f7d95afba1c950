"""File systems from which nothing may be started."""

from __future__ import annotations

import os


def noexec_mount(path: str) -> str | None:
    """The mount point above ``path`` where that is mounted noexec; None: programs start there, or
    the path cannot be asked about."""
    place = os.path.realpath(path)
    try:
        if not os.statvfs(place).f_flag & os.ST_NOEXEC:
            return None
    except OSError:
        return None
    while not os.path.ismount(place) and place != os.path.dirname(place):
        place = os.path.dirname(place)
    return place
