"""Starting a deployed release: checked as a whole, and the one before it where it is damaged.

In: an install root. Out: the artifact as read, its map, or one error. Called by ``Localizer()``,
and so by ``serve``. One flipped bit on a board's disk does not end the robot while a whole release
lies beside the damaged one: the release recorded as previous is started instead, even below the
lowest serial (it was installed here), never one that trust refuses, and never while a deploy still
watches the new one. Each is tried once; ``status`` shows what came of it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from tatvpr_edge.runtime.mapjournal import read_map
from tatvpr_edge.runtime.placemap import PlaceMap
from tatvpr_edge.spec.artifact import Artifact, read_artifact
from tatvpr_edge.spec.atomic import replacing
from tatvpr_edge.spec.errors import ArtifactError, DeployError, MapError, TatvprError
from tatvpr_edge.spec.shortage import is_passing

from . import deployed, trust, whole
from .deployed import Deployed
from .launch import listed
from .signature import artifact_verifier
from .table import Table
from .trust import Trust

_log = logging.getLogger("tatvpr_edge")


@dataclass(frozen=True)
class Started:
    """A release that was checked. ``map``: where signatures are enforced, the very bytes that were
    signed."""

    artifact: Artifact
    map: Path | PlaceMap | None


def open_live(root: str | Path | None = None) -> Started | None:
    """The live release below ``root``, or the one before it; None where nothing is deployed.

    Raises:
        ArtifactError, SignatureError: it is damaged or not trusted, and so is the one before it.
    """
    place = deployed.install_root(root)
    live = deployed.live_release(place)
    if live is None:
        return None
    try:
        started = _open(live, place)
    except TatvprError as error:
        if is_passing(error):
            raise  # nothing is damaged: what lies beside it would start no better, or be older
        fault = error
    else:
        _record(place, None)
        return started
    before = deployed.fallback(place, live)
    if before is None:
        raise fault
    try:
        started = _open(before, place)
    except TatvprError as error:
        raise type(fault)(f"{fault}; nor does the release before it start: {error}") from None
    _log.warning("%s; %s is started instead", fault, before.folder.name)
    _record(place, {"live": live.folder.name, "runs": before.folder.name, "why": str(fault)})
    return started


def _open(release: Deployed, root: Path) -> Started:
    """Every byte of ``release``: the artifact's by its reader, the others by the release's list.
    Where nothing is enforced a board may have rewritten its own map (pruned, folded, calibrated):
    that is whole if its reader says so."""
    folder, trusted = os.fspath(release.folder), trust.find(root)
    verify = artifact_verifier(root)
    try:
        table = _table(folder, trusted)
        if table is not None:
            whole.check_files(
                folder,
                table,
                skip=lambda path: path.startswith(deployed.ARTIFACT + "/") or path == deployed.MAP,
                bytecode=verify is None,
            )
        place_map = _map(release.map, None if verify is None else table)
    except (DeployError, MapError) as error:
        raise ArtifactError(f"release {release.folder.name} is damaged: {error}") from None
    except OSError as error:
        raise ArtifactError(f"release {folder} cannot be read: {error.strerror}") from None
    return Started(read_artifact(release.artifact, verify_signature=verify), place_map)


def _map(path: Path | None, table: Table | None) -> Path | PlaceMap | None:
    """The map at ``path``, which is whole; where ``table`` is the list that was signed, as it says.

    Raises:
        MapError: it is damaged, or not what was signed.
    """
    listed_as = [row for row in table.rows if row.path == deployed.MAP] if table else []
    if path is None:
        if listed_as:
            raise MapError(f"{deployed.MAP} is missing")
        return None
    if listed_as:
        return PlaceMap(path, sha256=listed_as[0].sha256)
    read_map(path)
    return path


def _table(folder: str, trusted: Trust | None) -> Table | None:
    """The list of the release in ``folder``, read once, and signed where that is enforced. Where it
    is not, the artifact is whole without its release's list, which is None if it is damaged."""
    try:
        return listed(folder, trusted)
    except DeployError:
        if trusted is not None:
            raise
        return None


def _record(root: Path, entry: dict[str, str] | None) -> None:
    """Say (or no longer say) on the disk that another release than the live one was started. Best
    effort: a program may run as a user who may not write there."""
    path = root / deployed.FALLBACK
    with contextlib.suppress(OSError):
        if entry is None:
            path.unlink()
        elif deployed.read_json(path) != entry:
            with replacing(path) as sink:
                sink.write((json.dumps(entry) + "\n").encode("ascii"))
