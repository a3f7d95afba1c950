"""``tatvpr-edge profile ARTIFACT``: latency and energy for each k, as files and a report."""

from __future__ import annotations

import json
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
    say,
    write_file,
    writing,
)
from tatvpr_edge.cli.paths import FilePath
from tatvpr_edge.cli.remote import Way, board_options
from tatvpr_edge.deploy.naming import LOCAL
from tatvpr_edge.spec.targets import check_new_folder

if TYPE_CHECKING:
    from tatvpr_edge.runtime.profiling import Setting


@click.command("profile")
@click.argument("artifact", type=FilePath(), shell_complete=words.artifacts)
@click.option("--on", "target", metavar="USER@HOST", help="Measure on this board, over SSH.")
@click.option(
    "--k", "ks", type=KList(),
    help="Each is measured (default: the artifact's frontier, else 1,.6,.4,.2).",
)  # fmt: skip
@click.option(
    "--tokens", type=KList(what="tokens"), help="Each is measured at each k (default: 1)."
)
@click.option(
    "--repeats",
    type=click.IntRange(1, 100_000),
    default=100,
    show_default=True,
    help="Queries measured at each setting, at least.",
)
@click.option(
    "--warmup",
    type=click.IntRange(0, 10_000),
    default=10,
    show_default=True,
    help="Queries before, which do not count.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, 100),
    default=0.0,
    show_default=True,
    help="Each setting runs at least this long (5 where power is readable).",
)
@click.option(
    "--recall",
    metavar="places|none|FILE",
    type=FilePath(),
    help="On the shipped places; or what 'tatvpr-edge evaluate --json' printed (default: what the "
    "artifact's frontier says of all settings, else places).",
)
@click.option("--threads", type=click.IntRange(0, 1024), default=0, help="Threads of one query.")
@click.option("--output", "-o", type=FilePath(), help="Folder for the files (made if missing).")
@click.option("--no-write", is_flag=True, help="Leave the artifact's own profile as it is.")
@board_options
@json_option
def command(
    artifact: str,
    target: str | None,
    ks: list[float] | None,
    tokens: list[float] | None,
    repeats: int,
    warmup: int,
    seconds: float,
    recall: str | None,
    threads: int,
    output: str | None,
    no_write: bool,
    way: Way,
    as_json: bool,
) -> None:
    """Measure latency and energy of ARTIFACT for each k.

    Writes profile.json, profile.csv, trace.json (open it in ui.perfetto.dev) and report.html, and
    puts the measured points into the artifact, where the governor finds them.
    """
    from tatvpr_edge.profile.document import add_recall, has_valid, manifest_profile, read_recall
    from tatvpr_edge.profile.recall import evaluated_recall
    from tatvpr_edge.profile.remote import profile_on
    from tatvpr_edge.runtime.profile import settings_for
    from tatvpr_edge.runtime.profiling import Plan, profile_artifact
    from tatvpr_edge.spec.artifact import read_artifact, replace_profile
    from tatvpr_edge.spec.errors import ArtifactError, DataError, UsageError
    from tatvpr_edge.zoo import ZOO

    settings = settings_for(artifact, ks, tokens)
    plan = Plan(settings, warmup=warmup, repeats=repeats, seconds=seconds)
    opened = read_artifact(artifact)
    if opened.signed and not no_write:
        raise ArtifactError(
            f"{artifact} is signed, and its signature covers the profile: profile it before "
            "signing, or give --no-write"
        )
    folder = (
        Path(output)
        if output
        else Path(f"profile-{opened.manifest.model.name}-{opened.manifest.board}")
    )
    check_new_folder(folder)
    known = evaluated_recall(opened.manifest.frontier, settings) if recall is None else None
    if recall is None and known is None:
        recall = "places"
    if recall == "places" and not (ZOO / "places" / "queries").is_dir():
        raise DataError("the shipped places are not installed: give --recall none, or a FILE")
    if recall not in (None, "places", "none"):
        known = read_recall(recall)
    if target is not None:
        if threads:
            raise UsageError("--threads belongs to this machine: a board's service has its own")
        note(f"measuring on {target} ...", as_json)
        document = profile_on(
            way.to(target),
            artifact,
            plan,
            way.root,
            way.python,
            tell=lambda line: note(line, as_json),
        )
    else:
        with BuildProgress(quiet=as_json) as progress:
            document = profile_artifact(artifact, plan, progress=progress, threads=threads)
    if recall == "places":
        known = _recall_here(artifact, settings, target, as_json)
    if known is not None:
        add_recall(document, *known)
    _write_files(document, folder)
    made = manifest_profile(document)
    before = read_artifact(artifact).manifest.profile
    # A disturbed run says less than what the governor goes by already.
    worse = has_valid(before) and not has_valid(made)
    if not (no_write or worse):
        replace_profile(artifact, made)
    if worse and not no_write:
        note(
            f"no point is valid: {artifact} keeps the profile that it had, which has valid ones; "
            "profile a quiet machine",
            as_json,
        )
    if as_json:
        print_json({**document, "files": str(folder), "written": not (no_write or worse)})
        return
    _print(document, folder, artifact, no_write or worse)


