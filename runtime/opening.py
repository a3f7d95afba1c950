"""An artifact opened to be run: read, and its code and weights loaded, in one go or once more.

In: the folder that a user named, or the default rule. Out: what was opened and where from. Called
by ``Localizer``. A build may put another artifact in the folder's place between two files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tatvpr_edge.runtime.backends import Backend
from tatvpr_edge.runtime.default import open_default
from tatvpr_edge.runtime.fresh import Origin
from tatvpr_edge.runtime.placemap import PlaceMap
from tatvpr_edge.runtime.signature import artifact_verifier
from tatvpr_edge.spec.artifact import Artifact, once_more, read_artifact


@dataclass(frozen=True)
class Opened:
    """All of one artifact. ``map``: of a deployed release; None where there is none."""

    origin: Origin
    artifact: Artifact
    map: Path | PlaceMap | None
    backend: Backend


def open_to_run(named: Path | None, backend_of: Callable[[Artifact], Backend]) -> Opened:
    """The artifact in the folder ``named`` (None: what ``open_default`` finds), and its backend.

    Raises:
        ArtifactError, SignatureError: by name of the fault.
        TatvprError: from ``backend_of``.
    """

    def opened() -> Opened:
        origin = Origin.of(named)
        if named is None:
            artifact, place_map = open_default()
        else:
            artifact = read_artifact(named, verify_signature=artifact_verifier())
            place_map = None
        return Opened(origin, artifact, place_map, backend_of(artifact))

    return once_more(partial(Origin.of, named), opened)
