"""`tatvpr-edge evaluate`: recall for each k, on a prepared set or on two folders of anybody's."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tatvpr_edge.cli import words
from tatvpr_edge.cli.evaluate_sequences import followed
from tatvpr_edge.cli.output import (
    BuildProgress,
    KList,
    Metres,
    json_option,
    note,
    note_left_out,
    pose_frame_option,
    print_json,
    print_table,
    refuse_given,
    say,
    views_option,
)
from tatvpr_edge.cli.paths import FilePath, OutputFile
from tatvpr_edge.cli.recordings import recording_options
from tatvpr_edge.spec.errors import DataError, UsageError
from tatvpr_edge.spec.maptypes import KINDS
from tatvpr_edge.spec.shortage import TORCH_MB, check_room
from tatvpr_edge.spec.targets import PLOTS, check_apart, check_new_folder, check_target

if TYPE_CHECKING:
    from tatvpr_edge.mapping import Picking
    from tatvpr_edge.models.evaluate.describers import Describer
    from tatvpr_edge.models.evaluate.folders import Comparison


#: Where the page goes that stands for recall.
ANSWERS = "tatvpr-answers.html"
BASELINES = ("gray32", "hog", "efficientnet-lite0-gem")
#: Options that mean nothing to folders of one's own, and those that mean nothing to a protocol.
_OF_PROTOCOLS = ("--tokens", "--baseline", "--floors", "--stress", "--sequence", "--plot")
_OF_FOLDERS = (
    *("--top", "--html", "--csv", "--descriptors", "--strict"),
    *("--topic", "--poses-topic", "--distance", "--every"),
)


@click.command("evaluate")
@click.argument("folders", nargs=-1, metavar="[MAP QUERIES]", type=FilePath(path_type=Path))
@click.option(
    "--model", "models", multiple=True,
    help="A shipped name or a weights file (safetensors); repeatable.",
)  # fmt: skip
@click.option(
    "--data", type=FilePath(path_type=Path), help="The data set's folder, for --protocol."
)
@click.option(
    "--protocol", "protocols", multiple=True,
    help="tower-shift, tower-floor, rendered, utm (docs/evaluation.md); repeatable.",
)  # fmt: skip
@click.option(
    "--artifact", "artifacts", multiple=True, type=FilePath(path_type=Path),
    shell_complete=words.artifacts,
    help="An artifact built for this machine, run by the runtime; repeatable.",
)  # fmt: skip
@click.option(
    "--k", "ks", type=KList(), default="1,.6,.4,.2", show_default=True, help="Each is evaluated."
)
@click.option(
    "--tokens", "shares", type=KList(what="tokens"), default="1", show_default=True,
    help="Shares of the tokens kept; models and artifacts are evaluated at each.",
)  # fmt: skip
@click.option(
    "--baseline", "baselines", multiple=True, type=click.Choice([*BASELINES, "all", "none"]),
    default=("all",), show_default=True, help="What stands beside the models; repeatable.",
)  # fmt: skip
@click.option(
    "--within", type=Metres(),
    help="MAP QUERIES and utm: an answer is right within this [default: 25m].",
)  # fmt: skip
@click.option(
    "--top", type=click.IntRange(1), default=5, show_default=True,
    help="MAP QUERIES: answers shown and listed of each query.",
)  # fmt: skip
@click.option(
    "--html", type=OutputFile(),
    help="MAP QUERIES: page of pictures (default, where there is no recall: tatvpr-answers.html).",
)  # fmt: skip
@click.option(
    "--csv", "table", type=OutputFile(),
    help="MAP QUERIES: a table of all answers.",
)  # fmt: skip
@click.option(
    "--descriptors", type=FilePath(file_okay=False, path_type=Path),
    help="MAP QUERIES: a folder for descriptors as .npy.",
)  # fmt: skip
@click.option(
    "--strict", is_flag=True,
    help="MAP QUERIES: stop at a frame that cannot be read, or a place without a position.",
)  # fmt: skip
@views_option
@pose_frame_option
@recording_options
@click.option("--floors", default="", help="tower: these training floors instead of validation.")
@click.option(
    "--stress", is_flag=True,
    help="Also queries that are gray, dark, occluded, turned ... (docs/evaluation.md).",
)  # fmt: skip
@click.option(
    "--sequence", type=click.IntRange(2, 1000),
    help="tower-shift, --artifact: also so many frames in order, calibrated, beside single ones.",
)  # fmt: skip
@click.option(
    "--plot", type=OutputFile(*PLOTS), help="Write recall against compute (.png, .svg or .pdf)."
)
@click.option("--no-time", is_flag=True, help="Leave out milliseconds, so that output repeats.")
@json_option
def command(
    folders: tuple[Path, ...],
    models: tuple[str, ...],
    data: Path | None,
    protocols: tuple[str, ...],
    artifacts: tuple[Path, ...],
    ks: list[float],
    shares: list[float],
    baselines: tuple[str, ...],
    within: float | None,
    views: bool,
    pose_frame: str | None,
    floors: str,
    stress: bool,
    sequence: int | None,
    plot: Path | None,
    no_time: bool,
    as_json: bool,
    picking: Picking | None,
    **written: Any,
) -> None:
    """Judge models and baselines on a data set, or an artifact on two folders of your own.

    MAP and QUERIES are folders of frames, or recordings (ROS bags, videos): for every query the
    best places of the map, and recall where both say where they were taken (a poses.csv, names, a
    bag's --poses-topic). Without, a page of pictures shows the answers.

    --data and --protocol judge models (docs/evaluation.md).
    """
    if folders:
        if len(folders) != 2 or data or protocols or models or len(artifacts) > 1:
            raise click.UsageError(
                "give two folders, MAP and QUERIES, and at most one --artifact; or --data and "
                "--protocol without folders"
            )
        # What asks for nothing is no mistake: --tokens 1, --baseline none, and --no-time.
        nothing = {"--tokens": shares == [1.0], "--baseline": set(baselines) <= {"none"}}
        meant = tuple(option for option in _OF_PROTOCOLS if not nothing.get(option))
        refuse_given(meant, "for --protocol, not for folders of your own")
        artifact = str(artifacts[0]) if artifacts else None
        _two_folders(folders, artifact, ks, within, views, pose_frame, as_json, picking, **written)
        return
    if data is None or not protocols:
        raise click.UsageError("give two folders, MAP and QUERIES; or --data and --protocol")
    refuse_given(_OF_FOLDERS, "for MAP QUERIES, not for --protocol")
    from tatvpr_edge.models.evaluate.plot import need_matplotlib, plot_pareto
    from tatvpr_edge.models.evaluate.protocols import protocol, trials_of
    from tatvpr_edge.models.evaluate.run import evaluate

    for name in protocols:
        protocol(name)
    if plot is not None:
        need_matplotlib()
    if sequence is not None and ("tower-shift" not in protocols or not artifacts):
        raise click.UsageError(
            "--sequence needs frames in an order and code that follows: --protocol tower-shift "
            "and --artifact"
        )
    describers = _models(models, ks, shares) + _artifacts(artifacts, ks, shares)
    describers += _baselines(baselines)
    if not describers:
        raise UsageError("nothing to evaluate: give --model or --baseline")
    chosen = tuple(f for f in floors.split(",") if f)
    document: dict[str, Any] = {"data": str(data), "protocols": {}}
    for name in dict.fromkeys(protocols):
        results = evaluate(
            describers,
            trials_of(name, data, chosen, within, pose_frame),
            report=None if as_json else note,
            timed=not no_time,
            stress=stress,
            views=views,
        )
        values = {model: result.to_json() for model, result in results.items()}
        document["protocols"][name] = values
        if not as_json:
            _print(name, values)
    if sequence is not None:
        judged = {
            str(path): followed(path, data, ks, sequence, chosen, views, as_json)
            for path in artifacts
        }
        document["sequences"] = {"frames": sequence, "artifacts": judged}
    if as_json:
        print_json(document)
    if plot is not None:  # last: what was found is not lost with it
        every = document["protocols"]
        for name, values in every.items():
            target = plot if len(every) == 1 else plot.with_stem(f"{plot.stem}-{name}")
            plot_pareto(values, target, name)


def _two_folders(
    folders: tuple[Path, ...],
    artifact: str | None,
    ks: list[float],
    within: float | None,
    views: bool,
    pose_frame: str | None,
    as_json: bool,
    picking: Picking | None,
    *,
    top: int,
    html: Path | None,
    table: Path | None,
    descriptors: Path | None,
    strict: bool,
) -> None:
    from tatvpr_edge.cli.answers import write_csv, write_descriptors, write_page
    from tatvpr_edge.cli.hosting import open_localizer
    from tatvpr_edge.mapping.poses import POSES
    from tatvpr_edge.models.evaluate.folders import compare_folders
    from tatvpr_edge.models.evaluate.recall import WITHIN_M

    # Path.resolve raises at a loop of links, before Python 3.13.
    given = (path for path in (html, table, descriptors) if path is not None)
    written = [Path(os.path.realpath(path)) for path in given]
    if len(set(written)) < len(written):
        raise click.UsageError("--html, --csv and --descriptors want a path each")
    for target in written:  # --csv is no table of positions to read
        check_apart(target, (*folders, *(folder / POSES for folder in folders)))
    if descriptors is not None:
        check_new_folder(descriptors)

    def check_page() -> None:
        try:
            check_target(Path(ANSWERS))
        except DataError as error:
            raise DataError(f"{error}: name another page with --html") from None

    with open_localizer(artifact, as_json) as localizer, BuildProgress(as_json) as progress:
        for k in ks:
            localizer.k = k  # refuses what the artifact was not built for
        made = compare_folders(
            localizer,
            folders[0],
            folders[1],
            ks,
            within_m=WITHIN_M if within is None else within,
            top=top,
            views=views,
            pose_frame=pose_frame,
            strict=strict,
            picking=picking,
            progress=progress,
            unjudged=check_page if html is None and not as_json else None,
        )
        model_hash = localizer.artifact.manifest.model.hash
    if html is None and made.counted is None and not as_json:
        html = Path(ANSWERS)
    if html is not None:
        write_page(html, made, str(folders[0]), str(folders[1]))
    if table is not None:
        write_csv(table, made)
    if descriptors is not None:
        descriptors.mkdir(parents=True, exist_ok=True)
        for name, side in (("map", made.map), ("queries", made.queries)):
            names = [frame.name for frame in side.files]
            for k, values in side.descriptors.items():
                target = descriptors / f"{name}-k{k:g}.npy"
                write_descriptors(target, values, names, model_hash, k)
    if as_json:
        print_json(_comparison(made, model_hash))
        return
    skipped = (*made.map.skipped, *made.queries.skipped)
    kept = len(made.map.files) + len(made.queries.files)
    note_left_out(skipped, kept + len(skipped), strict=True)
    if own := made.queries_of_map:
        note(
            f"{own} of {len(made.queries.files)} queries are frames of the map, and find themselves"
        )
    if made.counted is None:
        say(f"no recall: {made.why_no_recall}")
    else:
        say(
            f"{len(made.map.files)} places; {made.counted} of {len(made.queries.files)} queries "
            f"lie within {made.within_m:g} m of one and count"
        )
        if unplaced := made.queries_unplaced:
            note(f"{unplaced} of {len(made.queries.files)} queries have no position: none counts")
        rows = [[f"{a.k:g}", *(f"{a.recall(n):.1f} %" for n in (1, 5, 10))] for a in made.answers]
        print_table(["k", "R@1", "R@5", "R@10"], rows, right=("R@1", "R@5", "R@10"))
    for what, path in (("page", html), ("table", table), ("descriptors", descriptors)):
        if path is not None:
            say(f"{what}: {path}")


def _comparison(made: Comparison, model_hash: str) -> dict[str, Any]:
    answers = made.answers
    return {
        "places": len(made.map.files),
        "queries": len(made.queries.files),
        "queries_counted": made.counted,
        "queries_unplaced": made.queries_unplaced,
        "queries_of_map": made.queries_of_map,
        "within_m": made.within_m,
        "why_no_recall": made.why_no_recall or None,
        "model_hash": model_hash,
        "recall": {f"{a.k:g}": {f"@{n}": a.recall(n) for n in (1, 5, 10)} for a in answers},
        "best": {
            f"{a.k:g}": {
                frame.name: made.map.files[int(a.places[q, 0])].name
                for q, frame in enumerate(made.queries.files)
            }
            for a in answers
        },
        "skipped": [asdict(frame) for frame in (*made.map.skipped, *made.queries.skipped)],
    }


def _models(names: tuple[str, ...], ks: list[float], shares: list[float]) -> list[Describer]:
    if names:
        check_room(TORCH_MB, "PyTorch")
    from tatvpr_edge.models.checkpoint import load_weights, weights_file
    from tatvpr_edge.models.evaluate.describers import ModelDescriber

    made: list[Describer] = []
    labels = set(BASELINES)
    for name in dict.fromkeys(names):
        path = weights_file(name)
        label = path.stem if name.endswith(".safetensors") else name
        if label in labels:
            label = str(path)
        labels.add(label)
        model = load_weights(path)
        if min(shares) < 1 and not model.config.backbone.keep_after:
            raise UsageError(f"{name} has no KeepTokens: it keeps all tokens, --tokens says fewer")
        fractions = ks if model.config.backbone.ternary else [1.0]
        made += [ModelDescriber(model, fractions, label, tokens) for tokens in shares]
    return made


def _artifacts(paths: tuple[Path, ...], ks: list[float], shares: list[float]) -> list[Describer]:
    from tatvpr_edge.models.evaluate.describers import ArtifactDescriber

    made: list[Describer] = []
    for path, name in _artifact_names(paths).items():
        made += [ArtifactDescriber(path, ks, name, tokens) for tokens in shares]
    return made


def _artifact_names(paths: tuple[Path, ...]) -> dict[Path, str]:
    """Each artifact once, and its name in tables: model and board, the folder's name where those
    are another's too, and the whole path where that is."""
    from tatvpr_edge.spec.artifact import read_artifact

    said: dict[Path, list[str]] = {}
    for path in dict.fromkeys(paths):
        manifest = read_artifact(path).manifest
        made = f"{manifest.model.name} on {manifest.board}"
        said[path] = [made, f"{made} ({path.absolute().name})", f"{made} ({path})"]
    names: dict[Path, str] = {}
    for path, own in said.items():
        others = [other for key, other in said.items() if key != path]
        names[path] = next(
            (name for at, name in enumerate(own) if name not in (o[at] for o in others)), own[-1]
        )
    return names


def _baselines(names: tuple[str, ...]) -> list[Describer]:
    from tatvpr_edge.models.evaluate import describers
    from tatvpr_edge.models.teachers import create_teacher
    from tatvpr_edge.models.teachers.efficientnet import LITE0_MACS, LITE0_MB

    wanted = BASELINES if "all" in names else tuple(n for n in dict.fromkeys(names) if n != "none")
    made: list[Describer] = []
    for name in wanted:
        if name == "gray32":
            made.append(describers.Gray32())
        elif name == "hog":
            made.append(describers.HOG())
        else:
            teacher = create_teacher(name)
            made.append(describers.TeacherDescriber(teacher, LITE0_MB, LITE0_MACS))
    return made


def _print(protocol: str, values: dict[str, dict[str, Any]]) -> None:
    rows = []
    for model, v in values.items():
        for k in v["recall@1"]:
            wide = v.get("recall@1_wide", {}).get(k)
            rate = v.get("recall_per_mb", {}).get(k)
            against = v["against_dense"].get(k)
            rows.append(
                [
                    model,
                    k,
                    *(f"{v[f'recall@{n}'][k]:.1f}" for n in (1, 5, 10)),
                    "-" if wide is None else f"{wide:.1f}",
                    *(f"{v[kind]['recall@1'][k]:.1f}" for kind in KINDS),
                    f"{v['one_map']['recall@1'][k]:.1f}",
                    f"{v['two_bands']['recall@1'][k]:.1f}",
                    "-"
                    if against is None
                    else f"{against['mean']:+.1f} [{against['low']:+.1f}, {against['high']:+.1f}]",
                    f"{v['model_mb']:.2f}" if v["model_mb"] else "-",
                    "-" if rate is None else f"{rate:.1f}",
                    f"{v['macs'][k] / 1e6:.0f} M" if v["macs"][k] else "-",
                    f"{v['milliseconds'][k]:.1f}" if v["milliseconds"] else "-",
                ]
            )
    one = next(iter(values.values()))
    # What knows one k alone is compared with nothing.
    most = max(values.values(), key=lambda v: len(v["recall@1"]))
    top = f"k={max(map(float, most['recall@1'])):g}"
    say(
        f"{protocol}: recall in percent of the {one['queries_counted']} of {one['queries']} "
        "queries that have a right answer in the map"
    )
    columns = [
        "model", "k", "R@1", "R@5", "R@10", "R@1 wide", *KINDS, f"map {top}",
        "two bands", f"against {top} [95 %]", "MB", "R@1/MB", "MACs", "ms",
    ]  # fmt: skip
    print_table(columns, rows, right=tuple(columns[1:]))
    _print_confidence(protocol, values)
    _print_stress(protocol, values)


def _print_confidence(protocol: str, values: dict[str, dict[str, Any]]) -> None:
    """How well a score tells whether its answer is right."""
    names = ("auroc", "average_precision", "recall_at_full_precision", "ece")
    rows = []
    for model, v in values.items():
        for k in v["recall@1"]:
            for kind in KINDS:
                measured = v["confidence"][kind][k]
                cells = [
                    "-" if of[name] is None else f"{of[name]:.3f}"
                    for of in (measured["held"], measured["with_unknown"])
                    for name in names
                ]
                rows.append([model, k, kind, *cells])
    say(
        f"{protocol}: whether the best answer is right, told by its score; on queries whose place "
        "is in the map, and (+) with every query asked once more of the map without its place"
    )
    columns = ["AUROC", "AP", "R@P100", "ECE"]
    columns = ["model", "k", "map", *columns, *(f"{column} +" for column in columns)]
    print_table(columns, rows, right=tuple(columns[1:]))


def _print_stress(protocol: str, values: dict[str, dict[str, Any]]) -> None:
    """Recall@1 of each stress row, where they were asked for."""
    names = next((list(v["stress"]) for v in values.values() if "stress" in v), [])
    if not names:
        return
    rows = [
        [model, k, f"{v['recall@1'][k]:.1f}", *(f"{v['stress'][name][k]:.1f}" for name in names)]
        for model, v in values.items()
        for k in v["recall@1"]
    ]
    say(f"{protocol}, first trial under stress: recall@1 (mirrored: less is more)")
    columns = ["model", "k", "all trials", *names]
    print_table(columns, rows, right=tuple(columns[1:]))
