"""``evaluate --sequence``: single frames beside sequences, each floor judged by the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tatvpr_edge.cli.output import note, print_table, say
from tatvpr_edge.mapping.calibrate import PRECISION
from tatvpr_edge.spec.errors import DataError
from tatvpr_edge.spec.maptypes import KINDS


def followed(
    artifact: Path,
    data: Path,
    ks: list[float],
    frames: int,
    floors: tuple[str, ...],
    views: bool,
    quiet: bool,
) -> dict[str, Any]:
    """Calibrated answers of single frames and of sequences; by kind of map, "single" or
    "sequence", and k; None for a kind whose answers are too few to learn from."""
    from tatvpr_edge.models.evaluate.calibrated import (
        Tower,
        describe,
        judge,
        judge_sequences,
        on_a_line,
    )
    from tatvpr_edge.models.evaluate.protocols import PERTURBATION_SEEDS
    from tatvpr_edge.runtime import Localizer

    gallery, queries = on_a_line(data, floors or None)
    made: dict[str, Any] = {}
    with Localizer(artifact) as localizer:
        if not quiet:
            note(f"sequences: {artifact}")
        described = describe(localizer, data, ks, PERTURBATION_SEEDS, floors or None, views)
        for kind in KINDS:
            tower = Tower(localizer, kind, gallery, queries, described)
            try:
                ways = {
                    "single": judge(tower, PRECISION),
                    "sequence": judge_sequences(tower, frames, PRECISION),
                }
            except DataError as error:  # a model that finds too little to learn from
                note(f"{artifact}, {kind} map: not judged: {error}")
                made[kind] = None
                continue
            made[kind] = {
                way: {f"{k:g}": row for k, row in rows.items()} for way, rows in ways.items()
            }
    if not quiet:
        _print(artifact, frames, made)
    return made


def _print(artifact: Path, frames: int, made: dict[str, Any]) -> None:
    rows = []
    for kind, ways in made.items():
        for way, by_k in (ways or {}).items():
            for k, of in by_k.items():
                rows.append(
                    [
                        kind,
                        k,
                        "1" if way == "single" else str(frames),
                        f"{100 * of['recall@1']:.1f}",
                        f"{of['auroc']:.3f}",
                        f"{of['ece']:.3f}",
                        f"{100 * of['accepted_of_answerable']:.1f} %",
                        f"{100 * of['precision']:.0f} %" if of["accepted"] else "-",
                        f"{100 * of['accepted_of_unknown']:.1f} %",
                    ]
                )
    say(
        f"{artifact}: clips played in order, each floor judged by a calibration of the others; "
        f"accepted at {100 * PRECISION:g} %, and how much of it is right"
    )
    columns = ["map", "k", "frames", "R@1", "AUROC", "ECE", "accepted", "right", "of lacking"]
    print_table(columns, rows, right=tuple(columns[1:]))
