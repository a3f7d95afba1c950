"""``tatvpr-edge map build|add|info|compact|upgrade``: place maps from folders of frames."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from tatvpr_edge.cli import words
from tatvpr_edge.cli.hosting import open_localizer
from tatvpr_edge.cli.output import (
    KList,
    Step,
    json_option,
    note,
    pose_frame_option,
    print_json,
    progress,
)

if TYPE_CHECKING:
    from tatvpr_edge.mapping import BuiltMap
    from tatvpr_edge.spec.placemap import Band

DEFAULT_BANDS = "1"

_artifact = click.option(
    "--artifact",
    type=click.Path(),
    shell_complete=words.artifacts,
    help="Artifact to describe with, of any board (default: this machine's).",
)
_poses = click.option(
    "--poses",
    type=click.Path(),
    help="CSV with name, x, y and optionally z, qx, qy, qz, qw or yaw_deg.",
)
_strict = click.option("--strict", is_flag=True, help="Stop at a frame that cannot be read.")


@click.group("map", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Make, extend or describe a place map.

    Frames are pictures (JPEG, PNG, WebP, BMP, TIFF) of any size below a folder. Positions come
    from --poses, from a poses.csv in the folder, or from names like @utm_e@utm_n@...jpg. A frame
    that cannot be read is named and left out.
    """


@command.command("build")
@click.argument("frames", type=click.Path())
@click.option("--output", "-o", required=True, type=click.Path(), help="The .placemap to write.")
@_artifact
@_poses
@pose_frame_option
@click.option(
    "--kind",
    type=click.Choice(["int8", "binary"]),
    default="int8",
    show_default=True,
    help="How descriptors are kept: a byte or a bit an element.",
)
@click.option(
    "--bands",
    type=KList(bands=True),
    default=DEFAULT_BANDS,
    show_default=True,
    help="The k (or k:tokens) to describe at; a query searches the nearest higher one.",
)
@click.option("--threshold", type=float, help="Score from which a match is accepted.")
@_strict
@json_option
def build(frames: str, output: str, artifact: str | None, as_json: bool, **options: Any) -> None:
    """Make a map from the frames below FRAMES."""
    from tatvpr_edge.mapping import build_map

    with open_localizer(artifact, as_json) as localizer, _frames_progress(frames, as_json) as step:
        made = build_map(localizer, frames, output, progress=step, **options)
    _report(output, as_json, made)


@command.command("add")
@click.argument("map_path", metavar="MAP", type=click.Path(), shell_complete=words.maps)
@click.argument("frames", type=click.Path())
@_artifact
@_poses
@pose_frame_option
@_strict
@json_option
def add(map_path: str, frames: str, artifact: str | None, as_json: bool, **options: Any) -> None:
    """Add the frames below FRAMES to MAP: all that can be read or, on any failure, none."""
    from tatvpr_edge.mapping import extend_map
    from tatvpr_edge.runtime import PlaceMap

    PlaceMap(map_path)  # a damaged map is told before anything else
    with open_localizer(artifact, as_json) as localizer, _frames_progress(frames, as_json) as step:
        made = extend_map(localizer, frames, map_path, progress=step, **options)
    _report(map_path, as_json, made)


@command.command("info")
@click.argument("map_path", metavar="MAP", type=click.Path(), shell_complete=words.maps)
@json_option
def info(map_path: str, as_json: bool) -> None:
    """What is in MAP."""
    _report(map_path, as_json)


@command.command("compact")
@click.argument("map_path", metavar="MAP", type=click.Path(), shell_complete=words.maps)
@json_option
def compact(map_path: str, as_json: bool) -> None:
    """Fold the places added to MAP into its file (C programs read the file alone)."""
    from tatvpr_edge.spec.mapjournal import compact as fold

    fold(map_path)
    _report(map_path, as_json)


@command.command("upgrade")
@click.argument("map_path", metavar="MAP", type=click.Path())
@json_option
def upgrade(map_path: str, as_json: bool) -> None:
    """Bring MAP from format version 1 up to date, in its place; its places stay as they are."""
    from tatvpr_edge.spec.mapv1 import upgrade as renew

    done = renew(map_path)
    if done is None:
        note(f"{map_path} is up to date already")
    elif done.dropped_turns:
        note(f"{done.dropped_turns} orientations were no rotations and are unknown now")
    _report(map_path, as_json)


@contextlib.contextmanager
def _frames_progress(frames: str, quiet: bool) -> Iterator[Step]:
    from tatvpr_edge.mapping import frame_files

    with progress("frames", len(frame_files(frames)), quiet) as step:
        yield step


def describe_map(path: str) -> dict[str, Any]:
    """What ``--json`` prints of a map."""
    from tatvpr_edge.runtime import PlaceMap
    from tatvpr_edge.spec.mapjournal import journal_path

    place_map = PlaceMap(path)
    stored, details = place_map.stored, place_map.info
    journal = journal_path(path)
    return {
        "map": path,
        "places": len(place_map),
        "places_in_journal": len(stored.added),
        "torn_journal_bytes": stored.torn_bytes,
        "bytes": stored.base.file_bytes + (journal.stat().st_size if journal.exists() else 0),
        "kind": details.kind,
        "dim": details.dim,
        "model_hash": details.model_hash,
        "pose_frame": details.pose_frame,
        "bands": [
            {
                "k": band.k,
                "tokens": band.tokens,
                "threshold": _threshold(band),
                "calibration": None if band.calibration is None else asdict(band.calibration),
                "mean": band.mean is not None,
            }
            for band in details.bands
        ],
    }


def _threshold(band: Band) -> float | None:
    judged = band.calibration
    return judged.threshold if judged is not None and judged.kind == "score" else None


def _report(path: str, as_json: bool, made: BuiltMap | None = None) -> None:
    document = describe_map(path)
    if made is not None:
        document["poses_from"] = made.poses_from
        document["skipped"] = [asdict(frame) for frame in made.skipped]
    if as_json:
        print_json(document)
        return
    bands = ", ".join(
        f"k={band['k']:g}" + (f" tokens={band['tokens']:g}" if band["tokens"] != 1 else "")
        for band in document["bands"]
    )
    click.echo(
        f"{path}: {document['places']} places, {document['kind']} x {document['dim']}, "
        f"bands {bands}, {document['bytes'] / 1024:.0f} kB, model {document['model_hash'][:12]}"
    )
    if made is not None:
        click.echo(f"positions: {document['pose_frame']}, from {made.poses_from}")
        for frame in made.skipped:
            note(f"left out: {frame.reason}")
        if made.skipped:
            note(f"left out: {len(made.skipped)} frames that cannot be read (--strict stops)")
    if document["places_in_journal"]:
        click.echo(f"journal: {document['places_in_journal']} places ('map compact' folds them in)")
    if document["torn_journal_bytes"]:
        note(f"journal: {document['torn_journal_bytes']} bytes of an unfinished append ignored")
