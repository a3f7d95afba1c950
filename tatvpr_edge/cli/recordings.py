"""Options of commands that take recordings: which frames, and where their poses are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tatvpr_edge.cli.gathered import Command, gathered
from tatvpr_edge.cli.output import Metres, Seconds

if TYPE_CHECKING:
    from tatvpr_edge.mapping import Picking


_OPTIONS = (
    click.option("--topic", help="Of a bag: the images' topic (default: the only one)."),
    click.option(
        "--poses-topic",
        help="Of a bag: Odometry, PoseStamped, PoseWithCovarianceStamped or NavSatFix.",
    ),
    click.option(
        "--distance",
        "distance_m",
        type=Metres(),
        help="Of a bag: a frame each so many metres (default with --poses-topic: 1m).",
    ),
    click.option(
        "--every",
        "every_s",
        type=Seconds(),
        help="Of a bag or video: a frame each so many seconds; 0: all (default: 0.5s).",
    ),
)


def recording_options(command: Command) -> Command:
    """Gives a command these options; it gets ``picking``, None where none was given."""
    return gathered(
        command, _OPTIONS, "picking", ("topic", "poses_topic", "distance_m", "every_s"), _picking
    )


def _picking(**given: Any) -> Picking | None:
    from tatvpr_edge.mapping import Picking

    return None if all(value is None for value in given.values()) else Picking(**given)
