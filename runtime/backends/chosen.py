"""Which backend describes for a ``Localizer``, and whose code searches and governs."""

from __future__ import annotations

import logging
from typing import Any

from tatvpr_edge.runtime.backends import Backend, open_backend
from tatvpr_edge.runtime.backends.cpu import CpuBackend
from tatvpr_edge.runtime.engine import Engine
from tatvpr_edge.spec.artifact import Artifact
from tatvpr_edge.spec.errors import TatvprError, UsageError

_LOG = logging.getLogger("tatvpr_edge")


def engine_of(backend: Backend, artifact: Artifact) -> Engine:
    """Whatever describes, the artifact's code for this machine's CPU searches and governs."""
    return backend.library if isinstance(backend, CpuBackend) else Engine.of(artifact)


def choose_backend(
    artifact: Artifact, name: str | None, kernels: str | None, threads: int, cuda: dict[str, Any]
) -> Backend:
    """The backend asked for; without a name, one of the artifact's own, else the CPU.

    Args:
        kernels, threads: of the CPU's backend.
        cuda: ``cuda_context`` and ``cuda_stream`` of the others.

    Raises:
        UsageError: arguments that the backend would ignore, or no such backend.
        TatvprError: as :func:`open_backend`, of one that was named.
    """
    if any(value is not None for value in cuda.values()) and (
        name == "cpu" or not artifact.manifest.backends
    ):
        raise UsageError(
            "cuda_context and cuda_stream are for the backend tensorrt: build the artifact with "
            "--backend tensorrt, or leave them out"
        )
    if name is None and kernels is None:
        for other in artifact.manifest.backends:
            try:
                return open_backend(other, artifact, **cuda)
            except TatvprError as error:
                _LOG.warning("%s cannot run here (%s); using the CPU library", other, error)
    if name is None or (isinstance(name, str) and name == "cpu"):
        return open_backend("cpu", artifact, kernels=kernels, threads=threads)
    if kernels is not None:
        raise UsageError(f"kernels can be forced on the CPU alone, not on {name}")
    assert name is not None
    return open_backend(name, artifact, **cuda)
