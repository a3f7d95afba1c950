"""``tatvpr-edge map calibrate``: learn when a map's answers are right."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from tatvpr_edge.cli import words
from tatvpr_edge.cli.hosting import open_localizer
from tatvpr_edge.cli.map_report import (
    accepting,
    artifact_option,
    describe_map,
    given_frames,
    poses_option,
    report_map,
)
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
    setting_text,
)
from tatvpr_edge.cli.paths import FilePath
from tatvpr_edge.cli.recordings import recording_options
from tatvpr_edge.mapping.calibrate import PRECISION, SETTINGS, WITHIN_PLACES
from tatvpr_edge.mapping.calibrate_queries import FEWEST
from tatvpr_edge.mapping.coordinates import WITHIN_M
from tatvpr_edge.runtime.tracking import FRAMES
from tatvpr_edge.spec.calibration import MAX_FRAMES
from tatvpr_edge.spec.errors import UsageError

if TYPE_CHECKING:
    from tatvpr_edge.mapping.calibrate import BandReport
    from tatvpr_edge.mapping.calibrate_sequences import SequenceReport
    from tatvpr_edge.spec.placemap import Band


@click.command("calibrate")
@click.argument("map_path", metavar="MAP", type=FilePath(), shell_complete=words.maps)
@click.argument("queries", required=False, type=FilePath())
@click.option(
    "--frames", type=FilePath(), help="The frames that MAP was made of, to describe them anew."
)
@artifact_option
@poses_option
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
    type=KList(bands=True),
    show_default=",".join(setting_text(*setting) for setting in SETTINGS),
    help="What frames are described at: k, or k:tokens (1:.5: half of the tokens).",
)
@click.option(
    "--sequence",
    type=click.IntRange(1, MAX_FRAMES),
    default=FRAMES,
    show_default=True,
    help="Also learn when sequences of so many frames are right, as Localizer(sequence=N) finds "
    "them; the queries are then drives, in the order of their names. 1: single frames alone.",
)
@click.option(
    "--replace",
    is_flag=True,
    help="MAP's own descriptors take the place of what MAP is calibrated with.",
)
@recording_options
@json_option
def calibrate(
    map_path: str,
    queries: str | None,
    artifact: str | None,
    replace: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Learn when MAP's answers are right: Match.confidence, and accepted at --precision.

    From QUERIES, frames with positions in MAP's pose frame; or from --frames, those that MAP was
    made of; or from MAP's own descriptors, whose neighbours are right answers. Queries as the
    robot makes them, taken on another day, are best. A frame that cannot be read, or shows
    nothing, is named and left out.
    """
    from tatvpr_edge.mapping import calibrate_map
    from tatvpr_edge.mapping.calibrate_queries import own_count
    from tatvpr_edge.runtime import PlaceMap

    place_map = PlaceMap(map_path)  # a damaged map is told before anything else
    folder = queries if queries is not None else options.pop("frames")
    if folder is None and options["picking"] is not None:
        raise click.UsageError(f"{options['picking'].said()}: for QUERIES or --frames alone")
    if folder is None and not replace:
        _keep_what_accepts(map_path, place_map.info.bands)
    own = (None, own_count(place_map))
    given, total = own if folder is None else given_frames(folder, options)
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
            of = report.sequence
            band["learned"] = {**_learned(report), "sequence": None if of is None else _learned(of)}
        document["skipped"] = [asdict(frame) for frame in done.skipped]
        print_json(document)
        return
    note_left_out(done.skipped, total)
    for report in done.bands:
        made = setting_text(report.k, report.tokens)
        say(f"band k={made}: {_counts(report)}")
        if not report.reached:
            note(
                f"band k={made}: no threshold gives {100 * options['precision']:g} %: "
                "nothing will be accepted; give more queries or a lower --precision"
            )
        _note_settings(report, f"band k={made}", options["precision"])
        if options["sequence"] > 1:
            _say_sequence(report, options["sequence"], options["precision"])
    if folder is None:
        made = ", ".join(setting_text(report.k, report.tokens) for report in done.bands)
        note(
            f"its own descriptors were made at k={made} and say nothing of lower settings, where "
            "hardly anything will be accepted: --frames, or QUERIES, teach those as well"
        )
    report_map(map_path, as_json)


def _keep_what_accepts(map_path: str, bands: Iterable[Band]) -> None:
    """What was learned from a drive is not given up for what a map's own descriptors say.

    Raises:
        UsageError: MAP is calibrated, and something is accepted.
    """
    for band in bands:
        judged = band.calibration
        if judged is None or judged.kind == "score":
            continue
        if judged.recall or (judged.sequence is not None and judged.sequence.recall):
            raise UsageError(
                f"{map_path} is {accepting(band)}; its own descriptors, whose neighbours were seen "
                "within a second, would replace that by something surer than it should be: give "
                "QUERIES, or --replace"
            )


def _counts(of: BandReport | SequenceReport) -> str:
    """What was learned from, and what queries at each setting get of one calibration for all of
    them; at low k, or of few tokens, it may be nothing."""
    text = (
        f"{of.answers} answers, {of.right} right; AUROC {of.quality.auroc:.3f}, "
        f"calibration error {of.quality.ece:.3f}"
    )
    if not of.reached or len(of.by_setting) < 2:
        return text
    shares = ", ".join(
        f"{100 * at.recall:.0f} % at k={setting_text(at.k, at.tokens)}" for at in of.by_setting
    )
    return f"{text}; accepts {shares}"


def _note_settings(of: BandReport | SequenceReport, band: str, precision: float) -> None:
    """Where fewer of the accepted answers are right than over all settings."""
    fewer = [at for at in of.by_setting if at.right < precision * at.accepted]
    if fewer:
        shares = ", ".join(
            f"{math.floor(1000 * at.right / at.accepted) / 10:g} % at "
            f"k={setting_text(at.k, at.tokens)}"
            for at in fewer
        )
        note(f"{band}: {100 * precision:g} % are right over all of these settings, but {shares}")


def _learned(of: BandReport | SequenceReport) -> dict[str, Any]:
    return {
        "answers": of.answers,
        "right": of.right,
        "accepted": of.accepted,
        "reached": of.reached,
        "recall_by_k": {at.k: at.recall for at in of.by_setting if at.tokens == 1},
        "by_setting": [asdict(at) for at in of.by_setting],
        **asdict(of.quality),
    }


def _say_sequence(report: BandReport, frames: int, precision: float) -> None:
    of, band = (
        report.sequence,
        f"band k={setting_text(report.k, report.tokens)}, sequences of {frames}",
    )
    if of is None:
        right, wrong = report.sequence_seen
        remedy = "a longer drive, in its order"
        if right >= FEWEST:  # asked of the map without the drive's surroundings, nothing is right
            remedy = "a map with more places far from the drive"
        note(
            f"{band}: {right} right and {wrong} wrong answers, {FEWEST} of each are needed to "
            f"learn from: give {remedy}"
        )
        return
    say(f"{band}: {_counts(of)}")
    if not of.reached:
        note(
            f"{band}: no threshold gives {100 * precision:g} %: nothing will be accepted; give a "
            "longer drive or a lower --precision"
        )
    _note_settings(of, band, precision)
