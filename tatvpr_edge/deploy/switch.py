"""The one step that matters: which release is live, and the way back.

Runs on the board as part of the agent (standard library only). The order is fixed, and every step
is on the medium before the next begins:

1. ``state.json`` says which switch is about to happen (``pending``);
2. the link for the way back (``current.back``) and the new link (``current.next``) are made, so
   that going back needs no free block on a full disk;
3. ``current.next`` is renamed to ``current``: the switch;
4. the health check runs;
5. good: the state records the new order, ``current.back`` goes. Bad: ``current.back`` is renamed to
   ``current``, the state records why.

Whoever dies between two steps leaves the old release or the new one live, both whole;
:meth:`Switch.unfinished` then tells the next deploy what to settle.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

from tatvpr_edge.runtime import deployed
from tatvpr_edge.spec.errors import DeployError

from .store import Store

#: Releases of which the order is remembered; one that failed is none of them.
HISTORY = 100
_TARGET = re.compile(re.escape(deployed.RELEASES) + r"/([^/]+)")


class Switch:
    """Which release of ``store`` is live."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.disk = store.disk
        self.current = store.path(deployed.CURRENT)
        self._back = self.current + ".back"
        self._next = self.current + ".next"

    def live(self) -> str | None:
        """The live release's name; None where ``current`` is missing or leads nowhere.

        Raises:
            DeployError: ``current`` is something that no deploy made; it is left alone.
        """
        try:
            status = os.lstat(self.current)
        except FileNotFoundError:
            return None
        if not stat.S_ISLNK(status.st_mode):
            raise DeployError(
                f"{self.current} on the board is a real file or folder, not the link that a deploy "
                "makes: move it away"
            )
        target = os.readlink(self.current)
        ours = _TARGET.fullmatch(target)
        if ours and os.path.isdir(self.current):
            return ours.group(1)
        if os.path.exists(self.current):
            raise DeployError(
                f"{self.current} on the board leads to {target!r}, which no deploy made: remove "
                "the link"
            )
        self.store.warnings.append(f"{self.current} led nowhere ({target!r}) and is replaced")
        return None

    def lost(self) -> str | None:
        """Where ``current`` leads where nothing is any more; None where that is not so."""
        dangles = os.path.islink(self.current) and not os.path.exists(self.current)
        return os.readlink(self.current) if dangles else None

    def begin(self, name: str) -> str | None:
        """Steps 1 to 3: make ``name`` live. Returns the release that was live before."""
        before = self.live()
        state = self.store.state()
        state["pending"] = {"release": name, "before": before}
        state["failed"].pop(name, None)
        self.store.write_state(state)
        self._drop_links()
        if before is not None:
            self.disk.symlink(f"{deployed.RELEASES}/{before}", self._back)
        self.disk.symlink(f"{deployed.RELEASES}/{name}", self._next)
        self.disk.sync_folder(self.store.root)
        self.disk.rename(self._next, self.current)
        self.disk.sync_folder(self.store.root)
        return before

    def confirm(self, name: str, serial: int, of_list: int) -> None:
        """Step 5, good: ``name`` stays live, and nothing below the serials of its artifact and of
        its list is accepted from now on (0: unsigned)."""
        state = self.store.state()
        if not state["history"] or state["history"][-1] != name:
            state["history"] = [*state["history"], name][-HISTORY:]
        state["pending"] = None
        state["floor"] = max(state["floor"], serial)
        state["release_floor"] = max(state["release_floor"], of_list)
        self.store.write_state(state)
        self._drop_links()

    def go_back(self, name: str, before: str | None, why: str) -> None:
        """Step 5, bad: ``before`` (or nothing) is live again, and the state records ``why``, where
        the disk has room for that."""
        if before is None:
            self.store.discard(self.current)
        else:
            if not os.path.lexists(self._back):
                self.disk.symlink(f"{deployed.RELEASES}/{before}", self._back)
            self.disk.rename(self._back, self.current)
        self.disk.sync_folder(self.store.root)
        state = self.store.state()
        state["pending"] = None
        state["failed"][name] = why[:500]
        state["history"] = [entry for entry in state["history"] if entry != name] + (
            [] if before is None or state["history"][-1:] == [before] else [before]
        )
        try:
            self.store.write_state(state)
        except OSError as error:  # the next deploy forgets the announcement
            self.store.warnings.append(f"why cannot be recorded on the board: {error.strerror}")

    def unfinished(self) -> tuple[str, str | None] | None:
        """A switch that was made and never confirmed: (new release, the one before).

        A switch that was announced and not made is forgotten here.
        """
        pending = self.store.state()["pending"]
        live = self.live()
        if pending is not None and live is not None and pending.get("release") == live:
            before = pending.get("before")
            usable = isinstance(before, str) and before in self.store.releases()
            return live, before if usable else None
        if pending is not None:
            state = self.store.state()
            state["pending"] = None
            self.store.write_state(state)
        self._drop_links()
        return None

    def raise_floors(self) -> None:
        """Accept nothing older than what is installed from now on."""
        state, root = self.store.state(), Path(self.store.root)
        floors = {
            "floor": deployed.lowest_serial(root),
            "release_floor": deployed.lowest_release(root),
        }
        if any(state[key] < floor for key, floor in floors.items()):
            self.store.write_state({**state, **floors})

    def previous(self) -> str | None:
        """The release that was live before the live one and is still installed."""
        return deployed.before(self.store.state(), self.live(), self.store.releases())

    def collect(self, keep: int, also: str | None = None) -> list[str]:
        """Remove all releases but the newest ``keep``, never the live one, the one before it, or
        ``also``. Returns what was removed. A release leaves ``releases`` by one rename, whole."""
        state, live = self.store.state(), self.live()
        kept = [name for name in (live, self.previous(), also) if name]
        if state["pending"] is not None:
            kept += [name for name in state["pending"].values() if name]
        installed = self.store.folders()
        for name in reversed(state["history"]):
            if len(set(kept)) < keep and name in installed:
                kept.append(name)
        removed = []
        for name in sorted(set(installed) - set(kept)):
            place = self.store.path(deployed.TRASH, name)
            self.store.discard(place)
            self.disk.rename(self.store.path(deployed.RELEASES, name), place)
            removed.append(name)
        self.empty_trash()
        if removed:
            self._forget(set(removed))
        return removed

    def empty_trash(self) -> None:
        """Remove what was taken out of ``releases``."""
        for name in os.listdir(self.store.path(deployed.TRASH)):
            self.store.discard(self.store.path(deployed.TRASH, name))

    def _forget(self, removed: set[str]) -> None:
        state: dict[str, Any] = self.store.state()
        state["history"] = [name for name in state["history"] if name not in removed]
        state["failed"] = {k: v for k, v in state["failed"].items() if k not in removed}
        self.store.write_state(state)

    def _drop_links(self) -> None:
        self.store.discard(self._back)
        self.store.discard(self._next)
