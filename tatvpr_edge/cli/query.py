"""``tatvpr-edge query FRAME...``: where is this?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tatvpr_edge.cli import words
from tatvpr_edge.cli.output import (
    K_OR_AUTO,
    TOKENS,
    json_option,
    note,
    print_json,
    print_table,
    progress,
    say,
)
from tatvpr_edge.cli.recordings import recording_options

if TYPE_CHECKING:
    from tatvpr_edge.mapping import Picking
    from tatvpr_edge.runtime import Localizer, Match


@click.command("query")
@click.argument("frames", nargs=-1, required=True, metavar="FRAME...", type=click.Path())
@click.option(
    "--artifact",
    type=click.Path(),
    shell_complete=words.artifacts,
    help="Artifact to run (default: what this machine has).",
)
@click.option(
    "--map",
    "map_path",
    type=click.Path(),
    shell_complete=words.maps,
    help="Place map (default: the deployed one's).",
)
@click.option("--k", type=K_OR_AUTO, help="Fraction kept (default: the artifact's).")
@click.option("--tokens", type=TOKENS, help="Patch tokens kept (default: the artifact's).")
@click.option("--budget", help="With --k auto: 5W, 0.2J, 40ms, 70C or battery:2h.")
@click.option("--preset", help="With --k auto: turbo or battery-saver.")
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
    artifact: str | None,
    map_path: str | None,
    k: float | str | None,
    tokens: float | None,
    budget: str | None,
    preset: str | None,
    top: int,
    sequence: int,
    backend: str | None,
    picking: Picking | None,
    as_json: bool,
) -> None:
    """Where was each FRAME taken? A FRAME is an image file, a folder of them, a ROS bag or a
    video."""
    from tatvpr_edge.mapping import frames_of
    from tatvpr_edge.runtime import Localizer
    from tatvpr_edge.spec.errors import DataError, FrameError, MapError

    if k != "auto" and (budget or preset):
        raise click.UsageError("--budget and --preset belong to --k auto")
    given = [frames_of(name, picking) for name in frames]
    count = sum(map(len, given))
    localizer = Localizer(
        artifact,
        map_path,
        k,
        tokens,
        backend=backend,
        budget=budget,
        preset=preset,
        sequence=sequence,
    )
    with localizer:
        if localizer.map is None:
            raise MapError("there is no map to search: give --map, made by 'tatvpr-edge map build'")
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
