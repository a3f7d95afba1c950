"""`tatvpr-edge finetune FRAMES`: the shipped model, trained further on frames of a user's own."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tatvpr_edge.cli import words
from tatvpr_edge.cli.output import (
    BuildProgress,
    Metres,
    json_option,
    note,
    note_left_out,
    pose_frame_option,
    print_json,
    print_table,
    refuse_given,
    write_file,
)
from tatvpr_edge.cli.paths import FilePath
from tatvpr_edge.spec.errors import UsageError
from tatvpr_edge.spec.targets import check_new_folder
from tatvpr_edge.spec.text import parse_json

if TYPE_CHECKING:
    from tatvpr_edge.models.data.own import OwnFrames
    from tatvpr_edge.models.evaluate.protocols import Trial
    from tatvpr_edge.models.train.finetune import Judgement


#: Fractions at which both models are judged.
KS = (1.0, 0.6, 0.4, 0.2)
#: Points of Recall@1 on other scenes beyond which what was lost is said.
_FORGOTTEN = 2.0


@click.command("finetune")
@click.argument("frames", type=FilePath(path_type=Path))
@click.option(
    "--from", "start", default="micro", show_default=True, shell_complete=words.weights,
    help="A shipped model's name, or a weights file (safetensors).",
)  # fmt: skip
@click.option(
    "--output", "-o", type=FilePath(file_okay=False, path_type=Path), default=Path("finetuned"),
    show_default=True, help="Folder for everything that is made.",
)  # fmt: skip
@click.option(
    "--by", type=click.Choice(["labels", "poses", "time"]), default=None,
    help="What says which frames show one place [default: the first that FRAMES has].",
)  # fmt: skip
@click.option(
    "--within", type=Metres(),
    help="By poses: frames this near show one place [default: 10m].",
)  # fmt: skip
@click.option(
    "--every", type=click.IntRange(1), default=1, show_default=True,
    help="By time: look at every n-th frame (of a video, one for each half metre or so).",
)  # fmt: skip
@click.option(
    "--held-out", type=click.FloatRange(0.05, 0.5), default=0.25, show_default=True,
    help="Share that training does not see, by which both models are judged.",
)  # fmt: skip
@click.option(
    "--steps", type=click.IntRange(1), default=None, help="Length of the training [default: 120]."
)
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True,
    help="Of all that is drawn at random.",
)  # fmt: skip
@click.option("--board", default="host", show_default=True, shell_complete=words.boards,
    help="Board to build for.")  # fmt: skip
@click.option("--no-build", is_flag=True, help="Stop at the ONNX file.")
@click.option(
    "--keep-anyway", is_flag=True, help="Export although the frames held out are not found better."
)
@click.option("--strict", is_flag=True, help="Stop at a frame that cannot be read.")
@pose_frame_option
@json_option
def command(
    frames: Path,
    start: str,
    output: Path,
    board: str,
    no_build: bool,
    keep_anyway: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a model further on FRAMES, and say whether it finds places better than before.

    FRAMES is a folder of pictures in time order (file names in the order of a drive, one folder for
    each drive), or with a poses.csv beside them that gives x and y, or a column `place`. A part is
    held out. Where that part is found better, weights, an ONNX file and an artifact are written;
    where it is not, the old weights stay. The same command continues a run that was stopped.
    """
    from tatvpr_edge.boards.loader import load as load_board
    from tatvpr_edge.cli.finetune_page import page
    from tatvpr_edge.models.checkpoint import weights_file
    from tatvpr_edge.models.data.own import Division, read_own
    from tatvpr_edge.models.train.finetune import STEPS, finetune_config, trainable
    from tatvpr_edge.models.train.run import train

    began = time.monotonic()
    check_new_folder(output)
    load_board(board)  # a name that no board has is not told after the training
    steps, seed = options.pop("steps") or STEPS, options.pop("seed")
    within = options.pop("within")
    division = Division(
        by=options.pop("by") or "", within_m=10.0 if within is None else within, **options
    )
    weights = weights_file(start)
    # Refused before all frames are read.
    trainable(weights)
    _refuse_other(output)
    note(f"reading every frame of {frames}", as_json)
    own = read_own(frames, division)
    why = f"places of {frames} are told by {own.by} (--by says by what)"
    if own.by != "poses":
        refuse_given(("--within", "--pose-frame"), why)
    if own.by != "time":
        refuse_given(("--every",), why)
    note_left_out(own.skipped, quiet=as_json)
    note(_said(own), as_json)
    run = output / "run"
    config = finetune_config(weights, run, own.trained, steps, seed)
    _claim(output, own, weights, asdict(division), steps, seed)
    from tatvpr_edge.cli.train import Watch

    trained = train(config, None if as_json else Watch().step, places=[own.places])
    assert trained is not None
    judged = _judged(own, weights, trained, as_json)
    held, others = judged
    kept = held.gain.mean > 0 or keep_anyway
    made: dict[str, Path] = {"report": output / "report.html"}
    about = str(frames), start, _said(own)
    write_file(made["report"], page(*about, judged, kept, own.skipped, run / "curves.csv"))
    if kept:
        made |= _export(trained, output, board, no_build, as_json)
    if as_json:
        print_json(_document(own, judged, kept, made, time.monotonic() - began))
        return
    _print(judged)
    click.echo(_verdict(start, held, others, kept, run / trained.name))
    for what, path in made.items():
        click.echo(f"{what}: {path}")


