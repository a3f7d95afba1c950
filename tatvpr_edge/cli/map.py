"""``tatvpr-edge map build|add|merge|prune|calibrate|info|stats|compact|upgrade``: place maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import click

from tatvpr_edge.cli import words
from tatvpr_edge.cli.groups import Group
from tatvpr_edge.cli.hosting import open_localizer
from tatvpr_edge.cli.output import (
    KList,
    Metres,
    json_option,
    note,
    note_left_out,
    pose_frame_option,
    print_json,
    progress,
    say,
)
from tatvpr_edge.cli.recordings import recording_options
from tatvpr_edge.mapping.build import DEFAULT_BANDS as BANDS
from tatvpr_edge.mapping.calibrate import KS, PRECISION, WITHIN_M, WITHIN_PLACES
from tatvpr_edge.runtime.tracking import FRAMES
from tatvpr_edge.spec.maptypes import MAX_FRAMES

if TYPE_CHECKING:
    from tatvpr_edge.mapping import BuiltMap, FrameFile, MapStats
    from tatvpr_edge.mapping.calibrate import BandReport
    from tatvpr_edge.mapping.calibrate_sequences import SequenceReport
    from tatvpr_edge.spec.placemap import Band

DEFAULT_BANDS = ",".join(f"{k:g}" if tokens == 1 else f"{k:g}:{tokens:g}" for k, tokens in BANDS)

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
_strict = click.option("--strict", is_flag=True, help="Stop at a frame that would be left out.")


@click.group("map", cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Make, extend or describe a place map.

    Frames are pictures (JPEG, PNG, WebP, BMP, TIFF) of any size below a folder, or are picked from
    a ROS bag (.bag, .mcap, .db3, a ROS 2 bag's folder) or a video. Positions come from --poses,
    from a poses.csv in the folder, from a bag's --poses-topic, or from names like
    @utm_e@utm_n@...jpg. A frame that cannot be read, or shows nothing (black, blank, a covered
    lens), is named and left out.
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
@recording_options
@json_option
def build(frames: str, output: str, artifact: str | None, as_json: bool, **options: Any) -> None:
    """Make a map from the frames of FRAMES: a folder, a ROS bag or a video."""
    from tatvpr_edge.mapping import build_map
    from tatvpr_edge.mapping.build import check_new

    check_new(output)  # before a recording of hours is read for its times
    given, total = _given(frames, options)
    with open_localizer(artifact, as_json) as localizer, progress("frames", total, as_json) as step:
        made = build_map(localizer, given, output, progress=step, **options)
    _report(output, as_json, made)


@command.command("add")
@click.argument("map_path", metavar="MAP", type=click.Path(), shell_complete=words.maps)
@click.argument("frames", type=click.Path())
@_artifact
@_poses
@pose_frame_option
@_strict
@recording_options
@json_option
def add(map_path: str, frames: str, artifact: str | None, as_json: bool, **options: Any) -> None:
    """Add the frames of FRAMES to MAP: all that can be used or, on any failure, none."""
    from tatvpr_edge.mapping import extend_map
    from tatvpr_edge.runtime import PlaceMap

    PlaceMap(map_path)  # a damaged map is told before anything else
    given, total = _given(frames, options)
    with open_localizer(artifact, as_json) as localizer, progress("frames", total, as_json) as step:
        made = extend_map(localizer, given, map_path, progress=step, **options)
    _report(map_path, as_json, made)


@command.command("calibrate")
@click.argument("map_path", metavar="MAP", type=click.Path(), shell_complete=words.maps)
@click.argument("queries", required=False, type=click.Path())
@click.option(
    "--frames", type=click.Path(), help="The frames that MAP was made of, to describe them anew."
)
@_artifact
@_poses
@pose_frame_option
@click.option(
    "--precision",
    type=click.FloatRange(0.5, 1, max_open=True),
    default=PRECISION,
    show_default=True,
    help="Share of accepted answers that is to be right.",
)
@click.option(
    "--within",
    "within_m",
    type=Metres(),
    help=f"An answer is right within this (default: {WITHIN_M['local']:g}m; {WITHIN_M['utm']:g}m "
    "in utm and geographic maps).",
)
@click.option(
    "--within-places",
    type=click.IntRange(1),
    default=WITHIN_PLACES,
    show_default=True,
    help="Where positions are unknown: right is so far along the order of a drive.",
)
@click.option(
    "--k",
    "ks",
    type=KList(),
    default=",".join(f"{k:g}" for k in KS),
    show_default=True,
    help="The k that frames are described at.",
)
@click.option(
    "--sequence",
    type=click.IntRange(1, MAX_FRAMES),
    default=FRAMES,
    show_default=True,
    help="Also learn when sequences of so many frames are right, as Localizer(sequence=N) finds "
    "them; the queries are then drives, in the order of their names. 1: single frames alone.",
)
@recording_options
@json_option
def calibrate(
    map_path: str, queries: str | None, artifact: str | None, as_json: bool, **options: Any
) -> None:
    """Learn when MAP's answers are right: Match.confidence, and accepted at --precision.

    From QUERIES, frames with positions in MAP's pose frame; or from --frames, those that MAP was
    made of; or from MAP's own descriptors, whose neighbours are right answers. Queries as the
    robot makes them, taken on another day, are best. A frame that cannot be read, or shows
    nothing, is named and left out.
    """
    from tatvpr_edge.mapping import calibrate_map
    from tatvpr_edge.runtime import PlaceMap

    places = len(PlaceMap(map_path))  # a damaged map is told before anything else
    folder = queries if queries is not None else options.pop("frames")
    if folder is None and options["picking"] is not None:
        raise click.UsageError(f"{options['picking'].said()} belong to QUERIES or --frames")
    given, total = (None, places) if folder is None else _given(folder, options)
    options.pop("picking", None)
    asking: dict[str, Any] = {"frames" if queries is None else "queries": given}
    with (
        open_localizer(artifact, as_json) as localizer,
        progress("queries", total, as_json) as step,
    ):
        done = calibrate_map(localizer, map_path, progress=step, **asking, **options)
    if as_json:
        document = describe_map(map_path)
        document["learned_from"] = done.source
        document["within_m"], document["within_places"] = done.within_m, done.within_places
        for band, report in zip(document["bands"], done.bands, strict=True):
            band["learned"] = {
                "answers": report.answers,
                "right": report.right,
                "accepted": report.accepted,
                "reached": report.reached,
                "recall_by_k": dict(report.recall_by_k),
                **asdict(report.quality),
                "sequence": _learned(report.sequence),
            }
        document["skipped"] = [asdict(frame) for frame in done.skipped]
        print_json(document)
        return
    note_left_out(done.skipped, total)
    for report in done.bands:
        say(
            f"band k={report.k:g}: {report.answers} answers, {report.right} right; AUROC "
            f"{report.quality.auroc:.3f}, calibration error {report.quality.ece:.3f}"
            + _at_each_k(report)
        )
        if not report.reached:
            note(
                f"band k={report.k:g}: no threshold gives {100 * options['precision']:g} %: "
                "nothing will be accepted; give more queries or a lower --precision"
            )
        if options["sequence"] > 1:
            _say_sequence(report, options["sequence"], options["precision"])
    _report(map_path, as_json)


def _at_each_k(of: BandReport | SequenceReport) -> str:
    """What queries at each k get of one calibration for all of them; at low k it may be nothing."""
    if not of.reached or len(of.recall_by_k) < 2:
        return ""
    shares = ", ".join(f"{100 * share:.0f} % at k={k:g}" for k, share in of.recall_by_k)
    return f"; accepts {shares}"


def _learned(of: SequenceReport | None) -> dict[str, Any] | None:
    if of is None:
        return None
    return {
        "answers": of.answers,
        "right": of.right,
        "accepted": of.accepted,
        "reached": of.reached,
        "recall_by_k": dict(of.recall_by_k),
        **asdict(of.quality),
    }


def _say_sequence(report: BandReport, frames: int, precision: float) -> None:
    of, band = report.sequence, f"band k={report.k:g}, sequences of {frames}"
    if of is None:
        note(f"{band}: too few answers to learn from: give more queries, in the order of a drive")
        return
    say(
        f"{band}: {of.answers} answers, {of.right} right; AUROC {of.quality.auroc:.3f}, "
        f"calibration error {of.quality.ece:.3f}" + _at_each_k(of)
    )
    if not of.reached:
        note(f"{band}: no threshold gives {100 * precision:g} %: nothing will be accepted")


@command.command("info")
@click.argument("map_path", metavar="MAP", type=click.Path(), shell_complete=words.maps)
@json_option
def info(map_path: str, as_json: bool) -> None:
    """What is in MAP."""
    _report(map_path, as_json)


@command.command("merge")
@click.argument(
    "maps",
    nargs=-1,
    required=True,
    metavar="MAP MAP...",
    type=click.Path(),
    shell_complete=words.maps,
)
@click.option("--output", "-o", required=True, type=click.Path(), help="The .placemap to write.")
@click.option(
    "--same-frame",
    is_flag=True,
    help="Local positions have the same origin and axes in all of them.",
)
@json_option
def merge(maps: tuple[str, ...], output: str, same_frame: bool, as_json: bool) -> None:
    """Make one map of two or more MAPs of one model; they stay as they are.

    Tags, positions, times and confirmations are kept, and each map's drives stay apart.
    """
    from tatvpr_edge.mapping import merge_maps

    done = merge_maps(maps, output, same_frame=same_frame)
    if done.uncalibrated:
        note(
            "the maps are not calibrated alike, so that the new one is not calibrated: run "
            f"'tatvpr-edge map calibrate {output}'"
        )
    _report(output, as_json)


@command.command("stats")
@click.argument("map_path", metavar="MAP", type=click.Path(), shell_complete=words.maps)
@json_option
def stats(map_path: str, as_json: bool) -> None:
    """How many drives MAP holds, how far apart its places are, how redundant."""
    from tatvpr_edge.mapping import map_stats

    found = map_stats(map_path)
    if as_json:
        print_json({"map": map_path, **asdict(found)})
        return
    for line in _figures(found):
        say(line)


def _figures(found: MapStats) -> Iterator[str]:
    size = f"{found.bytes / 1024:.0f} kB"
    if found.bytes_a_place is not None:
        size += f", {found.bytes_a_place:.0f} bytes a place"
    drives = "1 drive" if found.drives == 1 else f"{found.drives} drives"
    yield f"places     {found.places}, of {drives}; {size}"
    yield f"confirmed  {found.confirmed}"
    if found.width_m is None:
        yield "positions  unknown"
    else:
        yield (
            f"positions  {found.positions} known, within {found.width_m:.1f} m x "
            f"{found.height_m:.1f} m"
        )
    if found.first_s is not None and found.last_s is not None:
        first, last = (
            datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
            for at in (found.first_s, found.last_s)
        )
        yield f"seen       from {first} to {last} UTC"
    if found.step_score is not None and found.redundant is not None:
        metres = "" if found.step_m is None else f"{found.step_m:.2f} m, "
        yield (
            f"next place {metres}score {found.step_score:.3f} (medians along a drive); "
            f"{100 * found.redundant:.0f} % are redundant"
        )


@command.command("prune")
@click.argument("map_path", metavar="MAP", type=click.Path(), shell_complete=words.maps)
@click.option(
    "--max-places", required=True, type=click.IntRange(min=1), help="How many places shall stay."
)
@json_option
def prune(map_path: str, max_places: int, as_json: bool) -> None:
    """Drop the places of MAP that are most like their neighbours; confirmed ones stay.

    Those that stay keep their order and get new numbers. MAP is replaced as a whole, or not at all.
    """
    from tatvpr_edge.runtime import PlaceMap

    pruned = PlaceMap(map_path).prune(max_places)
    if not as_json:
        least = pruned.least_covered
        say(
            f"dropped {pruned.dropped} places"
            + (f"; each scores {least:.3f} or more to one that stayed" if least is not None else "")
        )
    _report(map_path, as_json)


@command.command("compact")
@click.argument("map_path", metavar="MAP", type=click.Path(), shell_complete=words.maps)
@json_option
def compact(map_path: str, as_json: bool) -> None:
    """Fold the places added to MAP into its file (firmware reads the file alone)."""
    from tatvpr_edge.runtime.mapjournal import compact as fold

    fold(map_path)
    _report(map_path, as_json)


@command.command("upgrade")
@click.argument("map_path", metavar="MAP", type=click.Path())
@json_option
def upgrade(map_path: str, as_json: bool) -> None:
    """Bring MAP from format version 1 up to date, in its place; its places stay as they are."""
    from tatvpr_edge.mapping.upgrade import upgrade as renew

    done = renew(map_path)
    if done is None:
        note(f"{map_path} is up to date already")
    elif done.dropped_turns:
        note(f"{done.dropped_turns} orientations were no rotations and are unknown now")
    _report(map_path, as_json)


def _given(frames: str, options: dict[str, Any]) -> tuple[str | list[FrameFile], int]:
    """What is described, and how many frames that is. A recording is read through but once."""
    from tatvpr_edge.mapping import frames_of, is_recording
    from tatvpr_edge.spec.errors import UsageError

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


def _report(path: str, as_json: bool, made: BuiltMap | None = None) -> None:
    document = describe_map(path)
    if made is not None:
        document["poses_from"] = made.poses_from
        document["unplaced"] = made.unplaced
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
        f"bands {bands}, {document['bytes'] / 1024:.0f} kB, model {document['model_hash'][:12]}"
    )
    for band in document["bands"]:
        if band["calibration"] is not None:
            say(f"band k={band['k']:g}: {band['accepts']}")
    if made is not None:
        if made.poses_from == "none":
            say("positions: none; a poses.csv in the folder, --poses or --poses-topic gives them")
        else:
            say(f"positions: {document['pose_frame']}, from {made.poses_from}")
        if made.unplaced:
            note(f"{made.unplaced} of {made.places} frames have no position")
        note_left_out(made.skipped, made.places + len(made.skipped), strict=True)
    if document["places_in_journal"]:
        say(f"journal: {document['places_in_journal']} places ('map compact' folds them in)")
    if document["torn_journal_bytes"]:
        note(f"journal: {document['torn_journal_bytes']} bytes of an unfinished append ignored")
