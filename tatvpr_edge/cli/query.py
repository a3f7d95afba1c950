"""``tatvpr-edge query FRAME...``: where is this?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tatvpr_edge.cli.asking import Asking, asking_options
from tatvpr_edge.cli.output import (
    json_option,
    note,
    note_left_out,
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
    type=click.IntRange(1, 1000),
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
    video. What cannot be read of several frames is named and left out."""
    from tatvpr_edge.mapping import Skipped, frames_of
    from tatvpr_edge.spec.errors import DataError, FrameError

    given = [frames_of(name, picking) for name in frames]
    count = sum(map(len, given))
    with asking.opened(backend=backend, sequence=sequence) as localizer:
        answers: list[tuple[str, Match]] = []
        skipped: list[Skipped] = []
        tracker = localizer.track() if sequence > 1 else None
        with progress("queries", count, quiet=as_json or count < 10) as step:
            for files, before in zip(given, [[], *given], strict=False):
                if tracker is not None and max(len(files), len(before)) > 1:
                    tracker.restart()
                for file in files:
                    try:
                        match = localizer.query(file.read(), top=top, tracker=tracker)
                        answers.append((str(file.path), match))
                    except (DataError, FrameError) as error:
                        why = f"{file.path}: {error}" if isinstance(error, FrameError) else error
                        if count == 1:
                            raise DataError(str(why)) from None
                        skipped.append(Skipped(file.name, str(why)))
                    step(1)
        if skipped and not answers:
            raise DataError(f"not one of {count} frames can be used: {skipped[0].reason}")
        if as_json:
            for frame in skipped:
                note(f"left out: {frame.reason}")
            print_json([{"frame": name, **match.plain()} for name, match in answers])
            return
        note_left_out(skipped, count)
        _print(answers, localizer)


def _print(found: list[tuple[str, Match]], localizer: Localizer) -> None:
    from tatvpr_edge.runtime import answers

    columns, rows = answers.table(found)
    print_table(columns, rows, right=answers.RIGHT)
    for line in answers.reasons(found):
        note(line)
    if localizer.k == "auto" and localizer.governor is not None:
        say(localizer.governor.why())
