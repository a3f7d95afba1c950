"""``tatvpr-edge map build|add|info|compact``: place maps from folders of frames."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from tatvpr_edge.cli.output import KList, json_option, note, print_json, progress

DEFAULT_BANDS = "1,.2"

_artifact = click.option(
    "--artifact", type=click.Path(), help="Artifact to describe with (default: this machine's)."
)
_poses = click.option(
    "--poses", type=click.Path(), help="CSV with name, x, y and optionally z, qx, qy, qz, qw."
)


@click.group("map", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Make, extend or describe a place map.

    Frames are JPEG or PNG files of any size below a folder. Positions come from --poses, from a
    poses.csv in the folder, or from names like @utm_e@utm_n@...jpg.
    """


@command.command("build")
@click.argument("frames", type=click.Path())
@click.option("--output", "-o", required=True, type=click.Path(), help="The .placemap to write.")
@_artifact
@_poses
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
    help="The k (or k:tokens) to describe at; a query searches the one nearest to its own.",
)
@click.option("--threshold", type=float, help="Score from which a match is accepted.")
@json_option
def build(
    frames: str,
    output: str,
    artifact: str | None,
    poses: str | None,
    kind: str,
    bands: list[tuple[float, float]],
    threshold: float | None,
    as_json: bool,
) -> None:
    """Make a map from the frames below FRAMES."""
    from tatvpr_edge.cli.images import find_poses, frame_files
    from tatvpr_edge.runtime import Localizer
    from tatvpr_edge.spec.errors import MapError
    from tatvpr_edge.spec.placemap import Band, MapInfo, check_info, make_places, write_map

    if os.path.lexists(output):
        raise MapError(f"{output} exists already: remove it, or extend it with 'map add'")
    if not Path(output).absolute().parent.is_dir():
        raise MapError(f"{Path(output).parent} is not a folder: create it first")
    files = frame_files(frames)
    found = find_poses(frames, files, poses)
    with Localizer(artifact=artifact) as localizer:
        model = localizer.artifact.manifest.model
        info = MapInfo(
            model_hash=model.hash,
            kind=kind,
            dim=model.descriptor_size,
            bands=tuple(Band(k, tokens, threshold) for k, tokens in bands),
            pose_frame=found.frame,
        )
        check_info(info)
        descriptors = _described(localizer, files, bands, as_json)
    tags = [file.name for file in files]
    write_map(output, info, [make_places(info, descriptors, found.values, tags)])
    _report(output, as_json, found.source)


@command.command("add")
@click.argument("map_path", metavar="MAP", type=click.Path())
@click.argument("frames", type=click.Path())
@_artifact
@_poses
@json_option
def add(map_path: str, frames: str, artifact: str | None, poses: str | None, as_json: bool) -> None:
    """Add the frames below FRAMES to MAP: all of them or, on any failure, none."""
    from tatvpr_edge.cli.images import find_poses, frame_files
    from tatvpr_edge.runtime import Localizer, PlaceMap
    from tatvpr_edge.spec.errors import MapError
    from tatvpr_edge.spec.mapjournal import append
    from tatvpr_edge.spec.placemap import make_places

    PlaceMap(map_path)  # a damaged map is told before anything else
    files = frame_files(frames)
    found = find_poses(frames, files, poses)
    with Localizer(artifact=artifact, map=map_path) as localizer:
        assert localizer.map is not None
        info = localizer.map.info
        if found.source != "none" and found.frame != info.pose_frame:
            raise MapError(
                f"the map's positions are {info.pose_frame}, those of {frames} are {found.frame}: "
                "they cannot be in one map"
            )
        bands = [(band.k, band.tokens) for band in info.bands]
        descriptors = _described(localizer, files, bands, as_json)
    tags = [file.name for file in files]
    append(map_path, make_places(info, descriptors, found.values, tags))
    _report(map_path, as_json, found.source)


@command.command("info")
@click.argument("map_path", metavar="MAP", type=click.Path())
@json_option
def info(map_path: str, as_json: bool) -> None:
    """What is in MAP."""
    _report(map_path, as_json)


@command.command("compact")
@click.argument("map_path", metavar="MAP", type=click.Path())
@json_option
def compact(map_path: str, as_json: bool) -> None:
    """Fold the places added to MAP into its file (C programs read the file alone)."""
    from tatvpr_edge.spec.mapjournal import compact as fold

    fold(map_path)
    _report(map_path, as_json)


def _described(localizer: Any, files: Any, bands: list[tuple[float, float]], quiet: bool) -> Any:
    from tatvpr_edge.cli.describe import describe_frames

    with progress("frames", len(files), quiet) as step:
        return describe_frames(localizer, files, bands, step)


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
            {"k": band.k, "tokens": band.tokens, "threshold": band.threshold}
            for band in details.bands
        ],
    }


def _report(path: str, as_json: bool, pose_source: str | None = None) -> None:
    document = describe_map(path)
    if pose_source is not None:
        document["poses_from"] = pose_source
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
    if pose_source is not None:
        click.echo(f"positions: {document['pose_frame']}, from {pose_source}")
    if document["places_in_journal"]:
        click.echo(f"journal: {document['places_in_journal']} places ('map compact' folds them in)")
    if document["torn_journal_bytes"]:
        note(f"journal: {document['torn_journal_bytes']} bytes of an unfinished append ignored")
