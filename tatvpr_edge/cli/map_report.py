"""What ``tatvpr-edge map`` and its commands say of a map, and the options that they share."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from tatvpr_edge.cli import words
from tatvpr_edge.cli.output import note, note_left_out, print_json, say
from tatvpr_edge.cli.paths import FilePath
from tatvpr_edge.spec.errors import UsageError

if TYPE_CHECKING:
    from tatvpr_edge.mapping import BuiltMap, FrameFile
    from tatvpr_edge.spec.placemap import Band

artifact_option = click.option(
    "--artifact",
    type=FilePath(),
    shell_complete=words.artifacts,
    help="Artifact to describe with, of any board (default: this machine's).",
)
poses_option = click.option(
    "--poses",
    type=FilePath(),
    help="CSV with name, x, y and optionally z, qx, qy, qz, qw or yaw_deg.",
)


def given_frames(frames: str, options: dict[str, Any]) -> tuple[str | list[FrameFile], int]:
    """What is described, and how many frames that is. A recording is read through but once."""
    from tatvpr_edge.mapping import frames_of, is_recording

    picking = options["picking"]
    found = frames_of(frames, picking)
    if not is_recording(frames):
        return frames, len(found)
    if options.get("poses") is not None and picking is not None and picking.poses_topic is not None:
        raise UsageError("poses come from --poses or from --poses-topic: give one of the two")
    del options["picking"]
    return found, len(found)


def describe_map(path: str) -> dict[str, Any]:
    """What ``--json`` prints of a map."""
    from tatvpr_edge.runtime import PlaceMap
    from tatvpr_edge.runtime.mapjournal import map_bytes

    place_map = PlaceMap(path)
    stored, details = place_map.stored, place_map.info
    return {
        "map": path,
        "places": len(place_map),
        "places_in_journal": len(stored.added),
        "torn_journal_bytes": stored.torn_bytes,
        "bytes": map_bytes(path),
        "kind": details.kind,
        "dim": details.dim,
        "model_hash": details.model_hash,
        "pose_frame": details.pose_frame,
        "neighbours": details.neighbours,
        "bands": [
            {
                "k": band.k,
                "tokens": band.tokens,
                "threshold": _threshold(band),
                "calibration": None if band.calibration is None else asdict(band.calibration),
                "accepts": accepting(band),
                "mean": band.mean is not None,
            }
            for band in details.bands
        ],
    }


def _threshold(band: Band) -> float | None:
    judged = band.calibration
    return judged.threshold if judged is not None and judged.kind == "score" else None


def accepting(band: Band) -> str:
    """What a band's matches are accepted by, in words."""
    judged = band.calibration
    if judged is None:
        return "not calibrated"
    if judged.kind == "score":
        return f"accepted from score {judged.threshold:g}"
    if not judged.recall and (judged.sequence is None or not judged.sequence.recall):
        return f"calibrated: nothing reaches precision {100 * judged.precision:g} %"
    said = (
        f"calibrated: precision {100 * judged.precision:g} %, accepts {100 * judged.recall:.0f} % "
        "of the queries whose place it holds"
    )
    if judged.sequence is not None:
        said += (
            f", and {100 * judged.sequence.recall:.0f} % with sequences of "
            f"{judged.sequence.frames} frames"
        )
    return said


def report_map(path: str, as_json: bool, made: BuiltMap | None = None) -> None:
    """Say, or print as JSON, what a map is and what making it left out."""
    document = describe_map(path)
    if made is not None:
        document["poses_from"] = made.poses_from
        document["unplaced"] = made.unplaced
        document["places_with_neighbours"] = made.neighbours
        document["known"] = made.known
        document["skipped"] = [asdict(frame) for frame in made.skipped]
    if as_json:
        print_json(document)
        return
    bands = ", ".join(
        f"k={band['k']:g}" + (f" tokens={band['tokens']:g}" if band["tokens"] != 1 else "")
        for band in document["bands"]
    )
    say(
        f"{path}: {document['places']} places, {document['kind']} x {document['dim']}, "
        f"bands {bands}, {document['bytes'] / 1024:.0f} KiB, model {document['model_hash'][:12]}"
    )
    for band in document["bands"]:
        if band["calibration"] is not None:
            say(f"band k={band['k']:g}: {band['accepts']}")
    if made is None and document["neighbours"]:
        say("neighbours: places keep a part of theirs along a drive")
    if made is not None:
        used = made.places + made.known
        if made.poses_from == "none":
            say("positions: none; a poses.csv in the folder, --poses or --poses-topic gives them")
        else:
            say(f"positions: {document['pose_frame']}, from {made.poses_from}")
        if made.neighbours:
            say(
                f"neighbours: {made.neighbours} of {used} places keep a part of theirs along a "
                "drive"
            )
        if made.unplaced:
            note(f"{made.unplaced} of {used} frames have no position")
        if made.known:
            note(f"{made.known} of {used} frames stand in the map already: not added again")
        note_left_out(made.skipped, used + len(made.skipped), strict=True)
    if document["places_in_journal"]:
        say(f"journal: {document['places_in_journal']} places ('map compact' folds them in)")
    if document["torn_journal_bytes"]:
        note(f"journal: {document['torn_journal_bytes']} bytes of an unfinished append ignored")
