"""Places that a board added to its map outlive the release in which it added them.

Runs on the board as part of the agent (standard library only). Added places lie in a journal beside
the map, which no list of files names. A release with the same map, byte for byte, takes it over.
"""

from __future__ import annotations

import os

from tatvpr_edge.runtime import deployed
from tatvpr_edge.runtime.whole import CHUNK, check_file, plain
from tatvpr_edge.spec.errors import DeployError

from .store import Store

JOURNAL = deployed.MAP + ".journal"


def carry_journal(store: Store, live: str, name: str) -> str | None:
    """Copy the journal of the release ``live`` to ``name``, when both have the same map. Returns a
    warning when ``name`` has places of its own, which stay, or the board wrote one of the two maps
    anew; else None.

    Raises:
        OSError: the disk is full, or a file cannot be read.
    """
    before, after = store.table(live), store.table(name)
    if before is None or after is None or before.map is None or before.map != after.map:
        return None
    for release in (live, name):
        try:
            check_file(os.path.join(store.release(release), deployed.MAP), before.map, store.tick)
        except DeployError:  # a journal goes with the very file that it was begun for
            return (
                f"the map in {release} is not as it was sent (the board compacted, pruned or "
                f"calibrated it): what the board added in {live} stays there; to keep it, copy "
                f"{deployed.MAP} and, if it is there, {JOURNAL} from {store.release(live)} and "
                "deploy with --map"
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
