"""The host build of the model inside an artifact for another machine.

Maps are made where the frames are, with the bytes that the board will compute: the same model
built for this machine, known by the model's hash.
"""

from __future__ import annotations

from pathlib import Path

from tatvpr_edge.compilers.build import build_artifact
from tatvpr_edge.compilers.job import Progress
from tatvpr_edge.compilers.linux import HOST
from tatvpr_edge.compilers.source import find_source
from tatvpr_edge.runtime.cache import cache_folder, host_artifact
from tatvpr_edge.runtime.engine import runs_here
from tatvpr_edge.spec.artifact import Artifact, read_artifact
from tatvpr_edge.spec.atomic import staging, take_place
from tatvpr_edge.spec.errors import ArtifactError, ModelError

_REMEDY = (
    "build that model for this machine (tatvpr-edge build --board host --model FILE.onnx --output "
    "host) and give --artifact host"
)


def host_twin(artifact: Artifact, progress: Progress | None = None) -> Path:
    """The folder of an artifact for this machine of the same model: one that is cached, or one
    that is built now and kept.

    Raises:
        ModelError: the model's ONNX file is not known here, or has changed since.
        TatvprError: as a build.
    """
    wanted = artifact.manifest.model.hash
    kept = cache_folder("artifacts") / wanted
    for folder in (host_artifact(), kept):
        if _is_twin(folder, wanted):
            return folder
    onnx_file = find_source(artifact)
    if onnx_file is None:
        raise ModelError(
            f"{artifact.root} is for {artifact.manifest.board}, and the ONNX file of its model "
            f"{artifact.manifest.model.name!r} is not known here: {_REMEDY}"
        )
    kept.parent.mkdir(parents=True, exist_ok=True)
    with staging(kept) as scratch:
        made = build_artifact(HOST, model=onnx_file, output=scratch / "new", progress=progress)
        found = read_artifact(made).manifest.model.hash
        if found != wanted:
            raise ModelError(
                f"{onnx_file} is another model ({found[:12]}) than {artifact.root} holds "
                f"({wanted[:12]}): {_REMEDY}"
            )
        take_place(made, kept)  # of one that is damaged, or made by another process meanwhile
    return kept


def _is_twin(folder: Path, model_hash: str) -> bool:
    try:
        found = read_artifact(folder)
    except ArtifactError:
        return False
    return found.manifest.model.hash == model_hash and runs_here(found)
