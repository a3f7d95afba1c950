"""Which artifact and map ``Localizer()`` takes when it is given none."""

from __future__ import annotations

import os
from pathlib import Path

from tatvpr_edge.runtime.cache import host_artifact
from tatvpr_edge.runtime.deployed import live_release
from tatvpr_edge.runtime.placemap import PlaceMap
from tatvpr_edge.runtime.signature import artifact_verifier
from tatvpr_edge.runtime.start import open_live
from tatvpr_edge.spec.artifact import Artifact, read_artifact
from tatvpr_edge.spec.errors import ArtifactError, MapError


def embedded_folder() -> Path:
    """Where platform wheels carry a compiled ``artifact`` and a ``demo.placemap``."""
    return Path(__file__).parent / "embedded"


def demo_map() -> Path:
    """The map of the rendered places of ``tatvpr-edge demo``, which platform wheels carry. It is
    taken on request only, ``Localizer(map=demo_map())``: its positions are those of a game.

    Raises:
        MapError: this installation carries none.
    """
    path = embedded_folder() / "demo.placemap"
    if not path.is_file():
        raise MapError(
            "this installation carries no demo map: run 'tatvpr-edge demo', or give a map"
        )
    return path


def open_default() -> tuple[Artifact, Path | PlaceMap | None]:
    """:func:`default_artifact`, checked and read; of a deployed release everything is checked, and
    where it is damaged the one before it is taken.

    Raises:
        ArtifactError, SignatureError: by name of the fault.
    """
    started = open_live()
    if started is not None:
        return started.artifact, started.map
    path, place_map = default_artifact()
    return read_artifact(path, verify_signature=artifact_verifier()), place_map


def default_artifact() -> tuple[Path, Path | None]:
    """(artifact, map or None): the deployed release, else the one built for this host, else the
    one inside our wheel.

    Raises:
        ArtifactError: there is none; the text names the command.
    """
    live = live_release()
    if live is not None:
        return live.artifact, live.map
    if os.path.isdir(host_artifact()):  # False also where HOME is another user's
        return host_artifact(), None
    if (embedded_folder() / "artifact").is_dir():
        return embedded_folder() / "artifact", None
    raise ArtifactError(
        "there is no artifact on this machine: run 'tatvpr-edge build --board host', deploy one, "
        "or give --artifact PATH (in Python: artifact=PATH)"
    )
