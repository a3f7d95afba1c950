"""Which artifact and map ``Localizer()`` takes when it is given none."""

from __future__ import annotations

from pathlib import Path

from tatvpr_edge.runtime.deployed import live_release
from tatvpr_edge.spec.cache import host_artifact
from tatvpr_edge.spec.errors import ArtifactError


def embedded_folder() -> Path:
    """Where platform wheels carry a compiled ``artifact`` and a ``demo.placemap``."""
    return Path(__file__).parent / "embedded"


def default_artifact() -> tuple[Path, Path | None]:
    """(artifact, map or None): the deployed release, else the one built for this host, else the
    one inside our wheel.

    Raises:
        ArtifactError: there is none; the text names the command.
    """
    live = live_release()
    if live is not None:
        return live.artifact, live.map
    if host_artifact().is_dir():
        return host_artifact(), None
    inside = embedded_folder()
    if (inside / "artifact").is_dir():
        carried = inside / "demo.placemap"
        return inside / "artifact", carried if carried.is_file() else None
    raise ArtifactError(
        "there is no artifact on this machine: run 'tatvpr-edge build --board host', deploy one, "
        "or give artifact=PATH"
    )
