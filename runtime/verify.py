"""``verify``: signature, hashes and golden vectors of an artifact, on the machine that asks.

``python -m tatvpr_edge.runtime verify ARTIFACT [--board NAME] [--json]`` needs NumPy alone, so
that a board runs the same check as the host (``tatvpr-edge verify``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tatvpr_edge.runtime.backends import Backend
from tatvpr_edge.runtime.backends.cpu import CpuBackend
from tatvpr_edge.runtime.commandline import Parser
from tatvpr_edge.runtime.engine import runs_here
from tatvpr_edge.runtime.frame import check_frame, golden_pixels
from tatvpr_edge.runtime.signature import artifact_verifier
from tatvpr_edge.spec.artifact import Artifact, identity, once_more, read_artifact
from tatvpr_edge.spec.errors import ArtifactError
from tatvpr_edge.spec.manifest import RANDOM, RANDOM_NOTE, GoldenPoint


@dataclass(frozen=True)
class GoldenResult:
    """One golden point against what this machine computed.

    ``identical``: every byte is equal. ``lowest_cosine`` is over the frames, and must reach
    ``min_cosine`` where bytes may differ.
    """

    k: float
    tokens: float
    kernels: str
    identical: bool
    lowest_cosine: float
    min_cosine: float


@dataclass(frozen=True)
class Verified:
    """What was checked. ``golden_note``: why golden vectors were not run; None when they were."""

    artifact: str
    board: str
    model: str
    model_hash: str
    weights: str
    files: int
    signature: str
    golden: tuple[GoldenResult, ...]
    golden_note: str | None


def verify_artifact(path: str | Path, board: str | None = None) -> Verified:
    """Check an artifact: every file, the signature, and the golden vectors where its code runs.
    Where another artifact takes its place meanwhile, that one is verified instead, whole.

    Raises:
        ArtifactError, SignatureError: by name of the fault, as ``read_artifact``; or a golden
            vector that this machine does not reproduce.
    """
    return once_more(lambda: identity(path), lambda: _verified(path, board))


def _verified(path: str | Path, board: str | None) -> Verified:
    verifier = artifact_verifier()
    artifact = read_artifact(path, board=board, verify_signature=verifier)
    manifest = artifact.manifest
    if verifier is not None:
        signature = "good"
    else:
        signature = "present, no key trusted here" if artifact.signed else "none"
    note = _reason_not_to_run(artifact)
    return Verified(
        artifact=str(path),
        board=manifest.board,
        model=manifest.model.name,
        model_hash=manifest.model.hash,
        weights=manifest.model.weights,
        files=len(manifest.files),
        signature=signature,
        golden=tuple(check_golden(artifact)) if note is None else (),
        golden_note=note,
    )


def _reason_not_to_run(artifact: Artifact) -> str | None:
    if runs_here(artifact):
        return None
    return f"not run ({artifact.manifest.code.triple.split('-')[0]})"


def check_golden(artifact: Artifact) -> list[GoldenResult]:
    """Run every golden point with every kernel variant that this processor can run.

    Raises:
        ArtifactError: a descriptor differs; the text names the point and the kernels.
    """
    results: list[GoldenResult] = []
    for kernels in CpuBackend(artifact).library.usable_kernels():
        backend = CpuBackend(artifact, kernels=kernels)
        results += check_backend(artifact, backend, artifact.manifest.golden.points, kernels)
    return results


def check_backend(
    artifact: Artifact, backend: Backend, points: Sequence[GoldenPoint], kernels: str = ""
) -> list[GoldenResult]:
    """Run golden points through a live backend.

    Raises:
        ArtifactError: a descriptor differs; the text names the point and the kernels.
    """
    golden, size = artifact.manifest.golden, artifact.manifest.model.descriptor_size
    frames = [check_frame(golden_pixels(artifact, frame)) for frame in golden.frames]
    results = []
    for point in points:
        wanted = np.frombuffer(artifact.read(point.path), "<f4").reshape(-1, size)
        made = np.stack([backend.describe(frame, point.k, point.tokens) for frame in frames])
        result = GoldenResult(
            k=point.k,
            tokens=point.tokens,
            kernels=kernels or backend.name,
            identical=made.tobytes() == wanted.tobytes(),
            lowest_cosine=_lowest_cosine(made, wanted),
            min_cosine=point.min_cosine,
        )
        # Only the CPU library gives the same bytes everywhere.
        _judge(result, golden.exact and backend.name == "cpu")
        results.append(result)
    return results


def _lowest_cosine(made: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    first, second = made.astype(np.float64), wanted.astype(np.float64)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    if not lengths.all():
        return 0.0
    return float(((first * second).sum(axis=1) / lengths).min())


def _judge(result: GoldenResult, exact: bool) -> None:
    if result.identical or (not exact and result.lowest_cosine >= result.min_cosine):
        return
    bound = "every byte must be equal" if exact else f"{result.min_cosine:.6f} is the bound"
    raise ArtifactError(
        f"golden vectors differ at k={result.k:g}, tokens={result.tokens:g}, kernels "
        f"{result.kernels}: cosine {result.lowest_cosine:.6f}, {bound}; build the artifact again"
    )


def report(verified: Verified) -> str:
    """Lines for a person."""
    lines = [
        f"{verified.artifact}: {verified.model} for {verified.board}, model "
        f"{verified.model_hash[:12]}",
        f"files: {verified.files}, all as the manifest says",
        f"signature: {verified.signature}",
    ]
    if verified.weights == RANDOM:
        lines.append(RANDOM_NOTE)
    if verified.golden_note is not None:
        lines.append(f"golden: {verified.golden_note}")
    else:
        kernels = sorted({result.kernels for result in verified.golden})
        points = len(verified.golden) // len(kernels)
        same = all(result.identical for result in verified.golden)
        agreement = (
            "byte for byte"
            if same
            else f"cosine at least {min(result.lowest_cosine for result in verified.golden):.6f}"
        )
        lines.append(f"golden: {points} points x {len(kernels)} kernels agree {agreement}")
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """``python -m tatvpr_edge.runtime verify``: as every command's ``main``."""
    parser = Parser("python -m tatvpr_edge.runtime verify")
    parser.add_argument("artifact")
    parser.add_argument("--board", help="refuse an artifact for another board")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args(argv)
    verified = verify_artifact(arguments.artifact, board=arguments.board)
    print(json.dumps(asdict(verified)) if arguments.json else report(verified))
    return 0
