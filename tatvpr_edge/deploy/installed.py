"""What is installed on a board, for ``status``: reads, never changes, takes no lock.

Runs on the board as part of the agent (standard library only).
"""

from __future__ import annotations

import os
import shutil
from typing import Any

from tatvpr_edge.runtime import deployed

from . import service
from .keyring import Keyring
from .store import Store
from .switch import Switch


def report(store: Store, switch: Switch, keyring: Keyring, check: bool) -> dict[str, Any]:
    """Releases in the order in which they went live, keys, and what is left of the disk.

    ``check``: read and hash every byte; a release's ``fault`` says what is wrong with it, or None.
    """
    if not os.path.isdir(store.path(deployed.RELEASES)):
        nothing: dict[str, Any] = {
            "root": store.root,
            "live": None,
            "previous": None,
            "releases": [],
        }
        return {**nothing, **keyring.report()}
    state, live, previous = store.state(), switch.live(), switch.previous()
    order = {name: place for place, name in enumerate(state["history"])}
    releases = []
    for name in sorted(store.releases(), key=lambda name: order.get(name, -1)):
        release: dict[str, Any] = {
            "name": name,
            "live": name == live,
            "previous": name == previous,
            "failed": state["failed"].get(name),
        }
        table = store.table(name)
        if table is not None:
            release["bytes"] = table.total_bytes
            release["files"] = len(table.rows)
        if check:
            release["fault"] = store.fault(name)
        releases.append(release)
    return {
        "root": store.root,
        "live": live,
        "previous": previous,
        "unconfirmed": live is not None and (state["pending"] or {}).get("release") == live,
        "releases": releases,
        "lowest_serial": state["floor"],
        "free_bytes": shutil.disk_usage(store.root).free,
        **keyring.report(),
        "service": service.state(store.root),
    }