def _recall_here(
    artifact: str, settings: tuple[Setting, ...], target: str | None, quiet: bool
) -> tuple[dict[tuple[float, float], float], str] | None:
    """Recall of what runs here; a board's code does not, and recall is the same on every CPU."""
    from tatvpr_edge.profile.recall import places_recall

    if target is not None and target != LOCAL:
        note("recall: not measured over SSH; give --recall FILE", quiet)
        return None
    with BuildProgress(quiet=quiet) as progress:
        return places_recall(artifact, settings, progress)


def _write_files(document: dict[str, Any], folder: Path) -> None:
    from tatvpr_edge.profile.document import to_csv
    from tatvpr_edge.profile.report import to_html
    from tatvpr_edge.profile.trace import to_trace

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files = {
        "profile.json": json.dumps(document, indent=1, allow_nan=False) + "\n",
        "profile.csv": to_csv(document),
        "trace.json": json.dumps(to_trace(document), allow_nan=False) + "\n",
        "report.html": to_html(document),
    }
    for name, text in files.items():
        write_file(folder / name, text)


def _print(document: dict[str, Any], folder: Path, artifact: str, no_write: bool) -> None:
    def cell(value: float | None, scale: float = 1.0, digits: int = 1) -> str:
        return "-" if value is None else f"{value * scale:.{digits}f}"

    rows = [
        [
            f"{point['k']:g}",
            f"{point['tokens']:g}",
            *(f"{point['latency_ms'][name]:.2f}" for name in ("p50", "p95", "p99")),
            cell(point["energy_mj"]),
            cell(point["macs"], 1e-6),
            cell(point["recall"], 100.0),
            "yes" if point["valid"] else f"no: {point['invalid']}",
        ]
        for point in document["points"]
    ]
    heads = ["k", "tokens", "p50 ms", "p95 ms", "p99 ms", "mJ", "million MACs", "R@1 %", "valid"]
    print_table(heads, rows, right=tuple(heads[:-1]))
    device = document["device"]
    if device["power_note"]:
        say(device["power_note"])
    else:
        say(f"power: {device['power_source']} ({device['power_covers']})")
    if device["idle_note"]:
        say(device["idle_note"])
    if "recall" in document:
        say(f"R@1: {document['recall']['what']}")
    say(f"report: {folder / 'report.html'}")
    say("the artifact's own profile was left as it is" if no_write else _use(document, artifact))


def _use(document: dict[str, Any], artifact: str) -> str:
    points = document["points"]
    valid = sum(bool(point["valid"]) for point in points)
    if valid:
        return (
            f"written into {artifact}: the governor uses the {valid} valid of {len(points)} points"
        )
    return (
        f"no point is valid: the profile of {artifact} holds them marked so, and the governor has "
        "nothing to go by; profile a quiet machine"
    )
