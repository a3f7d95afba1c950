"""The host build of the model inside an artifact for another machine.

Maps are made where the frames are, with the bytes that the board will compute: the same model
built for this machine, known by the model's hash, and for the same k: maps are described, and
queries asked, at no other.
"""

from __future__ import annotations

from pathlib import Path

from tatvpr_edge.compilers.build import build_artifact
from tatvpr_edge.compilers.job import Progress
from tatvpr_edge.compilers.linux import HOST, interface_hashes
from tatvpr_edge.compilers.source import find_source
from tatvpr_edge.runtime.cache import cache_folder, host_artifact
from tatvpr_edge.runtime.engine import runs_here
from tatvpr_edge.spec.artifact import Artifact, read_artifact
from tatvpr_edge.spec.atomic import staging, take_place
from tatvpr_edge.spec.errors import ArtifactError, ModelError
from tatvpr_edge.spec.manifest import Manifest

_REMEDY = (
    "build that model for this machine (tatvpr-edge build --board host --model FILE.onnx --output "
    "host) and give --artifact host"
)


def host_twin(artifact: Artifact, progress: Progress | None = None) -> Path:
    """The folder of an artifact for this machine of the same model, range of k and C interface:
    one that is cached, or one that is built now and kept.

    Raises:
        ModelError: the model's ONNX file is not known here, or has changed since.
        TatvprError: as a build.
    """
    wanted, k_range = artifact.manifest.model.hash, artifact.manifest.k_range
    kept = cache_folder("artifacts") / "{}-{:g}-{:g}".format(wanted, *k_range)
    for folder in (host_artifact(), kept):
        if _is_twin(folder, artifact.manifest):
            return folder
    onnx_file = find_source(artifact)
    if onnx_file is None:
        raise ModelError(
            f"{artifact.root} is for {artifact.manifest.board}, and the ONNX file of its model "
            f"{artifact.manifest.model.name!r} is not known here: {_REMEDY}"
        )
    kept.parent.mkdir(parents=True, exist_ok=True)
    with staging(kept) as scratch:
        place = scratch / "new"
        made = build_artifact(
            HOST, model=onnx_file, output=place, k_range=k_range, progress=progress
        )
        found = read_artifact(made).manifest.model.hash
        if found != wanted:
            raise ModelError(
                f"{onnx_file} is another model ({found[:12]}) than {artifact.root} holds "
                f"({wanted[:12]}): {_REMEDY}"
            )
        take_place(made, kept)  # of one that is damaged, or made by another process meanwhile
    return kept


def _is_twin(folder: Path, wanted: Manifest) -> bool:
    try:
        found = read_artifact(folder)
    except ArtifactError:
        return False
    same = found.manifest.model.hash == wanted.model.hash
    if not (same and found.manifest.k_range == wanted.k_range and runs_here(found)):
        return False
    # What an older release built lacks functions, or judges sequences otherwise.
    entries = {entry.path: entry.sha256 for entry in found.manifest.files}
    return all(entries.get(path) == sha256 for path, sha256 in interface_hashes().items())
