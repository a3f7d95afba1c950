"""Places that a board added to its map outlive the release in which it added them.

Runs on the board as part of the agent (standard library only). Added places lie in a journal beside
the map, which no list of files names. A release with the same map, byte for byte, takes it over.
"""

from __future__ import annotations

import os
from dataclasses import replace

from tatvpr_edge.runtime import deployed
from tatvpr_edge.runtime.table import Row
from tatvpr_edge.runtime.whole import hash_file, plain, read
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


#: Of the files of a map; see :func:`state_of`.
State = tuple[tuple[int, int, int] | None, ...]


def state_of(store: Store, name: str) -> State:
    """Of the release ``name``: another one once its map or the journal was written."""
    state: list[tuple[int, int, int] | None] = []
    for file in (deployed.MAP, JOURNAL):
        try:
            found = os.lstat(os.path.join(store.release(name), file))
            state.append((found.st_ino, found.st_size, found.st_mtime_ns))
        except FileNotFoundError:
            state.append(None)
    return tuple(state)


def carry_journal(
    store: Store, live: str, name: str, kept: bool = False
) -> tuple[State | None, str | None]:
    """Copy the journal of the release ``live`` to ``name``, when both have the same map.

    Returns:
        The state of ``live``'s map, all of which ``name`` has now; None where it has not. And a
        warning when ``name`` has places of its own, which stay, or another map than the one that
        the board added to or wrote anew; else None.

    Args:
        kept: ``name`` was made to keep the map of ``live``.

    Raises:
        DeployError: with ``kept``, the board wrote its map anew since; the journal cannot be read.
        OSError: the disk is full.
    """
    state = state_of(store, live)
    try:
        before, after = map_as_it_lies(store, live), map_as_it_lies(store, name)
    except DeployError as error:
        if kept:
            raise
        return None, f"the places that the board added to its map stay in {live}: {error}"
    if before != after and kept:
        raise DeployError(
            "the board wrote its map anew (compacted, pruned or calibrated it) after the release "
            "was made, which keeps the map as it was: deploy again"
        )
    if before is None or after is None:
        return None, None
    if before != after:  # a journal goes with the very file that it was begun for
        return None, _left_behind(store, live, name, before)
    warning = _copy_journal(store, live, name)
    return (state if warning is None else None), warning


def _left_behind(store: Store, live: str, name: str, before: Row) -> str | None:
    sent, wanted = store.table(live), store.table(name)
    if sent is None or wanted is None:
        return None
    added = os.path.isfile(os.path.join(store.release(live), JOURNAL))
    if before in (sent.map, wanted.map) and not added:
        return None
    return (
        f"the map in {name} is not the one that the board added to, compacted, pruned or "
        f"calibrated in {live}: what it did there stays there; {_to_keep(store, live)}"
    )


def _to_keep(store: Store, live: str) -> str:
    return (
        f"to keep it, copy {deployed.MAP} and, if it is there, {JOURNAL} from "
        f"{store.release(live)} and deploy with --map"
    )


def changed_since(store: Store, live: str, carried: State) -> str | None:
    """A warning where the board wrote the map of ``live`` after it was ``carried``; else None."""
    if state_of(store, live) == carried:
        return None
    return (
        f"the board added to its map in {live}, or wrote it anew, while its programs were "
        f"restarted: that stays there; {_to_keep(store, live)}"
    )


def _copy_journal(store: Store, live: str, name: str) -> str | None:
    """To the same map; a warning where ``name`` has places of its own."""
    source = os.path.join(store.release(live), JOURNAL)
    target = os.path.join(store.release(name), JOURNAL)
    if not os.path.isfile(source):
        return None
    if os.path.lexists(target):
        if _begins_with(target, source):
            return None
        if not _begins_with(source, target):
            return f"{name} keeps the places that the board added to its map there, not {live}'s"
    temporary = target + ".new"
    store.discard(temporary)
    try:
        store.copy(source, temporary)
        store.disk.sync_file(temporary)
        store.disk.rename(temporary, target)
    except (DeployError, OSError):
        store.discard(temporary)  # half of it is worth less than its room
        raise
    store.disk.sync_folder(store.release(name))
    return None


def _begins_with(path: str, beginning: str) -> bool:
    """Whether the file ``path`` begins with all of the file ``beginning``."""
    with plain(path) as whole, plain(beginning) as part:
        while chunk := read(part, JOURNAL):
            if os.read(whole, len(chunk)) != chunk:
                return False
    return True
