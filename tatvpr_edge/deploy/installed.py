"""What is installed on a board, for ``status``: reads, never changes, takes no lock.

Runs on the board as part of the agent (standard library only).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from tatvpr_edge.runtime import deployed, signature, signed_release, whole
from tatvpr_edge.runtime.trust import Trust
from tatvpr_edge.spec.artifact import read_manifest, read_signed
from tatvpr_edge.spec.errors import ArtifactError, DeployError, SignatureError, TatvprError

from . import service
from .kept import map_as_it_lies
from .keyring import Keyring
from .store import Store
from .switch import Switch

#: What an installer leaves beside the package.
_OURS = re.compile(r"tatvpr_edge-([0-9][^-]*)(-.*)?\.(dist|egg)-info", re.IGNORECASE)


def has(package: str) -> bool:
    """Whether this Python would find a package, which is not imported for it."""
    finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
    return any(finder.find_spec(package, None) is not None for finder in finders)


def version_here() -> str | None:
    """The version of tatvpr-edge that this Python has; None: it has none.

    Read from names of folders: ``importlib.metadata`` takes a tenth of the agent's whole start.
    """
    for place in sys.path:
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(place)):
                if known := _OURS.fullmatch(name):
                    return known[1]
    return None


def live(store: Store, switch: Switch) -> dict[str, Any] | None:
    """The live release's name, model and map, for a deploy that keeps its map; None without one.

    The map is the file that lies there, which the board may have written anew since it was sent
    (``rewritten``). Never an error: a deploy says by itself what is wrong with a board, but for why
    the map cannot be kept (``fault``).
    """
    try:
        name = switch.live()
        folder = "" if name is None else store.release(name)
    except (TatvprError, OSError):
        return None
    finally:
        store.warnings.clear()
    if name is None:
        return None
    try:
        table = store.table(name)
        if table is None and os.path.lexists(os.path.join(folder, deployed.MAP)):
            raise DeployError(f"its {deployed.RELEASE} is damaged")
        if table is None or table.map is None:
            return None
        model = read_manifest(os.path.join(folder, deployed.ARTIFACT)).model.hash
        row = map_as_it_lies(store, name) or table.map
    except (TatvprError, OSError) as error:
        return {"release": name, "fault": str(error)}
    return {
        "release": name,
        "model_hash": model,
        "map": [row.path, row.bytes, row.sha256],
        "map_name": table.map_name,
        "rewritten": row != table.map,
    }


def stamp(store: Store, switch: Switch) -> dict[str, Any] | None:
    """What the live release's list says of its content and of its signing, so that a deploy that
    signs the same again is the same release; None without such a list. Never an error."""
    try:
        name = switch.live()
        table = store.table(name) if name is not None else None
    except (TatvprError, OSError):
        return None
    finally:
        store.warnings.clear()
    if table is None or table.stamp is None:
        return None
    return {"content": table.content, **dataclasses.asdict(table.stamp)}


def _signed(folder: str, trusted: Trust | None) -> dict[str, Any]:
    """Who signed a release: ``{by, artifact_by, fault, serial, expires, present}``. ``fault``: why
    it is not accepted; None where it is, or where nothing is enforced."""
    said: dict[str, Any] = {
        "by": None,
        "artifact_by": None,
        "fault": None,
        "serial": None,
        "expires": None,
        "present": False,
    }
    try:
        table, made = whole.read_table(folder), signed_release.read_signature(folder)
        said["present"] = made is not None
        if table.stamp is not None:
            said.update(serial=table.stamp.serial, expires=table.stamp.expires)
        if trusted is not None:
            said["by"] = signed_release.check_installed(folder, trusted)
            artifact = read_signed(os.path.join(folder, deployed.ARTIFACT))
            said["artifact_by"] = signature.check_trust(artifact, trusted)
    except (TatvprError, OSError) as error:
        said["fault"] = None if trusted is None else str(error)
    return said


def _fallback(store: Store) -> dict[str, str] | None:
    """What a program that was to start the live release, be it lost, started instead, and why."""
    live = deployed.live_release(store.root)
    said = deployed.read_json(Path(store.root) / deployed.FALLBACK)
    if live is None or said.get("live") != live.folder.name:
        return None
    return {name: str(said.get(name))[:500] for name in ("live", "runs", "why")}


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
            "fallback": None,
        }
        return {**nothing, **keyring.report()}
    state, live, previous = store.state(), switch.live(), switch.previous()
    try:
        trusted = keyring.trusted()
    except SignatureError:  # the report of the keys says why
        trusted = None
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
            release["map"] = None
            if table.map is not None:
                release["map"] = table.map_name or deployed.MAP
        with contextlib.suppress(ArtifactError):
            artifact = store.path(deployed.RELEASES, name, deployed.ARTIFACT)
            release["weights"] = read_manifest(artifact).model.weights
        release["signed"] = _signed(store.release(name), trusted)
        if check:
            release["fault"] = store.fault(name)
        releases.append(release)
    return {
        "root": store.root,
        "live": live,
        "previous": previous,
        "lost": switch.lost(),
        "unconfirmed": live is not None and (state["pending"] or {}).get("release") == live,
        "releases": releases,
        "fallback": _fallback(store),
        "lowest_serial": deployed.lowest_serial(Path(store.root)),
        "free_bytes": shutil.disk_usage(store.root).free,
        **keyring.report(),
        "service": service.state(store.root),
    }
