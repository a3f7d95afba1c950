"""``tatvpr-edge demo``: the whole job on this machine, with the shipped model and places.

Builds the model for this machine, makes a map from one frame of each place, and asks where frames
of the same places, moved, turned and relit, were taken: at several k, with one artifact. Then it
drives: a lap and a half with a map that grows, and the loops that are found.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tatvpr_edge.cli import words
from tatvpr_edge.cli.output import (
    BuildProgress,
    KList,
    json_option,
    note,
    print_json,
    print_table,
    progress,
    say,
)
from tatvpr_edge.cli.paths import FilePath, OutputFile
from tatvpr_edge.spec.atomic import temporary_folder

if TYPE_CHECKING:
    from tatvpr_edge.mapping import FrameFile
    from tatvpr_edge.runtime import Localizer

DEFAULT_KS = "1,.6,.4,.2"


@dataclass(frozen=True)
class Answer:
    """One query at one k."""

    query: str
    found: str
    right: bool
    score: float
    latency_ms: float


@dataclass(frozen=True)
class Row:
    """One line of the table. ``macs`` is None where the artifact does not state them for this k."""

    k: float
    queries: int
    right: int
    mean_similarity: float
    median_ms: float
    macs: float | None


@click.command("demo")
@click.option(
    "--model",
    metavar="NAME|FILE",
    type=FilePath(),
    default="micro",
    show_default=True,
    shell_complete=words.models,
    help="A shipped model, or ONNX file.",
)
@click.option(
    "--k",
    "ks",
    type=KList(),
    default=DEFAULT_KS,
    show_default=True,
    help="The k to query at.",
)
@click.option(
    "--output",
    "-o",
    type=OutputFile(),
    default="tatvpr-demo.png",
    show_default=True,
    help="Contact sheet: query, best match, right or wrong, at the smallest k.",
)
@json_option
def command(model: str, ks: list[float], output: Path, as_json: bool) -> None:
    """Build, map, query and drive with the shipped model and frames; a table and two pictures."""
    from tatvpr_edge.cli.drive import drive, write_drive
    from tatvpr_edge.cli.sheet import write_sheet
    from tatvpr_edge.compilers.build import build_artifact, keep_host
    from tatvpr_edge.mapping import frame_files
    from tatvpr_edge.mapping.labels import labelled_frames
    from tatvpr_edge.runtime import Localizer
    from tatvpr_edge.zoo import ZOO

    gallery, queries = ZOO / "places" / "gallery", ZOO / "places" / "queries"
    with temporary_folder("demo") as scratch:
        note("1. build the model for this machine", as_json)
        # The demo runs an artifact of its own: another build may replace the one that is kept.
        artifact = scratch / "artifact"
        with BuildProgress(quiet=as_json) as building:
            build_artifact("host", model=model, output=artifact, progress=building)
        kept: Path | None = None
        try:
            kept = keep_host(artifact)
        except OSError as error:
            note(f"the artifact is not kept for Localizer(): {error.filename}: {error.strerror}")
        note("2. make a map: one frame of each place", as_json)
        place_map = scratch / "demo.placemap"
        make_demo_map(str(artifact), gallery, ks, place_map, as_json)
        note("3. where were these taken? the same places, moved, turned and relit", as_json)
        files, _ = labelled_frames(queries)
        labels = {
            file.name: place
            for folder in (gallery, queries)
            for file, place in zip(*labelled_frames(folder), strict=True)
        }
        with Localizer(str(artifact), place_map) as localizer, _without_advice():
            answers = {k: _ask(localizer, files, k, labels, as_json) for k in ks}
            rows = [_row(localizer, k, answers[k]) for k in ks]
            places = len(localizer.map) if localizer.map is not None else 0
        note(
            "4. drive a lap and a half with an empty map: where has the robot been before?", as_json
        )
        road = ZOO / "drive"
        with progress("frames", len(frame_files(road)), as_json) as step:
            driven = drive(str(artifact), ZOO / "places", road, scratch, step)
    smallest = min(ks)
    write_sheet(output, gallery, queries, answers[smallest], f"k = {smallest:g}")
    way = output.with_name(f"{output.stem}-drive{output.suffix}")
    write_drive(way, driven)
    if as_json:
        found = _document(rows, answers, places, kept, str(output))
        print_json({**found, "drive": {**driven.document(), "picture": str(way)}})
        return
    _print(rows, places)
    say(f"drive: {driven.line()}")
    say(f"pictures: {output} (k = {smallest:g}), {way}")
    if kept is not None:
        say(f"artifact: {kept}; Localizer() now takes it")


@contextmanager
def _without_advice() -> Iterator[None]:
    """What a user should do about a map is no advice for one that is gone a minute later."""
    log = logging.getLogger("tatvpr_edge")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def make_demo_map(
    artifact: str, gallery: Path, ks: Sequence[float], output: Path, quiet: bool = False
) -> None:
    """The map of the shipped places, one band for each of ``ks``."""
    from tatvpr_edge.mapping import build_map, frame_files
    from tatvpr_edge.runtime import Localizer

    files = frame_files(gallery)
    with Localizer(artifact) as localizer, progress("places", len(files), quiet) as step:
        bands = [(k, 1.0) for k in ks]
        build_map(localizer, files, output, bands=bands, strict=True, progress=step)


def _ask(
    localizer: Localizer, files: list[FrameFile], k: float, labels: dict[str, str], quiet: bool
) -> list[Answer]:
    from tatvpr_edge.mapping import read_frame

    localizer.k = k
    answers = []
    with progress(f"queries at k={k:g}", len(files), quiet) as step:
        for file in files:
            match = localizer.query(read_frame(file.path))
            right = labels[match.tag] == labels[file.name]
            answers.append(Answer(file.name, match.tag, right, match.score, match.latency_ms))
            step(1)
    return answers


def _row(localizer: Localizer, k: float, answers: list[Answer]) -> Row:
    macs = next(
        (
            point["macs"]
            for point in localizer.artifact.manifest.compute
            if abs(point["k"] - k) < 1e-6 and point["tokens"] == 1
        ),
        None,
    )
    return Row(
        k=k,
        queries=len(answers),
        right=sum(answer.right for answer in answers),
        mean_similarity=statistics.fmean(answer.score for answer in answers),
        median_ms=statistics.median(answer.latency_ms for answer in answers),
        macs=macs,
    )


def _print(rows: list[Row], places: int) -> None:
    say(f"{places} places, {rows[0].queries} queries, one artifact")
    print_table(
        ["k", "places found", "", "similarity", "ms a query", "million MACs"],
        [
            [
                f"{row.k:g}",
                f"{row.right} of {row.queries}",
                f"{100 * row.right / row.queries:.1f} %",
                f"{row.mean_similarity:.4f}",
                f"{row.median_ms:.1f}",
                "-" if row.macs is None else f"{row.macs / 1e6:.1f}",
            ]
            for row in rows
        ],
        right=("k", "places found", "", "similarity", "ms a query", "million MACs"),
    )


def _document(
    rows: list[Row],
    answers: dict[float, list[Answer]],
    places: int,
    kept: Path | None,
    picture: str,
) -> dict[str, Any]:
    return {
        "places": places,
        "artifact": None if kept is None else str(kept),
        "picture": picture,
        "rows": [asdict(row) for row in rows],
        "answers": {f"{k:g}": [asdict(answer) for answer in made] for k, made in answers.items()},
    }