def _said(own: OwnFrames) -> str:
    held = own.held
    copies = (
        f"; {own.copies} of these are copies of frames to learn from, and found more easily than "
        "what was never seen: remove copies"
    )
    return (
        f"places by {own.by}: {own.trained} with {own.trained_frames} frames to learn from; "
        f"{held.places} with {len(held.gallery) + len(held.queries)} frames held out"
        f"{copies if own.copies else ''}"
    )


def _record(output: Path) -> Path:
    """What the run in ``output`` is of."""
    return output / "run" / "finetune.json"


def _refuse_other(output: Path) -> None:
    """``output`` is a run of finetune, or there is nothing in it."""
    path = _record(output)
    if not path.is_file() and {*output.glob("*"), *path.parent.glob("[!.]*")} - {path.parent}:
        raise UsageError(f"{output} exists and is no run of finetune: give another --output")


def _claim(
    output: Path, own: OwnFrames, weights: Path, division: dict[str, Any], steps: int, seed: int
) -> None:
    """``output`` belongs to one run: the same command goes on with it, another is refused."""
    wanted = {
        "frames": own.digest(),
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "division": division,
        "steps": steps,
        "seed": seed,
    }
    path = _record(output)
    if path.is_file():
        try:
            known = parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = None
        if known != wanted:
            raise UsageError(
                f"{output} holds the run of other frames, weights or options: give another "
                "--output, or remove it"
            )
        return
    from tatvpr_edge.models.checkpoint import write_atomically

    write_atomically(path, (json.dumps(wanted, indent=1) + "\n").encode())


def _judged(own: OwnFrames, before: Path, after: Path, quiet: bool) -> tuple[Judgement, Judgement]:
    from tatvpr_edge.models.train.finetune import held_trials, judge, other_trials

    def judged(name: str, trials: list[Trial]) -> Judgement:
        def report(trial: str) -> None:
            note(f"{name}, {trial}", quiet)

        return judge(name, before, after, KS, trials, report)

    return (
        judged("frames held out", held_trials(own.held)),
        judged("other scenes (the demo's)", other_trials()),
    )


def _export(
    trained: Path, output: Path, board: str, no_build: bool, quiet: bool
) -> dict[str, Path]:
    """Weights, ONNX file and artifact in ``output``; an artifact that is there is this run's."""
    from tatvpr_edge import build
    from tatvpr_edge.models.checkpoint import load_weights, write_atomically
    from tatvpr_edge.models.export import export_onnx

    made = {"weights": output / "weights.safetensors", "model": output / "model.onnx"}
    write_atomically(made["weights"], trained.read_bytes())
    export_onnx(load_weights(trained), made["model"])
    if not no_build:
        made["artifact"] = output / f"artifact-{Path(board).stem}"
        if not made["artifact"].exists():
            with BuildProgress(quiet) as progress:
                build(board, model=made["model"], output=made["artifact"], progress=progress)
    return made


def _print(judged: tuple[Judgement, Judgement]) -> None:
    rows = []
    for part in judged:
        for k in KS:
            old, new = part.before[k], part.after[k]
            rows.append([part.name, f"{k:g}", f"{old:.1f} %", f"{new:.1f} %", f"{new - old:+.1f}"])
    columns = ["Recall@1 of", "k", "before", "after", "points"]
    print_table(columns, rows, right=("before", "after", "points"))


def _verdict(start: str, held: Judgement, others: Judgement, kept: bool, trained: Path) -> str:
    gain = held.gain
    interval = f"95 % interval {gain.low:+.1f} to {gain.high:+.1f}"
    if gain.mean > 0:
        said = f"frames held out are found better by {gain.mean:.1f} points ({interval})"
        if gain.low <= 0:
            said += "; the interval holds 0, so more frames would say it more surely"
    else:
        said = f"frames held out are not found better ({gain.mean:+.1f} points, {interval})"
        said += (
            "; exported all the same"
            if kept
            else f": {start} stays, nothing is exported (--keep-anyway exports {trained})"
        )
    if others.gain.mean < -_FORGOTTEN:
        said += f"; other scenes lost {-others.gain.mean:.1f} points"
    return said


def _document(
    own: OwnFrames,
    judged: tuple[Judgement, Judgement],
    kept: bool,
    made: dict[str, Path],
    seconds: float,
) -> dict[str, Any]:
    held = own.held
    return {
        "by": own.by,
        "places": own.trained,
        "frames": own.trained_frames,
        "held_out": {
            "places": held.places,
            "frames": len(held.gallery) + len(held.queries),
            "copies": own.copies,
        },
        "skipped": [asdict(frame) for frame in own.skipped],
        "recall@1": {
            name: {
                "before": {f"{k:g}": v for k, v in part.before.items()},
                "after": {f"{k:g}": v for k, v in part.after.items()},
                "gain": asdict(part.gain),
            }
            for name, part in zip(("held_out", "others"), judged, strict=True)
        },
        "kept": kept,
        "seconds": seconds,
        **{what: str(path) for what, path in made.items()},
    }
