"""Places that a board added to its map outlive the release in which it added them.

Runs on the board as part of the agent (standard library only). Added places lie in a journal beside
the map, which no list of files names. A release with the same map, byte for byte, takes it over.
"""

from __future__ import annotations

import os
from dataclasses import replace

from tatvpr_edge.runtime import deployed
from tatvpr_edge.runtime.table import Row
from tatvpr_edge.runtime.whole import CHUNK, hash_file, plain
from tatvpr_edge.spec.errors import DeployError

from .store import Store

JOURNAL = deployed.MAP + ".journal"


def map_as_it_lies(store: Store, name: str) -> Row | None:
    """The map of the release ``name``, of which its list may not know: a board compacts, prunes and
    calibrates its own map. None without one.

    Raises:
        DeployError, OSError: it cannot be read, or is no plain file.
    """
    table = store.table(name)
    if table is None or table.map is None:
        return None
    path = os.path.join(store.release(name), deployed.MAP)
    size, digest = hash_file(path, store.tick, deployed.MAP)
    return replace(table.map, bytes=size, sha256=digest)


def carry_journal(store: Store, live: str, name: str) -> str | None:
    """Copy the journal of the release ``live`` to ``name``, when both have the same map. Returns a
    warning when ``name`` has places of its own, which stay, or the board wrote one of the two maps
    anew; else None.

    Raises:
        OSError: the disk is full, or a file cannot be read.
    """
    try:
        before, after = map_as_it_lies(store, live), map_as_it_lies(store, name)
    except DeployError:
        return None  # no map to carry anything to or from, as whoever reads it says
    if before is None or after is None:
        return None
    if before != after:  # a journal goes with the very file that it was begun for
        sent, wanted = store.table(live), store.table(name)
        if sent is None or wanted is None or sent.map != wanted.map:
            return None
        return (
            f"the map in {live if before != sent.map else name} is not as it was sent (the board "
            f"compacted, pruned or calibrated it): what the board added in {live} stays there; to "
            f"keep it, copy {deployed.MAP} and, if it is there, {JOURNAL} from "
            f"{store.release(live)} and deploy with --map"
        )
    source = os.path.join(store.release(live), JOURNAL)
    target = os.path.join(store.release(name), JOURNAL)
    if not os.path.isfile(source):
        return None
    if os.path.lexists(target):
        if not _begins_with(source, target):
            return f"{name} keeps the places that the board added to its map there, not {live}'s"
        if os.path.getsize(source) == os.path.getsize(target):
            return None
    temporary = target + ".new"
    store.discard(temporary)
    try:
        with plain(source) as descriptor:
            sink = store.disk.create(temporary)
            try:
                while chunk := os.read(descriptor, CHUNK):
                    store.disk.write(sink, chunk)
                    store.tick()
                store.disk.sync(sink)
            finally:
                store.disk.close(sink)
        store.disk.rename(temporary, target)
    except OSError:
        store.discard(temporary)  # half of it is worth less than its room
        raise
    store.disk.sync_folder(store.release(name))
    return None


def _begins_with(path: str, beginning: str) -> bool:
    """Whether the file ``path`` begins with all of the file ``beginning``."""
    with plain(path) as whole, plain(beginning) as part:
        while chunk := os.read(part, CHUNK):
            if os.read(whole, len(chunk)) != chunk:
                return False
    return True
