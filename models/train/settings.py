"""What decides the weights of a stage: settings, and what the files that they name hold.

A checkpoint keeps it, so that a stage is never taken for one by other settings (``loop.py``).
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

from tatvpr_edge.models.checkpoint import weights_file
from tatvpr_edge.models.teachers import files_of
from tatvpr_edge.models.train.config import TrainConfig
from tatvpr_edge.models.train.loop import CONTENTS, Stage
from tatvpr_edge.models.train.made_views import hashes_of
from tatvpr_edge.models.train.metric import MetricStage
from tatvpr_edge.models.train.views import CARD


def settings_of(config: TrainConfig, stage: Stage) -> dict[str, Any]:
    """What decides the weights of a stage, by the names of a training file."""
    tables = dataclasses.asdict(config)
    tables["run"] = {"seed": config.run.seed, "precision": config.run.precision}
    tables[CONTENTS] = _contents(config, stage.name)
    if isinstance(stage, MetricStage):
        tables[CONTENTS] |= _frames_of(config, stage)
    else:
        del tables["metric"]
    flat: dict[str, Any] = {}

    def flatten(value: Any, name: str) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                flatten(inner, f"{name}.{key}".strip("."))
        else:
            flat[name] = repr(value)

    for number, table in enumerate(tables.pop("data")):
        flatten(table, f"data[{number}]")
    flatten(tables, "")
    return flat


def _contents(config: TrainConfig, stage: str) -> dict[str, str]:
    """SHA-256 of the weights that a training file names, trained again they keep their name, and
    of the card of its views. A refit's teacher may be gone after its refit."""
    files = {config.model.init: weights_file(config.model.init)} if config.model.init else {}
    asked = [config.refit.teacher]
    if stage == "metric":
        asked += [config.metric.teacher, config.metric.anchor]
    for teacher in asked:
        files |= files_of(teacher)
    if config.distil.views and (stage == "distil" or config.metric.distil_weight):
        files["distil.views"] = Path(config.distil.views) / CARD
    return hashes_of(files)


def _frames_of(config: TrainConfig, stage: MetricStage) -> dict[str, str]:
    """SHA-256 of what tables take of each folder: names, sizes and places of frames, but no times,
    which change where a folder is copied. Of stage 1 the card of its views knows."""
    tables = [table for table in config.data if table.share]
    found: dict[str, hashlib._Hash] = {}
    for table, source in zip(tables, stage.sources, strict=True):
        digest = found.setdefault(f"frames of {table.root}", hashlib.sha256())
        for path in source.places.paths:
            name = os.path.relpath(path, table.root)
            digest.update(os.fsencode(f"{name}\0{path.stat().st_size}\n"))
        for members in source.places.places:
            digest.update(members.tobytes() + b"\n")
    return {name: digest.hexdigest()[:12] for name, digest in found.items()}
