"""``tatvpr-edge query FRAME...``: where is this?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tatvpr_edge.cli.asking import Asking, asking_options
from tatvpr_edge.cli.output import (
    json_option,
    note,
    print_json,
    print_table,
    progress,
    say,
)
from tatvpr_edge.cli.paths import FilePath
from tatvpr_edge.cli.recordings import recording_options

if TYPE_CHECKING:
    from tatvpr_edge.mapping import Picking
    from tatvpr_edge.runtime import Localizer, Match


@click.command("query")
@click.argument("frames", nargs=-1, required=True, metavar="FRAME...", type=FilePath())
@asking_options
@click.option("--top", type=click.IntRange(1), default=1, show_default=True, help="Candidates.")
@click.option(
    "--sequence",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Frames that an answer rests on: the FRAMEs are then one camera's, in order, and each "
    "folder, bag or video begins anew.",
)
@click.option("--backend", help="cpu or tensorrt (default: the best that runs here).")
@recording_options
@json_option
def command(
    frames: tuple[str, ...],
    asking: Asking,
    top: int,
    sequence: int,
    backend: str | None,
    picking: Picking | None,
    as_json: bool,
) -> None:
    """Where was each FRAME taken? A FRAME is an image file, a folder of them, a ROS bag or a
    video."""
    from tatvpr_edge.mapping import frames_of
    from tatvpr_edge.spec.errors import DataError, FrameError

    given = [frames_of(name, picking) for name in frames]
    count = sum(map(len, given))
    with asking.opened(backend=backend, sequence=sequence) as localizer:
        answers = []
        tracker = localizer.track() if sequence > 1 else None
        with progress("queries", count, quiet=as_json or count < 10) as step:
            for files, before in zip(given, [[], *given], strict=False):
                if tracker is not None and max(len(files), len(before)) > 1:
                    tracker.restart()
                for file in files:
                    try:
                        match = localizer.query(file.read(), top=top, tracker=tracker)
                    except FrameError as error:
                        raise DataError(f"{file.path}: {error}") from None
                    answers.append((str(file.path), match))
                    step(1)
        if as_json:
            print_json([_document(name, match) for name, match in answers])
            return
        _print(answers, localizer)


def _document(name: str, match: Match) -> dict[str, Any]:
    return {"frame": name, **match.plain()}


def _print(found: list[tuple[str, Match]], localizer: Localizer) -> None:
    from tatvpr_edge.runtime import answers

    columns, rows = answers.table(found)
    print_table(columns, rows, right=answers.RIGHT)
    for line in answers.reasons(found):
        note(line)
    if localizer.k == "auto" and localizer.governor is not None:
        say(localizer.governor.why())
