"""Which ONNX file a model hash came from: a note in the cache that every build leaves."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tatvpr_edge import zoo
from tatvpr_edge.runtime.cache import cache_folder
from tatvpr_edge.spec.artifact import Artifact, read_artifact
from tatvpr_edge.spec.atomic import replacing
from tatvpr_edge.spec.text import parse_json


def remember_model(artifact: Path, onnx_file: Path) -> None:
    """Note where the model of a fresh artifact came from; a read-only home costs the note only."""
    model = read_artifact(artifact).manifest.model
    note = _note(model.hash)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        with replacing(note) as sink:
            sink.write(json.dumps({"onnx": os.path.abspath(onnx_file)}).encode("ascii"))
    except OSError:
        return


def find_source(artifact: Artifact) -> Path | None:
    """The ONNX file of an artifact's model: as it was noted, else the shipped one of its name."""
    model = artifact.manifest.model
    try:
        path = Path(parse_json(_note(model.hash).read_text())["onnx"])
        if path.is_file():
            return path
    except (OSError, ValueError, KeyError, TypeError):
        pass  # never noted, or the cache was cleared
    return zoo.path(model.name) if model.name in zoo.names() else None


def _note(model_hash: str) -> Path:
    return cache_folder("models") / f"{model_hash}.json"
