"""`tatvpr-edge train --config FILE`: distil and train a model; continues a run that was killed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

import tatvpr_edge
from tatvpr_edge.cli.output import json_option, note, print_json, say
from tatvpr_edge.cli.paths import FilePath

if TYPE_CHECKING:
    from tatvpr_edge.models.train.loop import Progress


#: Seconds between two lines of progress.
_EVERY_S = 5.0
#: Training files that are shipped, in a clone and in an installed package.
RECIPES = Path(tatvpr_edge.__file__).parent / "models" / "train" / "recipes"


@click.command("train")
@click.option(
    "--config",
    "path",
    required=True,
    type=FilePath(path_type=Path),
    help="Training file (TOML); docs/training-keys.md explains every key.",
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Change one key; repeatable.",
)
@click.option(
    "--stop-after", type=click.IntRange(min=1), help="Leave with a checkpoint after so many steps."
)
@json_option
def command(path: Path, changes: tuple[str, ...], stop_after: int | None, as_json: bool) -> None:
    """Train a model as FILE says; the same command continues a run that was stopped.

    On several processes: torchrun --nproc-per-node N -m tatvpr_edge train --config FILE
    """
    from tatvpr_edge.models.train.distributed import rank
    from tatvpr_edge.models.train.plot import plot_curves
    from tatvpr_edge.models.train.run import train
    from tatvpr_edge.models.train.training_file import read_config, with_changes
    from tatvpr_edge.spec.errors import DataError

    if not path.exists():
        raise DataError(f"{path}: no such file; the shipped ones lie in {RECIPES}")
    config = with_changes(read_config(path), changes)
    watch = Watch()
    weights = train(config, None if as_json else watch.step, stop_after)
    if rank():
        return
    curves = Path(config.run.output) / "curves.csv"
    picture = plot_curves(curves) if curves.is_file() else None
    if as_json:
        print_json(
            {
                "finished": weights is not None,
                "weights": str(weights) if weights else None,
                "curves": str(curves),
                "picture": str(picture) if picture else None,
            }
        )
    elif weights is None:
        say("stopped; the same command continues")
    else:
        say(str(weights))


class Watch:
    """One line every few seconds: stage, step, loss, speed, time left."""

    def __init__(self) -> None:
        self._stage, self._began, self._shown, self._first = "", 0.0, 0.0, 0

    def step(self, done: Progress) -> None:
        """After every step."""
        now = time.monotonic()
        if done.stage != self._stage:
            self._stage, self._began, self._first = done.stage, now, done.step
        if now - self._shown < _EVERY_S and done.step < done.steps:
            return
        self._shown = now
        each = (now - self._began) / max(1, done.step - self._first)
        left = each * (done.steps - done.step)
        parts = ", ".join(f"{name} {value:.4f}" for name, value in done.parts.items())
        note(
            f"{done.stage} {done.step}/{done.steps}  {parts}  "
            f"{done.images_per_s:.0f} frames/s  {left / 60:.0f} min left"
        )
