"""A ``Localizer`` on this machine, also for an artifact that another board will run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tatvpr_edge.cli.output import BuildProgress, note

if TYPE_CHECKING:
    from tatvpr_edge.runtime import Localizer


def open_localizer(artifact: str | None, quiet: bool = False) -> Localizer:
    """The localizer of ``artifact`` (None: this machine's own). For a board's artifact the host
    build of the same model runs, made on the way where there is none: it computes the same bytes.

    Raises:
        TatvprError: as ``Localizer`` and as a build.
    """
    from tatvpr_edge.runtime import Localizer
    from tatvpr_edge.runtime.engine import runs_here
    from tatvpr_edge.spec.artifact import read_artifact

    if artifact is None:
        return Localizer()
    found = read_artifact(artifact)
    if runs_here(found):
        return Localizer(artifact)
    from tatvpr_edge.compilers.twin import host_twin

    note(
        f"{artifact} is for {found.manifest.board}; this machine describes with its own build of "
        "the same model",
        quiet,
    )
    with BuildProgress(quiet) as progress:
        return Localizer(host_twin(found, progress))
