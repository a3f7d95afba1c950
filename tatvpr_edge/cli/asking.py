"""Options of commands that ask a map, and the Localizer that they describe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from tatvpr_edge.cli import words
from tatvpr_edge.cli.gathered import Command, gathered
from tatvpr_edge.cli.output import K_OR_AUTO, TOKENS
from tatvpr_edge.cli.paths import FilePath

if TYPE_CHECKING:
    from tatvpr_edge.runtime import Localizer


@dataclass(frozen=True)
class Asking:
    """What asks, as the options say; see :class:`tatvpr_edge.runtime.Localizer`."""

    artifact: str | None
    map_path: str | None
    k: float | str | None
    tokens: float | None
    budget: str | None
    preset: str | None

    def __post_init__(self) -> None:
        if self.k != "auto" and (self.budget or self.preset):
            raise click.UsageError("--budget and --preset belong to --k auto")

    def opened(self, **others: Any) -> Localizer:
        """The Localizer, which has a map; ``others`` are arguments of its own.

        Raises:
            MapError: there is no map.
        """
        from tatvpr_edge.runtime import Localizer
        from tatvpr_edge.spec.errors import MapError

        localizer = Localizer(
            self.artifact,
            self.map_path,
            self.k,
            self.tokens,
            budget=self.budget,
            preset=self.preset,
            **others,
        )
        if localizer.map is None:
            localizer.close()
            raise MapError("there is no map to search: give --map, made by 'tatvpr-edge map build'")
        return localizer


_OPTIONS = (
    click.option(
        "--artifact",
        type=FilePath(),
        shell_complete=words.artifacts,
        help="Artifact to run (default: what this machine has).",
    ),
    click.option(
        "--map",
        "map_path",
        type=FilePath(),
        shell_complete=words.maps,
        help="Place map (default: the deployed one's).",
    ),
    click.option("--k", type=K_OR_AUTO, help="Fraction kept (default: the artifact's)."),
    click.option("--tokens", type=TOKENS, help="Patch tokens kept (default: the artifact's)."),
    click.option("--budget", help="With --k auto: 5W, 0.2J, 40ms, 70C or battery:2h."),
    click.option("--preset", help="With --k auto: turbo or battery-saver."),
)


def asking_options(command: Command) -> Command:
    """Options that say what asks which map: the command gets ``asking``."""
    parts = ("artifact", "map_path", "k", "tokens", "budget", "preset")
    return gathered(command, _OPTIONS, "asking", parts, Asking)
