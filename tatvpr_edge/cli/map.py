"""``tatvpr-edge map``: place maps are made, added to, merged, thinned out and looked at."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from tatvpr_edge.cli import words
from tatvpr_edge.cli.groups import Group
from tatvpr_edge.cli.hosting import open_localizer
from tatvpr_edge.cli.map_calibrate import calibrate
from tatvpr_edge.cli.map_report import artifact_option, given_frames, poses_option, report_map
from tatvpr_edge.cli.output import (
    KList,
    json_option,
    note,
    pose_frame_option,
    print_json,
    progress,
    say,
    views_option,
)
from tatvpr_edge.cli.paths import FilePath
from tatvpr_edge.cli.recordings import recording_options

if TYPE_CHECKING:
    from tatvpr_edge.mapping import MapStats

_one_drive = click.option(
    "--one-drive",
    is_flag=True,
    help="The frames of all folders below FRAMES are one drive, in the order of their names "
    "(default: every folder is one).",
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
@click.argument("frames", type=FilePath())
@click.option("--output", "-o", required=True, type=FilePath(), help="The .placemap to write.")
@artifact_option
@poses_option
@pose_frame_option
@click.option(
    "--kind",
    type=click.Choice(["int8", "binary", "weighed"]),
    default="int8",
    show_default=True,
    help="How descriptors are kept: a byte or a bit an element; weighed: bits, of whose nearest "
    "places the query's surest bits count most.",
)
@click.option(
    "--bands",
    type=KList(bands=True),
    help="The k (or k:tokens) to describe at; a query searches the nearest higher one (default: 1, "
    "or the artifact's highest k).",
)
@click.option("--threshold", type=float, help="Score from which a match is accepted.")
@views_option
@_one_drive
@_strict
@recording_options
@json_option
def build(frames: str, output: str, artifact: str | None, as_json: bool, **options: Any) -> None:
    """Make a map from the frames of FRAMES: a folder, a ROS bag or a video."""
    from tatvpr_edge.mapping import build_map
    from tatvpr_edge.mapping.build import check_new

    check_new(output)  # before a recording of hours is read for its times
    given, total = given_frames(frames, options)
    with open_localizer(artifact, as_json) as localizer, progress("frames", total, as_json) as step:
        made = build_map(localizer, given, output, progress=step, **options)
    report_map(output, as_json, made)


@command.command("add")
@click.argument("map_path", metavar="MAP", type=FilePath(), shell_complete=words.maps)
@click.argument("frames", type=FilePath())
@artifact_option
@poses_option
@pose_frame_option
@views_option
@_one_drive
@_strict
@recording_options
@json_option
def add(map_path: str, frames: str, artifact: str | None, as_json: bool, **options: Any) -> None:
    """Add the frames of FRAMES to MAP: all that can be used or, on any failure, none.

    What MAP has of them already, as after a command that was cut, is not added again.
    """
    from tatvpr_edge.mapping import extend_map
    from tatvpr_edge.runtime import PlaceMap

    PlaceMap(map_path)  # a damaged map is told before anything else
    given, total = given_frames(frames, options)
    with open_localizer(artifact, as_json) as localizer, progress("frames", total, as_json) as step:
        made = extend_map(localizer, given, map_path, progress=step, **options)
    report_map(map_path, as_json, made)


command.add_command(calibrate)


@command.command("info")
@click.argument("map_path", metavar="MAP", type=FilePath(), shell_complete=words.maps)
@json_option
def info(map_path: str, as_json: bool) -> None:
    """What is in MAP."""
    report_map(map_path, as_json)


@command.command("merge")
@click.argument(
    "maps",
    nargs=-1,
    required=True,
    metavar="MAP MAP...",
    type=FilePath(),
    shell_complete=words.maps,
)
@click.option("--output", "-o", required=True, type=FilePath(), help="The .placemap to write.")
@click.option(
    "--same-frame",
    is_flag=True,
    help="Local positions have the same origin and axes in all of them.",
)
@json_option
def merge(maps: tuple[str, ...], output: str, same_frame: bool, as_json: bool) -> None:
    """Make one map of two or more MAPs of one model; they stay as they are.

    Tags, positions, times and confirmations are kept, and each map's drives stay apart. A place
    that several maps have, as copies of one map do, is kept once.
    """
    from tatvpr_edge.mapping import merge_maps

    done = merge_maps(maps, output, same_frame=same_frame)
    if done.shared:
        note(f"{done.shared} places stand in several of the maps, and once in this one", as_json)
    if done.uncalibrated:
        note(
            "the maps are not calibrated alike, so that the new one is not calibrated: run "
            f"`tatvpr-edge map calibrate {shlex.quote(output)}`"
        )
    report_map(output, as_json)


@command.command("stats")
@click.argument("map_path", metavar="MAP", type=FilePath(), shell_complete=words.maps)
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
    size = f"{found.bytes / 1024:.0f} KiB"
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
        import numpy as np  # whose times reach as far as a map's, unlike Python's

        first, last = (
            str(np.datetime64(int(at), "s")).replace("T", " ")
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
@click.argument("map_path", metavar="MAP", type=FilePath(), shell_complete=words.maps)
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
    report_map(map_path, as_json)


@command.command("lean")
@click.argument("map_path", metavar="MAP", type=FilePath(), shell_complete=words.maps)
@click.option(
    "--output", "-o", type=FilePath(), help="The .placemap to write; MAP stays, to be driven on."
)
@json_option
def lean(map_path: str, output: str | None, as_json: bool) -> None:
    """Have places of MAP keep a part of the ones before and behind them, as map build does.

    For a map that was driven (Localizer.add, MapWriter), once its drives are over: more queries
    find their place. MAP is replaced as a whole, or not at all. A map that will be driven on stays
    as it is with --output, and is leaned as a whole again.
    """
    from tatvpr_edge.mapping import lean_map

    done, made = lean_map(map_path, output), output or map_path
    note(f"{done.neighbours} of {done.places} places have a neighbour along their drive", as_json)
    if done.uncalibrated:
        note(
            "it is not calibrated, because its places score otherwise now: run "
            f"`tatvpr-edge map calibrate {shlex.quote(made)}`"
        )
    report_map(made, as_json)


@command.command("compact")
@click.argument("map_path", metavar="MAP", type=FilePath(), shell_complete=words.maps)
@json_option
def compact(map_path: str, as_json: bool) -> None:
    """Fold the places added to MAP into its file (firmware reads the file alone)."""
    from tatvpr_edge.runtime.mapjournal import compact as fold

    fold(map_path)
    report_map(map_path, as_json)


@command.command("upgrade")
@click.argument("map_path", metavar="MAP", type=FilePath())
@json_option
def upgrade(map_path: str, as_json: bool) -> None:
    """Rewrite MAP of format version 1 in its place, to read its positions and tags.

    Its places stay as they are, described by operators of version 1, which no artifact computes any
    more: to query it, make it again with 'map build'.
    """
    from tatvpr_edge.mapping.upgrade import upgrade as renew

    done = renew(map_path)
    if done is None:
        note(f"{map_path} is up to date already", as_json)
    else:
        if done.dropped_turns:
            note(f"{done.dropped_turns} orientations were no rotations and are unknown now")
        note(
            "no artifact answers from it, because operators of version 1 described its places: "
            "make it again with 'tatvpr-edge map build'",
            as_json,
        )
    report_map(map_path, as_json)
